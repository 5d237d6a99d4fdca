//! The guest freed a frame that a device still held.
//!
//! Verifies that no frame which the guest gives into a balloon, or reports as free, is held by a device at the moment at which the
//! balloon asks the ledger: the hold was opened before and closed after. Both are certain: a balloon asks before it acknowledges, so the
//! frame is free all the while, and a hold closes before the guest can know that its request has ended. If that request was
//! completed before, the device is to blame, not the guest.
//!
//! Does not verify frames that are free and are never reported (those on per-CPU lists, or below the order that the kernel reports): silence
//! proves nothing. A hold that opens while its frame is in the balloon of a driver that must tell before it takes a page back is
//! possible only; one that opens after a report is lawful, since the guest may use a reported frame again as soon as the report is acknowledged.

use std::collections::HashMap;

use pincushion_devices::trace::event::{Event, EventKind, Operation, RequestId};

use super::bench::{Opinion, Oracle, merge};
use crate::timeline::{Index, Timeline};
use crate::verdict::{Certainty, Finding, Promise};

const NAME: &str = "dma-into-freed-frame";
/// VIRTIO_BALLOON_F_MUST_TELL_HOST.
const MUST_TELL_HOST: u64 = 1;

/// The oracle.
#[derive(Default)]
pub(super) struct DmaIntoFreedFrame {
    caught: Vec<Caught>,
    freed_frames: u64,
    /// Frames in a balloon whose driver must tell before it takes them back, with the request that put them there.
    ballooned: HashMap<u64, Index>,
    must_tell: HashMap<String, bool>,
}

/// A frame that was free and held at once.
struct Caught {
    certainty: Certainty,
    freed_by: Index,
    holder: Index,
    /// Place of the event at which both were so.
    at: u64,
    frame: u64,
}

impl DmaIntoFreedFrame {
    fn freed(&mut self, request: &RequestId, at: u64, timeline: &Timeline) {
        let Some(freed_by) = timeline.find(request) else {
            return;
        };
        let inflated = timeline[freed_by].operation == Operation::Inflate;
        let told = inflated && self.must_tell.get(&request.device) == Some(&true);
        for frame in timeline[freed_by]
            .ranges
            .iter()
            .flat_map(|range| range.frames())
        {
            self.freed_frames += 1;
            for &holder in timeline.holders(frame) {
                self.caught.push(Caught {
                    certainty: Certainty::Certain,
                    freed_by,
                    holder,
                    at,
                    frame,
                });
            }
            if told {
                self.ballooned.insert(frame, freed_by);
            }
        }
    }

    fn held(&mut self, request: &RequestId, at: u64, timeline: &Timeline) {
        if self.ballooned.is_empty() {
            return;
        }
        let Some(holder) = timeline.find(request) else {
            return;
        };
        for frame in timeline[holder]
            .ranges
            .iter()
            .flat_map(|range| range.frames())
        {
            if let Some(&freed_by) = self.ballooned.get(&frame) {
                self.caught.push(Caught {
                    certainty: Certainty::Possible,
                    freed_by,
                    holder,
                    at,
                    frame,
                });
            }
        }
    }

    fn empty(&mut self, device: &str, timeline: &Timeline) {
        self.ballooned
            .retain(|_, by| timeline[*by].id.device != device);
    }
}

impl Oracle for DmaIntoFreedFrame {
    fn name(&self) -> &'static str {
        NAME
    }

    fn feed(&mut self, event: &Event, timeline: &Timeline) {
        match &event.kind {
            EventKind::Activated { device, features } => {
                self.must_tell
                    .insert(device.clone(), features & MUST_TELL_HOST != 0);
            }
            EventKind::FramesFreed { request, .. } => self.freed(request, event.seq.0, timeline),
            EventKind::HoldOpened { request, .. } => self.held(request, event.seq.0, timeline),
            EventKind::Fetched {
                operation: Operation::Deflate,
                ranges,
                ..
            } => {
                for frame in ranges.iter().flat_map(|range| range.frames()) {
                    self.ballooned.remove(&frame);
                }
            }
            EventKind::DeviceReset { device, .. } => self.empty(device, timeline),
            EventKind::BootBegan { .. } => self.ballooned.clear(),
            _ => {}
        }
    }

    fn say(&self, timeline: &Timeline, opinion: &mut Opinion) {
        opinion.count("dma-into-freed-frame.freed-frames", self.freed_frames);
        let findings = self.caught.iter().map(|caught| caught.finding(timeline));
        opinion.findings.extend(merge(findings.collect()));
    }
}

impl Caught {
    fn finding(&self, timeline: &Timeline) -> Finding {
        let (holder, freed_by) = (&timeline[self.holder], &timeline[self.freed_by]);
        let done = holder.used.filter(|(used, _)| used.seq < self.at);
        let (title, promise) = match (self.certainty, done) {
            (Certainty::Possible, _) => (
                "a frame in the balloon was given to a device",
                Promise::Freed,
            ),
            (Certainty::Certain, None) => {
                ("a frame was freed while a device held it", Promise::Freed)
            }
            (Certainty::Certain, Some(_)) => (
                "a device held a frame after the end of its request, and the frame was freed",
                Promise::Machine,
            ),
        };
        let hold = holder.hold.as_ref().map(|hold| hold.span);
        let opened = hold.map(|span| span.began.seq);
        let closed = hold.and_then(|span| span.ended).map(|stamp| stamp.seq);
        let until = closed.map_or("and was open to the end of the log".to_owned(), |closed| {
            format!("and was closed at event {closed}")
        });
        let ended = done.map_or(String::new(), |(used, _)| {
            format!(
                " The guest had been told at event {} that the request was done.",
                used.seq
            )
        });
        let what = match freed_by.operation {
            Operation::Inflate => "was in the balloon",
            _ => "was reported as free",
        };
        let text = format!(
            "Frame {:#x} {what} by the {} at event {}, while the hold of the {} on it was open: \
             it was opened at event {} {until}.{ended}",
            self.frame,
            freed_by.name(),
            self.at,
            holder.name(),
            opened.unwrap_or(self.at),
        );
        let evidence = [
            Some(freed_by.fetched.seq),
            Some(self.at),
            opened,
            closed,
            done.map(|(used, _)| used.seq),
        ];
        Finding {
            oracle: NAME.to_owned(),
            title: title.to_owned(),
            promise,
            certainty: self.certainty,
            text,
            evidence: evidence.into_iter().flatten().collect(),
            frames: vec![self.frame],
        }
    }
}

