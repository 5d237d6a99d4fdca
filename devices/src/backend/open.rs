//! Which backend opens an image.

use serde::{Deserialize, Serialize};

use super::disk::Disk;
use super::error::OpenError;
use super::file::FileDisk;
use super::image::FileOptions;
use super::uring::UringDisk;

/// How an image is read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// What measured best (`examples/backends.rs`): io_uring for direct I/O where the host lets us, a quarter of the time at
    /// a depth of 32; system calls through the page cache, where a ring gains nothing for reads and loses for writes.
    #[default]
    Auto,
    /// Positioned system calls.
    File,
    /// io_uring, or an error.
    Uring,
}

/// Which image to open, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskOptions {
    /// How it is read and written.
    pub engine: Engine,
    /// Which it is.
    pub file: FileOptions,
}

/// Opens and locks an image with the backend that was asked for.
///
/// # Errors
/// See [`OpenError`]; a host without io_uring is an error only for [`Engine::Uring`].
pub fn open_disk(options: &DiskOptions) -> Result<Box<dyn Disk>, OpenError> {
    match options.engine {
        Engine::File => Ok(Box::new(FileDisk::open(&options.file)?)),
        Engine::Uring => Ok(Box::new(UringDisk::open(&options.file)?)),
        Engine::Auto if !options.file.direct => Ok(Box::new(FileDisk::open(&options.file)?)),
        Engine::Auto => match UringDisk::open(&options.file) {
            Ok(disk) => Ok(Box::new(disk)),
            Err(OpenError::NoUring { attempt, source }) => {
                log::info!(
                    "{:?}: no io_uring on this host (cannot {attempt}: {source}), using system calls",
                    options.file.path
                );
                Ok(Box::new(FileDisk::open(&options.file)?))
            }
            Err(error) => Err(error),
        },
    }
}
