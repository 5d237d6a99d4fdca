//! Where a disk's bytes are: a file, a file by io_uring, or memory.

pub mod disk;

pub use disk::{Buffers, Completion, Disk, Geometry, Submitted, Transfer, Work};
