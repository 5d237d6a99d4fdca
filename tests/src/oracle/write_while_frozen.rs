//! A frozen file system that writes to its disk: O1's consequence for everybody who believes FIFREEZE, such as a snapshot of the volume.
//!
//! Verifies each `frozen` fact: between the end of the step that froze the file system and the beginning of the step that thawed it, both
//! stamped by the guest, its device must not be handed a write, discard or write-zeroes. A freeze waits for what it has submitted, so a write
//! that comes after its end was not covered by it, whenever the guest made it.
//!
//! Does not verify writes that the device had before the freeze ended, nor a freeze or thaw that failed, nor flushes, which change nothing. A
//! device of which the guest believed, by a planned duplicate, that it had completed something else is counted only.

use pincushion_devices::trace::event::Operation;

use super::bench::{Opinion, Oracle, merge};
use crate::timeline::{Fact, Frozen, Request, Step, Timeline, short};
use crate::verdict::{Certainty, Finding, Promise};

const NAME: &str = "write-while-frozen";

/// The oracle.
pub(super) struct WriteWhileFrozen;

impl Oracle for WriteWhileFrozen {
    fn name(&self) -> &'static str {
        NAME
    }

    fn say(&self, timeline: &Timeline, opinion: &mut Opinion) {
        let mut findings = Vec::new();
        for (_, fact) in &timeline.facts {
            let Fact::Frozen(frozen) = fact else { continue };
            let done = |step| timeline.step(step).filter(|step| step.succeeded());
            let (Some(freeze), Some(thaw)) = (done(frozen.freeze_step), done(frozen.thaw_step))
            else {
                opinion.count("write-while-frozen.void", 1);
                continue;
            };
            let written = writes_between(timeline, frozen, freeze, thaw);
            if written.is_empty() {
                opinion.count("write-while-frozen.silent", 1);
            }
            for request in written {
                if timeline.guest_was_misled(&frozen.device, request.boot, request.fetched.seq) {
                    opinion.count("write-while-frozen.after-a-planned-fault", 1);
                } else {
                    findings.push(finding(frozen, freeze, thaw, request));
                }
            }
        }
        opinion.findings.extend(merge(findings));
    }
}

fn writes_between<'a>(
    timeline: &'a Timeline,
    frozen: &Frozen,
    freeze: &Step,
    thaw: &Step,
) -> Vec<&'a Request> {
    let (Some(from), Some(until)) = (freeze.ended, thaw.began) else {
        return Vec::new();
    };
    let requests = timeline.requests.iter();
    requests
        .filter(|request| request.id.device == frozen.device)
        .filter(|request| from < request.fetched && request.fetched < until)
        .filter(|request| match request.operation {
            Operation::Write | Operation::Discard | Operation::WriteZeroes => true,
            Operation::Read
            | Operation::Flush
            | Operation::GetId
            | Operation::Transmit
            | Operation::Receive
            | Operation::Control
            | Operation::Inflate
            | Operation::Deflate
            | Operation::Statistics
            | Operation::ReportFree
            | Operation::Unknown => false,
        })
        .collect()
}

fn finding(frozen: &Frozen, freeze: &Step, thaw: &Step, request: &Request) -> Finding {
    let stamps = [freeze.ended, Some(request.fetched), thaw.began];
    Finding {
        oracle: NAME.to_owned(),
        title: "a frozen file system wrote to its disk".to_owned(),
        promise: Promise::O1,
        certainty: Certainty::Certain,
        text: format!(
            "FIFREEZE of the file system on disk {} had ended well (step {}), FITHAW (step {}) had not begun, and the guest wrote: {} at sector {}, \
             {} bytes.",
            frozen.device,
            freeze.id,
            thaw.id,
            short(&request.id),
            request.sector,
            request.bytes
        ),
        evidence: stamps
            .into_iter()
            .flatten()
            .map(|stamp| stamp.seq)
            .collect(),
        frames: request
            .ranges
            .iter()
            .flat_map(|range| range.frames())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use pincushion_devices::trace::event::Fault;
    use serde_json::json;

    use super::*;
    use crate::oracle::bench::ask;
    use crate::timeline::script::{Script, frame};

    fn frozen(during: impl FnOnce(&mut Script)) -> Script {
        let mut script = Script::booted();
        script.whole("a#0", Operation::Write, frame(7));
        script.begin(2, "freeze");
        script.end(2);
        during(&mut script);
        script.begin(3, "thaw");
        script.whole("a#9", Operation::Write, frame(7));
        script.end(3);
        script.fact(
            "frozen",
            json!({"device": "a", "freeze_step": 2, "thaw_step": 3}),
        );
        script
    }

    #[test]
    fn a_write_to_a_frozen_disk_is_caught() {
        let script = frozen(|script| script.whole("a#1", Operation::Write, frame(7)));
        let opinion = ask(WriteWhileFrozen, &script);
        assert_eq!(opinion.findings.len(), 1, "{opinion:?}");
        assert_eq!(opinion.findings[0].promise, Promise::O1);
        assert_eq!(opinion.findings[0].certainty, Certainty::Certain);
    }

    #[test]
    fn reads_flushes_other_disks_and_writes_before_and_after_pass() {
        let script = frozen(|script| {
            script.whole("a#1", Operation::Read, frame(7));
            script.whole("a#2", Operation::Flush, frame(7));
            script.whole("b#0", Operation::Write, frame(7));
        });
        let opinion = ask(WriteWhileFrozen, &script);
        assert!(opinion.findings.is_empty(), "{opinion:?}");
        assert_eq!(opinion.counts["write-while-frozen.silent"], 1);
    }

    #[test]
    fn a_write_that_the_device_had_before_and_a_guest_that_was_misled_are_not_blamed() {
        let mut script = Script::booted();
        script.fetch("a#0", Operation::Write, frame(7));
        script.begin(2, "freeze");
        script.end(2);
        script.finish("a#0");
        script.begin(3, "thaw");
        script.end(3);
        let fact = json!({"device": "a", "freeze_step": 2, "thaw_step": 3});
        script.fact("frozen", fact);
        assert!(ask(WriteWhileFrozen, &script).findings.is_empty());
        let script = frozen(|script| {
            script.fault("a#0", Fault::Duplicate);
            script.whole("a#1", Operation::Write, frame(7));
        });
        assert!(ask(WriteWhileFrozen, &script).findings.is_empty());
    }

    #[test]
    fn a_freeze_that_failed_froze_nothing() {
        let mut script = Script::booted();
        script.begin(2, "freeze");
        script.whole("a#1", Operation::Write, frame(7));
        let fact = json!({"device": "a", "freeze_step": 2, "thaw_step": 3});
        script.fact("frozen", fact);
        let opinion = ask(WriteWhileFrozen, &script);
        assert_eq!(opinion.counts["write-while-frozen.void"], 1);
    }
}
