//! userfaultfd(2) and its ioctls (include/uapi/linux/userfaultfd.h).
#![expect(unsafe_code, reason = "ioctls with structures of ours")]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::check;
use super::memory::Span;
use crate::fault::Errno;

const UFFD_API: u64 = 0xaa;
/// `_IOWR(0xAA, 0x3F, struct uffdio_api)`.
const UFFDIO_API: u64 = 0xc018_aa3f;
/// `_IOWR(0xAA, 0x00, struct uffdio_register)`.
const UFFDIO_REGISTER: u64 = 0xc020_aa00;
/// `_IOWR(0xAA, 0x03, struct uffdio_copy)`.
const UFFDIO_COPY: u64 = 0xc028_aa03;
/// `_IOWR(0xAA, 0x05, struct uffdio_move)`.
const UFFDIO_MOVE: u64 = 0xc028_aa05;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;
/// `UFFDIO_MOVE` is there.
pub const FEATURE_MOVE: u64 = 1 << 16;

/// `userfaultfd(2)`, with these features.
pub fn open(features: u64) -> Result<OwnedFd, Errno> {
    // SAFETY: takes a number; the descriptor is then nobody else's.
    let fd = unsafe {
        let fd = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC);
        let fd = check("userfaultfd", i32::try_from(fd).unwrap_or(-1))?;
        OwnedFd::from_raw_fd(fd)
    };
    let mut api = [UFFD_API, features, 0];
    ioctl("ioctl UFFDIO_API", &fd, UFFDIO_API, &mut api)?;
    Ok(fd)
}

/// `UFFDIO_REGISTER` for missing pages.
pub fn register(fd: &OwnedFd, span: Span) -> Result<(), Errno> {
    let mut words = [
        span.address() as u64,
        span.len() as u64,
        UFFDIO_REGISTER_MODE_MISSING,
        0,
    ];
    ioctl("ioctl UFFDIO_REGISTER", fd, UFFDIO_REGISTER, &mut words)
}

/// `UFFDIO_COPY` of bytes of ours.
pub fn fill(fd: &OwnedFd, to: Span, bytes: &[u8]) -> Result<(), Errno> {
    let from = bytes.as_ptr().expose_provenance();
    let mut words = [to.address() as u64, from as u64, to.len() as u64, 0, 0];
    ioctl("ioctl UFFDIO_COPY", fd, UFFDIO_COPY, &mut words)
}

/// `UFFDIO_MOVE`; how many bytes were moved.
pub fn remap(fd: &OwnedFd, from: Span, to: Span) -> Result<u64, Errno> {
    let mut words = [
        to.address() as u64,
        from.address() as u64,
        to.len() as u64,
        0,
        0,
    ];
    ioctl("ioctl UFFDIO_MOVE", fd, UFFDIO_MOVE, &mut words)?;
    Ok(words[4])
}

fn ioctl(call: &'static str, fd: &OwnedFd, number: u64, words: &mut [u64]) -> Result<(), Errno> {
    // SAFETY: the structure of each number is as many words as its caller gives; what it names is spans of steps and bytes of ours.
    check(call, unsafe {
        libc::ioctl(fd.as_raw_fd(), number, words.as_mut_ptr())
    })
    .map(drop)
}
