//! Guests of a few instructions, for machine tests that need no Linux.

#![expect(dead_code, reason = "each test program uses its part of this module")]

pub mod bell;

use std::io::Write;
use std::path::Path;

use pincushion_vmm::machine::{Machine, MachineConfig, MachineError, Parts};
use tempfile::NamedTempFile;

/// Where payloads are loaded: the first address of high memory.
const LOAD: u32 = 0x10_0000;

/// Instructions for 32-bit protected mode, ring 0, as the PVH entry starts them. Interrupts are off and no
/// descriptor table for them exists. Only instructions that a KVM which emulates ring 0 can run.
#[derive(Default, Clone)]
pub struct Payload(Vec<u8>);

impl Payload {
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends machine code.
    pub fn code(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn set_dx(self, port: u16) -> Self {
        self.code(&[0x66, 0xba]).code(&port.to_le_bytes())
    }

    /// `out dx, al`
    pub fn outb(self, port: u16, value: u8) -> Self {
        self.set_dx(port).code(&[0xb0, value, 0xee])
    }

    /// `out dx, ax`
    pub fn outw(self, port: u16, value: u16) -> Self {
        self.set_dx(port)
            .code(&[0x66, 0xb8])
            .code(&value.to_le_bytes())
            .code(&[0x66, 0xef])
    }

    /// `out dx, eax`
    pub fn outl(self, port: u16, value: u32) -> Self {
        self.set_dx(port)
            .code(&[0xb8])
            .code(&value.to_le_bytes())
            .code(&[0xef])
    }

    /// `mov dword [address], value`
    pub fn store(self, address: u32, value: u32) -> Self {
        self.code(&[0xc7, 0x05])
            .code(&address.to_le_bytes())
            .code(&value.to_le_bytes())
    }

    /// `mov byte [address], value`
    pub fn store_byte(self, address: u32, value: u8) -> Self {
        self.code(&[0xc6, 0x05])
            .code(&address.to_le_bytes())
            .code(&[value])
    }

    /// `mov word [address], value`
    pub fn store_word(self, address: u32, value: u16) -> Self {
        self.code(&[0x66, 0xc7, 0x05])
            .code(&address.to_le_bytes())
            .code(&value.to_le_bytes())
    }

    /// `mov al, [address]`
    pub fn load_byte(self, address: u32) -> Self {
        self.code(&[0xa0]).code(&address.to_le_bytes())
    }

    /// Repeats `mov eax, [address]` until one of the bits in `mask` is set.
    pub fn wait_for(self, address: u32, mask: u32) -> Self {
        // mov eax, [address]; test eax, mask; jz -12
        self.code(&[0xa1])
            .code(&address.to_le_bytes())
            .code(&[0xa9])
            .code(&mask.to_le_bytes())
            .code(&[0x74, 0xf4])
    }

    /// Prints on the first serial port.
    pub fn print(self, text: &str) -> Self {
        text.bytes()
            .fold(self, |payload, byte| payload.outb(0x3f8, byte))
    }

    /// Writes S5 to the PM1 control register.
    pub fn power_off(self) -> Self {
        self.outw(0x604, 5 << 10 | 1 << 13)
    }

    /// An endless loop.
    pub fn spin(self) -> Self {
        self.code(&[0xeb, 0xfe])
    }

    /// `hlt` with interrupts off, for ever.
    pub fn halt(self) -> Self {
        self.code(&[0xf4, 0xeb, 0xfd])
    }

    /// An ELF file with a PVH note, as a Linux `vmlinux` has one.
    pub fn to_kernel(&self) -> NamedTempFile {
        let mut file = NamedTempFile::new().expect("a temporary file");
        file.write_all(&self.to_elf()).expect("a few hundred bytes");
        file
    }

    pub fn to_elf(&self) -> Vec<u8> {
        const NOTE_AT: u64 = 64 + 2 * 56;
        const CODE_AT: u64 = NOTE_AT + 20;
        let code_len = self.0.len() as u64;
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(16, 0);
        for half in [2u16, 62] {
            elf.extend(half.to_le_bytes());
        }
        elf.extend(1u32.to_le_bytes());
        for word in [u64::from(LOAD), 64, 0] {
            elf.extend(word.to_le_bytes());
        }
        elf.extend(0u32.to_le_bytes());
        for half in [64u16, 56, 2, 0, 0, 0] {
            elf.extend(half.to_le_bytes());
        }
        let load = u64::from(LOAD);
        for (kind, offset, address, len) in [(4u32, NOTE_AT, 0, 20), (1, CODE_AT, load, code_len)] {
            elf.extend(kind.to_le_bytes());
            elf.extend(7u32.to_le_bytes());
            for word in [offset, address, address, len, len, 4] {
                elf.extend(word.to_le_bytes());
            }
        }
        // XEN_ELFNOTE_PHYS32_ENTRY
        for word in [4u32, 4, 18] {
            elf.extend(word.to_le_bytes());
        }
        elf.extend(b"Xen\0");
        elf.extend(LOAD.to_le_bytes());
        elf.extend(&self.0);
        elf
    }
}

/// A machine of one vCPU and 4 MiB with the kernel at `path`; `None`, said aloud, where this host has no KVM.
pub fn machine(path: &Path, parts: Parts) -> Option<Machine> {
    machine_with(
        MachineConfig {
            memory_bytes: 4 << 20,
            ..MachineConfig::new(path)
        },
        parts,
    )
}

/// The same with any configuration.
pub fn machine_with(config: MachineConfig, parts: Parts) -> Option<Machine> {
    match Machine::new(config, parts) {
        Ok(machine) => Some(machine),
        Err(MachineError::NoKvm | MachineError::KvmPermission) => {
            eprintln!("skipped: /dev/kvm cannot be opened here");
            None
        }
        Err(error) => panic!("{error}"),
    }
}
