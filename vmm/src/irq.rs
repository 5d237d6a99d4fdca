//! Interrupt lines: an eventfd per line, which KVM turns into an edge on an I/O APIC pin (irqfd).
//!
//! A line outlives the VM that it is registered with: a machine that reboots makes a new VM and registers
//! the same lines there.

use std::io;
use std::sync::Arc;

use kvm_ioctls::VmFd;
use vm_superio::Trigger;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::layout::VIRTIO_GSIS;

/// One edge-triggered interrupt line. Clones are the same line.
#[derive(Debug, Clone)]
pub struct IrqLine {
    gsi: u32,
    event: Arc<EventFd>,
}

impl IrqLine {
    /// A line at I/O APIC pin `gsi`, not yet connected.
    ///
    /// # Errors
    /// Where the host has no descriptor left.
    pub fn new(gsi: u32) -> io::Result<Self> {
        Ok(Self {
            gsi,
            event: Arc::new(EventFd::new(EFD_NONBLOCK)?),
        })
    }

    /// The I/O APIC pin.
    #[must_use]
    pub fn gsi(&self) -> u32 {
        self.gsi
    }

    /// The eventfd: each write is one interrupt.
    #[must_use]
    pub fn event(&self) -> &EventFd {
        &self.event
    }

    /// Connects the line to a VM; a level left over from an earlier VM is forgotten.
    ///
    /// # Errors
    /// KVM's error.
    pub fn connect(&self, vm: &VmFd) -> Result<(), kvm_ioctls::Error> {
        // EAGAIN means that nothing was left over.
        let _ = self.event.read();
        vm.register_irqfd(&self.event, self.gsi)
    }
}

impl Trigger for IrqLine {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.event.write(1)
    }
}

/// The interrupt line of the virtio device at `index`; `None` beyond the last free line.
#[must_use]
pub fn virtio_gsi(index: usize) -> Option<u32> {
    VIRTIO_GSIS.get(index).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtio_lines_are_distinct_and_no_serial_port_has_one() {
        use crate::layout::{COM1_GSI, COM2_GSI, SCI_GSI};
        let mut lines: Vec<_> = (0..)
            .map_while(virtio_gsi)
            .chain([COM1_GSI, COM2_GSI, SCI_GSI, 0])
            .collect();
        let count = lines.len();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), count);
        assert!(lines.iter().all(|line| *line < 24));
    }

    #[test]
    fn a_trigger_is_one_event() {
        let line = IrqLine::new(4).unwrap();
        line.trigger().unwrap();
        assert_eq!(line.event().read().unwrap(), 1);
    }
}
