//! O1: a page of a file is written back while a device still writes it.
//!
//! Verifies that no write to the disk of a file system takes bytes of a page-cache page which another request holds for DMA into it. It is
//! certain when both holds were open at once (the ledger under-approximates, so they were), they share bytes, and the scenario has declared the
//! frame to be a page of a file on the written disk. It does not need the payload to have changed: the promise is that such a write
//! does not begin.
//!
//! Does not verify what happens on a device after the plan let it announce a completion twice: the guest may then believe that a page is its own
//! again, so it is only counted.
//!
//! Does not verify frames that nobody declared. There a program that reads from one disk and writes to another with O_DIRECT from one
//! buffer, without waiting, looks the same from outside and breaks no promise of the kernel: between different devices it is a *possible*
//! finding, within one device it is only counted. Nor does it verify CPU stores (legal unless stable pages are required: `unstable-payload`), or
//! two requests that share a frame but no byte.

use pincushion_devices::trace::event::{Direction, Event, EventKind, FRAME_SIZE, Moment};

use super::bench::{Opinion, Oracle, merge};
use crate::timeline::{Fact, Overlap, PageOwner, Timeline};
use crate::verdict::{Certainty, Finding, Promise};

const NAME: &str = "writeback-of-held-page";

/// The oracle.
#[derive(Default)]
pub(super) struct WritebackOfHeldPage {
    /// Requests that write into a declared page, and write-backs of one: without both, the promise was not put to the test.
    dma: u64,
    write_backs: u64,
}

impl Oracle for WritebackOfHeldPage {
    fn name(&self) -> &'static str {
        NAME
    }

    fn feed(&mut self, event: &Event, timeline: &Timeline) {
        let EventKind::HoldOpened {
            request,
            direction,
            ranges,
            ..
        } = &event.kind
        else {
            return;
        };
        let mut owners = ranges
            .iter()
            .flat_map(|range| range.frames())
            .filter_map(|frame| timeline.owner(frame));
        match direction {
            Direction::FromDevice => self.dma += u64::from(owners.next().is_some()),
            Direction::ToDevice => {
                self.write_backs += u64::from(owners.any(|owner| owner.device == request.device));
            }
        }
    }

    fn say(&self, timeline: &Timeline, opinion: &mut Opinion) {
        opinion.count("writeback-of-held-page.dma-into-file-page", self.dma);
        opinion.count("writeback-of-held-page.write-back", self.write_backs);
        let mut findings = Vec::new();
        for overlap in &timeline.overlaps {
            let declared = declared_frames(timeline, overlap);
            let misled = [overlap.write, overlap.read].into_iter().any(|index| {
                let request = &timeline[index];
                timeline.guest_was_misled(&request.id.device, request.boot, overlap.since.seq)
            });
            if misled {
                opinion.count("writeback-of-held-page.after-a-planned-fault", 1);
            } else if !declared.is_empty() {
                opinion.count("writeback-of-held-page.certain", 1);
                findings.push((
                    clarity(timeline, overlap),
                    certain(timeline, overlap, &declared),
                ));
            } else if timeline[overlap.write].id.device == timeline[overlap.read].id.device {
                opinion.count("writeback-of-held-page.undeclared-same-device", 1);
            } else {
                opinion.count("writeback-of-held-page.undeclared", 1);
                findings.push((clarity(timeline, overlap), possible(timeline, overlap)));
            }
        }
        opinion.count(
            "writeback-of-held-page.same-frame-other-bytes",
            timeline.neighbours,
        );
        findings.sort_by_key(|(clarity, _)| std::cmp::Reverse(*clarity));
        opinion.findings.extend(merge(
            findings.into_iter().map(|(_, finding)| finding).collect(),
        ));
    }
}

/// Shared frames that are pages of a file on the disk which is written.
fn declared_frames<'a>(timeline: &Timeline, overlap: &'a Overlap) -> Vec<(u64, &'a PageOwner)> {
    let disk = &timeline[overlap.write].id.device;
    overlap
        .frames
        .iter()
        .filter_map(|(frame, owner)| Some((*frame, owner.as_ref()?)))
        .filter(|(_, owner)| owner.device == *disk)
        .collect()
}

/// How much there is to see: the payload changed, the device touched meanwhile, or neither. The clearest case is the one that is told.
fn clarity(timeline: &Timeline, overlap: &Overlap) -> u8 {
    u8::from(touched(timeline, overlap).is_some())
        + 2 * u8::from(timeline[overlap.write].changed_payload().is_some())
}

