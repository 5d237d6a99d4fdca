//! What a virtual machine is made of, as flags and files spell it.
//!
//! There is one schema: [`VmConfig`]. A file is that in TOML; each flag of `pincushion run` is one of its keys; `--blk
//! path=disk.img,id=a` is a table of `[[blk]]`. A flag wins over the file; disks of both are joined.

pub mod balloon;
pub mod blk;
pub(crate) mod design;
pub mod key_values;
pub mod net;
pub mod pmem;
pub mod units;
mod vm;

pub use balloon::BalloonConfig;
pub use blk::{BlkConfig, DiskBackend};
pub use net::NetConfig;
pub use pmem::PmemConfig;
pub use vm::{ConfigError, ConsoleTarget, VmConfig};

pub use crate::affinity::CpuList;
pub use crate::machine::{OnReset, Transport};
