//! Places an initrd in guest memory: as high as every kernel accepts, clear of the kernel.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::entry::Initrd;
use crate::layout::LOW_RAM_END;
use crate::memory::total_bytes;

/// Highest end that old kernels accept (`initrd_addr_max` of a bzImage is 0x7fff_ffff).
const INITRD_LIMIT: u64 = 0x8000_0000;

/// Why an initrd was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum InitrdError {
    /// The file could not be opened or read.
    #[error("cannot read initrd {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// No room beside the kernel.
    #[error(
        "initrd {path} of {len} bytes does not fit beside the kernel: {room} bytes are free below 2 GiB; raise --memory"
    )]
    TooBig {
        /// The file.
        path: PathBuf,
        /// Its length.
        len: u64,
        /// Bytes between the kernel and the end of usable memory.
        room: u64,
    },
    /// The file changed while it was read.
    #[error("initrd {path} could not be copied into guest memory: {source}")]
    Copy {
        /// The file.
        path: PathBuf,
        /// The memory's error.
        source: vm_memory::GuestMemoryError,
    },
}

/// Loads the file at `path` above `kernel_end`.
///
/// # Errors
/// See [`InitrdError`].
pub fn load(path: &Path, kernel_end: u64, memory: &GuestMemoryMmap) -> Result<Initrd, InitrdError> {
    let read_error = |source| InitrdError::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(read_error)?;
    let len = file.metadata().map_err(read_error)?.len();
    let top = total_bytes(memory).min(LOW_RAM_END).min(INITRD_LIMIT);
    let start = place(len, kernel_end, top).ok_or_else(|| InitrdError::TooBig {
        path: path.to_owned(),
        len,
        room: top.saturating_sub(kernel_end.next_multiple_of(4096)),
    })?;
    let bytes = usize::try_from(len).expect("fits into guest memory");
    memory
        .read_exact_volatile_from(GuestAddress(start), &mut file, bytes)
        .map_err(|source| InitrdError::Copy {
            path: path.to_owned(),
            source,
        })?;
    Ok(Initrd { start, len })
}

/// The highest page below `top` that leaves `len` bytes and does not touch the kernel.
fn place(len: u64, kernel_end: u64, top: u64) -> Option<u64> {
    let start = top.checked_sub(len)? & !0xfff;
    (start >= kernel_end).then_some(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_initrd_ends_below_the_top_and_starts_on_a_page() {
        assert_eq!(place(0x1001, 0x10_0000, 0x40_0000), Some(0x3f_e000));
    }

    #[test]
    fn an_initrd_that_would_touch_the_kernel_is_refused() {
        assert_eq!(place(0x30_0000, 0x10_0001, 0x40_0000), None);
        assert_eq!(place(0x30_0000, 0x10_0000, 0x40_0000), Some(0x10_0000));
        assert_eq!(place(u64::MAX, 0x10_0000, 0x40_0000), None);
    }
}
