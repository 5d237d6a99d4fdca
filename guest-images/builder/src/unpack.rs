//! The compressions that packages and modules come in, chosen by the file name's ending.

use std::io::{self, Read};

/// A stream of what is packed in `packed`, whose file is called `name`; anything but `.xz`, `.zst` and `.gz` is taken as it is.
pub(crate) fn reader<'a>(name: &str, packed: &'a [u8]) -> io::Result<Box<dyn Read + 'a>> {
    stream(name, packed)
}

/// The same for what is itself a stream.
pub(crate) fn stream<'a>(name: &str, packed: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match name.rsplit('.').next() {
        Some("xz") => Box::new(lzma_rust2::XzReader::new(packed, true)),
        Some("zst") => {
            Box::new(ruzstd::decoding::StreamingDecoder::new(packed).map_err(io::Error::other)?)
        }
        Some("gz") => Box::new(flate2::read::GzDecoder::new(packed)),
        Some(_) | None => Box::new(packed),
    })
}

/// Unpacks the whole of `packed`, at most `limit` bytes.
pub(crate) fn unpack(name: &str, packed: &[u8], limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader(name, packed)?
        .take(limit + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("unpacks to more than {limit} bytes"),
        ));
    }
    Ok(bytes)
}
