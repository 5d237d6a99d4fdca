//! Where vCPUs stand still while the machine is paused.
//!
//! ```text
//!  waiter                                  vCPU threads
//!  ------                                  ------------
//!  begin: wanted
//!  signal each thread, again and again     KVM_RUN returns (EINTR)
//!  until all stand  <--------------------  stand: KVM_KVMCLOCK_CTRL, wait
//!  ...
//!  end: not wanted  -------------------->  KVM_RUN again
//! ```
//!
//! A vCPU stands between two KVM_RUN, never within an access to a device. Looking whether it should costs a running one a
//! load for each exit.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::lock::lock;

/// How often a thread that did not notice is signalled again: a signal that comes between its look and KVM_RUN is lost.
const SIGNAL_AGAIN: Duration = Duration::from_millis(2);

/// Makes the vCPUs of one machine stand still.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    wanted: AtomicBool,
    standing: Mutex<usize>,
    changed: Condvar,
}

impl Pause {
    /// Whether a vCPU has to call [`Self::stand`].
    #[inline]
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    /// From now on vCPUs stand still.
    pub(crate) fn begin(&self) {
        self.wanted.store(true, Ordering::Release);
    }

    /// From now on they run.
    pub(crate) fn end(&self) {
        let _standing = lock(&self.standing);
        self.wanted.store(false, Ordering::Release);
        self.changed.notify_all();
    }

    /// To be called by a vCPU's thread: returns when the pause has ended or `stop` is set. Each time that it is made to look again, it
    /// calls `look`, which must not call the pause.
    pub(crate) fn stand(&self, stop: &AtomicBool, mut look: impl FnMut()) {
        let mut standing = lock(&self.standing);
        *standing += 1;
        self.changed.notify_all();
        while self.is_wanted() && !stop.load(Ordering::Acquire) {
            look();
            standing = self
                .changed
                .wait(standing)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *standing -= 1;
    }

    /// Makes those who stand look at their stop flags, and at what else they were asked.
    pub(crate) fn look_again(&self) {
        let _standing = lock(&self.standing);
        self.changed.notify_all();
    }

    /// Waits until `count` vCPUs stand, calling `signal` again and again; `false` if that took longer than `limit`.
    pub(crate) fn await_standing(
        &self,
        count: impl Fn() -> usize,
        signal: impl Fn(),
        limit: Duration,
    ) -> bool {
        let begin = Instant::now();
        loop {
            signal();
            let standing = lock(&self.standing);
            if *standing >= count() {
                return true;
            }
            if begin.elapsed() > limit {
                return false;
            }
            let waited = self.changed.wait_timeout(standing, SIGNAL_AGAIN);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[test]
    fn those_who_stand_go_on_at_the_end_of_the_pause_or_at_their_own() {
        let pause = Pause::default();
        let stops = [AtomicBool::new(false), AtomicBool::new(false)];
        std::thread::scope(|scope| {
            pause.begin();
            let threads: Vec<_> = stops
                .iter()
                .map(|stop| scope.spawn(|| pause.stand(stop, || ())))
                .collect();
            assert!(pause.await_standing(|| 2, || (), LIMIT), "both stand");
            stops[0].store(true, Ordering::Release);
            pause.look_again();
            let mut threads = threads.into_iter();
            let stopped = threads.next().expect("two");
            stopped.join().unwrap();
            assert!(!threads.as_slice()[0].is_finished());
            pause.end();
        });
        assert!(!pause.is_wanted());
    }

    #[test]
    fn one_that_never_comes_is_given_up() {
        let pause = Pause::default();
        pause.begin();
        assert!(!pause.await_standing(|| 1, || (), Duration::from_millis(5)));
    }
}
