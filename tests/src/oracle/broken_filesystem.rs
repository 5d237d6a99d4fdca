//! A file system that a checker finds broken after an orderly end.
//!
//! Verifies each `fsck` fact: an image that the guest has let go in order must be clean. It is certain when the machine ended by power-off or by the
//! guest's own reset, and possible otherwise.
//!
//! Does not verify a disk on which the plan asked for a fault: what a checker says of it is only counted.

use super::bench::{Opinion, Oracle, merge};
use crate::timeline::{Fact, Fsck, Stamp, Timeline};
use crate::verdict::{Certainty, Finding, Promise};

const NAME: &str = "broken-filesystem";

/// The oracle.
pub(super) struct BrokenFilesystem;

impl Oracle for BrokenFilesystem {
    fn name(&self) -> &'static str {
        NAME
    }

    fn say(&self, timeline: &Timeline, opinion: &mut Opinion) {
        let mut findings = Vec::new();
        for (at, fact) in &timeline.facts {
            let Fact::Fsck(fsck) = fact else { continue };
            let faulted = timeline.requests.iter().any(|request| {
                request.id.device == fsck.device
                    && (request.was_failed_by_plan() || !request.planted.is_empty())
            });
            // A device that scribbles over memory may have spoiled what another disk was given.
            let faulted = faulted
                || timeline.disk_was_spoiled(&fsck.device, *at)
                || timeline
                    .boots
                    .iter()
                    .any(|boot| timeline.memory_was_spoiled(boot.number, at.seq));
            if fsck.clean {
                opinion.count("broken-filesystem.clean", 1);
            } else if faulted {
                opinion.count("broken-filesystem.after-a-planned-fault", 1);
            } else {
                findings.push(finding(timeline, *at, fsck));
            }
        }
        opinion.findings.extend(merge(findings));
    }
}

fn finding(timeline: &Timeline, at: Stamp, fsck: &Fsck) -> Finding {
    let orderly = timeline
        .end()
        .is_some_and(|(_, how, _)| matches!(how.as_str(), "power-off" | "reset"));
    let line = fsck
        .output
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or("no output");
    Finding {
        oracle: NAME.to_owned(),
        title: "the file system is not clean after the run".to_owned(),
        promise: Promise::O2,
        certainty: if orderly {
            Certainty::Certain
        } else {
            Certainty::Possible
        },
        text: format!("The checker found damage on disk {}: {line}", fsck.device),
        evidence: vec![at.seq],
        frames: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use pincushion_devices::trace::event::{EventKind, Fault, Operation, Point};
    use serde_json::json;

    use super::*;
    use crate::oracle::bench::ask;
    use crate::timeline::script::{Script, frame, id};

    fn checked(mut script: Script, how: &str, clean: bool) -> Opinion {
        script.stop(how);
        script.fact(
            "fsck",
            json!({"device": "a", "clean": clean, "output": "\nInode 12 is wrong\n"}),
        );
        ask(BrokenFilesystem, &script)
    }

    #[test]
    fn damage_after_a_power_off_is_caught_with_the_checkers_words() {
        let opinion = checked(Script::booted(), "power-off", false);
        assert_eq!(opinion.findings[0].certainty, Certainty::Certain);
        assert!(opinion.findings[0].text.ends_with("Inode 12 is wrong"));
    }

    #[test]
    fn damage_after_a_sudden_end_is_only_possible() {
        let opinion = checked(Script::booted(), "stopped", false);
        assert_eq!(opinion.findings[0].certainty, Certainty::Possible);
    }

    #[test]
    fn a_clean_image_passes_and_so_does_one_whose_disk_was_made_to_fail() {
        assert!(
            checked(Script::booted(), "power-off", true)
                .findings
                .is_empty()
        );
        let mut script = Script::booted();
        script.fetch("a#0", Operation::Write, frame(7));
        script.push(EventKind::FaultApplied {
            request: id("a#0"),
            rule: "rule 1".into(),
            point: Point::Fetched,
            action: "fail ioerr".into(),
        });
        assert!(checked(script, "power-off", false).findings.is_empty());
    }

    #[test]
    fn damage_after_a_planned_fault_is_not_the_guests() {
        let torn = ("a#0", Fault::Torn { arrived: vec![] });
        let rogue = ("b#0", Fault::RogueTouch { range: frame(9) });
        for (name, fault) in [torn, rogue] {
            let mut script = Script::booted();
            script.whole("a#0", Operation::Write, frame(7));
            script.whole("b#0", Operation::Read, frame(8));
            script.fault(name, fault);
            let opinion = checked(script, "power-off", false);
            assert!(opinion.findings.is_empty(), "{opinion:?}");
        }
        let mut script = Script::booted();
        script.whole("a#0", Operation::Write, frame(7));
        script.fault("a#0", Fault::InterruptSpurious);
        assert_eq!(checked(script, "power-off", false).findings.len(), 1);
    }
}
