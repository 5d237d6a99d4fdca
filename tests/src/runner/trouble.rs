//! Why a choreography could not go on.

use pincushion_devices::trace::EventKind;
use serde_json::json;

/// Why. None of these is a finding; the oracles look for those in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// A step came out otherwise than the scenario needs.
    Unmet {
        step: u32,
        title: String,
        wanted: String,
        got: String,
    },
    /// A step or the guest did not end within its limit.
    Hang(String),
    /// The scenario cannot go on: what it waits for did not happen, or a value is missing.
    Stuck(String),
    /// The machine ended too early.
    Ended { doing: String, how: String },
    /// The kernel lacks what the scenario is about.
    NotApplicable { step: u32, needs: String },
    /// The guest or the host lacks something.
    Setup(String),
}

impl Trouble {
    /// How the log calls the machine's end, if it is to be stopped for this.
    pub(super) fn stop_as(&self) -> &'static str {
        match self {
            Self::Hang(_) => "hang",
            Self::Setup(_) => "failed",
            Self::Unmet { .. }
            | Self::Stuck(_)
            | Self::NotApplicable { .. }
            | Self::Ended { .. } => "stopped",
        }
    }

    /// What the log says about it. `last_step` is the agent's, `title` says what the scenario was about to do.
    pub(super) fn fact(&self, last_step: u32, title: &str) -> EventKind {
        let (step, wanted, got) = match self {
            Self::NotApplicable { step, needs } => {
                return EventKind::Fact {
                    key: "not-applicable".into(),
                    value: json!({ "step": step, "needs": needs }),
                };
            }
            Self::Unmet {
                step,
                title,
                wanted,
                got,
            } => (*step, format!("{title}: {wanted}"), got.clone()),
            Self::Ended { doing, how } => (
                last_step,
                doing.clone(),
                format!("the machine ended ({how})"),
            ),
            Self::Hang(text) | Self::Stuck(text) | Self::Setup(text) => {
                (last_step, format!("`{title}`"), text.clone())
            }
        };
        EventKind::Fact {
            key: "step-failed".into(),
            value: json!({ "step": step, "wanted": wanted, "got": got }),
        }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unmet {
                step,
                title,
                wanted,
                got,
            } => write!(f, "step {step} ({title}): wanted {wanted}, got {got}"),
            Self::NotApplicable { step, needs } => {
                write!(f, "not applicable: the kernel lacks {needs} (step {step})")
            }
            Self::Ended { doing, how } => write!(f, "the machine ended ({how}) while: {doing}"),
            Self::Hang(text) | Self::Stuck(text) | Self::Setup(text) => write!(f, "{text}"),
        }
    }
}
