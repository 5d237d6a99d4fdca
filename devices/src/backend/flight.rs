//! What io_uring has in hand: a table of transfers under way, by the number that the kernel gives back.

use std::io;

use io_uring::{opcode, squeue, types};
use rustix::fs::FallocateFlags;

use super::direct::{Bounce, scatter};
use super::vectored::Segments;
use super::work::{Completion, Transfer, Work};

/// A transfer under way. Its segments point into its buffers or its bounce buffer, which it owns until it is finished.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) transfer: Transfer,
    pub(super) segments: Segments,
    pub(super) bounce: Option<Bounce>,
    /// The mode, for discard and write zeroes.
    pub(super) fallocate: FallocateFlags,
}

/// What a result of the kernel means for a transfer.
#[derive(Debug)]
pub(super) enum Next {
    /// Ask again, for the rest.
    Again,
    /// It is over.
    Done(io::Result<()>),
}

impl Flight {
    /// The request for the kernel. It points into this flight, which must stay as it is until the answer is here.
    pub(super) fn entry(&self, file: types::Fd) -> squeue::Entry {
        let window = self.segments.window();
        let count = u32::try_from(window.len()).expect("a window has at most IOV_MAX pieces");
        let offset = self.transfer.offset + (self.transfer.len - self.segments.remaining());
        match self.transfer.work {
            Work::Read => opcode::Readv::new(file, window.as_ptr(), count)
                .offset(offset)
                .build(),
            Work::Write => opcode::Writev::new(file, window.as_ptr(), count)
                .offset(offset)
                .build(),
            Work::Transmit | Work::Receive | Work::Free => {
                unreachable!("a disk's transfers were checked")
            }
            Work::Flush => opcode::Fsync::new(file)
                .flags(types::FsyncFlags::DATASYNC)
                .build(),
            Work::Discard | Work::WriteZeroes { .. } => {
                opcode::Fallocate::new(file, self.transfer.len)
                    .offset(self.transfer.offset)
                    .mode(self.fallocate.bits().cast_signed())
                    .build()
            }
        }
    }

    /// Takes the kernel's answer: a negative errno, or bytes done.
    pub(super) fn answered(&mut self, answer: i32) -> Next {
        let Ok(count) = usize::try_from(answer) else {
            return match -answer {
                // A signal, or the thread that submitted is gone: nobody here cancels, so it is ours to ask again.
                libc::EINTR | libc::EAGAIN | libc::ECANCELED => Next::Again,
                errno => Next::Done(Err(io::Error::from_raw_os_error(errno))),
            };
        };
        let at_nothing = match self.transfer.work {
            Work::Read => io::ErrorKind::UnexpectedEof,
            Work::Write => io::ErrorKind::WriteZero,
            Work::Flush
            | Work::Discard
            | Work::WriteZeroes { .. }
            | Work::Transmit
            | Work::Receive
            | Work::Free => return Next::Done(Ok(())),
        };
        if count == 0 {
            return Next::Done(Err(at_nothing.into()));
        }
        self.segments.advance(count);
        if self.segments.remaining() > 0 {
            return Next::Again;
        }
        Next::Done(self.unload())
    }

    /// Brings what was read by way of a bounce buffer to where it belongs.
    fn unload(&mut self) -> io::Result<()> {
        match &mut self.bounce {
            Some(bounce) if self.transfer.work == Work::Read => {
                scatter(&mut self.transfer.buffers, 0, bounce.bytes())
            }
            _ => Ok(()),
        }
    }

    /// The transfer, given back.
    pub(super) fn finish(self, result: io::Result<()>) -> Completion {
        Completion {
            result: result.map(|()| self.transfer.payload_len()),
            transfer: self.transfer,
        }
    }
}

/// Flights by number. A number is used again only after its flight was taken out.
#[derive(Debug, Default)]
pub(super) struct Flights {
    slots: Vec<Option<Flight>>,
    free: Vec<u32>,
}

impl Flights {
    pub(super) fn insert(&mut self, flight: Flight) -> u32 {
        if let Some(number) = self.free.pop() {
            self.slots[number as usize] = Some(flight);
            return number;
        }
        let number =
            u32::try_from(self.slots.len()).expect("memory ends before four billion flights do");
        self.slots.push(Some(flight));
        number
    }

    pub(super) fn get_mut(&mut self, number: u32) -> &mut Flight {
        self.slots[number as usize]
            .as_mut()
            .expect("a number is in use until its flight is taken")
    }

    pub(super) fn take(&mut self, number: u32) -> Flight {
        self.free.push(number);
        self.slots[number as usize]
            .take()
            .expect("a number is in use until its flight is taken")
    }
}
