//! A write's payload changed between its fetch and its completion.
//!
//! Verifies, for a disk that requires stable pages and for frames that the scenario has declared to be pages of a file on it, that the bytes
//! of a write stay as they were while the disk owns them; and tells who changed them: DMA of another request into the
//! same frame in that time (then O1 is what was broken), a device of ours that touched memory it did not own (a fault of the machine), or
//! else the guest's CPU. What the fault plan asked for (a late or rogue touch of these bytes, a completion that was announced twice) is counted
//! and blamed on nobody.
//!
//! Does not verify other disks: without stable pages a store into a page under write-back is legal, since the page is dirty again and
//! will be written again. Nor undeclared frames, whose owner may be a program that changes its own O_DIRECT buffer. Both are only counted. It
//! sees a change only between two hashes: without hashing it is silent.

use std::collections::BTreeMap;

use pincushion_devices::trace::event::{Direction, Event, EventKind, GuestRange};

use super::bench::{Opinion, Oracle, merge};
use crate::timeline::{Fact, Index, Timeline};
use crate::verdict::{Certainty, Finding, Promise};

const NAME: &str = "unstable-payload";

/// The oracle.
#[derive(Default)]
pub(super) struct UnstablePayload {
    /// Writes whose payload was seen to change, and whether their frames were declared when it was seen.
    changed: BTreeMap<Index, bool>,
}

/// Who changed a payload.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Culprit {
    Dma(Index),
    StrayTouch(Index),
    /// The plan: a device that touched what it did not own, or that let the guest believe the write was complete.
    Plan,
    Cpu,
}

impl Oracle for UnstablePayload {
    fn name(&self) -> &'static str {
        NAME
    }

    fn feed(&mut self, event: &Event, timeline: &Timeline) {
        let EventKind::PayloadHashed { request, .. } = &event.kind else {
            return;
        };
        let Some(index) = timeline.find(request) else {
            return;
        };
        let request = &timeline[index];
        if request.direction() != Some(Direction::ToDevice) {
            return;
        }
        if let Some((_, _, ranges)) = request.changed_payload() {
            let declared = ranges.iter().flat_map(|range| range.frames()).all(|frame| {
                timeline
                    .owner(frame)
                    .is_some_and(|owner| owner.device == request.id.device)
            });
            self.changed.entry(index).or_insert(declared);
        }
    }

    fn say(&self, timeline: &Timeline, opinion: &mut Opinion) {
        let mut findings = Vec::new();
        for (&index, &declared) in &self.changed {
            let Some((_, after, ranges)) = timeline[index].changed_payload() else {
                continue;
            };
            let culprit = culprit(timeline, index, &ranges, after.at.seq);
            let name = match culprit {
                Culprit::Dma(_) => "unstable-payload.dma",
                Culprit::StrayTouch(_) => "unstable-payload.stray-touch",
                Culprit::Plan => "unstable-payload.asked-for",
                Culprit::Cpu => "unstable-payload.cpu-store",
            };
            opinion.count(name, 1);
            if culprit != Culprit::Plan && declared && stable_pages_required(timeline, index) {
                findings.push(finding(timeline, index, culprit, &ranges));
            }
        }
        opinion.findings.extend(merge(findings));
    }
}

/// Whether the disk required stable pages when the write was fetched.
fn stable_pages_required(timeline: &Timeline, index: Index) -> bool {
    let write = &timeline[index];
    let boot = timeline.boots.iter().find(|boot| boot.number == write.boot);
    let since_boot = boot.map_or(0, |boot| boot.began.seq);
    timeline.facts.iter().any(|(at, fact)| {
        matches!(fact, Fact::StablePagesRequired(device) if *device == write.id.device)
            && (since_boot..write.fetched.seq).contains(&at.seq)
    })
}

