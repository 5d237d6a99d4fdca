//! What a plan wants of a request that no correct device does: kept with the request until its moment comes.
//!
//! A request that no rule acts on has none of this, and pays one comparison at each place where it might. What moves a
//! payload wrongly is in `damage.rs`, what comes late or in another order in `linger.rs`, what touches memory that is
//! not the device's in `stray.rs`.

use crate::fault::{AtCompletion, Damage, Decision, InterruptFault, ReorderBy};
use crate::trace::event::{EventKind, Fault, Planted, Point, Status, Until};

use super::core::Core;
use super::device_queue::{DeviceQueue, Kept};
use super::in_flight::{Slot, Step};
use super::logic::{Logic, Outcome};
use super::stray::Stray;

/// What is still to be done wrongly with one request.
#[derive(Debug, Default)]
pub(super) struct Misdeeds {
    pub(super) planted: Option<Planted>,
    pub(super) damage: Option<Damage>,
    /// What a torn write brings, until what it leaves on the disk was read.
    pub(super) brought: Option<Vec<u8>>,
    /// Both of them, as they go to the disk.
    pub(super) merged: Option<Vec<u8>>,
    /// The answer, however the work ended.
    answer: Option<Status>,
    reorder: Option<ReorderBy>,
    at_completion: AtCompletion,
}

impl<R> Slot<R> {
    pub(super) fn is_planted(&self, planted: Planted) -> bool {
        let misdeeds = self.misdeeds.as_deref();
        misdeeds.is_some_and(|misdeeds| misdeeds.planted == Some(planted))
    }

    fn misdeeds(&mut self) -> &mut Misdeeds {
        self.misdeeds.get_or_insert_default()
    }
}

impl<L: Logic> Core<L> {
    /// Does at once what a decision wants now, and keeps the rest with the request. Returns what to park it for.
    #[cold]
    pub(super) fn obey(
        &self,
        queue: &mut DeviceQueue<L::Request>,
        index: u16,
        point: Point,
        decision: Decision,
    ) -> Option<Until> {
        let slot = queue.in_flight.slot(index);
        let ordinal = slot.ordinal;
        slot.fetch = decision.fetch.unwrap_or(slot.fetch);
        if decision.planted.is_some() {
            slot.misdeeds().planted = decision.planted;
        }
        if let Some(status) = decision.fail {
            let runs = point != Point::Fetched || decision.damage.is_some();
            if runs {
                slot.misdeeds().answer = Some(status);
            } else if slot.refused.is_none() {
                slot.refused = Some(status);
                self.acted(ordinal, || Fault::Status { worked: None });
            }
        }
        if decision.damage.is_some() {
            slot.misdeeds().damage = decision.damage;
        }
        if decision.reorder.is_some() {
            slot.misdeeds().reorder = decision.reorder;
        }
        if let Some(at_completion) = decision.at_completion {
            slot.misdeeds().at_completion.merge(*at_completion);
        }
        if decision.config_changes > 0 {
            let count = decision.config_changes;
            self.acted(ordinal, || Fault::ConfigChanges { count });
            (0..count).for_each(|_| queue.interrupt.signal_config());
        }
        if decision.needs_reset && queue.halt.begin() {
            self.acted(ordinal, || Fault::NeedsReset);
            queue.interrupt.signal_needs_reset();
        }
        decision.hold
    }

    /// Says what the device is about to do wrongly because a rule wants it.
    pub(super) fn acted(&self, ordinal: u64, fault: impl FnOnce() -> Fault) {
        self.emit(|| EventKind::FaultActed {
            request: self.request_id(ordinal),
            fault: fault(),
        });
    }

    /// Goes on with a request whose work ended and that is not parked.
    #[inline]
    pub(super) fn finish(&mut self, queue: &mut DeviceQueue<L::Request>, index: u16) {
        if queue.in_flight.slot(index).misdeeds.is_some() {
            self.finish_wrongly(queue, index);
        } else {
            self.complete(queue, index);
        }
    }

    #[cold]
    fn finish_wrongly(&mut self, queue: &mut DeviceQueue<L::Request>, index: u16) {
        let slot = queue.in_flight.slot(index);
        let worked = slot.status;
        let misdeeds = slot.misdeeds();
        let answer = misdeeds.answer.take();
        let reorder = misdeeds.reorder.take();
        if let Some(answer) = answer.filter(|answer| *answer != worked) {
            slot.status = answer;
            let worked = Some(worked);
            self.acted(slot.ordinal, || Fault::Status { worked });
        }
        match reorder {
            Some(reorder) if !self.stopping => self.gather(queue, index, reorder),
            _ => self.complete(queue, index),
        }
    }

