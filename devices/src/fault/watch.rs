//! Requests that wait for another request which shares a frame to reach a point.
//!
//! Only what happens after the parking counts. With nobody waiting, [`Watches::reached`] is one load; else it looks at
//! those only who wait for the same frames, however many wait elsewhere. Lock order: a device, then the watches, then an
//! inbox or the tracer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::trace::event::{FRAME_SIZE, GuestRange, Point, ReleaseCause, RequestId};

use super::action::SameFrame;
use super::inbox::{Inbox, Message, Release, Ticket};

/// Waiters over more frames than this are looked at each time, so that no guest fills the host's memory with places.
const MAX_FRAMES: usize = 1024;

/// All such waiters of a machine.
#[derive(Debug, Default)]
pub struct Watches {
    /// How many wait, readable without the lock.
    armed: AtomicUsize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// By a number that grows, so that the longest waiting is told first.
    watches: BTreeMap<u64, Watch>,
    /// Frames and the numbers of those who wait there.
    places: BTreeSet<(u64, u64)>,
    /// Those who wait for too many frames to be among the places.
    wide: BTreeSet<u64>,
    next: u64,
}

#[derive(Debug)]
struct Watch {
    what: SameFrame,
    frames: Vec<GuestRange>,
    inbox: Arc<Inbox>,
    ticket: Ticket,
}

impl Watches {
    /// Waits for another request. `on_parked` runs before anybody can end the wait.
    pub(crate) fn park(
        &self,
        what: SameFrame,
        ranges: &[GuestRange],
        inbox: &Arc<Inbox>,
        ticket: Ticket,
        on_parked: impl FnOnce(),
    ) {
        let mut waiting = self.lock();
        waiting.insert(Watch {
            what,
            frames: ranges.to_vec(),
            inbox: inbox.clone(),
            ticket,
        });
        self.armed.store(waiting.watches.len(), Ordering::Release);
        on_parked();
    }

    /// A request has reached a point: lets go who waited for that. `ticket` and `inbox` are its own, so that it does
    /// not wake itself.
    #[inline]
    pub(crate) fn reached(
        &self,
        point: Point,
        ranges: &[GuestRange],
        inbox: &Arc<Inbox>,
        ticket: Ticket,
        request: impl Fn() -> RequestId,
    ) {
        if self.armed.load(Ordering::Acquire) != 0 {
            self.tell(point, ranges, inbox, ticket, request);
        }
    }

    #[cold]
    fn tell(
        &self,
        point: Point,
        ranges: &[GuestRange],
        inbox: &Arc<Inbox>,
        ticket: Ticket,
        request: impl Fn() -> RequestId,
    ) {
        let request = request();
        let mut waiting = self.lock();
        for number in waiting.near(ranges) {
            let watch = &waiting.watches[&number];
            let itself = watch.ticket == ticket && Arc::ptr_eq(&watch.inbox, inbox);
            let device = watch.what.device.as_deref();
            let meant =
                watch.what.point == point && device.is_none_or(|device| device == request.device);
            if itself || !meant || !share_frame(&watch.frames, ranges) {
                continue;
            }
            let cause = ReleaseCause::SameFrame(request.clone());
            watch.inbox.push(Message::Release(Release {
                ticket: watch.ticket,
                cause,
            }));
            waiting.remove(number);
        }
        self.armed.store(waiting.watches.len(), Ordering::Release);
    }

