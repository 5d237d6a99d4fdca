//! What goes over the socket. The OpenAPI file is made from these types.
//!
//! Durations are whole numbers with their unit in the name. Words (operations, points) are those of the event log.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::machine::RunState;

/// What the machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Not started yet.
    Starting,
    /// The vCPUs run.
    Running,
    /// The vCPUs stand still and the devices take no new work.
    Paused,
    /// The run is over.
    Ended,
}

impl From<RunState> for State {
    fn from(state: RunState) -> Self {
        match state {
            RunState::Starting => Self::Starting,
            RunState::Running => Self::Running,
            RunState::Paused => Self::Paused,
            RunState::Ended => Self::Ended,
        }
    }
}

/// The machine at a glance.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Machine {
    /// What it does.
    pub state: State,
    /// Version of the program.
    pub version: String,
    /// Process that runs the machine.
    pub pid: u32,
    /// Since its first start, pauses included.
    pub uptime_ms: u64,
    /// Times that the guest was started.
    pub boots: u32,
    /// Its virtual processors.
    pub vcpus: u32,
    /// Its memory.
    pub memory_bytes: u64,
    /// Its kernel's file.
    pub kernel: String,
    /// Holds that are open now.
    pub holds: u64,
    /// Requests that wait for a gate, a frame or a time now.
    pub parked: u64,
    /// Requests between pop and used element now.
    pub in_flight: u64,
    /// Number of the latest event.
    pub events: u64,
    /// Whether the rules of the plan act.
    pub plan_armed: bool,
}

/// Says once more what is wanted, so that nobody ends a guest by a wrong address.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PowerOff {
    /// The words `power-off`.
    pub confirm: ConfirmPowerOff,
}

/// The only word that powers off.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ConfirmPowerOff {
    /// Yes.
    PowerOff,
}

/// Says once more what is wanted, so that nobody resets a guest by a wrong address.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reset {
    /// The word `reset`.
    pub confirm: ConfirmReset,
}

/// The only word that resets.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ConfirmReset {
    /// Yes.
    Reset,
}

/// Where a snapshot is wanted.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotOrder {
    /// Absolute path of a file on the machine's host. What is there is replaced when the snapshot is whole.
    pub path: String,
}

/// A snapshot that was made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SnapshotMade {
    /// Where it is.
    pub path: String,
    /// Its length.
    pub bytes: u64,
}

/// The devices of the machine.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Devices {
    /// In the order of the configuration.
    pub devices: Vec<Device>,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Device {
    /// Its name on the command line.
    pub name: String,
    /// Virtio device id (virtio 1.2, section 5).
    pub virtio_id: u32,
    /// Number of its queues.
    pub queues: u16,
    /// How long each of its requests is held that no rule of the plan speaks of, in milliseconds; 0: not at all.
    pub hold_ms: u64,
    /// What may be changed while it runs, by name.
    pub settings: Vec<Setting>,
}

/// Something about a device that may be changed while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// Its value now.
    pub value: u64,
    /// Unit of the value.
    pub unit: String,
}

/// Changes of a device. What is left out stays as it is; either all is changed or nothing.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceChange {
    /// Hold each request that no rule of the plan speaks of for so many milliseconds (at most an hour); 0: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 3_600_000)]
    pub hold_ms: Option<u64>,
    /// New values of the device's settings, by name.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub settings: std::collections::BTreeMap<String, u64>,
}

/// Which holds.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HoldsQuery {
    /// Only of this device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Go on from here: `next` of the page before.
    #[serde(default)]
    pub after: u64,
    /// At most so many, 1 to 1000.
    #[serde(default = "default_limit")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: usize,
}

fn default_limit() -> usize {
    100
}

/// Open holds, the oldest first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Holds {
    /// Holds that are open now, of all devices and on all pages.
    pub total: u64,
    /// Those of this page.
    pub holds: Vec<Hold>,
    /// Ask with `after` of this number for the next page; absent on the last one. A page may be empty and not the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// The frames of one request, which its device owns now.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Hold {
    /// Its name in the event log.
    pub hold: u64,
    /// Name of the device.
    pub device: String,
    /// Index of the queue.
    pub queue: u16,
    /// Count of requests that the queue fetched before.
    pub ordinal: u64,
    /// Head of the descriptor chain.
    pub head: u16,
    /// What the request asks for.
    pub operation: String,
    /// `to-device`: the device reads the frames; `from-device`: it writes them.
    pub direction: String,
    /// First sector.
    pub sector: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// Where in guest memory.
    pub ranges: Vec<Range>,
    /// Since the hold was opened.
    pub age_us: u64,
    /// Whether the device touches the frames at this moment.
    pub touching: bool,
    /// What the request waits for; absent while it is not parked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<Wait>,
}

/// A piece of guest memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Range {
    /// Guest physical address of its first byte.
    pub address: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// Number of its first frame.
    pub first_frame: u64,
    /// Number of frames that it touches.
    pub frames: u64,
}

/// Why a request does not go on.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Wait {
    /// Where on its way: `fetched` or `executed`.
    pub point: String,
    /// What for, in words.
    pub what: String,
    /// The same, as the event log says it.
    #[schema(value_type = Object)]
    pub until: serde_json::Value,
    /// Since it was parked.
    pub age_us: u64,
}

