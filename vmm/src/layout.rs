//! Where things are: the guest's physical addresses, I/O ports and interrupt lines.
//!
//! ```text
//! 0x0000_0000  RAM        boot structures below 0x9_fc00, ACPI tables in 0xe_0000..0x10_0000
//! 0x0010_0000  RAM        the kernel; the initrd at the upper end
//! 0xc000_0000  hole       PCI memory, virtio-mmio windows from 0xd000_0000, ECAM, IOAPIC, LAPIC, KVM's TSS pages
//! 0x1_0000_0000 RAM       what did not fit below, then files as memory (region.rs)
//! last quarter PCI memory  where a guest may move its BARs (pci/window.rs)
//! ```

/// End of the RAM below the hole (exclusive).
pub const LOW_RAM_END: u64 = 0xc000_0000;
/// Where RAM goes on above the hole.
pub const HIGH_RAM_START: u64 = 0x1_0000_0000;

/// End of the conventional memory that the guest may use (exclusive).
pub const CONVENTIONAL_END: u64 = 0x9_fc00;
/// First byte of the ACPI tables; the RSDP is here, where a guest scans for it.
pub const ACPI_START: u64 = 0xe_0000;
/// End of the room for ACPI tables (exclusive).
pub const ACPI_END: u64 = 0x10_0000;
/// Where "high" memory starts: what is above may hold a kernel.
pub const HIMEM_START: u64 = 0x10_0000;

/// The boot processor's descriptor table.
pub const BOOT_GDT: u64 = 0x500;
/// Start information of the PVH boot protocol.
pub const PVH_START_INFO: u64 = 0x6000;
/// The PVH module list (the initrd).
pub const PVH_MODULES: u64 = 0x6040;
/// The PVH memory map.
pub const PVH_MEMMAP: u64 = 0x6080;
/// The boot parameters ("zero page") of the Linux boot protocol.
pub const ZERO_PAGE: u64 = 0x7000;
/// Boot stack of the 64-bit entry.
pub const BOOT_STACK: u64 = 0x8ff0;
/// Identity page tables of the 64-bit entry: six pages.
pub const BOOT_PAGE_TABLES: u64 = 0x9000;
/// The kernel command line.
pub const CMDLINE: u64 = 0x2_0000;
/// Longest command line in bytes, with its final zero (`COMMAND_LINE_SIZE` on x86).
pub const CMDLINE_MAX: usize = 2048;

/// First address of the PCI memory window below 4 GiB, where BARs are placed.
pub const PCI_WINDOW_START: u64 = 0xc000_0000;
/// End of that window (exclusive).
pub const PCI_WINDOW_END: u64 = 0xd000_0000;
/// ECAM of bus 0.
pub const PCI_ECAM_BASE: u64 = 0xe000_0000;
/// Bytes of ECAM: 4 KiB for each of 256 functions.
pub const PCI_ECAM_LEN: u64 = 1 << 20;
/// Slots of bus 0 behind the host bridge's.
pub const PCI_SLOTS: usize = 31;
/// Most functions that the slots have room for.
pub const MAX_PCI_FUNCTIONS: usize = PCI_SLOTS * 8;
/// First virtio-mmio window.
pub const VIRTIO_MMIO_BASE: u64 = 0xd000_0000;
/// Size of one virtio-mmio window.
pub const VIRTIO_MMIO_WINDOW: u64 = 0x1000;
/// The in-kernel I/O APIC.
pub const IOAPIC: u32 = 0xfec0_0000;
/// The in-kernel local APICs.
pub const LAPIC: u32 = 0xfee0_0000;
/// Three pages that KVM wants on Intel hosts for real mode.
pub const KVM_TSS: usize = 0xfffb_d000;
/// One page that KVM wants on Intel hosts for identity maps.
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;

/// First serial port (the console).
pub const COM1_PORT: u16 = 0x3f8;
/// Interrupt line of the first serial port.
pub const COM1_GSI: u32 = 4;
/// Second serial port (lines to the agent).
pub const COM2_PORT: u16 = 0x2f8;
/// Interrupt line of the second serial port.
pub const COM2_GSI: u32 = 3;
/// The keyboard controller, of which only the reset command exists.
pub const I8042_PORT: u16 = 0x60;
/// The pvpanic device.
pub const PVPANIC_PORT: u16 = 0x505;
/// ACPI: PM1a event block (4 bytes), PM1a control (2 bytes, at +4), PM timer (4 bytes, at +8).
pub const ACPI_PM_PORT: u16 = 0x600;
/// The reset register: the chipset's port 0xcf9, inside the range of the PCI configuration ports.
pub const RESET_PORT: u16 = 0xcf9;
/// PCI configuration mechanism 1.
pub const PCI_CONFIG_PORT: u16 = 0xcf8;
/// The ACPI interrupt. Nothing raises it; a kernel wants to know its number.
pub const SCI_GSI: u32 = 9;

/// Interrupt lines for virtio devices: I/O APIC pins that no ISA device has, then ISA lines that are free here.
pub const VIRTIO_GSIS: [u32; 15] = [16, 17, 18, 19, 20, 21, 22, 23, 5, 6, 7, 10, 11, 14, 15];

/// Interrupt lines that PCI functions share, level triggered.
pub const INTX_GSIS: [u32; 8] = [16, 17, 18, 19, 20, 21, 22, 23];

/// Most vCPUs that a machine can have.
pub const MAX_VCPUS: u8 = 16;
