//! What a handler has whether or not its queue is active, and the words in which it reports.

use crate::backend::{Backend, Buffers, Completion};
use crate::context::Context;
use crate::device::SavedRequest;
use crate::fault::{Decision, DeviceRules, Message, Query, Ticket};
use crate::trace::event::{EventKind, Point, RequestId, Status};

use super::Options;
use super::in_flight::Slot;
use super::logic::Logic;
use super::payload::Hasher;
use super::ring::Batch;
use super::wake::Wake;

/// The part of a handler that outlives activations. Its methods are spread over `fetch.rs`, `run.rs` and `complete.rs`.
pub(super) struct Core<L: Logic> {
    pub(super) name: String,
    pub(super) queue: u16,
    pub(super) logic: L,
    pub(super) backend: Box<dyn Backend>,
    pub(super) context: Context,
    pub(super) rules: DeviceRules,
    pub(super) options: Options,
    pub(super) wake: Wake,
    pub(super) next_ordinal: u64,
    /// The request that is popped once more, in a restored machine.
    pub(super) again: Option<SavedRequest>,
    pub(super) stopping: bool,
    pub(super) hasher: Hasher,
    pub(super) spare: Spare,
    mistakes: u64,
    host_errors: u64,
}

/// Allocations that are used again, so that a request costs none.
#[derive(Default)]
pub(super) struct Spare {
    pub(super) batch: Batch,
    pub(super) buffers: Vec<Buffers>,
    pub(super) copies: Vec<Vec<u8>>,
    pub(super) completions: Vec<Completion>,
    pub(super) messages: Vec<Message>,
    pub(super) due: Vec<Ticket>,
}

impl<L: Logic> Core<L> {
    pub(super) fn new(
        name: &str,
        queue: u16,
        logic: L,
        backend: Box<dyn Backend>,
        context: Context,
        options: Options,
        wake: Wake,
    ) -> Self {
        Self {
            name: name.to_owned(),
            queue,
            logic,
            backend,
            rules: context.injector().for_device(name),
            context,
            options,
            wake,
            next_ordinal: 0,
            again: None,
            stopping: false,
            hasher: Hasher::default(),
            spare: Spare::default(),
            mistakes: 0,
            host_errors: 0,
        }
    }

    pub(super) fn request_id(&self, ordinal: u64) -> RequestId {
        RequestId {
            device: self.name.clone(),
            queue: self.queue,
            ordinal,
        }
    }

    /// Emits an event; nothing is built while nobody listens.
    #[inline]
    pub(super) fn emit(&self, what: impl FnOnce() -> EventKind) {
        self.context.tracer().emit(what);
    }

    /// Tells those who wait for a request on the same frame.
    #[inline]
    pub(super) fn reached(&self, slot: &Slot<L::Request>, point: Point) {
        let watches = self.context.watches();
        watches.reached(point, &slot.ranges, self.wake.inbox(), slot.ticket, || {
            self.request_id(slot.ordinal)
        });
    }

    /// Asks the plan, and reports the rule that acts. Without a rule it is one comparison.
    #[inline]
    pub(super) fn decide(&self, slot: &Slot<L::Request>, point: Point) -> Option<Decision> {
        if self.rules.is_empty_at(point) {
            return None;
        }
        self.ask(slot, point)
    }

    #[inline(never)]
    fn ask(&self, slot: &Slot<L::Request>, point: Point) -> Option<Decision> {
        let query = Query {
            device: &self.name,
            queue: self.queue,
            operation: slot.operation,
            sector: slot.sector,
            bytes: slot.bytes,
            ordinal: slot.ordinal,
            ranges: &slot.ranges,
            point,
        };
        let decision = self.context.injector().decide(&self.rules, &query)?;
        self.emit(|| EventKind::FaultApplied {
            request: self.request_id(slot.ordinal),
            rule: decision.rule.clone(),
            point,
            action: decision.action(),
        });
        if let Some(gate) = &decision.open_gate {
            self.context.gates().open(gate);
        }
        Some(decision)
    }

    /// Records what the guest did wrong and what it got for it.
    pub(super) fn mistake(&mut self, what: &str, answer: &str) {
        self.mistakes += 1;
        // Said at 1, 2, 4, 8, ...: a guest must not be able to fill the host's log.
        if self.mistakes.is_power_of_two() {
            log::warn!(
                "{}: guest mistake {}: {what}; {answer}",
                self.name,
                self.mistakes
            );
        }
        self.emit(|| EventKind::GuestMistake {
            device: self.name.clone(),
            queue: self.queue,
            what: what.to_owned(),
            answer: answer.to_owned(),
        });
    }

    pub(super) fn host_error(&mut self, error: &std::io::Error, slot: &Slot<L::Request>) {
        self.host_errors += 1;
        if self.host_errors.is_power_of_two() {
            let (name, count) = (&self.name, self.host_errors);
            log::warn!(
                "{name}: host error {count}: {:?} at sector {}: {error}",
                slot.operation,
                slot.sector
            );
        }
    }
}

/// A status in a message.
pub(super) fn answer_word(status: Status) -> String {
    format!("answered {status}")
}
