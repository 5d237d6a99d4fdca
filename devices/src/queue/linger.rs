//! Completions that wait for each other, and signals that are put off. Neither can wait for ever: what is not complete
//! after [`LINGER_NS`] goes on as it is.

use crate::fault::{ReorderBy, Ticket};
use crate::trace::event::Fault;

use super::core::Core;
use super::device_queue::DeviceQueue;
use super::in_flight::Step;
use super::logic::Logic;

/// The longest time that a completion waits for others, or for its signal: 5 ms on the host's clock.
const LINGER_NS: u64 = 5_000_000;
/// Names the end of that time; no request has this ticket.
const LINGERED: Ticket = Ticket(u64::MAX);

impl<L: Logic> Core<L> {
    /// Puts a completion to those that go on in another order.
    pub(super) fn gather(
        &mut self,
        queue: &mut DeviceQueue<L::Request>,
        index: u16,
        reorder: ReorderBy,
    ) {
        queue.in_flight.slot(index).step(Step::Gather);
        queue.gathered.push((reorder.key, index));
        if queue.gathered.len() >= usize::from(reorder.window) || !self.linger(queue) {
            self.let_go(queue);
        }
    }

    /// Completes what was gathered, in the order that the seed drew.
    pub(super) fn let_go(&mut self, queue: &mut DeviceQueue<L::Request>) {
        let mut gathered = std::mem::take(&mut queue.gathered);
        gathered.sort_by_key(|(key, index)| (*key, queue.in_flight.slot(*index).ordinal));
        // A window is a u16, so there are never more.
        let of = u16::try_from(gathered.len()).unwrap_or(u16::MAX);
        for (place, (_, index)) in (0..of).zip(gathered) {
            let slot = queue.in_flight.slot(index);
            if of > 1 {
                self.acted(slot.ordinal, || Fault::Reordered { place, of });
            }
            slot.step(Step::Release);
            self.complete(queue, index);
        }
    }

    /// Puts off the signal of a completion until `count` wait for one.
    pub(super) fn put_off_signal(&mut self, queue: &mut DeviceQueue<L::Request>, count: u16) {
        queue.put_off += 1;
        if queue.put_off >= u32::from(count) || !self.linger(queue) {
            signal_after_all(queue);
        }
    }

    /// The time of those that wait is over. `false`: this is another ticket.
    pub(super) fn lingered(&mut self, queue: &mut DeviceQueue<L::Request>, ticket: Ticket) -> bool {
        if ticket != LINGERED {
            return false;
        }
        queue.lingers = false;
        self.linger_no_more(queue);
        true
    }

    /// Lets go whatever waits here.
    pub(super) fn linger_no_more(&mut self, queue: &mut DeviceQueue<L::Request>) {
        self.let_go(queue);
        if queue.put_off > 0 {
            signal_after_all(queue);
        }
    }

    /// Sees to it that waiting ends. `false`: it must not begin.
    fn linger(&mut self, queue: &mut DeviceQueue<L::Request>) -> bool {
        if self.stopping {
            return false;
        }
        if !queue.lingers {
            let clock = self.context.clock();
            let at_ns = clock.now_ns().saturating_add(LINGER_NS);
            match self.wake.at(clock, at_ns, LINGERED) {
                Ok(()) => queue.lingers = true,
                Err(error) => log::error!("{}: cannot set a timer: {error}", self.name),
            }
        }
        queue.lingers
    }
}

fn signal_after_all<R>(queue: &mut DeviceQueue<R>) {
    queue.put_off = 0;
    queue.ring.set_signals(true);
}
