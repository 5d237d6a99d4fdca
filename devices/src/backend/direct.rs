//! Direct I/O: what the host asks of addresses and lengths, and a detour for what does not fit.
//!
//! The geometry announces the block size, so an ordinary guest's requests fit on disk; its buffers may still lie
//! oddly in memory. Those go by way of an aligned [`Bounce`] buffer. A range that is not made of whole blocks is read
//! as whole blocks, and for a write these are changed and written back.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use rustix::fs::{AtFlags, StatxFlags, ioctl_blksszget, statx};
use vm_memory::{Bytes, GuestAddress};

use super::error::OpenError;
use super::vectored::Segments;
use super::work::Buffers;
use crate::trace::event::GuestRange;

/// Largest detour in bytes; a longer transfer goes in several.
pub(super) const BOUNCE_MAX: u64 = 1 << 20;

/// What direct I/O asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Alignment {
    /// Offsets and lengths are multiples of so many bytes (at least 512).
    pub(super) block: u32,
    /// Addresses in memory are multiples of so many bytes.
    pub(super) memory: u32,
}

impl Alignment {
    /// What the host says about a file opened with `O_DIRECT`.
    ///
    /// # Errors
    /// [`OpenError::NoDirectIo`].
    pub(super) fn of(file: &File, path: &Path) -> Result<Self, OpenError> {
        let told = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)
            .ok()
            .filter(|stat| {
                StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::DIOALIGN)
            });
        if let Some(stat) = told {
            if stat.stx_dio_offset_align == 0 {
                return Err(OpenError::NoDirectIo { path: path.into() });
            }
            return Ok(Self {
                block: stat.stx_dio_offset_align.max(512),
                memory: stat.stx_dio_mem_align.max(1),
            });
        }
        // Before Linux 6.1 only a device tells; for a file 4096 is safe everywhere.
        let is_device = file
            .metadata()
            .is_ok_and(|metadata| metadata.file_type().is_block_device());
        let block = if is_device {
            ioctl_blksszget(file).map_err(|errno| OpenError::host("measure", path)(errno.into()))?
        } else {
            4096
        };
        Ok(Self {
            block,
            memory: block,
        })
    }

    /// Whether a range of the disk is made of whole blocks.
    pub(super) fn fits_disk(self, offset: u64, len: u64) -> bool {
        let block = u64::from(self.block);
        offset.is_multiple_of(block) && len.is_multiple_of(block)
    }

    /// Whether the pieces of memory can be used as they are.
    pub(super) fn fits_memory(self, segments: &Segments) -> bool {
        segments.aligned(self.memory as usize, self.block as usize)
    }
}

/// A buffer at an aligned address.
#[derive(Debug)]
pub(super) struct Bounce {
    bytes: Box<[u8]>,
    start: usize,
    len: usize,
}

impl Bounce {
    /// `len` zero bytes that suit `alignment`.
    pub(super) fn new(alignment: Alignment, len: u64) -> Self {
        let step = alignment.memory.max(alignment.block) as usize;
        let len =
            usize::try_from(len).expect("a detour has at most BOUNCE_MAX bytes and two blocks");
        let bytes = vec![0; len + step].into_boxed_slice();
        let start = bytes.as_ptr().addr().next_multiple_of(step) - bytes.as_ptr().addr();
        Self { bytes, start, len }
    }

    /// The aligned bytes. The box keeps their address.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

/// Copies `to.len()` bytes out of the buffers, from their byte `at` on.
///
/// # Errors
/// `InvalidInput` if a range is outside the memory map or the buffers end before.
pub(super) fn gather(buffers: &Buffers, at: u64, to: &mut [u8]) -> io::Result<()> {
    match buffers {
        Buffers::None => short(to.len()),
        Buffers::Owned(bytes) => {
            let from = usize::try_from(at)
                .ok()
                .and_then(|at| bytes.get(at..)?.get(..to.len()));
            to.copy_from_slice(from.ok_or_else(too_short)?);
            Ok(())
        }
        Buffers::Guest { memory, ranges } => pieces(ranges, at, to.len(), |address, piece| {
            memory
                .read_slice(&mut to[piece], address)
                .map_err(io::Error::other)
        }),
    }
}

/// Copies `from` into the buffers, from their byte `at` on.
///
/// # Errors
/// As [`gather`].
pub(super) fn scatter(buffers: &mut Buffers, at: u64, from: &[u8]) -> io::Result<()> {
    match buffers {
        Buffers::None => short(from.len()),
        Buffers::Owned(bytes) => {
            let to = usize::try_from(at)
                .ok()
                .and_then(|at| bytes.get_mut(at..)?.get_mut(..from.len()));
            to.ok_or_else(too_short)?.copy_from_slice(from);
            Ok(())
        }
        Buffers::Guest { memory, ranges } => pieces(ranges, at, from.len(), |address, piece| {
            memory
                .write_slice(&from[piece], address)
                .map_err(io::Error::other)
        }),
    }
}

/// Walks `len` bytes of guest ranges from byte `at` on: where each piece is in memory, and in the copy.
fn pieces(
    ranges: &[GuestRange],
    at: u64,
    len: usize,
    mut piece: impl FnMut(GuestAddress, std::ops::Range<usize>) -> io::Result<()>,
) -> io::Result<()> {
    let mut skip = at;
    let mut done = 0;
    for range in ranges {
        if done == len {
            break;
        }
        if skip >= range.len {
            skip -= range.len;
            continue;
        }
        let count = usize::try_from(range.len - skip)
            .unwrap_or(usize::MAX)
            .min(len - done);
        let address = range.addr.checked_add(skip).ok_or_else(too_short)?;
        piece(GuestAddress(address), done..done + count)?;
        done += count;
        skip = 0;
    }
    short(len - done)
}

fn short(missing: usize) -> io::Result<()> {
    if missing == 0 {
        Ok(())
    } else {
        Err(too_short())
    }
}

fn too_short() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "the buffers are not as long as the transfer",
    )
}
