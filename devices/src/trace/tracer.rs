//! Numbers events and hands them to sinks and subscribers.
//!
//! A number is given and the event delivered under one lock, so every sink sees the events in the order of their
//! numbers. With no sink and no subscriber, [`Tracer::emit`] is one relaxed load and builds nothing.
//!
//! Lock order: the tracer's lock comes last. It is taken while a device, the gates or the watches are locked, and
//! nothing is locked under it but what a sink owns.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::event::{Event, EventKind, Seq, VERSION};
use super::sink::{Recording, Sink};

/// The one source of sequence numbers of a run.
pub struct Tracer {
    on: AtomicBool,
    opened: Instant,
    lost: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: u64,
    sinks: Vec<Box<dyn Sink>>,
    subscribers: Vec<Sender<Arc<Event>>>,
}

impl Tracer {
    /// A tracer that nobody listens to yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            on: AtomicBool::new(false),
            opened: Instant::now(),
            lost: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }

    /// A tracer whose events are kept in memory.
    #[must_use]
    pub fn recording() -> (Arc<Self>, Recording) {
        let recording = Recording::default();
        let tracer = Self::new();
        tracer.add_sink(Box::new(recording.clone()));
        (Arc::new(tracer), recording)
    }

    /// Adds a sink. It gets every event from now on; the first one ever is [`EventKind::LogOpened`].
    pub fn add_sink(&self, sink: Box<dyn Sink>) {
        self.listen(|state| state.sinks.push(sink));
    }

    /// A channel of all events from now on. Dropping the receiver ends it.
    #[must_use]
    pub fn subscribe(&self) -> Receiver<Arc<Event>> {
        let (sender, receiver) = channel();
        self.listen(|state| state.subscribers.push(sender));
        receiver
    }

    /// Whether anybody listens.
    #[inline]
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Gives an event its number and delivers it. `what` runs only if anybody listens; `None` if nobody does.
    #[inline]
    pub fn emit(&self, what: impl FnOnce() -> EventKind) -> Option<Seq> {
        self.is_on().then(|| self.deliver(what()))
    }

    /// Number of events that a sink refused (for example because its disk is full).
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn listen(&self, add: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        add(&mut state);
        if state.last == 0 {
            self.number(&mut state, EventKind::LogOpened { version: VERSION });
        }
        self.on.store(true, Ordering::Relaxed);
    }

    #[cold]
    fn deliver(&self, kind: EventKind) -> Seq {
        self.number(&mut self.lock(), kind)
    }

    fn number(&self, state: &mut State, kind: EventKind) -> Seq {
        state.last += 1;
        let seq = Seq(state.last);
        let time_ns = u64::try_from(self.opened.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let event = Arc::new(Event { seq, time_ns, kind });
        for sink in &mut state.sinks {
            if let Err(error) = sink.record(&event) {
                self.count_lost(&error);
            }
        }
        state
            .subscribers
            .retain(|subscriber| subscriber.send(event.clone()).is_ok());
        if state.sinks.is_empty() && state.subscribers.is_empty() {
            self.on.store(false, Ordering::Relaxed);
        }
        seq
    }

    fn count_lost(&self, error: &std::io::Error) {
        let lost = self.lost.fetch_add(1, Ordering::Relaxed) + 1;
        // Said at 1, 2, 4, 8, ...: a full disk must not fill the console too.
        if lost.is_power_of_two() {
            log::error!("event log: cannot write ({error}); {lost} events lost so far");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Tracer {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Tracer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracer")
            .field("on", &self.is_on())
            .field("lost", &self.lost())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(name: &str) -> EventKind {
        EventKind::GateOpened { gate: name.into() }
    }

    #[test]
    fn nothing_is_built_while_nobody_listens() {
        let tracer = Tracer::new();
        assert_eq!(tracer.emit(|| unreachable!("nobody listens")), None);
        drop(tracer.subscribe());
        // The first event after the receiver is gone notices it.
        assert!(tracer.emit(|| gate("a")).is_some());
        assert_eq!(tracer.emit(|| unreachable!("nobody listens")), None);
    }

    #[test]
    fn sinks_and_subscribers_see_one_order_from_many_threads() {
        let (tracer, recording) = Tracer::recording();
        let events = tracer.subscribe();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        tracer.emit(|| gate("x"));
                    }
                });
            }
        });
        let heard: Vec<u64> = events.try_iter().map(|event| event.seq.0).collect();
        let kept: Vec<u64> = recording.events().iter().map(|e| e.seq.0).collect();
        assert_eq!(kept, (1..=401).collect::<Vec<_>>());
        assert_eq!(heard, (2..=401).collect::<Vec<_>>());
    }

    #[test]
    fn a_sink_that_fails_is_counted_and_does_not_stop_the_others() {
        struct Full;
        impl Sink for Full {
            fn record(&mut self, _: &Arc<Event>) -> std::io::Result<()> {
                Err(std::io::ErrorKind::StorageFull.into())
            }
        }
        let tracer = Tracer::new();
        tracer.add_sink(Box::new(Full));
        let recording = Recording::default();
        tracer.add_sink(Box::new(recording.clone()));
        tracer.emit(|| gate("a"));
        assert_eq!(tracer.lost(), 2);
        assert_eq!(recording.events().len(), 1);
    }
}
