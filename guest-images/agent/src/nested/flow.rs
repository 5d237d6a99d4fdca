//! What the host tells a running channel: more credit, a signal, or that it is gone.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pincushion_abi::nested::WINDOW;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;

/// Shared by the reader of the port, who tells, and the channel's thread, who waits on [`Flow::wake`].
/// One lock, held for a moment; nothing else is taken under it.
pub(super) struct Flow {
    state: Mutex<State>,
    event: OwnedFd,
}

struct State {
    credit: u64,
    signals: Vec<i32>,
    host_is_gone: bool,
}

/// The host closed the stream.
#[derive(Debug, thiserror::Error)]
#[error("the host is gone")]
pub(super) struct HostIsGone;

impl Flow {
    pub(super) fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self {
            state: Mutex::new(State {
                credit: u64::from(WINDOW),
                signals: Vec::new(),
                host_is_gone: false,
            }),
            event: eventfd(0, flags)?,
        })
    }

    pub(super) fn add_credit(&self, bytes: u32) {
        let mut state = self.state();
        state.credit = state.credit.saturating_add(u64::from(bytes));
        drop(state);
        self.notify();
    }

    pub(super) fn add_signal(&self, signal: i32) {
        self.state().signals.push(signal);
        self.notify();
    }

    pub(super) fn close(&self) {
        self.state().host_is_gone = true;
        self.notify();
    }

    /// Readable after something was told; [`Self::acknowledge`] makes it silent again.
    pub(super) fn wake(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Takes note of the wake-up. Call it before looking at what was told.
    pub(super) fn acknowledge(&self) {
        let mut count = [0; 8];
        // Nothing to read means nothing to note.
        let _ = rustix::io::read(&self.event, &mut count);
    }

    pub(super) fn take_signals(&self) -> Vec<i32> {
        std::mem::take(&mut self.state().signals)
    }

    pub(super) fn host_is_gone(&self) -> bool {
        self.state().host_is_gone
    }

    /// Bytes that may be sent now.
    pub(super) fn credit(&self) -> u64 {
        self.state().credit
    }

    /// Uses up credit; the caller stays within [`Self::credit`], but for the last frame of a piece.
    pub(super) fn spend(&self, bytes: usize) {
        let mut state = self.state();
        state.credit = state.credit.saturating_sub(bytes as u64);
    }

    /// Waits until something may be sent. The host's own limit ends the wait: it closes the stream.
    pub(super) fn wait_for_credit(&self) -> Result<(), HostIsGone> {
        loop {
            self.acknowledge();
            if self.host_is_gone() {
                return Err(HostIsGone);
            }
            if self.credit() > 0 {
                return Ok(());
            }
            match poll(&mut [PollFd::new(&self.event, PollFlags::IN)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return Err(HostIsGone),
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Plain numbers and lists are whole after any panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self) {
        // A full counter means that the other side has a wake-up to note already.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_ends_a_wait() {
        let flow = Flow::new().unwrap();
        flow.spend(WINDOW as usize);
        assert_eq!(flow.credit(), 0);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| flow.wait_for_credit());
            flow.add_credit(5);
            assert!(waiter.join().unwrap().is_ok());
        });
        assert_eq!(flow.credit(), 5);
    }

    #[test]
    fn a_host_that_leaves_ends_a_wait() {
        let flow = Flow::new().unwrap();
        flow.spend(WINDOW as usize);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| flow.wait_for_credit());
            flow.close();
            assert!(waiter.join().unwrap().is_err());
        });
    }
}