/// Who touched these bytes between the write's first hash and the one that differs. The first, not the last equal one: the
/// hash of an early copy is logged later than the copy was made.
fn culprit(timeline: &Timeline, index: Index, ranges: &[GuestRange], until: u64) -> Culprit {
    let from = timeline[index]
        .hashes
        .first()
        .map_or(0, |hashed| hashed.at.seq);
    let write = &timeline[index];
    if timeline.touched_by_plan(ranges, from, until)
        || timeline.guest_was_misled(&write.id.device, write.boot, until)
    {
        return Culprit::Plan;
    }
    let covers = |other: Index| {
        let theirs = timeline[other].hold.iter().flat_map(|hold| &hold.ranges);
        theirs
            .clone()
            .any(|their| ranges.iter().any(|our| our.overlaps(*their)))
    };
    let writes_memory = |other: Index| timeline[other].direction() == Some(Direction::FromDevice);
    let stray = timeline
        .stray_touches
        .iter()
        .find(|(other, span)| span.meets(from, until) && writes_memory(*other) && covers(*other));
    if let Some((other, _)) = stray {
        return Culprit::StrayTouch(*other);
    }
    let dma = timeline
        .overlaps
        .iter()
        .filter(|overlap| overlap.write == index)
        .find(|overlap| {
            let read = &timeline[overlap.read];
            let ran = read
                .executed
                .as_ref()
                .is_some_and(|executed| (from..until).contains(&executed.at.seq));
            let touched = read.touches.iter().any(|touch| touch.meets(from, until));
            (ran || touched) && covers(overlap.read)
        });
    dma.map_or(Culprit::Cpu, |overlap| Culprit::Dma(overlap.read))
}

