//! The pmem device: features, configuration space and life cycle. Requests are understood in `request.rs` and served by the queue
//! handler.

use std::io;

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;

use crate::backend::Backend;
use crate::context::Context;
use crate::device::{
    ActivateError, Activation, SavedDevice, SharedQueue, VirtioDevice, copy_config,
};
use crate::queue::{Handler, Options, Queues};
use crate::trace::event::{EventKind, Fetch};

use super::config::PmemConfig;
use super::request::{DEVICE_ID, PmemLogic};

/// A virtio-pmem device.
pub struct PmemDevice {
    config: PmemConfig,
    queue_sizes: [u16; 1],
    queues: Queues,
}

impl PmemDevice {
    /// A device whose flushes `backend` does ([`super::PmemFile`]). Says so in the event log, with its region.
    ///
    /// # Errors
    /// The host has no descriptor left, or the configuration is not usable (`InvalidInput`).
    pub fn new(
        config: PmemConfig,
        backend: Box<dyn Backend>,
        context: Context,
    ) -> io::Result<Self> {
        if !config.queue_size.is_power_of_two() || config.queue_size > 1 << 15 {
            let size = config.queue_size;
            let message = format!("queue size {size} is not a power of two up to 32768");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        context.tracer().emit(|| EventKind::DeviceAdded {
            device: config.name.clone(),
            kind: "virtio-pmem".to_owned(),
            fetch: Fetch::Late,
            capacity_bytes: config.region.len,
            region: Some(config.region),
        });
        // A flush has no payload: nothing is hashed, and nothing is held.
        let options = Options {
            fetch: Fetch::Late,
            hash: false,
            ledger: true,
        };
        let mut queues = Queues::new(&config.name, context.clone());
        let handler = Handler::new(&config.name, 0, PmemLogic, backend, context, options)?;
        queues.add(handler);
        Ok(Self {
            queue_sizes: [config.queue_size],
            queues,
            config,
        })
    }
}

impl VirtioDevice for PmemDevice {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn device_type(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        PmemConfig::features()
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let space = self.config.space();
        copy_config(&space, offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        log::warn!(
            "{}: the driver wrote {} bytes to configuration space at {offset:#x}, which it may not; ignored",
            self.config.name,
            data.len()
        );
    }

    fn accept_features(&mut self, features: u64) -> bool {
        features & !self.features() == 0 && features & (1 << VIRTIO_F_VERSION_1) != 0
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        self.queues.activate(activation)
    }

    fn reset(&mut self) {
        self.queues.reset();
    }

    fn save(&mut self) -> Result<SavedDevice, String> {
        Ok(SavedDevice {
            own: serde_json::Value::Null,
            queues: self.queues.save()?,
        })
    }

    fn restore(&mut self, _own: &serde_json::Value) -> Result<(), String> {
        Ok(())
    }

    fn queues(&self) -> Vec<SharedQueue> {
        self.queues.services()
    }
}
