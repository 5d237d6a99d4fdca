//! An fsync that says that data was lost, though no device lost any.
//!
//! Verifies each fsync, fdatasync, msync, sync_file_range and syncfs that failed with an errno that means lost or damaged data (EIO, EUCLEAN,
//! EBADMSG): a request of some disk must have failed, or been spoiled by the plan, in the same boot before that step ended. Such an error comes
//! once; the next fsync of the same file says that all is well, and the finding says so where it was seen.
//!
//! Does not verify errors of other kinds (no space, a signal, a file that cannot be synced), nor errors after any device trouble in that boot,
//! be it on another disk: a disk set or a loop device may carry it on. A device that was reset counts as trouble.

use pincushion_abi::{Fault, Outcome};

use super::bench::{Opinion, Oracle, merge};
use crate::timeline::{Stamp, Step, Timeline};
use crate::verdict::{Certainty, Finding, Promise};

const NAME: &str = "unexplained-fsync-error";
/// EIO, EUCLEAN (a file system's "corrupted"), EBADMSG (its "bad checksum").
const LOST_DATA: [i32; 3] = [5, 117, 74];

/// The oracle.
pub(super) struct UnexplainedFsyncError;

impl Oracle for UnexplainedFsyncError {
    fn name(&self) -> &'static str {
        NAME
    }

    fn say(&self, timeline: &Timeline, opinion: &mut Opinion) {
        let mut findings = Vec::new();
        for step in timeline.steps.iter().filter(|step| is_sync(step)) {
            let (Some(ended), Some((_, Outcome::Failed(fault)))) = (step.ended, &step.outcome)
            else {
                continue;
            };
            if !LOST_DATA.contains(&fault.errno) {
                continue;
            }
            if device_trouble(timeline, ended) {
                opinion.count("unexplained-fsync-error.explained", 1);
            } else {
                findings.push(finding(timeline, step, fault, ended));
            }
        }
        opinion.findings.extend(merge(findings));
    }
}

fn is_sync(step: &Step) -> bool {
    matches!(
        step.op.as_str(),
        "fsync" | "fdatasync" | "msync" | "sync-file-range" | "syncfs"
    )
}

/// Whether a device failed, was made to misbehave or was reset before this, in the same boot.
fn device_trouble(timeline: &Timeline, before: Stamp) -> bool {
    let boot = timeline
        .boots
        .iter()
        .rfind(|boot| boot.began < before)
        .map_or((0, None), |boot| (boot.number, Some(boot.began)));
    let in_boot = |at: Stamp| boot.1.is_none_or(|began| began < at) && at < before;
    let failed = timeline.requests.iter().any(|request| {
        request.boot == boot.0
            && request.fetched < before
            && (request.was_spoiled()
                || !request.faults.is_empty()
                || !request.planted.is_empty()
                || (request.executed.is_some() && !request.succeeded()))
    });
    let resets = timeline.devices.values().flat_map(|device| &device.resets);
    let was_reset = resets
        .filter(|(_, abandoned)| *abandoned > 0)
        .any(|(at, _)| in_boot(*at));
    failed || was_reset
}

fn finding(timeline: &Timeline, step: &Step, fault: &Fault, ended: Stamp) -> Finding {
    let next = timeline.steps.iter().find(|next| {
        is_sync(next) && next.op == step.op && next.began.is_some_and(|began| ended < began)
    });
    let afterwards = next.filter(|next| next.succeeded()).map(|next| {
        format!(
            " The next {} (step {}) said that all is well.",
            next.op, next.id
        )
    });
    let mut evidence: Vec<u64> = [step.began, step.ended]
        .into_iter()
        .flatten()
        .map(|stamp| stamp.seq)
        .collect();
    evidence.extend(next.and_then(|next| Some(next.ended?.seq)));
    Finding {
        oracle: NAME.to_owned(),
        title: format!(
            "{} failed with {} though no device failed",
            step.op, fault.name
        ),
        promise: Promise::O2,
        certainty: Certainty::Certain,
        text: format!(
            "Step {} ({}) failed with {}: data was lost. Every request of every disk had ended well until then.{}",
            step.id,
            step.name,
            fault.name,
            afterwards.unwrap_or_default()
        ),
        evidence,
        frames: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use pincushion_devices::trace::event::{EventKind, Fault as Asked, Operation, Status};
    use serde_json::json;

    use super::*;
    use crate::oracle::bench::ask;
    use crate::timeline::script::{Script, frame};

    fn fsync(script: &mut Script, step: u32, errno: Option<(i32, &str)>) {
        script.begin(step, "fsync");
        script.push(EventKind::StepEnded { step });
        let outcome = match errno {
            Some((errno, name)) => {
                json!({"failed": {"call": "fsync", "errno": errno, "name": name}})
            }
            None => json!({"ok": {}}),
        };
        let text =
            json!({"report": "done", "id": step, "outcome": outcome, "began_ns": 0, "ended_ns": 1});
        script.push(EventKind::AgentReport {
            text: text.to_string(),
        });
    }

    #[test]
    fn an_error_without_a_cause_is_caught_and_the_next_fsync_is_told() {
        for (errno, name) in [(5, "EIO"), (117, "EUCLEAN")] {
            let mut script = Script::booted();
            script.whole("a#0", Operation::Write, frame(7));
            fsync(&mut script, 2, Some((errno, name)));
            fsync(&mut script, 3, None);
            let opinion = ask(UnexplainedFsyncError, &script);
            let [finding] = &opinion.findings[..] else {
                panic!("one finding, got {opinion:?}")
            };
            assert_eq!(
                finding.title,
                format!("fsync failed with {name} though no device failed")
            );
            assert!(finding.text.contains("(step 3) said that all is well"));
        }
    }

    #[test]
    fn an_error_after_device_trouble_of_any_kind_passes() {
        let mut failed = Script::booted();
        failed.fetch("a#0", Operation::Write, frame(7));
        failed.execute("a#0", Status::Ioerr);
        let mut asked = Script::booted();
        asked.whole("b#0", Operation::Write, frame(7));
        asked.fault("b#0", Asked::Torn { arrived: vec![] });
        let mut reset = Script::booted();
        reset.fetch("a#0", Operation::Write, frame(7));
        reset.push(EventKind::DeviceReset {
            device: "a".into(),
            abandoned: 1,
        });
        for mut script in [failed, asked, reset] {
            fsync(&mut script, 2, Some((5, "EIO")));
            let opinion = ask(UnexplainedFsyncError, &script);
            assert!(opinion.findings.is_empty(), "{opinion:?}");
            assert_eq!(opinion.counts["unexplained-fsync-error.explained"], 1);
        }
    }

    #[test]
    fn errors_that_do_not_speak_of_lost_data_pass() {
        let mut script = Script::booted();
        for (step, errno) in [(2, (28, "ENOSPC")), (3, (22, "EINVAL")), (4, (4, "EINTR"))] {
            fsync(&mut script, step, Some(errno));
        }
        assert!(ask(UnexplainedFsyncError, &script).findings.is_empty());
    }

    #[test]
    fn trouble_of_an_earlier_boot_explains_nothing() {
        let mut script = Script::booted();
        script.fetch("a#0", Operation::Write, frame(7));
        script.execute("a#0", Status::Ioerr);
        script.stop("reset");
        script.boot(2);
        fsync(&mut script, 2, Some((5, "EIO")));
        assert_eq!(ask(UnexplainedFsyncError, &script).findings.len(), 1);
    }
}
