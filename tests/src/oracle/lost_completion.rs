//! A request that was done and of which the guest was never told.
//!
//! Verifies that each request whose hold was closed as completed (a request without payload: that was executed) has its
//! used element published. Between the two the queue handler does not wait, so when the machine has ended, in whatever way
//! but a failure of its own, the missing one is certain. A request that was fetched, not parked and never executed when a
//! machine *hung* is a possible finding: the operation may just have been slow.
//!
//! Does not verify that the guest was signalled: event indices suppress interrupts lawfully, and the plan may drop one. Does
//! not verify requests that were parked or gathered, that a device reset took back, that were let go because the machine
//! stopped, or of a device that asked for a reset because the plan wanted it. A buffer that waits for a network's frame may
//! wait for ever.

use pincushion_devices::trace::event::{HoldEnd, Operation, ReleaseCause};

use super::bench::{Opinion, Oracle, machine_finding, merge};
use crate::timeline::{Request, Stamp, Timeline};
use crate::verdict::Certainty;

const NAME: &str = "lost-completion";

/// The oracle.
pub(super) struct LostCompletion;

impl Oracle for LostCompletion {
    fn name(&self) -> &'static str {
        NAME
    }

    fn say(&self, timeline: &Timeline, opinion: &mut Opinion) {
        let mut findings = Vec::new();
        for request in timeline
            .requests
            .iter()
            .filter(|request| request.used.is_none())
        {
            let boot = timeline
                .boots
                .iter()
                .find(|boot| boot.number == request.boot);
            let Some((end, how, _)) = boot.and_then(|boot| boot.ended.as_ref()) else {
                continue;
            };
            if how == "failed" || excused(timeline, request) {
                opinion.count("lost-completion.excused", 1);
            } else if let Some(done) = due(request) {
                let text = format!(
                    "The {} was done at event {}, and until the machine ended ({how}) its used element was not published.",
                    request.name(),
                    done.seq
                );
                let evidence = vec![request.fetched.seq, done.seq, end.seq];
                findings.push(machine_finding(
                    NAME,
                    "a request was done and never completed",
                    text,
                    evidence,
                ));
            } else if request.executed.is_none()
                && request.operation != Operation::Receive
                && how == "hang"
            {
                let text = format!(
                    "The {} was fetched and had not been executed when the machine hung.",
                    request.name()
                );
                let mut finding = machine_finding(
                    NAME,
                    "a request was not executed in a machine that hung",
                    text,
                    vec![request.fetched.seq, end.seq],
                );
                finding.certainty = Certainty::Possible;
                findings.push(finding);
            }
        }
        opinion.findings.extend(merge(findings));
    }
}

/// When nothing was left but to publish it.
fn due(request: &Request) -> Option<Stamp> {
    match &request.hold {
        Some(hold) => hold
            .span
            .ended
            .filter(|_| hold.how == Some(HoldEnd::Completed)),
        None => request.executed.as_ref().map(|executed| executed.at),
    }
}

/// Whether it was parked, gathered, taken back by a reset, let go by the machine's end, or in a device that the plan put to
/// rest.
fn excused(timeline: &Timeline, request: &Request) -> bool {
    let abandoned = request
        .hold
        .as_ref()
        .is_some_and(|hold| hold.how == Some(HoldEnd::Abandoned));
    let stopping = request
        .parks
        .iter()
        .any(|park| park.by == Some(ReleaseCause::Stopping));
    let reset = timeline
        .devices
        .get(&request.id.device)
        .is_some_and(|device| device.resets.iter().any(|(at, _)| *at > request.fetched));
    // Where the hold was completed before the reset, the used element was due before it.
    let reset = reset
        && request
            .hold
            .as_ref()
            .is_none_or(|hold| hold.how != Some(HoldEnd::Completed));
    // A device that asked for a reset is at rest, and gathered completions wait for each other: the plan wanted both.
    let asked = timeline.had_asked_for_reset(&request.id.device, request.boot, u64::MAX)
        || request.was_gathered();
    request.is_parked() || abandoned || stopping || reset || asked
}

#[cfg(test)]
mod tests {
    use pincushion_devices::trace::event::{EventKind, Fault, Point, Status, Until};

