//! Leaves out of a program what is not loaded: symbols, debug information and the section table.
//!
//! What a static program needs to run is in its program headers; a debug build carries four times as much beside it, and
//! each megabyte of an initramfs costs boot time in an emulated machine.

use object::elf::{FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use object::{Endianness, U16, U64};

/// The program without what is not loaded; unchanged if it is not a 64-bit ELF file whose tables we understand.
#[must_use]
pub fn strip(mut program: Vec<u8>) -> Vec<u8> {
    let Some(end) = loaded_end(&program) else {
        return program;
    };
    program.truncate(end);
    let Ok((header, _)) = object::from_bytes_mut::<FileHeader64<Endianness>>(&mut program) else {
        return program;
    };
    header.e_shoff = U64::new(Endianness::Little, 0);
    header.e_shnum = U16::new(Endianness::Little, 0);
    header.e_shstrndx = U16::new(Endianness::Little, object::elf::SymbolSection(0));
    program
}

/// One past the last byte that the headers or a segment need.
fn loaded_end(program: &[u8]) -> Option<usize> {
    let header = FileHeader64::<Endianness>::parse(program).ok()?;
    let endian = header
        .endian()
        .ok()
        .filter(|endian| *endian == Endianness::Little)?;
    let headers = header.program_headers(endian, program).ok()?;
    let table = header
        .e_phoff(endian)
        .checked_add(u64::try_from(size_of_val(headers)).ok()?)?;
    let mut end = table.max(u64::from(header.e_ehsize(endian)));
    let mut loads = 0;
    for segment in headers {
        loads += usize::from(segment.p_type(endian) == PT_LOAD);
        end = end.max(
            segment
                .p_offset(endian)
                .checked_add(segment.p_filesz(endian))?,
        );
    }
    usize::try_from(end)
        .ok()
        .filter(|end| loads > 0 && *end <= program.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stripped_program_still_runs_and_is_smaller() {
        use std::os::unix::fs::PermissionsExt as _;
        let own = std::fs::read("/proc/self/exe").unwrap();
        let stripped = strip(own.clone());
        assert!(stripped.len() < own.len(), "a test binary has symbols");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stripped");
        std::fs::write(&path, &stripped).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let output = std::process::Command::new(&path)
            .arg("--list")
            .output()
            .unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("a_stripped_program_still_runs"));
    }

    #[test]
    fn what_is_not_a_program_stays_as_it_is() {
        for bytes in [Vec::new(), b"#!/bin/sh\n".to_vec(), vec![0x7f; 200]] {
            assert_eq!(strip(bytes.clone()), bytes);
        }
        let mut own = std::fs::read("/proc/self/exe").unwrap();
        own.truncate(own.len() / 4);
        assert_eq!(
            strip(own.clone()),
            own,
            "a truncated program is not touched"
        );
    }
}
