//! The kernel's own benchmark of get_user_pages (mm/gup_test.c), by its file in debugfs.
#![expect(unsafe_code, reason = "an ioctl with a structure of ours")]

use std::os::fd::RawFd;

use super::check;
use super::memory::Span;
use crate::fault::Errno;

/// Where it is.
pub const PATH: &str = "/sys/kernel/debug/gup_test";

/// `_IOWR('g', 2, struct gup_test)`.
const PIN_FAST_BENCHMARK: u32 = 0xc050_6702;
const FOLL_WRITE: u32 = 1;

/// `struct gup_test` of mm/gup_test.h.
#[repr(C)]
#[derive(Default)]
struct GupTest {
    get_delta_usec: u64,
    put_delta_usec: u64,
    addr: u64,
    size: u64,
    nr_pages_per_call: u32,
    gup_flags: u32,
    test_flags: u32,
    which_pages: [u32; 8],
}

/// What one round has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// For all pins.
    pub pin_us: u64,
    /// For all unpins.
    pub unpin_us: u64,
    /// Bytes that were pinned: fewer than asked where a page could not be.
    pub bytes: u64,
}

/// Pins a span for writing by pin_user_pages_fast(), `pages` with each call, and unpins all of it.
pub fn pin_fast(fd: RawFd, span: Span, pages: u32) -> Result<Taken, Errno> {
    const {
        assert!(
            size_of::<GupTest>() == 0x50,
            "the size is in the ioctl's number"
        )
    };
    let mut test = GupTest {
        addr: span.address() as u64,
        size: span.len() as u64,
        nr_pages_per_call: pages,
        gup_flags: FOLL_WRITE,
        ..GupTest::default()
    };
    // SAFETY: the kernel reads and writes one structure of this layout, which outlives the call; the pages are those of a span, which
    // belongs to no Rust object, and they are only pinned.
    let ret = unsafe { libc::ioctl(fd, PIN_FAST_BENCHMARK as _, &raw mut test) };
    check("ioctl PIN_FAST_BENCHMARK", ret)?;
    Ok(Taken {
        pin_us: test.get_delta_usec,
        unpin_us: test.put_delta_usec,
        bytes: test.size,
    })
}
