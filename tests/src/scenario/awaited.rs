//! What a scenario waits for: an event of the machine, narrowed.

use pincushion_devices::trace::event::Operation;
use serde::{Deserialize, Serialize};

use super::check::{known_disk, size};
use super::model::Scenario;

/// What to wait for. Each event is counted once: a second `await` of the same thing waits for the next one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Await {
    /// What happened.
    pub event: Awaited,
    /// To which device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// In a request of this kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// For `rule`: the rule's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// For `host-memory`: before, the host had at least so much of guest memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above: Option<String>,
    /// For `host-memory`: afterwards it has at most so much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<String>,
    /// For `freed`: at least so much, in `count` requests or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<String>,
    /// How often.
    #[serde(default = "one")]
    pub count: u32,
}

pub(super) fn one() -> u32 {
    1
}

/// Events that can be awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Awaited {
    /// A request was popped.
    Fetched,
    /// A request waits.
    Parked,
    /// A request goes on.
    Released,
    /// A request that was parked is done with its frames.
    HoldEnded,
    /// A request's work ended.
    Executed,
    /// The guest sees that a request is done.
    Used,
    /// A rule acted.
    Rule,
    /// A planted fault acted.
    Planted,
    /// A late or rogue touch that the plan asked for has ended.
    FaultTouchEnded,
    /// A device was reset.
    DeviceReset,
    /// The guest called frames free.
    Freed,
    /// The guest called frames free that a device holds.
    FreedWhileHeld,
    /// A device gave guest memory back to the host.
    HostMemory,
    /// The balloon has the size that the host asked for.
    BalloonReached,
    /// The guest told its statistics.
    BalloonStatistics,
    /// The machine ended.
    MachineEnded,
}

impl Await {
    /// Refuses what cannot be meant.
    pub(super) fn check(&self, scenario: &Scenario) -> Result<(), String> {
        if let Some(device) = &self.device {
            known_disk(scenario, device)?;
        }
        if (self.event == Awaited::Rule) != self.rule.is_some() {
            return Err("await: `rule` goes with event = \"rule\", and only with it".into());
        }
        let limits = [&self.above, &self.below, &self.bytes];
        for bytes in limits.into_iter().flatten() {
            size(bytes).map_err(|problem| format!("await: {problem}"))?;
        }
        let of_memory = self.above.is_some() || self.below.is_some();
        if of_memory && self.event != Awaited::HostMemory {
            return Err("await: `above` and `below` go with event = \"host-memory\"".into());
        }
        if self.bytes.is_some() && self.event != Awaited::Freed {
            return Err("await: `bytes` goes with event = \"freed\"".into());
        }
        if self.count == 0 {
            return Err("await: count = 0 waits for nothing".into());
        }
        Ok(())
    }
}
