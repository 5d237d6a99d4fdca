//! A device thread: waits for kicks, for devices that want to go on, and for the terminal.
//!
//! Promises: no thread per request, however many are held; a kick reaches its queue exactly once per
//! write to its eventfd, or coalesced with others of the same queue. The thread ends when the loop is dropped. While it is
//! paused, kicks and wakes wait in their descriptors and nothing of them is lost; the terminal is served all the same.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

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
    called: Arc<EventFd>,
    calls: Sender<Call>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread is asked to do.
enum Call {
    Stop,
    Pause(Sender<io::Result<()>>),
    Resume(Sender<io::Result<()>>),
}

const CALL_TOKEN: u64 = u64::MAX;
/// A device call that takes longer than this does not return.
const CALL_LIMIT: Duration = Duration::from_secs(30);

impl EventLoop {
    /// Starts a thread that serves `sources`. A panic in a device calls `on_panic` there and ends the thread.
    pub(crate) fn spawn(
        sources: Vec<Source>,
        on_panic: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let called = Arc::new(EventFd::new(EFD_NONBLOCK)?);
        watch(&epoll, called.as_raw_fd(), CALL_TOKEN)?;
        for (token, source) in (0..).zip(&sources) {
            match watch(&epoll, descriptor(source), token) {
                // A plain file or /dev/null on standard input cannot be waited for: nobody types there.
                Err(error)
                    if error.kind() == io::ErrorKind::PermissionDenied
                        && matches!(source, Source::Other { .. }) => {}
                result => result?,
            }
        }
        let (calls, to_answer) = channel();
        let called_there = called.clone();
        let thread = std::thread::Builder::new()
            .name("devices".into())
            .spawn(move || {
                let mut served = Served {
                    epoll,
                    sources,
                    called: called_there,
                    calls: to_answer,
                    is_paused: false,
                };
                if catch_unwind(AssertUnwindSafe(|| served.run())).is_err() {
                    on_panic();
                }
            })?;
        Ok(Self {
            called,
            calls,
            thread: Some(thread),
        })
    }

    /// Ends the turn under way and serves no queue from now on. When it returns, the devices rest, but for host operations
    /// that were under way.
    ///
    /// # Errors
    /// The host's, or that the thread does not answer.
    pub(crate) fn pause(&self) -> io::Result<()> {
        self.call(Call::Pause)
    }

    /// Serves the queues again.
    ///
    /// # Errors
    /// The host's, or that the thread does not answer.
    pub(crate) fn resume(&self) -> io::Result<()> {
        self.call(Call::Resume)
    }

    fn call(&self, call: impl FnOnce(Sender<io::Result<()>>) -> Call) -> io::Result<()> {
        let (reply, outcome) = channel();
        // Without a receiver the reply is dropped, and the wait below ends at once.
        let _ = self.calls.send(call(reply));
        self.called.write(1)?;
        let outcome = outcome.recv_timeout(CALL_LIMIT);
        outcome.unwrap_or_else(|_| Err(io::Error::other("a device call does not return")))
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        // Without a receiver the thread has ended already.
        let _ = self.calls.send(Call::Stop);
        if let Err(error) = self.called.write(1) {
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

/// What the thread works on.
struct Served {
    epoll: Epoll,
    sources: Vec<Source>,
    called: Arc<EventFd>,
    calls: Receiver<Call>,
    is_paused: bool,
}

impl Served {
    fn run(&mut self) {
        let mut ready = [EpollEvent::default(); 32];
        loop {
            let count = match self.epoll.wait(-1, &mut ready) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    log::error!("devices: cannot wait for events: {error}");
                    return;
                }
            };
            for event in &ready[..count] {
                if event.data() == CALL_TOKEN {
                    if self.answer_calls() == Interest::Drop {
                        return;
                    }
                    // What else was ready may not be served any more; if it may, it is still ready.
                    break;
                }
                let source = usize::try_from(event.data())
                    .ok()
                    .and_then(|token| self.sources.get_mut(token));
                serve(&self.epoll, source.expect("tokens are indices of sources"));
            }
        }
    }

    /// Does what was asked; `Drop` to end.
    fn answer_calls(&mut self) -> Interest {
        // EAGAIN means that another call has cleared it.
        let _ = self.called.read();
        while let Ok(call) = self.calls.try_recv() {
            let (pause, reply) = match call {
                Call::Stop => return Interest::Drop,
                Call::Pause(reply) => (true, reply),
                Call::Resume(reply) => (false, reply),
            };
            // A closed channel means that the one who asked has given up.
            let _ = reply.send(self.set_paused(pause));
        }
        Interest::Keep
    }

    /// Descriptors that are not watched keep what is in them, so nothing is lost.
    fn set_paused(&mut self, pause: bool) -> io::Result<()> {
        if self.is_paused == pause {
            return Ok(());
        }
        for (token, source) in (0..).zip(&self.sources) {
            let fd = descriptor(source);
            match source {
                Source::Other { .. } => {}
                Source::Kick { .. } | Source::Wake { .. } if pause => {
                    let event = EpollEvent::default();
                    self.epoll.ctl(ControlOperation::Delete, fd, event)?;
                }
                Source::Kick { .. } | Source::Wake { .. } => watch(&self.epoll, fd, token)?,
            }
        }
        self.is_paused = pause;
        Ok(())
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use pincushion_devices::device::QueueService;

    use super::*;

    /// Says when it is kicked.
    struct Bell {
        kicked: Sender<()>,
        wake: EventFd,
    }

    impl QueueService for Bell {
        fn on_kick(&mut self) {
            let _ = self.kicked.send(());
        }
        fn wake_fd(&self) -> RawFd {
            self.wake.as_raw_fd()
        }
        fn on_wake(&mut self) {}
    }

    #[test]
    fn a_kick_that_comes_in_a_pause_is_served_after_it() {
        const LIMIT: Duration = Duration::from_secs(30);
        let (kicked, heard) = channel();
        let wake = EventFd::new(EFD_NONBLOCK).unwrap();
        let event = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
        let queue = Arc::new(Mutex::new(Bell { kicked, wake }));
        let sources = vec![
            Source::Kick {
                queue: queue.clone(),
                event: event.clone(),
            },
            Source::Wake { queue },
        ];
        let event_loop = EventLoop::spawn(sources, || unreachable!("nothing panics")).unwrap();
        event.write(1).unwrap();
        assert!(heard.recv_timeout(LIMIT).is_ok());
        for _ in 0..3 {
            event_loop.pause().unwrap();
            event_loop.pause().unwrap();
            event.write(1).unwrap();
            // A pause that is asked for again is answered by the thread after whatever it would have served.
            event_loop.pause().unwrap();
            assert!(heard.try_recv().is_err(), "it is paused");
            event_loop.resume().unwrap();
            assert!(heard.recv_timeout(LIMIT).is_ok());
        }
    }
}