    /// Forgets everybody who would be told through this inbox.
    pub(crate) fn forget(&self, inbox: &Arc<Inbox>) {
        let mut waiting = self.lock();
        let theirs = waiting.watches.iter();
        let theirs = theirs.filter(|(_, watch)| Arc::ptr_eq(&watch.inbox, inbox));
        for number in theirs.map(|(number, _)| *number).collect::<Vec<_>>() {
            waiting.remove(number);
        }
        self.armed.store(waiting.watches.len(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn insert(&mut self, watch: Watch) {
        let number = self.next;
        self.next += 1;
        if is_wide(&watch.frames) {
            self.wide.insert(number);
        } else {
            let places = frames(&watch.frames).map(|frame| (frame, number));
            self.places.extend(places);
        }
        self.watches.insert(number, watch);
    }

    fn remove(&mut self, number: u64) {
        let Some(watch) = self.watches.remove(&number) else {
            return;
        };
        if !self.wide.remove(&number) {
            for frame in frames(&watch.frames) {
                self.places.remove(&(frame, number));
            }
        }
    }

    /// Who may wait for one of these ranges, in the order of parking.
    fn near(&self, ranges: &[GuestRange]) -> BTreeSet<u64> {
        if is_wide(ranges) {
            return self.watches.keys().copied().collect();
        }
        let waits = |frame| self.places.range((frame, 0)..=(frame, u64::MAX));
        let near = frames(ranges).flat_map(waits).map(|(_, number)| *number);
        near.chain(self.wide.iter().copied()).collect()
    }
}

fn is_wide(ranges: &[GuestRange]) -> bool {
    frames(ranges).nth(MAX_FRAMES).is_some()
}

fn frames(ranges: &[GuestRange]) -> impl Iterator<Item = u64> + '_ {
    ranges.iter().flat_map(|range| range.frames())
}

fn share_frame(left: &[GuestRange], right: &[GuestRange]) -> bool {
    let span = |range: &GuestRange| {
        let last = range.addr.saturating_add(range.len - 1);
        (range.addr / FRAME_SIZE, last / FRAME_SIZE)
    };
    let full = |range: &&GuestRange| range.len > 0;
    left.iter().filter(full).map(span).any(|(first, last)| {
        let mut others = right.iter().filter(full).map(span);
        others.any(|(from, to)| from <= last && first <= to)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(device: &str) -> RequestId {
        RequestId {
            device: device.into(),
            queue: 0,
            ordinal: 7,
        }
    }

    fn at(addr: u64) -> [GuestRange; 1] {
        [GuestRange { addr, len: 512 }]
    }

    #[test]
    fn only_the_awaited_request_ends_the_wait() {
        let watches = Watches::default();
        let mine = Arc::new(Inbox::new().unwrap());
        let other = Arc::new(Inbox::new().unwrap());
        let what = SameFrame {
            point: Point::Executed,
            device: Some("b".into()),
        };
        watches.park(what, &at(0x1000), &mine, Ticket(1), || ());
        let mut messages = Vec::new();
        let mut told = |point, addr, device: &str, inbox: &Arc<Inbox>, ticket| {
            watches.reached(point, &at(addr), inbox, Ticket(ticket), || request(device));
            mine.take(&mut messages);
            messages.len()
        };

        assert_eq!(
            told(Point::Fetched, 0x1e00, "b", &other, 5),
            0,
            "another point"
        );
        assert_eq!(
            told(Point::Executed, 0x2000, "b", &other, 5),
            0,
            "another frame"
        );
        assert_eq!(
            told(Point::Executed, 0x1e00, "c", &other, 5),
            0,
            "another device"
        );
        assert_eq!(told(Point::Executed, 0x1e00, "b", &mine, 1), 0, "itself");
        assert_eq!(told(Point::Executed, 0x1e00, "b", &other, 5), 1);
        assert_eq!(
            told(Point::Executed, 0x1e00, "b", &other, 6),
            1,
            "it is over"
        );
    }

    #[test]
    fn the_longest_waiting_is_told_first_however_many_frames_it_waits_for() {
        let watches = Watches::default();
        let inbox = Arc::new(Inbox::new().unwrap());
        let what = || SameFrame {
            point: Point::Fetched,
            device: None,
        };
        let wide = [GuestRange {
            addr: 0,
            len: (MAX_FRAMES as u64 + 1) * FRAME_SIZE,
        }];
        watches.park(what(), &at(0x1000), &inbox, Ticket(1), || ());
        watches.park(what(), &wide, &inbox, Ticket(2), || ());
        watches.park(what(), &at(0x1200), &inbox, Ticket(3), || ());
        watches.park(what(), &at(0x2000), &inbox, Ticket(4), || ());
        watches.reached(Point::Fetched, &at(0x1e00), &inbox, Ticket(9), || {
            request("b")
        });
        let mut messages = Vec::new();
        inbox.take(&mut messages);
        let tickets = messages.iter().map(|message| match message {
            Message::Release(release) => release.ticket.0,
            Message::Stop => 0,
        });
        assert_eq!(tickets.collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(watches.lock().places.len(), 1, "one still waits");
        watches.forget(&inbox);
        assert!(watches.lock().places.is_empty() && watches.lock().wide.is_empty());
    }

    #[test]
    fn nobody_is_asked_for_a_name_while_nobody_waits() {
        let watches = Watches::default();
        let inbox = Arc::new(Inbox::new().unwrap());
        watches.reached(Point::Fetched, &at(0), &inbox, Ticket(1), || {
            unreachable!("nobody waits")
        });
    }
}
