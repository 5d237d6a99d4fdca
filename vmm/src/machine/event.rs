//! What happens in a running machine, on its way to the one who waits for it.

use std::path::PathBuf;

use super::remote::{Order, Reply, SnapshotReply};
use crate::bus::Flow;

/// Something that may end the run. Sent by vCPU threads, the console, [`super::StopHandle`] and [`super::Remote`].
#[derive(Debug)]
pub(crate) enum MachineEvent {
    /// A vCPU's write asked for this; that vCPU has stopped.
    Asked {
        /// Which vCPU.
        vcpu: u8,
        /// Never [`Flow::Continue`].
        flow: Flow,
    },
    /// A vCPU shut down by a triple fault; it has stopped.
    TripleFault {
        /// Which vCPU.
        vcpu: u8,
    },
    /// KVM could not run a vCPU; it has stopped.
    VcpuFailed {
        /// Which vCPU.
        vcpu: u8,
        /// Why.
        reason: String,
    },
    /// The thread of a vCPU has panicked, in a device or in whoever hears the agent.
    VcpuPanicked {
        /// Which vCPU.
        vcpu: u8,
    },
    /// The device thread has panicked.
    DevicesFailed,
    /// The console showed the first line of a kernel panic, with this reason.
    PanicBegan(String),
    /// The console showed the last line of a kernel panic.
    PanicEnded,
    /// Somebody wants the machine to stop.
    Stop,
    /// Somebody wants something of the machine, and to hear what came of it.
    Order {
        /// What.
        order: Order,
        /// Who wants to know.
        reply: Reply,
    },
    /// Somebody wants a snapshot.
    Snapshot {
        /// Where.
        path: PathBuf,
        /// What it is to remember.
        note: String,
        /// Who wants to know.
        reply: SnapshotReply,
    },
}
