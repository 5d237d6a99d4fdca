//! Watches a machine by its event log: what is in flight, what was counted, and the latest events.
//!
//! An [`Observer`] is a sink of the tracer, so a machine without a control socket pays nothing for it. It is called under
//! the tracer's lock; its own lock is held for a few map operations there, and by clients for a bounded number of entries.
//! So no client can make a device wait, however slow it is or however much it asks for.

mod counters;
mod histogram;
mod live;
mod log;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use pincushion_devices::trace::{Event, Sink};
use tokio::sync::Notify;

use self::live::Live;
use self::log::EventLog;
use crate::lock::lock;

pub use counters::{DeviceCounters, Devices, QueueCounters};
pub use histogram::{BOUNDS, Histogram, bound_ns};
pub use live::{InFlight, OpenHold, Wait};
pub use log::Batch;

/// Most requests that are looked at for one page of holds.
const LOOKS: usize = 5_000;
/// After the first event that somebody waited for, so much time is given to the next ones to come along: a client is woken
/// a few hundred times a second at most.
const GATHER: Duration = Duration::from_millis(4);

/// Watches one machine. Clones watch the same.
#[derive(Debug, Clone, Default)]
pub struct Observer {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    arrived: Notify,
    waiters: AtomicUsize,
    ended: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    live: Live,
    log: EventLog,
    /// A moment on both clocks: the host's and the log's.
    moment: Option<(Instant, u64)>,
}

/// Open holds, the oldest first.
#[derive(Debug, Clone, Default)]
pub struct HoldsPage {
    /// The requests that hold.
    pub holds: Vec<InFlight>,
    /// Where to go on, if there may be more.
    pub next: Option<u64>,
    /// Now, on the log's clock.
    pub now_ns: u64,
}

/// Everything that was counted.
#[derive(Debug, Clone, Default)]
pub struct Counted {
    /// By device.
    pub devices: Devices,
    /// Number of the latest event.
    pub events: u64,
    /// Events that the buffer for clients has no more.
    pub evicted: u64,
}

impl Observer {
    /// Sees nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a device known before its first event, so that it is listed with zeros.
    pub fn expect_device(&self, name: &str, queues: u16) {
        let mut state = self.lock();
        counters::device(&mut state.live.devices, name);
        for index in 0..queues {
            counters::queue(&mut state.live.devices, name, index);
        }
    }

    /// Open holds after the place `after` (0 for the first), at most `limit`, of one device if it is named.
    #[must_use]
    pub fn holds(&self, device: Option<&str>, after: u64, limit: usize) -> HoldsPage {
        let state = self.lock();
        let (holds, next) = state.live.holds(device, after, limit, LOOKS);
        HoldsPage {
            holds,
            next,
            now_ns: state.now_ns(),
        }
    }

    /// All counters.
    #[must_use]
    pub fn counted(&self) -> Counted {
        let state = self.lock();
        Counted {
            devices: state.live.devices.clone(),
            events: state.log.newest(),
            evicted: state.log.evicted(),
        }
    }

    /// Gates that were opened.
    #[must_use]
    pub fn open_gates(&self) -> Vec<String> {
        self.lock().live.open_gates.iter().cloned().collect()
    }

    /// At most `limit` of the events with numbers above `after`.
    #[must_use]
    pub fn events(&self, after: u64, limit: usize) -> Batch {
        self.lock().log.after(after, limit)
    }

    /// The same, but waits for `patience` where there is none yet, unless the machine has ended.
    pub async fn next_events(&self, after: u64, limit: usize, patience: Duration) -> Batch {
        let deadline = tokio::time::Instant::now() + patience;
        let _waiter = Waiter::new(&self.shared.waiters);
        let mut has_waited = false;
        loop {
            // Registered before the look, so that what comes in between is not missed.
            let mut arrived = std::pin::pin!(self.shared.arrived.notified());
            arrived.as_mut().enable();
            if self.lock().log.newest() > after {
                if has_waited {
                    tokio::time::sleep(GATHER).await;
                }
                return self.events(after, limit);
            }
            if self.has_ended() || tokio::time::timeout_at(deadline, arrived).await.is_err() {
                return self.events(after, limit);
            }
            has_waited = true;
        }
    }

    /// No event will come any more: nobody waits from now on.
    pub fn end(&self) {
        self.shared.ended.store(true, Ordering::Release);
        self.shared.arrived.notify_waiters();
    }

    /// Whether [`Self::end`] was called.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.shared.ended.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.shared.state)
    }
}

impl Sink for Observer {
    fn record(&mut self, event: &Arc<Event>) -> io::Result<()> {
        let mut state = self.lock();
        let moment = || (Instant::now(), event.time_ns);
        state.moment.get_or_insert_with(moment);
        state.live.apply(event);
        state.log.push(event.clone());
        drop(state);
        if self.shared.waiters.load(Ordering::Acquire) > 0 {
            self.shared.arrived.notify_waiters();
        }
        Ok(())
    }
}

impl State {
    fn now_ns(&self) -> u64 {
        self.moment.map_or(0, |(instant, log_ns)| {
            let since = u64::try_from(instant.elapsed().as_nanos()).unwrap_or(u64::MAX);
            log_ns.saturating_add(since)
        })
    }
}

/// Counts somebody who waits, for as long as they do.
struct Waiter<'a>(&'a AtomicUsize);

impl<'a> Waiter<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
