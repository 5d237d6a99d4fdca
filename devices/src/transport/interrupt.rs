//! The interrupt of a virtio-mmio device: two status bits and one line (virtio 1.2, 4.2.2, InterruptStatus).
//!
//! The bits and the device status live in atomics, so that a device may signal while its transport is busy, and a
//! vCPU reads its interrupt status without waiting for a device.

use std::sync::atomic::{AtomicU32, Ordering};

use vmm_sys_util::eventfd::EventFd;

use super::core::Signals;
use super::status::StatusRegister;
use crate::device::Interrupt;

/// The device has used a buffer.
const USED_BUFFER: u32 = 1;
/// The configuration has changed, or the device needs a reset.
const CONFIG_CHANGE: u32 = 2;

/// Status registers and the line of one device.
pub(super) struct MmioInterrupt {
    name: String,
    pending: AtomicU32,
    status: StatusRegister,
    line: EventFd,
}

impl MmioInterrupt {
    pub(super) fn new(name: String, line: EventFd) -> Self {
        Self {
            name,
            pending: AtomicU32::new(0),
            status: StatusRegister::default(),
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

    /// Bits as they were saved. The edge is made again: one that was on its way when the machine was saved is lost, and one too
    /// many means nothing.
    pub(super) fn restore(&self, bits: u32) {
        if bits != 0 {
            self.raise(bits);
        }
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
        if self.status.set_needs_reset() {
            self.raise(CONFIG_CHANGE);
        }
    }
}

impl Signals for MmioInterrupt {
    fn status(&self) -> &StatusRegister {
        &self.status
    }

    fn forget(&self) {
        self.pending.store(0, Ordering::Release);
    }
}
