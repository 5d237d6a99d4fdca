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

    /// `CONFIG_ADDRESS`, for a snapshot.
    pub(crate) fn save(&self) -> u32 {
        *lock(&self.address)
    }

    /// `CONFIG_ADDRESS` as it was saved.
    pub(crate) fn restore(&self, address: u32) {
        *lock(&self.address) = address;
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

#[cfg(test)]
mod tests {
    use pincushion_devices::trace::Tracer;
    use vm_memory::{GuestAddress, GuestMemoryMmap};

    use super::*;

    fn ports() -> ConfigPorts {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
        let bus = PciBus::new(vec![], true, &Arc::new(memory), &Arc::new(Tracer::new())).unwrap();
        ConfigPorts::new(Arc::new(bus))
    }

    fn config(ports: &ConfigPorts, address: u32) -> u32 {
        ports.write(0, &address.to_le_bytes());
        let mut data = [0; 4];
        ports.read(DATA, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn a_host_bridge_is_alone_on_an_empty_bus() {
        let ports = ports();
        assert_eq!(config(&ports, ENABLE), 0x0008_1b36);
        assert_eq!(config(&ports, ENABLE | 0x08) >> 16, 0x0600);
        assert_eq!(config(&ports, ENABLE | 1 << 11), u32::MAX);
        assert_eq!(config(&ports, ENABLE | 1 << 16), u32::MAX);
        assert_eq!(config(&ports, 0), u32::MAX, "the mechanism is off");
        let mut class = [0; 2];
        ports.write(0, &(ENABLE | 0x08).to_le_bytes());
        ports.read(DATA + 2, &mut class);
        assert_eq!(class, [0x00, 0x06], "a 16-bit read in the middle");
    }

    #[test]
    fn the_reset_register_resets_only_by_its_value() {
        let ports = ports();
        assert_eq!(ports.write(RESET, &[2]), Flow::Continue);
        assert_eq!(ports.write(RESET, &[6]), Flow::Reset);
        assert_eq!(ports.write(RESET, &[0x0e]), Flow::Reset);
    }
}
