//! Pages that the kernel pinned and never let go.
//!
//! Verifies that the kernel's own counters of acquired and released pins agree whenever the scenario says that nothing is under way, and that
//! no device holds a frame at that moment.
//!
//! Does not verify counters that were read while something was in flight: those are only counted. A pin that is released and not dropped
//! twice over is not seen either: the counters are sums.

use pincushion_devices::trace::event::{Event, EventKind};

use super::bench::{Opinion, Oracle, merge};
use crate::timeline::{Fact, Timeline};
use crate::verdict::{Certainty, Finding, Promise};

const NAME: &str = "pins-balanced";

/// The oracle.
#[derive(Default)]
pub(super) struct PinsBalanced {
    /// Places of readings at which a device held a frame.
    busy: Vec<u64>,
}

impl Oracle for PinsBalanced {
    fn name(&self) -> &'static str {
        NAME
    }

    fn feed(&mut self, event: &Event, timeline: &Timeline) {
        if matches!(&event.kind, EventKind::Fact { key, .. } if key == "pins")
            && timeline.anything_held()
        {
            self.busy.push(event.seq.0);
        }
    }

    fn say(&self, timeline: &Timeline, opinion: &mut Opinion) {
        let mut findings = Vec::new();
        for (at, fact) in &timeline.facts {
            let Fact::Pins(pins) = fact else { continue };
            if !pins.at_rest || self.busy.contains(&at.seq) {
                opinion.count("pins-balanced.not-at-rest", 1);
            } else if pins.acquired == pins.released {
                opinion.count("pins-balanced.balanced", 1);
            } else {
                findings.push(Finding {
                    oracle: NAME.to_owned(),
                    title: "pins are not balanced at rest".to_owned(),
                    promise: Promise::O2,
                    certainty: Certainty::Certain,
                    text: format!(
                        "Nothing was under way, and the kernel had acquired {} pins and released {}.",
                        pins.acquired, pins.released
                    ),
                    evidence: vec![at.seq],
                    frames: Vec::new(),
                });
            }
        }
        opinion.findings.extend(merge(findings));
    }
}

#[cfg(test)]
mod tests {
    use pincushion_devices::trace::event::Operation;
    use serde_json::json;

    use super::*;
    use crate::oracle::bench::ask;
    use crate::timeline::script::{Script, frame};

    #[test]
    fn a_pin_that_is_left_at_rest_is_caught() {
        let mut script = Script::booted();
        script.fact("pins", json!({"acquired": 5, "released": 4}));
        assert_eq!(ask(PinsBalanced::default(), &script).findings.len(), 1);
    }

    #[test]
    fn balanced_counters_pass_and_so_does_a_pin_under_a_transfer() {
        let mut script = Script::booted();
        script.fact("pins", json!({"acquired": 5, "released": 5}));
        script.fact(
            "pins",
            json!({"acquired": 6, "released": 5, "at_rest": false}),
        );
        script.fetch("b#0", Operation::Read, frame(7));
        script.fact("pins", json!({"acquired": 6, "released": 5}));
        script.finish("b#0");
        script.fact("pins", json!({"acquired": 6, "released": 6}));
        let opinion = ask(PinsBalanced::default(), &script);
        assert!(opinion.findings.is_empty(), "{opinion:?}");
        assert_eq!(opinion.counts["pins-balanced.not-at-rest"], 2);
    }
}
