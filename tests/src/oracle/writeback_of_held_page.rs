//! O1: a page of a file is written back while a device still writes it.
//!
//! Verifies that no write to the disk of a file system takes bytes of a page-cache page which another request holds for DMA into it. It is
//! certain when both holds were open at once (the ledger under-approximates, so they were), they share bytes, and the scenario has declared the
//! frame to be a page of a file on the written disk. It does not need the payload to have changed: the promise is that such a write
//! does not begin. Where the scenario says that nothing is written to that disk but out of the page cache (`written-by-cache`), no frame has
//! to be declared: what a device writes into is no block of the file system's own.
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
                    of_a_file(timeline, overlap, &declared),
                ));
            } else if is_of_the_cache(timeline, overlap) {
                opinion.count("writeback-of-held-page.certain", 1);
                findings.push((clarity(timeline, overlap), of_the_cache(timeline, overlap)));
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

/// Whether the scenario has said, in this boot and before, that the written disk gets nothing but what is in the page cache, and no
/// frame is known to be somebody else's.
fn is_of_the_cache(timeline: &Timeline, overlap: &Overlap) -> bool {
    let disk = &timeline[overlap.write].id.device;
    let boots = timeline.boots.iter();
    let said = timeline.facts.iter().any(|(at, fact)| {
        let later_boot = boots
            .clone()
            .any(|boot| *at < boot.began && boot.began < overlap.since);
        matches!(fact, Fact::WrittenByCache(device) if device == disk)
            && *at < overlap.since
            && !later_boot
    });
    said && overlap.frames.iter().all(|(_, owner)| owner.is_none())
}

fn of_a_file(timeline: &Timeline, overlap: &Overlap, declared: &[(u64, &PageOwner)]) -> Finding {
    let (frame, owner) = declared[0];
    let frames = declared.iter().map(|(frame, _)| *frame).collect();
    let page = format!("Page {} of {}", owner.page, owner.file);
    certain(timeline, overlap, &page, frame, frames)
}

fn of_the_cache(timeline: &Timeline, overlap: &Overlap) -> Finding {
    let frames: Vec<u64> = overlap.frames.iter().map(|(frame, _)| *frame).collect();
    let frame = frames.first().copied().unwrap_or_default();
    certain(timeline, overlap, "A page of the page cache", frame, frames)
}

fn certain(
    timeline: &Timeline,
    overlap: &Overlap,
    page: &str,
    frame: u64,
    frames: Vec<u64>,
) -> Finding {
    let (write, read) = (&timeline[overlap.write], &timeline[overlap.read]);
    let mut text = format!(
        "{page} (guest frame {frame:#x}, address {:#x}) was under write-back to disk {} by the {} while disk {} still owned it for the {}, \
         which writes into it. Both held the page {}.",
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
        frames,
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
mod tests;
