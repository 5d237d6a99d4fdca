//! ECAM: configuration space as memory, 4 KiB for each function of bus 0 (PCI Express 3.0, 7.2.2).

use std::sync::Arc;

use super::bus::PciBus;
use super::ports::config_read;
use crate::bus::{BusDevice, Flow};

/// The ECAM region of bus 0.
pub(crate) struct Ecam(pub(crate) Arc<PciBus>);

fn place(offset: u64) -> (u8, u8, u64) {
    let byte = |value: u64| u8::try_from(value).expect("masked");
    (
        byte(offset >> 15 & 31),
        byte(offset >> 12 & 7),
        offset & 0xfff,
    )
}

impl BusDevice for Ecam {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let (slot, function, register) = place(offset);
        config_read(&self.0, slot, function, register, data);
    }

    fn write(&self, offset: u64, data: &[u8]) -> Flow {
        let (slot, function, register) = place(offset);
        self.0.write_config(slot, function, register, data);
        Flow::Continue
    }

    /// The bus is reset as a whole.
    fn reset(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_slot_function_and_register() {
        assert_eq!(place(0), (0, 0, 0));
        assert_eq!(place(31 << 15 | 7 << 12 | 0xffc), (31, 7, 0xffc));
        assert_eq!(place(1 << 20 | 0x10), (0, 0, 0x10));
    }
}
