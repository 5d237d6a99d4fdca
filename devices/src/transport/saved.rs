//! A transport's part of a snapshot: plain data, whose words are those of the registers.
//!
//! Only what a guest can have changed is in it. What a device is (its kind, its queues, its features on offer) comes from the
//! configuration of the machine that is restored, which has to be the same; [`DeviceShape`] is for that comparison.

use serde::{Deserialize, Serialize};

use crate::device::SavedDevice;

/// What a guest can find out about a device without a driver at work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceShape {
    /// Name on the command line.
    pub name: String,
    /// Virtio device id.
    pub kind: u32,
    /// Features on offer.
    pub features: u64,
    /// Greatest size of each queue.
    pub queue_sizes: Vec<u16>,
}

/// What the driver has written, and what it was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedCore {
    /// The device status register.
    pub status: u8,
    pub(super) device_features_sel: u32,
    pub(super) driver_features_sel: u32,
    pub(super) driver_features: u64,
    pub(super) queue_sel: u32,
    pub(super) queues: Vec<SavedQueueSetup>,
    /// The device's own part, if a driver has agreed with it on features.
    pub(super) device: Option<SavedDevice>,
}

/// The registers of one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedQueueSetup {
    pub(super) size: u32,
    pub(super) desc: u64,
    pub(super) driver: u64,
    pub(super) device: u64,
    pub(super) ready: bool,
}

/// A device behind virtio-mmio.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedMmio {
    /// What the driver has written.
    pub core: SavedCore,
    pub(super) pending: u32,
}

/// A device behind a PCI function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPci {
    /// What the driver has written.
    pub core: SavedCore,
    /// Configuration space.
    pub(super) config: Vec<u8>,
    pub(super) interrupt: SavedPciInterrupt,
}

/// Interrupt state of a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedPciInterrupt {
    pub(super) vectors: Vec<SavedVector>,
    pub(super) config_vector: u16,
    pub(super) queue_vectors: Vec<u16>,
    pub(super) isr: u8,
}

/// One entry of the MSI-X table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedVector {
    pub(super) words: [u32; 4],
    pub(super) pending: bool,
}

/// Why a device cannot be saved now, or not be restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// It is not the moment.
    #[error("device {device} cannot be saved now: {what}")]
    Save {
        /// Its name.
        device: String,
        /// What is in the way.
        what: String,
    },
    /// The state does not fit the device.
    #[error("the state of device {device} does not fit it: {what}")]
    Restore {
        /// Its name.
        device: String,
        /// What does not fit.
        what: String,
    },
}
