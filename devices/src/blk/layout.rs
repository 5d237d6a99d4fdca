//! How a block request lies in its chain: the sequence of readable bytes begins with the header, the sequence of
//! writable bytes ends with the status byte.
//!
//! How the bytes are cut into descriptors means nothing (virtio 1.2, 2.7.4.3): a header may be split, and the status
//! byte may share a descriptor with data.

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN,
    VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::memory::Near;
use crate::queue::{Refusal, Segment};
use crate::trace::event::{Direction, Operation, Status};

/// Length of a request header.
pub(super) const HEADER: usize = 16;

/// The header as it was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) kind: u32,
    pub(super) sector: u64,
}

/// What a chain consists of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) readable: u64,
    pub(super) writable: u64,
    pub(super) status_addr: u64,
    /// Readable descriptors come first.
    pub(super) ordered: bool,
}

/// Sums up a chain. `Err`: it has no place for an answer.
#[inline]
pub(super) fn shape(segments: &[Segment]) -> Result<Shape, &'static str> {
    let mut shape = Shape {
        readable: 0,
        writable: 0,
        status_addr: 0,
        ordered: true,
    };
    for segment in segments {
        let len = u64::from(segment.len);
        if segment.writable {
            shape.writable += len;
            if len > 0 {
                shape.status_addr = segment
                    .addr
                    .checked_add(len - 1)
                    .ok_or("the status byte is not in guest memory")?;
            }
        } else {
            shape.readable += len;
            shape.ordered &= shape.writable == 0;
        }
    }
    if shape.writable == 0 {
        return Err("a request without a status byte");
    }
    Ok(shape)
}

#[inline]
pub(super) fn read_header(
    shape: &Shape,
    segments: &[Segment],
    near: &Near<'_>,
) -> Result<Header, Refusal> {
    if !shape.ordered {
        return Err(mistake("a readable descriptor after a writable one"));
    }
    if shape.readable < HEADER as u64 {
        return Err(mistake("a request header shorter than 16 bytes"));
    }
    let mut bytes = [0; HEADER];
    match segments.first() {
        // As all drivers do it. In an ordered chain with readable bytes the first descriptor is readable.
        Some(whole) if u64::from(whole.len) >= HEADER as u64 => {
            let read = near.read_obj(GuestAddress(whole.addr));
            bytes = read.map_err(|_| mistake("control bytes are not in guest memory"))?;
        }
        _ => read_bytes(segments, 0, near.memory(), &mut bytes)?,
    }
    Ok(Header {
        kind: u32_at(&bytes, 0),
        sector: u64_at(&bytes, 8),
    })
}

/// Reads 16 bytes at `offset` of the readable bytes, which are known to be that many. Reads each once.
#[inline]
pub(super) fn read_bytes(
    segments: &[Segment],
    offset: u64,
    memory: &GuestMemoryMmap<()>,
    bytes: &mut [u8; 16],
) -> Result<(), Refusal> {
    let outside = |_| mistake("control bytes are not in guest memory");
    let mut skip = offset;
    let mut done = 0;
    for segment in segments.iter().filter(|segment| !segment.writable) {
        let skipped = skip.min(segment.len.into());
        skip -= skipped;
        let left = u64::from(segment.len) - skipped;
        let now = (bytes.len() - done).min(usize::try_from(left).unwrap_or(usize::MAX));
        if now == 0 {
            continue;
        }
        let addr = segment
            .addr
            .checked_add(skipped)
            .ok_or(mistake("control bytes are not in guest memory"))?;
        if now == bytes.len() {
            *bytes = memory.read_obj(GuestAddress(addr)).map_err(outside)?;
        } else {
            memory
                .read_slice(&mut bytes[done..done + now], GuestAddress(addr))
                .map_err(outside)?;
        }
        done += now;
        if done == bytes.len() {
            return Ok(());
        }
    }
    Err(mistake("a request header shorter than 16 bytes"))
}

pub(super) fn describe(kind: u32) -> (Operation, Option<Direction>) {
    match kind {
        VIRTIO_BLK_T_IN => (Operation::Read, Some(Direction::FromDevice)),
        VIRTIO_BLK_T_OUT => (Operation::Write, Some(Direction::ToDevice)),
        VIRTIO_BLK_T_FLUSH => (Operation::Flush, None),
        VIRTIO_BLK_T_DISCARD => (Operation::Discard, None),
        VIRTIO_BLK_T_WRITE_ZEROES => (Operation::WriteZeroes, None),
        VIRTIO_BLK_T_GET_ID => (Operation::GetId, Some(Direction::FromDevice)),
        _ => (Operation::Unknown, None),
    }
}

pub(super) fn mistake(what: &'static str) -> Refusal {
    Refusal {
        status: Status::Ioerr,
        mistake: Some(what),
    }
}

pub(super) fn u32_at(bytes: &[u8; 16], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(super) fn u64_at(bytes: &[u8; 16], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
