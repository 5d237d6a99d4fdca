//! Loads a kernel file into guest memory: ELF `vmlinux` or a distribution's bzImage.
//!
//! The fastest way in is chosen: an ELF (on disk, or unpacked from a bzImage) with a PVH note boots
//! by it; an ELF without one by its 64-bit entry; a bzImage whose payload we cannot unpack boots by the
//! 64-bit boot protocol and unpacks itself.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::elf::PvhBootCapability;
use linux_loader::loader::{BzImage, Elf, KernelLoader, KernelLoaderResult};
use pincushion_image::bzimage::{self, BzImageError, SetupHeader};
use vm_memory::{Address, GuestAddress, GuestMemoryMmap, ReadVolatile};

use crate::layout::HIMEM_START;

/// The 64-bit entry of a bzImage, from its load address (Documentation/arch/x86/boot.rst).
const BZIMAGE_ENTRY_64: u64 = 0x200;

/// Why a kernel was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The file could not be opened or read.
    #[error("cannot read kernel {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Neither ELF nor bzImage.
    #[error("{path} is not a kernel: want an ELF vmlinux or a bzImage (vmlinuz) for x86-64")]
    NotAKernel {
        /// The file.
        path: PathBuf,
    },
    /// The file ends before what its headers promise.
    #[error(
        "kernel {path} is truncated: its headers promise {promised} bytes, the file has {actual}"
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Least length by the headers.
        promised: u64,
        /// Length of the file.
        actual: u64,
    },
    /// The compressed payload of a bzImage is corrupt.
    #[error("kernel {path} is damaged: {source}")]
    Payload {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: BzImageError,
    },
    /// A bzImage with an unknown compression and without a 64-bit entry.
    #[error(
        "kernel {path} has no 64-bit entry and a payload that cannot be unpacked here (gzip, xz, zstd, lz4 can)"
    )]
    NoEntry {
        /// The file.
        path: PathBuf,
    },
    /// The kernel does not fit into the guest's memory, or its headers are nonsense.
    #[error(
        "kernel {path} does not fit into {memory_bytes} bytes of guest memory or has bad headers: {source}"
    )]
    Load {
        /// The file.
        path: PathBuf,
        /// RAM of the guest.
        memory_bytes: u64,
        /// The loader's error.
        source: linux_loader::loader::Error,
    },
}

/// How the boot processor enters the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// PVH: 32-bit protected mode without paging, start information in RBX.
    Pvh(GuestAddress),
    /// Linux 64-bit boot protocol: long mode, identity map, zero page in RSI.
    Linux64(GuestAddress),
}

/// A kernel in guest memory.
#[derive(Debug, Clone, Copy)]
pub struct LoadedKernel {
    /// Where and how to start.
    pub entry: Entry,
    /// First address after the kernel and the room it needs to unpack itself.
    pub end: u64,
    /// The setup header of a bzImage that starts by its own code.
    pub setup_header: Option<setup_header>,
}

/// Loads the kernel file at `path` into `memory`.
///
/// # Errors
/// See [`KernelError`]; guest memory may hold part of the kernel then.
pub fn load(path: &Path, memory: &GuestMemoryMmap) -> Result<LoadedKernel, KernelError> {
    let read_error = |source| KernelError::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(read_error)?;
    let len = file.metadata().map_err(read_error)?.len();
    let mut head = Vec::new();
    Read::by_ref(&mut file)
        .take(SetupHeader::LEN as u64)
        .read_to_end(&mut head)
        .map_err(read_error)?;
    if head.starts_with(b"\x7fELF") {
        return load_elf(path, &mut file, len, memory);
    }
    let Some(header) = SetupHeader::parse(&head) else {
        return Err(KernelError::NotAKernel {
            path: path.to_owned(),
        });
    };
    if header.file_len() > len {
        return Err(KernelError::Truncated {
            path: path.to_owned(),
            promised: header.file_len(),
            actual: len,
        });
    }
    match unpack(path, &mut file)? {
        Some(elf) => {
            let len = elf.len() as u64;
            load_elf(path, &mut Cursor::new(elf), len, memory)
        }
        None => load_bzimage(path, &mut file, &header, memory),
    }
}

