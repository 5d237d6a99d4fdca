//! A queue to a snapshot and from one.
//!
//! ```text
//!  save      host operations under way are waited for, their requests go on as always
//!            what is left is parked, or waits for the outside world: head, early copy, answer of work that is done
//!  restore   these heads are popped once more, in their order, before newer ones; the plan decides anew
//! ```
//!
//! Promises: work that was done is not done again, and a payload that was fetched early is the one that is used. What a plan had decided is
//! forgotten: the restored machine has a plan of its own. A queue in which a planted fault is at work is not saved.

use crate::device::{SavedQueue, SavedRequest};
use crate::trace::event::Planted;

use super::core::Core;
use super::device_queue::DeviceQueue;
use super::handler::Handler;
use super::in_flight::{Slot, State};
use super::logic::Logic;

impl<L: Logic> Handler<L> {
    /// The queue for a snapshot, `None` where it is not at work; it goes on afterwards. Nobody serves it meanwhile.
    ///
    /// # Errors
    /// What is in the way, in words.
    pub fn save(&mut self) -> Result<Option<SavedQueue>, String> {
        match &mut self.queue {
            Some(queue) => self.core.save(queue).map(Some),
            None => Ok(None),
        }
    }
}

impl<L: Logic> Core<L> {
    fn save(&mut self, queue: &mut DeviceQueue<L::Request>) -> Result<SavedQueue, String> {
        self.settle(queue);
        self.linger_no_more(queue);
        self.end_turn(queue);
        if let Some(broken) = queue.broken {
            return Err(format!("its queue {} is stopped: {broken}", self.queue));
        }
        if queue.is_halted() {
            return Err(format!(
                "a rule has stopped its queue {}, until a reset",
                self.queue
            ));
        }
        if !queue.groups.is_empty() {
            let of = self.queue;
            return Err(format!(
                "a frame over several buffers of queue {of} waits to be completed as a whole"
            ));
        }
        let in_flight = queue.in_flight.all();
        let mut early = in_flight.iter().filter(|index| {
            let slot = queue.in_flight.slot(**index);
            slot.is_planted(Planted::EarlyCompletion)
        });
        if !queue.kept.is_empty() || !queue.late.is_empty() || early.next().is_some() {
            return Err(format!(
                "a planted fault is at work in its queue {}",
                self.queue
            ));
        }
        let (next_avail, next_used) = queue.ring.places();
        // Those that a restored queue has not even popped again come first.
        let mut requests = queue.resume.clone();
        for index in in_flight {
            requests.extend(saved(queue.in_flight.slot(index)));
        }
        Ok(SavedQueue {
            next_avail,
            next_used,
            next_ordinal: self.next_ordinal,
            requests,
        })
    }

    /// Waits for the host until it has nothing to do for this queue.
    fn settle(&mut self, queue: &mut DeviceQueue<L::Request>) {
        loop {
            let mut done = std::mem::take(&mut self.spare.completions);
            self.backend.commit();
            self.backend.settle(&mut done);
            let is_still = done.is_empty();
            for completion in done.drain(..) {
                self.on_completion(queue, completion);
            }
            self.spare.completions = done;
            if is_still {
                return;
            }
        }
    }

    /// Pops once more what a snapshot had in flight.
    #[inline(never)]
    pub(super) fn resume(&mut self, queue: &mut DeviceQueue<L::Request>) {
        let requests = std::mem::take(&mut queue.resume);
        let heads: Vec<u16> = requests.iter().map(|request| request.head).collect();
        let mut batch = std::mem::take(&mut self.spare.batch);
        let popped = queue.ring.pop_again(&queue.memory, &heads, &mut batch);
        if queue.check(popped).is_some() {
            for ((chain, defect), request) in batch.iter().zip(requests) {
                self.again = Some(request);
                self.fetch(queue, chain, defect);
                self.again = None;
            }
            self.run_ready(queue);
        }
        self.spare.batch = batch;
    }
}

/// A request that is not given back; `None` for one that a rule has lost, which never will be.
fn saved<R>(slot: &Slot<R>) -> Option<SavedRequest> {
    let done = match slot.state() {
        State::Free | State::Lost => return None,
        State::Fetched | State::ParkedFetched | State::Running => None,
        State::Executed | State::ParkedExecuted | State::Gathered => Some(slot.status),
    };
    Some(SavedRequest {
        head: slot.head,
        copy: slot.copy.clone(),
        done: done.map(|status| (status, slot.moved)),
    })
}

/// What a snapshot knows of a request that was just popped once more.
pub(super) fn take_up<R>(slot: &mut Slot<R>, saved: SavedRequest) {
    let len: u64 = slot.ranges.iter().map(|range| range.len).sum();
    slot.copy = saved.copy.filter(|copy| copy.len() as u64 == len);
    if let Some((status, moved)) = saved.done {
        slot.refused = Some(slot.refused.unwrap_or(status));
        slot.moved = moved;
    }
}
