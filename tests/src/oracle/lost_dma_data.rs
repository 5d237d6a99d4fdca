//! O2: bytes that a device put into a page of a file, acknowledged, and that the guest then made durable, are gone.
//!
//! Verifies each `promised` fact against each `found` fact of its id: once the step that promises durability (an fsync, an msync) has ended
//! well, the bytes must be on the other disk, also after a reboot. It checks from the events that the promise was really given: the step
//! succeeded, no device still held one of the frames when the step began or took one again afterwards, and no fault that the plan asked
//! for hit the promised disk, the bytes that were put into the frames, or the frames themselves. A promise that was not given is
//! void and only counted.
//!
//! Does not verify bytes that nobody promised. After a planted fault of the promised disk nobody is blamed here (`lying-flush` and the others
//! look at that), unless it moved other bytes than it said, or later: as this oracle sees it, that is what it is there to find.

use pincushion_devices::trace::event::{Direction, FRAME_SIZE, GuestRange, Planted};

use super::bench::{Opinion, Oracle, merge};
use crate::timeline::{Fact, Found, Promised, Request, Stamp, Step, Timeline, Where};
use crate::verdict::{Certainty, Finding, Promise};

const NAME: &str = "lost-dma-data";

/// The oracle.
pub(super) struct LostDmaData;

impl Oracle for LostDmaData {
    fn name(&self) -> &'static str {
        NAME
    }

    fn say(&self, timeline: &Timeline, opinion: &mut Opinion) {
        let mut findings = Vec::new();
        let mut looked_for = std::collections::BTreeSet::new();
        for (at, fact) in &timeline.facts {
            let Fact::Found(found) = fact else { continue };
            looked_for.insert(found.id.as_str());
            let promise = timeline
                .facts
                .iter()
                .rev()
                .find_map(|(told, fact)| match fact {
                    Fact::Promised(promised) if promised.id == found.id && told < at => {
                        Some(promised)
                    }
                    _ => None,
                });
            match promise.map(|promised| (promised, given(timeline, promised, *at))) {
                None => opinion.count("lost-dma-data.found-without-promise", 1),
                Some((_, None)) => opinion.count("lost-dma-data.void", 1),
                Some(_) if found.equal => opinion.count("lost-dma-data.kept", 1),
                Some((promised, Some(step))) => {
                    findings.push(lost(timeline, promised, step, found, *at));
                }
            }
        }
        let unchecked = timeline.facts.iter().filter(|(_, fact)| {
            matches!(fact, Fact::Promised(promised) if !looked_for.contains(promised.id.as_str()))
        });
        opinion.count("lost-dma-data.unchecked", unchecked.count() as u64);
        opinion.findings.extend(merge(findings));
    }
}

/// The step that gave this promise before `looked`, if it certainly did.
fn given<'a>(timeline: &'a Timeline, promised: &Promised, looked: Stamp) -> Option<&'a Step> {
    let step = timeline
        .step(promised.after_step)
        .filter(|step| step.succeeded())?;
    let (began, ended) = (step.began?, step.ended?);
    // After another boot the frames hold something else.
    let next_boot = timeline
        .boots
        .iter()
        .map(|boot| boot.began)
        .find(|boot| *boot > began);
    let known_until = next_boot.map_or(looked, |boot| boot.min(looked));
    let spoiled = timeline.requests.iter().any(|request| {
        still_written(request, promised, began, known_until)
            || faulted(request, promised, began, ended, looked)
    });
    let pages: Vec<GuestRange> = promised.frames.iter().map(|frame| page(*frame)).collect();
    let asked = timeline.disk_was_spoiled(&promised.device, looked)
        || timeline.source_was_spoiled(&promised.frames, looked)
        || timeline.touched_by_plan(&pages, 0, looked.seq)
        // A region of persistent memory is memory and medium at once.
        || timeline.region_was_spoiled(&promised.device, looked.seq);
    (ended < looked && !spoiled && !asked).then_some(step)
}

fn page(frame: u64) -> GuestRange {
    GuestRange {
        addr: frame.saturating_mul(FRAME_SIZE),
        len: FRAME_SIZE,
    }
}

/// Whether a device owned one of the promised frames when the step began, or later on while they were the file's.
fn still_written(request: &Request, promised: &Promised, began: Stamp, until: Stamp) -> bool {
    let Some(hold) = request
        .hold
        .as_ref()
        .filter(|hold| hold.direction == Direction::FromDevice)
    else {
        return false;
    };
    hold.span.meets(began.seq, until.seq)
        && hold
            .ranges
            .iter()
            .flat_map(|range| range.frames())
            .any(|frame| promised.frames.contains(&frame))
}

