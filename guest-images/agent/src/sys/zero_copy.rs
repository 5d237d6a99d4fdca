//! MSG_ZEROCOPY and its completions (Documentation/networking/msg_zerocopy.rst).
#![expect(unsafe_code, reason = "socket calls with C structs")]

use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, OwnedFd};

use super::memory::Span;
use super::net::{inet, socket};
use super::{check, check_len};
use crate::fault::Errno;

const SO_EE_ORIGIN_ZEROCOPY: u8 = 5;
const SO_EE_CODE_ZEROCOPY_COPIED: u8 = 1;

/// A UDP socket that may send so, connected.
pub fn open(to: SocketAddrV4) -> Result<OwnedFd, Errno> {
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    let on = 1_i32;
    // SAFETY: the kernel reads one int, which lives across the call.
    check("setsockopt SO_ZEROCOPY", unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ZEROCOPY,
            (&raw const on).cast(),
            4,
        )
    })?;
    let mut address = inet(*to.ip());
    address.sin_port = to.port().to_be();
    let len = libc::socklen_t::try_from(size_of_val(&address)).unwrap_or(0);
    // SAFETY: the address is a live C struct of that length.
    check("connect", unsafe {
        libc::connect(socket.as_raw_fd(), (&raw const address).cast(), len)
    })?;
    Ok(socket)
}

/// `send(2)`: the pages stay in use until [`ended`] tells otherwise, whatever becomes of the mapping.
pub fn send(socket: &OwnedFd, bytes: Span) -> Result<usize, Errno> {
    // SAFETY: a span belongs to no Rust object; what is sent is what its pages have.
    check_len("send", unsafe {
        libc::send(
            socket.as_raw_fd(),
            bytes.pointer(),
            bytes.len(),
            libc::MSG_ZEROCOPY | libc::MSG_NOSIGNAL,
        )
    })
}

/// Sends that have ended, told at once.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// How many.
    pub sends: u64,
    /// Whether the kernel copied their bytes after all.
    pub copied: bool,
}

/// The next that the kernel tells of, without waiting.
pub fn ended(socket: &OwnedFd) -> Result<Option<Ended>, Errno> {
    let mut control = [0_u64; 16];
    // SAFETY: a msghdr is plain data for which zeros are valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: the message has no buffers, and room for control data that lives across the call.
    let received = check_len("recvmsg", unsafe {
        let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags)
    });
    match received {
        Err(Errno {
            number: libc::EAGAIN,
            ..
        }) => return Ok(None),
        received => received?,
    };
    // SAFETY: the kernel has filled the control data, whose first header is whole or none.
    let error = unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        let told = header.as_ref().is_some_and(|header| {
            header.cmsg_level == libc::SOL_IP && header.cmsg_type == libc::IP_RECVERR
        });
        told.then(|| {
            libc::CMSG_DATA(header)
                .cast::<libc::sock_extended_err>()
                .read_unaligned()
        })
    };
    Ok(error
        .filter(|error| error.ee_origin == SO_EE_ORIGIN_ZEROCOPY)
        .map(|error| Ended {
            sends: u64::from(error.ee_data.wrapping_sub(error.ee_info)) + 1,
            copied: error.ee_code & SO_EE_CODE_ZEROCOPY_COPIED != 0,
        }))
}
