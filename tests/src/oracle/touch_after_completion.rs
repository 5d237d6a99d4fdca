//! A device touched memory that it had given back.
//!
//! Verifies that each touch of a request's payload lies within its hold: it did not begin after the hold closed, and did not end after it. Since
//! the hold closes before the guest can know of the completion, this is a fault of the machine and makes every other finding about
//! that frame doubtful.
//!
//! Does not verify touches that the device does not log.

use super::bench::{Opinion, Oracle, machine_finding, merge};
use crate::timeline::Timeline;

const NAME: &str = "touch-after-completion";

/// The oracle.
pub(super) struct TouchAfterCompletion;

impl Oracle for TouchAfterCompletion {
    fn name(&self) -> &'static str {
        NAME
    }

    fn say(&self, timeline: &Timeline, opinion: &mut Opinion) {
        let mut findings = Vec::new();
        for request in &timeline.requests {
            let Some(hold) = &request.hold else { continue };
            let Some(closed) = hold.span.ended else {
                continue;
            };
            let late = request.touches.iter().find(|touch| {
                touch.began > closed || touch.ended.is_some_and(|ended| ended > closed)
            });
            let Some(touch) = late else { continue };
            let text = format!(
                "The hold of the {} was closed at event {}, and the device touched its payload from event {} on.",
                request.name(),
                closed.seq,
                touch.began.seq
            );
            let evidence = [
                Some(hold.span.began),
                Some(closed),
                Some(touch.began),
                touch.ended,
            ];
            let evidence = evidence
                .into_iter()
                .flatten()
                .map(|stamp| stamp.seq)
                .collect();
            let mut finding = machine_finding(
                NAME,
                "a device touched memory after it had given it back",
                text,
                evidence,
            );
            finding.frames = hold
                .ranges
                .iter()
                .flat_map(|range| range.frames())
                .collect();
            findings.push(finding);
        }
        opinion.findings.extend(merge(findings));
    }
}

#[cfg(test)]
mod tests {
    use pincushion_devices::trace::event::{EventKind, Fault, HoldEnd, Operation};

    use super::*;
    use crate::oracle::bench::ask;
    use crate::timeline::script::{Script, frame, id};

    #[test]
    fn a_touch_after_the_hold_is_caught_with_its_frames() {
        let mut script = Script::booted();
        script.whole("b#0", Operation::Read, frame(7));
        script.touch("b#0");
        let opinion = ask(TouchAfterCompletion, &script);
        assert_eq!(opinion.findings[0].frames, [7]);
    }

    #[test]
    fn a_touch_that_outlasts_the_hold_is_caught() {
        let mut script = Script::booted();
        script.fetch("b#0", Operation::Read, frame(7));
        script.push(EventKind::TouchBegan { request: id("b#0") });
        script.close("b#0", HoldEnd::Abandoned);
        script.push(EventKind::TouchEnded { request: id("b#0") });
        assert_eq!(ask(TouchAfterCompletion, &script).findings.len(), 1);
    }

    #[test]
    fn touches_within_the_hold_pass() {
        let mut script = Script::booted();
        script.whole("b#0", Operation::Read, frame(7));
        script.whole("a#0", Operation::Write, frame(7));
        assert_eq!(ask(TouchAfterCompletion, &script), Opinion::default());
    }

    #[test]
    fn a_late_touch_that_the_plan_asked_for_is_no_bug_of_the_machine() {
        let mut script = Script::booted();
        script.whole("b#0", Operation::Read, frame(7));
        script.fault(
            "b#0",
            Fault::LateTouch {
                ranges: vec![frame(7)],
            },
        );
        script.push(EventKind::FaultTouchEnded { request: id("b#0") });
        assert_eq!(ask(TouchAfterCompletion, &script), Opinion::default());
    }
}
