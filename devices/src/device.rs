//! What a virtio device is, seen from a transport and from an event loop.
//!
//! A transport (virtio-mmio registers) negotiates and activates a [`SharedDevice`]. An event loop waits on the kick
//! eventfds and on [`QueueService::wake_fd`] and calls [`QueueService::on_kick`] and [`QueueService::on_wake`] of a
//! [`SharedQueue`]; it never locks the device, so the queues of one device may be served by several threads. Each lock is
//! taken for one call, and no call blocks on anything but the host's disk. A transport must be able to answer its
//! interrupt status without any of them.
//!
//! Lock order: a device, then one of its queues, then as `context.rs` says.

use std::os::fd::RawFd;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use virtio_queue::Queue;
use vm_memory::GuestMemoryMmap;

use crate::trace::event::Status;

/// The guest's memory as devices see it. A held request keeps a clone, so the map it was popped with outlives a change.
pub type Memory = Arc<GuestMemoryMmap<()>>;

/// A device shared between its transport (vCPU threads) and the event loop.
pub type SharedDevice = Arc<Mutex<dyn VirtioDevice>>;

/// A queue shared between its device and the thread that serves it.
pub type SharedQueue = Arc<Mutex<dyn QueueService>>;

/// Serves one queue of a device.
pub trait QueueService: Send {
    /// The driver kicked (or a notification may have been missed). Spurious calls are harmless.
    fn on_kick(&mut self);
    /// Readable when [`Self::on_wake`] must be called: a released request, a finished host operation, a due timer. The same
    /// for the whole life of the queue.
    fn wake_fd(&self) -> RawFd;
    /// Drains [`Self::wake_fd`] and goes on with what it announced. Spurious calls are harmless.
    fn on_wake(&mut self);
}

/// Tells the guest that something happened. Callable from any thread.
pub trait Interrupt: Send + Sync {
    /// A used buffer notification for a queue (virtio 1.2, 2.3).
    fn signal_queue(&self, queue: u16);
    /// A configuration change notification.
    fn signal_config(&self);
    /// The device has met an error that only a reset cures: set DEVICE_NEEDS_RESET and notify (virtio 1.2, 2.1.2).
    fn signal_needs_reset(&self);
}

/// What a device needs to begin work once the driver has set DRIVER_OK.
pub struct Activation {
    /// Guest memory.
    pub memory: Memory,
    /// Features that both sides agreed on.
    pub features: u64,
    /// The queues as the driver set them up, by index; a queue that the driver left alone is not ready.
    pub queues: Vec<Queue>,
    /// The way to the guest.
    pub interrupt: Arc<dyn Interrupt>,
    /// Of a restored machine, by index: what each queue had in flight. Empty otherwise.
    pub resume: Vec<Option<SavedQueue>>,
}

/// A queue's part of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedQueue {
    /// The next element of the available ring.
    pub next_avail: u16,
    /// The next element of the used ring.
    pub next_used: u16,
    /// Number of the next request.
    pub next_ordinal: u64,
    /// What was popped and not given back, in the order in which it was popped. Its descriptors are still the driver's, unchanged, so it
    /// is popped once more.
    pub requests: Vec<SavedRequest>,
}

/// A request that was in flight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedRequest {
    /// Head of its chain.
    pub head: u16,
    /// Its payload, if that was fetched early: the guest may have changed its pages since.
    pub copy: Option<Vec<u8>>,
    /// The answer and the bytes of payload that were moved, if the work was done.
    pub done: Option<(Status, u64)>,
}

/// A device's own part of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedDevice {
    /// What the device itself remembers of its driver, in its own words.
    pub own: serde_json::Value,
    /// Its queues by index; `None`: not at work.
    pub queues: Vec<Option<SavedQueue>>,
}

/// A virtio device.
pub trait VirtioDevice: Send {
    /// Name on the command line and in every event, for example `a`.
    fn name(&self) -> &str;
    /// Virtio device id (virtio 1.2, 5), 2 for a block device.
    fn device_type(&self) -> u32;
    /// Features on offer, VIRTIO_F_VERSION_1 included.
    fn features(&self) -> u64;
    /// Greatest size of each queue.
    fn queue_max_sizes(&self) -> &[u16];
    /// Copies configuration space from `offset`; bytes beyond its end read as zero.
    fn read_config(&self, offset: u64, data: &mut [u8]);
    /// Writes configuration space; what the driver may not write is ignored and logged.
    fn write_config(&mut self, offset: u64, data: &[u8]);
    /// Changes whenever configuration space changes by itself (virtio 1.2, 2.5).
    fn config_generation(&self) -> u32 {
        0
    }
    /// The driver has set FEATURES_OK with these features; `false` refuses them.
    fn accept_features(&mut self, features: u64) -> bool {
        features & !self.features() == 0
    }
    /// DRIVER_OK. `Err` makes the transport set DEVICE_NEEDS_RESET.
    ///
    /// # Errors
    /// A queue whose rings are not in guest memory, or a host resource that could not be had.
    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError>;
    /// Status 0: stops the queues and abandons every hold. When it returns, no host operation touches guest memory
    /// any more. Legal at any moment, activated or not, also twice.
    fn reset(&mut self);
    /// What a snapshot needs of a device whose driver has set FEATURES_OK. Called while nobody serves its queues; the device
    /// goes on afterwards.
    ///
    /// # Errors
    /// What is in the way, in words.
    fn save(&mut self) -> Result<SavedDevice, String> {
        Err("a driver is at work with it".to_owned())
    }
    /// Takes back its own words of [`Self::save`], after the features were accepted and before it is activated.
    ///
    /// # Errors
    /// What does not fit, in words.
    fn restore(&mut self, own: &serde_json::Value) -> Result<(), String> {
        let _ = own;
        Err("it knows of no driver's work".to_owned())
    }
    /// Who serves the queues, by index: as many as [`Self::queue_max_sizes`] names, the same for the device's whole life,
    /// activated or not.
    fn queues(&self) -> Vec<SharedQueue>;
    /// What may be changed while the device runs, by a person who controls the machine.
    fn settings(&self) -> Vec<Setting> {
        Vec::new()
    }
    /// Changes one of [`Self::settings`].
    ///
    /// # Errors
    /// Why the value is not possible, in words; nothing has changed then.
    fn change_setting(&mut self, name: &str, value: u64) -> Result<(), String> {
        let _ = value;
        Err(format!("the device has no setting `{name}`"))
    }
}

/// Something about a device that may be changed while it runs, for example how many frames it makes up in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Its name, in lower case with hyphens.
    pub name: &'static str,
    /// Its value now.
    pub value: u64,
    /// Unit of the value, for example `frames/s`.
    pub unit: &'static str,
}

/// Copies configuration space from `offset` into `data`; bytes beyond its end read as zero.
pub(crate) fn copy_config(space: &[u8], offset: u64, data: &mut [u8]) {
    let rest = usize::try_from(offset)
        .ok()
        .and_then(|offset| space.get(offset..))
        .unwrap_or(&[]);
    data.fill(0);
    let len = rest.len().min(data.len());
    data[..len].copy_from_slice(&rest[..len]);
}

/// Why a device could not be activated.
#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    /// The driver's queue is unusable: a guest mistake.
    #[error("queue {queue} is not usable: its rings are outside guest memory or its size is wrong")]
    Queue {
        /// Its index.
        queue: u16,
    },
    /// The host refused something.
    #[error("cannot {attempt}")]
    Host {
        /// What was tried.
        attempt: &'static str,
        /// What the host said.
        source: std::io::Error,
    },
}
