//! A disk, or the flushes of a region, with a record of what was really done.
//!
//! A write's bytes are copied once and the copy goes to the disk: so the record holds what the disk was given, whatever the guest does with the
//! page meanwhile. An entry is made when the work has ended, before the device hears of it. Work that failed may have been done in part: such
//! a write is recorded too, and never counts as settled, since the guest is told that it failed.

use std::collections::HashMap;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pincushion_devices::backend::{
    Backend, Buffers, Completion, Disk, Geometry, Submitted, Transfer, Work,
};

use super::record::{Entry, EntryKind, LogWriter};

/// A record that several queues, and whoever samples a region, write.
pub type SharedLog = Arc<Mutex<LogWriter>>;

/// A backend whose work is recorded.
pub struct Recorded<B: ?Sized> {
    log: SharedLog,
    queue: u16,
    /// The number of the next queue.
    queues: Arc<AtomicU16>,
    /// Writes that the inner one works on: the entry, and the buffers that the device gets back.
    under_way: HashMap<u64, (Entry, Buffers)>,
    inner: Box<B>,
}

impl<B: Backend + ?Sized> Recorded<B> {
    /// Records what `inner` does.
    pub fn new(inner: Box<B>, log: SharedLog) -> Self {
        Self {
            log,
            queue: 0,
            queues: Arc::new(AtomicU16::new(1)),
            under_way: HashMap::new(),
            inner,
        }
    }

    /// The entry for a transfer, if it is one that changes something; a write gets a copy of its own to work from.
    fn begin(&mut self, transfer: &mut Transfer) -> io::Result<()> {
        if transfer.work != Work::Write {
            return Ok(());
        }
        let mut bytes = Vec::new();
        match &transfer.buffers {
            Buffers::None => {}
            Buffers::Owned(copy) => bytes.clone_from(copy),
            Buffers::Guest { memory, ranges } => {
                pincushion_devices::memory::read(memory, ranges, &mut bytes)
                    .map_err(io::Error::other)?;
            }
        }
        let theirs = std::mem::replace(&mut transfer.buffers, Buffers::Owned(bytes.clone()));
        let entry = self.entry(transfer, EntryKind::Write, bytes);
        self.under_way.insert(transfer.token, (entry, theirs));
        Ok(())
    }

    fn entry(&self, transfer: &Transfer, kind: EntryKind, bytes: Vec<u8>) -> Entry {
        Entry {
            kind,
            queue: self.queue,
            ordinal: transfer.ordinal,
            offset: transfer.offset,
            len: transfer.len,
            bytes,
        }
    }

    /// Records work that has ended and gives the device its buffers back.
    fn end(&mut self, log: &mut LogWriter, completion: &mut Completion) {
        let transfer = &mut completion.transfer;
        let kind = match transfer.work {
            Work::Write => EntryKind::Write,
            Work::WriteZeroes { .. } => EntryKind::WriteZeroes,
            Work::Discard => EntryKind::Discard,
            Work::Flush if completion.result.is_ok() => EntryKind::Flush,
            Work::Flush | Work::Read | Work::Transmit | Work::Receive | Work::Free => return,
        };
        let entry = match self.under_way.remove(&transfer.token) {
            Some((entry, theirs)) if kind == EntryKind::Write => {
                transfer.buffers = theirs;
                entry
            }
            _ => self.entry(transfer, kind, Vec::new()),
        };
        if let Err(error) = log.append(&entry) {
            // Work that nobody recorded must not be taken for done.
            completion.result = Err(error);
        }
    }

    fn end_all(&mut self, done: &mut [Completion]) {
        let log = self.log.clone();
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        for completion in done {
            self.end(&mut log, completion);
        }
    }
}

impl<B: Backend + ?Sized> Backend for Recorded<B> {
    fn submit(&mut self, mut transfer: Transfer) -> Submitted {
        if let Err(error) = self.begin(&mut transfer) {
            let result = Err(error);
            return Submitted::Done(Completion { transfer, result });
        }
        // Locked while the work is done, so that the record has the order in which queues reached the disk.
        let log = self.log.clone();
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        let mut submitted = self.inner.submit(transfer);
        if let Submitted::Done(completion) = &mut submitted {
            self.end(&mut log, completion);
        }
        submitted
    }

    fn commit(&mut self) {
        self.inner.commit();
    }

    fn completion_fd(&self) -> Option<RawFd> {
        self.inner.completion_fd()
    }

    fn completions(&mut self, done: &mut Vec<Completion>) {
        let before = done.len();
        self.inner.completions(done);
        self.end_all(&mut done[before..]);
    }

    fn drain(&mut self, done: &mut Vec<Completion>) {
        let before = done.len();
        self.inner.drain(done);
        self.end_all(&mut done[before..]);
    }
}

