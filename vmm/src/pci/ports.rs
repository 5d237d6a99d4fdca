//! Configuration mechanism 1 (ports 0xcf8 to 0xcff), and the chipset's reset register inside its ports.
//!
//! Every machine has it, also one without a PCI device: a stock kernel prints "Fatal: No config space access function
//! found" where it finds no configuration mechanism, and takes one to be sane only with a host bridge on the bus.

use std::sync::{Arc, Mutex};

use super::bus::PciBus;
use crate::bus::{BusDevice, Flow};
use crate::layout::{PCI_CONFIG_PORT, RESET_PORT};
use crate::lock::lock;
use crate::platform::power::RESET_VALUE;

/// `CONFIG_DATA` from `CONFIG_ADDRESS`.
const DATA: u64 = 4;
/// The reset register from `CONFIG_ADDRESS`.
const RESET: u64 = (RESET_PORT - PCI_CONFIG_PORT) as u64;
/// Bit 31 of `CONFIG_ADDRESS`: data accesses go to configuration space.
const ENABLE: u32 = 1 << 31;

/// Ports 0xcf8 to 0xcff.
pub(crate) struct ConfigPorts {
    bus: Arc<PciBus>,
    address: Mutex<u32>,
}

/// What `CONFIG_ADDRESS` and the offset of a data port mean.
struct Place {
    slot: u8,
    function: u8,
    register: u64,
}

impl ConfigPorts {
    /// Number of I/O ports.
    pub(crate) const LEN: u64 = 8;

    /// The ports of `bus`.
    pub(crate) fn new(bus: Arc<PciBus>) -> Self {
        Self {
            bus,
            address: Mutex::new(0),
        }
    }

    /// `None` where there is nothing: mechanism off, or another bus than 0.
    fn place(&self, offset: u64) -> Option<Place> {
        let address = *lock(&self.address);
        let [register, devfn, bus, _] = address.to_le_bytes();
        (address & ENABLE != 0 && bus == 0).then(|| Place {
            slot: devfn >> 3,
            function: devfn & 7,
            register: u64::from(register & 0xfc) + (offset - DATA),
        })
    }
}

/// Reads configuration space on `bus`: the host bridge at 00:00.0, functions, all ones where nobody is.
pub(super) fn config_read(bus: &PciBus, slot: u8, function: u8, register: u64, data: &mut [u8]) {
    if (slot, function) == (0, 0) {
        host_bridge(register, data);
    } else if !bus.read_config(slot, function, register, data) {
        data.fill(0xff);
    }
}

fn host_bridge(register: u64, data: &mut [u8]) {
    const VENDOR_DEVICE: u32 = 0x0008_1b36; // Red Hat's generic host bridge
    const CLASS_HOST_BRIDGE: u32 = 0x0600_0000;
    let mut header = [0; 12];
    header[..4].copy_from_slice(&VENDOR_DEVICE.to_le_bytes());
    header[8..].copy_from_slice(&CLASS_HOST_BRIDGE.to_le_bytes());
    data.fill(0);
    let skip = usize::try_from(register).unwrap_or(header.len());
    for (byte, register) in data.iter_mut().zip(header.iter().skip(skip)) {
        *byte = *register;
    }
}

impl BusDevice for ConfigPorts {
    fn read(&self, offset: u64, data: &mut [u8]) {
        if offset < DATA {
            let address = lock(&self.address).to_le_bytes();
            let skip = usize::try_from(offset).unwrap_or(4);
            for (byte, register) in data.iter_mut().zip(address.iter().skip(skip)) {
                *byte = *register;
            }
            return;
        }
        match self.place(offset) {
            Some(place) => config_read(&self.bus, place.slot, place.function, place.register, data),
            None => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Flow {
        match (offset, data) {
            // Bits 1 and 2 say what kind of reset; both set is the one that the FADT names.
            (RESET, [value]) if value & RESET_VALUE == RESET_VALUE => return Flow::Reset,
            (0, [a, b, c, d]) => {
                *lock(&self.address) = u32::from_le_bytes([*a, *b, *c, *d]);
            }
            (DATA.., data) => {
                if let Some(place) = self.place(offset) {
                    self.bus
                        .write_config(place.slot, place.function, place.register, data);
                }
            }
            _ => {}
        }
        Flow::Continue
    }

    fn reset(&self) {
        *lock(&self.address) = 0;
    }
}
