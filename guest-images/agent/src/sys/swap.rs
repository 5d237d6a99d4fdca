//! Swap.
#![expect(unsafe_code, reason = "libc calls with C strings")]

use std::ffi::CStr;

use super::check;
use crate::fault::Errno;

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
