//! From the start of a request to the end of its work.

use std::io;

use crate::backend::{Buffers, Completion, Submitted, Transfer, Work};
use crate::device::Memory;
use crate::fault::Ticket;
use crate::memory;
use crate::trace::event::{Direction, EventKind, GuestRange, Moment, Planted, Point, Status};

use super::core::Core;
use super::device_queue::DeviceQueue;
use super::in_flight::{Slot, State, Step};
use super::logic::{Logic, Stage};
use super::payload::spelled;

impl<L: Logic> Core<L> {
    /// Starts a request that is ready.
    #[inline]
    pub(super) fn start(&mut self, queue: &mut DeviceQueue<L::Request>, index: u16) {
        if queue.is_halted() {
            return;
        }
        let slot = queue.in_flight.slot(index);
        slot.step(Step::Start);
        match slot.refused {
            Some(status) => self.executed(queue, index, status, None),
            None => self.advance(queue, index),
        }
    }

    /// Works through the stages until one is under way or all are done.
    fn advance(&mut self, queue: &mut DeviceQueue<L::Request>, index: u16) {
        loop {
            let slot = queue.in_flight.slot(index);
            match self.logic.stage(&slot.request, slot.stage) {
                Stage::Done(status) => return self.executed(queue, index, status, None),
                Stage::Fill(bytes) => {
                    self.fill(queue, index, &bytes);
                }
                Stage::Work {
                    work: Work::Flush, ..
                } if slot.is_planted(Planted::LyingFlush) => {
                    slot.stage += 1;
                    self.planted(slot.ordinal, Planted::LyingFlush);
                }
                Stage::Work { work, offset, len } => {
                    let transfer = self.transfer(queue, index, work, offset, len);
                    let Submitted::Done(completion) = self.backend.submit(transfer) else {
                        return;
                    };
                    if let Some(error) = self.touched(queue, completion) {
                        return self.failed(queue, index, &error);
                    }
                }
            }
        }
    }

    /// A background operation ended.
    pub(super) fn on_completion(
        &mut self,
        queue: &mut DeviceQueue<L::Request>,
        completion: Completion,
    ) {
        let ticket = Ticket(completion.transfer.token);
        let running = queue
            .in_flight
            .find(ticket)
            .filter(|index| queue.in_flight.slot(*index).state() == State::Running);
        let index = running
            .expect("in flight: a backend completes each transfer once, and a reset drains it");
        if completion.transfer.work == Work::Receive {
            let group = queue.groups.joined(index, completion.transfer.offset);
            queue.in_flight.slot(index).group = group;
        }
        match self.touched(queue, completion) {
            Some(error) => self.failed(queue, index, &error),
            None => self.advance(queue, index),
        }
    }

    #[inline]
    fn transfer(
        &mut self,
        queue: &mut DeviceQueue<L::Request>,
        index: u16,
        work: Work,
        offset: u64,
        len: u64,
    ) -> Transfer {
        if work == Work::Free {
            let buffers = self.free_buffers(queue, index);
            let slot = queue.in_flight.slot(index);
            return Transfer {
                token: slot.ticket.0,
                ordinal: slot.ordinal,
                work,
                offset,
                len,
                buffers,
            };
        }
        if queue.in_flight.slot(index).misdeeds.is_some()
            && let Some(transfer) = self.damaged_transfer(queue, index, work, offset, len)
        {
            return transfer;
        }
        let slot = queue.in_flight.slot(index);
        let buffers = match work {
            Work::Receive if slot.ranges.is_empty() => Buffers::None,
            Work::Read | Work::Write | Work::Transmit | Work::Receive => match slot.copy.take() {
                Some(copy) => Buffers::Owned(copy),
                None => {
                    self.emit(|| EventKind::TouchBegan {
                        request: self.request_id(slot.ordinal),
                    });
                    guest_buffers(self.spare.buffers.pop(), &queue.memory, &slot.ranges)
                }
            },
            Work::Free | Work::Flush | Work::Discard | Work::WriteZeroes { .. } => Buffers::None,
        };
        Transfer {
            token: slot.ticket.0,
            ordinal: slot.ordinal,
            work,
            offset,
            len,
            buffers,
        }
    }

