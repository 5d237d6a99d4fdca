//! Where a file's blocks are, and sharing them.
#![expect(unsafe_code, reason = "ioctls with structures of ours")]

use std::os::fd::RawFd;

use super::check;
use crate::fault::Errno;

/// `_IOWR('f', 11, struct fiemap)`.
const FS_IOC_FIEMAP: u64 = 0xc020_660b;
/// `_IOR('v', 1, long)`; the kernel writes an int.
const FS_IOC_GETVERSION: u64 = 0x8008_7601;
/// `_IOW(0x94, 9, int)`.
const FICLONE: u64 = 0x4004_9409;
/// Words of 64 bits in `struct fiemap` and in `struct fiemap_extent` (include/uapi/linux/fiemap.h).
const HEADER: usize = 4;
const EXTENT: usize = 7;

/// One piece of a file; in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// In the file.
    pub logical: u64,
    /// On the block device.
    pub physical: u64,
    /// How long.
    pub len: u64,
    /// `FIEMAP_EXTENT_*`.
    pub flags: u64,
}

/// Room for `FS_IOC_FIEMAP`'s answer, made before the call.
pub struct Fiemap {
    words: Vec<u64>,
}

impl Fiemap {
    /// Room for `count` extents.
    pub fn new(count: usize) -> Self {
        let mut words = vec![0; HEADER + EXTENT * count];
        words[1] = u64::MAX;
        // fm_extent_count is the low half of the word whose high half is reserved.
        words[3] = count as u64;
        Self { words }
    }

    /// Asks for the whole file.
    pub fn ask(&mut self, fd: RawFd) -> Result<(), Errno> {
        // SAFETY: the buffer has a header that says how many extents follow it, and that many.
        let ret = unsafe { libc::ioctl(fd, FS_IOC_FIEMAP, self.words.as_mut_ptr()) };
        check("ioctl FS_IOC_FIEMAP", ret).map(drop)
    }

    /// What the kernel said.
    pub fn extents(&self) -> Vec<Extent> {
        // fm_mapped_extents is the high half of the word whose low half is fm_flags.
        let mapped = usize::try_from(self.words[2] >> 32).unwrap_or(0);
        let extents = self.words[HEADER..].chunks_exact(EXTENT).take(mapped);
        extents
            .map(|words| Extent {
                logical: words[0],
                physical: words[1],
                len: words[2],
                flags: words[5] & u64::from(u32::MAX),
            })
            .collect()
    }
}

/// Inode and generation; the latter 0 where the file system has none.
pub fn identity(fd: RawFd) -> Result<(u64, u32), Errno> {
    // SAFETY: stat is plain data, all zeros is a value of it.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is ours.
    check("fstat", unsafe { libc::fstat(fd, &raw mut stat) })?;
    let mut generation = [0u32; 2];
    // SAFETY: room for a long, of which the kernel writes an int. A failure leaves it 0.
    unsafe { libc::ioctl(fd, FS_IOC_GETVERSION, generation.as_mut_ptr()) };
    Ok((stat.st_ino, generation[0]))
}

/// `ioctl(FICLONE)`.
pub fn clone(from: RawFd, to: RawFd) -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    check("ioctl FICLONE", unsafe { libc::ioctl(to, FICLONE, from) }).map(drop)
}
