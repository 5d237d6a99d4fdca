//! The control queue (virtio 1.2, 5.1.6.5): commands that are carried out at once.

use std::sync::{Arc, Mutex, PoisonError};

use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, VIRTIO_NET_CTRL_MAC_TABLE_SET,
    VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, VIRTIO_NET_CTRL_RX,
    VIRTIO_NET_CTRL_RX_ALLMULTI, VIRTIO_NET_CTRL_RX_PROMISC, VIRTIO_NET_ERR, VIRTIO_NET_F_MQ,
    VIRTIO_NET_OK,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use crate::backend::{Backend, Completion, Submitted, Transfer};
use crate::memory;
use crate::queue::{Chain, Logic, Outcome, Parsed, Refusal, Segment, Stage};
use crate::trace::event::{GuestRange, Operation, Status};

use super::config::Mac;
use super::link::Link;
use super::port::Port;
use super::request::ranges;

/// Longest command that is read, in bytes: two tables of 500 addresses.
const LONGEST: u64 = 2 * (4 + 500 * 6) + 2;

/// What a control queue is to the queue handler.
pub struct Controlling {
    link: Link,
    most_pairs: u16,
    port: Arc<Mutex<Box<dyn Port>>>,
}

/// A command and the place of its answer.
#[derive(Debug, Clone, Default)]
pub struct Order {
    command: Option<Command>,
    ack_addr: u64,
}

/// What the driver wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    /// One of the modes of the class `VIRTIO_NET_CTRL_RX`.
    Mode {
        which: u8,
        on: bool,
    },
    /// So many entries in both address tables together.
    Table {
        addresses: u32,
    },
    Address(Mac),
    Pairs(u16),
}

impl Controlling {
    pub(super) fn new(link: Link, most_pairs: u16, port: Arc<Mutex<Box<dyn Port>>>) -> Self {
        Self {
            link,
            most_pairs,
            port,
        }
    }

    fn understand(&self, bytes: &[u8]) -> Result<Command, Refusal> {
        let [class, command, data @ ..] = bytes else {
            return Err(mistake("a command is shorter than its header"));
        };
        let features = self.link.state().features;
        match (u32::from(*class), u32::from(*command), data) {
            (VIRTIO_NET_CTRL_RX, which, [on, ..])
                if (VIRTIO_NET_CTRL_RX_PROMISC..=VIRTIO_NET_CTRL_RX_ALLMULTI).contains(&which) =>
            {
                Ok(Command::Mode {
                    which: *command,
                    on: *on != 0,
                })
            }
            (VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, data) => table(data)
                .map(|addresses| Command::Table { addresses })
                .ok_or_else(|| mistake("an address table is shorter than it says")),
            (VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, [a, b, c, d, e, f, ..]) => {
                Ok(Command::Address(Mac([*a, *b, *c, *d, *e, *f])))
            }
            (VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, [low, high, ..])
                if features & (1 << VIRTIO_NET_F_MQ) != 0 =>
            {
                let pairs = u16::from_le_bytes([*low, *high]);
                if pairs == 0 || pairs > self.most_pairs {
                    return Err(mistake(
                        "a number of queue pairs that the card does not have",
                    ));
                }
                Ok(Command::Pairs(pairs))
            }
            // A command that was not offered is answered with an error and no blame: drivers probe.
            _ => Err(Refusal {
                status: Status::Unsupp,
                mistake: None,
            }),
        }
    }

    fn obey(&self, command: Command) {
        let mut state = self.link.state();
        match command {
            Command::Mode { which, on } => {
                let bit = 1 << (which & 7);
                state.mode.bits = if on {
                    state.mode.bits | bit
                } else {
                    state.mode.bits & !bit
                };
            }
            Command::Table { addresses } => state.mode.addresses = addresses,
            Command::Address(mac) => state.mac = mac,
            Command::Pairs(pairs) => {
                state.pairs = pairs;
                let features = state.features;
                drop(state);
                let mut port = self.port.lock().unwrap_or_else(PoisonError::into_inner);
                port.configure(pairs, features);
            }
        }
    }
}

/// Entries of `struct virtio_net_ctrl_mac` twice, unicast and multicast; `None` if they are not all there.
fn table(data: &[u8]) -> Option<u32> {
    let mut left = data;
    let mut addresses: u32 = 0;
    for _ in 0..2 {
        let (count, rest) = left.split_first_chunk()?;
        let count = u32::from_le_bytes(*count);
        let len = usize::try_from(count).ok()?.checked_mul(6)?;
        left = rest.get(len..)?;
        addresses = addresses.checked_add(count)?;
    }
    Some(addresses)
}

fn mistake(what: &'static str) -> Refusal {
    Refusal {
        status: Status::Ioerr,
        mistake: Some(what),
    }
}

impl Logic for Controlling {
    type Request = Order;

    fn parse(
        &mut self,
        chain: Chain<'_>,
        memory: &GuestMemoryMmap<()>,
        _payload: &mut Vec<GuestRange>,
    ) -> Result<Parsed<Order>, &'static str> {
        let split = chain.segments.iter().position(|segment| segment.writable);
        let split = split.ok_or("a command has no place for its answer")?;
        let (readable, writable) = chain.segments.split_at(split);
        let ack_addr = ack_place(writable, memory)?;
        let mut parts = Vec::new();
        let len = ranges(readable, memory, &mut parts)?;
        let understood = if len > LONGEST {
            Err(mistake("a command is longer than any that there is"))
        } else {
            let mut bytes = Vec::new();
            memory::read(memory, &parts, &mut bytes).map_err(|_| "a command is not in memory")?;
            self.understand(&bytes)
        };
        Ok(Parsed {
            request: Order {
                command: understood.ok(),
                ack_addr,
            },
            operation: Operation::Control,
            sector: 0,
            bytes: len,
            direction: None,
            refusal: understood.err(),
        })
    }

    fn stage(&self, request: &Order, _index: u32) -> Stage {
        if let Some(command) = request.command {
            self.obey(command);
        }
        Stage::Done(Status::Ok)
    }

    fn answer(
        &self,
        request: &Order,
        outcome: Outcome,
        memory: &GuestMemoryMmap<()>,
    ) -> Result<u32, GuestMemoryError> {
        let ack = match outcome.status {
            Status::Ok => VIRTIO_NET_OK.to_le_bytes()[0],
            Status::Ioerr | Status::Unsupp => VIRTIO_NET_ERR.to_le_bytes()[0],
            Status::Other(byte) => byte,
        };
        memory.write_obj(ack, GuestAddress(request.ack_addr))?;
        Ok(1)
    }
}

fn ack_place(writable: &[Segment], memory: &GuestMemoryMmap<()>) -> Result<u64, &'static str> {
    if writable.iter().any(|segment| !segment.writable) {
        return Err("a command has a readable part after its answer");
    }
    let mut parts = Vec::new();
    ranges(writable, memory, &mut parts)?;
    let first = parts
        .first()
        .ok_or("a command has no place for its answer")?;
    Ok(first.addr)
}

/// Commands need no host side.
pub(super) struct NoWork;

impl Backend for NoWork {
    fn submit(&mut self, transfer: Transfer) -> Submitted {
        let result = Err(std::io::ErrorKind::Unsupported.into());
        Submitted::Done(Completion { transfer, result })
    }
}
