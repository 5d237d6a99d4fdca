//! The host side of a console's two queues.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;

use crate::backend::{Backend, Buffers, Completion, Submitted, Transfer};
use crate::memory;

use super::device::SharedOutput;
use super::input::ConsoleInput;

/// Writes what the guest sends.
pub(super) struct TransmitSide {
    pub(super) output: SharedOutput,
}

impl Backend for TransmitSide {
    fn submit(&mut self, transfer: Transfer) -> Submitted {
        let result = self.write(&transfer.buffers);
        Submitted::Done(Completion { transfer, result })
    }
}

impl TransmitSide {
    fn write(&self, buffers: &Buffers) -> io::Result<u64> {
        let mut copy = Vec::new();
        let bytes = match buffers {
            Buffers::None => &copy,
            Buffers::Owned(bytes) => bytes,
            Buffers::Guest { memory, ranges } => {
                memory::read(memory, ranges, &mut copy).map_err(io::Error::other)?;
                &copy
            }
        };
        self.output.write(bytes)?;
        Ok(bytes.len() as u64)
    }
}

/// Fills the guest's buffers, first come, first served, with what is typed.
pub(super) struct ReceiveSide {
    pub(super) input: ConsoleInput,
    pub(super) waiting: VecDeque<Transfer>,
}

impl ReceiveSide {
    /// Puts the next bytes into a buffer. `None`: there are none.
    fn fill(&self, transfer: &Transfer) -> Option<io::Result<u64>> {
        let bytes = self.input.take(transfer.len);
        if bytes.is_empty() {
            return None;
        }
        let Buffers::Guest { memory, ranges } = &transfer.buffers else {
            return Some(Err(io::ErrorKind::InvalidInput.into()));
        };
        let written = memory::write(memory, ranges, &bytes).map_err(io::Error::other);
        Some(written.map(|()| bytes.len() as u64))
    }
}

impl Backend for ReceiveSide {
    fn submit(&mut self, transfer: Transfer) -> Submitted {
        if self.waiting.is_empty()
            && let Some(result) = self.fill(&transfer)
        {
            return Submitted::Done(Completion { transfer, result });
        }
        self.waiting.push_back(transfer);
        Submitted::Pending
    }

    fn completion_fd(&self) -> Option<RawFd> {
        Some(self.input.fd())
    }

    fn completions(&mut self, done: &mut Vec<Completion>) {
        self.input.clear_fd();
        while let Some(transfer) = self.waiting.pop_front() {
            let Some(result) = self.fill(&transfer) else {
                return self.waiting.push_front(transfer);
            };
            done.push(Completion { transfer, result });
        }
    }

    /// All that is here waits for the outside world.
    fn settle(&mut self, _done: &mut Vec<Completion>) {}

    fn drain(&mut self, done: &mut Vec<Completion>) {
        let ended = self.waiting.drain(..).map(|transfer| Completion {
            transfer,
            result: Err(io::ErrorKind::Interrupted.into()),
        });
        done.extend(ended);
    }
}
