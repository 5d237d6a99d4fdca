//! Which steps of the guest's agent are under way, by name. Who runs the machine tells; rules with `mark` ask.
//!
//! The agent marks the beginning and the end of a step by its number, at a VM exit, so a rule sees a step before the
//! guest runs its first system call.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// All steps of a machine.
#[derive(Debug, Default)]
pub struct Marks {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    names: BTreeMap<u32, String>,
    under_way: BTreeSet<u32>,
}

impl Marks {
    /// A step that will be run has this name.
    pub fn name(&self, step: u32, name: &str) {
        self.lock().names.insert(step, name.to_owned());
    }

    /// A step begins.
    pub fn begin(&self, step: u32) {
        self.lock().under_way.insert(step);
    }

    /// A step has ended.
    pub fn end(&self, step: u32) {
        self.lock().under_way.remove(&step);
    }

    /// The guest starts again: nothing is under way.
    pub fn restart(&self) {
        self.lock().under_way.clear();
    }

    /// Whether a step of this name is under way.
    #[must_use]
    pub fn is_under_way(&self, name: &str) -> bool {
        let state = self.lock();
        let names = |step| state.names.get(step);
        state
            .under_way
            .iter()
            .filter_map(names)
            .any(|other| other == name)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_there_while_a_step_of_its_name_is_under_way() {
        let marks = Marks::default();
        marks.name(3, "read");
        marks.name(4, "read");
        assert!(!marks.is_under_way("read"));
        marks.begin(3);
        marks.begin(4);
        marks.end(3);
        assert!(marks.is_under_way("read") && !marks.is_under_way("write"));
        marks.end(4);
        assert!(!marks.is_under_way("read"));
        marks.begin(9);
        assert!(!marks.is_under_way(""), "a step without a name");
    }
}
