//! The interrupt of a virtio-mmio device: two status bits and one line (virtio 1.2, 4.2.2, InterruptStatus).
//!
//! The bits and the device status live in atomics, so that a device may signal while its transport is busy, and a
//! vCPU reads its interrupt status without waiting for a device.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use vmm_sys_util::eventfd::EventFd;

use super::status::{DRIVER_OK, NEEDS_RESET};
use crate::device::Interrupt;

/// The device has used a buffer.
const USED_BUFFER: u32 = 1;
/// The configuration has changed, or the device needs a reset.
const CONFIG_CHANGE: u32 = 2;

/// Status registers and the line of one device.
pub(super) struct MmioInterrupt {
    name: String,
    pending: AtomicU32,
    status: AtomicU8,
    line: EventFd,
}

impl MmioInterrupt {
    pub(super) fn new(name: String, line: EventFd) -> Self {
        Self {
            name,
            pending: AtomicU32::new(0),
            status: AtomicU8::new(0),
            line,
        }
    }

    /// InterruptStatus.
    pub(super) fn pending(&self) -> u32 {
        // Acquire: who sees the bit also sees the used index that was written before it was set.
        self.pending.load(Ordering::Acquire)
    }

    /// InterruptACK.
    pub(super) fn acknowledge(&self, bits: u32) {
        self.pending.fetch_and(!bits, Ordering::AcqRel);
    }

    /// The device status, with what the device itself set in it.
    pub(super) fn status(&self) -> u8 {
        self.status.load(Ordering::Acquire)
    }

    /// The driver made these steps.
    pub(super) fn add_status(&self, bits: u8) {
        self.status.fetch_or(bits, Ordering::AcqRel);
    }

    /// After a reset nothing is pending and no step was made.
    pub(super) fn clear(&self) {
        self.pending.store(0, Ordering::Release);
        self.status.store(0, Ordering::Release);
    }

    fn raise(&self, bit: u32) {
        // The bit before the edge: the guest's handler reads it when the edge arrives.
        self.pending.fetch_or(bit, Ordering::AcqRel);
        if let Err(error) = self.line.write(1) {
            log::error!("{}: cannot raise the interrupt: {error}", self.name);
        }
    }
}

impl Interrupt for MmioInterrupt {
    fn signal_queue(&self, _queue: u16) {
        self.raise(USED_BUFFER);
    }

    fn signal_config(&self) {
        self.raise(CONFIG_CHANGE);
    }

    fn signal_needs_reset(&self) {
        let before = self.status.fetch_or(NEEDS_RESET, Ordering::AcqRel);
        // Only a driver that is at work is told; the others find the bit (virtio 1.2, 2.1.2).
        if before & DRIVER_OK != 0 {
            self.raise(CONFIG_CHANGE);
        }
    }
}
