//! Guest RAM: one memfd, mapped once, shared by vCPUs and devices.
//!
//! Promises: RAM keeps clear of the hole below 4 GiB and goes on above it; nothing is allocated
//! before the guest (or a device) touches it; the memory dies with the last clone of the map.
//! It does not promise that the host has the memory: only a size beyond the host's RAM is refused.

#![expect(
    unsafe_code,
    reason = "memfd_create, fallocate and madvise are system calls without a safe wrapper"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};

use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use crate::config::units::format_size;
use crate::host_memory;
use crate::layout::{HIGH_RAM_START, LOW_RAM_END};

/// Smallest memory of a machine, in bytes: the boot structures and a small payload.
pub const MIN_MEMORY: u64 = 2 << 20;
/// Size and alignment of a page, in bytes.
const PAGE: u64 = 4096;

/// Why there is no guest memory.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Less than [`MIN_MEMORY`].
    #[error(
        "memory of {bytes} bytes is too small: give the guest at least {MIN_MEMORY} bytes (for Linux 128M or more)"
    )]
    TooSmall {
        /// What was asked for.
        bytes: u64,
    },
    /// Not a whole number of pages.
    #[error("memory of {bytes} bytes is not a multiple of {PAGE}: use a size such as 512M or 1G")]
    NotPages {
        /// What was asked for.
        bytes: u64,
    },
    /// More than the host's RAM.
    #[error(
        "memory of {bytes} bytes is more than this host has ({host} bytes, or its control group may use): give a smaller --memory"
    )]
    MoreThanHost {
        /// What was asked for.
        bytes: u64,
        /// RAM of the host, or what our control group may use of it.
        host: u64,
    },
    /// The memfd could not be made or sized.
    #[error("cannot create guest memory of {bytes} bytes")]
    Create {
        /// What was asked for.
        bytes: u64,
        /// The system call's error.
        source: io::Error,
    },
    /// The memfd could not be mapped.
    #[error("cannot map guest memory of {bytes} bytes")]
    Map {
        /// What was asked for.
        bytes: u64,
        /// The mapping's error.
        source: vm_memory::mmap::FromRangesError,
    },
    /// The pages could not be given back to the host.
    #[error("cannot clear guest memory")]
    Clear(#[source] io::Error),
}

/// The address ranges of a machine with `bytes` of RAM: `(start, length)`, ascending.
#[must_use]
pub fn ranges(bytes: u64) -> Vec<(u64, u64)> {
    let low = bytes.min(LOW_RAM_END);
    let mut ranges = vec![(0, low)];
    if bytes > low {
        ranges.push((HIGH_RAM_START, bytes - low));
    }
    ranges
}

/// Makes the RAM of a machine with `bytes` of memory, all zero.
///
/// # Errors
/// Refuses sizes below [`MIN_MEMORY`], not a multiple of the page size, or beyond the host's RAM.
pub fn create(bytes: u64) -> Result<GuestMemoryMmap, MemoryError> {
    check_size(bytes, host_memory::total().unwrap_or(u64::MAX))?;
    warn_if_scarce(bytes);
    let file = memfd(bytes).map_err(|source| MemoryError::Create { bytes, source })?;
    let mut offset = 0;
    let mut files = Vec::new();
    for (start, len) in ranges(bytes) {
        let file = file
            .try_clone()
            .map_err(|source| MemoryError::Create { bytes, source })?;
        let len_usize = usize::try_from(len).expect("checked against the host's RAM");
        files.push((
            GuestAddress(start),
            len_usize,
            Some(FileOffset::new(file, offset)),
        ));
        offset += len;
    }
    let memory = GuestMemoryMmap::from_ranges_with_files(files)
        .map_err(|source| MemoryError::Map { bytes, source })?;
    prefer_huge_pages(&memory);
    Ok(memory)
}

/// Total bytes of RAM in `memory`.
#[must_use]
pub fn total_bytes(memory: &GuestMemoryMmap) -> u64 {
    memory.iter().map(GuestMemoryRegion::len).sum()
}

