//! What a device tells the queue handler: what a chain asks for, which work that is, and how it is answered.
//!
//! A device says *what*, never *when*: nothing here knows of faults, holds, time or interrupts.

use vm_memory::{GuestMemoryError, GuestMemoryMmap};

use crate::backend::Work;
use crate::trace::event::{Direction, GuestRange, Operation, Status};

/// One descriptor, copied from guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Guest physical address. Not checked yet.
    pub addr: u64,
    /// Length in bytes, which may be 0.
    pub len: u32,
    /// The device writes it (VIRTQ_DESC_F_WRITE).
    pub writable: bool,
}

/// A popped chain whose descriptors were read once.
#[derive(Debug, Clone, Copy)]
pub struct Chain<'a> {
    /// Index of its first descriptor.
    pub head: u16,
    /// Its descriptors, with indirect tables resolved.
    pub segments: &'a [Segment],
}

/// A request as its device understands it.
#[derive(Debug)]
pub struct Parsed<R> {
    /// The device's own words.
    pub request: R,
    /// What it asks for.
    pub operation: Operation,
    /// First sector.
    pub sector: u64,
    /// Length of the payload, or of the range that is discarded or zeroed, in bytes.
    pub bytes: u64,
    /// Which way its payload goes; `None` without payload.
    pub direction: Option<Direction>,
    /// It is answered with this at once, and no frame is held.
    pub refusal: Option<Refusal>,
}

/// A request that is answered without being run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The answer.
    pub status: Status,
    /// What the guest did wrong, unless it just asked for something that this device does not have.
    pub mistake: Option<&'static str>,
}

/// The next piece of a request's work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Work for the backend. With a payload, it is the request's.
    Work {
        /// What.
        work: Work,
        /// First byte on the disk; 0 where there is no place.
        offset: u64,
        /// Length in bytes.
        len: u64,
    },
    /// These bytes go into the payload.
    Fill([u8; 20]),
    /// There is no more; this is the answer.
    Done(Status),
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The answer.
    pub status: Status,
    /// Bytes of payload that the backend moved.
    pub moved: u64,
}

/// What a device is to the queue handler.
pub trait Logic: Send {
    /// An owned request: all control bytes are in it, so guest memory is never read again for them.
    type Request: Clone + Default + Send;

    /// Understands a chain. Appends the payload, checked to be in guest memory, to `payload` (which is empty).
    ///
    /// # Errors
    /// The chain cannot even be answered (for example because it has no status byte): what is wrong with it.
    fn parse(
        &mut self,
        chain: Chain<'_>,
        memory: &GuestMemoryMmap<()>,
        payload: &mut Vec<GuestRange>,
    ) -> Result<Parsed<Self::Request>, &'static str>;

    /// Piece `index` (from 0) of the work of a request that was not refused; asked when the pieces before it were
    /// done without error.
    fn stage(&self, request: &Self::Request, index: u32) -> Stage;

    /// Writes the answer into guest memory. Returns how many bytes the driver may rely on (virtio 1.2, 2.7.8.2).
    ///
    /// # Errors
    /// The place for the answer is not in guest memory.
    fn answer(
        &self,
        request: &Self::Request,
        outcome: Outcome,
        memory: &GuestMemoryMmap<()>,
    ) -> Result<u32, GuestMemoryError>;
}