    /// Takes back a transfer: the device has stopped touching its payload. Returns the host's error.
    #[inline]
    pub(super) fn touched(
        &mut self,
        queue: &mut DeviceQueue<L::Request>,
        completion: Completion,
    ) -> Option<io::Error> {
        let Completion {
            mut transfer,
            mut result,
        } = completion;
        let index = queue.in_flight.find(Ticket(transfer.token))?;
        if queue.in_flight.slot(index).misdeeds.is_some()
            && self.damaged(queue, index, &mut transfer, &mut result)
        {
            return None;
        }
        let slot = queue.in_flight.slot(index);
        slot.stage += 1;
        let moved = match &result {
            Ok(moved) => *moved,
            Err(_) => 0,
        };
        slot.moved = slot.moved.saturating_add(moved);
        let is_write = slot.direction == Some(Direction::ToDevice);
        match transfer.buffers {
            Buffers::None => {}
            Buffers::Owned(copy) => {
                self.spare.copies.push(copy);
                if self.options.hash && is_write {
                    // The copy was hashed when it was made, and nobody else could change it.
                    self.emit(|| self.hashed(slot, Moment::Transfer, &slot.hashes));
                }
            }
            // The host's memory and nothing that the device touches.
            guest @ Buffers::Guest { .. } if transfer.work == Work::Free => {
                self.spare.buffers.push(guest);
            }
            guest @ Buffers::Guest { .. } => {
                self.spare.buffers.push(guest);
                self.emit(|| EventKind::TouchEnded {
                    request: self.request_id(slot.ordinal),
                });
                if self.options.hash && is_write {
                    self.hasher.hash_guest(&queue.memory, &slot.ranges);
                    self.emit(|| self.hashed(slot, Moment::Transfer, &self.hasher.hashes));
                }
            }
        }
        result.err()
    }

    pub(super) fn hashed(
        &self,
        slot: &Slot<L::Request>,
        moment: Moment,
        hashes: &[u64],
    ) -> EventKind {
        EventKind::PayloadHashed {
            request: self.request_id(slot.ordinal),
            moment,
            pages: spelled(&slot.ranges, hashes),
        }
    }

    /// The device itself writes the payload.
    fn fill(&mut self, queue: &mut DeviceQueue<L::Request>, index: u16, bytes: &[u8]) {
        if let Some(moved) = self.fill_wrongly(queue, index, bytes) {
            let slot = queue.in_flight.slot(index);
            slot.stage += 1;
            slot.moved = moved;
            return;
        }
        let slot = queue.in_flight.slot(index);
        slot.stage += 1;
        slot.moved = bytes.len() as u64;
        let request = self.request_id(slot.ordinal);
        self.emit(|| EventKind::TouchBegan {
            request: request.clone(),
        });
        let written = memory::write(&queue.memory, &slot.ranges, bytes);
        written.expect("the payload was checked when the chain was parsed");
        self.emit(|| EventKind::TouchEnded { request });
    }

    fn failed(&mut self, queue: &mut DeviceQueue<L::Request>, index: u16, error: &io::Error) {
        self.host_error(error, queue.in_flight.slot(index));
        self.executed(queue, index, Status::Ioerr, Some(error));
    }

    /// The point `executed`: the host operation ended, the frames are still held.
    #[inline]
    fn executed(
        &mut self,
        queue: &mut DeviceQueue<L::Request>,
        index: u16,
        status: Status,
        error: Option<&io::Error>,
    ) {
        let slot = queue.in_flight.slot(index);
        slot.step(Step::Execute);
        slot.status = status;
        self.emit(|| EventKind::Executed {
            request: self.request_id(slot.ordinal),
            status,
            host_error: error.map(ToString::to_string),
        });
        self.reached(slot, Point::Executed);
        if let Some(decision) = self.decide(slot, Point::Executed) {
            let hold = self.obey(queue, index, Point::Executed, decision);
            if hold.is_some_and(|hold| self.park(queue, index, Point::Executed, &hold)) {
                return;
            }
        }
        self.finish(queue, index);
    }
}

/// The payload for the backend, in buffers that were used before if there are any.
#[inline]
pub(super) fn guest_buffers(
    spare: Option<Buffers>,
    memory: &Memory,
    from: &[GuestRange],
) -> Buffers {
    let mut buffers = spare.unwrap_or_else(|| Buffers::Guest {
        ranges: Vec::new(),
        memory: memory.clone(),
    });
    if let Buffers::Guest { ranges, .. } = &mut buffers {
        ranges.clear();
        ranges.extend_from_slice(from);
    }
    buffers
}
