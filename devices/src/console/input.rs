//! What is typed: bytes that wait until the guest has room for them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Most bytes that wait.
const CAPACITY: usize = 64 << 10;

/// The way into a console, for any thread; clones are the same one. Its lock is a leaf.
#[derive(Debug, Clone)]
pub struct ConsoleInput {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bytes: Mutex<VecDeque<u8>>,
    arrived: EventFd,
}

impl ConsoleInput {
    pub(super) fn new() -> io::Result<Self> {
        let shared = Shared {
            bytes: Mutex::default(),
            arrived: EventFd::new(EFD_NONBLOCK)?,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Takes bytes for the guest; returns how many there was room for.
    pub fn send(&self, bytes: &[u8]) -> usize {
        let taken = {
            let mut waiting = self.lock();
            let taken = bytes.len().min(CAPACITY - waiting.len());
            waiting.extend(&bytes[..taken]);
            taken
        };
        if let Err(error) = self.shared.arrived.write(1) {
            log::error!("console: cannot wake the device for its input: {error}");
        }
        taken
    }

    /// Readable when bytes have come.
    pub(super) fn fd(&self) -> RawFd {
        self.shared.arrived.as_raw_fd()
    }

    pub(super) fn clear_fd(&self) {
        // EAGAIN means that nothing has come.
        let _ = self.shared.arrived.read();
    }

    /// The next bytes, at most so many.
    pub(super) fn take(&self, most: u64) -> Vec<u8> {
        let mut waiting = self.lock();
        let count = usize::try_from(most)
            .unwrap_or(usize::MAX)
            .min(waiting.len());
        waiting.drain(..count).collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.shared
            .bytes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_no_room_for_is_not_taken() {
        let input = ConsoleInput::new().unwrap();
        assert_eq!(input.send(&vec![1; CAPACITY - 1]), CAPACITY - 1);
        assert_eq!(input.send(&[2, 3]), 1);
        assert_eq!(input.take(u64::MAX).len(), CAPACITY);
        assert_eq!(input.send(&[4, 5]), 2);
        assert_eq!((input.take(1), input.take(9)), (vec![4], vec![5]));
    }
}
