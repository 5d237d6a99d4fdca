//! Can this machine make virtual machines, and will their clocks be right?

#![expect(unsafe_code, reason = "two ioctls of KVM without arguments")]

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

/// `KVM_CREATE_VM`, `_IO(KVMIO, 0x01)` of include/uapi/linux/kvm.h.
const KVM_CREATE_VM: libc::c_ulong = 0xae01;
/// `KVM_CREATE_VCPU`, `_IO(KVMIO, 0x41)`.
const KVM_CREATE_VCPU: libc::c_ulong = 0xae41;

/// Says why no virtual machine can be made here; `None`: one with a vCPU was just made.
#[must_use]
pub fn virtualization_trouble() -> Option<String> {
    let kvm = match File::options().read(true).write(true).open("/dev/kvm") {
        Ok(kvm) => kvm,
        Err(why) => return Some(format!("cannot open /dev/kvm: {why}")),
    };
    match make(&kvm, KVM_CREATE_VM) {
        Err(why) => Some(format!("KVM_CREATE_VM: {why}")),
        Ok(vm) => make(&vm, KVM_CREATE_VCPU)
            .err()
            .map(|why| format!("KVM_CREATE_VCPU: {why}")),
    }
}

/// Calls an ioctl that makes a descriptor, with the argument 0 (plain VM type; vCPU number 0).
fn make(fd: &impl AsRawFd, ioctl: libc::c_ulong) -> io::Result<OwnedFd> {
    let zero: libc::c_ulong = 0;
    // SAFETY: both ioctls take an integer and touch no memory of ours.
    let made = unsafe { libc::ioctl(fd.as_raw_fd(), ioctl, zero) };
    if made < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

/// The line by which `arch/x86/kvm/x86.c` (`set_tsc_khz`) tells that it will run a vCPU at the wrong rate: the
/// kernel refined its TSC calibration after KVM had taken over the first guess. Guests then hang when they go idle.
#[must_use]
pub fn tsc_trouble() -> Option<String> {
    let mut log = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/kmsg")
        .ok()?;
    let mut record = vec![0; 8192];
    loop {
        match log.read(&mut record) {
            Ok(len) => {
                let line = String::from_utf8_lossy(&record[..len]);
                if line.contains("user requested TSC rate") {
                    return Some(line.trim_end().to_owned());
                }
            }
            // The ring overtook us: the next read goes on at its new start.
            Err(why) if why.raw_os_error() == Some(libc::EPIPE) => {}
            // EAGAIN is the end of the log.
            Err(_) => return None,
        }
    }
}