/// Gives every page back to the host; the guest then sees zeros.
///
/// # Errors
/// The host's error, for memory without a file or a host that cannot punch holes.
pub fn clear(memory: &GuestMemoryMmap) -> Result<(), MemoryError> {
    for region in memory.iter() {
        let Some(file) = region.file_offset() else {
            continue;
        };
        let start = libc::off_t::try_from(file.start())
            .map_err(|_| MemoryError::Clear(io::ErrorKind::InvalidInput.into()))?;
        let len = libc::off_t::try_from(region.len())
            .map_err(|_| MemoryError::Clear(io::ErrorKind::InvalidInput.into()))?;
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: plain system call on a descriptor that `region` keeps open; it changes the content
        // of guest memory, which is only ever accessed as volatile.
        if unsafe { libc::fallocate(file.file().as_raw_fd(), mode, start, len) } < 0 {
            return Err(MemoryError::Clear(io::Error::last_os_error()));
        }
    }
    Ok(())
}

fn check_size(bytes: u64, host: u64) -> Result<(), MemoryError> {
    if bytes < MIN_MEMORY {
        return Err(MemoryError::TooSmall { bytes });
    }
    if bytes > host {
        return Err(MemoryError::MoreThanHost { bytes, host });
    }
    if !bytes.is_multiple_of(PAGE) {
        return Err(MemoryError::NotPages { bytes });
    }
    Ok(())
}

/// The host may free more by the time the guest needs it, so this is no refusal.
fn warn_if_scarce(bytes: u64) {
    if let Some(available) = host_memory::available().filter(|available| *available < bytes) {
        log::warn!(
            "the guest may use {} of memory, but this host has only {} MiB to spare now",
            format_size(bytes),
            available >> 20
        );
    }
}

fn memfd(bytes: u64) -> io::Result<File> {
    // SAFETY: the name is a C string; the call has no other pointer.
    let fd = unsafe { libc::memfd_create(c"pincushion-ram".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just returned by the kernel and nobody else owns it.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(bytes)?;
    Ok(file)
}

/// Asks for huge pages: one nested page fault for 2 MiB instead of 512. Only a hint: it has an effect
/// where `/sys/kernel/mm/transparent_hugepage/shmem_enabled` is `advise`.
fn prefer_huge_pages(memory: &GuestMemoryMmap) {
    for region in memory.iter() {
        let len = usize::try_from(region.len()).expect("mapped");
        // SAFETY: the range is exactly the mapping of this region, and the advice changes no content.
        unsafe { libc::madvise(region.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::Bytes;

    use super::*;

    #[test]
    fn memory_beyond_three_gib_goes_on_above_the_hole() {
        assert_eq!(ranges(1 << 30), [(0, 1 << 30)]);
        assert_eq!(ranges(3 << 30), [(0, 3 << 30)]);
        assert_eq!(ranges(5 << 30), [(0, 3 << 30), (4 << 30, 2 << 30)]);
    }

    #[test]
    fn senseless_sizes_are_refused_each_with_its_own_error() {
        let host = 1 << 30;
        assert!(matches!(
            check_size(0, host),
            Err(MemoryError::TooSmall { .. })
        ));
        assert!(matches!(
            check_size(1, host),
            Err(MemoryError::TooSmall { .. })
        ));
        assert!(matches!(
            check_size(MIN_MEMORY + 1, host),
            Err(MemoryError::NotPages { .. })
        ));
        assert!(matches!(
            check_size(host + PAGE, host),
            Err(MemoryError::MoreThanHost { .. })
        ));
        assert!(check_size(host, host).is_ok());
    }

    #[test]
    fn cleared_memory_reads_zero() {
        let memory = create(MIN_MEMORY).unwrap();
        memory.write_obj(7u64, GuestAddress(0x1000)).unwrap();
        clear(&memory).unwrap();
        assert_eq!(memory.read_obj::<u64>(GuestAddress(0x1000)).unwrap(), 0);
        assert_eq!(total_bytes(&memory), MIN_MEMORY);
    }
}
