//! How a run ends.

use std::fmt;
use std::time::Duration;

use crate::vcpu::VcpuReport;

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
    /// KVM or the host failed.
    Failed {
        /// What happened.
        reason: String,
    },
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
                    let state = if vcpu.halted { "idle" } else { "running" };
                    write!(f, "; vcpu{} {state} at {:#x}", vcpu.index, vcpu.rip)?;
                }
                Ok(())
            }
            Exit::Stopped => write!(f, "the machine was stopped"),
            Exit::Failed { reason } => write!(f, "the machine failed: {reason}"),
        }
    }
}
