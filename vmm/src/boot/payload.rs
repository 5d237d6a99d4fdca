//! The compressed kernel inside a bzImage, unpacked in the machine monitor.
//!
//! A distribution's bzImage is a small decompressor with the real kernel (an ELF file) as its payload.
//! Unpacking it here, natively, saves the guest seconds. The formats are those that distributions
//! use: gzip, xz, zstd and the kernel's LZ4 (the *legacy* frame).

use std::io::{self, Read};

/// More than this is not a kernel but a decompression bomb, in bytes.
const MAX_KERNEL: u64 = 1 << 30;
/// A block of the LZ4 legacy frame holds at most this many bytes, unpacked.
const LZ4_LEGACY_BLOCK: usize = 8 << 20;
const LZ4_LEGACY_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];

/// Compression of a kernel payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// RFC 1952.
    Gzip,
    /// `.xz`, with the x86 filter as the kernel build uses it.
    Xz,
    /// RFC 8878.
    Zstd,
    /// The legacy LZ4 frame: blocks with a length each, no checksums.
    Lz4Legacy,
    /// Not compressed: an ELF file.
    Plain,
}

impl Format {
    /// Recognises a payload by its first bytes; `None` for what we cannot unpack (lzma, lzo, bzip2).
    #[must_use]
    pub fn of(payload: &[u8]) -> Option<Self> {
        const MAGICS: [(&[u8], Format); 5] = [
            (&[0x1f, 0x8b], Format::Gzip),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0x00], Format::Xz),
            (&[0x28, 0xb5, 0x2f, 0xfd], Format::Zstd),
            (&LZ4_LEGACY_MAGIC, Format::Lz4Legacy),
            (&[0x7f, b'E', b'L', b'F'], Format::Plain),
        ];
        MAGICS
            .iter()
            .find(|(magic, _)| payload.starts_with(magic))
            .map(|(_, format)| *format)
    }

    /// Unpacks `payload`. Bytes after the end of the compressed stream are ignored: the kernel
    /// build appends the unpacked size as 32 bits.
    ///
    /// # Errors
    /// `InvalidData` or `UnexpectedEof` where the stream is corrupt, cut off, or absurdly big.
    pub fn unpack(self, payload: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Format::Gzip => read_bounded(flate2::read::GzDecoder::new(payload)),
            Format::Xz => read_bounded(lzma_rust2::XzReader::new(payload, false)),
            Format::Zstd => read_bounded(zstd_reader(payload)?),
            Format::Lz4Legacy => lz4_legacy(payload),
            Format::Plain => Ok(payload.to_vec()),
        }
    }
}

fn read_bounded(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    let limit = MAX_KERNEL + 1;
    if reader.take(limit).read_to_end(&mut unpacked)? as u64 == limit {
        return Err(invalid("the kernel is bigger than 1 GiB when unpacked"));
    }
    Ok(unpacked)
}

fn zstd_reader(payload: &[u8]) -> io::Result<impl Read> {
    ruzstd::decoding::StreamingDecoder::new(payload)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}

/// `magic, { u32 length, block }*`; ends with the input or at the appended size, which is either
/// shorter than a length field or not followed by that many bytes.
fn lz4_legacy(payload: &[u8]) -> io::Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    let mut block = vec![0; LZ4_LEGACY_BLOCK];
    let mut rest = payload.get(LZ4_LEGACY_MAGIC.len()..).unwrap_or_default();
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        if tail.is_empty() {
            break;
        }
        let compressed = tail
            .get(..length)
            .ok_or_else(|| invalid("the last LZ4 block is cut off"))?;
        let written = lz4_flex::block::decompress_into(compressed, &mut block)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        unpacked.extend_from_slice(&block[..written]);
        if unpacked.len() as u64 > MAX_KERNEL {
            return Err(invalid("the kernel is bigger than 1 GiB when unpacked"));
        }
        rest = &tail[length..];
    }
    Ok(unpacked)
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn gzip_is_recognised_and_unpacked_with_a_size_appended() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(b"\x7fELF kernel").unwrap();
        let mut payload = encoder.finish().unwrap();
        payload.extend_from_slice(&11u32.to_le_bytes());
        assert_eq!(Format::of(&payload), Some(Format::Gzip));
        assert_eq!(Format::Gzip.unpack(&payload).unwrap(), b"\x7fELF kernel");
    }

    #[test]
    fn a_legacy_lz4_frame_of_two_blocks_is_unpacked() {
        let mut payload = LZ4_LEGACY_MAGIC.to_vec();
        for block in [b"\x7fELF ".as_slice(), b"kernel"] {
            let compressed = lz4_flex::block::compress(block);
            payload.extend_from_slice(&u32::try_from(compressed.len()).unwrap().to_le_bytes());
            payload.extend_from_slice(&compressed);
        }
        payload.extend_from_slice(&11u32.to_le_bytes());
        assert_eq!(Format::of(&payload), Some(Format::Lz4Legacy));
        assert_eq!(
            Format::Lz4Legacy.unpack(&payload).unwrap(),
            b"\x7fELF kernel"
        );
    }

    #[test]
    fn a_block_that_is_cut_off_is_an_error() {
        let mut payload = LZ4_LEGACY_MAGIC.to_vec();
        payload.extend_from_slice(&100u32.to_le_bytes());
        payload.extend_from_slice(b"short");
        assert!(Format::Lz4Legacy.unpack(&payload).is_err());
        assert!(Format::Gzip.unpack(&[0x1f, 0x8b, 8]).is_err());
        assert!(Format::Zstd.unpack(&[0x28, 0xb5, 0x2f, 0xfd]).is_err());
        assert!(
            Format::Xz
                .unpack(&[0xfd, b'7', b'z', b'X', b'Z', 0])
                .is_err()
        );
    }

    #[test]
    fn other_compressions_are_not_recognised() {
        assert_eq!(Format::of(b"\x5d\x00\x00\x00"), None);
        assert_eq!(Format::of(b"BZh9"), None);
        assert_eq!(Format::of(b""), None);
    }
}
