//! Gates by name. Opening one lets everybody go who waits there, in the order of parking, and is remembered: an open
//! gate holds nobody.
//!
//! A gate needs no declaration: opening one that nobody waits for yet is fine. Lock order: a device, then the gates,
//! then an inbox or the tracer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::trace::Tracer;
use crate::trace::event::{EventKind, ReleaseCause};

use super::inbox::{Inbox, Message, Release, Ticket};

/// All gates of a machine.
#[derive(Debug)]
pub struct Gates {
    tracer: Arc<Tracer>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: BTreeSet<String>,
    waiting: BTreeMap<String, Vec<(Arc<Inbox>, Ticket)>>,
}

impl Gates {
    /// All closed.
    #[must_use]
    pub fn new(tracer: Arc<Tracer>) -> Self {
        Self {
            tracer,
            state: Mutex::default(),
        }
    }

    /// Opens a gate for good. Opening it again does nothing. Callable from any thread that holds no lock of a
    /// [`crate::trace::Sink`].
    pub fn open(&self, name: &str) {
        let mut state = self.lock();
        if !state.open.insert(name.to_owned()) {
            return;
        }
        self.tracer.emit(|| EventKind::GateOpened {
            gate: name.to_owned(),
        });
        for (inbox, ticket) in state.waiting.remove(name).unwrap_or_default() {
            let cause = ReleaseCause::Gate(name.to_owned());
            inbox.push(Message::Release(Release { ticket, cause }));
        }
    }

    /// Whether a gate was opened.
    #[must_use]
    pub fn is_open(&self, name: &str) -> bool {
        self.lock().open.contains(name)
    }

    /// Names of the closed gates where somebody waits, and how many wait there.
    #[must_use]
    pub fn awaited(&self) -> Vec<(String, usize)> {
        let state = self.lock();
        let waiting = state.waiting.iter();
        waiting
            .map(|(gate, who)| (gate.clone(), who.len()))
            .collect()
    }

    /// Waits at a gate, unless it is open. `on_parked` runs before anybody can open it. `false`: it is open.
    pub(crate) fn park(
        &self,
        name: &str,
        inbox: &Arc<Inbox>,
        ticket: Ticket,
        on_parked: impl FnOnce(),
    ) -> bool {
        let mut state = self.lock();
        if state.open.contains(name) {
            return false;
        }
        on_parked();
        let waiters = state.waiting.entry(name.to_owned()).or_default();
        waiters.push((inbox.clone(), ticket));
        true
    }

    /// Forgets everybody who would be told through this inbox.
    pub(crate) fn forget(&self, inbox: &Arc<Inbox>) {
        self.lock().waiting.retain(|_, waiters| {
            waiters.retain(|(other, _)| !Arc::ptr_eq(other, inbox));
            !waiters.is_empty()
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gates() -> Gates {
        Gates::new(Arc::new(Tracer::new()))
    }

    fn released(inbox: &Inbox) -> Vec<u64> {
        let mut messages = Vec::new();
        inbox.take(&mut messages);
        let ticket = |message| match message {
            Message::Release(release) => release.ticket.0,
            Message::Stop => unreachable!("gates do not stop devices"),
        };
        messages.into_iter().map(ticket).collect()
    }

    #[test]
    fn opening_lets_everybody_go_in_order_and_is_remembered() {
        let gates = gates();
        let inbox = Arc::new(Inbox::new().unwrap());
        for ticket in [3, 1, 2] {
            assert!(gates.park("g", &inbox, Ticket(ticket), || ()));
        }
        assert!(gates.park("other", &inbox, Ticket(9), || ()));
        assert_eq!(
            gates.awaited(),
            [("g".to_owned(), 3), ("other".to_owned(), 1)]
        );

        gates.open("g");
        gates.open("g");
        assert_eq!(released(&inbox), [3, 1, 2]);
        assert!(!gates.park("g", &inbox, Ticket(4), || unreachable!("it is open")));
    }

    #[test]
    fn a_gate_may_be_opened_before_anybody_comes() {
        let gates = gates();
        gates.open("early");
        assert!(gates.is_open("early") && !gates.is_open("late"));
        let inbox = Arc::new(Inbox::new().unwrap());
        assert!(!gates.park("early", &inbox, Ticket(1), || ()));
    }

    #[test]
    fn a_forgotten_inbox_hears_nothing() {
        let gates = gates();
        let inbox = Arc::new(Inbox::new().unwrap());
        gates.park("g", &inbox, Ticket(1), || ());
        gates.forget(&inbox);
        assert!(gates.awaited().is_empty());
        gates.open("g");
        assert!(released(&inbox).is_empty());
    }
}
