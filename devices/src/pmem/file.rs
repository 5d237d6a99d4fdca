//! The file of a region: opened, locked, and allocated to the last block.
//!
//! Promises: every byte of the region has its block before the guest runs, so that no store of the guest or of a device meets a full
//! disk, which would be a SIGBUS in this process; one machine has the file at a time; a flush is `fdatasync`, which on Linux
//! writes back what was stored through a shared mapping too, KVM's included. It cannot keep another program from making the file
//! shorter meanwhile: the lock is advisory.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

use crate::backend::{
    Backend, Completion, Holder, OpenError, Submitted, Transfer, Work, lock_image, unlock_image,
};

/// What the size of a region is a multiple of, in bytes: a huge page.
pub const ALIGNMENT: u64 = 2 << 20;

/// Why there is no region. Every message names the file and the way out.
#[derive(Debug, thiserror::Error)]
pub enum PmemError {
    /// There is nothing at the path.
    #[error("{path:?} does not exist: create it, for example by `truncate -s 128M {}`", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A directory, a device, a pipe.
    #[error("{path:?} is not a regular file: a region is a file of a file system")]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// The host does not let us write it.
    #[error("{path:?} cannot be opened for reading and writing: change its mode or owner")]
    Permission {
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// Shorter than the region is to be.
    #[error("{path:?} has {has} bytes, less than size={wanted}: `truncate -s {wanted} {}` makes it longer", path.display())]
    TooSmall {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        has: u64,
        /// Length of the region in bytes.
        wanted: u64,
    },
    /// Not a whole number of huge pages, or none.
    #[error(
        "{path:?}: a region of {size} bytes is not a multiple of 2 MiB: `truncate -s {} {}` rounds the file up, or give size=",
        size.max(&1).next_multiple_of(ALIGNMENT),
        path.display()
    )]
    OddSize {
        /// The file.
        path: PathBuf,
        /// Length of the region in bytes.
        size: u64,
    },
    /// The host's disk has no room for all of it.
    #[error(
        "the disk of {path:?} has no room for all {size} bytes of the region, which are allocated at once: \
         free some space, move the file, or give a smaller size="
    )]
    Full {
        /// The file.
        path: PathBuf,
        /// Length of the region in bytes.
        size: u64,
        /// What the host said.
        source: io::Error,
    },
    /// The file system cannot promise space.
    #[error(
        "the file system of {path:?} cannot allocate blocks ahead (fallocate), so that a full disk would kill the machine: \
         move the file to ext4, xfs, btrfs or tmpfs"
    )]
    NoAllocation {
        /// The file.
        path: PathBuf,
    },
    /// Somebody else uses it.
    #[error("{path:?} is in use by {holder}: stop that first, or give each machine its own copy")]
    Locked {
        /// The file.
        path: PathBuf,
        /// Who, as far as the host tells.
        holder: Holder,
    },
    /// Something else failed.
    #[error("cannot {attempt} {path:?}")]
    Host {
        /// What was tried.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
}

/// A region's file, open and locked, with a block for every byte.
#[derive(Debug)]
pub struct PmemFile {
    file: File,
    len: u64,
}

impl PmemFile {
    /// Opens the file for a region of `size` bytes, by default all of it, and allocates them.
    ///
    /// # Errors
    /// [`PmemError`].
    pub fn open(path: &Path, size: Option<u64>) -> Result<Self, PmemError> {
        let file = open(path)?;
        let host = |attempt| {
            move |source| PmemError::Host {
                attempt,
                path: path.to_owned(),
                source,
            }
        };
        lock_image(&file, path, false).map_err(|error| match error {
            OpenError::Locked { path, holder } => PmemError::Locked { path, holder },
            error => host("lock")(io::Error::other(error)),
        })?;
        let has = file.metadata().map_err(host("measure"))?.len();
        let len = size.unwrap_or(has);
        if len == 0 || !len.is_multiple_of(ALIGNMENT) {
            return Err(PmemError::OddSize {
                path: path.to_owned(),
                size: len,
            });
        }
        if has < len {
            return Err(PmemError::TooSmall {
                path: path.to_owned(),
                has,
                wanted: len,
            });
        }
        let opened = Self { file, len };
        opened.allocate(path)?;
        Ok(opened)
    }

