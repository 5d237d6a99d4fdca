//! Understands block requests (virtio 1.2, 5.2.6): header, payload, status byte.
//!
//! How a request is cut into descriptors means nothing (2.7.4.3): a header may be split, and the status byte may share a descriptor with data.
//! What counts is the sequence of readable bytes and the sequence of writable bytes.

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD,
    VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
    VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use crate::backend::{Geometry, Work};
use crate::memory::contains;
use crate::queue::{Chain, Logic, Parsed, Refusal, Segment, Stage};
use crate::trace::event::{Direction, GuestRange, Operation, Status};

use super::config::{BlkConfig, Limits, SECTOR, SERIAL_LEN};

/// Length of a request header.
const HEADER: usize = 16;
/// Length of a discard or write-zeroes segment.
const SEGMENT: usize = 16;

/// What a block device is to the queue handler.
#[derive(Debug)]
pub struct BlkLogic {
    capacity_bytes: u64,
    read_only: bool,
    seg_max: u32,
    limits: Limits,
    serial: [u8; SERIAL_LEN],
    /// A write is done when it is in the host's cache; otherwise a flush follows each write.
    pub(super) writeback: bool,
}

/// A request, with everything that was read of it.
#[derive(Debug, Clone, Default)]
pub struct BlkRequest {
    kind: Kind,
    /// Guest physical address of the status byte.
    status_addr: u64,
    /// Bytes of the payload that the device writes, if it does.
    fills: u32,
    /// Writable bytes besides the status byte.
    room: u32,
}

#[derive(Debug, Clone, Default)]
enum Kind {
    Read {
        offset: u64,
        len: u64,
    },
    Write {
        offset: u64,
        len: u64,
        then_flush: bool,
    },
    Flush,
    Zero {
        spans: Vec<ZeroSpan>,
        then_flush: bool,
    },
    GetId,
    #[default]
    Refused,
}

/// One segment of a discard or write-zeroes request.
#[derive(Debug, Clone, Copy)]
struct ZeroSpan {
    work: Work,
    offset: u64,
    len: u64,
}

/// The header as it was read.
#[derive(Debug, Clone, Copy)]
struct Header {
    kind: u32,
    sector: u64,
}

/// What a chain consists of.
#[derive(Debug, Clone, Copy)]
struct Shape {
    readable: u64,
    writable: u64,
    status_addr: u64,
    /// Readable descriptors come first.
    ordered: bool,
}

const IOERR: Status = Status::Ioerr;

impl BlkLogic {
    pub(super) fn new(config: &BlkConfig, disk: &Geometry) -> Self {
        Self {
            capacity_bytes: disk.capacity_bytes,
            read_only: config.read_only || disk.read_only,
            seg_max: config.seg_max(),
            limits: config.limits,
            serial: config.serial_bytes(),
            writeback: true,
        }
    }

    fn understand(
        &self,
        header: Header,
        shape: &Shape,
        chain: Chain<'_>,
        memory: &GuestMemoryMmap<()>,
        payload: &mut Vec<GuestRange>,
    ) -> Result<(Kind, u64), Refusal> {
        let then_flush = !self.writeback;
        match header.kind {
            VIRTIO_BLK_T_IN => {
                let len = self.payload(
                    chain.segments,
                    Direction::FromDevice,
                    shape,
                    memory,
                    payload,
                )?;
                let offset = self.place(header.sector, len)?;
                Ok((Kind::Read { offset, len }, len))
            }
            VIRTIO_BLK_T_OUT => {
                let len =
                    self.payload(chain.segments, Direction::ToDevice, shape, memory, payload)?;
                let offset = self.place(header.sector, len)?;
                self.refuse_if_read_only()?;
                Ok((
                    Kind::Write {
                        offset,
                        len,
                        then_flush,
                    },
                    len,
                ))
            }
            VIRTIO_BLK_T_FLUSH => Ok((Kind::Flush, 0)),
            VIRTIO_BLK_T_GET_ID => {
                self.payload(
                    chain.segments,
                    Direction::FromDevice,
                    shape,
                    memory,
                    payload,
                )?;
                if shape.writable - 1 < SERIAL_LEN as u64 {
                    return Err(mistake("GET_ID with room for less than 20 bytes"));
                }
                Ok((Kind::GetId, SERIAL_LEN as u64))
            }
            VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES => {
                self.refuse_if_read_only()?;
                let spans = self.zero_spans(header.kind, shape, chain.segments, memory)?;
                let bytes = spans.iter().map(|span| span.len).sum();
                Ok((Kind::Zero { spans, then_flush }, bytes))
            }
            _ => Err(Refusal {
                status: Status::Unsupp,
                mistake: None,
            }),
        }
    }

