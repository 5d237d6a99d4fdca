//! O3: a DAX block is not given to another file while a device still holds it.
//!
//! Verifies, by what the guest's own file system says of its files (FS_IOC_FIEMAP, asked by the agent and named by the fact `file-blocks`):
//! two looks within one hold of a frame of a pmem region must not find its block in two different files. Both looks began
//! after the hold was open and ended before it was closed, so whatever came between them, the block changed its owner under the device.
//! A file is known by inode and generation, so a renamed file is the same one, and a new file with an old inode's number is another.
//!
//! Does not verify what nobody looked at, nor who *stores* into a held block: CPU stores cannot be seen from outside, and a program's own
//! store beside its own DMA is its own race. Does not see a block that was freed and not yet given away, nor one that went to metadata of the
//! file system. Blocks that files share on purpose (reflink), inline data and space that has no place yet are left out. Where only one look lies
//! within the hold, and an older one found the block in another file, the finding is possible only: it may have changed hands before the hold.
//! After the plan let a device write memory that it did not own, or complete a request twice, a change of hands is counted: the guest's
//! metadata may be wrong, or it believes that the device has done. The file system is taken to fill the region from its first byte (no
//! partition), as nd_pmem shows it.
//!
//! Why not from outside, by the metadata in the region: while the guest runs, these are half in a journal and half in the guest's caches,
//! and a judge that reads them too early blames the guest for what it has not done.

use pincushion_abi::{Outcome, Value};
use pincushion_devices::trace::event::{Direction, FRAME_SIZE, GuestRange};

use super::bench::{Opinion, Oracle, merge};
use crate::timeline::{Fact, Request, Span, Timeline};
use crate::verdict::{Certainty, Finding, Promise};

const NAME: &str = "dax-block-reused-while-held";
/// FIEMAP_EXTENT_UNKNOWN, DELALLOC, ENCODED, DATA_ENCRYPTED, NOT_ALIGNED, DATA_INLINE, DATA_TAIL: no block of its own; SHARED: not its alone.
const NOT_ITS_OWN: u64 = 0x2 | 0x4 | 0x8 | 0x80 | 0x100 | 0x200 | 0x400 | 0x2000;

/// The oracle.
pub(super) struct DaxBlockReused;

/// What the guest said of one file's blocks.
struct Look<'a> {
    device: &'a str,
    file: &'a str,
    /// Inode and generation.
    owner: &'a str,
    step: u32,
    /// Places in the order between which the kernel answered.
    began: u64,
    ended: u64,
    /// Byte ranges of the region.
    blocks: Vec<(u64, u64)>,
}

impl Look<'_> {
    fn has(&self, offset: u64) -> bool {
        self.blocks
            .iter()
            .any(|(start, len)| (*start..start.saturating_add(*len)).contains(&offset))
    }

    fn is_within(&self, request: &Request) -> bool {
        let hold = request.hold.as_ref();
        hold.is_some_and(|hold| {
            hold.span.began.seq < self.began && self.ended < hold.span.end_seq()
        })
    }
}

impl Oracle for DaxBlockReused {
    fn name(&self) -> &'static str {
        NAME
    }

    fn say(&self, timeline: &Timeline, opinion: &mut Opinion) {
        let mut looks = Vec::new();
        for (_, fact) in &timeline.facts {
            if let Fact::FileBlocks(told) = fact {
                match look(timeline, &told.device, &told.file, told.step) {
                    Some(look) => looks.push(look),
                    None => opinion.count("dax-block-reused-while-held.useless-look", 1),
                }
            }
        }
        looks.sort_by_key(|look| look.began);
        let mut findings = Vec::new();
        for (name, device) in &timeline.devices {
            let Some(region) = device.region else {
                continue;
            };
            let looks: Vec<&Look<'_>> = looks.iter().filter(|look| look.device == name).collect();
            for request in &timeline.requests {
                let frames = frames_in(region, request);
                if frames.is_empty() {
                    continue;
                }
                opinion.count("dax-block-reused-while-held.holds", 1);
                let within = looks.iter().filter(|look| look.is_within(request)).count();
                opinion.count(
                    "dax-block-reused-while-held.looked-twice",
                    u64::from(within > 1),
                );
                let changes = frames.iter().filter_map(|frame| {
                    let offset = frame * FRAME_SIZE - region.addr;
                    changed_hands(&looks, request, offset).map(|pair| (*frame, offset, pair))
                });
                for (frame, offset, change) in changes {
                    if was_asked_for(timeline, request, &change) {
                        opinion.count("dax-block-reused-while-held.after-a-planned-fault", 1);
                    } else {
                        findings.push(finding(name, request, frame, offset, &change));
                    }
                }
            }
        }
        opinion.findings.extend(merge(findings));
    }
}