    /// Length of the region in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no byte; no region has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The file, to map it.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    fn allocate(&self, path: &Path) -> Result<(), PmemError> {
        let allocated = rustix::io::retry_on_intr(|| {
            fallocate(&self.file, FallocateFlags::empty(), 0, self.len)
        });
        let path = || path.to_owned();
        allocated.map_err(|errno| match errno {
            rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT | rustix::io::Errno::FBIG => {
                PmemError::Full {
                    path: path(),
                    size: self.len,
                    source: errno.into(),
                }
            }
            rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS => {
                PmemError::NoAllocation { path: path() }
            }
            errno => PmemError::Host {
                attempt: "allocate the blocks of",
                path: path(),
                source: errno.into(),
            },
        })
    }
}

impl Drop for PmemFile {
    fn drop(&mut self) {
        // A mapping keeps the open file, and with it the lock, for as long as a machine has it.
        unlock_image(&self.file);
    }
}

impl Backend for PmemFile {
    fn submit(&mut self, transfer: Transfer) -> Submitted {
        let result = match transfer.work {
            Work::Flush => self.file.sync_data().map(|()| 0),
            _ => Err(io::ErrorKind::Unsupported.into()),
        };
        Submitted::Done(Completion { transfer, result })
    }
}

fn open(path: &Path) -> Result<File, PmemError> {
    let explain = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => PmemError::Missing { path: path.into() },
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            PmemError::Permission {
                path: path.into(),
                source,
            }
        }
        _ => PmemError::Host {
            attempt: "open",
            path: path.into(),
            source,
        },
    };
    // Looked at before it is opened: opening a pipe would wait for its other end.
    if !std::fs::metadata(path).map_err(explain)?.is_file() {
        return Err(PmemError::NotAFile { path: path.into() });
    }
    let opened = OpenOptions::new().read(true).write(true).open(path);
    opened.map_err(explain)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn sparse(dir: &Path, len: u64) -> PathBuf {
        let path = dir.join("p.img");
        File::create(&path).unwrap().set_len(len).unwrap();
        path
    }

    #[test]
    fn every_byte_of_a_sparse_file_gets_its_block() {
        let dir = tempfile::tempdir().unwrap();
        let path = sparse(dir.path(), 2 * ALIGNMENT);
        let region = PmemFile::open(&path, Some(ALIGNMENT)).unwrap();
        assert_eq!(region.len(), ALIGNMENT);
        let metadata = region.file().metadata().unwrap();
        assert!(metadata.blocks() * 512 >= ALIGNMENT);
        assert_eq!(metadata.len(), 2 * ALIGNMENT);
    }

    #[test]
    fn each_mistake_has_its_own_words_and_a_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = sparse(dir.path(), ALIGNMENT + 4096);
        let refused = |path: &Path, size| PmemFile::open(path, size).unwrap_err().to_string();
        assert!(refused(&path, None).contains("not a multiple of 2 MiB: `truncate -s 4194304"));
        assert!(refused(&path, Some(0)).contains("a region of 0 bytes"));
        assert!(refused(&path, Some(2 * ALIGNMENT)).contains("`truncate -s 4194304"));
        assert!(refused(&dir.path().join("none"), None).contains("does not exist: create it"));
        assert!(refused(dir.path(), None).contains("not a regular file"));
    }

    #[test]
    fn a_region_has_one_machine_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = sparse(dir.path(), ALIGNMENT);
        let first = PmemFile::open(&path, None).unwrap();
        let second = PmemFile::open(&path, None);
        assert!(
            matches!(second, Err(PmemError::Locked { .. })),
            "{second:?}"
        );
        drop(first);
        assert!(PmemFile::open(&path, None).is_ok());
    }

    #[test]
    fn a_full_disk_refuses_the_region_and_not_a_store_later() {
        // A file that may not be as long as its allocation stands for a disk without room: both are a refused `fallocate`.
        let dir = tempfile::tempdir().unwrap();
        let path = sparse(dir.path(), ALIGNMENT);
        let region = PmemFile {
            file: OpenOptions::new()
                .read(true)
                .write(true)
                .open(&path)
                .unwrap(),
            len: 1 << 62,
        };
        let refused = region.allocate(&path).unwrap_err();
        assert!(matches!(refused, PmemError::Full { .. }), "{refused:?}");
    }
}