/// The touch of the reading device that fell into the time of the write.
fn touched(timeline: &Timeline, overlap: &Overlap) -> Option<(u64, u64)> {
    let write = timeline[overlap.write].hold.as_ref()?;
    let touches = &timeline[overlap.read].touches;
    let touch = touches.iter().find(|touch| touch.overlaps(write.span))?;
    Some((
        touch.began.seq,
        touch.ended.map_or(touch.began.seq, |ended| ended.seq),
    ))
}

fn certain(timeline: &Timeline, overlap: &Overlap, declared: &[(u64, &PageOwner)]) -> Finding {
    let (frame, owner) = declared[0];
    let (write, read) = (&timeline[overlap.write], &timeline[overlap.read]);
    let mut text = format!(
        "Page {} of {} (guest frame {frame:#x}, address {:#x}) was under write-back to disk {} by the {} while disk {} still owned it for the {}, \
         which writes into it. Both held the page {}.",
        owner.page,
        owner.file,
        frame * FRAME_SIZE,
        write.id.device,
        write.name(),
        read.id.device,
        read.name(),
        common_span(timeline, overlap),
    );
    if let Some((from, to)) = touched(timeline, overlap) {
        text += &format!(
            " In that time disk {} wrote the page (events {from} to {to}).",
            read.id.device
        );
    }
    if let Some((before, after, _)) = write.changed_payload() {
        text += &format!(
            " The payload changed under the write: its hash at {} is not the one at {}.",
            moment(before.moment),
            moment(after.moment)
        );
    }
    text += &by_the_kernels_trace(timeline);
    Finding {
        oracle: NAME.to_owned(),
        title: "write-back of a page that a device is still writing".to_owned(),
        promise: Promise::O1,
        certainty: Certainty::Certain,
        text,
        evidence: evidence(timeline, overlap),
        frames: declared.iter().map(|(frame, _)| *frame).collect(),
    }
}

/// How the kernel came to clean a page, where the scenario had it traced.
fn by_the_kernels_trace(timeline: &Timeline) -> String {
    let traces = timeline.facts.iter().filter_map(|(_, fact)| match fact {
        Fact::KernelTrace(trace) => Some((&trace.what, trace.clearest()?)),
        _ => None,
    });
    let told = traces.map(|(what, stack)| {
        let callers = stack.join(" < ");
        format!(" The kernel's trace of {what}: {callers}.")
    });
    told.collect()
}

fn possible(timeline: &Timeline, overlap: &Overlap) -> Finding {
    let (write, read) = (&timeline[overlap.write], &timeline[overlap.read]);
    Finding {
        oracle: NAME.to_owned(),
        title: "memory is sent to one disk while another disk writes it".to_owned(),
        promise: Promise::O1,
        certainty: Certainty::Possible,
        text: format!(
            "The {} and the {} held the same bytes of guest frame {:#x} {}. No fact says that it is a page of a file on disk {}: \
             it may be write-back of a page under DMA, or a program that uses one buffer for both.",
            write.name(),
            read.name(),
            overlap.frames.first().map_or(0, |(frame, _)| *frame),
            common_span(timeline, overlap),
            write.id.device,
        ),
        evidence: evidence(timeline, overlap),
        frames: overlap.frames.iter().map(|(frame, _)| *frame).collect(),
    }
}

fn common_span(timeline: &Timeline, overlap: &Overlap) -> String {
    let end = [overlap.write, overlap.read]
        .into_iter()
        .filter_map(|index| timeline[index].hold.as_ref()?.span.ended)
        .min();
    match end {
        Some(end) => format!("from event {} to event {}", overlap.since.seq, end.seq),
        None => format!("from event {} to the end of the log", overlap.since.seq),
    }
}

/// Both lives, and the guest's steps in which the two holds met.
fn evidence(timeline: &Timeline, overlap: &Overlap) -> Vec<u64> {
    let mut seqs = vec![overlap.since.seq];
    for index in [overlap.write, overlap.read] {
        let request = &timeline[index];
        seqs.push(request.fetched.seq);
        if let Some(hold) = &request.hold {
            seqs.push(hold.span.began.seq);
            seqs.extend(hold.span.ended.map(|ended| ended.seq));
        }
        let parks = request.parks.iter().map(|park| park.span);
        for span in request.touches.iter().copied().chain(parks) {
            seqs.push(span.began.seq);
            seqs.extend(span.ended.map(|ended| ended.seq));
        }
        seqs.extend(request.executed.as_ref().map(|executed| executed.at.seq));
    }
    for step in &timeline.steps {
        let (Some(began), Some(ended)) = (step.began, step.ended) else {
            continue;
        };
        if began < overlap.since && overlap.since < ended {
            seqs.extend([began.seq, ended.seq]);
        }
    }
    seqs.extend(
        timeline[overlap.write]
            .hashes
            .iter()
            .map(|hashed| hashed.at.seq),
    );
    seqs
}

