//! Understands what comes on a console's two queues: buffers of any shape, without a header.

use vm_memory::{GuestMemoryError, GuestMemoryMmap};

use crate::backend::Work;
use crate::memory;
use crate::queue::{Chain, Logic, Outcome, Parsed, Refusal, Stage};
use crate::trace::event::{Direction, GuestRange, Operation, Status};

/// Most bytes of one chain. Linux sends at most 32 KiB.
const MAX_LEN: u64 = 1 << 20;

/// What a queue is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Room for what is typed.
    Receive,
    /// What the guest writes.
    Transmit,
}

/// What a console's queue is to the queue handler.
pub(super) struct ConsoleLogic {
    pub(super) role: Role,
}

/// A request: its length in bytes; `None` if it was refused.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ConsoleRequest {
    len: u64,
}

impl ConsoleLogic {
    fn understand(
        &self,
        chain: Chain<'_>,
        memory: &GuestMemoryMmap<()>,
        payload: &mut Vec<GuestRange>,
    ) -> Result<u64, &'static str> {
        let mut len = 0u64;
        for segment in chain.segments {
            match (self.role, segment.writable) {
                (Role::Receive, false) => {
                    return Err("room for input that the device may not write");
                }
                (Role::Transmit, true) => return Err("output that the device is to write"),
                (Role::Receive, true) | (Role::Transmit, false) => {}
            }
            let range = GuestRange {
                addr: segment.addr,
                len: u64::from(segment.len),
            };
            if !memory::contains(memory, range) {
                return Err("a buffer outside guest memory");
            }
            len = len.saturating_add(range.len);
            if range.len > 0 {
                payload.push(range);
            }
        }
        if len > MAX_LEN {
            return Err("a buffer that is longer than any driver's");
        }
        if self.role == Role::Receive && len == 0 {
            return Err("room for no input at all");
        }
        Ok(len)
    }
}

impl Logic for ConsoleLogic {
    type Request = ConsoleRequest;

    fn parse(
        &mut self,
        chain: Chain<'_>,
        memory: &GuestMemoryMmap<()>,
        payload: &mut Vec<GuestRange>,
    ) -> Result<Parsed<ConsoleRequest>, &'static str> {
        let (operation, direction) = match self.role {
            Role::Receive => (Operation::Receive, Direction::FromDevice),
            Role::Transmit => (Operation::Transmit, Direction::ToDevice),
        };
        let (len, refusal) = match self.understand(chain, memory, payload) {
            Ok(len) => (len, None),
            Err(mistake) => {
                let refusal = Refusal {
                    status: Status::Ioerr,
                    mistake: Some(mistake),
                };
                (0, Some(refusal))
            }
        };
        Ok(Parsed {
            request: ConsoleRequest { len },
            operation,
            sector: 0,
            bytes: len,
            direction: Some(direction),
            refusal,
        })
    }

    fn stage(&self, request: &ConsoleRequest, index: u32) -> Stage {
        if index > 0 || request.len == 0 {
            return Stage::Done(Status::Ok);
        }
        Stage::Work {
            work: match self.role {
                Role::Receive => Work::Receive,
                Role::Transmit => Work::Transmit,
            },
            offset: 0,
            len: request.len,
        }
    }

    fn answer(
        &self,
        _: &ConsoleRequest,
        outcome: Outcome,
        _: &GuestMemoryMmap<()>,
    ) -> Result<u32, GuestMemoryError> {
        Ok(match self.role {
            Role::Receive => u32::try_from(outcome.moved).unwrap_or(u32::MAX),
            Role::Transmit => 0,
        })
    }
}
