//! Calls on spans and files in memory.
#![expect(unsafe_code, reason = "calls that name memory by address")]

use std::os::fd::RawFd;

use super::check;
use super::memory::{PAGE, Span};
use crate::fault::Errno;

/// `mprotect(2)`.
pub fn protect(span: Span, bits: i32) -> Result<(), Errno> {
    // SAFETY: a span's addresses belong to no Rust object; stores to it are guarded.
    check("mprotect", unsafe {
        libc::mprotect(span.pointer(), span.len(), bits)
    })
    .map(drop)
}

/// `memfd_create(2)`.
pub fn memfd(flags: u32) -> Result<RawFd, Errno> {
    // SAFETY: a C string and a number.
    check("memfd_create", unsafe {
        libc::memfd_create(c"step".as_ptr(), flags | libc::MFD_CLOEXEC)
    })
}

/// `memfd_secret(2)`.
pub fn secret() -> Result<RawFd, Errno> {
    // SAFETY: takes a number.
    let fd = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    check("memfd_secret", i32::try_from(fd).unwrap_or(-1))
}

/// `fcntl(F_ADD_SEALS)`.
pub fn seal(fd: RawFd, seals: i32) -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    check("fcntl F_ADD_SEALS", unsafe {
        libc::fcntl(fd, libc::F_ADD_SEALS, seals)
    })
    .map(drop)
}

/// Pages to move to a node, with room for what came of each.
pub struct Pages {
    addresses: Vec<*mut libc::c_void>,
    nodes: Vec<i32>,
    status: Vec<i32>,
}

impl Pages {
    /// Those of a span.
    pub fn new(span: Span, node: i32) -> Self {
        let pages = (0..span.len()).step_by(PAGE);
        let addresses: Vec<_> = pages
            .map(|offset| std::ptr::with_exposed_provenance_mut(span.address() + offset))
            .collect();
        Self {
            nodes: vec![node; addresses.len()],
            status: vec![0; addresses.len()],
            addresses,
        }
    }

    /// `move_pages(2)`.
    pub fn migrate(&mut self) -> Result<(), Errno> {
        const MPOL_MF_MOVE: i32 = 1 << 1;
        // SAFETY: the three lists are of the length given; moving a page changes no byte.
        let ret = unsafe {
            libc::syscall(
                libc::SYS_move_pages,
                0,
                self.addresses.len(),
                self.addresses.as_ptr(),
                self.nodes.as_ptr(),
                self.status.as_mut_ptr(),
                MPOL_MF_MOVE,
            )
        };
        check("move_pages", if ret < 0 { -1 } else { 0 }).map(drop)
    }

    /// The node where each page is, or a negative errno.
    pub fn status(&self) -> &[i32] {
        &self.status
    }
}