/// When a hash was taken, in words.
fn moment(moment: Moment) -> &'static str {
    match moment {
        Moment::Fetch => "the fetch",
        Moment::Transfer => "the transfer",
        Moment::Completion => "the completion",
    }
}

#[cfg(test)]
mod tests {
    use pincushion_devices::trace::event::{Fault, GuestRange, HoldEnd, Operation, Status};
    use serde_json::json;

    use super::*;
    use crate::oracle::bench::ask;
    use crate::timeline::script::{Script, frame};

    const PAGE: u64 = 0x1234;

    fn declared() -> Script {
        let mut script = Script::booted();
        script.fact(
            "file-page",
            json!({"device": "a", "file": "/mnt/data", "frames": [PAGE]}),
        );
        script
    }

    #[test]
    fn a_read_that_runs_within_a_held_write_back_is_caught_with_its_story() {
        let mut script = declared();
        script.fetch("b#0", Operation::Read, frame(PAGE));
        script.fetch("a#0", Operation::Write, frame(PAGE));
        script.hash("a#0", Moment::Fetch, frame(PAGE), "00");
        script.finish("b#0");
        script.touch("a#0");
        script.hash("a#0", Moment::Completion, frame(PAGE), "ff");
        script.execute("a#0", Status::Ok);
        script.close("a#0", HoldEnd::Completed);
        let opinion = ask(WritebackOfHeldPage::default(), &script);
        let [finding] = &opinion.findings[..] else {
            panic!("one finding, got {opinion:?}")
        };
        assert_eq!(
            (finding.promise, finding.certainty),
            (Promise::O1, Certainty::Certain)
        );
        assert_eq!(finding.frames, [PAGE]);
        for words in ["/mnt/data", "disk b wrote the page", "The payload changed"] {
            assert!(finding.text.contains(words), "{words}: {}", finding.text);
        }
        assert!(finding.evidence.is_sorted());
    }

    #[test]
    fn a_read_that_began_during_the_write_back_is_caught_too() {
        let mut script = declared();
        script.fetch("a#0", Operation::Write, frame(PAGE));
        script.fetch("b#0", Operation::Read, frame(PAGE));
        script.finish("a#0");
        script.finish("b#0");
        assert_eq!(
            ask(WritebackOfHeldPage::default(), &script).findings.len(),
            1
        );
    }

    #[test]
    fn a_trace_of_the_kernels_gives_the_finding_its_functions_and_makes_none_by_itself() {
        let text =
            "a-1: cleans: (folio_clear_dirty_for_io+0x0/0x1)\na-1: <stack trace>\n => do_fsync\n";
        let mut script = declared();
        script.fact("kernel-trace", json!({"what": "the fsync", "text": text}));
        let none = ask(WritebackOfHeldPage::default(), &script).findings;
        assert_eq!(none, []);
        script.fetch("b#0", Operation::Read, frame(PAGE));
        script.fetch("a#0", Operation::Write, frame(PAGE));
        let findings = ask(WritebackOfHeldPage::default(), &script).findings;
        let told = "The kernel's trace of the fsync: folio_clear_dirty_for_io < do_fsync.";
        assert!(findings[0].text.contains(told), "{}", findings[0].text);
    }

    #[test]
    fn many_pages_make_one_finding_with_all_frames() {
        let mut script = declared();
        script.fact(
            "file-page",
            json!({"device": "a", "file": "/mnt/data", "frames": [PAGE, PAGE + 1]}),
        );
        for (n, page) in [PAGE, PAGE + 1].into_iter().enumerate() {
            script.fetch(&format!("b#{n}"), Operation::Read, frame(page));
            script.fetch(&format!("a#{n}"), Operation::Write, frame(page));
        }
        let opinion = ask(WritebackOfHeldPage::default(), &script);
        assert_eq!(opinion.findings.len(), 1);
        assert_eq!(opinion.findings[0].frames, [PAGE, PAGE + 1]);
        assert!(opinion.findings[0].text.contains("2 times"));
    }

