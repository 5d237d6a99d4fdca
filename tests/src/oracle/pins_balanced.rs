//! Pages that the kernel pinned and never let go.
//!
//! Verifies that the kernel's own counters of acquired and released pins agree whenever the scenario says that nothing is under way, and that
//! no device holds a frame at that moment.
//!
//! Does not verify counters that were read while something was in flight: those are only counted. So are those that do not agree after the
//! plan kept a completion from the guest or let a device scribble over memory. A pin that is released twice, while another is never
//! released, is not seen either: the counters are sums.

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
    /// Places of readings at which the guest may have waited for a completion that the plan kept from it.
    left_waiting: Vec<u64>,
}

impl Oracle for PinsBalanced {
    fn name(&self) -> &'static str {
        NAME
    }

    fn feed(&mut self, event: &Event, timeline: &Timeline) {
        if !matches!(&event.kind, EventKind::Fact { key, .. } if key == "pins") {
            return;
        }
        if timeline.anything_held() {
            self.busy.push(event.seq.0);
        }
        let boot = timeline.boots.last().map_or(0, |boot| boot.number);
        if timeline.guest_was_left_waiting(boot, event.seq.0)
            || timeline.memory_was_spoiled(boot, event.seq.0)
        {
            self.left_waiting.push(event.seq.0);
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
            } else if self.left_waiting.contains(&at.seq) {
                opinion.count("pins-balanced.after-a-planned-fault", 1);
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
    use pincushion_devices::trace::event::{Fault, Operation};
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

    #[test]
    fn a_guest_that_waits_for_an_interrupt_that_the_plan_dropped_may_keep_its_pins() {
        let mut script = Script::booted();
        script.whole("b#0", Operation::Read, frame(7));
        script.fault("b#0", Fault::InterruptDropped);
        script.fact(
            "pins",
            json!({"acquired": 5, "released": 4, "at_rest": true}),
        );
        let opinion = ask(PinsBalanced::default(), &script);
        assert!(opinion.findings.is_empty(), "{opinion:?}");
        assert_eq!(opinion.counts["pins-balanced.after-a-planned-fault"], 1);
    }
}
