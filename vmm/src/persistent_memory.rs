//! From files to persistent memory of a machine: opens them, gives each its place in guest memory, maps it, makes its device.
//!
//! A region belongs to the run, not to a boot: a machine that is made again for another boot gets the same mapping, and the bytes in it
//! are as the last boot left them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use pincushion_devices::context::Context;
use pincushion_devices::device::SharedDevice;
use pincushion_devices::pmem::{PmemConfig, PmemDevice, PmemError, PmemFile};
use pincushion_devices::trace::event::GuestRange;

use crate::region::{self, Region, RegionError};

/// A region that a machine shall have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Name of its device.
    pub id: String,
    /// Its file.
    pub path: PathBuf,
    /// Its length in bytes; `None`: all of the file.
    pub size: Option<u64>,
}

/// Why there is no persistent memory.
#[derive(Debug, thiserror::Error)]
pub enum PersistentMemoryError {
    /// The file.
    #[error("--pmem id={id}")]
    File {
        /// Name of the device.
        id: String,
        /// What is wrong with it.
        source: PmemError,
    },
    /// It could not be mapped.
    #[error("--pmem id={id}: {}", path.display())]
    Map {
        /// Name of the device.
        id: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: RegionError,
    },
    /// The host refused a descriptor for the device.
    #[error("--pmem id={id}: cannot make the device")]
    Device {
        /// Name of the device.
        id: String,
        /// Why.
        source: std::io::Error,
    },
}

/// Devices and regions for a machine with `ram` bytes of memory, in order.
///
/// # Errors
/// The first region that could not be had.
pub fn open(
    ram: u64,
    wanted: impl IntoIterator<Item = Wanted>,
    context: &Context,
) -> Result<Vec<(SharedDevice, Region)>, PersistentMemoryError> {
    let mut files = Vec::new();
    for one in wanted {
        let file = PmemFile::open(&one.path, one.size);
        let file = file.map_err(|source| PersistentMemoryError::File {
            id: one.id.clone(),
            source,
        })?;
        files.push((one, file));
    }
    let lengths: Vec<u64> = files.iter().map(|(_, file)| file.len()).collect();
    let starts = region::place(ram, &lengths);
    let made = files.into_iter().zip(starts);
    made.map(|((wanted, file), start)| make(wanted, file, start, context))
        .collect()
}

fn make(
    wanted: Wanted,
    file: PmemFile,
    start: u64,
    context: &Context,
) -> Result<(SharedDevice, Region), PersistentMemoryError> {
    let Wanted { id, path, .. } = wanted;
    let range = GuestRange {
        addr: start,
        len: file.len(),
    };
    let region = Region::map(file.file(), start, file.len()).map_err(|source| {
        PersistentMemoryError::Map {
            id: id.clone(),
            path,
            source,
        }
    })?;
    let config = PmemConfig::new(&id, range);
    let device = PmemDevice::new(config, Box::new(file), context.clone())
        .map_err(|source| PersistentMemoryError::Device { id, source })?;
    Ok((Arc::new(Mutex::new(device)), region))
}
