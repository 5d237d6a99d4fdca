//! Calls on paths, mounts and modules.
#![expect(unsafe_code, reason = "libc calls with C strings")]

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::AsRawFd;

use super::check;
use crate::fault::Errno;

/// `mount(2)`.
pub fn mount(
    source: &CStr,
    target: &CStr,
    fstype: &CStr,
    flags: u64,
    data: &CStr,
) -> Result<(), Errno> {
    let data = if data.is_empty() {
        std::ptr::null()
    } else {
        data.as_ptr().cast()
    };
    // SAFETY: all are C strings that outlive the call.
    let ret = unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            fstype.as_ptr(),
            flags,
            data,
        )
    };
    check("mount", ret).map(drop)
}

/// `umount(2)`.
pub fn umount(target: &CStr) -> Result<(), Errno> {
    // SAFETY: a C string that outlives the call.
    check("umount2", unsafe { libc::umount2(target.as_ptr(), 0) }).map(drop)
}

/// `unlink(2)`.
pub fn unlink(path: &CStr) -> Result<(), Errno> {
    // SAFETY: a C string that outlives the call.
    check("unlink", unsafe { libc::unlink(path.as_ptr()) }).map(drop)
}

/// `rename(2)`.
pub fn rename(from: &CStr, to: &CStr) -> Result<(), Errno> {
    // SAFETY: C strings that outlive the call.
    check("rename", unsafe {
        libc::rename(from.as_ptr(), to.as_ptr())
    })
    .map(drop)
}

/// `finit_module(2)` without parameters; `compressed` lets the kernel unpack it.
pub fn load_module(module: &File, compressed: bool) -> Result<(), Errno> {
    const MODULE_INIT_COMPRESSED_FILE: i32 = 4;
    let flags = if compressed {
        MODULE_INIT_COMPRESSED_FILE
    } else {
        0
    };
    // SAFETY: an open descriptor, a C string, a number.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_finit_module,
            module.as_raw_fd(),
            c"".as_ptr(),
            flags,
        )
    };
    check("finit_module", if ret < 0 { -1 } else { 0 }).map(drop)
}
