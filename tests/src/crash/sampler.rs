//! Looks at a region of persistent memory, whose stores no device sees, and records what has changed.
//!
//! It is a sink of the event log, so a look has an exact place in the order of all events: it happens while the event is delivered,
//! in the thread that has it to tell. It looks when a flush is asked for (that is what the flush covers), when it was done, and when a guest step
//! begins and ends (there the CPU that runs the step stands still). What was stored and overwritten between two looks is never seen.
//!
//! A look costs a question to KVM, and a comparison of each page that was stored to since the last; where KVM cannot say which, of all pages.
//! Pages that a device was given to write are compared at every look: KVM does not know of them.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use pincushion_devices::trace::Sink;
use pincushion_devices::trace::event::{Direction, Event, EventKind, Fault, GuestRange, Operation};
use pincushion_vmm::region::Region;

use super::history::CACHE_LINE;
use super::record::{Entry, EntryKind};
use super::recorder::SharedLog;

const PAGE: usize = 4096;
/// How often a page is read until two readings agree: a line that is stored to meanwhile must not be half old.
const READINGS: usize = 64;

/// Samples one region.
pub struct Sampler {
    device: String,
    region: Region,
    log: SharedLog,
    /// The bytes of the last look.
    known: Vec<u8>,
    /// Pages that devices may have written.
    written: BTreeSet<usize>,
    cost: Cost,
}

/// What it cost.
#[derive(Debug, Default)]
struct Cost {
    looks: u32,
    pages: usize,
    lines: usize,
    time: Duration,
}

impl Sampler {
    /// Samples `region`, the memory of `device`, as it is from now on.
    #[must_use]
    pub fn new(device: &str, region: Region, log: SharedLog) -> Self {
        let len = usize::try_from(region.len()).expect("a 64-bit host maps 64-bit lengths");
        let mut known = vec![0; len];
        region.read(0, &mut known);
        Self {
            device: device.to_owned(),
            region,
            log,
            known,
            written: BTreeSet::new(),
            cost: Cost::default(),
        }
    }

    /// Whether an event is one at which to look.
    fn is_moment(&self, kind: &EventKind) -> bool {
        match kind {
            EventKind::Fetched {
                request, operation, ..
            } => request.device == self.device && *operation == Operation::Flush,
            EventKind::Executed { request, .. } => request.device == self.device,
            EventKind::StepBegan { .. }
            | EventKind::StepEnded { .. }
            | EventKind::MachineEnded { .. } => true,
            _ => false,
        }
    }

    /// Notes which pages a device may write.
    fn note_writer(&mut self, kind: &EventKind) {
        match kind {
            EventKind::Fetched {
                direction: Some(Direction::FromDevice),
                ranges,
                ..
            }
            | EventKind::FaultActed {
                fault: Fault::LateTouch { ranges },
                ..
            } => self.note(ranges),
            EventKind::FaultActed {
                fault: Fault::RogueTouch { range },
                ..
            } => self.note(&[*range]),
            _ => {}
        }
    }

    fn note(&mut self, ranges: &[GuestRange]) {
        let (start, len) = (self.region.start(), self.region.len());
        for range in ranges {
            let from = range.addr.max(start);
            let to = range.addr.saturating_add(range.len).min(start + len);
            for page in (from..to).step_by(PAGE).chain((from < to).then(|| to - 1)) {
                let page = usize::try_from((page - start) / PAGE as u64);
                self.written.extend(page);
            }
        }
    }

    fn look(&mut self, seq: u64) -> io::Result<()> {
        let began = Instant::now();
        let pages = self.known.len() / PAGE;
        let stored: Vec<usize> = match self.region.stored() {
            Some(bits) => (0..pages)
                .filter(|page| {
                    bits[page / 64] >> (page % 64) & 1 == 1 || self.written.contains(page)
                })
                .collect(),
            None => (0..pages).collect(),
        };
        for &page in &stored {
            self.compare(seq, page)?;
        }
        self.cost.looks += 1;
        self.cost.pages += stored.len();
        self.cost.time += began.elapsed();
        Ok(())
    }

    /// Records the lines of a page that have changed, neighbours together.
    fn compare(&mut self, seq: u64, page: usize) -> io::Result<()> {
        let at = page * PAGE;
        let now = self.read_page(at as u64);
        let known = &mut self.known[at..at + PAGE];
        let changed: Vec<bool> = now
            .chunks(CACHE_LINE)
            .zip(known.chunks(CACHE_LINE))
            .map(|(now, known)| now != known)
            .collect();
        let mut line = 0;
        while line < changed.len() {
            let run = changed[line..].iter().take_while(|is| **is).count();
            if run == 0 {
                line += 1;
                continue;
            }
            let bytes = &now[line * CACHE_LINE..(line + run) * CACHE_LINE];
            let entry = Entry {
                kind: EntryKind::Sample,
                queue: 0,
                ordinal: seq,
                offset: (at + line * CACHE_LINE) as u64,
                len: bytes.len() as u64,
                bytes: bytes.to_vec(),
            };
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            log.append(&entry)?;
            self.cost.lines += run;
            line += run;
        }
        known.copy_from_slice(&now);
        Ok(())
    }

