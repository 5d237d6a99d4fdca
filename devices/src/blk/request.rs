//! Understands block requests (virtio 1.2, 5.2.6), says which work they are, and answers them.

use std::sync::atomic::Ordering;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN,
    VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use crate::backend::{Geometry, Work};
use crate::memory::Near;
use crate::queue::{Chain, Logic, Outcome, Parsed, Refusal, Stage};
use crate::trace::event::{Direction, GuestRange, Status};

use super::check::ZeroSpan;
use super::config::{BlkConfig, Limits, SECTOR, SERIAL_LEN};
use super::layout::{Header, Shape, describe, mistake, read_header, shape};

/// What a block device is to the queue handler.
#[derive(Debug)]
pub struct BlkLogic {
    pub(super) capacity_bytes: u64,
    pub(super) read_only: bool,
    pub(super) seg_max: u32,
    pub(super) limits: Limits,
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

    #[inline]
    fn understand(
        &self,
        header: Header,
        shape: &Shape,
        chain: Chain<'_>,
        near: &Near<'_>,
        payload: &mut Vec<GuestRange>,
    ) -> Result<(Kind, u64), Refusal> {
        let then_flush = !self.writeback;
        match header.kind {
            VIRTIO_BLK_T_IN => {
                let len =
                    self.payload(chain.segments, Direction::FromDevice, shape, near, payload)?;
                let offset = self.place(header.sector, len)?;
                Ok((Kind::Read { offset, len }, len))
            }
            VIRTIO_BLK_T_OUT => {
                let len =
                    self.payload(chain.segments, Direction::ToDevice, shape, near, payload)?;
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
                self.payload(chain.segments, Direction::FromDevice, shape, near, payload)?;
                if shape.writable - 1 < SERIAL_LEN as u64 {
                    return Err(mistake("GET_ID with room for less than 20 bytes"));
                }
                Ok((Kind::GetId, SERIAL_LEN as u64))
            }
            VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES => {
                self.refuse_if_read_only()?;
                let spans = self.zero_spans(header.kind, shape, chain.segments, near.memory())?;
                let bytes = spans.iter().map(|span| span.len).sum();
                Ok((Kind::Zero { spans, then_flush }, bytes))
            }
            _ => Err(Refusal {
                status: Status::Unsupp,
                mistake: None,
            }),
        }
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
        let near = Near::new(memory, shape.status_addr);
        let near = near.ok_or("the status byte is not in guest memory")?;
        let header = read_header(&shape, chain.segments, &near);
        let understood =
            header.and_then(|header| self.understand(header, &shape, chain, &near, payload));
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
        let flush = Stage::Work {
            work: Work::Flush,
            offset: 0,
            len: 0,
        };
        match (&request.kind, index) {
            (Kind::Read { offset, len }, 0) => Stage::Work {
                work: Work::Read,
                offset: *offset,
                len: *len,
            },
            (Kind::Write { offset, len, .. }, 0) => Stage::Work {
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
                    Some(span) => Stage::Work {
                        work: span.work,
                        offset: span.offset,
                        len: span.len,
                    },
                    None if *then_flush && index == spans.len() => flush,
                    None => done,
                }
            }
            (Kind::Read { .. } | Kind::Write { .. } | Kind::Flush | Kind::GetId, _) => done,
            (Kind::Refused, _) => Stage::Done(Status::Ioerr),
        }
    }

    #[inline]
    fn answer(
        &self,
        request: &BlkRequest,
        Outcome { status, moved }: Outcome,
        memory: &GuestMemoryMmap<()>,
    ) -> Result<u32, GuestMemoryError> {
        // Release, so that the payload is there before the status; and a store costs half of what a copy of one byte does.
        let status_addr = GuestAddress(request.status_addr);
        memory.store(status.code(), status_addr, Ordering::Release)?;
        // The driver may rely on bytes from the first writable one on without a gap, so the status byte counts only
        // if all before it were written.
        let filled = if status == Status::Ok {
            request.fills.min(u32::try_from(moved).unwrap_or(u32::MAX))
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
