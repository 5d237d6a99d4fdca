//! Takes the ELF `vmlinux` out of an x86 `bzImage`: the one place that does, for guest images and for the machine monitor.
//!
//! Booting the ELF directly spares the guest its own decompressor, which is slow where every instruction is emulated.
//!
//! Promises: no input makes it panic, and it never holds more than [`MAX_VMLINUX`] bytes of output whatever
//! the header declares. What it returns begins with an ELF header and has exactly the declared length.
//! Does not promise: that the kernel boots, or that its signature (if any) is right.
//!
//! | file | what lives there |
//! | --- | --- |
//! | bzimage/header.rs | the setup header, as `Documentation/arch/x86/boot.rst` has it |
//! | bzimage/unpack.rs | the compressions that `arch/x86/boot/compressed/Makefile` can write, less LZMA, LZO and bzip2 |

mod header;
#[cfg(test)]
mod tests;
mod unpack;

use std::io;

pub use header::{SetupHeader, is_bzimage, kernel_release};
use header::{u16_at, u32_at};
use unpack::Format;

/// The longest `vmlinux` that is believed, in bytes; kernels with debug information stripped are 20 to 80 MiB.
pub const MAX_VMLINUX: usize = 1 << 30;

/// Why no `vmlinux` came out.
#[derive(Debug, thiserror::Error)]
pub enum BzImageError {
    /// The boot sector's magic numbers are absent: some other file.
    #[error("not a bzImage: the setup header's magic is absent")]
    NotABzImage,
    /// A kernel older than 2.6.26, which does not say where its payload is.
    #[error("boot protocol {0:#x} does not say where the payload is, 0x208 or newer is needed")]
    ProtocolTooOld(u16),
    /// The file ends before the payload does.
    #[error(
        "the payload at {offset:#x}, {len} bytes, reaches beyond the file's end at {file_len:#x}: is it truncated?"
    )]
    Truncated {
        /// Offset of the payload in the file, in bytes.
        offset: u64,
        /// Length of the payload in bytes.
        len: u64,
        /// Length of the file in bytes.
        file_len: usize,
    },
    /// The payload begins with a magic number that is not known here.
    #[error(
        "the payload's compression is {0}, which is not supported (zstd, LZ4, xz and gzip are)"
    )]
    UnknownCompression(String),
    /// The header declares more than [`MAX_VMLINUX`].
    #[error("the payload claims to unpack to {0} bytes, more than any kernel")]
    TooLong(usize),
    /// The decompressor refused the payload.
    #[error("the {format} payload cannot be unpacked")]
    Corrupt {
        /// Name of the compression.
        format: &'static str,
        /// What the decompressor said.
        source: io::Error,
    },
    /// The payload unpacked, but not to the length that its last four bytes declare.
    #[error("the payload unpacked to {got} bytes, but declares {declared}")]
    WrongLength {
        /// Bytes that came out.
        got: usize,
        /// Bytes that the image declares.
        declared: usize,
    },
    /// The payload unpacked to something else than a 64-bit x86 ELF file.
    #[error("the payload is no 64-bit x86 ELF file")]
    NotElf,
}

impl BzImageError {
    /// Whether the image may still boot by its own entry: it is whole as far as its header tells, but what it holds cannot be
    /// unpacked here, or is not what a modern kernel holds.
    #[must_use]
    pub fn may_unpack_itself(&self) -> bool {
        match self {
            Self::ProtocolTooOld(_) | Self::UnknownCompression(_) | Self::NotElf => true,
            Self::NotABzImage
            | Self::Truncated { .. }
            | Self::TooLong(_)
            | Self::Corrupt { .. }
            | Self::WrongLength { .. } => false,
        }
    }
}

/// Unpacks the payload of `bzimage`.
///
/// # Errors
/// Every malformed input has its variant of [`BzImageError`].
pub fn extract_vmlinux(bzimage: &[u8]) -> Result<Vec<u8>, BzImageError> {
    let header = SetupHeader::parse(bzimage).ok_or(BzImageError::NotABzImage)?;
    let payload = header.payload(bzimage)?;
    let format = Format::of(payload)?;
    let declared =
        u32_at(payload, payload.len().wrapping_sub(4)).ok_or(BzImageError::NotElf)? as usize;
    if declared > MAX_VMLINUX {
        return Err(BzImageError::TooLong(declared));
    }
    let vmlinux = format
        .unpack(payload, declared)
        .map_err(|source| BzImageError::Corrupt {
            format: format.name(),
            source,
        })?;
    if vmlinux.len() != declared {
        return Err(BzImageError::WrongLength {
            got: vmlinux.len(),
            declared,
        });
    }
    if is_x86_64_elf(&vmlinux) {
        Ok(vmlinux)
    } else {
        Err(BzImageError::NotElf)
    }
}

/// Whether `image` begins with the header of a 64-bit little-endian x86 ELF file.
#[must_use]
pub fn is_x86_64_elf(image: &[u8]) -> bool {
    const EM_X86_64: u16 = 62;
    image.starts_with(b"\x7fELF\x02\x01") && u16_at(image, 18) == Some(EM_X86_64)
}
