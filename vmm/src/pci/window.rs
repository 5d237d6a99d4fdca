//! Memory of the bus: an access goes to the function whose BAR is there.

use std::arch::x86_64::__cpuid;
use std::sync::Arc;

use super::bus::PciBus;
use crate::bus::{BusDevice, Flow};

/// Fewer bits than any processor with virtualization has.
const FEWEST_BITS: u32 = 36;
/// What four levels of nested page tables reach, less than that of any newer processor.
const MOST_BITS: u32 = 46;

/// The window at the end of the guest's physical address space: its last quarter, far above RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HighWindow {
    /// First address.
    pub(crate) start: u64,
    /// End (exclusive).
    pub(crate) end: u64,
}

impl HighWindow {
    /// Of a guest on this host, whose address width it has.
    pub(super) fn of_this_host() -> Self {
        const ADDRESS_SIZES: u32 = 0x8000_0008;
        Self::of_width(__cpuid(ADDRESS_SIZES).eax & 0xff)
    }

    fn of_width(bits: u32) -> Self {
        let bits = bits.clamp(FEWEST_BITS, MOST_BITS);
        Self {
            start: 3 << (bits - 2),
            end: 1 << bits,
        }
    }
}

/// A window on the bus of the machine.
pub(crate) struct MemoryWindow {
    bus: Arc<PciBus>,
    start: u64,
}

impl MemoryWindow {
    /// The window that begins at `start`.
    pub(crate) fn new(bus: Arc<PciBus>, start: u64) -> Self {
        Self { bus, start }
    }
}

impl BusDevice for MemoryWindow {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match self.bus.at(self.start + offset) {
            Some((transport, offset)) => transport.read_bar(offset, data),
            None => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Flow {
        if let Some((transport, offset)) = self.bus.at(self.start + offset) {
            transport.write_bar(offset, data);
        }
        Flow::Continue
    }

    /// The bus is reset as a whole.
    fn reset(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_the_last_quarter_of_what_can_be_addressed() {
        let window = HighWindow::of_width(40);
        assert_eq!(
            (window.start, window.end),
            (0xc0_0000_0000, 0x100_0000_0000)
        );
        assert_eq!(HighWindow::of_width(52), HighWindow::of_width(46));
        assert!(HighWindow::of_width(0).start > 4 << 30);
    }
}
