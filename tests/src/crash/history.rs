//! Who wrote what, when, and what each flush covers: the event log and the record of writes put together.
//!
//! Times are places in the order of all events. A change may be found on the medium once it has *begun*. It is *settled* once a
//! flush is complete, in the guest's eyes, that the guest asked for after it had been told of the change, and that the host has really done.
//! A flush which was answered without being done is in the event log and not in the record: it covers nothing.

use std::collections::{HashMap, HashSet};

use pincushion_devices::trace::event::{Operation, RequestId, Status};

use super::record::{Entry, EntryKind};
use crate::timeline::{Index, Request, Timeline};

/// What a change does to its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// They become these.
    Bytes(Vec<u8>),
    /// They become zeros.
    Zeroes,
    /// They may become zeros, or stay, for ever.
    Discard,
}

/// Something that changes the medium.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// First byte, a multiple of the unit.
    pub offset: u64,
    /// How many, a multiple of the unit.
    pub len: u64,
    /// What becomes of them.
    pub kind: Kind,
    /// From here on it may be found.
    pub began: u64,
    /// The host had done all of it; `u64::MAX`: not known.
    pub ended: u64,
    /// The guest had been told that it is done.
    pub told: Option<u64>,
    /// Settled by itself from here on: a write through.
    pub by_itself: Option<u64>,
    /// The request; `None`: stores into a region.
    pub request: Option<RequestId>,
}

/// A flush that was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Barrier {
    /// When the guest asked.
    pub began: u64,
    /// When it was told that it is done.
    pub complete: u64,
}

/// All that happened to a medium, in the order in which the host did it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// What tears: sectors of a disk, cache lines of a region, in bytes.
    pub unit: usize,
    /// Changes.
    pub changes: Vec<Change>,
    /// Flushes.
    pub barriers: Vec<Barrier>,
    /// Flushes of which the guest was told that they were done, and that the host did not do: when it was told.
    pub undone: Vec<u64>,
}

/// Bytes of a sector, in virtio-blk's words.
pub const SECTOR: usize = 512;
/// Bytes of a cache line.
pub const CACHE_LINE: usize = 64;

impl Change {
    /// When it is settled, given all flushes.
    #[must_use]
    pub fn settled(&self, barriers: &[Barrier]) -> Option<u64> {
        let flushed = self.told.and_then(|told| {
            let after = barriers.iter().filter(|barrier| barrier.began >= told);
            after.map(|barrier| barrier.complete).min()
        });
        flushed.into_iter().chain(self.by_itself).min()
    }
}

impl History {
    /// The history of `device`, whose record is `entries`.
    ///
    /// # Errors
    /// The two do not belong together; in words.
    pub fn of(
        timeline: &Timeline,
        device: &str,
        entries: impl IntoIterator<Item = Entry>,
    ) -> Result<Self, String> {
        let known = timeline.devices.get(device);
        let is_region = known.is_some_and(|device| device.region.is_some());
        let mut history = Self {
            unit: if is_region { CACHE_LINE } else { SECTOR },
            ..Self::default()
        };
        let requests: HashMap<(u16, u64), Index> = timeline
            .indices()
            .filter(|index| timeline[*index].id.device == device)
            .map(|index| {
                let id = &timeline[index].id;
                ((id.queue, id.ordinal), index)
            })
            .collect();
        let mut flushed = HashSet::new();
        for entry in entries {
            if entry.kind == EntryKind::Sample {
                history.sample(entry);
                continue;
            }
            let request = requests.get(&(entry.queue, entry.ordinal));
            let request = request.ok_or_else(|| {
                format!(
                    "the record of {device} has request {}:{}, which is not in the event log",
                    entry.queue, entry.ordinal
                )
            })?;
            if entry.kind == EntryKind::Flush {
                flushed.insert(*request);
            }
            history.done(&timeline[*request], entry);
        }
        let undone = requests
            .values()
            .filter(|index| {
                timeline[**index].operation == Operation::Flush && !flushed.contains(index)
            })
            .filter_map(|index| told(&timeline[*index]));
        history.undone = undone.collect();
        history.undone.sort_unstable();
        Ok(history)
    }

    /// A region was seen to hold these bytes at an event; the CPU may have stored them at any time since the look before.
    fn sample(&mut self, entry: Entry) {
        let seq = entry.ordinal;
        self.changes.push(Change {
            offset: entry.offset,
            len: entry.len,
            kind: Kind::Bytes(entry.bytes),
            began: seq,
            ended: seq,
            told: Some(seq),
            by_itself: None,
            request: None,
        });
    }