#[cfg(test)]
mod tests {
    use pincushion_devices::trace::event::HoldEnd;

    use super::*;
    use crate::oracle::bench::ask;
    use crate::timeline::script::{Script, frame, id};

    fn activate(script: &mut Script, features: u64) {
        script.push(EventKind::Activated {
            device: "balloon".to_owned(),
            features,
        });
    }

    /// The balloon takes frames.
    fn list(script: &mut Script, name: &str, operation: Operation, number: u64) {
        script.push(EventKind::Fetched {
            request: id(name),
            head: 0,
            operation,
            sector: 0,
            bytes: 4096,
            direction: None,
            ranges: vec![frame(number)],
        });
        if operation != Operation::Deflate {
            script.push(EventKind::FramesFreed {
                request: id(name),
                bytes: 4096,
                held: Vec::new(),
            });
        }
        script.publish(name);
    }

    fn told(script: &Script) -> Vec<(Certainty, Promise)> {
        let opinion = ask(DmaIntoFreedFrame::default(), script);
        opinion
            .findings
            .iter()
            .map(|finding| (finding.certainty, finding.promise))
            .collect()
    }

    #[test]
    fn a_frame_that_is_reported_or_inflated_while_a_device_holds_it_is_caught() {
        for operation in [Operation::ReportFree, Operation::Inflate] {
            let mut script = Script::booted();
            script.fetch("b#0", Operation::Read, frame(7));
            list(&mut script, "balloon#0", operation, 7);
            assert_eq!(told(&script), [(Certainty::Certain, Promise::Freed)]);
            script.finish("b#0");
            let opinion = ask(DmaIntoFreedFrame::default(), &script);
            assert_eq!(opinion.findings[0].frames, [7]);
            assert!(
                opinion.findings[0].text.contains("was closed at event"),
                "{opinion:?}"
            );
        }
    }

    #[test]
    fn a_device_that_keeps_a_frame_after_its_request_is_blamed_itself() {
        let mut script = Script::booted();
        script.fetch("b#0", Operation::Read, frame(7));
        script.publish("b#0");
        list(&mut script, "balloon#0", Operation::ReportFree, 7);
        script.close("b#0", HoldEnd::Abandoned);
        assert_eq!(told(&script), [(Certainty::Certain, Promise::Machine)]);
    }

    #[test]
    fn frames_that_are_free_before_or_after_a_hold_and_other_frames_pass() {
        let mut script = Script::booted();
        activate(&mut script, MUST_TELL_HOST);
        script.whole("b#0", Operation::Read, frame(7));
        list(&mut script, "balloon#0", Operation::ReportFree, 7);
        script.fetch("b#1", Operation::Read, frame(7));
        list(&mut script, "balloon#1", Operation::Inflate, 8);
        script.finish("b#1");
        list(&mut script, "balloon#2", Operation::Deflate, 8);
        script.whole("b#2", Operation::Write, frame(8));
        let opinion = ask(DmaIntoFreedFrame::default(), &script);
        assert!(opinion.findings.is_empty(), "{opinion:?}");
        assert_eq!(opinion.counts["dma-into-freed-frame.freed-frames"], 2);
    }

    #[test]
    fn a_hold_that_was_abandoned_before_the_report_passes() {
        let mut script = Script::booted();
        script.fetch("b#0", Operation::Read, frame(7));
        script.close("b#0", HoldEnd::Abandoned);
        list(&mut script, "balloon#0", Operation::ReportFree, 7);
        assert!(told(&script).is_empty());
    }

    #[test]
    fn a_hold_of_a_frame_in_the_balloon_is_possible_only_and_only_where_the_driver_must_tell() {
        for (features, expected) in [
            (MUST_TELL_HOST, vec![(Certainty::Possible, Promise::Freed)]),
            (0, vec![]),
        ] {
            let mut script = Script::booted();
            activate(&mut script, features);
            list(&mut script, "balloon#0", Operation::Inflate, 7);
            script.whole("b#0", Operation::Read, frame(7));
            assert_eq!(told(&script), expected);
        }
    }

    #[test]
    fn a_balloon_that_was_reset_or_belongs_to_an_earlier_boot_is_empty() {
        let mut script = Script::booted();
        activate(&mut script, MUST_TELL_HOST);
        list(&mut script, "balloon#0", Operation::Inflate, 7);
        script.push(EventKind::DeviceReset {
            device: "balloon".to_owned(),
            abandoned: 0,
        });
        script.whole("b#0", Operation::Read, frame(7));
        list(&mut script, "balloon#1", Operation::Inflate, 8);
        script.stop("reset");
        script.boot(2);
        script.whole("b#1", Operation::Read, frame(8));
        assert!(told(&script).is_empty());
    }
}
