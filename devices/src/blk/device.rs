//! The block device: features, configuration space and life cycle. Requests are understood in `request.rs` and served
//! by the queue handler.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtio_bindings::virtio_blk::{VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_FLUSH};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;

use crate::backend::{Disk, Geometry};
use crate::context::Context;
use crate::device::{
    ActivateError, Activation, SavedDevice, SharedQueue, VirtioDevice, copy_config,
};
use crate::queue::{Handler, Options, Queues};
use crate::trace::event::EventKind;

use super::config::{BlkConfig, WRITEBACK};
use super::request::BlkLogic;

/// A virtio block device.
pub struct BlkDevice {
    config: BlkConfig,
    geometry: Geometry,
    queue_sizes: Vec<u16>,
    wce_negotiated: bool,
    /// One for each queue, at least one.
    handlers: Vec<Arc<Mutex<Handler<BlkLogic>>>>,
    queues: Queues,
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
        let mut queues = Queues::new(&config.name, context.clone());
        let mut handlers = Vec::new();
        for (queue, disk) in (0..).zip(disks(disk, config.queues)?) {
            let logic = BlkLogic::new(&config, &geometry);
            let handler = Handler::new(&config.name, queue, logic, disk, context.clone(), options)?;
            handlers.push(queues.add(handler));
        }
        Ok(Self {
            queue_sizes: vec![config.queue_size; handlers.len()],
            handlers,
            queues,
            wce_negotiated: false,
            geometry,
            config,
        })
    }
}

impl BlkDevice {
    fn handlers(&self) -> impl Iterator<Item = MutexGuard<'_, Handler<BlkLogic>>> {
        self.handlers
            .iter()
            .map(|handler| handler.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the guest's writes stay in the host's cache until a flush.
    fn set_writeback(&self, writeback: bool) {
        for mut handler in self.handlers() {
            handler.logic_mut().writeback = writeback;
        }
    }
}

/// One disk for each queue, all of them the same.
fn disks(disk: Box<dyn Disk>, queues: u16) -> io::Result<Vec<Box<dyn Disk>>> {
    if queues == 0 {
        let message = "a block device has at least one queue";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let mut disks = vec![disk];
    for _ in 1..queues {
        let another = disks[0].another()?;
        disks.push(another);
    }
    Ok(disks)
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
        let first = self.handlers().next();
        let writeback = first.is_some_and(|handler| handler.logic().writeback);
        let space = self.config.space(&self.geometry, writeback);
        copy_config(&space, offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        match data {
            // 5.2.5: writing 0 or 1 switches between write through and write back.
            [mode @ (0 | 1)] if offset == WRITEBACK && self.wce_negotiated => {
                self.set_writeback(*mode == 1);
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
        self.set_writeback(has(VIRTIO_BLK_F_FLUSH));
        true
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        self.queues.activate(activation)
    }

    fn reset(&mut self) {
        self.queues.reset();
        self.wce_negotiated = false;
        self.set_writeback(true);
    }

    fn save(&mut self) -> Result<SavedDevice, String> {
        let first = self.handlers().next();
        let writeback = first.is_some_and(|handler| handler.logic().writeback);
        Ok(SavedDevice {
            own: serde_json::json!({ "writeback": writeback }),
            queues: self.queues.save()?,
        })
    }

    fn restore(&mut self, own: &serde_json::Value) -> Result<(), String> {
        let writeback = own.get("writeback").and_then(serde_json::Value::as_bool);
        self.set_writeback(writeback.ok_or("it does not say `writeback`")?);
        Ok(())
    }

    fn queues(&self) -> Vec<SharedQueue> {
        self.queues.services()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use tempfile::TempDir;

    use super::*;
    use crate::backend::{DiskOptions, Engine, FileOptions, MemoryDisk, OpenError, open_disk};
    use crate::fault::Plan;
    use crate::trace::Tracer;

    fn device(disk: Box<dyn Disk>, queues: u16) -> io::Result<BlkDevice> {
        let context = Context::new(Plan::default(), Arc::new(Tracer::new())).unwrap();
        let config = BlkConfig {
            queues,
            ..BlkConfig::new("a")
        };
        BlkDevice::new(config, disk, context)
    }

    fn image() -> (TempDir, DiskOptions) {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("disk.img");
        File::create(&path).unwrap().set_len(1 << 20).unwrap();
        let file = FileOptions {
            path,
            ..FileOptions::default()
        };
        let engine = Engine::File;
        (dir, DiskOptions { engine, file })
    }

    #[test]
    fn each_queue_has_a_service_and_the_driver_is_told_how_many() {
        let (_dir, options) = image();
        let device = device(open_disk(&options).unwrap(), 3).unwrap();
        assert_eq!(device.queue_max_sizes(), [256; 3]);
        assert_eq!(device.queues().len(), 3);
        let mut queues = [0; 2];
        device.read_config(34, &mut queues);
        assert_eq!(u16::from_le_bytes(queues), 3);
    }

    #[test]
    fn an_image_is_locked_until_its_last_queue_is_gone() {
        let (_dir, options) = image();
        let first = open_disk(&options).unwrap();
        let second = first.another().unwrap();
        drop(first);
        let refused = open_disk(&options).map(|_| ());
        assert!(
            matches!(refused, Err(OpenError::Locked { .. })),
            "{refused:?}"
        );
        drop(second);
        open_disk(&options).unwrap();
    }

    #[test]
    fn what_cannot_be_shared_by_queues_or_has_none_is_refused() {
        let memory = || Box::new(MemoryDisk::new(1 << 20));
        assert!(device(memory(), 1).is_ok());
        let kind = |queues| device(memory(), queues).err().map(|error| error.kind());
        assert_eq!(kind(2), Some(io::ErrorKind::Unsupported));
        assert_eq!(kind(0), Some(io::ErrorKind::InvalidInput));
    }
}
