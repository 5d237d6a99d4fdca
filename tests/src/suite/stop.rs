//! The user's wish to stop: no further run begins, and those under way end now.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::Signal;

/// Shared by a suite and whoever may stop it: clones are the same wish.
#[derive(Clone, Default)]
pub struct Stop(Arc<Mutex<State>>);

/// Sends a signal to what is under way.
type Sender = Box<dyn Fn(Signal) + Send>;

#[derive(Default)]
struct State {
    /// What the user sent.
    wish: Option<i32>,
    under_way: BTreeMap<u64, Sender>,
    last: u64,
}

impl Stop {
    /// Wishes it, because of this signal; what is under way gets SIGTERM. A second wish changes nothing.
    pub fn wish(&self, signal: i32) {
        let mut state = self.state();
        if state.wish.is_none() {
            state.wish = Some(signal);
            state.under_way.values().for_each(|send| send(Signal::TERM));
        }
    }

    /// The number of the signal that the user sent, if so.
    #[must_use]
    pub fn wished(&self) -> Option<i32> {
        self.state().wish
    }

    /// While the guard lives, `send` is called when the wish comes; at once if it has come already.
    pub(super) fn while_under_way(&self, send: impl Fn(Signal) + Send + 'static) -> UnderWay {
        let mut state = self.state();
        if state.wish.is_some() {
            send(Signal::TERM);
        }
        state.last += 1;
        let id = state.last;
        state.under_way.insert(id, Box::new(send));
        UnderWay {
            stop: self.clone(),
            id,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something that a wish ends.
#[must_use = "dropped, it hears of no wish"]
pub(super) struct UnderWay {
    stop: Stop,
    id: u64,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.stop.state().under_way.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn what_is_under_way_hears_of_the_first_wish_once_and_what_comes_later_at_once() {
        let heard = Arc::<AtomicU32>::default();
        let count = || {
            let heard = Arc::clone(&heard);
            move |_| {
                heard.fetch_add(1, Ordering::Relaxed);
            }
        };
        let stop = Stop::default();
        let _running = stop.while_under_way(count());
        drop(stop.while_under_way(count()));
        assert_eq!((heard.load(Ordering::Relaxed), stop.wished()), (0, None));
        stop.wish(2);
        stop.wish(15);
        assert_eq!((heard.load(Ordering::Relaxed), stop.wished()), (1, Some(2)));
        let _late = stop.while_under_way(count());
        assert_eq!(heard.load(Ordering::Relaxed), 2);
    }
}
