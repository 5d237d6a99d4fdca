//! I/O ports from user space.
#![expect(unsafe_code, reason = "iopl and the out instruction")]

use std::arch::asm;

use super::check;
use crate::fault::Errno;

/// Lets this thread, and the threads and children that it makes from now on, use all I/O ports.
pub fn allow() -> Result<(), Errno> {
    // SAFETY: the call changes a flag of this thread and touches no memory.
    let ret = unsafe { libc::syscall(libc::SYS_iopl, 3) };
    check("iopl", if ret < 0 { -1 } else { 0 }).map(drop)
}

/// Writes 32 bits to a port. Dies by SIGSEGV without [`allow`], which `IoPorts::open` sees to.
pub fn outl(port: u16, value: u32) {
    // SAFETY: the ports are a pincushion machine's own, whose writes touch no guest memory. The
    // compiler may not move memory accesses across (no `nomem`): a mark separates what the guest
    // did before from what it does after.
    unsafe {
        asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags))
    };
}