    fn done(&mut self, request: &Request, entry: Entry) {
        let told = told(request);
        let kind = match entry.kind {
            EntryKind::Flush => {
                self.flushed(request, told);
                return;
            }
            EntryKind::Write | EntryKind::Sample => Kind::Bytes(entry.bytes),
            EntryKind::WriteZeroes => Kind::Zeroes,
            EntryKind::Discard => Kind::Discard,
        };
        let executed = request.executed.as_ref().map(|executed| executed.at.seq);
        // Where nothing was touched, the device had its own copy, and wrote it just before it said so.
        let touched = request.touches.first().map(|touch| touch.began.seq);
        self.changes.push(Change {
            offset: entry.offset,
            len: entry.len,
            kind,
            began: touched.or(executed).unwrap_or(request.fetched.seq),
            ended: executed.unwrap_or(u64::MAX),
            told,
            by_itself: None,
            request: Some(request.id.clone()),
        });
    }

    /// The host has done a flush for this request, and told the guest so at `told`.
    fn flushed(&mut self, request: &Request, told: Option<u64>) {
        let Some(told) = told else { return };
        if request.operation == Operation::Flush {
            self.barriers.push(Barrier {
                began: request.fetched.seq,
                complete: told,
            });
            return;
        }
        // A write through: the flush that belongs to it makes no promise about others.
        for change in &mut self.changes {
            if change.request.as_ref() == Some(&request.id) {
                change.by_itself = Some(told);
            }
        }
    }
}

/// When the guest was told that a request ended well.
fn told(request: &Request) -> Option<u64> {
    let used = request.used.filter(|(_, status)| *status == Status::Ok);
    used.map(|(at, _)| at.seq)
}

#[cfg(test)]
mod tests {
    use pincushion_devices::trace::event::{Fault, HoldEnd};

    use super::*;
    use crate::timeline::script::{Script, frame};

    fn entry(kind: EntryKind, ordinal: u64) -> Entry {
        Entry {
            kind,
            queue: 0,
            ordinal,
            offset: 4096,
            len: 512,
            bytes: vec![1; 512],
        }
    }

    fn settled(script: &Script, entries: &[Entry]) -> Vec<Option<u64>> {
        let history = History::of(&script.timeline(), "a", entries.iter().cloned()).unwrap();
        let settled = history
            .changes
            .iter()
            .map(|change| change.settled(&history.barriers));
        settled.collect()
    }

    #[test]
    fn a_flush_covers_what_the_guest_was_told_of_before_it_asked() {
        let mut script = Script::booted();
        script.whole("a#0", Operation::Write, frame(7));
        // Its work is done, but the guest does not know.
        script.fetch("a#1", Operation::Write, frame(8));
        script.touch("a#1");
        script.execute("a#1", Status::Ok);
        script.fetch("a#2", Operation::Flush, frame(0));
        script.close("a#1", HoldEnd::Completed);
        script.publish("a#1");
        script.execute("a#2", Status::Ok);
        let complete = script.publish("a#2") - 1;
        let entries = [
            entry(EntryKind::Write, 0),
            entry(EntryKind::Write, 1),
            entry(EntryKind::Flush, 2),
        ];
        assert_eq!(settled(&script, &entries), [Some(complete), None]);
    }

    #[test]
    fn a_flush_that_was_not_done_covers_nothing() {
        let mut script = Script::booted();
        script.whole("a#0", Operation::Write, frame(7));
        script.whole("a#1", Operation::Flush, frame(0));
        let entries = [entry(EntryKind::Write, 0)];
        assert_eq!(settled(&script, &entries), [None]);
        let told = script.timeline().requests[1].used.unwrap().0.seq;
        let history = History::of(&script.timeline(), "a", entries).unwrap();
        assert_eq!(history.undone, [told]);
    }

    #[test]
    fn a_flush_that_was_done_and_answered_as_failed_promises_nothing() {
        let mut script = Script::booted();
        script.whole("a#0", Operation::Write, frame(7));
        script.fetch("a#1", Operation::Flush, frame(0));
        script.fault(
            "a#1",
            Fault::Status {
                worked: Some(Status::Ok),
            },
        );
        script.push(pincushion_devices::trace::EventKind::Used {
            request: crate::timeline::script::id("a#1"),
            head: 0,
            status: Status::Ioerr,
            written: 1,
        });
        let entries = [entry(EntryKind::Write, 0), entry(EntryKind::Flush, 1)];
        assert_eq!(settled(&script, &entries), [None]);
    }

    #[test]
    fn a_write_through_is_settled_when_the_guest_is_told_and_nothing_else_is() {
        let mut script = Script::booted();
        script.whole("a#0", Operation::Write, frame(7));
        script.whole("a#1", Operation::Write, frame(8));
        let told = script.timeline().requests[1].used.unwrap().0.seq;
        let entries = [
            entry(EntryKind::Write, 0),
            entry(EntryKind::Write, 1),
            entry(EntryKind::Flush, 1),
        ];
        assert_eq!(settled(&script, &entries), [None, Some(told)]);
    }

    #[test]
    fn a_record_of_another_run_is_refused() {
        let script = Script::booted();
        let refused = History::of(&script.timeline(), "a", [entry(EntryKind::Write, 5)]);
        assert!(refused.unwrap_err().contains("not in the event log"));
    }
}