    use super::*;
    use crate::oracle::bench::ask;
    use crate::timeline::script::{Script, frame, id};

    fn dropped(operation: Operation) -> Script {
        let mut script = Script::booted();
        script.fetch("b#0", operation, frame(7));
        script.execute("b#0", Status::Ok);
        script.close("b#0", HoldEnd::Completed);
        script
    }

    #[test]
    fn a_dropped_completion_is_caught_however_the_machine_ended() {
        for operation in [Operation::Read, Operation::Flush] {
            for how in ["power-off", "hang", "stopped"] {
                let mut script = dropped(operation);
                script.stop(how);
                let opinion = ask(LostCompletion, &script);
                assert_eq!(opinion.findings.len(), 1, "{operation:?} {how}");
                assert_eq!(opinion.findings[0].certainty, Certainty::Certain);
            }
        }
    }

    #[test]
    fn a_completion_that_was_dropped_before_a_reboot_is_caught() {
        let mut script = dropped(Operation::Read);
        script.boot(2);
        assert_eq!(ask(LostCompletion, &script).findings.len(), 1);
    }

    #[test]
    fn a_log_that_breaks_off_or_a_machine_that_failed_is_not_judged() {
        let broken_off = dropped(Operation::Read);
        let mut failed = dropped(Operation::Read);
        failed.stop("failed");
        for script in [broken_off, failed] {
            assert!(ask(LostCompletion, &script).findings.is_empty());
        }
    }

    #[test]
    fn completed_parked_and_abandoned_requests_pass() {
        let mut script = Script::booted();
        script.whole("a#0", Operation::Write, frame(7));
        script.fetch("b#0", Operation::Read, frame(7));
        script.push(EventKind::Parked {
            request: id("b#0"),
            point: Point::Fetched,
            until: Until::Gate("read".into()),
        });
        script.fetch("b#1", Operation::Read, frame(8));
        script.close("b#1", HoldEnd::Abandoned);
        script.fetch("b#2", Operation::Flush, frame(8));
        script.execute("b#2", Status::Ok);
        script.push(EventKind::DeviceReset {
            device: "b".into(),
            abandoned: 1,
        });
        script.stop("power-off");
        assert!(ask(LostCompletion, &script).findings.is_empty());
    }

    #[test]
    fn what_was_not_executed_is_possible_in_a_hang_and_nothing_at_a_power_off() {
        for (how, findings) in [("hang", 1), ("power-off", 0)] {
            let mut script = Script::booted();
            script.fetch("b#0", Operation::Read, frame(7));
            script.stop(how);
            let opinion = ask(LostCompletion, &script);
            assert_eq!(opinion.findings.len(), findings, "{how}");
            assert!(
                opinion
                    .findings
                    .iter()
                    .all(|found| found.certainty == Certainty::Possible)
            );
        }
    }

    #[test]
    fn a_completion_whose_interrupt_was_dropped_is_not_lost() {
        let mut script = Script::booted();
        script.whole("b#0", Operation::Read, frame(7));
        script.fault("b#0", Fault::InterruptDropped);
        script.stop("hang");
        assert!(ask(LostCompletion, &script).findings.is_empty());
    }

    #[test]
    fn a_flush_that_was_gathered_or_whose_device_is_at_rest_is_not_lost() {
        let mut gathered = Script::booted();
        gathered.fetch("b#0", Operation::Flush, frame(0));
        gathered.execute("b#0", Status::Ok);
        gathered.push(EventKind::FaultApplied {
            request: id("b#0"),
            rule: "rule 1".into(),
            point: Point::Executed,
            action: "reorder in a window of 4".into(),
        });
        let mut at_rest = Script::booted();
        at_rest.whole("b#0", Operation::Read, frame(7));
        at_rest.fault("b#0", Fault::NeedsReset);
        at_rest.fetch("b#1", Operation::Flush, frame(0));
        at_rest.execute("b#1", Status::Ok);
        for mut script in [gathered, at_rest] {
            script.stop("hang");
            assert!(ask(LostCompletion, &script).findings.is_empty());
        }
    }
}
