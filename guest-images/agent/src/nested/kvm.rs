//! Can this machine make virtual machines, and will their clocks be right?

#![expect(unsafe_code, reason = "three ioctls of KVM")]

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

/// `KVM_CREATE_VM`, `_IO(KVMIO, 0x01)` of include/uapi/linux/kvm.h.
const KVM_CREATE_VM: libc::c_ulong = 0xae01;
/// `KVM_CREATE_VCPU`, `_IO(KVMIO, 0x41)`.
const KVM_CREATE_VCPU: libc::c_ulong = 0xae41;

/// `KVM_CREATE_IRQCHIP`, `_IO(KVMIO, 0x60)`.
const KVM_CREATE_IRQCHIP: libc::c_ulong = 0xae60;

/// Two idle virtual machines, one with an interrupt controller and one without, kept for as long as the agent lives.
///
/// KVM counts vCPUs in static keys (`preempt_notifier_key`, `apic_sw_disabled`, `kvm_has_noapic_vcpu`), and rewrites its code and the
/// scheduler's whenever such a count leaves or reaches zero. QEMU's emulated CPUs now and then execute a breakpoint
/// of such a rewriting after it was taken back, and the kernel dies of it (seen, in `__schedule`). With these two the counts never
/// are zero again, and the first guest need not switch virtualization on.
pub struct Kept {
    _fds: Vec<OwnedFd>,
}

impl Kept {
    /// Makes them; that it works is the proof that virtual machines can be made here.
    ///
    /// # Errors
    ///
    /// What could not be done, in words.
    pub fn make() -> Result<Self, String> {
        let kvm = File::options().read(true).write(true).open("/dev/kvm");
        let kvm = kvm.map_err(|why| format!("cannot open /dev/kvm: {why}"))?;
        let step =
            |fd: &OwnedFd, name, ioctl| make(fd, ioctl).map_err(|why| format!("{name}: {why}"));
        let kvm = OwnedFd::from(kvm);
        let mut fds = Vec::new();
        for has_irqchip in [true, false] {
            let vm = step(&kvm, "KVM_CREATE_VM", KVM_CREATE_VM)?;
            if has_irqchip {
                call(&vm, KVM_CREATE_IRQCHIP)
                    .map_err(|why| format!("KVM_CREATE_IRQCHIP: {why}"))?;
            }
            fds.push(step(&vm, "KVM_CREATE_VCPU", KVM_CREATE_VCPU)?);
            fds.push(vm);
        }
        Ok(Self { _fds: fds })
    }
}

/// Calls an ioctl that makes a descriptor.
fn make(fd: &OwnedFd, ioctl: libc::c_ulong) -> io::Result<OwnedFd> {
    let made = call(fd, ioctl)?;
    // SAFETY: the kernel has just made this descriptor for us, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

/// Calls an ioctl of this file with the argument 0 (plain VM type; vCPU number 0; nothing).
fn call(fd: &OwnedFd, ioctl: libc::c_ulong) -> io::Result<libc::c_int> {
    let zero: libc::c_ulong = 0;
    // SAFETY: the ioctls of this file take an integer or nothing, and touch no memory of ours.
    match unsafe { libc::ioctl(fd.as_raw_fd(), ioctl, zero) } {
        result @ 0.. => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
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
