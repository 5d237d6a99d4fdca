//! Takes the ELF `vmlinux` out of an x86 `bzImage`.
//!
//! Booting the ELF directly spares the guest its own decompressor, which is slow where every instruction is emulated.
//!
//! Promises: no input makes it panic, and it never holds more than [`MAX_VMLINUX`] bytes of output whatever
//! the header declares. What it returns begins with an ELF header and has exactly the declared length.
//! Does not promise: that the kernel boots, or that its signature (if any) is right.
//!
//! The layout is the kernel's `Documentation/arch/x86/boot.rst`; the payload formats are those that
//! `arch/x86/boot/compressed/Makefile` can write, less LZMA, LZO and bzip2, which no distribution in reach uses.

use std::io::{self, Read};

/// The longest `vmlinux` that is believed, in bytes; kernels with debug information stripped are 20 to 80 MiB.
pub const MAX_VMLINUX: usize = 1 << 30;

const SETUP_SECTS: usize = 0x1f1;
const BOOT_FLAG: usize = 0x1fe;
const HEADER_MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const KERNEL_VERSION: usize = 0x20e;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
/// Boot protocol 2.08 brought `payload_offset` and `payload_length`.
const FIRST_VERSION_WITH_PAYLOAD: u16 = 0x208;
const SECTOR: usize = 512;
/// A block of the legacy LZ4 frame holds at most this much output.
const LZ4_BLOCK: usize = 8 << 20;
/// `zstd -22` uses windows of up to 128 MiB.
const ZSTD_WINDOW: u64 = 128 << 20;

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

