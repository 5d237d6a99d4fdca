//! The host side of queues. Where a disk's bytes are: a file, a file by io_uring, or memory.

#[cfg(test)]
mod conformance;
mod direct;
pub mod disk;
mod error;
mod file;
mod flight;
#[cfg(test)]
mod host_trouble;
mod image;
mod lock;
mod memory;
mod open;
mod uring;
mod vectored;
pub mod work;
mod zeroes;

pub use disk::{Disk, Geometry};
pub use error::OpenError;
pub use file::FileDisk;
pub use image::FileOptions;
pub use lock::Holder;
pub(crate) use lock::{lock_image, unlock_image};
pub use memory::MemoryDisk;
pub use open::{DiskOptions, Engine, open_disk};
pub use uring::UringDisk;
pub use work::{Backend, Buffers, Completion, Submitted, Transfer, Work};
