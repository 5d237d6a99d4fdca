//! SIGINT and SIGTERM of the host become the command's: the first asks it, the second kills it, the third leaves at once.
//!
//! Before there is a command, and after it, the first one leaves at once: nothing of the user's is in danger then, and QEMU goes
//! with this process.

#![expect(
    unsafe_code,
    reason = "signal masks and signalfd have no safe wrapper here"
)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::process::Signal;

use super::error::{NestedError, host};
use super::session::Signaller;

/// While it lives, the two signals are taken from the process and handed on. Make it before any thread that shall not get them.
pub(super) struct Forwarder {
    target: Arc<Mutex<Target>>,
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
    old_mask: libc::sigset_t,
}

/// Who gets the next signal.
#[derive(Default)]
struct Target {
    signaller: Option<Signaller>,
    /// How many this command got.
    sent: u32,
}

impl Forwarder {
    pub(super) fn start() -> Result<Self, NestedError> {
        let (old_mask, signals) = take_signals().map_err(host("take over SIGINT and SIGTERM"))?;
        let target = Arc::<Mutex<Target>>::default();
        let stop = eventfd(0, EventfdFlags::CLOEXEC).map_err(io::Error::from);
        let stop = stop.map_err(host("make an event"))?;
        let (for_thread, stopped) = (Arc::clone(&target), stop.try_clone());
        let stopped = stopped.map_err(host("share an event"))?;
        let thread = thread::Builder::new()
            .name("nested-signals".to_owned())
            .spawn(move || forward(&signals, &stopped, &for_thread))
            .map_err(host("start a thread"))?;
        Ok(Self {
            target,
            stop,
            thread: Some(thread),
            old_mask,
        })
    }

    /// From now on signals go to what runs in a machine; `None`: they end this process.
    pub(super) fn aim(&self, signaller: Option<Signaller>) {
        let mut target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        *target = Target { signaller, sent: 0 };
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        // Neither call can fail on descriptors and masks that we made.
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // SAFETY: the mask was filled by the call that changed it; a null pointer asks for no answer.
        unsafe {
            libc::pthread_sigmask(
                libc::SIG_SETMASK,
                &raw const self.old_mask,
                std::ptr::null_mut(),
            );
        }
    }
}

/// Blocks the two signals in this thread and those it will start, and makes a descriptor that reads them.
fn take_signals() -> io::Result<(libc::sigset_t, OwnedFd)> {
    // SAFETY: a set of signals is plain bits, and is initialized by sigemptyset before it is used; all pointers are to
    // live locals. The descriptor is new and owned by nobody else.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        let mut old: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGINT);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        let failed = libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, &raw mut old);
        if failed != 0 {
            return Err(io::Error::from_raw_os_error(failed));
        }
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((old, OwnedFd::from_raw_fd(fd)))
    }
}

fn forward(signals: &OwnedFd, stop: &OwnedFd, target: &Mutex<Target>) {
    loop {
        let mut fds = [
            PollFd::new(signals, PollFlags::IN),
            PollFd::new(stop, PollFlags::IN),
        ];
        if poll(&mut fds, None).is_err() {
            continue;
        }
        if !fds[1].revents().is_empty() {
            return;
        }
        // struct signalfd_siginfo begins with the number as a u32; a read gives whole ones.
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        if rustix::io::read(signals, &mut info).is_err() {
            continue;
        }
        let number = i32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
        let mut target = target.lock().unwrap_or_else(PoisonError::into_inner);
        target.sent += 1;
        match (&target.signaller, target.sent) {
            (Some(command), 1) => {
                eprintln!("nested: passing the signal on to the command; again kills it");
                command.signal_all(number);
            }
            (Some(command), 2) => command.signal_all(Signal::KILL.as_raw()),
            // As a shell tells of a process that a signal ended. QEMU dies with us.
            _ => std::process::exit(128 + number),
        }
    }
}
