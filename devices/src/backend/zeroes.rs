//! Giving blocks back and making ranges read as zeros, by what the file system can do.
//!
//! What a file system can do is asked once where it can be asked without changing the image, and otherwise
//! learned from the first refusal. Writing zeros is what always works.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use rustix::fs::{FallocateFlags, fallocate, major, minor};

/// What the file system has not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Zeroing {
    punch: bool,
    zero: bool,
}

impl Zeroing {
    /// Of a read-only image.
    pub(super) fn none() -> Self {
        Self {
            punch: false,
            zero: false,
        }
    }

    /// Asks without changing anything.
    pub(super) fn probe(file: &File, size: u64) -> Self {
        let is_device = file
            .metadata()
            .is_ok_and(|metadata| metadata.file_type().is_block_device());
        let able = if is_device {
            device_can_zero(file).unwrap_or(false)
        } else {
            // Behind the end there is nothing to give back, yet a file system without holes says so.
            punch(file, size, 4096).is_ok()
        };
        Self {
            punch: able,
            // Zeroing behind the end would allocate blocks there, so this one is learned.
            zero: !is_device || able,
        }
    }

    /// Whether a discard really gives blocks back.
    pub(super) fn can_punch(self) -> bool {
        self.punch
    }

    /// The `fallocate` modes to try in this order before zeros are written.
    pub(super) fn modes(self, unmap: bool) -> impl Iterator<Item = FallocateFlags> {
        let punch = self.punch.then_some(PUNCH);
        let zero = self.zero.then_some(ZERO);
        // Without `unmap` the blocks stay allocated, so that a later write cannot find the disk full.
        let order = if unmap { [punch, zero] } else { [zero, None] };
        order.into_iter().flatten()
    }

    /// Remembers that the file system has no `mode`.
    pub(super) fn refused(&mut self, mode: FallocateFlags) {
        if mode == ZERO {
            self.zero = false;
        }
    }
}

/// Frees the range's blocks; it reads as zeros then.
pub(super) const PUNCH: FallocateFlags =
    FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);
/// Makes the range read as zeros and keeps its blocks.
pub(super) const ZERO: FallocateFlags = FallocateFlags::ZERO_RANGE.union(FallocateFlags::KEEP_SIZE);

/// Gives the blocks of a range back.
///
/// # Errors
/// What the host says.
pub(super) fn punch(file: &File, offset: u64, len: u64) -> io::Result<()> {
    allocate(file, PUNCH, offset, len)
}

/// Largest logical block of a device, in bytes, that a discard is cut to.
const BLOCK_MAX: u64 = 4096;

/// Gives back what it can of a range: a device keeps blocks of which only a part was named.
///
/// # Errors
/// What the host says.
pub(super) fn discard(file: &File, offset: u64, len: u64) -> io::Result<()> {
    match punch(file, offset, len) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let start = offset.next_multiple_of(BLOCK_MAX);
            let end = (offset + len) / BLOCK_MAX * BLOCK_MAX;
            punch(file, start, end.saturating_sub(start))
        }
        answer => answer,
    }
}

/// `fallocate`, again after a signal.
///
/// # Errors
/// What the host says.
pub(super) fn allocate(file: &File, mode: FallocateFlags, offset: u64, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    Ok(rustix::io::retry_on_intr(|| {
        fallocate(file, mode, offset, len)
    })?)
}

/// Whether an error of `fallocate` means "not here, not this way" rather than "the disk is broken".
pub(super) fn is_refusal(error: &io::Error) -> bool {
    // A block device says EINVAL for a range that is not made of its blocks.
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOSYS)
    )
}

/// Asks sysfs, since on a device even a look beyond the end is an error.
fn device_can_zero(file: &File) -> io::Result<bool> {
    let device = file.metadata()?.rdev();
    let base = format!("/sys/dev/block/{}:{}", major(device), minor(device));
    // A partition's queue is its disk's.
    let limit = std::fs::read_to_string(format!("{base}/queue/write_zeroes_max_bytes"))
        .or_else(|_| std::fs::read_to_string(format!("{base}/../queue/write_zeroes_max_bytes")))?;
    Ok(limit.trim().parse::<u64>().is_ok_and(|bytes| bytes > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_given_back_only_if_the_guest_allows_it() {
        let able = Zeroing {
            punch: true,
            zero: true,
        };
        assert_eq!(able.modes(true).collect::<Vec<_>>(), [PUNCH, ZERO]);
        assert_eq!(able.modes(false).collect::<Vec<_>>(), [ZERO]);
        assert_eq!(Zeroing::none().modes(true).count(), 0);
    }

    #[test]
    fn a_refused_zero_range_is_not_tried_again() {
        let mut able = Zeroing {
            punch: true,
            zero: true,
        };
        able.refused(ZERO);
        assert_eq!(able.modes(false).count(), 0);
        assert!(able.can_punch());
    }
}
