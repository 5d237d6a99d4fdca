//! What changes from one row to another, said of all designs with which the same does.

use super::list;

/// What one row keeps and breaks other than another.
#[derive(PartialEq, Eq)]
pub(super) struct Gain {
    /// What is different between the two.
    pub(super) case: String,
    /// What the other breaks.
    pub(super) kept: Vec<String>,
    /// What the other keeps.
    pub(super) lost: Vec<String>,
}

impl Gain {
    pub(super) fn said_of(&self, designs: &[String]) -> String {
        let s = if designs.len() == 1 { "s" } else { "" };
        let designs = list(designs);
        let changes = match (&self.kept[..], &self.lost[..]) {
            ([], []) => format!("nothing changes with {designs}"),
            (kept, []) => format!("{designs} keep{s} {}", list(kept)),
            ([], lost) => format!("{designs} break{s} {}", list(lost)),
            (kept, lost) => format!(
                "{designs} keep{s} {}, and break{s} {}",
                list(kept),
                list(lost)
            ),
        };
        format!("{}: {changes}.", self.case)
    }
}
