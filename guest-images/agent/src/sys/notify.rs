//! Waiting for a path: inotify for directories, uevents for what the kernel makes without telling
//! inotify (sysfs).
#![expect(unsafe_code, reason = "inotify, netlink and poll by their C structs")]

use std::ffi::CStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::{check, check_len};
use crate::fault::Errno;

/// Descriptors that become readable when something may have changed.
pub struct Watch {
    inotify: OwnedFd,
    uevents: Option<OwnedFd>,
}

impl Watch {
    /// Opens both. A system without uevents (an unprivileged test) has inotify alone.
    pub fn new() -> Result<Self, Errno> {
        let flags = libc::IN_CLOEXEC | libc::IN_NONBLOCK;
        // SAFETY: takes numbers only.
        let inotify = check("inotify_init1", unsafe { libc::inotify_init1(flags) })?;
        Ok(Self {
            // SAFETY: just made and nobody else's.
            inotify: unsafe { OwnedFd::from_raw_fd(inotify) },
            uevents: uevent_socket().ok(),
        })
    }

    /// Also wakes when something is made in, or moved into, this directory.
    pub fn add(&self, directory: &CStr) -> Result<(), Errno> {
        let mask = libc::IN_CREATE | libc::IN_MOVED_TO | libc::IN_ONLYDIR;
        let fd = self.inotify.as_raw_fd();
        // SAFETY: an open descriptor and a C string that outlives the call.
        check("inotify_add_watch", unsafe {
            libc::inotify_add_watch(fd, directory.as_ptr(), mask)
        })
        .map(drop)
    }

    /// Waits for an event, at most `limit`, and forgets all that are there.
    pub fn wait(&self, limit: Duration) -> Result<(), Errno> {
        let mut polled: Vec<libc::pollfd> = std::iter::once(&self.inotify)
            .chain(&self.uevents)
            .map(|fd| libc::pollfd {
                fd: fd.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            })
            .collect();
        let millis = i32::try_from(limit.as_millis().max(1)).unwrap_or(i32::MAX);
        let count = polled.len() as libc::nfds_t;
        // SAFETY: the array is ours and as long as we say.
        check("poll", unsafe {
            libc::poll(polled.as_mut_ptr(), count, millis)
        })?;
        for fd in &polled {
            drain(fd.fd);
        }
        Ok(())
    }
}

fn drain(fd: RawFd) {
    let mut buffer = [0u8; 4096];
    // SAFETY: the buffer is ours for the length given; both descriptors are non-blocking.
    while check_len("read", unsafe {
        libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len())
    })
    .is_ok_and(|n| n > 0)
    {}
}

/// The kernel's uevents, multicast group 1.
fn uevent_socket() -> Result<OwnedFd, Errno> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes numbers only.
    let fd = check("socket", unsafe {
        libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_KOBJECT_UEVENT)
    })?;
    // SAFETY: just made and nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: sockaddr_nl is plain data, all zeros is a value of it.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = libc::AF_NETLINK.cast_unsigned().try_into().unwrap_or(0);
    address.nl_groups = 1;
    let len = libc::socklen_t::try_from(size_of::<libc::sockaddr_nl>()).expect("a dozen bytes");
    // SAFETY: the address is ours and as long as we say.
    check("bind", unsafe {
        libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len)
    })?;
    Ok(fd)
}
