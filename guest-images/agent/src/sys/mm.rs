//! Calls on spans and files in memory.
#![expect(unsafe_code, reason = "calls that name memory by address")]

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};

use super::memory::{PAGE, Span};
use super::{check, check_len};
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

/// `process_vm_writev(2)` to this process. It may sleep for ever where a page of `from` is missing.
pub fn write_own_process(from: Span, to: Span) -> Result<usize, Errno> {
    let vector = |span: Span| libc::iovec {
        iov_base: span.pointer(),
        iov_len: span.len(),
    };
    let (local, remote) = (vector(from), vector(to));
    // SAFETY: both vectors name spans, which belong to no Rust object.
    check_len("process_vm_writev", unsafe {
        libc::process_vm_writev(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0)
    })
}

/// `ioctl(UDMABUF_CREATE)` (include/uapi/linux/udmabuf.h): the descriptor of a dma-buf.
pub fn udmabuf(device: &File, memfd: RawFd, offset: u64, size: u64) -> Result<RawFd, Errno> {
    /// `_IOW('u', 0x42, struct udmabuf_create)`.
    const UDMABUF_CREATE: u64 = 0x4018_7542;
    const UDMABUF_FLAGS_CLOEXEC: u64 = 1;
    let memfd = u64::from(memfd.cast_unsigned());
    let words = [memfd | UDMABUF_FLAGS_CLOEXEC << 32, offset, size];
    // SAFETY: the structure is these 24 bytes, which live across the call.
    check("ioctl UDMABUF_CREATE", unsafe {
        libc::ioctl(device.as_raw_fd(), UDMABUF_CREATE, words.as_ptr())
    })
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
