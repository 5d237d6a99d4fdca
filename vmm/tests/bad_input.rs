//! What a user can get wrong, each with its own error. None of it needs KVM.

mod support;

use std::io::Write;
use std::path::Path;

use pincushion_vmm::boot::initrd::InitrdError;
use pincushion_vmm::boot::kernel::KernelError;
use pincushion_vmm::machine::{Machine, MachineConfig, MachineError, Parts};
use pincushion_vmm::memory::MemoryError;
use support::Payload;
use tempfile::NamedTempFile;

fn refusal(config: MachineConfig) -> MachineError {
    match Machine::new(config, Parts::default()) {
        Ok(_) => panic!("it was accepted"),
        Err(error) => error,
    }
}

fn file(content: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(content).expect("a small file");
    file
}

fn with_kernel(path: &Path) -> MachineConfig {
    MachineConfig {
        memory_bytes: 4 << 20,
        ..MachineConfig::new(path)
    }
}

#[test]
fn a_kernel_that_is_missing_or_is_none() {
    assert!(matches!(
        refusal(with_kernel(Path::new("/nowhere/vmlinuz"))),
        MachineError::Kernel(KernelError::Read { .. })
    ));
    for content in [b"".as_slice(), b"#!/bin/sh\n", &[0; 4096]] {
        let error = refusal(with_kernel(file(content).path()));
        assert!(
            matches!(error, MachineError::Kernel(KernelError::NotAKernel { .. })),
            "{error}"
        );
    }
}

#[test]
fn a_truncated_elf_kernel_wherever_it_is_cut() {
    let whole = Payload::new().spin().to_elf();
    for len in [5, 63, 64, 100, 180, whole.len() - 1] {
        let error = refusal(with_kernel(file(&whole[..len]).path()));
        assert!(
            matches!(error, MachineError::Kernel(KernelError::Truncated { .. })),
            "{len}: {error}"
        );
    }
}

/// The first sector and a half of a bzImage that promises `code_len` bytes of code.
fn bzimage_head(code_len: u32) -> Vec<u8> {
    let mut head = vec![0; 1024];
    head[0x1f1] = 1;
    head[0x1f4..0x1f8].copy_from_slice(&(code_len / 16).to_le_bytes());
    head[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    head[0x202..0x206].copy_from_slice(b"HdrS");
    head[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
    head[0x211] = 1;
    head
}

#[test]
fn a_truncated_bzimage() {
    let error = refusal(with_kernel(file(&bzimage_head(1 << 20)).path()));
    let MachineError::Kernel(KernelError::Truncated {
        promised, actual, ..
    }) = error
    else {
        panic!("{error}")
    };
    assert_eq!((promised, actual), (1024 + (1 << 20), 1024));
}

#[test]
fn a_bzimage_with_an_unknown_payload_and_no_64_bit_entry() {
    let mut image = bzimage_head(512);
    image.resize(1024 + 512, 0xee);
    let error = refusal(with_kernel(file(&image).path()));
    assert!(
        matches!(error, MachineError::Kernel(KernelError::NoEntry { .. })),
        "{error}"
    );
}

#[test]
fn a_bzimage_with_an_unknown_payload_boots_by_its_64_bit_entry() {
    let mut image = bzimage_head(512);
    image[0x214..0x218].copy_from_slice(&0x10_0000u32.to_le_bytes()); // code32_start
    image[0x236] = 1; // XLF_KERNEL_64
    image[0x24c..0x250].copy_from_slice(&100u32.to_le_bytes());
    image.extend(b"BZh9");
    image.resize(1024 + 512, 0xee);
    let kernel = file(&image);
    // The initrd is read after the kernel was accepted, and before KVM is opened.
    let error = refusal(MachineConfig {
        initrd: Some("/nowhere".into()),
        ..with_kernel(kernel.path())
    });
    assert!(
        matches!(error, MachineError::Initrd(InitrdError::Read { .. })),
        "{error}"
    );
}

#[test]
fn a_bzimage_with_a_corrupt_payload() {
    let mut image = bzimage_head(512);
    image[0x24c..0x250].copy_from_slice(&100u32.to_le_bytes());
    image.extend([0x28, 0xb5, 0x2f, 0xfd]);
    image.resize(1024 + 512, 0xee);
    let error = refusal(with_kernel(file(&image).path()));
    assert!(
        matches!(error, MachineError::Kernel(KernelError::Payload { .. })),
        "{error}"
    );
}

#[test]
fn an_initrd_that_is_missing_or_bigger_than_memory() {
    let kernel = Payload::new().spin().to_kernel();
    let with_initrd = |path: &Path| MachineConfig {
        initrd: Some(path.to_owned()),
        ..with_kernel(kernel.path())
    };
    assert!(matches!(
        refusal(with_initrd(Path::new("/nowhere"))),
        MachineError::Initrd(InitrdError::Read { .. })
    ));
    let big = NamedTempFile::new().expect("a temporary file");
    big.as_file().set_len(4 << 20).unwrap();
    assert!(matches!(
        refusal(with_initrd(big.path())),
        MachineError::Initrd(InitrdError::TooBig { .. })
    ));
}

#[test]
fn a_kernel_bigger_than_memory() {
    let kernel = Payload::new().code(&vec![0x90; 4 << 20]).to_kernel();
    assert!(matches!(
        refusal(with_kernel(kernel.path())),
        MachineError::Kernel(KernelError::Load { .. })
    ));
}

#[test]
fn senseless_memory_and_vcpus() {
    let with = |memory_bytes, vcpus| {
        refusal(MachineConfig {
            memory_bytes,
            vcpus,
            ..MachineConfig::new("k")
        })
    };
    assert!(matches!(
        with(0, 1),
        MachineError::Memory(MemoryError::TooSmall { .. })
    ));
    assert!(matches!(
        with(1, 1),
        MachineError::Memory(MemoryError::TooSmall { .. })
    ));
    assert!(matches!(
        with(1 << 60, 1),
        MachineError::Memory(MemoryError::MoreThanHost { .. })
    ));
    assert!(matches!(with(1 << 30, 0), MachineError::Vcpus { .. }));
    assert!(matches!(with(1 << 30, 255), MachineError::Vcpus { .. }));
}
