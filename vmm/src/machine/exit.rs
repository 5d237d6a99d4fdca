//! How a run ends.

use std::fmt;
use std::time::Duration;

use crate::vcpu_report::VcpuReport;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// The guest powered the machine off.
    PowerOff,
    /// The guest reset the machine (and the machine was not to boot again).
    Reset,
    /// The guest's kernel panicked.
    Panic {
        /// The reason, as the kernel printed it; empty where only pvpanic told.
        message: String,
    },
    /// The guest's processor shut down: a fault while handling a fault while handling a fault.
    TripleFault {
        /// Which vCPU.
        vcpu: u8,
    },
    /// The run took longer than its limit.
    Hang {
        /// The limit.
        limit: Duration,
        /// Where the vCPUs were.
        vcpus: Vec<VcpuReport>,
    },
    /// The caller stopped it.
    Stopped,
    /// KVM could not go on with a vCPU: an instruction that it cannot emulate, or a state that it refuses.
    KvmGaveUp {
        /// Which vCPU.
        vcpu: u8,
        /// What KVM said, and where.
        reason: String,
    },
    /// The host or one of our threads failed.
    Failed {
        /// What happened.
        reason: String,
    },
}

impl Exit {
    /// The word of [`EventKind::MachineEnded`](pincushion_devices::trace::EventKind::MachineEnded).
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Exit::PowerOff => "power-off",
            Exit::Reset => "reset",
            Exit::Panic { .. } | Exit::TripleFault { .. } => "panic",
            Exit::Hang { .. } => "hang",
            Exit::Stopped => "stopped",
            Exit::KvmGaveUp { .. } | Exit::Failed { .. } => "failed",
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::PowerOff => write!(f, "the guest powered off"),
            Exit::Reset => write!(f, "the guest reset the machine"),
            Exit::Panic { message } if message.is_empty() => {
                write!(f, "the guest's kernel panicked")
            }
            Exit::Panic { message } => write!(f, "the guest's kernel panicked: {message}"),
            Exit::TripleFault { vcpu } => {
                write!(f, "the guest's vcpu{vcpu} shut down by a triple fault")
            }
            Exit::Hang { limit, vcpus } => {
                write!(f, "the guest did not end within {limit:?}")?;
                for vcpu in vcpus {
                    write!(f, "; {vcpu}")?;
                }
                Ok(())
            }
            Exit::Stopped => write!(f, "the machine was stopped"),
            Exit::KvmGaveUp { vcpu, reason } => write!(f, "KVM gave up on vcpu{vcpu}: {reason}"),
            Exit::Failed { reason } => write!(f, "the machine failed: {reason}"),
        }
    }
}
