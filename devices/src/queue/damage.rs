//! Payloads that move wrongly: short, torn, with flipped bits.
//!
//! What a device writes into guest memory passes through a copy of which only some pieces arrive. What it reads there is
//! copied too; a torn write is merged with what is on the disk where it does not arrive, so that the rest of the disk's
//! path works as always: whole sectors, one write. Frames for the outside world have zeros there.

use std::io;

use crate::backend::{Buffers, Transfer, Work};
use crate::fault::Damage;
use crate::memory;
use crate::trace::event::{Direction, EventKind, Fault, Planted};

use super::core::Core;
use super::device_queue::DeviceQueue;
use super::in_flight::Slot;
use super::logic::Logic;
use super::payload::hash_copy;

/// A span of a payload as an index of its copy, which is in memory and so at most as long as a `usize`.
fn at(span: &std::ops::Range<u64>) -> std::ops::Range<usize> {
    let index = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    index(span.start)..index(span.end)
}

fn flip(bytes: &mut [u8], bits: &[u64]) {
    for bit in bits {
        let index = usize::try_from(bit / 8).unwrap_or(usize::MAX);
        if let Some(byte) = bytes.get_mut(index) {
            *byte ^= 1 << (bit % 8);
        }
    }
}

impl<L: Logic> Core<L> {
    /// The transfer of a payload that a rule damages; `None` for any other.
    #[cold]
    pub(super) fn damaged_transfer(
        &mut self,
        queue: &mut DeviceQueue<L::Request>,
        index: u16,
        work: Work,
        offset: u64,
        len: u64,
    ) -> Option<Transfer> {
        let slot = queue.in_flight.slot(index);
        let misdeeds = slot.misdeeds.as_deref_mut()?;
        let damage = misdeeds.damage.clone()?;
        let merged = misdeeds.merged.take();
        let room = || Buffers::Owned(vec![0; usize::try_from(len).unwrap_or(0)]);
        let (work, buffers) = match (work, merged) {
            (Work::Flush | Work::Discard | Work::WriteZeroes { .. } | Work::Free, _) => {
                return None;
            }
            (Work::Read | Work::Receive, _) => (work, room()),
            (Work::Write, Some(merged)) => (work, Buffers::Owned(merged)),
            (Work::Write, None) => {
                let payload = self.damaged_payload(queue, index, &damage, len);
                let whole = damage.arrives(len).first() == Some(&(0..len));
                if whole {
                    self.rehash(queue.in_flight.slot(index), &payload);
                    (work, Buffers::Owned(payload))
                } else {
                    let misdeeds = queue.in_flight.slot(index).misdeeds.as_deref_mut()?;
                    misdeeds.brought = Some(payload);
                    (Work::Read, room())
                }
            }
            (Work::Transmit, _) => {
                let payload = self.damaged_payload(queue, index, &damage, len);
                let mut frame = vec![0; at(&(0..damage.reported(len))).end.min(payload.len())];
                for piece in damage.arrives(len) {
                    frame[at(&piece)].copy_from_slice(&payload[at(&piece)]);
                }
                self.rehash(queue.in_flight.slot(index), &frame);
                (work, Buffers::Owned(frame))
            }
        };
        let slot = queue.in_flight.slot(index);
        Some(Transfer {
            token: slot.ticket.0,
            ordinal: slot.ordinal,
            work,
            offset,
            len: buffers.len(),
            buffers,
        })
    }

    /// The payload of a write with its flipped bits; says in the log what will become of it.
    fn damaged_payload(
        &mut self,
        queue: &mut DeviceQueue<L::Request>,
        index: u16,
        damage: &Damage,
        len: u64,
    ) -> Vec<u8> {
        let slot = queue.in_flight.slot(index);
        let mut payload = slot.copy.take().unwrap_or_else(|| {
            let request = self.request_id(slot.ordinal);
            let mut copy = Vec::new();
            self.emit(|| EventKind::TouchBegan {
                request: request.clone(),
            });
            let read = memory::read(&queue.memory, &slot.ranges, &mut copy);
            read.expect("the payload was checked when the chain was parsed");
            self.emit(|| EventKind::TouchEnded { request });
            copy
        });
        payload.resize(usize::try_from(len).unwrap_or(0), 0);
        flip(&mut payload, &self.damages(slot.ordinal, damage, len));
        payload
    }

