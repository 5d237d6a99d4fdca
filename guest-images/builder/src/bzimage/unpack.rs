//! The payload of a bzImage, unpacked.

use std::io::{self, Read};

use super::BzImageError;
use super::header::u32_at;

/// A block of the legacy LZ4 frame holds at most this much output.
pub(super) const LZ4_BLOCK: usize = 8 << 20;
const LZ4_LEGACY_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// `zstd -22` uses windows of up to 128 MiB.
const ZSTD_WINDOW: u64 = 128 << 20;

/// Compression of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// RFC 8878.
    Zstd,
    /// The frame of `lz4 -l`: blocks with a length each, no checksums.
    Lz4Legacy,
    /// `.xz`, with the x86 filter as the kernel build uses it.
    Xz,
    /// RFC 1952.
    Gzip,
    /// Not compressed: an ELF file.
    Plain,
}

impl Format {
    /// Recognises a payload by its first bytes.
    ///
    /// # Errors
    /// [`BzImageError::UnknownCompression`] for what cannot be unpacked here.
    pub(super) fn of(payload: &[u8]) -> Result<Self, BzImageError> {
        const MAGICS: [(&[u8], Format); 5] = [
            (&[0x28, 0xb5, 0x2f, 0xfd], Format::Zstd),
            (&LZ4_LEGACY_MAGIC, Format::Lz4Legacy),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], Format::Xz),
            (&[0x1f, 0x8b], Format::Gzip),
            (b"\x7fELF", Format::Plain),
        ];
        MAGICS
            .iter()
            .find(|(magic, _)| payload.starts_with(magic))
            .map(|(_, format)| *format)
            .ok_or_else(|| BzImageError::UnknownCompression(name_of_unsupported(payload)))
    }

    /// What people call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Lz4Legacy => "LZ4",
            Self::Xz => "xz",
            Self::Gzip => "gzip",
            Self::Plain => "uncompressed",
        }
    }

    /// `payload` unpacked. At most one byte more than `declared` comes out (one block more of LZ4), so that too much is seen and
    /// not stored.
    ///
    /// # Errors
    /// What the decompressor says of a corrupt or cut stream.
    pub(super) fn unpack(self, payload: &[u8], declared: usize) -> io::Result<Vec<u8>> {
        // The length is appended to all formats but gzip, whose own trailer ends with it.
        let body = payload
            .get(..payload.len().saturating_sub(4))
            .unwrap_or_default();
        match self {
            Self::Zstd => unzstd(body, declared),
            Self::Lz4Legacy => unlz4_legacy(body, declared),
            Self::Xz => read_bounded(lzma_rust2::XzReader::new(body, false), declared),
            Self::Gzip => read_bounded(flate2::read::GzDecoder::new(payload), declared),
            Self::Plain => read_bounded(body, declared),
        }
    }
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

/// Blocks of (length, bytes) after the magic number, with no end mark.
fn unlz4_legacy(body: &[u8], declared: usize) -> io::Result<Vec<u8>> {
    let mut body = body.get(LZ4_LEGACY_MAGIC.len()..).unwrap_or_default();
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
