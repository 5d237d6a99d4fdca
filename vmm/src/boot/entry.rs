//! The state in which the boot processor enters a kernel, and the tables it finds in memory.
//!
//! Two protocols: PVH (32-bit protected mode, no paging, start information in RBX) and Linux's 64-bit
//! boot protocol (long mode, identity map of the first 4 GiB, zero page in RSI).

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use linux_loader::loader::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use vm_memory::{Address, ByteValued, Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use super::kernel::{Entry, LoadedKernel};
use super::memory_map::{self, MapEntry};
use crate::layout::{
    ACPI_START, BOOT_GDT, BOOT_PAGE_TABLES, BOOT_STACK, CMDLINE, PVH_MEMMAP, PVH_MODULES,
    PVH_START_INFO, ZERO_PAGE,
};

const PVH_MAGIC: u32 = 0x336e_c578;
const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const RFLAGS_RESERVED: u64 = 2;

/// An initrd in guest memory; a length of 0 is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Initrd {
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
}

/// Writes what the kernel's entry expects to find in memory.
///
/// # Errors
/// Only where guest memory is smaller than the machine's minimum.
pub fn write_boot_information(
    memory: &GuestMemoryMmap,
    kernel: &LoadedKernel,
    initrd: Initrd,
    cmdline: &[u8],
) -> Result<(), GuestMemoryError> {
    memory.write_slice(cmdline, GuestAddress(CMDLINE))?;
    memory.write_obj(0u8, GuestAddress(CMDLINE + cmdline.len() as u64))?;
    let map = memory_map::of(memory);
    match kernel.entry {
        Entry::Pvh(_) => write_start_info(memory, initrd, &map),
        Entry::Linux64(_) => {
            write_page_tables(memory)?;
            write_zero_page(memory, kernel, initrd, cmdline, &map)
        }
    }
}

/// Registers of the boot processor at `entry`.
#[must_use]
pub fn boot_registers(entry: Entry) -> kvm_regs {
    match entry {
        Entry::Pvh(start) => kvm_regs {
            rip: start.raw_value(),
            rbx: PVH_START_INFO,
            rflags: RFLAGS_RESERVED,
            ..Default::default()
        },
        Entry::Linux64(start) => kvm_regs {
            rip: start.raw_value(),
            rsi: ZERO_PAGE,
            rsp: BOOT_STACK,
            rbp: BOOT_STACK,
            rflags: RFLAGS_RESERVED,
            ..Default::default()
        },
    }
}

/// Turns the reset state `sregs` into the mode that `entry` wants.
pub fn boot_special_registers(entry: Entry, sregs: &mut kvm_sregs) {
    let code = match entry {
        Entry::Pvh(_) => segment(0x08, 0xb, CodeSize::Bits32),
        Entry::Linux64(_) => segment(0x10, 0xb, CodeSize::Bits64),
    };
    let data = segment(0x18, 0x3, CodeSize::Bits32);
    sregs.cs = code;
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    // A busy 32-bit TSS of the smallest legal size, as PVH demands; long mode reads type 0xb the same way.
    sregs.tr = kvm_segment {
        base: 0,
        limit: 0x67,
        selector: 0x20,
        type_: 0xb,
        present: 1,
        ..Default::default()
    };
    sregs.gdt.base = BOOT_GDT;
    sregs.gdt.limit = 5 * 8 - 1;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    sregs.cr0 = CR0_PE | CR0_ET;
    if matches!(entry, Entry::Linux64(_)) {
        sregs.cr0 |= CR0_PG;
        sregs.cr3 = BOOT_PAGE_TABLES;
        sregs.cr4 = CR4_PAE;
        sregs.efer = EFER_LME | EFER_LMA;
    }
}

/// Writes the descriptor table that [`boot_special_registers`] names.
///
/// # Errors
/// Only where guest memory is smaller than the machine's minimum.
pub fn write_gdt(memory: &GuestMemoryMmap) -> Result<(), GuestMemoryError> {
    const GDT: [u64; 5] = [
        0,
        0x00cf_9b00_0000_ffff, // 0x08: 32-bit code
        0x00af_9b00_0000_ffff, // 0x10: 64-bit code
        0x00cf_9300_0000_ffff, // 0x18: data
        0x0000_8b00_0000_0067, // 0x20: TSS
    ];
    memory.write_obj(GDT, GuestAddress(BOOT_GDT))
}

#[derive(Clone, Copy)]
enum CodeSize {
    Bits32,
    Bits64,
}

fn segment(selector: u16, type_: u8, size: CodeSize) -> kvm_segment {
    let (db, l) = match size {
        CodeSize::Bits32 => (1, 0),
        CodeSize::Bits64 => (0, 1),
    };
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        dpl: 0,
        db,
        s: 1,
        l,
        g: 1,
        ..Default::default()
    }
}

fn write_start_info(
    memory: &GuestMemoryMmap,
    initrd: Initrd,
    map: &[MapEntry],
) -> Result<(), GuestMemoryError> {
    for (index, entry) in map.iter().enumerate() {
        let row = hvm_memmap_table_entry {
            addr: entry.start,
            size: entry.len,
            type_: entry.kind as u32,
            reserved: 0,
        };
        memory.write_obj(
            row,
            GuestAddress(PVH_MEMMAP + (index * size_of::<hvm_memmap_table_entry>()) as u64),
        )?;
    }
    let module = hvm_modlist_entry {
        paddr: initrd.start,
        size: initrd.len,
        ..Default::default()
    };
    memory.write_obj(module, GuestAddress(PVH_MODULES))?;
    let info = hvm_start_info {
        magic: PVH_MAGIC,
        version: 1,
        nr_modules: u32::from(initrd.len > 0),
        modlist_paddr: PVH_MODULES,
        cmdline_paddr: CMDLINE,
        rsdp_paddr: ACPI_START,
        memmap_paddr: PVH_MEMMAP,
        memmap_entries: u32::try_from(map.len()).expect("a handful of ranges"),
        ..Default::default()
    };
    memory.write_obj(info, GuestAddress(PVH_START_INFO))
}