    #[test]
    fn write_back_after_the_dma_has_ended_passes_and_so_does_dma_after_write_back() {
        let mut script = declared();
        script.whole("b#0", Operation::Read, frame(PAGE));
        script.whole("a#0", Operation::Write, frame(PAGE));
        script.whole("b#1", Operation::Read, frame(PAGE));
        assert!(
            ask(WritebackOfHeldPage::default(), &script)
                .findings
                .is_empty()
        );
    }

    #[test]
    fn two_writes_or_two_reads_of_a_page_at_once_pass() {
        let mut script = declared();
        script.fetch("a#0", Operation::Write, frame(PAGE));
        script.fetch("b#0", Operation::Write, frame(PAGE));
        script.finish("a#0");
        script.finish("b#0");
        script.fetch("a#1", Operation::Read, frame(PAGE));
        script.fetch("b#1", Operation::Read, frame(PAGE));
        assert!(
            ask(WritebackOfHeldPage::default(), &script)
                .findings
                .is_empty()
        );
    }

    #[test]
    fn a_program_that_copies_through_two_buffers_passes() {
        let mut script = Script::booted();
        for round in 0..4 {
            let (reads, writes) = (frame(PAGE + round % 2), frame(PAGE + (round + 1) % 2));
            script.fetch(&format!("b#{round}"), Operation::Read, reads);
            script.fetch(&format!("a#{round}"), Operation::Write, writes);
            script.finish(&format!("a#{round}"));
            script.finish(&format!("b#{round}"));
        }
        assert!(
            ask(WritebackOfHeldPage::default(), &script)
                .findings
                .is_empty()
        );
    }

    #[test]
    fn small_buffers_that_share_a_frame_but_no_byte_are_only_counted() {
        let mut script = declared();
        let half = |n: u64| GuestRange {
            addr: PAGE * FRAME_SIZE + n * 2048,
            len: 2048,
        };
        script.fetch("b#0", Operation::Read, half(0));
        script.fetch("a#0", Operation::Write, half(1));
        let opinion = ask(WritebackOfHeldPage::default(), &script);
        assert!(opinion.findings.is_empty(), "{opinion:?}");
        assert_eq!(
            opinion.counts["writeback-of-held-page.same-frame-other-bytes"],
            1
        );
    }

    #[test]
    fn a_frame_that_nobody_declared_is_possible_only_and_so_is_a_write_to_another_disk() {
        for fact in [None, Some("b"), Some("c")] {
            let mut script = Script::booted();
            if let Some(device) = fact {
                script.fact(
                    "file-page",
                    json!({"device": device, "file": "f", "frames": [PAGE]}),
                );
            }
            script.fetch("b#0", Operation::Read, frame(PAGE));
            script.fetch("a#0", Operation::Write, frame(PAGE));
            let opinion = ask(WritebackOfHeldPage::default(), &script);
            assert_eq!(
                opinion.findings[0].certainty,
                Certainty::Possible,
                "{fact:?}"
            );
        }
    }

    #[test]
    fn a_frame_that_left_its_file_or_its_boot_is_not_declared_any_more() {
        let mut gone = declared();
        gone.fact("file-page-gone", json!({"frames": [PAGE]}));
        let mut rebooted = declared();
        rebooted.stop("reset");
        rebooted.boot(2);
        for mut script in [gone, rebooted] {
            script.fetch("b#0", Operation::Read, frame(PAGE));
            script.fetch("a#0", Operation::Write, frame(PAGE));
            let opinion = ask(WritebackOfHeldPage::default(), &script);
            assert_eq!(opinion.findings[0].certainty, Certainty::Possible);
        }
    }

    #[test]
    fn a_hold_that_a_reset_took_back_does_not_overlap_what_comes_later() {
        let mut script = declared();
        script.fetch("b#0", Operation::Read, frame(PAGE));
        script.close("b#0", HoldEnd::Abandoned);
        script.whole("a#0", Operation::Write, frame(PAGE));
        assert!(
            ask(WritebackOfHeldPage::default(), &script)
                .findings
                .is_empty()
        );
    }

    #[test]
    fn a_guest_that_was_told_twice_may_take_a_held_page_for_its_own() {
        let mut script = Script::booted();
        script.fact(
            "file-page",
            json!({"device": "a", "file": "f", "frames": [7]}),
        );
        script.whole("b#0", Operation::Read, frame(8));
        script.fault("b#0", Fault::Duplicate);
        script.fetch("b#1", Operation::Read, frame(7));
        script.fetch("a#0", Operation::Write, frame(7));
        let opinion = ask(WritebackOfHeldPage::default(), &script);
        assert!(opinion.findings.is_empty(), "{opinion:?}");
    }
}
