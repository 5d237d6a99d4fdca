//! One activated queue: its rings, what is in flight, and the memory map that all of it was popped with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::device::{Interrupt, Memory, SavedRequest};
use crate::fault::Ticket;
use crate::hold::{Hold, Shard};
use crate::trace::event::{GuestRange, RequestId};

use super::group::Groups;
use super::in_flight::InFlight;
use super::ring::{Ring, RingBroken};
use super::stray::Stray;

/// The stop of all queues of a device until its reset, because a rule wants that it needs one (virtio 1.2, 2.1.2). Each activation
/// has its own. A queue looks at it when it starts or completes a request: one that another thread completes in the very moment
/// may still end.
#[derive(Debug, Clone, Default)]
pub(super) struct Halt(Arc<AtomicBool>);

impl Halt {
    /// Stops them. `false`: they have stopped already.
    pub(super) fn begin(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

/// Exists from DRIVER_OK to reset. Its memory map is the snapshot that its requests own: a changed map comes with
/// another activation.
pub(super) struct DeviceQueue<R> {
    pub(super) memory: Memory,
    pub(super) interrupt: Arc<dyn Interrupt>,
    pub(super) ring: Ring,
    pub(super) in_flight: InFlight<R>,
    pub(super) shard: Shard,
    /// Requests that end together.
    pub(super) groups: Groups,
    /// Slots that may start, in order.
    pub(super) ready: Vec<u16>,
    /// Holds of requests that are over, kept by a planted fault.
    pub(super) kept: Vec<Kept>,
    /// Why nothing is popped any more.
    pub(super) broken: Option<RingBroken>,
    /// The guest was told so.
    pub(super) told_broken: bool,
    /// Why no queue of the device does anything any more.
    pub(super) halt: Halt,
    /// Completions that wait for each other, with what orders them.
    pub(super) gathered: Vec<(u64, u16)>,
    /// Completions whose signal is put off.
    pub(super) put_off: u32,
    /// A timer ends the waiting of both.
    pub(super) lingers: bool,
    /// Touches of what the guest has back that wait for something.
    pub(super) late: BTreeMap<Ticket, (RequestId, Stray)>,
    /// How many there were.
    pub(super) late_tickets: u64,
    /// The last turn ended with chains left in the ring.
    pub(super) more: bool,
    /// What a restored machine had in flight; popped before anything else.
    pub(super) resume: Vec<SavedRequest>,
}

/// A hold whose request is over.
pub(super) struct Kept {
    pub(super) ordinal: u64,
    pub(super) hold: Hold,
    pub(super) ranges: Vec<GuestRange>,
}

impl<R> DeviceQueue<R> {
    /// A rule wants that nothing is done any more until a reset.
    #[inline]
    pub(super) fn is_halted(&self) -> bool {
        self.halt.0.load(Ordering::Acquire)
    }

    /// Keeps the reason why the rings are unusable. The first one counts.
    pub(super) fn check<T>(&mut self, result: Result<T, RingBroken>) -> Option<T> {
        result
            .inspect_err(|error| self.broken = self.broken.or(Some(*error)))
            .ok()
    }
}