    /// The planted bug of a device that still holds the frames of a request which it has completed.
    #[cold]
    pub(super) fn keep_hold(&self, queue: &mut DeviceQueue<L::Request>, index: u16) {
        let slot = queue.in_flight.slot(index);
        let Some(hold) = slot.hold.take() else { return };
        let (ordinal, ranges) = (slot.ordinal, slot.ranges.clone());
        self.planted(ordinal, Planted::HoldAfterCompletion);
        queue.kept.push(Kept {
            ordinal,
            hold,
            ranges,
        });
    }

    /// The planted bug of a device that says it is done before it has moved a payload.
    #[cold]
    pub(super) fn publish_early(&mut self, queue: &mut DeviceQueue<L::Request>, index: u16) {
        let slot = queue.in_flight.slot(index);
        let (head, ordinal, moved) = (slot.head, slot.ordinal, slot.bytes);
        let status = Status::Ok;
        let written = self.answer(queue, index, Outcome { status, moved });
        self.planted(ordinal, Planted::EarlyCompletion);
        self.emit(|| EventKind::Used {
            request: self.request_id(ordinal),
            head,
            status,
            written,
        });
        queue.in_flight.forget_head(index);
        let used = queue.ring.add_used(&queue.memory, head, written);
        queue.check(used);
    }

    /// The end of a request that was published early: the guest hears nothing of it.
    #[cold]
    pub(super) fn end_late(&self, queue: &mut DeviceQueue<L::Request>, index: u16) {
        self.close_hold(queue, index);
        let slot = queue.in_flight.slot(index);
        slot.misdeeds = None;
        slot.step(Step::Complete);
        queue.in_flight.remove(index);
    }

    /// Gives a chain back as no correct device does.
    #[cold]
    pub(super) fn publish_wrongly(
        &mut self,
        queue: &mut DeviceQueue<L::Request>,
        index: u16,
        written: u32,
        misdeeds: Misdeeds,
    ) {
        let slot = queue.in_flight.slot(index);
        let (ordinal, head) = (slot.ordinal, slot.head);
        let dropped = misdeeds.planted == Some(Planted::DroppedCompletion);
        if dropped {
            self.planted(ordinal, Planted::DroppedCompletion);
            return slot.step(Step::Lose);
        }
        let AtCompletion {
            duplicate,
            late_touch,
            rogue_touch,
            interrupt,
        } = misdeeds.at_completion;
        let again = (misdeeds.planted == Some(Planted::TouchAfterCompletion))
            .then(|| Stray::again(&queue.memory, &slot.ranges));
        let late = late_touch.map(|late| (Stray::late(&queue.memory, &slot.ranges, &late), late));
        if let Some(rogue) = rogue_touch {
            self.touch_rogue(queue, index, &rogue);
        }
        match interrupt {
            None => {}
            Some(InterruptFault::Drop) => self.acted(ordinal, || Fault::InterruptDropped),
            Some(InterruptFault::Coalesce(_)) => {
                self.acted(ordinal, || Fault::InterruptCoalesced);
            }
            Some(InterruptFault::Spurious) => {
                self.acted(ordinal, || Fault::InterruptSpurious);
                queue.interrupt.signal_queue(self.queue);
            }
        }
        let signals = queue.ring.signals();
        self.publish(queue, index, written);
        if duplicate {
            self.acted(ordinal, || Fault::Duplicate);
            let used = queue.ring.add_used(&queue.memory, head, written);
            queue.check(used);
        }
        match interrupt {
            None | Some(InterruptFault::Spurious) => {}
            Some(InterruptFault::Drop) => queue.ring.set_signals(signals),
            Some(InterruptFault::Coalesce(count)) => {
                queue.ring.set_signals(signals);
                self.put_off_signal(queue, count);
            }
        }
        if let Some(again) = again {
            self.touch_again(&queue.memory, ordinal, &again);
        }
        if let Some((stray, late)) = late {
            self.touch_late(queue, ordinal, stray, late.after);
        }
    }

    pub(super) fn planted(&self, ordinal: u64, planted: Planted) {
        self.emit(|| EventKind::PlantedFault {
            request: self.request_id(ordinal),
            planted,
        });
    }
}
