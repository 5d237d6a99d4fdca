//! The contract between a queue and the host side of its device: an owned [`Transfer`] goes in, a [`Completion`] that
//! gives it back comes out.
//!
//! A transfer owns a clone of the memory map and its buffers, so nothing is borrowed across a wait. A backend that
//! works at once answers [`Submitted::Done`]; one that works in the background, or waits for the outside world, answers
//! [`Submitted::Pending`] and makes [`Backend::completion_fd`] readable.

use std::os::fd::RawFd;

use crate::device::Memory;
use crate::trace::event::GuestRange;

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
    /// Memory to the outside world: a frame of a network, bytes of a console.
    Transmit,
    /// The outside world to memory: completes when something has come, with as many bytes as came.
    Receive,
    /// The payload's frames are the host's: their contents are not needed any more.
    Free,
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
    /// Which request of its queue it belongs to, as the event log counts them, for a backend that keeps a record.
    pub ordinal: u64,
    /// What to do.
    pub work: Work,
    /// First byte on the disk, checked by the device against the capacity; 0 where there is no place. For a [`Work::Transmit`] it is a word
    /// from the device to its backend. In a finished [`Work::Receive`] it says how many of the completions that come next belong
    /// to the same message: the guest is given all of them at once, or none.
    pub offset: u64,
    /// Length in bytes; equals the sum of the buffers where there is a payload.
    pub len: u64,
    /// Where the bytes come from or go to.
    pub buffers: Buffers,
}

impl Transfer {
    /// Bytes of payload that a transfer moves when it succeeds as a whole.
    #[inline]
    #[must_use]
    pub fn payload_len(&self) -> u64 {
        match self.work {
            Work::Read | Work::Write | Work::Transmit | Work::Receive => self.len,
            Work::Flush | Work::Discard | Work::WriteZeroes { .. } | Work::Free => 0,
        }
    }
}

/// A finished transfer.
#[derive(Debug)]
pub struct Completion {
    /// The transfer, given back so that its buffers can be hashed and used again.
    pub transfer: Transfer,
    /// How many bytes of the payload moved. Only a [`Work::Receive`] may move fewer than its length: any other short
    /// transfer is an error (`UnexpectedEof`, `WriteZero`). 0 where there is no payload.
    pub result: std::io::Result<u64>,
}

/// Answer to a submission.
#[derive(Debug)]
pub enum Submitted {
    /// It is done.
    Done(Completion),
    /// It will be among [`Backend::completions`] later.
    Pending,
}

/// The host side of a queue. Used from one thread at a time.
pub trait Backend: Send {
    /// Takes a transfer. An asynchronous backend may keep it until [`Backend::commit`].
    fn submit(&mut self, transfer: Transfer) -> Submitted;
    /// Ends a batch: whatever was submitted begins now.
    fn commit(&mut self) {}
    /// Readable when [`Backend::completions`] has something; `None` for a backend that is always done at once.
    fn completion_fd(&self) -> Option<RawFd> {
        None
    }
    /// Moves finished transfers into `done` and clears the descriptor. Never blocks.
    fn completions(&mut self, done: &mut Vec<Completion>) {
        let _ = done;
    }
    /// Waits for what the host is working on, and gives it back; what waits for the outside world stays. For a snapshot.
    fn settle(&mut self, done: &mut Vec<Completion>) {
        self.drain(done);
    }
    /// Gives back everything that is under way, for device reset: waits for what the host is working on, ends at once what
    /// waits for the outside world (as `Interrupted`). Afterwards nobody touches guest memory.
    fn drain(&mut self, done: &mut Vec<Completion>) {
        let _ = done;
    }
}