/// Whether the plan made the promised disk fail during the step, or misbehave at any time before the look.
fn faulted(
    request: &Request,
    promised: &Promised,
    began: Stamp,
    ended: Stamp,
    looked: Stamp,
) -> bool {
    let during = (began.seq..=ended.seq).contains(&request.fetched.seq)
        || request
            .executed
            .as_ref()
            .is_some_and(|done| (began.seq..=ended.seq).contains(&done.at.seq));
    request.id.device == promised.device
        && ((during && request.was_failed_by_plan())
            || request.planted.iter().any(|(at, planted)| {
                let is_for_others =
                    !matches!(planted, Planted::WrongBytes | Planted::EarlyCompletion);
                is_for_others && *at < looked
            }))
}

fn lost(
    timeline: &Timeline,
    promised: &Promised,
    step: &Step,
    found: &Found,
    at: Stamp,
) -> Finding {
    let (title, place) = match found.r#where {
        Where::Disk => (
            "DMA data that was made durable is not on the disk",
            "in the disk's image",
        ),
        Where::Guest => (
            "DMA data that was made durable is not in the file",
            "by the guest in the same boot",
        ),
        Where::AfterReboot => (
            "DMA data that was made durable is gone after a reboot",
            "by the guest after another boot",
        ),
    };
    let dma: Vec<&Request> = timeline
        .requests
        .iter()
        .filter(|request| request.direction() == Some(Direction::FromDevice) && request.succeeded())
        .filter(|request| {
            let mut frames = request.ranges.iter().flat_map(|range| range.frames());
            frames.any(|frame| promised.frames.contains(&frame))
        })
        .collect();
    let detail = if found.detail.is_empty() {
        String::new()
    } else {
        format!(" ({})", found.detail)
    };
    let mut evidence: Vec<u64> = [step.began, step.ended, Some(at)]
        .into_iter()
        .flatten()
        .map(|stamp| stamp.seq)
        .collect();
    evidence.extend(
        dma.iter()
            .filter_map(|request| Some(request.executed.as_ref()?.at.seq)),
    );
    Finding {
        oracle: NAME.to_owned(),
        title: title.to_owned(),
        promise: Promise::O2,
        certainty: Certainty::Certain,
        text: format!(
            "\"{}\" was promised for disk {}: the device had acknowledged the bytes and step {} ({}) ended well afterwards. Looked for {place}, \
             they were not there{detail}.",
            promised.what, promised.device, step.id, step.name
        ),
        evidence,
        frames: promised.frames.clone(),
    }
}

#[cfg(test)]
mod tests {
    use pincushion_devices::trace::event::{EventKind, Fault, Operation, Planted, Point, Status};
    use serde_json::json;

    use super::*;
    use crate::oracle::bench::ask;
    use crate::timeline::script::{Script, frame, id};

    fn promise(script: &mut Script) {
        script.fact(
            "promised",
            json!({"id": "dma", "what": "page 0 is sector 0 of b", "device": "a", "after_step": 2, "frames": [7]}),
        );
    }

    fn found(script: &mut Script, place: &str, equal: bool) {
        script.fact(
            "found",
            json!({"id": "dma", "where": place, "equal": equal, "detail": "byte 0 is 0x41"}),
        );
    }

    fn dma_then_fsync() -> Script {
        let mut script = Script::booted();
        promise(&mut script);
        script.whole("b#0", Operation::Read, frame(7));
        script.begin(2, "fsync");
        script.whole("a#0", Operation::Write, frame(7));
        script.end(2);
        script
    }

    #[test]
    fn bytes_that_are_gone_after_the_fsync_are_caught_wherever_they_were_looked_for() {
        for (place, words) in [
            ("disk", "on the disk"),
            ("guest", "in the file"),
            ("after-reboot", "reboot"),
        ] {
            let mut script = dma_then_fsync();
            found(&mut script, place, false);
            let opinion = ask(LostDmaData, &script);
            let [finding] = &opinion.findings[..] else {
                panic!("one finding, got {opinion:?}")
            };
            assert_eq!(
                (finding.promise, finding.certainty),
                (Promise::O2, Certainty::Certain)
            );
            assert!(finding.title.contains(words) && finding.text.contains("byte 0 is 0x41"));
        }
    }

    #[test]
    fn bytes_that_are_there_pass() {
        let mut script = dma_then_fsync();
        found(&mut script, "disk", true);
        found(&mut script, "after-reboot", true);
        let opinion = ask(LostDmaData, &script);
        assert!(opinion.findings.is_empty());
        assert_eq!(opinion.counts["lost-dma-data.kept"], 2);
    }

