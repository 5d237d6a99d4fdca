//! Swap, and the freezing of file systems.
#![expect(unsafe_code, reason = "libc calls with C strings and numbers")]

use std::ffi::CStr;
use std::os::fd::RawFd;

use super::check;
use crate::fault::Errno;

/// `_IOWR('X', 119, int)`.
const FIFREEZE: u64 = 0xc004_5877;
/// `_IOWR('X', 120, int)`.
const FITHAW: u64 = 0xc004_5878;

/// `swapon(2)`.
pub fn on(path: &CStr) -> Result<(), Errno> {
    // SAFETY: a C string that outlives the call.
    check("swapon", unsafe { libc::swapon(path.as_ptr(), 0) }).map(drop)
}

/// `swapoff(2)`.
pub fn off(path: &CStr) -> Result<(), Errno> {
    // SAFETY: a C string that outlives the call.
    check("swapoff", unsafe { libc::swapoff(path.as_ptr()) }).map(drop)
}

/// `ioctl(FIFREEZE)` of the file system that a descriptor is on.
pub fn freeze(fd: RawFd) -> Result<(), Errno> {
    // SAFETY: takes a number.
    check("ioctl FIFREEZE", unsafe { libc::ioctl(fd, FIFREEZE, 0) }).map(drop)
}

/// `ioctl(FITHAW)`.
pub fn thaw(fd: RawFd) -> Result<(), Errno> {
    // SAFETY: takes a number.
    check("ioctl FITHAW", unsafe { libc::ioctl(fd, FITHAW, 0) }).map(drop)
}