    /// Says what a damage does to a payload of `len` bytes. Returns the bits that flip in what arrives.
    fn damages(&self, ordinal: u64, damage: &Damage, len: u64) -> Vec<u64> {
        let arrives = damage.arrives(len);
        let bytes = damage.reported(len);
        if damage.is_planted {
            self.planted(ordinal, Planted::WrongBytes);
        }
        if bytes < len {
            self.acted(ordinal, || Fault::Short { bytes });
        }
        if damage.torn.is_some() {
            let arrived = arrives.iter().map(|piece| [piece.start, piece.end]);
            let arrived = arrived.collect();
            self.acted(ordinal, || Fault::Torn { arrived });
        }
        let mut bits = damage.flips(len);
        bits.retain(|bit| arrives.iter().any(|piece| piece.contains(&(bit / 8))));
        if !bits.is_empty() && !damage.is_planted {
            let bits = bits.clone();
            self.acted(ordinal, || Fault::Corrupt { bits });
        }
        bits
    }

    fn rehash(&self, slot: &mut Slot<L::Request>, bytes: &[u8]) {
        if self.options.hash {
            hash_copy(bytes, &slot.ranges, &mut slot.hashes);
        }
    }

    /// A transfer of a damaged payload ended. `true`: the same piece of work goes on.
    #[cold]
    pub(super) fn damaged(
        &mut self,
        queue: &mut DeviceQueue<L::Request>,
        index: u16,
        transfer: &mut Transfer,
        result: &mut io::Result<u64>,
    ) -> bool {
        let slot = queue.in_flight.slot(index);
        let (Some(misdeeds), Buffers::Owned(bytes), Ok(moved)) =
            (slot.misdeeds.as_deref_mut(), &mut transfer.buffers, result)
        else {
            return false;
        };
        let brought = misdeeds.brought.take();
        let Some(damage) = &misdeeds.damage else {
            return false;
        };
        if let Some(brought) = brought {
            for piece in damage.arrives(brought.len() as u64) {
                bytes[at(&piece)].copy_from_slice(&brought[at(&piece)]);
            }
            let merged = std::mem::take(bytes);
            let hashes = self.options.hash.then_some(&mut slot.hashes);
            if let Some(hashes) = hashes {
                hash_copy(&merged, &slot.ranges, hashes);
            }
            misdeeds.merged = Some(merged);
            return true;
        }
        let damage = misdeeds.damage.take();
        let Some(damage) = damage else { return false };
        if slot.direction == Some(Direction::FromDevice) {
            let mut bytes = std::mem::take(bytes);
            bytes.truncate(usize::try_from(*moved).unwrap_or(usize::MAX));
            *moved = self.deliver(queue, index, &damage, bytes);
        } else if transfer.work == Work::Write {
            *moved = damage.reported(*moved);
        }
        false
    }

    /// Puts what arrives of `bytes` into guest memory. Returns how many bytes the answer claims.
    fn deliver(
        &self,
        queue: &mut DeviceQueue<L::Request>,
        index: u16,
        damage: &Damage,
        mut bytes: Vec<u8>,
    ) -> u64 {
        let slot = queue.in_flight.slot(index);
        let len = bytes.len() as u64;
        flip(&mut bytes, &self.damages(slot.ordinal, damage, len));
        let request = self.request_id(slot.ordinal);
        self.emit(|| EventKind::TouchBegan {
            request: request.clone(),
        });
        for piece in damage.arrives(len) {
            let ranges = memory::part(&slot.ranges, piece.clone());
            let written = memory::write(&queue.memory, &ranges, &bytes[at(&piece)]);
            written.expect("the payload was checked when the chain was parsed");
        }
        self.emit(|| EventKind::TouchEnded { request });
        damage.reported(len)
    }

    /// The device's own bytes, damaged. `None`: no rule damages them.
    pub(super) fn fill_wrongly(
        &self,
        queue: &mut DeviceQueue<L::Request>,
        index: u16,
        bytes: &[u8],
    ) -> Option<u64> {
        let misdeeds = queue.in_flight.slot(index).misdeeds.as_deref_mut()?;
        let damage = misdeeds.damage.take()?;
        Some(self.deliver(queue, index, &damage, bytes.to_vec()))
    }
}
