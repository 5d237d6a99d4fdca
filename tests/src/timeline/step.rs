//! The guest's steps: what the scenario asked the agent to do, when it began and ended, and what came of it.

use pincushion_abi::Outcome;

use super::request::Stamp;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its number, unique in a run.
    pub id: u32,
    /// Which thread of the agent; absent: the main one.
    pub thread: Option<String>,
    /// The scenario's name for it.
    pub name: String,
    /// Its kind, as the step vocabulary spells it (`fsync`); empty where the log does not say.
    pub op: String,
    /// What exactly it was asked to do; `None` where the log does not say, or in words that are not known.
    pub act: Option<pincushion_abi::Step>,
    /// When the scenario sent it.
    pub sent: Option<Stamp>,
    /// Stamped just before its first system call.
    pub began: Option<Stamp>,
    /// Stamped just after its last.
    pub ended: Option<Stamp>,
    /// What came of it, and when that was known.
    pub outcome: Option<(Stamp, Outcome)>,
}

impl Step {
    /// A step of which nothing but the number is known.
    #[must_use]
    pub fn new(id: u32) -> Self {
        Self {
            id,
            thread: None,
            name: format!("step {id}"),
            op: String::new(),
            act: None,
            sent: None,
            began: None,
            ended: None,
            outcome: None,
        }
    }

    /// Whether it ended and did what it was asked.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.ended.is_some() && matches!(self.outcome, Some((_, Outcome::Ok(_))))
    }
}

/// What a step was asked to do, from its JSON text.
pub(super) fn act(text: &str) -> Option<pincushion_abi::Step> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    serde_json::from_value(bare(&value).clone()).ok()
}

/// The text is the bare step, or the whole request that carries it. (A step in a child has a step inside, and an `op` too.)
fn bare(value: &serde_json::Value) -> &serde_json::Value {
    if value["step"].is_object() && value["op"].is_null() {
        &value["step"]
    } else {
        value
    }
}

/// The kind of a step, from its JSON text. A step in a child is named by what the child does.
pub(super) fn op(text: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let step = bare(&value);
    let inner = if step["op"] == "in-child" {
        &step["step"]
    } else {
        step
    };
    inner["op"].as_str().unwrap_or_default().to_owned()
}
