//! An image on the host, opened, checked and locked: what the file and io_uring backends share.
//!
//! An [`Image`] promises that it is a regular file or block device of a whole number of blocks, that no other
//! machine writes it as long as both ask for the lock, and that [`Image::check`] refuses what does not fit. It does
//! not notice that somebody changes the file's size later; reads behind the new end fail then.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::ops::Deref;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::direct::Alignment;
use super::disk::Geometry;
use super::error::OpenError;
use super::lock::{lock_image, unlock_image};
use super::work::{Transfer, Work};
use super::zeroes::Zeroing;

/// Bytes of a virtio block sector (virtio 1.2, 5.2).
const SECTOR_SIZE: u32 = 512;

/// How to open an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileOptions {
    /// A regular file or a block device.
    pub path: PathBuf,
    /// Never written; several machines may share it then.
    pub read_only: bool,
    /// Past the host's page cache (`O_DIRECT`).
    pub direct: bool,
}

/// An image, open and locked. Clones are the same open file.
#[derive(Debug, Clone)]
pub(super) struct Image {
    pub(super) file: Arc<LockedFile>,
    pub(super) path: PathBuf,
    pub(super) capacity_bytes: u64,
    pub(super) read_only: bool,
    /// What direct I/O asks of addresses and lengths; `None` through the page cache.
    pub(super) alignment: Option<Alignment>,
    pub(super) zeroing: Zeroing,
}

impl Image {
    /// Opens, locks and measures an image.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub(super) fn open(options: &FileOptions) -> Result<Self, OpenError> {
        let path = options.path.as_path();
        // Looked at before it is opened: opening a pipe would wait for its other end.
        refuse_what_is_no_disk(path)?;
        let mut file = open_file(options)?;
        lock_image(&file, path, options.read_only)?;
        // A device's metadata says 0; the position of its end is its size (as BLKGETSIZE64).
        let size = file
            .seek(SeekFrom::End(0))
            .map_err(OpenError::host("measure", path))?;
        if size == 0 {
            return Err(OpenError::Empty { path: path.into() });
        }
        let alignment = if options.direct {
            Some(Alignment::of(&file, path)?)
        } else {
            None
        };
        let block_size = alignment.map_or(SECTOR_SIZE, |alignment| alignment.block);
        if !size.is_multiple_of(u64::from(block_size)) {
            return Err(OpenError::OddSize {
                path: path.into(),
                size,
                block_size,
            });
        }
        let zeroing = if options.read_only {
            Zeroing::none()
        } else {
            Zeroing::probe(&file, size)
        };
        Ok(Self {
            file: Arc::new(LockedFile(file)),
            path: path.into(),
            capacity_bytes: size,
            read_only: options.read_only,
            alignment,
            zeroing,
        })
    }

    /// What the disk is.
    pub(super) fn geometry(&self) -> Geometry {
        Geometry {
            capacity_bytes: self.capacity_bytes,
            read_only: self.read_only,
            block_size: self
                .alignment
                .map_or(SECTOR_SIZE, |alignment| alignment.block),
            discard: self.zeroing.can_punch(),
            write_zeroes: !self.read_only,
        }
    }

    /// Whether the image can take this transfer at all. The device has checked before; this is the second lock on the
    /// door, since a write behind the end would make the file grow.
    ///
    /// # Errors
    /// `InvalidInput` behind the end, EROFS for a change of a read-only image, `Unsupported` for a discard that was not on offer.
    pub(super) fn check(&self, transfer: &Transfer) -> io::Result<()> {
        let changes = match transfer.work {
            Work::Flush => return Ok(()),
            Work::Read => false,
            Work::Write | Work::Discard | Work::WriteZeroes { .. } => true,
            Work::Transmit | Work::Receive | Work::Free => {
                return Err(io::ErrorKind::Unsupported.into());
            }
        };
        if changes && self.read_only {
            return Err(io::Error::from_raw_os_error(libc::EROFS));
        }
        if transfer.work == Work::Discard && !self.zeroing.can_punch() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        match transfer.offset.checked_add(transfer.len) {
            Some(end) if end <= self.capacity_bytes => Ok(()),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the transfer goes beyond the end of the disk",
            )),
        }
    }
}

/// The open image. Its lock goes when the last queue that works on it lets it go.
#[derive(Debug)]
pub(super) struct LockedFile(File);

impl Deref for LockedFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        unlock_image(&self.0);
    }
}

fn refuse_what_is_no_disk(path: &Path) -> Result<(), OpenError> {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(source) => return Err(explain(path, source)),
    };
    let kind = metadata.file_type();
    if kind.is_dir() {
        return Err(OpenError::Directory { path: path.into() });
    }
    let kind = if kind.is_fifo() {
        "pipe"
    } else if kind.is_socket() {
        "socket"
    } else if kind.is_char_device() {
        "character device"
    } else {
        return Ok(());
    };
    Err(OpenError::NotADisk {
        path: path.into(),
        kind,
    })
}

fn open_file(options: &FileOptions) -> Result<File, OpenError> {
    let path = options.path.as_path();
    let open = |write: bool, flags: i32| {
        OpenOptions::new()
            .read(true)
            .write(write)
            .custom_flags(flags)
            .open(path)
    };
    let flags = if options.direct { libc::O_DIRECT } else { 0 };
    open(!options.read_only, flags).map_err(|source| match source.raw_os_error() {
        Some(libc::EINVAL) if options.direct => OpenError::NoDirectIo { path: path.into() },
        Some(libc::EACCES | libc::EPERM | libc::EROFS)
            if !options.read_only && open(false, 0).is_ok() =>
        {
            OpenError::ReadOnly {
                path: path.into(),
                source,
            }
        }
        _ => explain(path, source),
    })
}

fn explain(path: &Path, source: io::Error) -> OpenError {
    match source.kind() {
        io::ErrorKind::NotFound => OpenError::Missing { path: path.into() },
        io::ErrorKind::PermissionDenied => OpenError::Permission {
            path: path.into(),
            source,
        },
        _ => OpenError::host("open", path)(source),
    }
}
