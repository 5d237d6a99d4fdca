//! An empty PCI bus behind configuration mechanism 1, and the chipset's reset register inside its ports.
//!
//! There is no PCI device. But a stock kernel prints "Fatal: No config space access function found"
//! where it finds no configuration mechanism, and takes one to be sane only with a host bridge on the bus:
//! so a host bridge is all there is.

use std::sync::Mutex;

use super::power::RESET_VALUE;
use crate::bus::{BusDevice, Flow};
use crate::layout::{PCI_CONFIG_PORT, RESET_PORT};
use crate::lock::lock;

/// `CONFIG_DATA` from `CONFIG_ADDRESS`.
const DATA: u64 = 4;
/// The reset register from `CONFIG_ADDRESS`.
const RESET: u64 = (RESET_PORT - PCI_CONFIG_PORT) as u64;
/// Bit 31 of `CONFIG_ADDRESS`: data accesses go to configuration space.
const ENABLE: u32 = 1 << 31;

/// Ports 0xcf8 to 0xcff.
#[derive(Debug, Default)]
pub struct PciStub {
    address: Mutex<u32>,
}

impl PciStub {
    /// Number of I/O ports.
    pub const LEN: u64 = 8;

    /// One dword of configuration space: the host bridge at 00:00.0, nothing elsewhere.
    fn dword(address: u32) -> u32 {
        const VENDOR_DEVICE: u32 = 0x0008_1b36; // Red Hat's generic host bridge
        const CLASS_HOST_BRIDGE: u32 = 0x0600_0000;
        if address & ENABLE == 0 || address & 0x00ff_ff00 != 0 {
            return u32::MAX;
        }
        match address & 0xfc {
            0x00 => VENDOR_DEVICE,
            0x08 => CLASS_HOST_BRIDGE,
            _ => 0,
        }
    }
}

impl BusDevice for PciStub {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let address = *lock(&self.address);
        let (word, skip) = if offset < DATA {
            (address, offset)
        } else {
            (Self::dword(address), offset - DATA)
        };
        let skip = usize::try_from(skip).unwrap_or(4);
        for (byte, register) in data.iter_mut().zip(word.to_le_bytes().iter().skip(skip)) {
            *byte = *register;
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Flow {
        match (offset, data) {
            // Bits 1 and 2 say what kind of reset; both set is the one that the FADT names.
            (RESET, [value]) if value & RESET_VALUE == RESET_VALUE => return Flow::Reset,
            (0, [a, b, c, d]) => {
                *lock(&self.address) = u32::from_le_bytes([*a, *b, *c, *d]);
            }
            _ => {}
        }
        Flow::Continue
    }

    fn reset(&self) {
        *lock(&self.address) = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(stub: &PciStub, address: u32) -> u32 {
        stub.write(0, &address.to_le_bytes());
        let mut data = [0; 4];
        stub.read(DATA, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn a_host_bridge_is_alone_on_the_bus() {
        let stub = PciStub::default();
        assert_eq!(config(&stub, ENABLE), 0x0008_1b36);
        assert_eq!(config(&stub, ENABLE | 0x08) >> 16, 0x0600);
        assert_eq!(config(&stub, ENABLE | 1 << 11), u32::MAX);
        assert_eq!(config(&stub, ENABLE | 1 << 16), u32::MAX);
        let mut class = [0; 2];
        stub.write(0, &(ENABLE | 0x08).to_le_bytes());
        stub.read(DATA + 2, &mut class);
        assert_eq!(class, [0x00, 0x06], "a 16-bit read in the middle");
    }

    #[test]
    fn the_reset_register_resets_only_by_its_value() {
        let stub = PciStub::default();
        assert_eq!(stub.write(RESET, &[2]), Flow::Continue);
        assert_eq!(stub.write(RESET, &[6]), Flow::Reset);
        assert_eq!(stub.write(RESET, &[0x0e]), Flow::Reset);
    }
}
