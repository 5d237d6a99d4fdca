//! How a parked request is let go from any thread: a message to the device that parked it.
//!
//! Nobody ever calls into a device to release a request, so a gate may be opened from anywhere, also from within a
//! device's own completion.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::trace::event::{Point, ReleaseCause, RequestId, Until};

/// Names one stay of one request in a device. A ticket that is over is never used again, so a late release does
/// nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Lets one parked request go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Which one.
    pub ticket: Ticket,
    /// Why.
    pub cause: ReleaseCause,
}

/// What a device finds in its inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Let one go.
    Release(Release),
    /// The machine stops: let everything go and park nothing any more.
    Stop,
}

/// A parked request and what it waits for, for messages to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The request.
    pub request: RequestId,
    /// Where on its way it is parked.
    pub point: Point,
    /// What it waits for.
    pub until: Until,
}

/// The messages of one device, and the list of what it has parked.
#[derive(Debug)]
pub struct Inbox {
    wake: EventFd,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    messages: Vec<Message>,
    parked: BTreeMap<Ticket, Waiting>,
}

impl Inbox {
    /// An empty one.
    ///
    /// # Errors
    /// The host has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            wake: EventFd::new(EFD_NONBLOCK)?,
            state: Mutex::default(),
        })
    }

    /// Readable when there is a message.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.wake.as_raw_fd()
    }

    /// Leaves a message and wakes the device.
    pub fn push(&self, message: Message) {
        self.lock().messages.push(message);
        self.wake();
    }

    /// Wakes the device without a message.
    pub fn wake(&self) {
        // EAGAIN means that the counter is full: it is readable, which is all that is wanted.
        let _ = self.wake.write(1);
    }

    /// Takes all messages, in order, and clears the descriptor.
    pub fn take(&self, into: &mut Vec<Message>) {
        // EAGAIN means that it was clear.
        let _ = self.wake.read();
        into.append(&mut self.lock().messages);
    }

    /// Puts a request on the list of parked ones.
    pub(crate) fn park(&self, ticket: Ticket, waiting: Waiting) {
        self.lock().parked.insert(ticket, waiting);
    }

    /// Takes it off again.
    pub(crate) fn unpark(&self, ticket: Ticket) -> Option<Waiting> {
        self.lock().parked.remove(&ticket)
    }

    /// What is parked, in the order of parking.
    #[must_use]
    pub fn parked(&self) -> Vec<Waiting> {
        self.lock().parked.values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