fn write_zero_page(
    memory: &GuestMemoryMmap,
    kernel: &LoadedKernel,
    initrd: Initrd,
    cmdline: &[u8],
    map: &[MapEntry],
) -> Result<(), GuestMemoryError> {
    let mut params = boot_params::default();
    match kernel.setup_header {
        Some(header) => params.hdr = header,
        // An ELF kernel: it reads these fields, which a boot loader would have copied from the bzImage.
        None => {
            params.hdr.boot_flag = 0xaa55;
            params.hdr.header = 0x5372_6448;
            params.hdr.version = 0x20f;
            params.hdr.kernel_alignment = 0x100_0000;
        }
    }
    params.hdr.type_of_loader = 0xff;
    params.hdr.loadflags |= 1;
    params.hdr.cmd_line_ptr = u32::try_from(CMDLINE).expect("below 1 MiB");
    params.hdr.cmdline_size = u32::try_from(cmdline.len()).expect("bounded by the caller");
    params.hdr.ramdisk_image = u32::try_from(initrd.start).expect("placed below 2 GiB");
    params.hdr.ramdisk_size = u32::try_from(initrd.len).expect("placed below 2 GiB");
    params.acpi_rsdp_addr = ACPI_START;
    params.e820_entries = u8::try_from(map.len()).expect("a handful of ranges");
    for (row, entry) in params.e820_table.iter_mut().zip(map) {
        *row = boot_e820_entry {
            addr: entry.start,
            size: entry.len,
            r#type: entry.kind as u32,
        };
    }
    memory.write_slice(params.as_slice(), GuestAddress(ZERO_PAGE))
}

/// Identity map of the first 4 GiB by 2 MiB pages: one PML4, one PDPT, four page directories.
fn write_page_tables(memory: &GuestMemoryMmap) -> Result<(), GuestMemoryError> {
    const PRESENT_WRITABLE: u64 = 3;
    const PAGE_SIZE_BIT: u64 = 1 << 7;
    let pdpt = BOOT_PAGE_TABLES + 0x1000;
    memory.write_obj(pdpt | PRESENT_WRITABLE, GuestAddress(BOOT_PAGE_TABLES))?;
    for gib in 0..4 {
        let directory = pdpt + 0x1000 * (gib + 1);
        memory.write_obj(directory | PRESENT_WRITABLE, GuestAddress(pdpt + gib * 8))?;
        for index in 0..512 {
            let page = (gib << 30) | (index << 21);
            memory.write_obj(
                page | PAGE_SIZE_BIT | PRESENT_WRITABLE,
                GuestAddress(directory + index * 8),
            )?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> GuestMemoryMmap {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 4 << 20)]).unwrap()
    }

    fn kernel(entry: Entry) -> LoadedKernel {
        LoadedKernel {
            entry,
            end: 0x20_0000,
            setup_header: None,
        }
    }

    #[test]
    fn a_pvh_kernel_finds_command_line_initrd_and_memory_map() {
        let memory = memory();
        let initrd = Initrd {
            start: 0x30_0000,
            len: 0x1234,
        };
        write_boot_information(
            &memory,
            &kernel(Entry::Pvh(GuestAddress(0x10_0000))),
            initrd,
            b"quiet",
        )
        .unwrap();
        let info: hvm_start_info = memory.read_obj(GuestAddress(PVH_START_INFO)).unwrap();
        assert_eq!(
            (info.magic, info.nr_modules, info.rsdp_paddr),
            (PVH_MAGIC, 1, ACPI_START)
        );
        let module: hvm_modlist_entry = memory.read_obj(GuestAddress(info.modlist_paddr)).unwrap();
        assert_eq!((module.paddr, module.size), (0x30_0000, 0x1234));
        let cmdline: [u8; 6] = memory.read_obj(GuestAddress(info.cmdline_paddr)).unwrap();
        assert_eq!(&cmdline, b"quiet\0");
        assert_eq!(info.memmap_entries as usize, memory_map::of(&memory).len());
    }

    #[test]
    fn a_64_bit_kernel_finds_its_zero_page_and_runs_in_long_mode() {
        let memory = memory();
        let entry = Entry::Linux64(GuestAddress(0x10_0200));
        write_boot_information(&memory, &kernel(entry), Initrd::default(), b"").unwrap();
        let params: boot_params = memory.read_obj(GuestAddress(ZERO_PAGE)).unwrap();
        assert_eq!({ params.hdr.header }, 0x5372_6448);
        assert_eq!({ params.hdr.ramdisk_size }, 0);
        let mut sregs = kvm_sregs::default();
        boot_special_registers(entry, &mut sregs);
        assert_eq!((sregs.cs.l, sregs.cs.db), (1, 0));
        assert_eq!(sregs.efer, EFER_LME | EFER_LMA);
        let regs = boot_registers(entry);
        assert_eq!((regs.rip, regs.rsi), (0x10_0200, ZERO_PAGE));
    }
}
