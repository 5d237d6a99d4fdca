//! From a popped chain to a request that may start or is parked.

use crate::device::Memory;
use crate::fault::{Message, Release, SameFrame, Ticket, Waiting};
use crate::memory;
use crate::trace::event::{
    Direction, EventKind, Fetch, GuestRange, Moment, Planted, Point, ReleaseCause, Until,
};

use super::core::{Core, answer_word};
use super::device_queue::DeviceQueue;
use super::in_flight::{Slot, Step};
use super::logic::{Chain, Logic, Parsed};
use super::payload::{hash_copy, spelled};
use super::saved::take_up;

impl<L: Logic> Core<L> {
    /// Takes one chain. Afterwards its request is ready, parked, or was answered because it makes no sense.
    #[inline]
    pub(super) fn fetch(
        &mut self,
        queue: &mut DeviceQueue<L::Request>,
        chain: Chain<'_>,
        defect: Option<&'static str>,
    ) {
        let Some(index) = queue.in_flight.insert(chain.head) else {
            return self.mistake("a head was offered again while it is in flight", "ignored");
        };
        let slot = queue.in_flight.slot(index);
        slot.ranges.clear();
        let parsed = match defect {
            Some(defect) => Err(defect),
            None => self.logic.parse(chain, &queue.memory, &mut slot.ranges),
        };
        match parsed {
            Ok(parsed) => self.begin(queue, index, parsed),
            Err(defect) => self.give_back(queue, index, defect),
        }
    }

    fn begin(
        &mut self,
        queue: &mut DeviceQueue<L::Request>,
        index: u16,
        parsed: Parsed<L::Request>,
    ) {
        let slot = queue.in_flight.slot(index);
        slot.ordinal = self.next_ordinal;
        self.next_ordinal += 1;
        slot.operation = parsed.operation;
        slot.sector = parsed.sector;
        slot.bytes = parsed.bytes;
        slot.direction = parsed.direction;
        slot.request = parsed.request;
        slot.stage = 0;
        slot.moved = 0;
        slot.group = None;
        slot.copy = None;
        slot.fetch = self.options.fetch;
        slot.refused = parsed.refusal.map(|refusal| refusal.status);
        if parsed.refusal.is_some() {
            slot.ranges.clear();
        }
        if let Some(again) = self.again.take() {
            take_up(slot, again);
        }
        self.emit(|| EventKind::Fetched {
            request: self.request_id(slot.ordinal),
            head: slot.head,
            operation: slot.operation,
            sector: slot.sector,
            bytes: slot.bytes,
            direction: slot.direction,
            ranges: slot.ranges.clone(),
        });
        if let Some(refusal) = parsed.refusal
            && let Some(mistake) = refusal.mistake
        {
            self.mistake(mistake, &answer_word(refusal.status));
        }
        let holds = self.options.ledger && !slot.ranges.is_empty();
        if let Some(direction) = slot.direction.filter(|_| holds) {
            let hold = queue.shard.open(direction, &slot.ranges);
            self.emit(|| EventKind::HoldOpened {
                hold: hold.id(),
                request: self.request_id(slot.ordinal),
                direction,
                ranges: slot.ranges.clone(),
            });
            slot.hold = Some(hold);
        }
        self.fetched(queue, index);
    }

    /// The point `fetched`: the frames are held, nothing was touched.
    #[inline]
    fn fetched(&mut self, queue: &mut DeviceQueue<L::Request>, index: u16) {
        let slot = queue.in_flight.slot(index);
        self.reached(slot, Point::Fetched);
        let decision = self.decide(slot, Point::Fetched);
        let hold = decision.and_then(|decision| self.obey(queue, index, Point::Fetched, decision));
        let slot = queue.in_flight.slot(index);
        self.fetch_payload(slot, &queue.memory);
        let parked = hold.is_some_and(|hold| self.park(queue, index, Point::Fetched, &hold));
        if !parked {
            queue.ready.push(index);
        } else if queue
            .in_flight
            .slot(index)
            .is_planted(Planted::EarlyCompletion)
        {
            self.publish_early(queue, index);
        }
    }

