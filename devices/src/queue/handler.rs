//! Serves one queue: the one place that knows in which order things happen.
//!
//! ```text
//!  on_kick ──> pop, copy control bytes       Fetched                                  fetch.rs
//!               │  hold opens                HoldOpened
//!               │  plan asked                FaultApplied
//!               │  early: payload copied     PayloadHashed fetch
//!               ├──> park ................   Parked     (gate, same frame, duration)
//!               │      ^ no thread waits        │
//!  on_wake ─────┼──────┴─ inbox, alarm       Released
//!               v
//!              start ──> disk.submit         TouchBegan                               run.rs
//!               │          │ done at once, or later by on_wake
//!               │        on_completion       TouchEnded, PayloadHashed transfer
//!               │   next stage, until done   Executed
//!               │  plan asked                FaultApplied
//!               ├──> park ................   Parked, Released
//!               v
//!              complete                      PayloadHashed completion                 complete.rs
//!               │  status byte written
//!               │  hold closes               HoldClosed
//!               │  plan asked                FaultApplied
//!               │  used index published      Used       (the event comes just before the guest can see it)
//!               v
//!              end of the batch: one decision whether to signal the guest: Signalled
//! ```
//!
//! Reset is the same road backwards: the backend is drained, every hold is abandoned, the slots are gone.
//!
//! A batch is popped whole before its first request starts, and committed whole to the backend.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use crate::backend::Backend;
use crate::context::Context;
use crate::device::{ActivateError, Interrupt, Memory, QueueService, SavedQueue};
use crate::fault::{Message, Release};
use crate::memory::frames;
use crate::trace::event::{EventKind, Fetch, ReleaseCause};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::Queue;

use super::core::Core;
use super::device_queue::{DeviceQueue, Halt};
use super::group::Groups;
use super::in_flight::{InFlight, Step};
use super::logic::Logic;
use super::ring::{Ring, RingBroken};
use super::wake::Wake;

/// Chains that are popped together.
pub(super) const BATCH: usize = 64;
/// Batches after which a turn ends, so that a guest that never stops cannot keep the device's lock: a reset has to
/// get it.
const BATCHES_PER_TURN: usize = 8;

/// What a handler does by default where no rule says otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// When a write's payload is read from guest memory.
    pub fetch: Fetch,
    /// Hash the payloads of writes at each [`crate::trace::event::Moment`].
    pub hash: bool,
    /// Hold frames in the ledger. Without it no rule about frames works and no `HoldOpened` is logged: it is off only
    /// to measure what the ledger costs.
    pub ledger: bool,
}

/// Serves one queue of a device.
pub struct Handler<L: Logic> {
    pub(super) core: Core<L>,
    pub(super) queue: Option<DeviceQueue<L::Request>>,
}

impl<L: Logic> Handler<L> {
    /// An inactive handler of queue `queue` of the device `name`.
    ///
    /// # Errors
    /// The host has no descriptor left.
    pub fn new(
        name: &str,
        queue: u16,
        logic: L,
        backend: Box<dyn Backend>,
        context: Context,
        options: Options,
    ) -> io::Result<Self> {
        let wake = Wake::new(backend.completion_fd())?;
        context.register(wake.inbox());
        Ok(Self {
            core: Core::new(name, queue, logic, backend, context, options, wake),
            queue: None,
        })
    }

    /// The device's part.
    pub fn logic(&self) -> &L {
        &self.core.logic
    }

    /// The device's part.
    pub fn logic_mut(&mut self) -> &mut L {
        &mut self.core.logic
    }

    /// Begins to serve a queue. The device says in the event log that it was activated, before it calls this.
    ///
    /// # Errors
    /// The queue's rings are not in guest memory, or its size is wrong.
    pub fn activate(
        &mut self,
        memory: Memory,
        features: u64,
        queue: Queue,
        interrupt: Arc<dyn Interrupt>,
    ) -> Result<(), ActivateError> {
        self.activate_among(memory, features, queue, interrupt, Halt::default(), None)
    }

