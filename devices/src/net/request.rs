//! Understands what a driver puts into a receive or a transmit queue (virtio 1.2, 5.1.6).
//!
//! A request of a network queue has no status byte: one that fails is a lost frame, and its chain is given back with
//! length 0.

use vm_memory::{GuestMemoryError, GuestMemoryMmap};

use crate::backend::Work;
use crate::memory;
use crate::queue::{Chain, Logic, Outcome, Parsed, Refusal, Segment, Stage};
use crate::trace::event::{Direction, GuestRange, Operation, Status};

use super::header::{Header, LEN};
use super::link::Link;
use super::port::MAX_FRAME;

/// What a receive queue is to the queue handler. Its payload is the whole buffer, header included: the device writes all of
/// it.
pub struct Receiving;

/// A buffer for a frame.
#[derive(Debug, Clone, Copy, Default)]
pub struct Room {
    len: u64,
}

impl Logic for Receiving {
    type Request = Room;

    fn parse(
        &mut self,
        chain: Chain<'_>,
        memory: &GuestMemoryMmap<()>,
        payload: &mut Vec<GuestRange>,
    ) -> Result<Parsed<Room>, &'static str> {
        if chain.segments.iter().any(|segment| !segment.writable) {
            return Err("a receive buffer has a part that the device may not write");
        }
        let len = ranges(chain.segments, memory, payload)?;
        if len <= LEN as u64 {
            return Err("a receive buffer has no room for a header and a frame");
        }
        Ok(Parsed {
            request: Room { len },
            operation: Operation::Receive,
            sector: 0,
            bytes: len,
            direction: Some(Direction::FromDevice),
            refusal: None,
        })
    }

    fn stage(&self, request: &Room, index: u32) -> Stage {
        match index {
            0 => Stage::Work {
                work: Work::Receive,
                offset: 0,
                len: request.len,
            },
            _ => Stage::Done(Status::Ok),
        }
    }

    fn answer(
        &self,
        _request: &Room,
        outcome: Outcome,
        _memory: &GuestMemoryMmap<()>,
    ) -> Result<u32, GuestMemoryError> {
        let moved = u32::try_from(outcome.moved).unwrap_or(u32::MAX);
        Ok(if outcome.status == Status::Ok {
            moved
        } else {
            0
        })
    }
}

/// What a transmit queue is to the queue handler. Its payload is the frame; the header is read once, at the pop.
pub struct Transmitting {
    link: Link,
    longest: u64,
}

/// A frame to be sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Frame {
    header: Header,
    len: u64,
}

impl Transmitting {
    /// Without segmentation a frame has at most `longest` bytes.
    pub(super) fn new(link: Link, longest: u64) -> Self {
        Self { link, longest }
    }

    fn understand(&self, header: Header, len: u64) -> Result<Header, &'static str> {
        let header = header.from_driver(len, self.link.state().features)?;
        let longest = if header.is_segmented() {
            MAX_FRAME as u64
        } else {
            self.longest
        };
        if len > longest {
            return Err("a frame is longer than the MTU allows");
        }
        Ok(header)
    }
}

impl Logic for Transmitting {
    type Request = Frame;

    fn parse(
        &mut self,
        chain: Chain<'_>,
        memory: &GuestMemoryMmap<()>,
        payload: &mut Vec<GuestRange>,
    ) -> Result<Parsed<Frame>, &'static str> {
        if chain.segments.iter().any(|segment| segment.writable) {
            return Err("a frame to be sent has a part that the device may write");
        }
        let whole = ranges(chain.segments, memory, payload)?;
        let len = whole
            .checked_sub(LEN as u64)
            .filter(|len| *len > 0)
            .ok_or("a frame to be sent is shorter than its header, or empty")?;
        let mut header = [0; LEN];
        split_off(memory, payload, &mut header)?;
        let (request, refusal) = match self.understand(Header::parse(header), len) {
            Ok(header) => (Frame { header, len }, None),
            Err(mistake) => {
                let refusal = Refusal {
                    status: Status::Ioerr,
                    mistake: Some(mistake),
                };
                (Frame::default(), Some(refusal))
            }
        };
        Ok(Parsed {
            request,
            operation: Operation::Transmit,
            sector: 0,
            bytes: len,
            direction: Some(Direction::ToDevice),
            refusal,
        })
    }

    fn stage(&self, request: &Frame, index: u32) -> Stage {
        match index {
            0 => Stage::Work {
                work: Work::Transmit,
                offset: request.header.word(),
                len: request.len,
            },
            _ => Stage::Done(Status::Ok),
        }
    }

    fn answer(
        &self,
        _request: &Frame,
        _outcome: Outcome,
        _memory: &GuestMemoryMmap<()>,
    ) -> Result<u32, GuestMemoryError> {
        Ok(0)
    }
}

/// Appends a chain's bytes as ranges, checked. Returns how many bytes they are.
pub(super) fn ranges(
    segments: &[Segment],
    memory: &GuestMemoryMmap<()>,
    into: &mut Vec<GuestRange>,
) -> Result<u64, &'static str> {
    let mut len = 0;
    for segment in segments.iter().filter(|segment| segment.len > 0) {
        let range = GuestRange {
            addr: segment.addr,
            len: u64::from(segment.len),
        };
        if !memory::contains(memory, range) {
            return Err("a buffer is not in guest memory");
        }
        // A chain has at most as many parts as the queue, each of at most 32 bits: no overflow.
        len += range.len;
        into.push(range);
    }
    Ok(len)
}

/// Reads the first bytes of `payload` into `control` and takes them off. There are at least as many.
pub(super) fn split_off(
    memory: &GuestMemoryMmap<()>,
    payload: &mut Vec<GuestRange>,
    control: &mut [u8],
) -> Result<(), &'static str> {
    let mut front = Vec::new();
    let mut missing = control.len() as u64;
    while let Some(first) = payload.first_mut().filter(|_| missing > 0) {
        let taken = first.len.min(missing);
        front.push(GuestRange {
            addr: first.addr,
            len: taken,
        });
        missing -= taken;
        first.addr += taken;
        first.len -= taken;
        if first.len == 0 {
            payload.remove(0);
        }
    }
    let mut bytes = Vec::with_capacity(control.len());
    memory::read(memory, &front, &mut bytes).map_err(|_| "a header is not in guest memory")?;
    let len = bytes.len().min(control.len());
    control[..len].copy_from_slice(&bytes[..len]);
    Ok(())
}
