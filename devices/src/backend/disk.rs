//! What a disk is, besides a [`Backend`].

use std::io;

use super::work::Backend;

/// What a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Size in bytes, a multiple of 512.
    pub capacity_bytes: u64,
    /// Writes are refused.
    pub read_only: bool,
    /// Logical block size in bytes that the backend needs (512, or 4096 for direct I/O on such a device).
    pub block_size: u32,
    /// Discard is possible.
    pub discard: bool,
    /// Write zeroes is possible.
    pub write_zeroes: bool,
}

/// Stores a disk's bytes.
pub trait Disk: Backend {
    /// What the disk is.
    fn geometry(&self) -> Geometry;
    /// The same disk once more, for another queue: both see each other's completed writes, and a flush by one is a flush of
    /// what either has completed.
    ///
    /// # Errors
    /// `Unsupported` from a disk that one queue has for itself, or the host has no descriptor left.
    fn another(&self) -> io::Result<Box<dyn Disk>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
