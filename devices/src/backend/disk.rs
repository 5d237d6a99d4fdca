//! The contract between a block device and what stores its bytes: an owned [`Transfer`] goes in, a [`Completion`]
//! that gives it back comes out.
//!
//! A transfer owns a clone of the memory map and its buffers, so nothing is borrowed across a wait. A backend that
//! works at once answers [`Submitted::Done`]; one that works in the background answers [`Submitted::Pending`] and
//! makes [`Disk::completion_fd`] readable.

use std::os::fd::RawFd;

use crate::device::Memory;
use crate::trace::event::GuestRange;

/// What a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Size in bytes, a multiple of 512.
    pub capacity_bytes: u64,
    /// Writes are refused.
    pub read_only: bool,
    /// Logical block size in bytes that the backend needs (512, or 4096 for direct I/O on such a device).
    pub block_size: u32,
    /// Discard is possible.
    pub discard: bool,
    /// Write zeroes is possible.
    pub write_zeroes: bool,
}

/// Kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Disk to memory.
    Read,
    /// Memory to disk.
    Write,
    /// Everything that was completed before is on stable storage when this completes: `fdatasync` and nothing less.
    Flush,
    /// The range's contents are not needed any more.
    Discard,
    /// The range reads as zeros afterwards.
    WriteZeroes {
        /// The blocks may be given back.
        unmap: bool,
    },
}

/// Memory of a transfer.
#[derive(Debug)]
pub enum Buffers {
    /// No payload.
    None,
    /// Guest memory, in order; every range is checked to be inside the map.
    Guest {
        /// The map of the time of the pop.
        memory: Memory,
        /// Its pieces.
        ranges: Vec<GuestRange>,
    },
    /// The device's own copy (an early fetch).
    Owned(Vec<u8>),
}

impl Buffers {
    /// Their length in bytes (`u64::MAX` if it is more than a `u64`).
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Guest { ranges, .. } => ranges
                .iter()
                .fold(0, |sum: u64, range| sum.saturating_add(range.len)),
            Self::Owned(bytes) => bytes.len() as u64,
        }
    }

    /// Whether there is no byte in them.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One piece of work, owned by whoever works on it.
#[derive(Debug)]
pub struct Transfer {
    /// The device's name for it; comes back in the completion.
    pub token: u64,
    /// What to do.
    pub work: Work,
    /// First byte on the disk. Checked by the device against the capacity.
    pub offset: u64,
    /// Length in bytes; equals the sum of the buffers for reads and writes.
    pub len: u64,
    /// Where the bytes come from or go to.
    pub buffers: Buffers,
}

/// A finished transfer.
#[derive(Debug)]
pub struct Completion {
    /// The transfer, given back so that its buffers can be hashed and used again.
    pub transfer: Transfer,
    /// Whether all of it was done. A short transfer is an error (`UnexpectedEof`, `WriteZero`).
    pub result: std::io::Result<()>,
}

/// Answer to a submission.
#[derive(Debug)]
pub enum Submitted {
    /// It is done.
    Done(Completion),
    /// It will be among [`Disk::completions`] later.
    Pending,
}

/// Stores a disk's bytes. Used from one thread at a time.
pub trait Disk: Send {
    /// What the disk is.
    fn geometry(&self) -> Geometry;
    /// Takes a transfer. An asynchronous backend may keep it until [`Disk::commit`].
    fn submit(&mut self, transfer: Transfer) -> Submitted;
    /// Ends a batch: whatever was submitted begins now.
    fn commit(&mut self) {}
    /// Readable when [`Disk::completions`] has something; `None` for a backend that is always done at once.
    fn completion_fd(&self) -> Option<RawFd> {
        None
    }
    /// Moves finished transfers into `done` and clears the descriptor. Never blocks.
    fn completions(&mut self, done: &mut Vec<Completion>) {
        let _ = done;
    }
    /// Blocks until nothing is under way, moving what finished into `done`. For device reset.
    fn drain(&mut self, done: &mut Vec<Completion>) {
        let _ = done;
    }
}
