//! A power cut that may leave an image without what was made durable, or with a damaged file system.
//!
//! Verifies each `crash-image` fact: an image that a correct device may leave after the cut ([`crate::crash`]) is not whole. Bytes that are
//! missing are held against what the log itself says was promised at that place ([`crate::timeline::fsynced`]): written, made durable by a
//! step that had ended well before the cut, and not touched since. If a flush was answered and not done before the cut, the device is to
//! blame, else the guest, which said that bytes were durable and had not asked for the flush, or not in time. In a writer's own race (a store
//! during the fsync) nothing is promised, so nothing is blamed.
//!
//! A damaged file system in a region of persistent memory is a possible finding only, and so is what is missing from it: a region has cache lines
//! and no sectors, and a file system that was made for sectors (ext4's superblock) does not promise to survive that every store is torn.
//!
//! Does not verify images that nobody looked at: silence says that some were well, and `images` counts them. Does not judge disks of which a rule
//! of the plan damaged bytes or answers before the cut; these are counted.

use super::bench::{Opinion, Oracle, merge};
use crate::timeline::fsynced::{FilePromise, promises};
use crate::timeline::{CrashImage, Fact, LostBytes, Stamp, Timeline};
use crate::verdict::{Certainty, Finding, Promise};

const NAME: &str = "lost-after-power-cut";

/// The oracle.
pub(super) struct LostAfterPowerCut;

impl Oracle for LostAfterPowerCut {
    fn name(&self) -> &'static str {
        NAME
    }

    fn say(&self, timeline: &Timeline, opinion: &mut Opinion) {
        let facts = || timeline.facts.iter();
        if !facts().any(|(_, fact)| matches!(fact, Fact::PowerCut(_) | Fact::CrashImage(_))) {
            return;
        }
        let promised = promises(timeline);
        let mut findings = Vec::new();
        for (told, fact) in facts() {
            match fact {
                Fact::PowerCut(cut) => {
                    opinion.count("lost-after-power-cut.cuts", 1);
                    opinion.count("lost-after-power-cut.images", cut.images);
                    opinion.count("lost-after-power-cut.promises", cut.promises);
                }
                Fact::CrashImage(image) if spoiled(timeline, image) => {
                    opinion.count("lost-after-power-cut.after-a-planned-fault", 1);
                }
                Fact::CrashImage(image) => {
                    findings.extend(damage(timeline, image, *told));
                    for lost in &image.lost {
                        match promised.iter().find(|promise| is_it(promise, image, lost)) {
                            Some(promise) => {
                                findings.push(missing(timeline, image, lost, promise, *told));
                            }
                            None => opinion.count("lost-after-power-cut.void", 1),
                        }
                    }
                }
                _ => {}
            }
        }
        opinion.findings.extend(merge(findings));
    }
}

/// Whether the plan made bytes or answers of the disk wrong before the cut.
fn spoiled(timeline: &Timeline, image: &CrashImage) -> bool {
    let cut = Stamp {
        seq: image.at,
        time_ns: u64::MAX,
    };
    timeline.disk_was_spoiled(&image.device, cut)
        || timeline
            .boots
            .iter()
            .any(|boot| timeline.memory_was_spoiled(boot.number, image.at))
}

fn is_it(promise: &FilePromise, image: &CrashImage, lost: &LostBytes) -> bool {
    promise.target.device == image.device
        && (promise.written, promise.synced) == (lost.written, lost.synced)
        && promise.holds_at(image.at)
}

/// Who is to blame.
fn culprit(timeline: &Timeline, image: &CrashImage) -> Promise {
    let planted = timeline
        .requests
        .iter()
        .filter(|request| request.id.device == image.device)
        .any(|request| request.planted.iter().any(|(at, _)| at.seq <= image.at));
    if image.flushes_undone > 0 || planted {
        Promise::Machine
    } else {
        Promise::O2
    }
}

/// Words for that, as an end of a sentence.
fn blamed(promise: Promise, image: &CrashImage) -> String {
    match promise {
        Promise::Machine => format!(
            " Disk {} had answered {} flushes without doing them.",
            image.device, image.flushes_undone
        ),
        _ => " Every flush that the device had answered was done.".to_owned(),
    }
}

/// How sure that is.
fn certainty(timeline: &Timeline, image: &CrashImage) -> Certainty {
    let is_region = timeline
        .devices
        .get(&image.device)
        .is_some_and(|device| device.region.is_some());
    let by_guest = culprit(timeline, image) != Promise::Machine;
    if is_region && by_guest && !image.clean {
        Certainty::Possible
    } else {
        Certainty::Certain
    }
}

