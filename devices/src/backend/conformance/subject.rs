//! A disk under test, and the words in which clauses talk to it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;
use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::backend::{Buffers, Completion, Disk, Submitted, Transfer, Work};
use crate::device::Memory;
use crate::trace::event::GuestRange;

/// A disk and what must outlive it.
pub(in crate::backend) struct Subject {
    pub(in crate::backend) disk: Box<dyn Disk>,
    pub(in crate::backend) _dir: Option<TempDir>,
}

/// Builds a disk of so many bytes, or says why it cannot be had.
pub(in crate::backend) type Make = fn(u64) -> Result<Subject, String>;

/// Longest wait for a completion, in milliseconds.
const LIMIT_MS: i32 = 30_000;

/// Size of the disks that the clauses work on, in bytes.
pub(super) const SIZE: u64 = 1 << 20;

/// End of the first region of [`guest_memory`], whose second one begins there.
pub(super) const SEAM: u64 = 0x1_0000;

/// Guest memory of 128 KiB whose middle is a seam between two mappings.
pub(in crate::backend) fn guest_memory() -> Memory {
    let regions = [
        (GuestAddress(0), to_usize(SEAM)),
        (GuestAddress(SEAM), 0x1_0000),
    ];
    Arc::new(GuestMemoryMmap::from_ranges(&regions).unwrap())
}

pub(super) fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap()
}

pub(in crate::backend) fn transfer(
    work: Work,
    offset: u64,
    len: u64,
    buffers: Buffers,
) -> Transfer {
    Transfer {
        ordinal: 0,
        token: offset ^ 0x5a,
        work,
        offset,
        len,
        buffers,
    }
}

pub(super) fn guest(memory: &Memory, pieces: &[(u64, u64)]) -> Buffers {
    Buffers::Guest {
        memory: memory.clone(),
        ranges: pieces
            .iter()
            .map(|&(addr, len)| GuestRange { addr, len })
            .collect(),
    }
}

impl Subject {
    /// Submits, begins and waits.
    pub(in crate::backend) fn run(&mut self, transfer: Transfer) -> Completion {
        let submitted = self.disk.submit(transfer);
        self.disk.commit();
        match submitted {
            Submitted::Done(completion) => completion,
            Submitted::Pending => self.collect(1).pop().unwrap(),
        }
    }

    /// Waits for `count` completions.
    pub(super) fn collect(&mut self, count: usize) -> Vec<Completion> {
        let mut done = Vec::new();
        while done.len() < count {
            let so_far = done.len();
            assert!(
                self.is_readable(LIMIT_MS),
                "{so_far} of {count} completions after {LIMIT_MS} ms"
            );
            self.disk.completions(&mut done);
        }
        done
    }

    /// Whether the completion descriptor is readable within so many milliseconds.
    pub(super) fn is_readable(&self, limit_ms: i32) -> bool {
        let fd = self
            .disk
            .completion_fd()
            .expect("a disk that is pending has a descriptor");
        let epoll = Epoll::new().unwrap();
        let readable = EpollEvent::new(EventSet::IN, 0);
        epoll.ctl(ControlOperation::Add, fd, readable).unwrap();
        loop {
            match epoll.wait(limit_ms, &mut [EpollEvent::default()]) {
                Ok(count) => return count == 1,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::Interrupted),
            }
        }
    }

    /// Submits all, begins them, and gives back every completion, whenever it came.
    pub(super) fn run_all(&mut self, transfers: Vec<Transfer>) -> Vec<Completion> {
        let count = transfers.len();
        let mut done = Vec::new();
        for transfer in transfers {
            if let Submitted::Done(completion) = self.disk.submit(transfer) {
                done.push(completion);
            }
        }
        self.disk.commit();
        let pending = count - done.len();
        done.extend(self.collect(pending));
        done
    }

    pub(in crate::backend) fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let buffers = Buffers::Owned(bytes.to_vec());
        self.run(transfer(Work::Write, offset, bytes.len() as u64, buffers))
            .result
            .map(|moved| assert_eq!(moved, bytes.len() as u64))
    }

    pub(in crate::backend) fn read(&mut self, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        let buffers = Buffers::Owned(vec![0xee; to_usize(len)]);
        let completion = self.run(transfer(Work::Read, offset, len, buffers));
        completion.result?;
        match completion.transfer.buffers {
            Buffers::Owned(bytes) => Ok(bytes),
            other => panic!("another buffer came back: {other:?}"),
        }
    }
}

/// A repeatable stream of numbers (splitmix64).
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)) % limit
    }
}

/// Bytes that differ from page to page and from seed to seed.
pub(in crate::backend) fn pattern(seed: u64, len: u64) -> Vec<u8> {
    let mut numbers = Numbers(seed);
    (0..len)
        .map(|_| numbers.below(256).to_le_bytes()[0])
        .collect()
}

/// An image of zeros in a directory of its own, under cargo's target directory: `/tmp` may be memory.
pub(in crate::backend) fn image(size: u64) -> (TempDir, PathBuf) {
    let dir = match std::env::var_os("CARGO_TARGET_TMPDIR") {
        Some(base) => tempfile::tempdir_in(base),
        None => tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()),
    };
    let dir = dir.unwrap();
    let path = dir.path().join("disk.img");
    std::fs::File::create(&path).unwrap().set_len(size).unwrap();
    (dir, path)
}

/// A disk for one clause, or nothing with a printed reason.
pub(in crate::backend) fn disk(make: Make) -> Option<Subject> {
    match make(SIZE) {
        Ok(subject) => {
            assert_eq!(subject.disk.geometry().capacity_bytes, SIZE);
            Some(subject)
        }
        Err(reason) => {
            eprintln!("skipped: {reason}");
            None
        }
    }
}
