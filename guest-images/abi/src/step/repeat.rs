//! A step that is done again and again.

use serde::{Deserialize, Serialize};

use super::Step;
use super::kinds::ten_seconds;

/// Does a step `count` times, or for `limit_ms` if that comes first, and stops where it fails: its fault is then the fault of this step, which
/// has one pair of marks around all of them. It is for what no event can bring about, where two threads must meet by chance. Values:
/// `rounds`. It takes the steps that a forked child takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repeat {
    /// What to do.
    pub step: Box<Step>,
    /// So often at most.
    pub count: u32,
    /// So long at most.
    #[serde(default = "ten_seconds")]
    pub limit_ms: u64,
}