    fn read_page(&self, offset: u64) -> [u8; PAGE] {
        let (mut now, mut again) = ([0; PAGE], [0; PAGE]);
        self.region.read(offset, &mut again);
        for _ in 0..READINGS {
            now = again;
            self.region.read(offset, &mut again);
            if now == again {
                break;
            }
        }
        now
    }
}

impl Sink for Sampler {
    fn record(&mut self, event: &Arc<Event>) -> io::Result<()> {
        self.note_writer(&event.kind);
        if self.is_moment(&event.kind) {
            self.look(event.seq.0)?;
        }
        if matches!(event.kind, EventKind::MachineEnded { .. }) {
            log::info!(
                "{}: {} looks at the region compared {} pages and found {} changed lines, in {:?}",
                self.device,
                self.cost.looks,
                self.cost.pages,
                self.cost.lines,
                self.cost.time
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::sync::Mutex;

    use pincushion_devices::trace::Tracer;
    use pincushion_devices::trace::event::{RequestId, Status};

    use super::*;
    use crate::crash::record::{LogReader, LogWriter};

    const START: u64 = 1 << 32;
    const LEN: u64 = 2 << 20;

    struct Bench {
        dir: tempfile::TempDir,
        file: std::fs::File,
        tracer: Tracer,
    }

    /// A region without a machine, so that KVM says nothing and every page is compared.
    fn bench() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let file = tempfile::tempfile().unwrap();
        file.set_len(LEN).unwrap();
        let region = Region::map(&file, START, LEN).unwrap();
        let log = LogWriter::create(&dir.path().join("p.log")).unwrap();
        let tracer = Tracer::new();
        let sampler = Sampler::new("p", region, Arc::new(Mutex::new(log)));
        tracer.add_sink(Box::new(sampler));
        Bench { dir, file, tracer }
    }

    impl Bench {
        fn samples(&self) -> Vec<(u64, u64, Vec<u8>)> {
            let log = LogReader::open(&self.dir.path().join("p.log")).unwrap();
            log.map(Result::unwrap)
                .map(|entry| (entry.ordinal, entry.offset, entry.bytes))
                .collect()
        }

        fn executed(&self, device: &str) -> u64 {
            let request = RequestId {
                device: device.into(),
                queue: 0,
                ordinal: 0,
            };
            let event = self.tracer.emit(|| EventKind::Executed {
                request,
                status: Status::Ok,
                host_error: None,
            });
            event.unwrap().0
        }
    }

    #[test]
    fn changed_lines_are_recorded_once_with_the_event_at_which_they_were_seen() {
        let bench = bench();
        bench.file.write_all_at(&[7; 100], 4096 + 130).unwrap();
        let seen = bench.executed("p");
        bench.executed("p");
        let samples = bench.samples();
        assert_eq!(samples.len(), 1);
        let (seq, offset, bytes) = &samples[0];
        // Bytes 130 to 230 are in the lines from 128 to 256.
        assert_eq!((*seq, *offset, bytes.len()), (seen, 4096 + 128, 128));
        assert_eq!((bytes[1], bytes[2], bytes[101], bytes[102]), (0, 7, 7, 0));
    }

    #[test]
    fn other_devices_and_other_events_are_no_moments() {
        let bench = bench();
        bench.file.write_all_at(&[7; 64], 0).unwrap();
        bench.executed("a");
        assert!(bench.samples().is_empty());
        let began = bench.tracer.emit(|| EventKind::StepBegan { step: 1 });
        assert_eq!(bench.samples()[0].0, began.unwrap().0);
    }

    #[test]
    fn pages_that_a_device_was_given_are_known_by_their_number() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(LEN).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let log = LogWriter::create(&dir.path().join("p.log")).unwrap();
        let region = Region::map(&file, START, LEN).unwrap();
        let mut sampler = Sampler::new("p", region, Arc::new(Mutex::new(log)));
        sampler.note(&[
            GuestRange {
                addr: 0x1000,
                len: 4096,
            },
            GuestRange {
                addr: START + 4095,
                len: 2,
            },
            GuestRange {
                addr: START + LEN - 1,
                len: 9000,
            },
        ]);
        assert_eq!(Vec::from_iter(sampler.written), [0, 1, 511]);
    }
}