/// Unpacks the payload of `bzimage`.
///
/// # Errors
/// Every malformed input has its variant of [`BzImageError`].
pub fn extract_vmlinux(bzimage: &[u8]) -> Result<Vec<u8>, BzImageError> {
    let payload = payload(bzimage)?;
    let declared =
        u32_at(payload, payload.len().wrapping_sub(4)).ok_or(BzImageError::NotElf)? as usize;
    if declared > MAX_VMLINUX {
        return Err(BzImageError::TooLong(declared));
    }
    let vmlinux = decompress(payload, declared)?;
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

/// Whether `image` begins with a bzImage's setup header.
#[must_use]
pub fn is_bzimage(image: &[u8]) -> bool {
    u16_at(image, BOOT_FLAG) == Some(0xaa55)
        && image.get(HEADER_MAGIC..HEADER_MAGIC + 4) == Some(b"HdrS")
}

/// Whether `image` begins with the header of a 64-bit little-endian x86 ELF file.
#[must_use]
pub fn is_x86_64_elf(image: &[u8]) -> bool {
    const EM_X86_64: u16 = 62;
    image.starts_with(b"\x7fELF\x02\x01") && u16_at(image, 18) == Some(EM_X86_64)
}

/// What `uname -r` says in the kernel of `bzimage`, from the version text that its header points at.
#[must_use]
pub fn kernel_release(bzimage: &[u8]) -> Option<String> {
    if !is_bzimage(bzimage) {
        return None;
    }
    // The pointer is relative to the second sector, boot.rst "kernel_version".
    let start = usize::from(u16_at(bzimage, KERNEL_VERSION)?).checked_add(SECTOR)?;
    let text = bzimage.get(start..)?;
    let end = text
        .iter()
        .take(256)
        .position(|byte| matches!(byte, b' ' | 0))?;
    let release = std::str::from_utf8(text.get(..end)?).ok()?;
    (!release.is_empty()).then(|| release.to_owned())
}

/// The compressed kernel inside `bzimage`, with the four bytes that declare its length.
fn payload(bzimage: &[u8]) -> Result<&[u8], BzImageError> {
    if !is_bzimage(bzimage) {
        return Err(BzImageError::NotABzImage);
    }
    let version = u16_at(bzimage, VERSION).ok_or(BzImageError::NotABzImage)?;
    if version < FIRST_VERSION_WITH_PAYLOAD {
        return Err(BzImageError::ProtocolTooOld(version));
    }
    // 0 means 4, for the sake of kernels before protocol 2.00 (boot.rst "setup_sects").
    let setup_sects = match bzimage.get(SETUP_SECTS) {
        Some(0) | None => 4,
        Some(&sectors) => u64::from(sectors),
    };
    let protected_mode = (setup_sects + 1) * SECTOR as u64;
    let field = |at| {
        u32_at(bzimage, at)
            .map(u64::from)
            .ok_or(BzImageError::NotABzImage)
    };
    let (offset, len) = (
        protected_mode + field(PAYLOAD_OFFSET)?,
        field(PAYLOAD_LENGTH)?,
    );
    let truncated = || BzImageError::Truncated {
        offset,
        len,
        file_len: bzimage.len(),
    };
    let start = usize::try_from(offset).map_err(|_| truncated())?;
    let end = usize::try_from(offset + len).map_err(|_| truncated())?;
    bzimage.get(start..end).ok_or_else(truncated)
}

/// `payload` unpacked, at most one byte more than `declared`.
fn decompress(payload: &[u8], declared: usize) -> Result<Vec<u8>, BzImageError> {
    // The length is appended to all formats but gzip, whose own trailer ends with it.
    let body = payload
        .get(..payload.len().saturating_sub(4))
        .unwrap_or_default();
    let (format, unpacked) = match payload {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ("zstd", unzstd(body, declared)),
        [0x02, 0x21, 0x4c, 0x18, rest @ ..] => (
            "LZ4",
            unlz4_legacy(
                rest.get(..rest.len().saturating_sub(4)).unwrap_or_default(),
                declared,
            ),
        ),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => (
            "xz",
            read_bounded(lzma_rust2::XzReader::new(body, false), declared),
        ),
        [0x1f, 0x8b, ..] => (
            "gzip",
            read_bounded(flate2::read::GzDecoder::new(payload), declared),
        ),
        _ => {
            return Err(BzImageError::UnknownCompression(name_of_unsupported(
                payload,
            )));
        }
    };
    unpacked.map_err(|source| BzImageError::Corrupt { format, source })
}

fn name_of_unsupported(payload: &[u8]) -> String {
    match payload {
        [b'B', b'Z', b'h', ..] => "bzip2".to_owned(),
        [0x89, b'L', b'Z', b'O', ..] => "LZO".to_owned(),
        [0x5d, 0, 0, ..] => "LZMA".to_owned(),
        other => format!(
            "unknown (it begins with {:02x?})",
            other.get(..4).unwrap_or(other)
        ),
    }
}

fn unzstd(body: &[u8], declared: usize) -> io::Result<Vec<u8>> {
    // The kernel is packed with `zstd -22 --ultra`, whose window is larger than what a decoder takes unasked.
    let decoder = ruzstd::decoding::StreamingDecoder::new_with_max_window_size(body, ZSTD_WINDOW)
        .map_err(io::Error::other)?;
    read_bounded(decoder, declared)
}

/// The frame of `lz4 -l`: blocks of (length, bytes), with no end mark.
fn unlz4_legacy(mut body: &[u8], declared: usize) -> io::Result<Vec<u8>> {
    let corrupt = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut output = Vec::new();
    let mut block_output = vec![0; LZ4_BLOCK];
    while !body.is_empty() {
        let len =
            u32_at(body, 0).ok_or_else(|| corrupt("the last block's length is cut off"))? as usize;
        let end = len
            .checked_add(4)
            .ok_or_else(|| corrupt("a block's length overflows"))?;
        let block = body
            .get(4..end)
            .ok_or_else(|| corrupt("a block reaches beyond the payload"))?;
        let got =
            lz4_flex::block::decompress_into(block, &mut block_output).map_err(io::Error::other)?;
        output.extend_from_slice(block_output.get(..got).unwrap_or_default());
        if output.len() > declared {
            break; // The caller reports the wrong length.
        }
        body = body.get(end..).unwrap_or_default();
    }
    Ok(output)
}

/// Reads at most one byte more than `declared`, so that too much is seen and never stored.
fn read_bounded(reader: impl Read, declared: usize) -> io::Result<Vec<u8>> {
    let mut output = Vec::new();
    reader.take(declared as u64 + 1).read_to_end(&mut output)?;
    Ok(output)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes(field.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(field.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{bzimage, elf_of_len, gzip, lz4_legacy, xz, zstd};

    fn with_length(mut packed: Vec<u8>, len: u32) -> Vec<u8> {
        packed.extend_from_slice(&len.to_le_bytes());
        packed
    }

    #[test]
    fn every_supported_compression_gives_the_elf_back() {
        let elf = elf_of_len(20_000);
        for packed in [zstd(&elf), lz4_legacy(&elf), xz(&elf)] {
            assert_eq!(
                extract_vmlinux(&bzimage("6.12.0", &with_length(packed, 20_000))).unwrap(),
                elf
            );
        }
        assert_eq!(
            extract_vmlinux(&bzimage("6.12.0", &gzip(&elf))).unwrap(),
            elf,
            "gzip ends with its own length"
        );
    }

    #[test]
    fn an_lz4_payload_may_have_several_blocks() {
        let elf = elf_of_len(LZ4_BLOCK + 1234);
        let len = u32::try_from(elf.len()).unwrap();
        assert_eq!(
            extract_vmlinux(&bzimage("6.1.0", &with_length(lz4_legacy(&elf), len))).unwrap(),
            elf
        );
    }

    #[test]
    fn the_release_is_the_first_word_of_the_version_text() {
        assert_eq!(
            kernel_release(&bzimage("6.1.0-56-cloud-amd64", b"")).as_deref(),
            Some("6.1.0-56-cloud-amd64")
        );
        assert_eq!(kernel_release(b"no kernel"), None);
    }

    #[test]
    fn a_declared_length_that_is_a_lie_is_refused() {
        let elf = elf_of_len(5_000);
        for (packed, lie) in [
            (zstd(&elf), 4_999),
            (zstd(&elf), 5_001),
            (lz4_legacy(&elf), 10),
            (xz(&elf), 6_000),
        ] {
            let image = bzimage("6.12.0", &with_length(packed, lie));
            assert!(matches!(
                extract_vmlinux(&image),
                Err(BzImageError::WrongLength { .. })
            ));
        }
        let image = bzimage("6.12.0", &with_length(zstd(&elf), u32::MAX));
        assert!(matches!(
            extract_vmlinux(&image),
            Err(BzImageError::TooLong(_))
        ));
    }

    #[test]
    fn other_files_and_other_payloads_are_named() {
        assert!(matches!(
            extract_vmlinux(b""),
            Err(BzImageError::NotABzImage)
        ));
        assert!(matches!(
            extract_vmlinux(&[0; 4096]),
            Err(BzImageError::NotABzImage)
        ));
        let bzip2 = bzimage("6.12.0", b"BZh9........");
        assert!(
            matches!(extract_vmlinux(&bzip2), Err(BzImageError::UnknownCompression(name)) if name == "bzip2")
        );
        let text = with_length(zstd(b"not an elf"), 10);
        assert!(matches!(
            extract_vmlinux(&bzimage("6.12.0", &text)),
            Err(BzImageError::NotElf)
        ));
        let mut old = bzimage("6.12.0", b"");
        old[VERSION..VERSION + 2].copy_from_slice(&0x207u16.to_le_bytes());
        assert!(matches!(
            extract_vmlinux(&old),
            Err(BzImageError::ProtocolTooOld(0x207))
        ));
    }

    #[test]
    fn an_image_cut_anywhere_is_an_error_and_no_panic() {
        let elf = elf_of_len(3_000);
        for packed in [zstd(&elf), lz4_legacy(&elf), xz(&elf)] {
            let image = bzimage("6.12.0", &with_length(packed, 3_000));
            for len in 0..image.len() {
                assert!(extract_vmlinux(&image[..len]).is_err(), "cut at {len}");
            }
        }
    }

    #[test]
    fn a_payload_with_any_byte_changed_never_panics() {
        let elf = elf_of_len(600);
        for packed in [zstd(&elf), lz4_legacy(&elf), xz(&elf)] {
            let image = bzimage("6.12.0", &with_length(packed, 600));
            for at in 0..image.len() {
                let mut bad = image.clone();
                bad[at] ^= 0xff;
                // Some flips do no harm (unused header fields); what matters is that each returns.
                let _ = extract_vmlinux(&bad);
            }
        }
    }
}
