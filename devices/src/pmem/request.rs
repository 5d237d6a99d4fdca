//! Understands flush requests (virtio 1.2, 5.19.6), says which work they are, and answers them.

use virtio_bindings::virtio_ids::VIRTIO_ID_PMEM;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use crate::backend::Work;
use crate::memory;
use crate::queue::{Chain, Logic, Outcome, Parsed, Refusal, Segment, Stage};
use crate::trace::event::{GuestRange, Operation, Status};

/// VIRTIO_PMEM_REQ_TYPE_FLUSH.
const FLUSH: u32 = 0;
/// Bytes of a request, and of its answer.
const WORD: usize = 4;

/// Its device id.
pub(super) const DEVICE_ID: u32 = VIRTIO_ID_PMEM;

/// What a pmem device is to the queue handler.
#[derive(Debug, Default)]
pub struct PmemLogic;

/// A request: where each byte of its answer goes. A driver may cut both halves of it as it likes (virtio 1.2, 2.7.4).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PmemRequest {
    answer: [u64; WORD],
}

impl Logic for PmemLogic {
    type Request = PmemRequest;

    fn parse(
        &mut self,
        chain: Chain<'_>,
        memory: &GuestMemoryMmap<()>,
        _payload: &mut Vec<GuestRange>,
    ) -> Result<Parsed<PmemRequest>, &'static str> {
        let answer = first_bytes(chain.segments, true).ok_or("no room for a 4-byte answer")?;
        let inside = |addr: &u64| {
            memory::contains(
                memory,
                GuestRange {
                    addr: *addr,
                    len: 1,
                },
            )
        };
        if !answer.iter().all(inside) {
            return Err("the answer is not in guest memory");
        }
        let kind = kind_of(chain.segments, memory);
        let refusal = match kind {
            Ok(FLUSH) => None,
            Ok(_) => Some(Refusal {
                status: Status::Unsupp,
                mistake: None,
            }),
            Err(what) => Some(Refusal {
                status: Status::Ioerr,
                mistake: Some(what),
            }),
        };
        Ok(Parsed {
            request: PmemRequest { answer },
            operation: match kind {
                Ok(FLUSH) => Operation::Flush,
                _ => Operation::Unknown,
            },
            sector: 0,
            bytes: 0,
            direction: None,
            refusal,
        })
    }

    fn stage(&self, _request: &PmemRequest, index: u32) -> Stage {
        match index {
            0 => Stage::Work {
                work: Work::Flush,
                offset: 0,
                len: 0,
            },
            _ => Stage::Done(Status::Ok),
        }
    }

    fn answer(
        &self,
        request: &PmemRequest,
        Outcome { status, .. }: Outcome,
        memory: &GuestMemoryMmap<()>,
    ) -> Result<u32, GuestMemoryError> {
        // 5.19.6.2: 0 is success, -1 is failure.
        let ret: i32 = match status {
            Status::Ok => 0,
            Status::Ioerr | Status::Unsupp => -1,
            Status::Other(code) => i32::from(code),
        };
        for (byte, addr) in ret.to_le_bytes().into_iter().zip(request.answer) {
            memory.write_obj(byte, GuestAddress(addr))?;
        }
        Ok(4)
    }
}

/// The type of a request.
fn kind_of(segments: &[Segment], memory: &GuestMemoryMmap<()>) -> Result<u32, &'static str> {
    let first_writable = segments.iter().position(|segment| segment.writable);
    let behind = &segments[first_writable.unwrap_or(segments.len())..];
    if behind.iter().any(|segment| !segment.writable) {
        return Err("a readable descriptor after a writable one");
    }
    let places = first_bytes(segments, false).ok_or("a request shorter than 4 bytes")?;
    let mut bytes = [0; WORD];
    for (byte, addr) in bytes.iter_mut().zip(places) {
        let read = memory.read_obj(GuestAddress(addr));
        *byte = read.map_err(|_| "the request is not in guest memory")?;
    }
    Ok(u32::from_le_bytes(bytes))
}

/// Addresses of the first bytes of the readable or of the writable segments.
fn first_bytes(segments: &[Segment], writable: bool) -> Option<[u64; WORD]> {
    let of_kind = segments.iter().filter(|one| one.writable == writable);
    let mut bytes = of_kind.flat_map(|one| {
        (0..u64::from(one.len).min(WORD as u64)).map(|at| one.addr.checked_add(at))
    });
    let mut places = [0; WORD];
    for place in &mut places {
        *place = bytes.next()??;
    }
    Some(places)
}
