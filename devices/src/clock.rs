//! The host's clock, and alarms on it, behind a trait so that tests set the time.
//!
//! Time never decides what happens, only when: gates come first, and durations exist for soak runs.

use std::fmt::Debug;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use vmm_sys_util::timerfd::TimerFd;

/// A monotonic clock.
pub trait Clock: Debug + Send + Sync {
    /// Nanoseconds since some fixed moment.
    fn now_ns(&self) -> u64;
    /// A new alarm, unset.
    ///
    /// # Errors
    /// The host has no descriptor left.
    fn alarm(&self) -> io::Result<Box<dyn Alarm>>;
}

/// A descriptor that becomes readable at a set time.
pub trait Alarm: Debug + Send {
    /// Readable when the time has come.
    fn fd(&self) -> RawFd;
    /// Sets the time on the clock's scale, or unsets it; either way the descriptor is not readable until then.
    ///
    /// # Errors
    /// What the host said; the alarm is as before.
    fn set(&mut self, at_ns: Option<u64>) -> io::Result<()>;
}

/// The host's monotonic clock.
#[derive(Debug)]
pub struct HostClock {
    start: Instant,
}

impl HostClock {
    /// Its zero is now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Default for HostClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for HostClock {
    fn now_ns(&self) -> u64 {
        nanoseconds(self.start.elapsed())
    }

    fn alarm(&self) -> io::Result<Box<dyn Alarm>> {
        Ok(Box::new(HostAlarm {
            start: self.start,
            timer: TimerFd::new()?,
        }))
    }
}

#[derive(Debug)]
struct HostAlarm {
    start: Instant,
    timer: TimerFd,
}

impl Alarm for HostAlarm {
    fn fd(&self) -> RawFd {
        self.timer.as_raw_fd()
    }

    fn set(&mut self, at_ns: Option<u64>) -> io::Result<()> {
        // Setting a timer of either kind also clears what it counted, so the descriptor needs no read.
        match at_ns {
            None => self.timer.clear()?,
            Some(at_ns) => {
                let now_ns = nanoseconds(self.start.elapsed());
                // A duration of zero would unset it.
                let left = Duration::from_nanos(at_ns.saturating_sub(now_ns).max(1));
                self.timer.reset(left, None)?;
            }
        }
        Ok(())
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(any(test, feature = "test-utils"))]
pub use fake::FakeClock;

#[cfg(any(test, feature = "test-utils"))]
mod fake {
    use std::sync::{Arc, Mutex, PoisonError};

    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    use super::{Alarm, AsRawFd, Clock, RawFd, io};

    /// A clock that stands still until a test moves it.
    #[derive(Debug, Clone, Default)]
    pub struct FakeClock {
        state: Arc<Mutex<FakeState>>,
    }

    #[derive(Debug, Default)]
    struct FakeState {
        now_ns: u64,
        alarms: Vec<(EventFd, Option<u64>)>,
    }

    impl FakeState {
        fn ring(&self) {
            let due = |at_ns: &Option<u64>| at_ns.is_some_and(|at_ns| at_ns <= self.now_ns);
            for (event, _) in self.alarms.iter().filter(|(_, at_ns)| due(at_ns)) {
                event.write(1).expect("an eventfd counts to 2^64");
            }
        }
    }

    impl FakeClock {
        /// Moves time on; alarms that are due become readable.
        pub fn advance_ns(&self, ns: u64) {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.now_ns += ns;
            state.ring();
        }
    }

    impl Clock for FakeClock {
        fn now_ns(&self) -> u64 {
            self.state
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .now_ns
        }

        fn alarm(&self) -> io::Result<Box<dyn Alarm>> {
            let event = EventFd::new(EFD_NONBLOCK)?;
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.alarms.push((event.try_clone()?, None));
            Ok(Box::new(FakeAlarm {
                clock: self.clone(),
                index: state.alarms.len() - 1,
                event,
            }))
        }
    }

    #[derive(Debug)]
    struct FakeAlarm {
        clock: FakeClock,
        index: usize,
        event: EventFd,
    }

    impl Alarm for FakeAlarm {
        fn fd(&self) -> RawFd {
            self.event.as_raw_fd()
        }

        fn set(&mut self, at_ns: Option<u64>) -> io::Result<()> {
            // Empty already: nothing to clear.
            let _ = self.event.read();
            let mut state = self
                .clock
                .state
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            state.alarms[self.index].1 = at_ns;
            state.ring();
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

    use super::*;

    fn readable(fd: RawFd, limit_ms: i32) -> bool {
        let epoll = Epoll::new().unwrap();
        let event = EpollEvent::new(EventSet::IN, 0);
        epoll.ctl(ControlOperation::Add, fd, event).unwrap();
        epoll.wait(limit_ms, &mut [event]).unwrap() == 1
    }

    #[test]
    fn a_host_alarm_rings_and_falls_silent_when_it_is_unset() {
        let clock = HostClock::new();
        let mut alarm = clock.alarm().unwrap();
        assert!(!readable(alarm.fd(), 0));
        alarm.set(Some(clock.now_ns())).unwrap();
        assert!(readable(alarm.fd(), 10_000));
        alarm.set(None).unwrap();
        assert!(!readable(alarm.fd(), 0));
    }

    #[test]
    fn a_fake_alarm_rings_when_a_test_says_so() {
        let clock = FakeClock::default();
        let mut alarm = clock.alarm().unwrap();
        alarm.set(Some(10)).unwrap();
        clock.advance_ns(9);
        assert!(!readable(alarm.fd(), 0));
        clock.advance_ns(1);
        assert!(readable(alarm.fd(), 0));
    }
}
