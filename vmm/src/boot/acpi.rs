//! The ACPI tables: what a stock kernel needs to find the CPUs, the virtio-mmio windows or the PCI bus, the serial
//! ports, and the way to power off. Everything absent is said to be absent, so nobody waits for it.
//!
//! Full hardware (not "reduced"), because Linux's power-off, reset and PM timer come with it.

use std::ops::Range;

use acpi_tables::aml::{
    Device, EISAName, IO, Interrupt, Memory32Fixed, Name, Package, Path, ResourceTemplate, Scope,
};
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, ProcessorLocalApic};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, aml};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use super::acpi_pci;
use crate::layout::{
    ACPI_END, ACPI_PM_PORT, ACPI_START, COM1_GSI, COM1_PORT, COM2_GSI, COM2_PORT, IOAPIC, LAPIC,
    PCI_ECAM_BASE, PVPANIC_PORT, RESET_PORT, SCI_GSI, VIRTIO_MMIO_WINDOW,
};
use crate::platform::power::{RESET_VALUE, SLEEP_TYPE_S5};

const OEM_ID: [u8; 6] = *b"PNCUSH";
const OEM_TABLE_ID: [u8; 8] = *b"PNCUSHVM";
const OEM_REVISION: u32 = 1;

/// FADT `IAPC_BOOT_ARCH` (ACPI 6.4, table 5.11). Bits 0 and 1 stay clear: no legacy devices that need a
/// driver without enumeration, no 8042.
const VGA_NOT_PRESENT: u16 = 1 << 2;
const CMOS_RTC_NOT_PRESENT: u16 = 1 << 5;

/// A virtio-mmio window as the guest sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VirtioWindow {
    /// First address, below 4 GiB.
    pub base: u32,
    /// Interrupt line, edge triggered.
    pub gsi: u32,
}

/// The bus of virtio-pci devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PciRoot {
    /// Slots 1 to this have a function.
    pub slots: u8,
    /// The memory window above RAM.
    pub high_window: Range<u64>,
}

/// What the tables say of virtio devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hardware {
    /// virtio-mmio windows.
    pub windows: Vec<VirtioWindow>,
    /// The PCI bus, if there is anything on it.
    pub pci: Option<PciRoot>,
}

/// Writes all tables; the RSDP is at [`ACPI_START`].
///
/// # Errors
/// Only where guest memory is smaller than the machine's minimum.
pub fn write(
    memory: &GuestMemoryMmap,
    vcpus: u8,
    hardware: &Hardware,
) -> Result<(), GuestMemoryError> {
    let mut writer = TableWriter {
        memory,
        next: ACPI_START + 64,
    };
    let dsdt = writer.append(&dsdt(hardware))?;
    let facs = writer.append(&FACS::new())?;
    let fadt = writer.append(&fadt(dsdt, facs))?;
    let madt = writer.append(&madt(vcpus))?;
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    if hardware.pci.is_some() {
        let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
        mcfg.add_ecam(PCI_ECAM_BASE, 0, 0, 0);
        xsdt.add_entry(writer.append(&mcfg)?);
    }
    let xsdt = writer.append(&xsdt)?;
    memory.write_slice(
        &bytes_of(&Rsdp::new(OEM_ID, xsdt)),
        GuestAddress(ACPI_START),
    )
}

struct TableWriter<'a> {
    memory: &'a GuestMemoryMmap,
    next: u64,
}

impl TableWriter<'_> {
    /// Writes one table and returns its address, a multiple of 64 (the FACS wants that).
    fn append(&mut self, table: &dyn Aml) -> Result<u64, GuestMemoryError> {
        let bytes = bytes_of(table);
        let at = self.next;
        self.next = (at + bytes.len() as u64).next_multiple_of(64);
        assert!(
            self.next <= ACPI_END,
            "the tables of 16 vCPUs and of all devices take less than 16 KiB"
        );
        self.memory.write_slice(&bytes, GuestAddress(at))?;
        Ok(at)
    }
}

