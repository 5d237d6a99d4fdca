//! From the end of a request's work to the used ring.

use crate::trace::event::{Direction, EventKind, Moment, Planted, Point};

use super::core::Core;
use super::device_queue::DeviceQueue;
use super::in_flight::Step;
use super::logic::{Logic, Outcome};

impl<L: Logic> Core<L> {
    /// Answers a request and gives its chain back.
    #[inline]
    pub(super) fn complete_alone(&mut self, queue: &mut DeviceQueue<L::Request>, index: u16) {
        if queue.is_halted() {
            return;
        }
        let slot = queue.in_flight.slot(index);
        if let Some(copy) = slot.copy.take() {
            self.spare.copies.push(copy);
        }
        if self.options.hash
            && slot.direction == Some(Direction::ToDevice)
            && !slot.ranges.is_empty()
        {
            self.hasher.hash_guest(&queue.memory, &slot.ranges);
            self.emit(|| self.hashed(slot, Moment::Completion, &self.hasher.hashes));
        }
        if slot.is_planted(Planted::EarlyCompletion) {
            return self.end_late(queue, index);
        }
        let outcome = Outcome {
            status: slot.status,
            moved: slot.moved,
        };
        let written = self.answer(queue, index, outcome);
        let slot = queue.in_flight.slot(index);
        if slot.is_planted(Planted::HoldAfterCompletion) {
            self.keep_hold(queue, index);
        }
        // The hold closes before the used index: the guest owns the pages after that, and the ledger must never blame
        // it for using them.
        self.close_hold(queue, index);
        let slot = queue.in_flight.slot(index);
        self.reached(slot, Point::Completed);
        if let Some(decision) = self.decide(slot, Point::Completed) {
            self.obey(queue, index, Point::Completed, decision);
        }
        match queue.in_flight.slot(index).misdeeds.take() {
            None => self.publish(queue, index, written),
            Some(misdeeds) => self.publish_wrongly(queue, index, written, *misdeeds),
        }
    }

    /// Writes the answer into guest memory. Returns how many bytes it claims to be written.
    #[inline]
    pub(super) fn answer(
        &self,
        queue: &mut DeviceQueue<L::Request>,
        index: u16,
        outcome: Outcome,
    ) -> u32 {
        let slot = queue.in_flight.slot(index);
        let written = self.logic.answer(&slot.request, outcome, &queue.memory);
        written.expect("the place of the answer was checked when the chain was parsed")
    }

    #[inline]
    pub(super) fn close_hold(&self, queue: &mut DeviceQueue<L::Request>, index: u16) {
        let slot = queue.in_flight.slot(index);
        let Some(hold) = slot.hold.take() else { return };
        let id = hold.id();
        let how = hold.complete(&mut queue.shard, &slot.ranges);
        self.emit(|| EventKind::HoldClosed {
            hold: id,
            request: self.request_id(slot.ordinal),
            how,
        });
    }

    #[inline]
    pub(super) fn publish(
        &mut self,
        queue: &mut DeviceQueue<L::Request>,
        index: u16,
        written: u32,
    ) {
        let slot = queue.in_flight.slot(index);
        let (head, ordinal) = (slot.head, slot.ordinal);
        // The event comes first: whatever the guest does once it sees the element has a greater number.
        self.emit(|| EventKind::Used {
            request: self.request_id(ordinal),
            head,
            status: slot.status,
            written,
        });
        slot.step(Step::Complete);
        queue.in_flight.remove(index);
        let used = queue.ring.add_used(&queue.memory, head, written);
        queue.check(used);
    }
}
