//! Memory that steps play with, apart from the agent's own.
//!
//! Mappings lie in an address range of their own and an address is never given out twice. So a step
//! that still uses a mapping which another thread has unmapped gets EFAULT, and cannot hit memory
//! that the allocator took over. That is what makes [`Span`] safe to use.
#![expect(unsafe_code, reason = "mmap and its relatives")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::check;
use crate::fault::Errno;

/// Bytes of a page; the agent is for x86-64.
pub const PAGE: usize = 4096;
/// Alignment of each mapping, so that huge pages are possible.
const ALIGN: usize = 2 << 20;
/// Where mappings begin: far from where the kernel puts programs, heaps and stacks.
static NEXT: AtomicUsize = AtomicUsize::new(0x1000_0000_0000);
const END: usize = 0x5000_0000_0000;

/// A part of a mapping made by [`map`]; copies like a number, and may outlive the mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    address: usize,
    len: usize,
}

impl Span {
    /// First address.
    pub fn address(self) -> usize {
        self.address
    }

    /// Length in bytes.
    pub fn len(self) -> usize {
        self.len
    }

    /// The part from `offset` on of `len` bytes; `None` where it is not inside.
    pub fn part(self, offset: usize, len: usize) -> Option<Self> {
        let end = offset.checked_add(len)?;
        (end <= self.len).then(|| Self {
            address: self.address + offset,
            len,
        })
    }

    /// For the kernel, and for the guarded copy.
    pub(super) fn pointer(self) -> *mut libc::c_void {
        std::ptr::with_exposed_provenance_mut(self.address)
    }
}

/// Addresses for `len` bytes that were never used before.
fn fresh(call: &'static str, len: usize) -> Result<Span, Errno> {
    let too_big = Errno {
        call,
        number: libc::ENOMEM,
    };
    // A gap behind each mapping, so that a store past its end is seen.
    let room = len.checked_add(2 * ALIGN - 1).ok_or(too_big)? & !(ALIGN - 1);
    let address = NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
        next.checked_add(room).filter(|end| *end <= END)
    });
    Ok(Span {
        address: address.map_err(|_| too_big)?,
        len,
    })
}

/// `mmap(2)` of `len` bytes at an address of its own. `flags` is MAP_SHARED or MAP_PRIVATE, with
/// MAP_ANONYMOUS where `fd` is `None`.
pub fn map(
    len: usize,
    protection: i32,
    flags: i32,
    fd: Option<RawFd>,
    offset: i64,
) -> Result<Span, Errno> {
    let span = fresh("mmap", len)?;
    let flags = flags | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: NOREPLACE cannot take away memory that is in use.
    let got = unsafe {
        libc::mmap(
            span.pointer(),
            len,
            protection,
            flags,
            fd.unwrap_or(-1),
            offset,
        )
    };
    if got == libc::MAP_FAILED {
        Err(Errno::last("mmap"))
    } else {
        Ok(span)
    }
}

/// `count` times the same page of a file, one behind the other, shared and writable: each is a mapping of its own, as the same page cannot be
/// in one twice. What was mapped before a failure stays.
pub fn map_again_and_again(fd: RawFd, offset: i64, count: u32) -> Result<Span, Errno> {
    let len = (count as usize).saturating_mul(PAGE);
    let all = fresh("mmap", len)?;
    for at in (0..len).step_by(PAGE) {
        // SAFETY: NOREPLACE cannot take away memory that is in use.
        let got = unsafe {
            libc::mmap(
                all.pointer().wrapping_byte_add(at),
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE,
                fd,
                offset,
            )
        };
        if got == libc::MAP_FAILED {
            return Err(Errno::last("mmap"));
        }
    }
    Ok(all)
}

/// `munmap(2)`.
pub fn unmap(span: Span) -> Result<(), Errno> {
    // SAFETY: a span's addresses belong to no Rust object.
    check("munmap", unsafe { libc::munmap(span.pointer(), span.len) }).map(drop)
}

/// `mremap(2)` to an address of its own.
pub fn remap(span: Span) -> Result<Span, Errno> {
    let to = fresh("mremap", span.len)?;
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: nothing was ever at the new address, and no Rust object is at the old one.
    let got = unsafe { libc::mremap(span.pointer(), span.len, to.len, flags, to.pointer()) };
    if got == libc::MAP_FAILED {
        Err(Errno::last("mremap"))
    } else {
        Ok(to)
    }
}

/// `msync(2)`.
pub fn msync(span: Span, flags: i32) -> Result<(), Errno> {
    // SAFETY: changes no memory.
    check("msync", unsafe {
        libc::msync(span.pointer(), span.len, flags)
    })
    .map(drop)
}

/// `madvise(2)`.
pub fn madvise(span: Span, advice: i32) -> Result<(), Errno> {
    // SAFETY: whatever the advice does to the span's bytes, no Rust object is there.
    check("madvise", unsafe {
        libc::madvise(span.pointer(), span.len, advice)
    })
    .map(drop)
}

/// A page-aligned buffer of the agent's own, zeroed, fit for O_DIRECT.
pub struct Buffer {
    bytes: NonNull<u8>,
    layout: Layout,
    len: usize,
}

impl Buffer {
    /// Of `len` bytes. ENOMEM where that cannot be had.
    pub fn new(len: usize) -> Result<Self, Errno> {
        let no_memory = Errno {
            call: "buffer",
            number: libc::ENOMEM,
        };
        let layout = Layout::from_size_align(len.max(1), PAGE).map_err(|_| no_memory)?;
        // SAFETY: the layout's size is not zero.
        let bytes = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(no_memory)?;
        Ok(Self { bytes, layout, len })
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: allocated and zeroed in `new`, borrowed as `self` is.
        unsafe { std::slice::from_raw_parts(self.bytes.as_ptr(), self.len) }
    }

    /// The bytes, to change.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: allocated and zeroed in `new`, borrowed as `self` is.
        unsafe { std::slice::from_raw_parts_mut(self.bytes.as_ptr(), self.len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.bytes.as_ptr(), self.layout) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_never_given_out_twice() {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let one = map(PAGE, libc::PROT_READ, flags, None, 0).unwrap();
        unmap(one).unwrap();
        let two = map(PAGE, libc::PROT_READ, flags, None, 0).unwrap();
        assert_ne!(one.address(), two.address());
        assert_eq!(two.address() % ALIGN, 0);
        unmap(two).unwrap();
    }

    #[test]
    fn a_part_lies_inside_or_is_none() {
        let span = Span {
            address: 0x1000,
            len: 100,
        };
        assert_eq!(span.part(10, 90).map(Span::len), Some(90));
        assert_eq!(span.part(10, 91), None);
        assert_eq!(span.part(usize::MAX, 2), None);
    }

    #[test]
    fn a_mapping_of_impossible_length_is_refused() {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        assert_eq!(
            map(usize::MAX, libc::PROT_READ, flags, None, 0).map_err(|e| e.number),
            Err(libc::ENOMEM)
        );
    }
}