    /// Copies a write's payload if it is fetched early, and hashes it.
    #[inline]
    fn fetch_payload(&mut self, slot: &mut Slot<L::Request>, memory: &Memory) {
        let is_write = slot.direction == Some(Direction::ToDevice) && !slot.ranges.is_empty();
        let early = slot.fetch == Fetch::Early;
        if !is_write || !(early || self.options.hash) {
            return;
        }
        if early && slot.copy.is_none() {
            let mut copy = self.spare.copies.pop().unwrap_or_default();
            copy.clear();
            let read = memory::read(memory, &slot.ranges, &mut copy);
            read.expect("the payload was checked when the chain was parsed");
            slot.copy = Some(copy);
        }
        if self.options.hash {
            match &slot.copy {
                Some(copy) => hash_copy(copy, &slot.ranges, &mut slot.hashes),
                None => {
                    self.hasher.hash_guest(memory, &slot.ranges);
                    std::mem::swap(&mut self.hasher.hashes, &mut slot.hashes);
                }
            }
            self.emit(|| EventKind::PayloadHashed {
                request: self.request_id(slot.ordinal),
                moment: Moment::Fetch,
                pages: spelled(&slot.ranges, &slot.hashes),
            });
        }
    }

    /// Parks a request. `false`: what it would wait for is there already, or the machine stops.
    pub(super) fn park(
        &mut self,
        queue: &mut DeviceQueue<L::Request>,
        index: u16,
        point: Point,
        hold: &Until,
    ) -> bool {
        if self.stopping {
            return false;
        }
        let slot = queue.in_flight.slot(index);
        let ticket = slot.ticket;
        let waiting = Waiting {
            request: self.request_id(slot.ordinal),
            point,
            until: hold.clone(),
        };
        let inbox = self.wake.inbox().clone();
        let context = self.context.clone();
        // In this order: who hears that it is parked finds it among those that wait.
        let on_parked = || {
            inbox.park(ticket, waiting.clone());
            context.tracer().emit(|| EventKind::Parked {
                request: waiting.request.clone(),
                point,
                until: waiting.until.clone(),
            });
        };
        let ranges = std::mem::take(&mut slot.ranges);
        let parked = self.wait_for(hold, &ranges, ticket, on_parked);
        let slot = queue.in_flight.slot(index);
        slot.ranges = ranges;
        if parked {
            slot.step(Step::Park);
        }
        parked
    }

    /// Sees to it that a ticket is released. `false`: what it would wait for is there already.
    pub(super) fn wait_for(
        &mut self,
        until: &Until,
        ranges: &[GuestRange],
        ticket: Ticket,
        on_parked: impl FnOnce(),
    ) -> bool {
        let inbox = self.wake.inbox();
        match until {
            Until::Gate(gate) => self.context.gates().park(gate, inbox, ticket, on_parked),
            Until::SameFrame { point, device } => {
                let watches = self.context.watches();
                let what = SameFrame {
                    point: *point,
                    device: device.clone(),
                };
                watches.park(what, ranges, inbox, ticket, on_parked);
                true
            }
            Until::Duration { ns } => {
                on_parked();
                let at_ns = self.context.clock().now_ns().saturating_add(*ns);
                if let Err(error) = self.wake.at(self.context.clock(), at_ns, ticket) {
                    log::error!(
                        "{}: cannot set a timer: {error}; the request goes on at once",
                        self.name
                    );
                    self.wake.inbox().push(Message::Release(Release {
                        ticket,
                        cause: ReleaseCause::Elapsed,
                    }));
                }
                true
            }
        }
    }

    /// Lets a parked request go on. A ticket that is over, or parks no more, is ignored.
    pub(super) fn release(
        &mut self,
        queue: &mut DeviceQueue<L::Request>,
        ticket: Ticket,
        by: ReleaseCause,
    ) {
        let Some(index) = queue.in_flight.find(ticket) else {
            if !self.lingered(queue, ticket) {
                self.release_late(queue, ticket);
            }
            return;
        };
        let slot = queue.in_flight.slot(index);
        let Some(point) = slot.state().parked_at() else {
            return;
        };
        self.wake.inbox().unpark(ticket);
        let request = self.request_id(slot.ordinal);
        self.emit(|| EventKind::Released { request, by });
        slot.step(Step::Release);
        match point {
            Point::Fetched => queue.ready.push(index),
            Point::Executed => self.finish(queue, index),
            Point::Completed => unreachable!("nothing is parked when it is completed"),
        }
    }

    /// Gives back a chain that cannot even be answered.
    fn give_back(&mut self, queue: &mut DeviceQueue<L::Request>, index: u16, defect: &'static str) {
        let slot = queue.in_flight.slot(index);
        let head = slot.head;
        slot.step(Step::Abandon);
        queue.in_flight.remove(index);
        self.mistake(defect, "given back unanswered, with length 0");
        let used = queue.ring.add_used(&queue.memory, head, 0);
        queue.check(used);
    }
}
