//! The system calls, each behind a safe function that gives `Result<_, Errno>`.
//!
//! All `unsafe` of the agent is in this directory. Nothing here allocates after the call it is named
//! for, so that these functions can stand between a step's marks.

pub mod aio;
pub mod bpf;
pub mod clock;
pub mod extents;
pub mod file;
pub mod file_system;
pub mod fs;
pub mod guard;
pub mod gup_test;
pub mod ioport;
pub mod memory;
pub mod mm;
pub mod net;
pub mod notify;
pub mod pipe;
pub mod process;
pub mod swap;
pub mod tty;
pub mod userfault;
pub mod xdp;
pub mod zero_copy;

use std::ffi::CString;

use pincushion_abi::Fault;

use crate::fault::{Errno, sentence};

/// A path or text for the kernel. A text with a zero byte in it is a fault.
pub fn c_string(text: &str) -> Result<CString, Fault> {
    CString::new(text).map_err(|_| sentence("path", format!("{text:?} has a zero byte in it")))
}

/// `Ok(ret)` unless it is negative, which means that `errno` tells more.
fn check(call: &'static str, ret: i32) -> Result<i32, Errno> {
    if ret < 0 {
        Err(Errno::last(call))
    } else {
        Ok(ret)
    }
}

/// The same for calls that return a length.
fn check_len(call: &'static str, ret: isize) -> Result<usize, Errno> {
    usize::try_from(ret).map_err(|_| Errno::last(call))
}
