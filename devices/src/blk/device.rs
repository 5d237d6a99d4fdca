//! The block device: features, configuration space and life cycle. Requests are understood in `request.rs` and served
//! by the queue handler.

use std::io;
use std::os::fd::RawFd;

use virtio_bindings::virtio_blk::{VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_FLUSH};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;

use crate::backend::{Disk, Geometry};
use crate::context::Context;
use crate::device::{ActivateError, Activation, VirtioDevice};
use crate::queue::{Handler, Options};
use crate::trace::event::EventKind;

use super::config::{BlkConfig, WRITEBACK};
use super::request::BlkLogic;

/// A virtio block device.
pub struct BlkDevice {
    config: BlkConfig,
    geometry: Geometry,
    queue_sizes: [u16; 1],
    wce_negotiated: bool,
    handler: Handler<BlkLogic>,
}

impl BlkDevice {
    /// A device for a disk. Says so in the event log.
    ///
    /// # Errors
    /// The host has no descriptor left, or the configuration is not usable (`InvalidInput`).
    pub fn new(config: BlkConfig, disk: Box<dyn Disk>, context: Context) -> io::Result<Self> {
        if !config.queue_size.is_power_of_two() || config.queue_size > 1 << 15 {
            let message = format!(
                "queue size {} is not a power of two up to 32768",
                config.queue_size
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let geometry = disk.geometry();
        context.tracer().emit(|| EventKind::DeviceAdded {
            device: config.name.clone(),
            kind: "virtio-blk".to_owned(),
            fetch: config.fetch,
            capacity_bytes: geometry.capacity_bytes,
            region: None,
        });
        let options = Options {
            fetch: config.fetch,
            hash: config.hash,
            ledger: config.ledger,
        };
        let logic = BlkLogic::new(&config, &geometry);
        Ok(Self {
            handler: Handler::new(&config.name, logic, disk, context, options)?,
            queue_sizes: [config.queue_size],
            wce_negotiated: false,
            geometry,
            config,
        })
    }
}

impl VirtioDevice for BlkDevice {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn device_type(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        self.config.features(&self.geometry)
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let space = self
            .config
            .space(&self.geometry, self.handler.logic().writeback);
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| space.get(offset..))
            .unwrap_or(&[]);
        data.fill(0);
        let len = rest.len().min(data.len());
        data[..len].copy_from_slice(&rest[..len]);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        match data {
            // 5.2.5: writing 0 or 1 switches between write through and write back.
            [mode @ (0 | 1)] if offset == WRITEBACK && self.wce_negotiated => {
                self.handler.logic_mut().writeback = *mode == 1;
            }
            _ => log::warn!(
                "{}: the driver wrote {} bytes to configuration space at {offset:#x}, which it may not; ignored",
                self.config.name,
                data.len()
            ),
        }
    }

    fn accept_features(&mut self, features: u64) -> bool {
        let has = |bit: u32| features & (1 << bit) != 0;
        if features & !self.features() != 0 || !has(VIRTIO_F_VERSION_1) {
            return false;
        }
        self.wce_negotiated = has(VIRTIO_BLK_F_CONFIG_WCE);
        // 5.2.5.2: a driver that cannot flush must not find its writes in a cache.
        self.handler.logic_mut().writeback = has(VIRTIO_BLK_F_FLUSH);
        true
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        self.handler.activate(activation)
    }

    fn reset(&mut self) {
        self.handler.reset();
        self.wce_negotiated = false;
        self.handler.logic_mut().writeback = true;
    }

    fn on_kick(&mut self, queue: u16) {
        if queue == 0 {
            self.handler.on_kick();
        }
    }

    fn wake_fd(&self) -> RawFd {
        self.handler.wake_fd()
    }

    fn on_wake(&mut self) {
        self.handler.on_wake();
    }
}