/// The command that makes the image.
fn recipe(image: &CrashImage) -> String {
    format!(
        " The image: pincushion test crash-image RUNDIR --device {} --at {} --image {} --out FILE.",
        image.device, image.at, image.image
    )
}

fn damage(timeline: &Timeline, image: &CrashImage, told: Stamp) -> Option<Finding> {
    if image.clean {
        return None;
    }
    let promise = culprit(timeline, image);
    let line = image.output.lines().map(str::trim);
    let line = line.filter(|line| !line.is_empty()).collect::<Vec<_>>();
    Some(Finding {
        oracle: NAME.to_owned(),
        title: "a power cut leaves a damaged file system".to_owned(),
        promise,
        certainty: certainty(timeline, image),
        text: format!(
            "Image {} (seed {}) of disk {} after event {}: the checker says: {}.{}{}",
            image.image,
            image.seed,
            image.device,
            image.at,
            line.join("; "),
            blamed(promise, image),
            recipe(image)
        ),
        evidence: vec![image.at, told.seq],
        frames: Vec::new(),
    })
}

fn missing(
    timeline: &Timeline,
    image: &CrashImage,
    lost: &LostBytes,
    promise: &FilePromise,
    told: Stamp,
) -> Finding {
    let step = |id: u32| timeline.step(id).map_or("", |step| step.name.as_str());
    let culprit = culprit(timeline, image);
    let mut evidence = vec![promise.from, image.at, told.seq];
    let began = timeline.step(promise.written).and_then(|step| step.began);
    evidence.extend(began.map(|stamp| stamp.seq));
    Finding {
        oracle: NAME.to_owned(),
        title: "bytes that were made durable are gone after a power cut".to_owned(),
        promise: culprit,
        certainty: certainty(timeline, image),
        text: format!(
            "Step {} ({}) wrote {} bytes at {} of {}{}, step {} ({}) made them durable and had ended at event {}. \
             The power goes after event {}: image {} (seed {}) does not hold them ({}).{}{}",
            promise.written,
            step(promise.written),
            promise.len,
            promise.offset,
            image.device,
            if promise.target.path.is_empty() {
                String::new()
            } else {
                format!(":{}", promise.target.path)
            },
            promise.synced,
            step(promise.synced),
            promise.from,
            image.at,
            image.image,
            image.seed,
            lost.detail,
            blamed(culprit, image),
            recipe(image)
        ),
        evidence,
        frames: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use pincushion_devices::trace::event::{EventKind, Fault, Operation, Planted};
    use serde_json::{Value, json};

    use super::*;
    use crate::oracle::bench::ask;
    use crate::timeline::script::{Script, frame, id};

    fn step(script: &mut Script, step: u32, act: Value, found: Value) -> u64 {
        script.push(EventKind::StepSent {
            step,
            thread: None,
            name: act["op"].as_str().unwrap().to_owned(),
            text: act.to_string(),
        });
        script.push(EventKind::StepBegan { step });
        let ended = script.push(EventKind::StepEnded { step });
        let text = json!({"report": "done", "id": step, "outcome": {"ok": found}, "began_ns": 0, "ended_ns": 1});
        script.push(EventKind::AgentReport {
            text: text.to_string(),
        });
        ended
    }

    /// Step 4 writes `/data` of disk a, which was there before, step 5 is its fsync. Gives the event of its end.
    fn fsynced() -> (Script, u64) {
        let mut script = Script::booted();
        step(
            &mut script,
            1,
            json!({"op": "find-disk", "serial": "a"}),
            json!({"path": "/dev/vda"}),
        );
        step(
            &mut script,
            2,
            json!({"op": "mount", "source": "/dev/vda", "target": "/mnt", "fstype": "ext4"}),
            json!({}),
        );
        step(
            &mut script,
            3,
            json!({"op": "open", "path": "/mnt/data", "flags": ["rdwr"], "file": "f"}),
            json!({}),
        );
        step(
            &mut script,
            4,
            json!({"op": "write-pattern", "file": "f", "offset": 0, "len": 4096, "pattern": {"byte": 7}}),
            json!({}),
        );
        script.whole("a#0", Operation::Write, frame(7));
        script.whole("a#1", Operation::Flush, frame(0));
        let ended = step(
            &mut script,
            5,
            json!({"op": "fsync", "file": "f"}),
            json!({}),
        );
        (script, ended)
    }

    fn image(script: &mut Script, at: u64, clean: bool, lost: bool, undone: u64) {
        let lost = if lost {
            json!([{"written": 4, "synced": 5, "detail": "/data: byte 0 is 0x00, not 0x07"}])
        } else {
            json!([])
        };
        script.fact(
            "crash-image",
            json!({"device": "a", "at": at, "image": 3, "seed": 7, "clean": clean, "output": "\nInode 12 is wrong",
                "lost": lost, "flushes_undone": undone}),
        );
    }

    fn finding(script: &Script) -> Finding {
        let opinion = ask(LostAfterPowerCut, script);
        let [finding] = &opinion.findings[..] else {
            panic!("one finding, got {opinion:?}")
        };
        finding.clone()
    }

    #[test]
    fn bytes_that_the_guest_called_durable_and_a_cut_takes_are_its_fault_if_all_flushes_were_done()
    {
        let (mut script, ended) = fsynced();
        image(&mut script, ended, true, true, 0);
        let finding = finding(&script);
        assert_eq!(
            finding.title,
            "bytes that were made durable are gone after a power cut"
        );
        assert_eq!(
            (finding.promise, finding.certainty),
            (Promise::O2, Certainty::Certain)
        );
        assert!(
            finding.text.contains(&format!("--at {ended} --image 3")),
            "{}",
            finding.text
        );
    }

    #[test]
    fn a_flush_that_was_answered_and_not_done_is_the_devices_fault() {
        let (mut script, ended) = fsynced();
        image(&mut script, ended, true, true, 1);
        assert_eq!(finding(&script).promise, Promise::Machine);
        let (mut planted, ended) = fsynced();
        planted.push(EventKind::PlantedFault {
            request: id("a#1"),
            planted: Planted::LyingFlush,
        });
        image(&mut planted, ended + 9, true, true, 0);
        assert_eq!(finding(&planted).promise, Promise::Machine);
    }

    #[test]
    fn a_damaged_file_system_is_caught_with_the_checkers_words() {
        let (mut script, ended) = fsynced();
        image(&mut script, ended, false, false, 0);
        let finding = finding(&script);
        assert_eq!(finding.title, "a power cut leaves a damaged file system");
        assert!(finding.text.contains("Inode 12 is wrong"));
    }

    #[test]
    fn a_file_system_that_a_region_tears_is_no_certain_finding_and_missing_bytes_are() {
        let in_a_region = |clean, lost, undone| {
            let (mut script, ended) = fsynced();
            image(&mut script, ended, clean, lost, undone);
            let mut timeline = script.timeline();
            let disk = timeline.devices.get_mut("a").expect("it is there");
            disk.region = Some(frame(64));
            let mut opinion = Opinion::default();
            LostAfterPowerCut.say(&timeline, &mut opinion);
            opinion.findings[0].certainty
        };
        assert_eq!(in_a_region(false, false, 0), Certainty::Possible);
        assert_eq!(in_a_region(true, true, 0), Certainty::Certain);
        assert_eq!(in_a_region(false, false, 1), Certainty::Certain, "it lied");
    }

    #[test]
    fn images_that_are_well_pass_and_are_counted() {
        let (mut script, ended) = fsynced();
        script.fact(
            "power-cut",
            json!({"device": "a", "at": ended, "images": 8, "open_units": 3, "promises": 1}),
        );
        let opinion = ask(LostAfterPowerCut, &script);
        assert!(opinion.findings.is_empty());
        assert_eq!(opinion.counts["lost-after-power-cut.images"], 8);
    }

    #[test]
    fn what_was_not_promised_at_the_cut_is_not_blamed() {
        let (mut script, ended) = fsynced();
        image(&mut script, ended - 1, true, true, 0);
        let (mut rewritten, _) = fsynced();
        let again = step(
            &mut rewritten,
            6,
            json!({"op": "write-pattern", "file": "f", "offset": 0, "len": 4096, "pattern": {"byte": 8}}),
            json!({}),
        );
        image(&mut rewritten, again, true, true, 0);
        for script in [script, rewritten] {
            let opinion = ask(LostAfterPowerCut, &script);
            assert!(opinion.findings.is_empty(), "{opinion:?}");
            assert_eq!(opinion.counts["lost-after-power-cut.void"], 1);
        }
    }

    #[test]
    fn a_disk_that_the_plan_spoiled_before_the_cut_is_only_counted() {
        for fault in [
            Fault::Torn { arrived: vec![] },
            Fault::Corrupt { bits: vec![1] },
            Fault::Status { worked: None },
        ] {
            let (mut script, ended) = fsynced();
            script.fault("a#1", fault);
            image(&mut script, ended, false, true, 1);
            let opinion = ask(LostAfterPowerCut, &script);
            assert!(opinion.findings.is_empty(), "{opinion:?}");
            assert_eq!(
                opinion.counts["lost-after-power-cut.after-a-planned-fault"],
                1
            );
        }
    }
}