fn bytes_of(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// MADT (ACPI 6.4, 5.2.12): the local APICs, the I/O APIC, and the one ISA line that is not edge triggered.
fn madt(vcpus: u8) -> Sdt {
    const HEADER_LEN: u32 = 36;
    /// The two 8259 exist, so nobody probes for them.
    const PCAT_COMPAT: u32 = 1;
    let mut madt = Sdt::new(*b"APIC", HEADER_LEN, 5, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    madt.append_slice(&LAPIC.to_le_bytes());
    madt.append_slice(&PCAT_COMPAT.to_le_bytes());
    for index in 0..vcpus {
        madt.append_slice(&bytes_of(&ProcessorLocalApic::new(
            index,
            index,
            EnabledStatus::Enabled,
        )));
    }
    madt.append_slice(&bytes_of(&IoApic::new(0, IOAPIC, 0)));
    madt.append_slice(&source_override_level_high(SCI_GSI));
    madt
}

/// Interrupt source override (ACPI 6.4, 5.2.12.5): the ISA line is its own pin, level triggered, active high.
fn source_override_level_high(gsi: u32) -> [u8; 10] {
    const ACTIVE_HIGH: u8 = 1;
    const LEVEL: u8 = 3 << 2;
    let line = u8::try_from(gsi).expect("an ISA line");
    [2, 10, 0, line, line, 0, 0, 0, ACTIVE_HIGH | LEVEL, 0]
}

fn io(port: u16, bits: u8, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, bits, 0, access, u64::from(port))
}

fn fadt(dsdt: u64, facs: u64) -> acpi_tables::fadt::FADT {
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless);
    // Linux wants both widths to agree, and reads the 32-bit ones where they are there.
    fadt.dsdt = u32::try_from(dsdt).expect("below 1 MiB").into();
    fadt.x_dsdt = dsdt.into();
    fadt.firmware_ctrl = u32::try_from(facs).expect("below 1 MiB").into();
    let sci = u16::try_from(SCI_GSI).expect("an ISA line");
    fadt.sci_int = sci.into();
    fadt.pm1a_evt_blk = u32::from(ACPI_PM_PORT).into();
    fadt.pm1a_cnt_blk = u32::from(ACPI_PM_PORT + 4).into();
    fadt.pm_tmr_blk = u32::from(ACPI_PM_PORT + 8).into();
    (fadt.pm1_evt_len, fadt.pm1_cnt_len, fadt.pm_tmr_len) = (4, 2, 4);
    fadt.x_pm1a_evt_blk = io(ACPI_PM_PORT, 32, AccessSize::WordAccess);
    fadt.x_pm1a_cnt_blk = io(ACPI_PM_PORT + 4, 16, AccessSize::WordAccess);
    fadt.x_pm_tmr_blk = io(ACPI_PM_PORT + 8, 32, AccessSize::DwordAccess);
    // Latencies beyond these limits mean "no C2, no C3" (ACPI 6.4, table 5.9).
    fadt.p_lvl2_lat = 101.into();
    fadt.p_lvl3_lat = 1001.into();
    fadt.iapc_boot_arch = (VGA_NOT_PRESENT | CMOS_RTC_NOT_PRESENT).into();
    fadt.reset_reg = io(RESET_PORT, 8, AccessSize::ByteAccess);
    fadt.reset_value = RESET_VALUE;
    fadt.finalize()
}