/// What a step found out; `None` where it failed, is none that tells blocks, or names a device that is no region.
fn look<'a>(timeline: &'a Timeline, device: &'a str, file: &'a str, step: u32) -> Option<Look<'a>> {
    timeline.devices.get(device)?.region?;
    let step = timeline.step(step)?;
    let Some((_, Outcome::Ok(values))) = &step.outcome else {
        return None;
    };
    let numbers = |name: &str| match values.get(name) {
        Some(Value::Numbers(numbers)) => Some(numbers),
        _ => None,
    };
    let Some(Value::Text(owner)) = values.get("owner") else {
        return None;
    };
    let (physical, lengths) = (numbers("physical")?, numbers("lengths")?);
    let extents = physical.iter().zip(lengths).zip(numbers("flags")?);
    let own = extents.filter(|(_, flags)| **flags & NOT_ITS_OWN == 0);
    Some(Look {
        device,
        file,
        owner,
        step: step.id,
        began: step.began?.seq,
        ended: step.ended?.seq,
        blocks: own.map(|((start, len), _)| (*start, *len)).collect(),
    })
}

/// Frames of a region that a request holds or held.
fn frames_in(region: GuestRange, request: &Request) -> Vec<u64> {
    let ranges = request.hold.iter().flat_map(|hold| &hold.ranges);
    let inside = ranges.filter(|range| range.overlaps(region));
    let first = region.addr / FRAME_SIZE;
    let frames = first..first + region.len / FRAME_SIZE;
    let mut held: Vec<u64> = inside
        .flat_map(|range| range.frames())
        .filter(|frame| frames.contains(frame))
        .collect();
    held.sort_unstable();
    held.dedup();
    held
}

/// Whether a fault of the plan may have made the guest give the block away.
fn was_asked_for(timeline: &Timeline, request: &Request, change: &Change<'_>) -> bool {
    let (boot, until) = (request.boot, change.taker.ended);
    timeline.memory_was_spoiled(boot, until)
        || timeline.guest_was_misled(&request.id.device, boot, until)
}

/// The last look that found the block with one file and the first that found it with another.
struct Change<'a> {
    holder: &'a Look<'a>,
    taker: &'a Look<'a>,
    certainty: Certainty,
}

fn changed_hands<'a>(looks: &[&'a Look<'a>], request: &Request, offset: u64) -> Option<Change<'a>> {
    let mut holder: Option<&Look<'_>> = None;
    for look in looks.iter().filter(|look| look.has(offset)) {
        if look.is_within(request)
            && let Some(holder) = holder.filter(|holder| holder.owner != look.owner)
        {
            let certainty = if holder.is_within(request) {
                Certainty::Certain
            } else {
                Certainty::Possible
            };
            return Some(Change {
                holder,
                taker: look,
                certainty,
            });
        }
        let before_its_end = request
            .hold
            .as_ref()
            .is_some_and(|hold| look.ended < hold.span.end_seq());
        if before_its_end {
            holder = Some(look);
        }
    }
    None
}