    /// Collects the payload in one direction. Returns its length.
    #[inline]
    fn payload(
        &self,
        segments: &[Segment],
        direction: Direction,
        shape: &Shape,
        memory: &GuestMemoryMmap<()>,
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
            if segment.addr.checked_add(segment.len.into()).is_none() || !contains(memory, range) {
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
    fn place(&self, sector: u64, len: u64) -> Result<u64, Refusal> {
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

    fn refuse_if_read_only(&self) -> Result<(), Refusal> {
        if self.read_only {
            return Err(mistake("a write to a read-only disk"));
        }
        Ok(())
    }

    fn zero_spans(
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

impl Logic for BlkLogic {
    type Request = BlkRequest;

    #[inline]
    fn parse(
        &mut self,
        chain: Chain<'_>,
        memory: &GuestMemoryMmap<()>,
        payload: &mut Vec<GuestRange>,
    ) -> Result<Parsed<BlkRequest>, &'static str> {
        let shape = shape(chain.segments)?;
        let status = GuestRange {
            addr: shape.status_addr,
            len: 1,
        };
        if !contains(memory, status) {
            return Err("the status byte is not in guest memory");
        }
        let header = read_header(&shape, chain.segments, memory);
        let understood =
            header.and_then(|header| self.understand(header, &shape, chain, memory, payload));
        let (kind, bytes, refusal) = match understood {
            Ok((kind, bytes)) => (kind, bytes, None),
            Err(refusal) => (Kind::Refused, 0, Some(refusal)),
        };
        let header = header.unwrap_or(Header {
            kind: u32::MAX,
            sector: 0,
        });
        let (operation, direction) = describe(header.kind);
        let room = u32::try_from(shape.writable - 1).unwrap_or(u32::MAX);
        let fills = if direction == Some(Direction::FromDevice) {
            u32::try_from(bytes).unwrap_or(u32::MAX)
        } else {
            0
        };
        let sector = match &kind {
            Kind::Zero { spans, .. } => spans.first().map_or(0, |span| span.offset / SECTOR),
            Kind::Read { .. } | Kind::Write { .. } | Kind::Flush | Kind::GetId | Kind::Refused => {
                header.sector
            }
        };
        Ok(Parsed {
            request: BlkRequest {
                kind,
                status_addr: shape.status_addr,
                fills,
                room,
            },
            operation,
            sector,
            bytes,
            direction,
            refusal,
        })
    }

    #[inline]
    fn stage(&self, request: &BlkRequest, index: u32) -> Stage {
        let done = Stage::Done(Status::Ok);
        let flush = Stage::Disk {
            work: Work::Flush,
            offset: 0,
            len: 0,
        };
        match (&request.kind, index) {
            (Kind::Read { offset, len }, 0) => Stage::Disk {
                work: Work::Read,
                offset: *offset,
                len: *len,
            },
            (Kind::Write { offset, len, .. }, 0) => Stage::Disk {
                work: Work::Write,
                offset: *offset,
                len: *len,
            },
            (
                Kind::Write {
                    then_flush: true, ..
                },
                1,
            )
            | (Kind::Flush, 0) => flush,
            (Kind::GetId, 0) => Stage::Fill(self.serial),
            (Kind::Zero { spans, then_flush }, index) => {
                let index = index as usize;
                match spans.get(index) {
                    Some(span) => Stage::Disk {
                        work: span.work,
                        offset: span.offset,
                        len: span.len,
                    },
                    None if *then_flush && index == spans.len() => flush,
                    None => done,
                }
            }
            (Kind::Read { .. } | Kind::Write { .. } | Kind::Flush | Kind::GetId, _) => done,
            (Kind::Refused, _) => Stage::Done(IOERR),
        }
    }

    #[inline]
    fn answer(
        &self,
        request: &BlkRequest,
        status: Status,
        memory: &GuestMemoryMmap<()>,
    ) -> Result<u32, GuestMemoryError> {
        let byte = match status {
            Status::Ok => VIRTIO_BLK_S_OK,
            Status::Ioerr => VIRTIO_BLK_S_IOERR,
            Status::Unsupp => VIRTIO_BLK_S_UNSUPP,
        };
        memory.write_obj(byte.to_le_bytes()[0], GuestAddress(request.status_addr))?;
        // The driver may rely on bytes from the first writable one on without a gap, so the status byte counts only if all before it were written.
        let filled = if status == Status::Ok {
            request.fills
        } else {
            0
        };
        Ok(if filled == request.room {
            filled.saturating_add(1)
        } else {
            filled
        })
    }
}

/// Sums up a chain. `Err`: it has no place for an answer.
#[inline]
fn shape(segments: &[Segment]) -> Result<Shape, &'static str> {
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
fn read_header(
    shape: &Shape,
    segments: &[Segment],
    memory: &GuestMemoryMmap<()>,
) -> Result<Header, Refusal> {
    if !shape.ordered {
        return Err(mistake("a readable descriptor after a writable one"));
    }
    if shape.readable < HEADER as u64 {
        return Err(mistake("a request header shorter than 16 bytes"));
    }
    let mut bytes = [0; HEADER];
    read_bytes(segments, 0, memory, &mut bytes)?;
    Ok(Header {
        kind: u32_at(&bytes, 0),
        sector: u64_at(&bytes, 8),
    })
}

/// Reads 16 bytes at `offset` of the readable bytes, which are known to be that many. Reads each once.
#[inline]
fn read_bytes(
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

fn describe(kind: u32) -> (Operation, Option<Direction>) {
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

fn mistake(what: &'static str) -> Refusal {
    Refusal {
        status: IOERR,
        mistake: Some(what),
    }
}

fn u32_at(bytes: &[u8; 16], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8; 16], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