/// Who holds a frame now.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Frame {
    /// Number of the frame.
    pub frame: u64,
    /// Guest physical address of its first byte.
    pub address: u64,
    /// Devices that hold it.
    pub holders: Vec<Holder>,
}

/// How often a device holds a frame.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Holder {
    /// Name of the device.
    pub device: String,
    /// Requests that read the frame.
    pub to_device: u32,
    /// Requests that write the frame.
    pub from_device: u32,
}

/// The gates that anybody has spoken of.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Gates {
    /// By name.
    pub gates: Vec<Gate>,
}

/// A gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Gate {
    /// Its name.
    pub name: String,
    /// Whether it was opened; an open gate holds nobody and is never closed.
    pub open: bool,
    /// Requests that wait there now.
    pub waiting: u64,
    /// Whether the plan names it.
    pub in_plan: bool,
}

/// Options of opening a gate.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct OpenQuery {
    /// Open it although neither the plan names it nor a request waits there.
    #[serde(default)]
    pub undeclared: bool,
}

/// The fault plan.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// Whether its rules act.
    pub armed: bool,
    /// As docs/fault-plan.md spells it, in JSON.
    #[schema(value_type = Object)]
    pub plan: serde_json::Value,
    /// The same in TOML.
    pub toml: String,
    /// Its rules, in order of precedence.
    pub rules: Vec<Rule>,
}

/// A rule of the plan.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Rule {
    /// Its name, or `rule N`.
    pub name: String,
    /// Times that it acted since the plan was put in its place.
    pub acted: u64,
}

/// A plan to put in the place of the present one.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPlan {
    /// As docs/fault-plan.md spells it, in JSON: `{"seed": 1, "rule": [...]}`. Give this or `toml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub plan: Option<serde_json::Value>,
    /// The text of a plan file. Give this or `plan`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toml: Option<String>,
    /// Whether its rules act at once.
    #[serde(default = "yes")]
    pub armed: bool,
}

fn yes() -> bool {
    true
}

/// Which events.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// Only events with a greater number; 0: from the oldest that is kept.
    #[serde(default)]
    pub after: u64,
    /// At most so many, 1 to 10000.
    #[serde(default = "default_events")]
    #[param(minimum = 1, maximum = 10000)]
    pub limit: usize,
    /// Where there is none yet, wait so long for one, at most 60000.
    #[serde(default)]
    #[param(maximum = 60000)]
    pub wait_ms: u64,
}

fn default_events() -> usize {
    1000
}

/// Where a stream begins.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StreamQuery {
    /// Only events with a greater number; absent: only those that come from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
}

/// A piece of the event log.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Events {
    /// As lines of the event log have them, in order.
    #[schema(value_type = Vec<Object>)]
    pub events: Vec<serde_json::Value>,
    /// Events after `after` that are gone, because they were asked for too late.
    pub lost: u64,
    /// Ask with `after` of this number next.
    pub next: u64,
    /// Number of the latest event.
    pub newest: u64,
    /// No event will come any more.
    pub ended: bool,
}

/// All counters.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Metrics {
    /// By name.
    pub devices: Vec<DeviceMetrics>,
    /// Number of the latest event.
    pub events: u64,
    /// Events that a client can get no more.
    pub events_evicted: u64,
    /// Events that the log's file did not take.
    pub events_lost: u64,
}

/// Counters of a device since the machine was started.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DeviceMetrics {
    /// Its name.
    pub device: String,
    /// Times that a driver set it up.
    pub activations: u64,
    /// Times that it was reset.
    pub resets: u64,
    /// By index.
    pub queues: Vec<QueueMetrics>,
}

/// Counters of a queue since the machine was started. Bytes and failures are counted when a request is given back.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct QueueMetrics {
    /// Its index.
    pub queue: u16,
    /// Requests popped.
    pub fetched: u64,
    /// Requests given back.
    pub used: u64,
    /// Of those, with a status other than OK.
    pub failed: u64,
    /// Bytes that the device was asked to read from guest memory.
    pub bytes_to_device: u64,
    /// Bytes that the device was asked to write to guest memory.
    pub bytes_from_device: u64,
    /// Times that a rule acted.
    pub faults: u64,
    /// Times that a request was parked.
    pub parkings: u64,
    /// Holds taken back by a reset.
    pub abandoned: u64,
    /// Interrupts.
    pub signals: u64,
    /// What the guest did wrong.
    pub guest_mistakes: u64,
    /// Requests between pop and used element now.
    pub in_flight: u64,
    /// Holds that are open now.
    pub held: u64,
    /// Requests that wait now.
    pub parked: u64,
    /// From the pop to the used element.
    pub latency: Durations,
    /// From the opening of a hold to its end.
    pub hold_time: Durations,
}

/// A histogram. Percentiles are bounds of buckets that double, so up to twice the true value.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Durations {
    /// How many.
    pub count: u64,
    /// Their sum.
    pub sum_ns: u64,
    /// Half of them are not longer.
    pub p50_ns: u64,
    /// Of a hundred, one is longer.
    pub p99_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// Counts of those that are not longer than 1000 ns, 2000 ns, 4000 ns, ... and longer than in the bucket before; the
    /// last is of all the rest.
    pub buckets: Vec<u64>,
}
