//! The latest events, for clients that come and go. Bounded: what a slow client did not fetch in time is lost to it, and
//! it is told how much.

use std::collections::VecDeque;
use std::sync::Arc;

use pincushion_devices::trace::{Event, EventKind};

/// Weight that is kept: about 16 MiB of small events.
const CAPACITY: usize = 64 * 1024;

/// The latest events of a run, in order, without gaps.
#[derive(Debug)]
pub(super) struct EventLog {
    events: VecDeque<Arc<Event>>,
    weight: usize,
    capacity: usize,
    /// Number of the latest event; 0 before the first.
    newest: u64,
    evicted: u64,
}

/// A part of the log.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// In order.
    pub events: Vec<Arc<Event>>,
    /// How many events between what was asked for and the first of these are gone.
    pub lost: u64,
    /// Ask for events after this number next.
    pub next: u64,
    /// The latest number in the log.
    pub newest: u64,
}

impl Default for EventLog {
    fn default() -> Self {
        Self::new(CAPACITY)
    }
}

impl EventLog {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            events: VecDeque::new(),
            weight: 0,
            capacity,
            newest: 0,
            evicted: 0,
        }
    }

    /// Keeps an event and forgets the oldest ones that have no room any more.
    pub(super) fn push(&mut self, event: Arc<Event>) {
        self.newest = event.seq.0;
        self.weight += weight(&event);
        self.events.push_back(event);
        while self.weight > self.capacity && self.events.len() > 1 {
            if let Some(oldest) = self.events.pop_front() {
                self.weight -= weight(&oldest);
                self.evicted += 1;
            }
        }
    }

    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// At most `limit` events with numbers above `after`.
    pub(super) fn after(&self, after: u64, limit: usize) -> Batch {
        let first = self.events.partition_point(|event| event.seq.0 <= after);
        let events: Vec<_> = self
            .events
            .iter()
            .skip(first)
            .take(limit)
            .cloned()
            .collect();
        // Numbers have no gaps, so what is missing in front of the first is what was evicted.
        let lost = events
            .first()
            .map_or(0, |event| event.seq.0.saturating_sub(after + 1));
        let next = events.last().map_or(after, |event| event.seq.0);
        Batch {
            lost,
            next,
            newest: self.newest,
            events,
        }
    }
}

/// What an event costs, in units of a small one.
fn weight(event: &Event) -> usize {
    let parts = match &event.kind {
        EventKind::Fetched { ranges, .. } | EventKind::HoldOpened { ranges, .. } => ranges.len(),
        EventKind::PayloadHashed { pages, .. } => pages.len(),
        EventKind::Console { line } => line.len() / 64,
        EventKind::AgentReport { text } | EventKind::StepSent { text, .. } => text.len() / 64,
        // Small, or rare.
        _ => 0,
    };
    1 + parts / 4
}

#[cfg(test)]
mod tests {
    use super::*;
    use pincushion_devices::trace::Seq;

    fn event(seq: u64) -> Arc<Event> {
        Arc::new(Event {
            seq: Seq(seq),
            time_ns: seq,
            kind: EventKind::GateOpened { gate: "g".into() },
        })
    }

    fn numbers(batch: &Batch) -> Vec<u64> {
        batch.events.iter().map(|event| event.seq.0).collect()
    }

    #[test]
    fn a_client_that_keeps_up_loses_nothing() {
        let mut log = EventLog::new(4);
        let mut after = 0;
        for seq in 1..=20 {
            log.push(event(seq));
            let batch = log.after(after, 10);
            assert_eq!((numbers(&batch), batch.lost), (vec![seq], 0));
            after = batch.next;
        }
        let batch = log.after(after, 10);
        assert_eq!((batch.events.len(), batch.lost, batch.next), (0, 0, 20));
    }

    #[test]
    fn a_slow_client_is_told_how_much_it_lost() {
        let mut log = EventLog::new(4);
        (1..=10).for_each(|seq| log.push(event(seq)));
        let batch = log.after(2, 2);
        assert_eq!(numbers(&batch), [7, 8]);
        assert_eq!((batch.lost, batch.next, batch.newest), (4, 8, 10));
        assert_eq!((log.evicted(), log.newest()), (6, 10));
        assert_eq!(
            log.after(99, 5).next,
            99,
            "the future is empty, not an error"
        );
        assert_eq!(log.after(u64::MAX, 5).lost, 0);
    }

    #[test]
    fn a_large_event_takes_the_room_of_many() {
        let mut log = EventLog::new(4);
        (1..=4).for_each(|seq| log.push(event(seq)));
        let line = "x".repeat(1024);
        log.push(Arc::new(Event {
            seq: Seq(5),
            time_ns: 0,
            kind: EventKind::Console { line },
        }));
        assert_eq!(numbers(&log.after(0, 9)), [5]);
    }
}