fn dsdt(hardware: &Hardware) -> Sdt {
    const HEADER_LEN: u32 = 36;
    let mut dsdt = Sdt::new(*b"DSDT", HEADER_LEN, 6, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    let s5 = Package::new(vec![&SLEEP_TYPE_S5, &aml::ZERO, &aml::ZERO, &aml::ZERO]);
    dsdt.append_slice(&bytes_of(&Name::new("_S5_".into(), &s5)));
    dsdt.append_slice(&serial_port("COM1", 1, COM1_PORT, COM1_GSI));
    dsdt.append_slice(&serial_port("COM2", 2, COM2_PORT, COM2_GSI));
    dsdt.append_slice(&pvpanic());
    for (index, window) in hardware.windows.iter().enumerate() {
        dsdt.append_slice(&virtio_mmio(index, *window));
    }
    if let Some(root) = &hardware.pci {
        dsdt.append_slice(&acpi_pci::devices(root));
    }
    dsdt
}

/// Wraps a device into the system bus `\_SB`.
pub(super) fn on_system_bus(device: &Device<'_>) -> Vec<u8> {
    bytes_of(&Scope::new(Path::new("_SB_"), vec![device]))
}

fn serial_port(name: &str, number: u8, port: u16, gsi: u32) -> Vec<u8> {
    let hid = Name::new("_HID".into(), &EISAName::new("PNP0501"));
    let uid = Name::new("_UID".into(), &number);
    let ports = IO::new(port, port, 1, 8);
    let interrupt = Interrupt::new(true, true, false, false, gsi);
    let resources = ResourceTemplate::new(vec![&ports, &interrupt]);
    let crs = Name::new("_CRS".into(), &resources);
    on_system_bus(&Device::new(name.into(), vec![&hid, &uid, &crs]))
}

fn pvpanic() -> Vec<u8> {
    let hid = Name::new("_HID".into(), &"QEMU0001");
    let ports = IO::new(PVPANIC_PORT, PVPANIC_PORT, 1, 1);
    let resources = ResourceTemplate::new(vec![&ports]);
    let crs = Name::new("_CRS".into(), &resources);
    on_system_bus(&Device::new("PEVT".into(), vec![&hid, &crs]))
}

fn virtio_mmio(index: usize, window: VirtioWindow) -> Vec<u8> {
    let number = u32::try_from(index).expect("at most 15 windows");
    let hid = Name::new("_HID".into(), &"LNRO0005");
    let uid = Name::new("_UID".into(), &number);
    let cca = Name::new("_CCA".into(), &aml::ONE);
    let len = u32::try_from(VIRTIO_MMIO_WINDOW).expect("a page");
    let registers = Memory32Fixed::new(true, window.base, len);
    let interrupt = Interrupt::new(true, true, false, false, window.gsi);
    let resources = ResourceTemplate::new(vec![&registers, &interrupt]);
    let crs = Name::new("_CRS".into(), &resources);
    let name = format!("VR{index:02}");
    on_system_bus(&Device::new(
        name.as_str().into(),
        vec![&hid, &uid, &cca, &crs],
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(hardware: &Hardware) -> GuestMemoryMmap {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 2 << 20)]).unwrap();
        write(&memory, 2, hardware).unwrap();
        memory
    }

    fn mmio() -> Hardware {
        Hardware {
            windows: vec![VirtioWindow {
                base: 0xd000_0000,
                gsi: 16,
            }],
            pci: None,
        }
    }

    fn pci(slots: u8) -> Hardware {
        Hardware {
            windows: vec![],
            pci: Some(PciRoot {
                slots,
                high_window: 0xc0_0000_0000..0x100_0000_0000,
            }),
        }
    }

    fn table(memory: &GuestMemoryMmap, at: u64) -> Vec<u8> {
        let len: u32 = memory.read_obj(GuestAddress(at + 4)).unwrap();
        let mut bytes = vec![0; len as usize];
        memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes
            .iter()
            .fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn every_table_is_reached_from_the_rsdp_and_has_a_good_checksum() {
        good_tables(&mmio(), &[b"FACP", b"APIC"]);
        good_tables(&pci(3), &[b"FACP", b"APIC", b"MCFG"]);
    }

    fn good_tables(hardware: &Hardware, expected: &[&[u8; 4]]) {
        let memory = tables(hardware);
        let mut rsdp = [0; 36];
        memory
            .read_slice(&mut rsdp, GuestAddress(ACPI_START))
            .unwrap();
        assert_eq!(
            (&rsdp[..8], sum(&rsdp[..20]), sum(&rsdp)),
            (b"RSD PTR ".as_slice(), 0, 0)
        );
        let xsdt = table(
            &memory,
            u64::from_le_bytes(*rsdp[24..].first_chunk().unwrap()),
        );
        assert_eq!((&xsdt[..4], sum(&xsdt)), (b"XSDT".as_slice(), 0));
        assert_eq!(xsdt[36..].len(), 8 * expected.len());
        for (entry, &signature) in xsdt[36..].chunks(8).zip(expected) {
            let bytes = table(&memory, u64::from_le_bytes(entry.try_into().unwrap()));
            assert_eq!((&bytes[..4], sum(&bytes)), (signature.as_slice(), 0));
            if signature == b"FACP" {
                assert_eq!(bytes[109], 0x24, "no VGA, no CMOS RTC");
                let dsdt = table(
                    &memory,
                    u64::from_le_bytes(*bytes[140..].first_chunk().unwrap()),
                );
                assert_eq!((&dsdt[..4], sum(&dsdt)), (b"DSDT".as_slice(), 0));
            }
        }
    }

    #[test]
    fn sixteen_vcpus_and_all_windows_fit() {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 2 << 20)]).unwrap();
        let windows: Vec<_> = crate::layout::VIRTIO_GSIS
            .iter()
            .map(|&gsi| VirtioWindow {
                base: 0xd000_0000 + gsi * 0x1000,
                gsi,
            })
            .collect();
        let hardware = Hardware { windows, pci: None };
        write(&memory, 16, &hardware).unwrap();
        write(&memory, 16, &pci(31)).unwrap();
    }
}
