//! Guest memory as the host's vectored I/O sees it: lists of pointers, and the two system calls that use them.
//!
//! [`Segments`] holds raw pointers into the buffers that it was loaded from. Whoever loads it keeps these buffers
//! alive and unmoved until the last system call is done; both users ([`super::image`], [`super::uring`]) own the
//! transfer for that long. The guest may write its memory at the same time, which is the nature of DMA: the
//! kernel copies through user mappings and no Rust reference is ever made.
#![expect(
    unsafe_code,
    reason = "preadv and pwritev take raw pointers into guest memory"
)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use vm_memory::{GuestAddress, GuestMemoryBackend};

use super::work::Buffers;

/// Most segments that one system call takes (`UIO_MAXIOV` of the kernel).
pub(super) const IOV_MAX: usize = 1024;

/// The pieces of host memory that a transfer goes to or comes from, and how far it has come.
#[derive(Debug, Default)]
pub(super) struct Segments {
    list: Vec<libc::iovec>,
    /// Index of the first piece that is not finished.
    next: usize,
    /// Bytes in the pieces that are not finished.
    remaining: u64,
}

// SAFETY: the pointers are to memory that any thread may access (a shared mapping or a heap block), and the owner
// of the buffers, who keeps them alive, moves together with the list.
unsafe impl Send for Segments {}

impl Segments {
    /// Begins anew with all of `buffers`.
    ///
    /// # Errors
    /// `InvalidInput` if a range is outside the memory map or the sum is not `len`.
    pub(super) fn load(&mut self, buffers: &mut Buffers, len: u64) -> io::Result<()> {
        self.clear();
        match buffers {
            Buffers::None => {}
            Buffers::Owned(bytes) => self.push(bytes.as_mut_ptr(), bytes.len()),
            Buffers::Guest { memory, ranges } => {
                for range in ranges {
                    let count = usize::try_from(range.len).map_err(|_| outside())?;
                    for slice in memory.get_slices(GuestAddress(range.addr), count) {
                        let slice = slice.map_err(|_| outside())?;
                        self.push(slice.ptr_guard_mut().as_ptr(), slice.len());
                    }
                }
            }
        }
        if self.remaining == len {
            Ok(())
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the buffers are not as long as the transfer",
            ))
        }
    }

    /// Begins anew with one block of the device's own memory.
    pub(super) fn load_bytes(&mut self, bytes: &mut [u8]) {
        self.clear();
        self.push(bytes.as_mut_ptr(), bytes.len());
    }

    /// Begins anew with the same block as often as one system call can, but at most `len` bytes of it in all.
    pub(super) fn load_repeated(&mut self, bytes: &mut [u8], len: u64) {
        self.clear();
        while self.list.len() < IOV_MAX && self.remaining < len && !bytes.is_empty() {
            let left = usize::try_from(len - self.remaining).unwrap_or(usize::MAX);
            let piece = left.min(bytes.len());
            self.list.push(libc::iovec {
                iov_base: bytes.as_mut_ptr().cast(),
                iov_len: piece,
            });
            self.remaining += piece as u64;
        }
    }

    fn clear(&mut self) {
        self.list.clear();
        self.next = 0;
        self.remaining = 0;
    }

    fn push(&mut self, base: *mut u8, len: usize) {
        if len == 0 {
            return;
        }
        self.remaining += len as u64;
        // Guest pages that are neighbours in host memory too go as one segment.
        if let Some(last) = self.list.last_mut()
            && last.iov_base.wrapping_byte_add(last.iov_len) == base.cast()
        {
            last.iov_len += len;
            return;
        }
        self.list.push(libc::iovec {
            iov_base: base.cast(),
            iov_len: len,
        });
    }

    /// Bytes still to go.
    pub(super) fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Whether every piece begins at a multiple of `memory` and ends at a multiple of `length`, in bytes.
    pub(super) fn aligned(&self, memory: usize, length: usize) -> bool {
        self.list[self.next..].iter().all(|piece| {
            piece.iov_base.addr().is_multiple_of(memory) && piece.iov_len.is_multiple_of(length)
        })
    }

    /// What the next system call is to be given: at most [`IOV_MAX`] pieces.
    pub(super) fn window(&self) -> &[libc::iovec] {
        let rest = &self.list[self.next..];
        &rest[..rest.len().min(IOV_MAX)]
    }

    /// `count` bytes of the window are done.
    pub(super) fn advance(&mut self, count: usize) {
        let mut left = count;
        while let Some(piece) = self.list.get_mut(self.next)
            && left > 0
        {
            let step = left.min(piece.iov_len);
            piece.iov_base = piece.iov_base.wrapping_byte_add(step);
            piece.iov_len -= step;
            left -= step;
            self.remaining -= step as u64;
            if piece.iov_len == 0 {
                self.next += 1;
            }
        }
    }
}

