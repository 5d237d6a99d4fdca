//! Ioctls of a mounted file system: freezing it, and fs-verity.
#![expect(
    unsafe_code,
    reason = "ioctls with numbers and a struct of the kernel's"
)]

use std::os::fd::RawFd;

use super::check;
use crate::fault::Errno;

/// `_IOWR('X', 119, int)`.
const FIFREEZE: u64 = 0xc004_5877;
/// `_IOWR('X', 120, int)`.
const FITHAW: u64 = 0xc004_5878;

/// `_IOW('f', 133, struct fsverity_enable_arg)`.
const FS_IOC_ENABLE_VERITY: u64 = 0x4080_6685;

/// `struct fsverity_enable_arg` (include/uapi/linux/fsverity.h).
#[repr(C)]
struct EnableVerity {
    version: u32,
    hash_algorithm: u32,
    block_size: u32,
    salt_size: u32,
    salt: u64,
    signature_size: u32,
    reserved: u32,
    signature: u64,
    reserved_too: [u64; 11],
}

/// `ioctl(FIFREEZE)` of the file system that a descriptor is on.
pub fn freeze(fd: RawFd) -> Result<(), Errno> {
    // SAFETY: takes a number.
    check("ioctl FIFREEZE", unsafe { libc::ioctl(fd, FIFREEZE, 0) }).map(drop)
}

/// `ioctl(FITHAW)`.
pub fn thaw(fd: RawFd) -> Result<(), Errno> {
    // SAFETY: takes a number.
    check("ioctl FITHAW", unsafe { libc::ioctl(fd, FITHAW, 0) }).map(drop)
}

/// `ioctl(FS_IOC_ENABLE_VERITY)` with FS_VERITY_HASH_ALG_SHA256, blocks of 4096 bytes, no salt and no signature.
pub fn enable_verity(fd: RawFd) -> Result<(), Errno> {
    let how = EnableVerity {
        version: 1,
        hash_algorithm: 1,
        block_size: 4096,
        salt_size: 0,
        salt: 0,
        signature_size: 0,
        reserved: 0,
        signature: 0,
        reserved_too: [0; 11],
    };
    // SAFETY: the kernel reads `how`, which is as long as the number says, and outlives the call.
    let ret = unsafe { libc::ioctl(fd, FS_IOC_ENABLE_VERITY, &raw const how) };
    check("ioctl FS_IOC_ENABLE_VERITY", ret).map(drop)
}
