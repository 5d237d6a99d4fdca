//! Pipes, and pages that are put into them.
#![expect(unsafe_code, reason = "vmsplice names memory by address")]

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};

use super::memory::Span;
use super::{check, check_len};
use crate::fault::Errno;

/// Both ends of a pipe.
pub struct Ends {
    /// To read from.
    pub out: File,
    /// To write to.
    pub into: File,
}

/// `pipe2(2)`.
pub fn open() -> Result<Ends, Errno> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors, which are then nobody else's.
    unsafe {
        check("pipe2", libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC))?;
        Ok(Ends {
            out: File::from_raw_fd(ends[0]),
            into: File::from_raw_fd(ends[1]),
        })
    }
}

/// `vmsplice(2)`: how many bytes the pipe took.
pub fn splice(pipe: &Ends, span: Span) -> Result<usize, Errno> {
    let vector = libc::iovec {
        iov_base: span.pointer(),
        iov_len: span.len(),
    };
    // SAFETY: the memory is a span, which belongs to no Rust object however long the pipe keeps its pages.
    let ret = unsafe { libc::vmsplice(pipe.into.as_raw_fd(), &raw const vector, 1, 0) };
    check_len("vmsplice", ret)
}
