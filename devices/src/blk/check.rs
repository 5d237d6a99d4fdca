//! What a block device accepts: payloads within its limits and in guest memory, ranges inside the disk, segments of
//! discards.

use virtio_bindings::virtio_blk::{VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP};
use vm_memory::GuestMemoryMmap;

use crate::backend::Work;
use crate::memory::Near;
use crate::queue::{Refusal, Segment};
use crate::trace::event::{Direction, GuestRange, Status};

use super::config::SECTOR;
use super::layout::{HEADER, Shape, mistake, read_bytes, u32_at, u64_at};
use super::request::BlkLogic;

/// Length of a discard or write-zeroes segment.
const SEGMENT: usize = 16;

/// One segment of a discard or write-zeroes request.
#[derive(Debug, Clone, Copy)]
pub(super) struct ZeroSpan {
    pub(super) work: Work,
    pub(super) offset: u64,
    pub(super) len: u64,
}

impl BlkLogic {
    /// Collects the payload in one direction. Returns its length.
    #[inline]
    pub(super) fn payload(
        &self,
        segments: &[Segment],
        direction: Direction,
        shape: &Shape,
        near: &Near<'_>,
        payload: &mut Vec<GuestRange>,
    ) -> Result<u64, Refusal> {
        let (writable, mut skip, total) = match direction {
            Direction::ToDevice => (false, HEADER as u64, shape.readable),
            Direction::FromDevice => (true, 0, shape.writable),
        };
        // The status byte is the last writable one.
        let mut left = total - if writable { 1 } else { skip };
        let bytes = left;
        for segment in segments
            .iter()
            .filter(|segment| segment.writable == writable)
        {
            let skipped = skip.min(segment.len.into());
            skip -= skipped;
            let range = GuestRange {
                addr: segment.addr.wrapping_add(skipped),
                len: left.min(u64::from(segment.len) - skipped),
            };
            left -= range.len;
            if range.len == 0 {
                continue;
            }
            if range.len > self.limits.size_max.into() {
                return Err(mistake("a payload descriptor is longer than size_max"));
            }
            if segment.addr.checked_add(segment.len.into()).is_none() || !near.contains(range) {
                return Err(mistake("the payload is not in guest memory"));
            }
            payload.push(range);
        }
        if payload.len() as u64 > self.seg_max.into() {
            return Err(mistake("more payload descriptors than seg_max"));
        }
        Ok(bytes)
    }

    /// Byte offset of a transfer, if it is whole sectors inside the disk.
    #[inline]
    pub(super) fn place(&self, sector: u64, len: u64) -> Result<u64, Refusal> {
        if !len.is_multiple_of(SECTOR) {
            return Err(mistake("the payload is not a multiple of 512 bytes"));
        }
        let offset = sector.checked_mul(SECTOR);
        let end = offset.and_then(|offset| offset.checked_add(len));
        match (offset, end) {
            (Some(offset), Some(end)) if end <= self.capacity_bytes => Ok(offset),
            _ => Err(mistake("the request is beyond the end of the disk")),
        }
    }

    pub(super) fn refuse_if_read_only(&self) -> Result<(), Refusal> {
        if self.read_only {
            return Err(mistake("a write to a read-only disk"));
        }
        Ok(())
    }

    pub(super) fn zero_spans(
        &self,
        kind: u32,
        shape: &Shape,
        segments: &[Segment],
        memory: &GuestMemoryMmap<()>,
    ) -> Result<Vec<ZeroSpan>, Refusal> {
        let len = shape.readable - HEADER as u64;
        let count = len / SEGMENT as u64;
        if !len.is_multiple_of(SEGMENT as u64)
            || count == 0
            || count > self.limits.discard_segments.into()
        {
            return Err(mistake(
                "a wrong number of discard or write-zeroes segments",
            ));
        }
        let mut bytes = [0; SEGMENT];
        let mut spans = Vec::new();
        for index in 0..count {
            read_bytes(
                segments,
                HEADER as u64 + index * SEGMENT as u64,
                memory,
                &mut bytes,
            )?;
            spans.push(self.zero_span(kind, bytes)?);
        }
        Ok(spans)
    }

    fn zero_span(&self, kind: u32, bytes: [u8; SEGMENT]) -> Result<ZeroSpan, Refusal> {
        let sector = u64_at(&bytes, 0);
        let sectors = u32_at(&bytes, 8);
        let flags = u32_at(&bytes, 12);
        let discard = kind == VIRTIO_BLK_T_DISCARD;
        let known = if discard {
            0
        } else {
            VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP
        };
        if flags & !known != 0 {
            // 5.2.6.2: the device must answer UNSUPP to flags that it does not know, and to unmap in a discard.
            return Err(Refusal {
                status: Status::Unsupp,
                mistake: Some("unknown flags in a discard or write-zeroes segment"),
            });
        }
        if sectors > self.limits.discard_sectors {
            return Err(mistake(
                "a discard or write-zeroes segment is longer than the limit",
            ));
        }
        let len = u64::from(sectors) * SECTOR;
        let unmap = flags != 0;
        Ok(ZeroSpan {
            work: if discard {
                Work::Discard
            } else {
                Work::WriteZeroes { unmap }
            },
            offset: self.place(sector, len)?,
            len,
        })
    }
}
