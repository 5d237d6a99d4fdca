//! virtio-mmio, version 2: the registers of one device and what its driver does with them (virtio 1.2, 4.2).
//!
//! A VMM routes the guest's accesses of the window here, from any vCPU, and waits on [`MmioTransport::kick_fds`] where
//! the device works. QueueNotify is meant to be an ioeventfd; a write that arrives here all the same is passed on.
//!
//! Whatever offset, width or value a guest uses, the answer is the specification's or "ignored" and a `GuestMistake` event.
//!
//! What all transports have in common is in core.rs, with the order of locks. Interrupt status and device status are read
//! without any, so an interrupt handler never waits for a device that waits for a disk.

use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::core::{Core, NO_QUEUE, Registers};
use super::interrupt::MmioInterrupt;
use super::queue_setup::{Half, SizeAtReset, set_half};
use super::registers::*;
use super::saved::{DeviceShape, SavedMmio, StateError};
use crate::device::{Memory, SharedDevice};
use crate::trace::Tracer;

/// A device behind virtio-mmio registers.
pub struct MmioTransport(Core<MmioInterrupt>);

impl MmioTransport {
    /// A device as after a reset. Writing `line` must make an edge of the guest's interrupt line (an irqfd).
    ///
    /// # Errors
    /// The host has no eventfd left.
    pub fn new(
        device: SharedDevice,
        memory: Memory,
        line: EventFd,
        tracer: Arc<Tracer>,
    ) -> io::Result<Self> {
        let interrupt = |name: &str, _queues| MmioInterrupt::new(name.to_owned(), line);
        Core::new(device, memory, tracer, SizeAtReset::Zero, interrupt).map(Self)
    }

    /// One eventfd per queue: register each at [`QUEUE_NOTIFY`] with its index as a datum of 4 bytes, and call the
    /// device's `on_kick` when it is readable.
    #[must_use]
    pub fn kick_fds(&self) -> &[Arc<EventFd>] {
        self.0.kicks()
    }

    /// Resets the device as a driver's write of 0 to the status register does, for a VM that begins anew.
    pub fn reset(&self) {
        self.0.reset();
    }

    /// What a guest can find out about the device.
    #[must_use]
    pub fn shape(&self) -> DeviceShape {
        self.0.shape()
    }

    /// For a snapshot: no vCPU runs, and nobody serves the queues.
    ///
    /// # Errors
    /// [`StateError::Save`].
    pub fn save(&self) -> Result<SavedMmio, StateError> {
        Ok(SavedMmio {
            core: self.0.save()?,
            pending: self.0.interrupt.pending(),
        })
    }

    /// Of a device as after a reset, whose line is connected.
    ///
    /// # Errors
    /// [`StateError::Restore`]; the device has to be reset then.
    pub fn restore(&self, saved: &SavedMmio) -> Result<(), StateError> {
        self.0.restore(&saved.core)?;
        self.0.interrupt.restore(saved.pending);
        Ok(())
    }

    /// The guest reads at `offset` of the window.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if offset >= CONFIG {
            self.0.device().read_config(offset - CONFIG, data);
            return;
        }
        let Ok(word) = <&mut [u8; 4]>::try_from(data) else {
            return self
                .0
                .mistake(NO_QUEUE, "read a register in another width than 4", "zero");
        };
        if !offset.is_multiple_of(4) {
            return self
                .0
                .mistake(NO_QUEUE, "read between two registers", "zero");
        }
        *word = self.register(offset).to_le_bytes();
    }

    /// The guest writes at `offset` of the window.
    pub fn write(&self, offset: u64, data: &[u8]) {
        if offset >= CONFIG {
            return self.0.write_device_config(offset - CONFIG, data);
        }
        let Ok(word) = <[u8; 4]>::try_from(data) else {
            return self.0.mistake(
                NO_QUEUE,
                "wrote a register in another width than 4",
                "ignored",
            );
        };
        let value = u32::from_le_bytes(word);
        match offset {
            INTERRUPT_ACK => self.0.interrupt.acknowledge(value),
            QUEUE_NOTIFY => self.0.notify(value),
            STATUS => self.0.write_status(value),
            _ => self.write_setup(offset, value),
        }
    }

    fn register(&self, offset: u64) -> u32 {
        match offset {
            MAGIC_VALUE => MAGIC,
            DEVICE_VERSION => VERSION,
            DEVICE_ID => self.0.device_id,
            VENDOR_ID => VENDOR,
            INTERRUPT_STATUS => self.0.interrupt.pending(),
            STATUS => u32::from(self.0.status()),
            CONFIG_GENERATION => self.0.device().config_generation(),
            DEVICE_FEATURES => self.0.device_features(),
            // A queue that does not exist has size 0 (virtio 1.2, 4.2.2).
            QUEUE_NUM_MAX => self
                .0
                .registers()
                .selected()
                .map_or(0, |queue| u32::from(queue.max_size)),
            QUEUE_READY => self
                .0
                .registers()
                .selected()
                .map_or(0, |queue| u32::from(queue.ready)),
            // There is no shared memory region: its length reads as -1, and so do the others.
            SHM_LEN_LOW | SHM_LEN_HIGH | SHM_BASE_LOW | SHM_BASE_HIGH => u32::MAX,
            _ => 0,
        }
    }

    fn write_setup(&self, offset: u64, value: u32) {
        let mut registers = self.0.registers();
        match offset {
            DEVICE_FEATURES_SEL => registers.device_features_sel = value,
            DRIVER_FEATURES_SEL => registers.driver_features_sel = value,
            DRIVER_FEATURES => self.0.write_features(&mut registers, value),
            QUEUE_SEL => registers.queue_sel = value,
            QUEUE_NUM => self.0.set_up(&mut registers, |queue| queue.size = value),
            QUEUE_DESC_LOW => self.0.set_up(&mut registers, |queue| {
                set_half(&mut queue.desc, Half::Low, value)
            }),
            QUEUE_DESC_HIGH => self.0.set_up(&mut registers, |queue| {
                set_half(&mut queue.desc, Half::High, value)
            }),
            QUEUE_DRIVER_LOW => self.0.set_up(&mut registers, |queue| {
                set_half(&mut queue.driver, Half::Low, value)
            }),
            QUEUE_DRIVER_HIGH => self.0.set_up(&mut registers, |queue| {
                set_half(&mut queue.driver, Half::High, value)
            }),
            QUEUE_DEVICE_LOW => self.0.set_up(&mut registers, |queue| {
                set_half(&mut queue.device, Half::Low, value)
            }),
            QUEUE_DEVICE_HIGH => self.0.set_up(&mut registers, |queue| {
                set_half(&mut queue.device, Half::High, value)
            }),
            QUEUE_READY => self.write_ready(&mut registers, value),
            // No region exists, so there is nothing to select.
            SHM_SEL => {}
            _ => self.0.mistake(
                NO_QUEUE,
                &format!("wrote {offset:#x}, which is no register for writing"),
                "ignored",
            ),
        }
    }

    fn write_ready(&self, registers: &mut Registers, value: u32) {
        match value {
            0 => self.0.stop_queue(registers),
            1 => self.0.make_ready(registers),
            _ => self.0.mistake(
                registers.queue_index(),
                "wrote QueueReady with neither 0 nor 1",
                "ignored",
            ),
        }
    }
}

impl std::fmt::Debug for MmioTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MmioTransport")
            .field("name", &self.0.name)
            .field("status", &self.0.status())
            .finish_non_exhaustive()
    }
}
