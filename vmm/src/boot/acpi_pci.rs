//! The PCI host bridge in ACPI's words: bus range, memory windows, interrupt routing, and who owns ECAM.

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Memory32Fixed, Name, Package,
    ResourceTemplate,
};
use acpi_tables::{Aml, aml};

use super::acpi::{PciRoot, on_system_bus};
use crate::layout::{
    PCI_CONFIG_PORT, PCI_ECAM_BASE, PCI_ECAM_LEN, PCI_WINDOW_END, PCI_WINDOW_START,
};
use crate::pci::intx_gsi;

/// The devices of the system bus that make up the root.
pub(super) fn devices(root: &PciRoot) -> Vec<u8> {
    let mut bytes = bridge(root);
    bytes.extend(motherboard());
    bytes
}

/// `PCI0`.
fn bridge(root: &PciRoot) -> Vec<u8> {
    let hid = Name::new("_HID".into(), &EISAName::new("PNP0A08"));
    let cid = Name::new("_CID".into(), &EISAName::new("PNP0A03"));
    let uid = Name::new("_UID".into(), &aml::ZERO);
    let segment = Name::new("_SEG".into(), &aml::ZERO);
    let bus = Name::new("_BBN".into(), &aml::ZERO);
    let cca = Name::new("_CCA".into(), &aml::ONE);
    let buses = AddressSpace::new_bus_number(0u16, 0u16);
    let ports = IO::new(PCI_CONFIG_PORT, PCI_CONFIG_PORT, 1, 8);
    let uncached = AddressSpaceCacheable::NotCacheable;
    let low = AddressSpace::new_memory(
        uncached,
        true,
        below_4_gib(PCI_WINDOW_START),
        below_4_gib(PCI_WINDOW_END - 1),
        None,
    );
    let (start, end) = (root.high_window.start, root.high_window.end);
    let uncached = AddressSpaceCacheable::NotCacheable;
    let high = AddressSpace::new_memory(uncached, true, start, end - 1, None);
    let resources = ResourceTemplate::new(vec![&buses, &ports, &low, &high]);
    let crs = Name::new("_CRS".into(), &resources);
    let pins: Vec<Pin> = (1..=root.slots).flat_map(pins_of).collect();
    let pins = Package::new(pins.iter().map(|pin| pin as &dyn Aml).collect());
    let routes = Name::new("_PRT".into(), &pins);
    let parts: Vec<&dyn Aml> = vec![&hid, &cid, &uid, &segment, &bus, &cca, &crs, &routes];
    on_system_bus(&Device::new("PCI0".into(), parts))
}

/// ECAM belongs to the board: a stock kernel does not use it unless somebody says so.
fn motherboard() -> Vec<u8> {
    let hid = Name::new("_HID".into(), &EISAName::new("PNP0C02"));
    let uid = Name::new("_UID".into(), &aml::ZERO);
    let len = u32::try_from(PCI_ECAM_LEN).expect("one megabyte");
    let ecam = Memory32Fixed::new(true, below_4_gib(PCI_ECAM_BASE), len);
    let resources = ResourceTemplate::new(vec![&ecam]);
    let crs = Name::new("_CRS".into(), &resources);
    on_system_bus(&Device::new("MBRD".into(), vec![&hid, &uid, &crs]))
}

/// One line of `_PRT` (ACPI 6.4, 6.2.13): a pin of a slot is an I/O APIC line.
struct Pin {
    slot: u8,
    /// 0 for INTA#.
    pin: u8,
    gsi: u32,
}

fn pins_of(slot: u8) -> impl Iterator<Item = Pin> {
    (0..4).map(move |pin| Pin {
        slot,
        pin,
        gsi: intx_gsi(slot, pin + 1),
    })
}

impl Aml for Pin {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        // All functions of the slot.
        let address = u32::from(self.slot) << 16 | 0xffff;
        Package::new(vec![&address, &self.pin, &aml::ZERO, &self.gsi]).to_aml_bytes(sink);
    }
}

fn below_4_gib(address: u64) -> u32 {
    u32::try_from(address).expect("the layout has it below 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_has_four_pins_and_the_windows_are_named() {
        let root = PciRoot {
            slots: 2,
            high_window: 0xc0_0000_0000..0x100_0000_0000,
        };
        let bytes = devices(&root);
        let has = |wanted: &[u8]| bytes.windows(wanted.len()).any(|part| part == wanted);
        assert!(has(b"_PRT") && has(b"_CRS") && has(b"PCI0") && has(b"MBRD"));
        assert!(has(&0x0002_ffffu32.to_le_bytes()) && !has(&0x0003_ffffu32.to_le_bytes()));
        assert!(has(&0xcfff_ffffu32.to_le_bytes()) && has(&0xff_ffff_ffffu64.to_le_bytes()));
        assert!(has(&below_4_gib(PCI_ECAM_BASE).to_le_bytes()));
    }
}
