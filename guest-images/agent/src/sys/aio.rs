//! libaio's system calls.
#![expect(unsafe_code, reason = "the raw calls and their C structs")]

use std::os::fd::RawFd;

use super::memory::Span;
use crate::fault::Errno;

const IOCB_CMD_PREAD: u16 = 0;
const IOCB_CMD_PWRITE: u16 = 1;

/// `struct iocb` of the kernel (little endian layout).
#[repr(C)]
#[derive(Default)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: i32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event_fd: u32,
}

/// `struct io_event` of the kernel.
#[repr(C)]
#[derive(Default)]
struct IoEvent {
    data: u64,
    object: u64,
    result: i64,
    result2: i64,
}

/// An AIO context. Destroying it waits for its transfers, so it is destroyed by [`Context::destroy`] or
/// by the end of the process, never by `Drop`.
#[derive(Debug)]
pub struct Context(u64);

/// A transfer made ready.
pub struct Transfer(Box<Iocb>);

impl Transfer {
    /// A read into, or (`write`) a write from, a span.
    pub fn new(write: bool, fd: RawFd, span: Span, offset: i64) -> Self {
        Self(Box::new(Iocb {
            opcode: if write {
                IOCB_CMD_PWRITE
            } else {
                IOCB_CMD_PREAD
            },
            fd: fd.cast_unsigned(),
            buffer: span.address() as u64,
            bytes: span.len() as u64,
            offset,
            ..Iocb::default()
        }))
    }

    /// The number that [`Context::next`] gives back.
    pub fn number(&mut self, number: u64) {
        self.0.data = number;
    }

    /// Where in the file it begins from now on.
    pub fn at(&mut self, offset: i64) {
        self.0.offset = offset;
    }
}

/// A transfer that has ended.
pub struct Ended {
    /// Its number; 0 where it was given none.
    pub number: u64,
    /// Its bytes, or its errno as a failure of `aio`.
    pub result: Result<usize, Errno>,
}

impl Context {
    /// `io_setup(2)` for one transfer.
    pub fn new() -> Result<Self, Errno> {
        Self::with_room(1)
    }

    /// `io_setup(2)` for so many at once.
    pub fn with_room(transfers: u32) -> Result<Self, Errno> {
        let mut context = 0u64;
        // SAFETY: the kernel writes the context's number into ours.
        let ret = unsafe { libc::syscall(libc::SYS_io_setup, transfers, &raw mut context) };
        if ret < 0 {
            Err(Errno::last("io_setup"))
        } else {
            Ok(Self(context))
        }
    }

    /// `io_submit(2)`.
    pub fn submit(&self, transfer: &mut Transfer) -> Result<(), Errno> {
        let mut list = [&raw mut *transfer.0];
        // SAFETY: one iocb, which the kernel copies; its buffer is a span, which belongs to no Rust
        // object however long the transfer takes.
        let ret = unsafe { libc::syscall(libc::SYS_io_submit, self.0, 1, list.as_mut_ptr()) };
        if ret < 0 {
            Err(Errno::last("io_submit"))
        } else {
            Ok(())
        }
    }

    /// `io_getevents(2)` for the one transfer: its bytes, or its errno as a failure of `aio`.
    pub fn wait(&self) -> Result<usize, Errno> {
        self.next()?.result
    }

    /// `io_getevents(2)` for the next that ends.
    pub fn next(&self) -> Result<Ended, Errno> {
        let mut event = IoEvent::default();
        loop {
            let none = std::ptr::null::<libc::timespec>();
            // SAFETY: room for the one event that is asked for.
            let ret = unsafe {
                libc::syscall(libc::SYS_io_getevents, self.0, 1, 1, &raw mut event, none)
            };
            match ret {
                1 => break,
                _ if ret < 0 => {
                    let errno = Errno::last("io_getevents");
                    if errno.number != libc::EINTR {
                        return Err(errno);
                    }
                }
                _ => {}
            }
        }
        let result = usize::try_from(event.result).map_err(|_| Errno {
            call: "aio",
            number: i32::try_from(-event.result).unwrap_or(libc::EIO),
        });
        Ok(Ended {
            number: event.data,
            result,
        })
    }

    /// `io_destroy(2)`; waits for transfers in flight.
    pub fn destroy(self) {
        // SAFETY: takes a number; nobody has it any more.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.0) };
    }
}
