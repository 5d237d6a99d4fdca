//! Understands what comes on a balloon's queues. Nothing here is held: a list is read once, at the pop, and pages that the
//! guest gives up are not the device's but the host's.

use std::sync::Arc;

use vm_memory::{GuestMemoryError, GuestMemoryMmap};

use crate::backend::Work;
use crate::queue::{Chain, Logic, Outcome, Parsed, Refusal, Stage};
use crate::trace::event::{GuestRange, Operation, Status};

use super::config::{REPORTING, STATS_VQ};
use super::handle::Shared;
use super::{pages, statistics};

/// What a queue is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Page numbers that the guest gives up.
    Inflate,
    /// Page numbers that it takes back.
    Deflate,
    /// Statistics.
    Statistics,
    /// Pages that are free for now.
    Report,
}

impl Role {
    /// The role of a queue. With these features the specification counts queues that do not exist (virtio 1.2, 5.5.2: the one
    /// for reports is always 4), Linux and QEMU do not. Since no hints are offered nobody else can be meant by 3, so both
    /// ways of counting find the same queues.
    pub(super) fn of(index: usize, features: u64) -> Option<Self> {
        let has = |bit: u32| features & (1 << bit) != 0;
        match index {
            0 => Some(Self::Inflate),
            1 => Some(Self::Deflate),
            2 if has(STATS_VQ) => Some(Self::Statistics),
            2..=4 if has(REPORTING) => Some(Self::Report),
            _ => None,
        }
    }

    fn operation(self) -> Operation {
        match self {
            Self::Inflate => Operation::Inflate,
            Self::Deflate => Operation::Deflate,
            Self::Statistics => Operation::Statistics,
            Self::Report => Operation::ReportFree,
        }
    }
}

/// What a balloon's queue is to the queue handler.
pub struct BalloonLogic {
    /// `None`: a queue that the features do not have.
    pub(super) role: Option<Role>,
    pub(super) ram: Arc<[GuestRange]>,
    pub(super) shared: Arc<Shared>,
}

/// A request: everything about it is in its ranges.
#[derive(Debug, Clone, Copy, Default)]
pub struct BalloonRequest {
    stage: Option<Work>,
    bytes: u64,
}

impl BalloonLogic {
    fn understand(
        &self,
        role: Role,
        chain: Chain<'_>,
        memory: &GuestMemoryMmap<()>,
        frames: &mut Vec<GuestRange>,
    ) -> Result<Option<Work>, &'static str> {
        let list = |most| pages::read_list(chain.segments, memory, most);
        match role {
            Role::Inflate => {
                pages::of_list(&list(pages::MAX_LIST)?, &self.ram, frames)?;
                Ok(Some(Work::Free))
            }
            Role::Deflate => {
                pages::of_list(&list(pages::MAX_LIST)?, &self.ram, frames)?;
                Ok(None)
            }
            Role::Report => {
                pages::of_chain(chain.segments, &self.ram, frames)?;
                Ok(Some(Work::Free))
            }
            Role::Statistics => {
                let told = statistics::decode(&list(statistics::MAX_LIST)?)?;
                self.shared.told(told);
                Ok(Some(Work::Receive))
            }
        }
    }
}

impl Logic for BalloonLogic {
    type Request = BalloonRequest;

    fn parse(
        &mut self,
        chain: Chain<'_>,
        memory: &GuestMemoryMmap<()>,
        payload: &mut Vec<GuestRange>,
    ) -> Result<Parsed<BalloonRequest>, &'static str> {
        let role = self.role.ok_or("a queue that was not agreed on")?;
        let understood = self.understand(role, chain, memory, payload);
        let bytes = payload.iter().map(|range| range.len).sum();
        let (stage, bytes, refusal) = match understood {
            Ok(stage) => (stage, bytes, None),
            Err(mistake) => {
                let refusal = Refusal {
                    status: Status::Ioerr,
                    mistake: Some(mistake),
                };
                (None, 0, Some(refusal))
            }
        };
        Ok(Parsed {
            request: BalloonRequest { stage, bytes },
            operation: role.operation(),
            sector: 0,
            bytes,
            // Nobody does DMA here, so nothing is held.
            direction: None,
            refusal,
        })
    }

    fn stage(&self, request: &BalloonRequest, index: u32) -> Stage {
        match request.stage {
            Some(work) if index == 0 => Stage::Work {
                work,
                offset: 0,
                len: request.bytes,
            },
            _ => Stage::Done(Status::Ok),
        }
    }

    /// A balloon's chains have no place for an answer: they are given back.
    fn answer(
        &self,
        _: &BalloonRequest,
        _: Outcome,
        _: &GuestMemoryMmap<()>,
    ) -> Result<u32, GuestMemoryError> {
        Ok(0)
    }
}
