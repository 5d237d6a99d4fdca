//! Why a disk could not be opened, in words for whoever started the machine.

use std::io;
use std::path::{Path, PathBuf};

use super::lock::Holder;

/// Why a disk could not be opened. Every message names the path and the way out.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is nothing at the path.
    #[error("disk image {path:?} does not exist: create it, for example by `truncate -s 1G {}`", path.display())]
    Missing {
        /// The image.
        path: PathBuf,
    },
    /// A directory.
    #[error("disk image {path:?} is a directory: name a file or a block device")]
    Directory {
        /// The image.
        path: PathBuf,
    },
    /// A pipe, a socket or a character device.
    #[error("disk image {path:?} is a {kind}: name a regular file or a block device")]
    NotADisk {
        /// The image.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// No bytes in it.
    #[error("disk image {path:?} is empty: give it a size, for example by `truncate -s 1G {}`", path.display())]
    Empty {
        /// The image.
        path: PathBuf,
    },
    /// Its size is not a whole number of blocks.
    #[error(
        "disk image {path:?} has {size} bytes, which is not a multiple of {block_size}{}: \
         `truncate -s {} {}` rounds it up",
        if *block_size == 512 { "" } else { " as direct=on needs here" },
        size.next_multiple_of(u64::from(*block_size)),
        path.display()
    )]
    OddSize {
        /// The image.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// What the size must be a multiple of, in bytes.
        block_size: u32,
    },
    /// Somebody else uses it.
    #[error(
        "disk image {path:?} is in use by {holder}: stop that first, \
         or give each machine its own copy (several may share it if all open it with read-only)"
    )]
    Locked {
        /// The image.
        path: PathBuf,
        /// Who, as far as the host tells.
        holder: Holder,
    },
    /// The host would let us read, but not write.
    #[error("disk image {path:?} is read-only for this user: make it writable, or add read-only")]
    ReadOnly {
        /// The image.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// The host lets us do nothing.
    #[error(
        "no permission to open disk image {path:?}: change its mode or owner, or run as its owner"
    )]
    Permission {
        /// The image.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// The file system has no direct I/O.
    #[error(
        "the file system of disk image {path:?} has no direct I/O: leave direct=on out, or move the image"
    )]
    NoDirectIo {
        /// The image.
        path: PathBuf,
    },
    /// The host has no io_uring for us.
    #[error(
        "this host refuses io_uring (cannot {attempt}): use backend=file, \
         or allow it by `sysctl kernel.io_uring_disabled=0` (Linux 5.6 or later)"
    )]
    NoUring {
        /// What was tried.
        attempt: &'static str,
        /// What the host said.
        source: io::Error,
    },
    /// Something else failed.
    #[error("cannot {attempt} disk image {path:?}")]
    Host {
        /// What was tried.
        attempt: &'static str,
        /// The image.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
}

impl OpenError {
    /// For `map_err`: `attempt` failed at `path` and no better words are known.
    pub(super) fn host(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Host {
            attempt,
            path,
            source,
        }
    }
}
