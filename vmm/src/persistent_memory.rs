//! From files to persistent memory of a machine: opens them, gives each its place in guest memory, maps it, makes its device.
//!
//! A region belongs to the run, not to a boot: a machine that is made again for another boot gets the same mapping, and the bytes in it
//! are as the last boot left them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use pincushion_devices::backend::Backend;
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
    /// Whether KVM notes which pages the guest stores to.
    pub notes_stores: bool,
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

/// Devices and regions for a machine with `ram` bytes of memory, in order. `flusher` gives what does the flushes of the device of a name, from what
/// flushes its file.
///
/// # Errors
/// The first region that could not be had.
pub fn open(
    ram: u64,
    wanted: impl IntoIterator<Item = Wanted>,
    flusher: impl Fn(&str, Box<dyn Backend>) -> Box<dyn Backend>,
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
    made.map(|((wanted, file), start)| make(wanted, file, start, &flusher, context))
        .collect()
}

fn make(
    wanted: Wanted,
    file: PmemFile,
    start: u64,
    flusher: &impl Fn(&str, Box<dyn Backend>) -> Box<dyn Backend>,
    context: &Context,
) -> Result<(SharedDevice, Region), PersistentMemoryError> {
    let Wanted {
        id,
        path,
        notes_stores,
        ..
    } = wanted;
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
    let region = if notes_stores {
        region.noting_stores()
    } else {
        region
    };
    let config = PmemConfig::new(&id, range);
    let device = PmemDevice::new(config, flusher(&id, Box::new(file)), context.clone())
        .map_err(|source| PersistentMemoryError::Device { id, source })?;
    Ok((Arc::new(Mutex::new(device)), region))
}
