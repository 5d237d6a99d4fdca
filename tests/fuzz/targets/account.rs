//! Keeps account of an event log: what every log must be like, whatever a driver does and whatever a plan asks for.
//!
//! Verifies: a request is fetched once and used at most once, with its own head, after its hold was closed; a head is in flight
//! once; a hold is closed once; what the ledger holds is what the log says; a reset leaves nothing in flight. Does not verify what a
//! request was answered, nor what is in guest memory.

use std::collections::BTreeMap;

use pincushion_devices::hold::Ledger;
use pincushion_devices::trace::Event;
use pincushion_devices::trace::event::{
    Direction, EventKind, FRAME_SIZE, GuestRange, HoldId, RequestId,
};

/// What is under way by the log.
#[derive(Default)]
pub struct Account {
    last_seq: u64,
    in_flight: BTreeMap<RequestId, u16>,
    fetched: BTreeMap<(String, u16), u64>,
    holds: BTreeMap<HoldId, (RequestId, Direction, Vec<GuestRange>)>,
}

impl Account {
    /// Takes the next event.
    ///
    /// # Panics
    /// It cannot follow those before.
    pub fn enter(&mut self, event: &Event) {
        assert!(event.seq.0 > self.last_seq, "events are numbered in order");
        self.last_seq = event.seq.0;
        match &event.kind {
            EventKind::Fetched { request, head, .. } => self.fetched(request, *head),
            EventKind::HoldOpened {
                hold,
                request,
                direction,
                ranges,
            } => {
                let under_way = self.in_flight.contains_key(request);
                assert!(under_way, "{request}: a hold before the request");
                let opened = (request.clone(), *direction, ranges.clone());
                let before = self.holds.insert(*hold, opened);
                assert!(before.is_none(), "{request}: two holds of one number");
            }
            EventKind::HoldClosed { hold, request, .. } => {
                let opened = self.holds.remove(hold);
                let of = opened.map(|(of, ..)| of);
                assert_eq!(of.as_ref(), Some(request), "a hold that was not open");
            }
            EventKind::Used { request, head, .. } => {
                let fetched = self.in_flight.remove(request);
                assert_eq!(fetched, Some(*head), "{request}: used without need");
                let held = self.holds.values().any(|(of, ..)| of == request);
                assert!(!held, "{request}: used while it is held");
            }
            EventKind::Parked { request, .. }
            | EventKind::Released { request, .. }
            | EventKind::TouchBegan { request }
            | EventKind::TouchEnded { request }
            | EventKind::Executed { request, .. } => {
                let under_way = self.in_flight.contains_key(request);
                assert!(under_way, "{request} is not under way: {:?}", event.kind);
            }
            EventKind::DeviceReset { .. } => {
                assert!(self.holds.is_empty(), "a reset abandons every hold");
                self.in_flight.clear();
            }
            _ => {}
        }
    }

    fn fetched(&mut self, request: &RequestId, head: u16) {
        let queue = (request.device.clone(), request.queue);
        let next = self.fetched.entry(queue).or_default();
        assert_eq!(*next, request.ordinal, "ordinals have no gap");
        *next += 1;
        let twice = self
            .in_flight
            .iter()
            .any(|(other, of)| other.queue == request.queue && *of == head);
        assert!(!twice, "{request}: head {head} is in flight already");
        self.in_flight.insert(request.clone(), head);
    }

    /// Compares what is held by the log with the ledger.
    ///
    /// # Panics
    /// They differ.
    pub fn compare(&self, ledger: &Ledger, frames: u64) {
        let mut counts: BTreeMap<u64, (u32, u32)> = BTreeMap::new();
        for (_, direction, ranges) in self.holds.values() {
            // The ledger counts a hold once for each of its ranges that covers a frame.
            for frame in ranges.iter().flat_map(frames_of) {
                let (to_device, from_device) = counts.entry(frame).or_default();
                match direction {
                    Direction::ToDevice => *to_device += 1,
                    Direction::FromDevice => *from_device += 1,
                }
            }
        }
        for frame in 0..frames {
            let held = ledger.holders(frame);
            let held = held
                .first()
                .map_or((0, 0), |held| (held.to_device, held.from_device));
            let logged = counts.get(&frame).copied().unwrap_or_default();
            assert_eq!(held, logged, "frame {frame}: ledger and log differ");
        }
    }
}

fn frames_of(range: &GuestRange) -> std::ops::Range<u64> {
    let end = range.addr + range.len;
    range.addr / FRAME_SIZE..end.div_ceil(FRAME_SIZE)
}
