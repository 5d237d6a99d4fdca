//! Calls on open files. Descriptors are plain numbers: a scenario closes a file in the midst of
//! another thread's call on purpose, and what the kernel makes of that is the point.
#![expect(unsafe_code, reason = "libc calls on descriptors and buffers")]

use std::ffi::CStr;
use std::os::fd::RawFd;

use super::memory::Span;
use super::{check, check_len};
use crate::fault::Errno;

/// `open(2)`, always with O_CLOEXEC; a new file gets mode 0644.
pub fn open(path: &CStr, flags: i32) -> Result<RawFd, Errno> {
    // SAFETY: the path is a C string that outlives the call.
    check("open", unsafe {
        libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, 0o644)
    })
}

/// `close(2)`.
pub fn close(fd: RawFd) -> Result<(), Errno> {
    // SAFETY: no Rust object owns the descriptors of steps.
    check("close", unsafe { libc::close(fd) }).map(drop)
}

/// `pread(2)` into a buffer of ours.
pub fn pread(fd: RawFd, buffer: &mut [u8], offset: i64) -> Result<usize, Errno> {
    // SAFETY: the buffer is ours for the length given.
    check_len("pread64", unsafe {
        libc::pread(fd, buffer.as_mut_ptr().cast(), buffer.len(), offset)
    })
}

/// `pwrite(2)` from a buffer of ours.
pub fn pwrite(fd: RawFd, buffer: &[u8], offset: i64) -> Result<usize, Errno> {
    // SAFETY: the buffer is ours for the length given.
    check_len("pwrite64", unsafe {
        libc::pwrite(fd, buffer.as_ptr().cast(), buffer.len(), offset)
    })
}

/// `pread(2)` into a mapping.
pub fn pread_span(fd: RawFd, span: Span, offset: i64) -> Result<usize, Errno> {
    // SAFETY: a span's addresses belong to no Rust object (see `memory`).
    check_len("pread64", unsafe {
        libc::pread(fd, span.pointer(), span.len(), offset)
    })
}

/// `pwrite(2)` from a mapping.
pub fn pwrite_span(fd: RawFd, span: Span, offset: i64) -> Result<usize, Errno> {
    // SAFETY: a span's addresses belong to no Rust object (see `memory`).
    check_len("pwrite64", unsafe {
        libc::pwrite(fd, span.pointer(), span.len(), offset)
    })
}

/// `ftruncate(2)`.
pub fn truncate(fd: RawFd, len: i64) -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    check("ftruncate", unsafe { libc::ftruncate(fd, len) }).map(drop)
}

/// `fallocate(2)`.
pub fn fallocate(fd: RawFd, mode: i32, offset: i64, len: i64) -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    check("fallocate", unsafe {
        libc::fallocate(fd, mode, offset, len)
    })
    .map(drop)
}

/// `fsync(2)`.
pub fn fsync(fd: RawFd) -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    check("fsync", unsafe { libc::fsync(fd) }).map(drop)
}

/// `fdatasync(2)`.
pub fn fdatasync(fd: RawFd) -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    check("fdatasync", unsafe { libc::fdatasync(fd) }).map(drop)
}

/// `syncfs(2)`.
pub fn syncfs(fd: RawFd) -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    check("syncfs", unsafe { libc::syncfs(fd) }).map(drop)
}

/// `sync_file_range(2)`.
pub fn sync_file_range(fd: RawFd, offset: i64, len: i64, flags: u32) -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    check("sync_file_range", unsafe {
        libc::sync_file_range(fd, offset, len, flags)
    })
    .map(drop)
}

/// `sync(2)`.
pub fn sync() {
    // SAFETY: takes nothing.
    unsafe { libc::sync() };
}

/// `posix_fadvise(2)` with POSIX_FADV_DONTNEED of the whole file: the next read comes from the disk.
pub fn forget_cache(fd: RawFd) {
    // SAFETY: takes numbers only. The call is advice, its failure changes nothing.
    unsafe { libc::posix_fadvise(fd, 0, 0, libc::POSIX_FADV_DONTNEED) };
}
