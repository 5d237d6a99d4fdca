//! Touches of memory that is not the device's: frames that the guest has back, and frames that nobody gave.
//!
//! The ranges are inside guest memory, whatever they hit there: a late touch writes ranges that were checked when their
//! chain was parsed, a rogue one is drawn from the memory map. A device reset ends what has not happened yet.

use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use crate::device::Memory;
use crate::fault::{Late, Rogue, Ticket, Waiting};
use crate::memory;
use crate::trace::event::{EventKind, Fault, GuestRange, Planted, Point, RequestId, Until};

use super::core::Core;
use super::device_queue::DeviceQueue;
use super::logic::Logic;

/// Marks the tickets of late touches, which have no slot; a slot's ticket would reach it after 2^47 requests.
const LATE: u64 = 1 << 63;

/// What a device will write where it should not.
#[derive(Debug)]
pub(super) struct Stray {
    ranges: Vec<GuestRange>,
    bytes: Vec<u8>,
}

impl Stray {
    /// The bytes that are there now, once more.
    pub(super) fn again(memory: &Memory, ranges: &[GuestRange]) -> Self {
        let mut bytes = Vec::new();
        let read = memory::read(memory, ranges, &mut bytes);
        read.expect("the ranges were checked against this memory");
        Self {
            ranges: ranges.to_vec(),
            bytes,
        }
    }

    /// What a late touch of a request's ranges writes.
    pub(super) fn late(memory: &Memory, ranges: &[GuestRange], late: &Late) -> Self {
        let mut stray = Self::again(memory, ranges);
        stray.bytes = late.write.bytes(stray.bytes, late.key);
        stray
    }

    fn write(&self, memory: &Memory) {
        let written = memory::write(memory, &self.ranges, &self.bytes);
        written.expect("the ranges were checked against this memory");
    }
}

impl<L: Logic> Core<L> {
    /// The planted bug of a device that writes pages which the guest owns again.
    pub(super) fn touch_again(&self, memory: &Memory, ordinal: u64, again: &Stray) {
        let request = self.request_id(ordinal);
        self.planted(ordinal, Planted::TouchAfterCompletion);
        self.emit(|| EventKind::TouchBegan {
            request: request.clone(),
        });
        again.write(memory);
        self.emit(|| EventKind::TouchEnded { request });
    }

    /// Writes what was a request's, now or when what it waits for has come.
    pub(super) fn touch_late(
        &mut self,
        queue: &mut DeviceQueue<L::Request>,
        ordinal: u64,
        stray: Stray,
        after: Option<Until>,
    ) {
        if stray.bytes.is_empty() {
            return;
        }
        let request = self.request_id(ordinal);
        let Some(until) = after else {
            return self.write_late(queue, request, &stray);
        };
        if self.stopping {
            return;
        }
        queue.late_tickets += 1;
        let ticket = Ticket(LATE | queue.late_tickets);
        let inbox = self.wake.inbox().clone();
        let waiting = Waiting {
            request: request.clone(),
            point: Point::Completed,
            until: until.clone(),
        };
        let on_parked = || inbox.park(ticket, waiting);
        if self.wait_for(&until, &stray.ranges, ticket, on_parked) {
            queue.late.insert(ticket, (request, stray));
        } else {
            self.write_late(queue, request, &stray);
        }
    }

    /// What a late touch waited for has come. `false`: this is the ticket of none.
    pub(super) fn release_late(&self, queue: &mut DeviceQueue<L::Request>, ticket: Ticket) -> bool {
        let Some((request, stray)) = queue.late.remove(&ticket) else {
            return false;
        };
        self.wake.inbox().unpark(ticket);
        if !queue.is_halted() {
            self.write_late(queue, request, &stray);
        }
        true
    }

    /// Late touches that still wait will never happen.
    pub(super) fn forget_late(&self, queue: &mut DeviceQueue<L::Request>) {
        for ticket in std::mem::take(&mut queue.late).into_keys() {
            self.wake.inbox().unpark(ticket);
        }
    }

    fn write_late(&self, queue: &DeviceQueue<L::Request>, request: RequestId, stray: &Stray) {
        self.acted(request.ordinal, || Fault::LateTouch {
            ranges: stray.ranges.clone(),
        });
        stray.write(&queue.memory);
        self.emit(|| EventKind::FaultTouchEnded { request });
    }

    /// Writes a frame that no request gave to the device, if there is one as the rule wants it.
    pub(super) fn touch_rogue(
        &self,
        queue: &mut DeviceQueue<L::Request>,
        index: u16,
        rogue: &Rogue,
    ) {
        let pieces: Vec<GuestRange> = queue
            .memory
            .iter()
            .map(|region| GuestRange {
                addr: region.start_addr().0,
                len: region.len(),
            })
            .collect();
        let slot = queue.in_flight.slot(index);
        let ledger = self.context.ledger();
        let target = rogue.target(&slot.ranges, &pieces, |frame| ledger.is_held(frame));
        let Some(range) = target else {
            return log::warn!(
                "{}: no frame of guest memory is where a rule wants a rogue touch; left out",
                self.name
            );
        };
        let mut stray = Stray::again(&queue.memory, &[range]);
        stray.bytes = rogue.write.bytes(stray.bytes, rogue.key);
        self.acted(slot.ordinal, || Fault::RogueTouch { range });
        stray.write(&queue.memory);
        let request = self.request_id(slot.ordinal);
        self.emit(|| EventKind::FaultTouchEnded { request });
    }
}
