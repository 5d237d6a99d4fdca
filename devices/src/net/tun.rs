//! The system calls of a tap: opening one of its queues and telling the kernel what the guest can do.

#![expect(
    unsafe_code,
    reason = "the ioctls of /dev/net/tun have no safe wrapper; each call passes a live value of the type that the kernel expects"
)]

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt as _;

use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref, ioctl_with_val};

const TUNSETIFF: u64 = 0x4004_54ca;
const TUNSETPERSIST: u64 = 0x4004_54cb;
const TUNSETOFFLOAD: u64 = 0x4004_54d0;
const TUNSETVNETHDRSZ: u64 = 0x4004_54d8;
const TUNSETQUEUE: u64 = 0x4004_54d9;

/// Longest name of an interface in bytes, without the zero that ends it.
pub(super) const LONGEST_NAME: usize = libc::IFNAMSIZ - 1;

/// Opens a queue of a tap that exists, with a vnet header of `header` bytes before each frame, non-blocking.
///
/// # Errors
/// EPERM: it belongs to somebody else. EBUSY: another program has it. EINVAL: it is no tap, or was made without
/// `multi_queue` (or with it) where it is opened the other way.
pub(super) fn open(name: &str, multi_queue: bool, header: usize) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    if multi_queue {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    let mut request = named(name, flags);
    // SAFETY: the kernel reads and writes one ifreq, which lives across the call.
    check(unsafe { ioctl_with_mut_ref(&file, TUNSETIFF, &mut request) })?;
    let header = libc::c_int::try_from(header).unwrap_or(libc::c_int::MAX);
    // SAFETY: the kernel reads one int, which lives across the call.
    check(unsafe { ioctl_with_ref(&file, TUNSETVNETHDRSZ, &header) })?;
    Ok(file)
}

/// Makes a tap that stays until its namespace ends.
pub(super) fn create(name: &str, multi_queue: bool) -> io::Result<()> {
    let file = open(name, multi_queue, 12)?;
    // SAFETY: the argument is a number.
    check(unsafe { ioctl_with_val(&file, TUNSETPERSIST, 1) })
}

/// Moves the calling thread into a new network namespace.
pub(super) fn own_namespace() -> io::Result<()> {
    // SAFETY: only the thread's view of the network changes, which no memory depends on.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) })
}

/// Brings an interface up.
pub(super) fn set_up(name: &str) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let mut request = named(name, libc::IFF_UP);
    // SAFETY: the kernel reads one ifreq, which lives across the call.
    check(unsafe { ioctl_with_mut_ref(&socket, libc::SIOCSIFFLAGS, &mut request) })
}

/// Gives an interface its address.
pub(super) fn set_address(name: &str, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
    for (call, address) in [
        (libc::SIOCSIFADDR, u32::from(address)),
        (libc::SIOCSIFNETMASK, mask),
    ] {
        let mut request = named(name, 0);
        let [a, b, c, d] = address.to_be_bytes().map(u8::cast_signed);
        request.ifr_ifru.ifru_addr = libc::sockaddr {
            sa_family: 2,
            // Port, address, padding: a sockaddr_in.
            sa_data: [0, 0, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0],
        };
        // SAFETY: the kernel reads one ifreq, which lives across the call.
        check(unsafe { ioctl_with_mut_ref(&socket, call, &mut request) })?;
    }
    Ok(())
}

/// Says which offloads (`TUN_F_*`) the guest understands in what it receives.
pub(super) fn set_offloads(file: &File, offloads: u32) -> io::Result<()> {
    // SAFETY: the argument is a number.
    check(unsafe { ioctl_with_val(file, TUNSETOFFLOAD, offloads.into()) })
}

/// Whether the kernel gives frames to this queue of the tap.
pub(super) fn attach(file: &File, attached: bool) -> io::Result<()> {
    let request = request(if attached {
        libc::IFF_ATTACH_QUEUE
    } else {
        libc::IFF_DETACH_QUEUE
    });
    // SAFETY: the kernel reads one ifreq, which lives across the call.
    check(unsafe { ioctl_with_ref(file, TUNSETQUEUE, &request) })
}

fn named(name: &str, flags: libc::c_int) -> libc::ifreq {
    let mut request = request(flags);
    let bytes = name.bytes().take(LONGEST_NAME);
    for (place, byte) in request.ifr_name.iter_mut().zip(bytes) {
        *place = byte.cast_signed();
    }
    request
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the flags of a tap are 16 bits wide in the kernel's structure"
)]
fn request(flags: libc::c_int) -> libc::ifreq {
    libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: flags as libc::c_short,
        },
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
