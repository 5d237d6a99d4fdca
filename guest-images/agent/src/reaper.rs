//! Reaping: the agent's own children, and as PID 1 everybody's orphans.
//!
//! One thread waits for all, so that nobody else's wait can take a status away. An orphan comes to
//! PID 1 at the latest when its parent becomes a zombie, so while there is no child at all there can
//! be no orphan either, and the thread may sleep until the next child is made.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use pincushion_abi::Fault;

use crate::fault::sentence;
use crate::found::Found;
use crate::sys::process;

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By `exit`.
    Exited(i32),
    /// By a signal.
    Killed(i32),
}

/// The children whose end somebody will ask for, and the one thread that reaps.
#[derive(Default)]
pub struct Reaper {
    children: Mutex<Children>,
    changed: Condvar,
}

#[derive(Default)]
struct Children {
    /// `None` while it lives.
    known: HashMap<i32, Option<Ended>>,
    /// Grows with each child made.
    made: u64,
}

impl Reaper {
    fn lock(&self) -> MutexGuard<'_, Children> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a child and knows it before it can be reaped. `make` gives its process id.
    pub fn adopt<E>(&self, make: impl FnOnce() -> Result<i32, E>) -> Result<i32, E> {
        let mut children = self.lock();
        let pid = make()?;
        children.known.insert(pid, None);
        children.made += 1;
        drop(children);
        self.changed.notify_all();
        Ok(pid)
    }

    /// Waits for the end of a child made by [`Reaper::adopt`]. Without limit: the caller's step is
    /// watched by the host.
    pub fn wait(&self, pid: i32) -> Result<Ended, Fault> {
        let mut children = self.lock();
        loop {
            match children.known.get(&pid) {
                None => {
                    return Err(sentence(
                        "waitpid",
                        format!("process {pid} was waited for already"),
                    ));
                }
                Some(&Some(ended)) => {
                    children.known.remove(&pid);
                    return Ok(ended);
                }
                Some(None) => {
                    children = self
                        .changed
                        .wait(children)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Reaps for ever.
    pub fn run(&self) -> ! {
        loop {
            let made = self.lock().made;
            match process::wait_any() {
                Ok((pid, status)) => self.post(pid, status),
                // No child at all, or a signal: look again when there is a new child.
                Err(_) => {
                    let mut children = self.lock();
                    while children.made == made {
                        children = self
                            .changed
                            .wait(children)
                            .unwrap_or_else(PoisonError::into_inner);
                    }
                }
            }
        }
    }

    fn post(&self, pid: i32, status: i32) {
        let ended = if libc::WIFSIGNALED(status) {
            Ended::Killed(libc::WTERMSIG(status))
        } else {
            Ended::Exited(libc::WEXITSTATUS(status))
        };
        if let Some(known) = self.lock().known.get_mut(&pid) {
            *known = Some(ended);
        }
        self.changed.notify_all();
    }
}

impl Ended {
    /// As values of a report: `status` or `signal`.
    pub fn tell(self, found: Found) -> Found {
        match self {
            Self::Exited(status) => found.number("status", status.unsigned_abs().into()),
            Self::Killed(signal) => found.number("signal", signal.unsigned_abs().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_child_is_told_once() {
        let reaper = Reaper::default();
        reaper.adopt(|| Ok::<_, ()>(4242)).unwrap();
        reaper.post(4242, 3 << 8);
        assert_eq!(reaper.wait(4242), Ok(Ended::Exited(3)));
        assert!(reaper.wait(4242).unwrap_err().name.contains("already"));
    }

    #[test]
    fn an_orphan_is_reaped_and_forgotten() {
        let reaper = Reaper::default();
        reaper.post(77, 9);
        assert!(reaper.wait(77).is_err());
        reaper.adopt(|| Ok::<_, ()>(78)).unwrap();
        reaper.post(78, 9);
        assert_eq!(reaper.wait(78), Ok(Ended::Killed(9)));
    }
}