    /// The same for a queue that stops together with others, and in a restored machine goes on where it was.
    pub(super) fn activate_among(
        &mut self,
        memory: Memory,
        features: u64,
        queue: Queue,
        interrupt: Arc<dyn Interrupt>,
        halt: Halt,
        resume: Option<SavedQueue>,
    ) -> Result<(), ActivateError> {
        self.reset();
        let event_idx = features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0;
        let ring = Ring::new(queue, &memory, event_idx).ok_or(ActivateError::Queue {
            queue: self.core.queue,
        })?;
        let resume = resume.map_or_else(Vec::new, |saved| {
            self.core.next_ordinal = saved.next_ordinal;
            saved.requests
        });
        self.queue = Some(DeviceQueue {
            in_flight: InFlight::new(ring.size()),
            shard: self
                .core
                .context
                .ledger()
                .shard(&self.core.name, frames(&memory)),
            memory,
            interrupt,
            ring,
            groups: Groups::default(),
            ready: Vec::new(),
            kept: Vec::new(),
            gathered: Vec::new(),
            put_off: 0,
            lingers: false,
            late: BTreeMap::new(),
            late_tickets: 0,
            broken: None,
            told_broken: false,
            halt,
            more: true,
            resume,
        });
        // A kick may have come before: look into the ring once without one.
        self.core.wake.inbox().wake();
        Ok(())
    }

    /// Whether it serves a queue: it was activated and not reset since.
    pub fn is_active(&self) -> bool {
        self.queue.is_some()
    }

    /// Stops: waits for the backend, abandons every hold, forgets every request. Legal at any moment. Returns how many holds
    /// were abandoned, for the device's word in the event log.
    pub fn reset(&mut self) -> u64 {
        let Some(mut queue) = self.queue.take() else {
            return 0;
        };
        let abandoned = self.core.abandon_all(&mut queue);
        debug_assert_eq!(queue.shard.open_holds(), 0, "a reset leaves no hold open");
        abandoned
    }
}

impl<L: Logic> QueueService for Handler<L> {
    fn on_kick(&mut self) {
        let Some(queue) = &mut self.queue else { return };
        self.core.pop_and_run(queue);
        self.core.end_turn(queue);
    }

    fn wake_fd(&self) -> RawFd {
        self.core.wake.fd()
    }

    fn on_wake(&mut self) {
        let Some(queue) = &mut self.queue else {
            return self.core.wake_inactive();
        };
        self.core.take_completions(queue);
        self.core.take_messages(queue);
        self.core.take_due(queue);
        self.core.run_ready(queue);
        if queue.more {
            self.core.pop_and_run(queue);
        }
        self.core.end_turn(queue);
    }
}

impl<L: Logic> Drop for Handler<L> {
    fn drop(&mut self) {
        self.reset();
    }
}

impl<L: Logic> Core<L> {
    fn pop_and_run(&mut self, queue: &mut DeviceQueue<L::Request>) {
        if !queue.resume.is_empty() {
            self.resume(queue);
        }
        let mut batch = std::mem::take(&mut self.spare.batch);
        queue.more = false;
        let disabled = queue.ring.disable_kicks(&queue.memory);
        queue.check(disabled);
        let mut promised = false;
        for turn in 0.. {
            if queue.broken.is_some() || queue.is_halted() {
                break;
            }
            if turn == BATCHES_PER_TURN {
                queue.more = true;
                self.wake.inbox().wake();
                break;
            }
            let popped = queue.ring.pop(&queue.memory, BATCH, &mut batch);
            let popped = queue.check(popped);
            for (chain, defect) in batch.iter() {
                self.fetch(queue, chain, defect);
            }
            self.run_ready(queue);
            if popped.is_none() || batch.len() == BATCH {
                // What was promised may have been exactly this batch.
                promised = false;
                continue;
            }
            if promised && batch.len() == 0 {
                // The index says that there is more, but its element cannot be read.
                queue.broken = Some(RingBroken::Memory);
                break;
            }
            let more = queue.ring.enable_kicks(&queue.memory);
            promised = queue.check(more) == Some(true);
            if !promised {
                break;
            }
        }
        self.spare.batch = batch;
    }

    pub(super) fn run_ready(&mut self, queue: &mut DeviceQueue<L::Request>) {
        let mut ready = std::mem::take(&mut queue.ready);
        for index in ready.drain(..) {
            self.start(queue, index);
        }
        queue.ready = ready;
        self.backend.commit();
    }

    pub(super) fn take_completions(&mut self, queue: &mut DeviceQueue<L::Request>) {
        if self.backend.completion_fd().is_none() {
            return;
        }
        let mut done = std::mem::take(&mut self.spare.completions);
        self.backend.completions(&mut done);
        for completion in done.drain(..) {
            self.on_completion(queue, completion);
        }
        self.spare.completions = done;
    }

