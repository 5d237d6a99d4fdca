//! The vocabulary of the event log.
//!
//! One JSON object per line. Every event has a sequence number from one counter, which is the order that an oracle may
//! rely on: if one event *happened before* another in the machine, its number is smaller. `time_ns` is for people and
//! pictures only.
//!
//! ```text
//! Fetched -> HoldOpened -> [FaultApplied] -> [Parked -> Released]* -> TouchBegan -> TouchEnded -> Executed
//!         -> [Parked -> Released]* -> HoldClosed -> Used -> Signalled
//! ```
//!
//! The ledger under-approximates: `HoldOpened` comes after the pop, and `HoldClosed` before the used index is visible to the guest. So
//! between the two the device certainly owned the frames.

mod misdeed;
mod range;
mod status;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use misdeed::{Fault, Planted};
pub use range::{FRAME_SIZE, GuestRange};
pub use status::Status;

/// Version of the vocabulary; the first line of a log says it ([`EventKind::LogOpened`]).
pub const VERSION: u32 = 1;

/// Position in the order of all events of a run, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

/// One hold of one request, unique in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HoldId(pub u64);

/// A request: the `ordinal`-th that `queue` of `device` fetched since the VM started, from 0, resets not counted anew.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId {
    /// Name of the device.
    pub device: String,
    /// Index of the queue.
    pub queue: u16,
    /// Count of requests fetched before it.
    pub ordinal: u64,
}

/// Direction of a transfer, in the words of the DMA API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// The device reads guest memory (a disk write: write-back).
    ToDevice,
    /// The device writes guest memory (a disk read).
    FromDevice,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Operation {
    /// VIRTIO_BLK_T_IN.
    Read,
    /// VIRTIO_BLK_T_OUT.
    Write,
    /// VIRTIO_BLK_T_FLUSH.
    Flush,
    /// VIRTIO_BLK_T_DISCARD.
    Discard,
    /// VIRTIO_BLK_T_WRITE_ZEROES.
    WriteZeroes,
    /// VIRTIO_BLK_T_GET_ID.
    GetId,
    /// A frame of a network card, to be sent.
    Transmit,
    /// A buffer for a frame that a network card receives; in flight from the moment it is posted.
    Receive,
    /// A command in a network card's control queue.
    Control,
    /// Pages that the guest gives into the balloon.
    Inflate,
    /// Pages that it takes out of the balloon.
    Deflate,
    /// The guest's memory statistics.
    Statistics,
    /// Pages that the guest reports as free.
    ReportFree,
    /// Anything else that was asked for.
    Unknown,
}

/// A point on a request's way where a rule may act and a waiter may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Point {
    /// Popped and copied; its frames are held, nothing was touched.
    Fetched,
    /// The host operation ended; its frames are still held.
    Executed,
    /// The used element is about to be visible to the guest; the hold is closed.
    Completed,
}

/// When a payload was hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Moment {
    /// At the pop.
    Fetch,
    /// What was really sent to the disk: the copy of an early fetch, or guest memory just after the operation of a late one.
    Transfer,
    /// Guest memory just before the hold closes.
    Completion,
}

/// Hash of the part of one frame that a request covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageHash {
    /// Where.
    pub range: GuestRange,
    /// xxh3-64, 16 hex digits.
    pub hash: String,
}

/// How a hold ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HoldEnd {
    /// The request was completed.
    Completed,
    /// A device reset or the end of the machine took it back.
    Abandoned,
}

/// What a parked request waits for, or what let it go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Until {
    /// A gate by name.
    Gate(String),
    /// Another request that shares a frame reaches a point.
    SameFrame {
        /// The point.
        point: Point,
        /// Only requests of this device; absent: any but itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device: Option<String>,
    },
    /// A duration in nanoseconds on the host's clock.
    Duration {
        /// How long.
        ns: u64,
    },
}

/// What let a parked request go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReleaseCause {
    /// Its gate was opened.
    Gate(String),
    /// This request reached the awaited point.
    SameFrame(RequestId),
    /// Its time was over.
    Elapsed,
    /// The machine stops and lets everything go.
    Stopping,
}

