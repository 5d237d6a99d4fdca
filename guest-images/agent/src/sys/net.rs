//! Sockets and interfaces, as far as std has no way to them.
#![expect(unsafe_code, reason = "libc calls on sockets and their C structs")]

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::{check, check_len};
use crate::fault::Errno;

/// `socket(2)`.
pub fn socket(domain: i32, kind: i32, protocol: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: takes numbers only.
    let fd = check("socket", unsafe {
        libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol)
    })?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An interface's place in the kernel's table.
pub fn index(name: &str) -> Result<u32, Errno> {
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    let request = ioctl(&socket, libc::SIOCGIFINDEX, named(name))?;
    // SAFETY: the call has filled this member.
    Ok(unsafe { request.ifr_ifru.ifru_ifindex }.cast_unsigned())
}

/// Brings an interface up or down.
pub fn set_up(name: &str, up: bool) -> Result<(), Errno> {
    set_flag(name, libc::IFF_UP, up)
}

/// Whether an interface asks for its neighbours' addresses.
pub fn set_arp(name: &str, arp: bool) -> Result<(), Errno> {
    set_flag(name, libc::IFF_NOARP, !arp)
}

fn set_flag(name: &str, flag: i32, on: bool) -> Result<(), Errno> {
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    let mut request = ioctl(&socket, libc::SIOCGIFFLAGS, named(name))?;
    // SAFETY: the call has filled this member.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    let flag = i16::try_from(flag).unwrap_or(0);
    request.ifr_ifru.ifru_flags = if on { flags | flag } else { flags & !flag };
    ioctl(&socket, libc::SIOCSIFFLAGS, request).map(drop)
}

/// Sets an interface's longest packet.
pub fn set_mtu(name: &str, mtu: u32) -> Result<(), Errno> {
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    let mut request = named(name);
    request.ifr_ifru.ifru_mtu = i32::try_from(mtu).unwrap_or(i32::MAX);
    ioctl(&socket, libc::SIOCSIFMTU, request).map(drop)
}

/// Gives an interface its address.
pub fn set_address(name: &str, address: Ipv4Addr, prefix: u32) -> Result<(), Errno> {
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    let mask = u32::MAX.checked_shl(32 - prefix.min(32)).unwrap_or(0);
    for (call, address) in [
        (libc::SIOCSIFADDR, address),
        (libc::SIOCSIFNETMASK, Ipv4Addr::from(mask)),
    ] {
        let mut request = named(name);
        // SAFETY: both are plain C structs of the same size.
        request.ifr_ifru.ifru_addr = unsafe { std::mem::transmute_copy(&inet(address)) };
        ioctl(&socket, call, request)?;
    }
    Ok(())
}

fn named(name: &str) -> libc::ifreq {
    // SAFETY: an ifreq is plain data for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let places = request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1);
    for (place, byte) in places.zip(name.bytes()) {
        *place = byte.cast_signed();
    }
    request
}

fn ioctl(
    socket: &OwnedFd,
    call: libc::c_ulong,
    mut request: libc::ifreq,
) -> Result<libc::ifreq, Errno> {
    // SAFETY: the kernel reads and writes one ifreq, which lives across the call.
    check("ioctl", unsafe {
        libc::ioctl(socket.as_raw_fd(), call, &raw mut request)
    })?;
    Ok(request)
}

pub(super) fn inet(address: Ipv4Addr) -> libc::sockaddr_in {
    // SAFETY: a sockaddr_in is plain data for which zeros are valid.
    let mut socket: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    socket.sin_family = u16::try_from(libc::AF_INET).unwrap_or(2);
    socket.sin_addr.s_addr = u32::from(address).to_be();
    socket
}

/// Binds a packet socket to an interface and an Ethernet type.
pub fn bind_packet(socket: &OwnedFd, index: u32, ether_type: u16) -> Result<(), Errno> {
    // SAFETY: a sockaddr_ll is plain data for which zeros are valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or(17);
    address.sll_protocol = ether_type.to_be();
    address.sll_ifindex = index.cast_signed();
    bind(socket, &address)?;
    // The kernel leaves ENETDOWN at the socket where the interface is down now; it may come up.
    let (mut error, mut len) = (0_i32, 4);
    // SAFETY: the kernel writes one int, which lives across the call.
    check("getsockopt", unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ERROR,
            (&raw mut error).cast(),
            &raw mut len,
        )
    })
    .map(drop)
}

/// `bind(2)` to any kind of address.
pub(super) fn bind<T>(socket: &OwnedFd, address: &T) -> Result<(), Errno> {
    let len = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0);
    // SAFETY: the address is a live C struct of that length.
    check("bind", unsafe {
        libc::bind(socket.as_raw_fd(), std::ptr::from_ref(address).cast(), len)
    })
    .map(drop)
}

/// `sendto(2)` an IPv4 address.
pub fn send_to(socket: &OwnedFd, bytes: &[u8], address: Ipv4Addr) -> Result<usize, Errno> {
    let to = inet(address);
    let len = libc::socklen_t::try_from(size_of_val(&to)).unwrap_or(0);
    // SAFETY: buffer and address live across the call.
    check_len("sendto", unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            0,
            (&raw const to).cast(),
            len,
        )
    })
}

/// `send(2)`.
pub fn send(socket: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
    // SAFETY: the buffer lives across the call.
    check_len("send", unsafe {
        libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0)
    })
}

/// `recv(2)` without waiting; `None` if nothing is there.
pub fn receive(socket: &OwnedFd, into: &mut [u8]) -> Result<Option<usize>, Errno> {
    // SAFETY: the buffer is ours for the length given.
    let result = check_len("recv", unsafe {
        let flags = libc::MSG_DONTWAIT;
        libc::recv(
            socket.as_raw_fd(),
            into.as_mut_ptr().cast(),
            into.len(),
            flags,
        )
    });
    match result {
        Err(Errno {
            number: libc::EAGAIN,
            ..
        }) => Ok(None),
        result => result.map(Some),
    }
}

/// Waits until a descriptor is readable, at most so long.
pub fn wait_readable(fd: RawFd, limit: Duration) -> Result<(), Errno> {
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    let limit = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: one pollfd, which lives across the call.
    check("poll", unsafe { libc::poll(&raw mut poll, 1, limit) }).map(drop)
}