    #[test]
    fn what_the_next_boot_does_with_the_frames_does_not_matter() {
        let mut script = dma_then_fsync();
        script.boot(2);
        script.whole("b#1", Operation::Read, frame(7));
        found(&mut script, "after-reboot", false);
        assert_eq!(ask(LostDmaData, &script).findings.len(), 1);
    }

    fn assert_void(script: &Script) {
        let opinion = ask(LostDmaData, script);
        assert!(opinion.findings.is_empty(), "{opinion:?}");
        assert_eq!(opinion.counts["lost-dma-data.void"], 1);
    }

    #[test]
    fn an_fsync_that_failed_promises_nothing() {
        let mut script = Script::booted();
        promise(&mut script);
        script.begin(2, "fsync");
        script.push(EventKind::StepEnded { step: 2 });
        script.push(EventKind::AgentReport {
            text: json!({"report": "done", "id": 2, "began_ns": 0, "ended_ns": 1,
                "outcome": {"failed": {"call": "fsync", "errno": 5, "name": "EIO"}}})
            .to_string(),
        });
        found(&mut script, "disk", false);
        assert_void(&script);
    }

    #[test]
    fn an_fsync_during_the_dma_promises_nothing_about_it() {
        let mut script = Script::booted();
        promise(&mut script);
        script.fetch("b#0", Operation::Read, frame(7));
        script.begin(2, "fsync");
        script.end(2);
        script.finish("b#0");
        found(&mut script, "disk", false);
        assert_void(&script);
    }

    #[test]
    fn a_page_that_took_other_bytes_after_the_fsync_is_not_judged() {
        let mut script = dma_then_fsync();
        script.whole("b#1", Operation::Read, frame(7));
        found(&mut script, "guest", false);
        assert_void(&script);
    }

    #[test]
    fn a_look_before_the_fsync_ended_is_not_judged() {
        let mut script = Script::booted();
        promise(&mut script);
        found(&mut script, "disk", false);
        script.begin(2, "fsync");
        script.end(2);
        assert_void(&script);
    }

    #[test]
    fn a_fault_that_the_plan_asked_for_is_never_blamed_on_the_guest() {
        let mut failed = Script::booted();
        promise(&mut failed);
        failed.begin(2, "fsync");
        failed.fetch("a#0", Operation::Write, frame(7));
        failed.push(EventKind::FaultApplied {
            request: id("a#0"),
            rule: "rule 1".into(),
            point: Point::Fetched,
            action: "fail ioerr".into(),
        });
        failed.execute("a#0", Status::Ioerr);
        failed.end(2);
        let mut planted = dma_then_fsync();
        planted.fetch("a#1", Operation::Flush, frame(0));
        planted.push(EventKind::PlantedFault {
            request: id("a#1"),
            planted: Planted::LyingFlush,
        });
        for mut script in [failed, planted] {
            found(&mut script, "disk", false);
            assert_void(&script);
        }
    }

    #[test]
    fn wrong_bytes_that_were_planted_on_the_disk_are_found() {
        let mut script = dma_then_fsync();
        script.fetch("a#1", Operation::Write, frame(7));
        script.push(EventKind::PlantedFault {
            request: id("a#1"),
            planted: Planted::WrongBytes,
        });
        found(&mut script, "disk", false);
        assert_eq!(ask(LostDmaData, &script).findings.len(), 1);
    }

    #[test]
    fn data_that_a_planned_fault_may_have_spoiled_was_not_lost_by_the_guest() {
        let on_disk = [
            Fault::Short { bytes: 512 },
            Fault::Torn {
                arrived: vec![[0, 512]],
            },
            Fault::Corrupt { bits: vec![9] },
            Fault::Status { worked: None },
            Fault::Duplicate,
        ];
        let stories = on_disk
            .into_iter()
            .flat_map(|fault| [("a#0", fault.clone()), ("b#0", fault)]);
        let touches = [
            (
                "c#0",
                Fault::LateTouch {
                    ranges: vec![frame(7)],
                },
            ),
            ("c#0", Fault::RogueTouch { range: frame(7) }),
        ];
        for (name, fault) in stories.chain(touches) {
            let mut script = dma_then_fsync();
            script.whole("c#0", Operation::Read, frame(9));
            script.fault(name, fault);
            found(&mut script, "disk", false);
            assert_void(&script);
        }
    }

    #[test]
    fn a_fault_that_spoils_nothing_excuses_nothing() {
        for fault in [
            Fault::InterruptSpurious,
            Fault::Reordered { place: 0, of: 2 },
        ] {
            let mut script = dma_then_fsync();
            script.fault("a#0", fault);
            found(&mut script, "disk", false);
            assert_eq!(ask(LostDmaData, &script).findings.len(), 1);
        }
    }
}