fn load_elf<F: Read + ReadVolatile + Seek>(
    path: &Path,
    image: &mut F,
    len: u64,
    memory: &GuestMemoryMmap,
) -> Result<LoadedKernel, KernelError> {
    let promised = elf_len(image).map_err(|source| match source.kind() {
        io::ErrorKind::UnexpectedEof => KernelError::Truncated {
            path: path.to_owned(),
            promised: 64,
            actual: len,
        },
        io::ErrorKind::InvalidData => KernelError::NotAKernel {
            path: path.to_owned(),
        },
        _ => KernelError::Read {
            path: path.to_owned(),
            source,
        },
    })?;
    if promised > len {
        return Err(KernelError::Truncated {
            path: path.to_owned(),
            promised,
            actual: len,
        });
    }
    let loaded: KernelLoaderResult =
        Elf::load(memory, None, image, Some(GuestAddress(HIMEM_START)))
            .map_err(|source| load_error(path, memory, source))?;
    let entry = match loaded.pvh_boot_cap {
        PvhBootCapability::PvhEntryPresent(entry) => Entry::Pvh(entry),
        PvhBootCapability::PvhEntryNotPresent | PvhBootCapability::PvhEntryIgnored => {
            Entry::Linux64(loaded.kernel_load)
        }
    };
    Ok(LoadedKernel {
        entry,
        end: loaded.kernel_end,
        setup_header: None,
    })
}

/// The least length of the ELF file by its program headers (System V ABI, figures 4-3 and 5-1).
fn elf_len<F: Read + Seek>(image: &mut F) -> io::Result<u64> {
    const EM_X86_64: u16 = 62;
    image.rewind()?;
    let mut ehdr = [0; 64];
    image.read_exact(&mut ehdr)?;
    let (class, machine) = (ehdr[4], field16(&ehdr, 18));
    if class != 2 || machine != EM_X86_64 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let (phoff, phentsize, phnum) = (field64(&ehdr, 32), field16(&ehdr, 54), field16(&ehdr, 56));
    let mut longest = phoff.saturating_add(u64::from(phentsize) * u64::from(phnum));
    image.seek(SeekFrom::Start(phoff))?;
    for _ in 0..phnum {
        let mut phdr = [0; 56];
        if image.read_exact(&mut phdr).is_err() {
            break;
        }
        longest = longest.max(field64(&phdr, 8).saturating_add(field64(&phdr, 32)));
    }
    Ok(longest)
}

fn field16(bytes: &[u8], at: usize) -> u16 {
    bytes
        .get(at..)
        .and_then(<[u8]>::first_chunk)
        .copied()
        .map_or(0, u16::from_le_bytes)
}

fn field64(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..)
        .and_then(<[u8]>::first_chunk)
        .copied()
        .map_or(0, u64::from_le_bytes)
}

/// The ELF inside a bzImage; `None` where the kernel has to unpack itself.
fn unpack(path: &Path, file: &mut File) -> Result<Option<Vec<u8>>, KernelError> {
    let mut image = Vec::new();
    file.rewind()
        .and_then(|()| file.read_to_end(&mut image))
        .map_err(|source| KernelError::Read {
            path: path.to_owned(),
            source,
        })?;
    match bzimage::extract_vmlinux(&image) {
        Ok(vmlinux) => Ok(Some(vmlinux)),
        Err(error) if error.may_unpack_itself() => {
            log::info!("{}: the kernel unpacks itself: {error}", path.display());
            Ok(None)
        }
        Err(source) => Err(KernelError::Payload {
            path: path.to_owned(),
            source,
        }),
    }
}

fn load_bzimage(
    path: &Path,
    file: &mut File,
    header: &SetupHeader,
    memory: &GuestMemoryMmap,
) -> Result<LoadedKernel, KernelError> {
    if !header.has_64_bit_entry() {
        return Err(KernelError::NoEntry {
            path: path.to_owned(),
        });
    }
    let loaded = BzImage::load(memory, None, file, Some(GuestAddress(HIMEM_START)))
        .map_err(|source| load_error(path, memory, source))?;
    let start = loaded.kernel_load.raw_value();
    Ok(LoadedKernel {
        entry: Entry::Linux64(GuestAddress(start.saturating_add(BZIMAGE_ENTRY_64))),
        end: loaded
            .kernel_end
            .max(start.saturating_add(header.init_size())),
        setup_header: loaded.setup_header,
    })
}

fn load_error(
    path: &Path,
    memory: &GuestMemoryMmap,
    source: linux_loader::loader::Error,
) -> KernelError {
    KernelError::Load {
        path: path.to_owned(),
        memory_bytes: crate::memory::total_bytes(memory),
        source,
    }
}