fn finding(
    device: &str,
    request: &Request,
    frame: u64,
    offset: u64,
    change: &Change<'_>,
) -> Finding {
    let Change {
        holder,
        taker,
        certainty,
    } = change;
    let hold = request
        .hold
        .as_ref()
        .expect("only held frames are looked at");
    let until = match hold.span.ended {
        Some(ended) => format!("to event {}", ended.seq),
        None => "to the end of the log".to_owned(),
    };
    let touched = request
        .touches
        .iter()
        .find(|touch| touch.began.seq > taker.ended);
    let (held_for, consequence) = consequence(hold.direction, touched, change);
    let doubt = match certainty {
        Certainty::Certain => "",
        Certainty::Possible => {
            " Nobody looked whether the first file still had it when the hold began."
        }
    };
    let mut evidence = vec![
        request.fetched.seq,
        hold.span.began.seq,
        holder.began,
        holder.ended,
        taker.began,
        taker.ended,
    ];
    evidence.extend(hold.span.ended.map(|ended| ended.seq));
    evidence.extend(touched.map(|touch| touch.began.seq));
    Finding {
        oracle: NAME.to_owned(),
        title: "a DAX block went to another file while a device held it".to_owned(),
        promise: Promise::O3,
        certainty: *certainty,
        text: format!(
            "The {} held guest frame {frame:#x}, the block at byte {offset:#x} of {device}, {held_for}, from event {} {until}. In step {} the \
             guest said that it is a block of {} (inode.generation {}), and in step {}, while it was still held, of {} ({}).{consequence}{doubt}",
            request.name(),
            hold.span.began.seq,
            holder.step,
            holder.file,
            holder.owner,
            taker.step,
            taker.file,
            taker.owner,
        ),
        evidence,
        frames: vec![frame],
    }
}

/// What the device held the block for, and what came of it.
fn consequence(
    direction: Direction,
    touched: Option<&Span>,
    change: &Change<'_>,
) -> (&'static str, String) {
    let (holder, taker) = (change.holder.file, change.taker.file);
    let at = touched.map(|touch| touch.began.seq);
    match (direction, at) {
        (Direction::FromDevice, Some(at)) => (
            "to write it",
            format!(" At event {at} the device wrote its data over those of {taker}."),
        ),
        (Direction::ToDevice, Some(at)) => (
            "to read it",
            format!(" At event {at} the device read {taker}'s bytes in the place of {holder}'s."),
        ),
        (Direction::FromDevice, None) => ("to write it", String::new()),
        (Direction::ToDevice, None) => ("to read it", String::new()),
    }
}

#[cfg(test)]
mod tests {
    use pincushion_devices::trace::event::{EventKind, Fault, HoldEnd, Operation};
    use serde_json::json;

    use super::*;
    use crate::oracle::bench::ask;
    use crate::timeline::script::{Script, frame};

    const REGION: GuestRange = GuestRange {
        addr: 1 << 32,
        len: 32 << 20,
    };
    const PAGE: u64 = REGION.addr / FRAME_SIZE + 7;
    const BLOCK: u64 = 7 * FRAME_SIZE;

    fn machine() -> Script {
        let mut script = Script::booted();
        script.region("p", REGION);
        script
    }

    /// The guest says that a file has one block.
    fn look(script: &mut Script, step: u32, file: &str, owner: &str, block: u64, flags: u64) {
        script.begin(step, "fiemap");
        script.push(EventKind::StepEnded { step });
        let values = json!({
            "owner": owner, "physical": [block], "lengths": [4096], "flags": [flags],
        });
        let outcome = json!({"ok": values});
        let text =
            json!({"report": "done", "id": step, "outcome": outcome, "began_ns": 0, "ended_ns": 1});
        script.push(EventKind::AgentReport {
            text: text.to_string(),
        });
        script.fact(
            "file-blocks",
            json!({"device": "p", "file": file, "step": step}),
        );
    }

    #[test]
    fn a_block_in_two_files_within_one_hold_is_caught_with_both_names() {
        let mut script = machine();
        script.fetch("b#0", Operation::Read, frame(PAGE));
        look(&mut script, 1, "/mnt/held", "12.7", BLOCK, 1);
        look(&mut script, 2, "/mnt/other", "12.8", BLOCK, 1);
        script.finish("b#0");
        let opinion = ask(DaxBlockReused, &script);
        let [finding] = &opinion.findings[..] else {
            panic!("one finding, got {opinion:?}")
        };
        assert_eq!(
            (finding.promise, finding.certainty),
            (Promise::O3, Certainty::Certain)
        );
        for words in ["/mnt/held", "/mnt/other", "wrote its data over"] {
            assert!(finding.text.contains(words), "{words}: {}", finding.text);
        }
        assert_eq!(finding.frames, [PAGE]);
    }