fn outside() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "a buffer is outside guest memory",
    )
}

/// Fills all segments from `offset` on.
///
/// # Errors
/// What the host says; `UnexpectedEof` if the file ends before.
pub(super) fn read_all(file: &File, segments: &mut Segments, offset: u64) -> io::Result<()> {
    each(
        segments,
        offset,
        io::ErrorKind::UnexpectedEof,
        |window, offset| {
            // SAFETY: the window is valid for its length, and each piece is writable memory that the owner of the
            // buffers keeps mapped during the call (module doc).
            unsafe { libc::preadv(file.as_raw_fd(), window.as_ptr(), count(window), offset) }
        },
    )
}

/// Writes all segments from `offset` on.
///
/// # Errors
/// What the host says; `WriteZero` if it takes nothing more.
pub(super) fn write_all(file: &File, segments: &mut Segments, offset: u64) -> io::Result<()> {
    each(
        segments,
        offset,
        io::ErrorKind::WriteZero,
        |window, offset| {
            // SAFETY: as above; the kernel only reads the pieces.
            unsafe { libc::pwritev(file.as_raw_fd(), window.as_ptr(), count(window), offset) }
        },
    )
}

fn count(window: &[libc::iovec]) -> libc::c_int {
    libc::c_int::try_from(window.len()).expect("a window has at most IOV_MAX pieces")
}

/// Calls until nothing remains: a signal repeats the call, a short transfer goes on behind it.
fn each(
    segments: &mut Segments,
    mut offset: u64,
    at_nothing: io::ErrorKind,
    mut call: impl FnMut(&[libc::iovec], libc::off_t) -> libc::ssize_t,
) -> io::Result<()> {
    while segments.remaining() > 0 {
        let position =
            libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
        match usize::try_from(call(segments.window(), position)) {
            Ok(0) => return Err(at_nothing.into()),
            Ok(done) => {
                segments.advance(done);
                offset += done as u64;
            }
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_one_segment_and_an_advance_may_end_anywhere() {
        let mut bytes = vec![0u8; 100];
        let base = bytes.as_mut_ptr();
        let mut segments = Segments::default();
        segments.push(base, 10);
        segments.push(base.wrapping_add(10), 20);
        segments.push(base.wrapping_add(50), 5);
        segments.push(base.wrapping_add(90), 0);
        let lengths = |s: &Segments| s.window().iter().map(|p| p.iov_len).collect::<Vec<_>>();
        assert_eq!(lengths(&segments), [30, 5]);
        segments.advance(29);
        assert_eq!(lengths(&segments), [1, 5]);
        segments.advance(2);
        assert_eq!(lengths(&segments), [4]);
        assert_eq!(segments.window()[0].iov_base.addr(), base.addr() + 51);
        segments.advance(4);
        assert_eq!(segments.remaining(), 0);
        assert!(segments.window().is_empty());
    }

    #[test]
    fn a_block_is_repeated_up_to_the_length_asked_for() {
        let mut zeros = [0u8; 8];
        let mut segments = Segments::default();
        segments.load_repeated(&mut zeros, 20);
        assert_eq!(segments.remaining(), 20);
        assert_eq!(segments.window().len(), 3);
        segments.load_repeated(&mut zeros, u64::MAX);
        assert_eq!(segments.window().len(), IOV_MAX);
        assert_eq!(segments.remaining(), 8 * IOV_MAX as u64);
    }

    #[test]
    fn buffers_of_another_length_than_the_transfer_are_refused() {
        let mut segments = Segments::default();
        let error = segments
            .load(&mut Buffers::Owned(vec![0; 3]), 4)
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(segments.load(&mut Buffers::Owned(vec![0; 4]), 4).is_ok());
    }
}
