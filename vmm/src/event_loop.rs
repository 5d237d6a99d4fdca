//! The device thread: waits for kicks, for devices that want to go on, and for the terminal.
//!
//! Promises: one thread for all devices, however many requests they hold; a kick reaches its device exactly once per
//! write to its eventfd, or coalesced with others of the same queue. The thread ends when the loop is dropped.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use pincushion_devices::device::SharedQueue;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::lock::lock;

/// What a readable descriptor means.
pub(crate) enum Source {
    /// The driver kicked this queue.
    Kick {
        /// Which.
        queue: SharedQueue,
        /// Counts the kicks.
        event: Arc<EventFd>,
    },
    /// The queue wants to go on.
    Wake {
        /// Which.
        queue: SharedQueue,
    },
    /// Something else of the machine, until it says that it has ended.
    Other {
        /// The descriptor, open for as long as the loop runs.
        fd: RawFd,
        /// Called when `fd` is readable.
        call: Box<dyn FnMut() -> Interest + Send>,
    },
}

/// Whether a source is still of interest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Wait for it again.
    Keep,
    /// Never again.
    Drop,
}

/// A running device thread.
pub(crate) struct EventLoop {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

const STOP_TOKEN: u64 = u64::MAX;

impl EventLoop {
    /// Starts a thread that serves `sources`. A panic in a device calls `on_panic` there and ends the thread.
    pub(crate) fn spawn(
        sources: Vec<Source>,
        on_panic: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let stop = Arc::new(EventFd::new(EFD_NONBLOCK)?);
        watch(&epoll, stop.as_raw_fd(), STOP_TOKEN)?;
        for (token, source) in (0..).zip(&sources) {
            match watch(&epoll, descriptor(source), token) {
                // A plain file or /dev/null on standard input cannot be waited for: nobody types there.
                Err(error)
                    if error.kind() == io::ErrorKind::PermissionDenied
                        && matches!(source, Source::Other { .. }) => {}
                result => result?,
            }
        }
        let keep_open = stop.clone();
        let thread = std::thread::Builder::new()
            .name("devices".into())
            .spawn(move || {
                let _stop = keep_open;
                if catch_unwind(AssertUnwindSafe(|| run(&epoll, sources))).is_err() {
                    on_panic();
                }
            })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        if let Err(error) = self.stop.write(1) {
            log::error!("devices: cannot stop their thread: {error}");
            return;
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("devices: their thread panicked");
        }
    }
}

fn descriptor(source: &Source) -> RawFd {
    match source {
        Source::Kick { event, .. } => event.as_raw_fd(),
        Source::Wake { queue } => lock(queue).wake_fd(),
        Source::Other { fd, .. } => *fd,
    }
}

fn watch(epoll: &Epoll, fd: RawFd, token: u64) -> io::Result<()> {
    epoll.ctl(
        ControlOperation::Add,
        fd,
        EpollEvent::new(EventSet::IN, token),
    )
}

fn run(epoll: &Epoll, mut sources: Vec<Source>) {
    let mut ready = [EpollEvent::default(); 32];
    loop {
        let count = match epoll.wait(-1, &mut ready) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                log::error!("devices: cannot wait for events: {error}");
                return;
            }
        };
        for event in &ready[..count] {
            if event.data() == STOP_TOKEN {
                return;
            }
            let source = usize::try_from(event.data())
                .ok()
                .and_then(|token| sources.get_mut(token));
            serve(epoll, source.expect("tokens are indices of sources"));
        }
    }
}

fn serve(epoll: &Epoll, source: &mut Source) {
    match source {
        Source::Kick { queue, event } => {
            // Cleared before the queue looks at the ring: a kick that comes later is a new event.
            if event.read().is_ok() {
                lock(queue).on_kick();
            }
        }
        Source::Wake { queue } => lock(queue).on_wake(),
        Source::Other { fd, call } => {
            if call() == Interest::Drop
                && let Err(error) = epoll.ctl(ControlOperation::Delete, *fd, EpollEvent::default())
            {
                log::error!("devices: cannot forget a source: {error}");
            }
        }
    }
}