/// Frames that a device holds though the guest has called them free.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldFrames {
    /// Which.
    pub range: GuestRange,
    /// Name of the device.
    pub device: String,
    /// Requests that read each of them.
    pub to_device: u32,
    /// Requests that write each of them.
    pub from_device: u32,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its place in the order.
    pub seq: Seq,
    /// Host monotonic time since the log was opened, in nanoseconds.
    pub time_ns: u64,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[expect(
    missing_docs,
    reason = "the fields are explained by their types and the variants"
)]
pub enum EventKind {
    /// First line of a log.
    LogOpened { version: u32 },
    /// A device exists. `kind` is `virtio-blk`, `virtio-pmem`, ...; `fetch` says when it reads a payload by default. `region` is
    /// where a virtio-pmem device's bytes are guest memory.
    DeviceAdded {
        device: String,
        kind: String,
        fetch: Fetch,
        capacity_bytes: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        region: Option<GuestRange>,
    },
    /// The driver wrote the device status register (0 is a reset).
    DeviceStatus { device: String, status: u8 },
    /// DRIVER_OK was handled: the device works with these features.
    Activated { device: String, features: u64 },
    /// A reset was handled; so many holds were abandoned.
    DeviceReset { device: String, abandoned: u64 },
    /// A request was popped and its control bytes copied. `ranges` is its payload (status and header bytes not counted).
    Fetched {
        request: RequestId,
        head: u16,
        operation: Operation,
        sector: u64,
        bytes: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        direction: Option<Direction>,
        ranges: Vec<GuestRange>,
    },
    /// The device owns these frames from here on.
    HoldOpened {
        hold: HoldId,
        request: RequestId,
        direction: Direction,
        ranges: Vec<GuestRange>,
    },
    /// Hashes of a payload.
    PayloadHashed {
        request: RequestId,
        moment: Moment,
        pages: Vec<PageHash>,
    },
    /// A rule acted.
    FaultApplied {
        request: RequestId,
        rule: String,
        point: Point,
        action: String,
    },
    /// A rule's fault is about to take effect: what the guest does about it has a greater number.
    FaultActed { request: RequestId, fault: Fault },
    /// A late or rogue touch has ended: the device touches nothing of it any more.
    FaultTouchEnded { request: RequestId },
    /// The plan was replaced by one with these rules; these of the old one never matched.
    PlanReplaced {
        rules: Vec<String>,
        unmatched: Vec<String>,
    },
    /// The request waits.
    Parked {
        request: RequestId,
        point: Point,
        until: Until,
    },
    /// The request goes on.
    Released {
        request: RequestId,
        by: ReleaseCause,
    },
    /// The device begins to touch the payload (host I/O into or out of guest memory; not for the copy of an early fetch).
    TouchBegan { request: RequestId },
    /// It has stopped touching it.
    TouchEnded { request: RequestId },
    /// The operation ended with this status. `host_error` names the host's errno behind an IOERR.
    Executed {
        request: RequestId,
        status: Status,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host_error: Option<String>,
    },
    /// The device does not own the frames any more.
    HoldClosed {
        hold: HoldId,
        request: RequestId,
        how: HoldEnd,
    },
    /// The used element is visible to the guest.
    Used {
        request: RequestId,
        head: u16,
        status: Status,
        written: u32,
    },
    /// The guest was told.
    Signalled { device: String, queue: u16 },
    /// The guest did what the specification forbids; `answer` is what it got.
    GuestMistake {
        device: String,
        queue: u16,
        what: String,
        answer: String,
    },
    /// A network card lost a frame that came in: no posted buffer had room for it.
    FrameDropped {
        device: String,
        queue: u16,
        bytes: u64,
        why: String,
    },
    /// The link of a network card went up or down.
    LinkChanged { device: String, up: bool },
    /// A part of the machine misbehaves because a self-test planted it.
    PlantedFault {
        request: RequestId,
        planted: Planted,
    },
    /// The guest has called the frames of this request free (its [`EventKind::Fetched`] names them), and the ledger was asked:
    /// `bytes` of them may be discarded, those in `held` belong to a device and are kept. The request is acknowledged later.
    FramesFreed {
        request: RequestId,
        bytes: u64,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        held: Vec<HeldFrames>,
    },
    /// A device gave some of guest memory back: so much of it was in the host's memory before, so much is now.
    HostMemory {
        device: String,
        before_bytes: u64,
        resident_bytes: u64,
    },
    /// The host asks for a balloon of this size.
    BalloonTarget { device: String, bytes: u64 },
    /// The driver says that its balloon has this size.
    BalloonActual {
        device: String,
        bytes: u64,
        target_bytes: u64,
    },
    /// The driver says how the guest's memory is used.
    BalloonStatistics {
        device: String,
        statistics: BTreeMap<String, u64>,
    },
    /// Somebody opened a gate.
    GateOpened { gate: String },
    /// Somebody outside used the control socket: `pause`, `resume`, `reset`, `power-off`, `plan`.
    Control { action: String, detail: String },
    /// At the end: a rule that matched nothing.
    RuleUnmatched { rule: String },
    /// A step of the guest's agent is about to begin (stamped at a VM exit just before its first system call).
    StepBegan { step: u32 },
    /// It has ended (stamped just after).
    StepEnded { step: u32 },
    /// The scenario sent this step to the guest; `step` is its JSON text.
    StepSent {
        step: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thread: Option<String>,
        name: String,
        text: String,
    },
    /// The agent's report, as its JSON text.
    AgentReport { text: String },
    /// The scenario says what it knows, for the oracles and the picture (`key` names it).
    Fact {
        key: String,
        value: serde_json::Value,
    },
    /// A line of the guest's console.
    Console { line: String },
    /// The guest was started (boot 1, 2, ...).
    BootBegan { boot: u32 },
    /// The guest was not booted: it goes on from this snapshot. What it had done before is in no log; its agent's first word follows.
    Restored { snapshot: String },
    /// The machine ended: `power-off`, `reset`, `panic`, `hang`, `stopped`, `failed`.
    MachineEnded { how: String, detail: String },
}

/// When the payload of a write is read from guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Fetch {
    /// Copied at the pop.
    Early,
    /// Read from guest memory when the operation runs.
    #[default]
    Late,
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}#{}", self.device, self.queue, self.ordinal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_survives_its_line() {
        let event = Event {
            seq: Seq(7),
            time_ns: 12,
            kind: EventKind::Parked {
                request: RequestId {
                    device: "b".into(),
                    queue: 0,
                    ordinal: 3,
                },
                point: Point::Fetched,
                until: Until::SameFrame {
                    point: Point::Executed,
                    device: None,
                },
            },
        };
        let line = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
        assert!(
            line.starts_with(r#"{"seq":7,"time_ns":12,"event":"parked""#),
            "{line}"
        );
    }
}