fn finding(timeline: &Timeline, index: Index, culprit: Culprit, ranges: &[GuestRange]) -> Finding {
    let write = &timeline[index];
    let (title, promise, who) = match culprit {
        Culprit::Dma(read) => (
            "stable pages are required and DMA changed a page under write-back",
            Promise::O1,
            format!("the {}, which wrote into the page", timeline[read].name()),
        ),
        Culprit::StrayTouch(other) => (
            "a device changed a page that it did not own",
            Promise::Machine,
            format!(
                "the {}, whose hold was closed before",
                timeline[other].name()
            ),
        ),
        Culprit::Plan | Culprit::Cpu => (
            "stable pages are required and the CPU changed a page under write-back",
            Promise::O1,
            "the guest's CPU, since no device touched it in that time".to_owned(),
        ),
    };
    Finding {
        oracle: NAME.to_owned(),
        title: title.to_owned(),
        promise,
        certainty: Certainty::Certain,
        text: format!(
            "The payload of the {} changed while disk {}, which requires stable pages, owned it. It was changed by {who}.",
            write.name(),
            write.id.device
        ),
        evidence: write.hashes.iter().map(|hashed| hashed.at.seq).collect(),
        frames: ranges.iter().flat_map(|range| range.frames()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use pincushion_devices::trace::event::{Fault, Moment, Operation};
    use serde_json::json;

    use super::*;
    use crate::oracle::bench::ask;
    use crate::timeline::script::{Script, frame, id};

    fn stable() -> Script {
        let mut script = Script::booted();
        script.fact(
            "file-page",
            json!({"device": "a", "file": "/mnt/data", "frames": [7]}),
        );
        script.fact("stable-pages-required", json!({"device": "a"}));
        script
    }

    /// A write of frame 7 whose payload changes, with something in between.
    fn changing_write(mut script: Script, between: impl FnOnce(&mut Script)) -> Opinion {
        script.fetch("a#0", Operation::Write, frame(7));
        script.hash("a#0", Moment::Fetch, frame(7), "00");
        between(&mut script);
        script.hash("a#0", Moment::Completion, frame(7), "ff");
        script.finish("a#0");
        ask(UnstablePayload::default(), &script)
    }

    #[test]
    fn a_cpu_store_into_a_stable_page_is_caught() {
        let opinion = changing_write(stable(), |_| ());
        assert!(opinion.findings[0].title.contains("CPU"), "{opinion:?}");
        assert_eq!(opinion.counts["unstable-payload.cpu-store"], 1);
    }

    #[test]
    fn dma_into_a_stable_page_is_named_as_dma() {
        let opinion = changing_write(stable(), |script| {
            script.whole("b#0", Operation::Read, frame(7));
        });
        assert!(opinion.findings[0].title.contains("DMA"), "{opinion:?}");
        assert_eq!(opinion.findings[0].promise, Promise::O1);
    }

    #[test]
    fn dma_into_another_page_is_not_blamed() {
        let opinion = changing_write(stable(), |script| {
            script.whole("b#0", Operation::Read, frame(8));
        });
        assert!(opinion.findings[0].title.contains("CPU"), "{opinion:?}");
    }

    #[test]
    fn a_device_that_touches_after_its_completion_is_blamed_and_not_the_guest() {
        let mut script = stable();
        script.whole("b#0", Operation::Read, frame(7));
        let opinion = changing_write(script, |script| {
            script.touch("b#0");
        });
        assert_eq!(opinion.findings[0].promise, Promise::Machine);
    }

    #[test]
    fn a_cpu_store_is_only_counted_where_no_stable_pages_are_required() {
        let mut script = Script::booted();
        script.fact(
            "file-page",
            json!({"device": "a", "file": "/mnt/data", "frames": [7]}),
        );
        let opinion = changing_write(script, |_| ());
        assert!(opinion.findings.is_empty(), "{opinion:?}");
        assert_eq!(opinion.counts["unstable-payload.cpu-store"], 1);
    }

    #[test]
    fn a_program_that_changes_its_own_buffer_is_only_counted() {
        let mut script = Script::booted();
        script.fact("stable-pages-required", json!({"device": "a"}));
        assert!(changing_write(script, |_| ()).findings.is_empty());
    }

    #[test]
    fn a_payload_that_stays_passes() {
        let mut script = stable();
        script.fetch("a#0", Operation::Write, frame(7));
        for moment in [Moment::Fetch, Moment::Transfer, Moment::Completion] {
            script.hash("a#0", moment, frame(7), "00");
        }
        script.finish("a#0");
        assert_eq!(ask(UnstablePayload::default(), &script), Opinion::default());
    }

    fn asked_for(script: &Script) {
        let opinion = ask(UnstablePayload::default(), script);
        assert!(opinion.findings.is_empty(), "{opinion:?}");
        assert!(
            opinion
                .counts
                .keys()
                .all(|name| name == "unstable-payload.asked-for"),
            "{opinion:?}"
        );
    }

    #[test]
    fn a_write_that_the_plan_corrupted_on_its_way_has_a_stable_payload() {
        for fault in [
            Fault::Corrupt { bits: vec![3] },
            Fault::Torn { arrived: vec![] },
            Fault::Short { bytes: 512 },
        ] {
            let mut script = stable();
            script.fetch("a#0", Operation::Write, frame(7));
            script.hash("a#0", Moment::Fetch, frame(7), "0a");
            script.fault("a#0", fault);
            script.hash("a#0", Moment::Transfer, frame(7), "0b");
            script.hash("a#0", Moment::Completion, frame(7), "0a");
            script.finish("a#0");
            asked_for(&script);
        }
    }

    #[test]
    fn a_page_that_a_planned_touch_changed_was_not_changed_by_the_guest() {
        let late = Fault::LateTouch {
            ranges: vec![frame(7)],
        };
        let rogue = Fault::RogueTouch { range: frame(7) };
        for fault in [late, rogue] {
            let mut script = stable();
            script.whole("b#0", Operation::Read, frame(9));
            script.fetch("a#0", Operation::Write, frame(7));
            script.hash("a#0", Moment::Fetch, frame(7), "0a");
            script.fault("b#0", fault);
            script.push(EventKind::FaultTouchEnded { request: id("b#0") });
            script.hash("a#0", Moment::Completion, frame(7), "0b");
            script.finish("a#0");
            asked_for(&script);
        }
    }

    #[test]
    fn a_page_that_the_guest_was_told_it_owns_may_be_changed() {
        let mut script = stable();
        script.whole("a#0", Operation::Write, frame(9));
        script.fault("a#0", Fault::Duplicate);
        script.fetch("a#1", Operation::Write, frame(7));
        script.hash("a#1", Moment::Fetch, frame(7), "0a");
        script.hash("a#1", Moment::Completion, frame(7), "0b");
        script.finish("a#1");
        asked_for(&script);
    }
}