    #[test]
    fn a_kernel_that_waits_passes_and_counts_as_tested() {
        let mut script = machine();
        script.fetch("b#0", Operation::Read, frame(PAGE));
        look(&mut script, 1, "/mnt/held", "12.7", BLOCK, 1);
        look(&mut script, 2, "/mnt/other", "13.1", BLOCK + 4096, 1);
        script.finish("b#0");
        // After the hold the block may go to whoever wants it.
        look(&mut script, 3, "/mnt/other", "13.1", BLOCK, 1);
        let opinion = ask(DaxBlockReused, &script);
        assert!(opinion.findings.is_empty(), "{opinion:?}");
        assert_eq!(
            opinion.counts["dax-block-reused-while-held.looked-twice"],
            1
        );
    }

    #[test]
    fn a_renamed_file_keeps_its_block_and_a_shared_block_belongs_to_both() {
        let mut script = machine();
        script.fetch("b#0", Operation::Read, frame(PAGE));
        look(&mut script, 1, "/mnt/held", "12.7", BLOCK, 1);
        look(&mut script, 2, "/mnt/renamed", "12.7", BLOCK, 1);
        look(&mut script, 3, "/mnt/clone", "13.1", BLOCK, 0x2001);
        script.finish("b#0");
        assert!(ask(DaxBlockReused, &script).findings.is_empty());
    }

    #[test]
    fn an_owner_from_before_the_hold_is_possible_only() {
        let mut script = machine();
        look(&mut script, 1, "/mnt/held", "12.7", BLOCK, 1);
        script.fetch("b#0", Operation::Read, frame(PAGE));
        look(&mut script, 2, "/mnt/other", "13.1", BLOCK, 1);
        script.finish("b#0");
        let opinion = ask(DaxBlockReused, &script);
        assert_eq!(opinion.findings[0].certainty, Certainty::Possible);
    }

    #[test]
    fn a_block_that_changes_hands_after_the_hold_or_under_none_passes() {
        let mut script = machine();
        script.fetch("b#0", Operation::Read, frame(PAGE));
        look(&mut script, 1, "/mnt/held", "12.7", BLOCK, 1);
        script.close("b#0", HoldEnd::Abandoned);
        look(&mut script, 2, "/mnt/other", "13.1", BLOCK, 1);
        // RAM is no block of the region.
        script.fetch("b#1", Operation::Read, frame(0x100));
        look(&mut script, 3, "/mnt/held", "12.7", BLOCK, 1);
        script.finish("b#1");
        assert!(ask(DaxBlockReused, &script).findings.is_empty());
    }

    #[test]
    fn a_change_of_hands_after_a_planned_fault_that_may_explain_it_is_counted() {
        let touch = |addr: u64| Fault::RogueTouch {
            range: GuestRange { addr, len: 64 },
        };
        for (fault, findings) in [
            (touch(REGION.addr + 4096), 0),
            (touch(4096), 0),
            (Fault::Duplicate, 0),
            (Fault::InterruptSpurious, 1),
            (Fault::Corrupt { bits: vec![1] }, 1),
        ] {
            let mut script = machine();
            script.fetch("b#0", Operation::Read, frame(PAGE));
            look(&mut script, 1, "/mnt/held", "12.7", BLOCK, 1);
            script.fault("b#0", fault.clone());
            look(&mut script, 2, "/mnt/other", "13.1", BLOCK, 1);
            script.finish("b#0");
            let opinion = ask(DaxBlockReused, &script);
            assert_eq!(opinion.findings.len(), findings, "{fault:?}: {opinion:?}");
        }
    }

    #[test]
    fn a_look_that_failed_or_at_no_region_is_only_counted() {
        let mut script = machine();
        script.fetch("b#0", Operation::Read, frame(PAGE));
        script.fact(
            "file-blocks",
            json!({"device": "p", "file": "f", "step": 9}),
        );
        script.fact(
            "file-blocks",
            json!({"device": "a", "file": "f", "step": 9}),
        );
        script.finish("b#0");
        let opinion = ask(DaxBlockReused, &script);
        assert!(opinion.findings.is_empty());
        assert_eq!(
            opinion.counts["dax-block-reused-while-held.useless-look"],
            2
        );
    }
}
