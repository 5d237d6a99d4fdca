//! How fast frames come to the guest: at most so many in a second on each queue pair, or as they come.
//!
//! It belongs to the wire, not to the card: a frame that is not due yet is not there yet, and the card sees a port that is not readable.
//! So neither the device nor the queue handler knows of it, and what a plan decides about a buffer does not depend on it. Frames
//! that are early wait in the port (a tap's queue drops what it has no room for, as ever).

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::header::Header;
use super::port::Receiver;
use crate::clock::Alarm;
use crate::context::Context;

/// The greatest rate, in frames per second: a frame each microsecond.
pub const MAX_RATE: u64 = 1_000_000;

/// The rate of one card. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Pace {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Frames per second; 0: as they come.
    rate: AtomicU64,
    /// One for each queue pair: makes it look at the rate again.
    pokes: Mutex<Vec<EventFd>>,
}

impl Pace {
    pub(super) fn new(rate: u64) -> Self {
        let pace = Self::default();
        pace.shared.rate.store(rate, Ordering::Release);
        pace
    }

    pub(super) fn rate(&self) -> u64 {
        self.shared.rate.load(Ordering::Acquire)
    }

    /// Takes effect on the next frame; one that waits for its time is due by the new rate.
    pub(super) fn set(&self, rate: u64) -> io::Result<()> {
        self.shared.rate.store(rate, Ordering::Release);
        let pokes = self.shared.pokes.lock();
        let pokes = pokes.unwrap_or_else(PoisonError::into_inner);
        pokes.iter().try_for_each(|poke| poke.write(1))
    }

    /// The receiving end of one queue pair, at this pace.
    pub(super) fn paced(&self, inner: Box<dyn Receiver>, context: &Context) -> io::Result<Paced> {
        let (epoll, poke) = (Epoll::new()?, EventFd::new(EFD_NONBLOCK)?);
        let alarm = context.clock().alarm()?;
        for fd in [poke.as_raw_fd(), inner.fd()] {
            epoll.ctl(ControlOperation::Add, fd, readable())?;
        }
        let pokes = self.shared.pokes.lock();
        let mut pokes = pokes.unwrap_or_else(PoisonError::into_inner);
        pokes.push(poke.try_clone()?);
        Ok(Paced {
            pace: self.clone(),
            context: context.clone(),
            inner,
            epoll,
            poke,
            alarm,
            last: None,
            is_early: false,
        })
    }
}

/// A receiver whose frames come no faster than the rate.
pub(super) struct Paced {
    pace: Pace,
    context: Context,
    inner: Box<dyn Receiver>,
    epoll: Epoll,
    poke: EventFd,
    alarm: Box<dyn Alarm>,
    /// When the last frame was taken at a rate, in nanoseconds.
    last: Option<u64>,
    /// The alarm is watched in place of the port.
    is_early: bool,
}

impl Paced {
    /// When the next frame is due, if that is not yet.
    fn due(&self) -> Option<u64> {
        let period_ns = 1_000_000_000_u64.checked_div(self.pace.rate())?;
        let due = self.last?.saturating_add(period_ns);
        (self.context.clock().now_ns() < due).then_some(due)
    }

    /// Watches the alarm or the port.
    fn watch(&mut self, is_early: bool) -> io::Result<()> {
        if self.is_early != is_early {
            let (alarm, port) = (self.alarm.fd(), self.inner.fd());
            let (from, to) = if is_early {
                (port, alarm)
            } else {
                (alarm, port)
            };
            self.epoll.ctl(ControlOperation::Delete, from, readable())?;
            self.epoll.ctl(ControlOperation::Add, to, readable())?;
            self.is_early = is_early;
        }
        Ok(())
    }
}

fn readable() -> EpollEvent {
    EpollEvent::new(EventSet::IN, 0)
}

impl Receiver for Paced {
    fn fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> io::Result<Option<Header>> {
        if self.is_early || self.pace.rate() > 0 {
            // Before the rate is looked at: a change that comes after it pokes again. Mostly there is nothing to read.
            let _ = self.poke.read();
        }
        if let Some(due) = self.due() {
            self.alarm.set(Some(due))?;
            self.watch(true)?;
            return Ok(None);
        }
        self.watch(false)?;
        let taken = self.inner.receive(frame)?;
        match taken {
            Some(_) if self.pace.rate() > 0 => self.last = Some(self.context.clock().now_ns()),
            Some(_) => {}
            // No frame waits, so there is nothing that a new rate could mean now.
            None => drop(self.poke.read()),
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FakeClock;
    use crate::fault::Plan;
    use crate::net::pattern::Pattern;
    use crate::net::port::Port as _;
    use crate::trace::Tracer;

    const MS: u64 = 1_000_000;

    struct Lane {
        clock: FakeClock,
        pace: Pace,
        port: Paced,
    }

    fn lane(rate: u64) -> Lane {
        let clock = FakeClock::default();
        let tracer = Arc::new(Tracer::new());
        let context =
            Context::with_clock(Plan::default(), tracer, Arc::new(clock.clone())).unwrap();
        let mut pattern = Pattern {
            seed: 7,
            frames: 9,
            longest: 100,
        };
        let (_, receiver) = pattern.pair(0).unwrap();
        let pace = Pace::new(rate);
        let port = pace.paced(receiver, &context).unwrap();
        Lane { clock, pace, port }
    }

    impl Lane {
        /// Frames until there is none, as a card asks.
        fn take(&mut self) -> usize {
            let mut frame = Vec::new();
            std::iter::from_fn(|| self.port.receive(&mut frame).unwrap()).count()
        }

        fn is_readable(&self) -> bool {
            let epoll = Epoll::new().unwrap();
            let fd = self.port.fd();
            epoll.ctl(ControlOperation::Add, fd, readable()).unwrap();
            epoll.wait(0, &mut [readable()]).unwrap() == 1
        }
    }

    #[test]
    fn without_a_rate_all_come_at_once_and_then_the_port_is_silent() {
        let mut lane = lane(0);
        assert!(lane.is_readable());
        assert_eq!(lane.take(), 9);
        assert!(!lane.is_readable());
    }

    #[test]
    fn with_a_rate_each_comes_at_its_time_and_no_burst_makes_up_for_a_pause() {
        let mut lane = lane(100);
        assert_eq!((lane.take(), lane.is_readable()), (1, false));
        lane.clock.advance_ns(10 * MS - 1);
        assert_eq!((lane.is_readable(), lane.take()), (false, 0));
        lane.clock.advance_ns(1);
        assert_eq!((lane.is_readable(), lane.take()), (true, 1));
        lane.clock.advance_ns(1000 * MS);
        assert_eq!((lane.take(), lane.is_readable()), (1, false));
    }

    #[test]
    fn a_new_rate_is_for_the_frame_that_waits_too() {
        let mut lane = lane(1);
        assert_eq!((lane.take(), lane.is_readable()), (1, false));
        lane.clock.advance_ns(10 * MS);
        lane.pace.set(100).unwrap();
        assert!(lane.is_readable(), "the card has to look again");
        assert_eq!((lane.take(), lane.is_readable()), (1, false));
        lane.pace.set(0).unwrap();
        assert!(lane.is_readable());
        assert_eq!((lane.take(), lane.is_readable()), (7, false));
        lane.pace.set(5).unwrap();
        assert_eq!((lane.is_readable(), lane.take()), (true, 0));
        assert!(!lane.is_readable(), "a poke is read");
    }
}