    fn take_messages(&mut self, queue: &mut DeviceQueue<L::Request>) {
        let mut messages = std::mem::take(&mut self.spare.messages);
        self.wake.inbox().take(&mut messages);
        for message in messages.drain(..) {
            match message {
                Message::Release(Release { ticket, cause }) => self.release(queue, ticket, cause),
                Message::Stop => self.release_all(queue),
            }
        }
        self.spare.messages = messages;
    }

    fn take_due(&mut self, queue: &mut DeviceQueue<L::Request>) {
        let mut due = std::mem::take(&mut self.spare.due);
        self.wake.take_due(self.context.clock(), &mut due);
        for ticket in due.drain(..) {
            self.release(queue, ticket, ReleaseCause::Elapsed);
        }
        self.spare.due = due;
    }

    /// Empties the inbox: releases mean nothing any more, a stop still counts.
    fn forget_messages(&mut self) {
        self.wake.inbox().take(&mut self.spare.messages);
        self.stopping |= self
            .spare
            .messages
            .drain(..)
            .any(|message| message == Message::Stop);
    }

    /// A device that is not active has nothing to release, but must not leave its descriptor readable.
    fn wake_inactive(&mut self) {
        self.forget_messages();
        self.backend.completions(&mut self.spare.completions);
        self.spare.completions.clear();
        self.wake.clear();
    }

    /// One decision about a signal for all that was published, and a word about rings that broke.
    pub(super) fn end_turn(&mut self, queue: &mut DeviceQueue<L::Request>) {
        let wanted = queue.ring.needs_signal(&queue.memory);
        if queue.check(wanted) == Some(true) {
            self.emit(|| EventKind::Signalled {
                device: self.name.clone(),
                queue: self.queue,
            });
            queue.interrupt.signal_queue(self.queue);
        }
        if let Some(broken) = queue.broken.filter(|_| !queue.told_broken) {
            queue.told_broken = true;
            self.mistake(&broken.to_string(), "the device needs a reset");
            queue.interrupt.signal_needs_reset();
        }
    }

    fn release_all(&mut self, queue: &mut DeviceQueue<L::Request>) {
        self.stopping = true;
        self.forget_waits();
        self.forget_late(queue);
        self.linger_no_more(queue);
        for index in queue.in_flight.all() {
            let ticket = queue.in_flight.slot(index).ticket;
            self.release(queue, ticket, ReleaseCause::Stopping);
        }
    }

    fn forget_waits(&mut self) {
        self.context.gates().forget(self.wake.inbox());
        self.context.watches().forget(self.wake.inbox());
        self.wake.clear();
    }

    /// Ends every request without an answer. Returns how many holds were abandoned.
    fn abandon_all(&mut self, queue: &mut DeviceQueue<L::Request>) -> u64 {
        self.forget_waits();
        self.forget_late(queue);
        let mut done = std::mem::take(&mut self.spare.completions);
        self.backend.commit();
        self.backend.drain(&mut done);
        for completion in done.drain(..) {
            self.touched(queue, completion);
        }
        self.spare.completions = done;
        // They carry the map of this activation.
        self.spare.buffers.clear();

        // Releases that were under way are for requests that end here.
        self.forget_messages();

        let mut abandoned = 0;
        for kept in std::mem::take(&mut queue.kept) {
            abandoned += 1;
            let (hold, request) = (kept.hold.id(), self.request_id(kept.ordinal));
            let how = kept.hold.abandon(&mut queue.shard, &kept.ranges);
            self.emit(|| EventKind::HoldClosed { hold, request, how });
        }
        for index in queue.in_flight.all() {
            let slot = queue.in_flight.slot(index);
            self.wake.inbox().unpark(slot.ticket);
            if let Some(hold) = slot.hold.take() {
                abandoned += 1;
                let id = hold.id();
                let how = hold.abandon(&mut queue.shard, &slot.ranges);
                let request = self.request_id(slot.ordinal);
                self.emit(|| EventKind::HoldClosed {
                    hold: id,
                    request,
                    how,
                });
            }
            slot.misdeeds = None;
            slot.step(Step::Abandon);
            queue.in_flight.remove(index);
        }
        abandoned
    }
}
