//! Where a disk's bytes are: a file, a file by io_uring, or memory.

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
mod zeroes;

pub use disk::{Buffers, Completion, Disk, Geometry, Submitted, Transfer, Work};
pub use error::OpenError;
pub use file::FileDisk;
pub use image::FileOptions;
pub use lock::Holder;
pub use memory::MemoryDisk;
pub use open::{Backend, DiskOptions, open_disk};
pub use uring::UringDisk;