impl Disk for Recorded<dyn Disk> {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    /// A device asks for its queues one after the other, from the second on.
    fn another(&self) -> io::Result<Box<dyn Disk>> {
        let inner = self.inner.another()?;
        Ok(Box::new(Self {
            log: self.log.clone(),
            queue: self.queues.fetch_add(1, Ordering::Relaxed),
            queues: self.queues.clone(),
            under_way: HashMap::new(),
            inner,
        }))
    }
}

#[cfg(test)]
mod tests {
    use pincushion_devices::backend::MemoryDisk;
    use tempfile::TempDir;

    use super::*;
    use crate::crash::record::LogReader;

    /// Ends its work only when it is asked for completions.
    struct Later {
        disk: MemoryDisk,
        done: Vec<Completion>,
    }

    impl Backend for Later {
        fn submit(&mut self, transfer: Transfer) -> Submitted {
            match self.disk.submit(transfer) {
                Submitted::Done(completion) => self.done.push(completion),
                Submitted::Pending => unreachable!("memory is done at once"),
            }
            Submitted::Pending
        }

        fn completions(&mut self, done: &mut Vec<Completion>) {
            done.append(&mut self.done);
        }
    }

    impl Disk for Later {
        fn geometry(&self) -> Geometry {
            self.disk.geometry()
        }
    }

    fn recorded(disk: Box<dyn Disk>) -> (TempDir, Recorded<dyn Disk>) {
        let dir = tempfile::tempdir().unwrap();
        let log = LogWriter::create(&dir.path().join("a.log")).unwrap();
        let disk = Recorded::new(disk, Arc::new(Mutex::new(log)));
        (dir, disk)
    }

    fn entries(dir: &TempDir) -> Vec<(EntryKind, u64, Vec<u8>)> {
        let log = LogReader::open(&dir.path().join("a.log")).unwrap();
        log.map(Result::unwrap)
            .map(|entry| (entry.kind, entry.ordinal, entry.bytes))
            .collect()
    }

    fn transfer(work: Work, ordinal: u64, offset: u64, bytes: &[u8]) -> Transfer {
        Transfer {
            token: 100 + ordinal,
            ordinal,
            work,
            offset,
            len: if work == Work::Flush { 0 } else { 512 },
            buffers: if bytes.is_empty() {
                Buffers::None
            } else {
                Buffers::Owned(bytes.to_vec())
            },
        }
    }

    #[test]
    fn what_was_done_is_recorded_in_order_and_what_changes_nothing_is_not() {
        let (dir, mut disk) = recorded(Box::new(MemoryDisk::new(4096)));
        disk.submit(transfer(Work::Write, 0, 512, &[7; 512]));
        disk.submit(transfer(Work::Read, 1, 512, &[0; 512]));
        disk.submit(transfer(Work::Flush, 2, 0, &[]));
        disk.submit(transfer(Work::Discard, 3, 0, &[]));
        assert_eq!(
            entries(&dir),
            [
                (EntryKind::Write, 0, vec![7; 512]),
                (EntryKind::Flush, 2, vec![]),
                (EntryKind::Discard, 3, vec![])
            ]
        );
    }

    #[test]
    fn work_that_ends_later_is_recorded_then_and_the_device_gets_its_own_buffers_back() {
        let disk = MemoryDisk::new(4096);
        let later = Later { disk, done: vec![] };
        let (dir, mut disk) = recorded(Box::new(later));
        let mut write = transfer(Work::Write, 4, 0, &[9; 512]);
        let Buffers::Owned(mine) = &mut write.buffers else {
            unreachable!("made above")
        };
        mine.reserve_exact(5000);
        let mine = mine.as_ptr();
        disk.submit(write);
        assert!(entries(&dir).is_empty());
        let mut done = Vec::new();
        disk.completions(&mut done);
        let Buffers::Owned(back) = &done[0].transfer.buffers else {
            panic!("{done:?}")
        };
        assert_eq!(back.as_ptr(), mine);
        assert_eq!(entries(&dir), [(EntryKind::Write, 4, vec![9; 512])]);
    }

    /// Does nothing well.
    struct Broken;

    impl Backend for Broken {
        fn submit(&mut self, transfer: Transfer) -> Submitted {
            let result = Err(io::Error::from_raw_os_error(libc::EIO));
            Submitted::Done(Completion { transfer, result })
        }
    }

    impl Disk for Broken {
        fn geometry(&self) -> Geometry {
            MemoryDisk::new(4096).geometry()
        }
    }

    #[test]
    fn a_write_that_failed_may_have_been_done_in_part_and_a_flush_that_failed_is_none() {
        let (dir, mut disk) = recorded(Box::new(Broken));
        disk.submit(transfer(Work::Write, 0, 0, &[7; 512]));
        disk.submit(transfer(Work::Flush, 1, 0, &[]));
        assert_eq!(entries(&dir), [(EntryKind::Write, 0, vec![7; 512])]);
    }
}
