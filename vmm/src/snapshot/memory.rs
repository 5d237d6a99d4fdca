//! RAM to a file and back.
//!
//! Promises: pages of zeros take no room, and pages that the host never had are not even looked at; what comes back is just what
//! was saved, and the rest of the memory is left alone (a new machine's is all zero). Extents may come from any file: they are checked.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

use rustix::fs::{SeekFrom as SeekTo, seek};
use serde::{Deserialize, Serialize};
use vm_memory::{
    Address, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionMmap, MemoryRegionAddress,
};

const PAGE: usize = 4096;
/// Memory that is looked at together.
const CHUNK: usize = 64 * PAGE;

/// Pages of memory that follow each other, in the guest and in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Extent {
    /// Guest physical address.
    pub(super) addr: u64,
    /// Length in bytes.
    pub(super) len: u64,
}

/// Writes every page that is not zero, one behind the other. Nobody changes the memory meanwhile.
pub(super) fn save(memory: &GuestMemoryMmap, mut to: impl Write) -> io::Result<Vec<Extent>> {
    let mut extents = Vec::new();
    let mut buffer = vec![0; CHUNK];
    for region in memory.iter() {
        let mut at = 0;
        while let Some((start, end)) = next_data(region, at)? {
            at = end;
            for chunk in (start..end).step_by(CHUNK) {
                let len = usize::try_from(end - chunk).map_or(CHUNK, |left| left.min(CHUNK));
                let bytes = &mut buffer[..len];
                let read = region.read_slice(bytes, MemoryRegionAddress(chunk));
                read.map_err(io::Error::other)?;
                let addr = region.start_addr().raw_value() + chunk;
                save_pages(bytes, addr, &mut to, &mut extents)?;
            }
        }
    }
    Ok(extents)
}

fn save_pages(
    bytes: &[u8],
    mut addr: u64,
    to: &mut impl Write,
    extents: &mut Vec<Extent>,
) -> io::Result<()> {
    for page in bytes.chunks(PAGE) {
        if page.iter().any(|byte| *byte != 0) {
            to.write_all(page)?;
            let len = page.len() as u64;
            match extents.last_mut() {
                Some(last) if last.addr + last.len == addr => last.len += len,
                _ => extents.push(Extent { addr, len }),
            }
        }
        addr += PAGE as u64;
    }
    Ok(())
}

/// Offsets in the region of the next memory, from `at` on, that the host has at all; in whole pages.
fn next_data(region: &GuestRegionMmap, at: u64) -> io::Result<Option<(u64, u64)>> {
    let (len, page) = (region.len(), PAGE as u64);
    let Some(backing) = region.file_offset() else {
        return Ok((at < len).then_some((at, len)));
    };
    let (file, first) = (backing.file(), backing.start());
    if at >= len {
        return Ok(None);
    }
    let start = match seek(file, SeekTo::Data(first + at)) {
        Ok(start) => start - first,
        // There is no more.
        Err(rustix::io::Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if start >= len {
        return Ok(None);
    }
    let end = seek(file, SeekTo::Hole(first + start))? - first;
    let end = end.next_multiple_of(page).min(len);
    Ok(Some((start / page * page, end)))
}

/// Total bytes of extents, if they can be added.
pub(super) fn total(extents: &[Extent]) -> Option<u64> {
    extents
        .iter()
        .try_fold(0u64, |sum, extent| sum.checked_add(extent.len))
}

/// Copies the extents, which lie in `from` one behind the other from `at` on, to their places.
pub(super) fn restore(
    memory: &GuestMemoryMmap,
    mut from: &File,
    at: u64,
    extents: &[Extent],
) -> io::Result<()> {
    from.seek(SeekFrom::Start(at))?;
    for extent in extents {
        let outside = || io::Error::other(format!("{extent:x?} is not in guest memory"));
        let region = memory
            .find_region(GuestAddress(extent.addr))
            .ok_or_else(outside)?;
        let offset = extent.addr - region.start_addr().raw_value();
        if extent.len > region.len() - offset {
            return Err(outside());
        }
        let len = usize::try_from(extent.len).map_err(io::Error::other)?;
        // Through the mapping, which may have huge pages, and not by a copy from file to file, which never has.
        region
            .read_exact_volatile_from(MemoryRegionAddress(offset), &mut from, len)
            .map_err(io::Error::other)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{MIN_MEMORY, create};

    fn put(memory: &GuestMemoryMmap, addr: u64, byte: u8) {
        memory.write_obj(byte, GuestAddress(addr)).unwrap();
    }

    #[test]
    fn pages_come_back_where_they_were_and_zeros_take_no_room() {
        let memory = create(MIN_MEMORY).unwrap();
        put(&memory, 0, 1);
        put(&memory, 4096 + 4095, 2);
        put(&memory, 0x4000, 0);
        put(&memory, MIN_MEMORY - 1, 3);
        let mut bytes = b"before".to_vec();
        let extents = save(&memory, &mut bytes).unwrap();
        let extent = |addr, len| Extent { addr, len };
        assert_eq!(extents, [extent(0, 8192), extent(MIN_MEMORY - 4096, 4096)]);
        assert_eq!(bytes.len() as u64, 6 + total(&extents).unwrap());

        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let again = create(MIN_MEMORY).unwrap();
        restore(&again, &file, 6, &extents).unwrap();
        let mut second = Vec::new();
        assert_eq!(save(&again, &mut second).unwrap(), extents);
        assert_eq!(second, bytes[6..]);
    }

    #[test]
    fn what_is_not_in_memory_or_not_in_the_file_is_refused() {
        let memory = create(MIN_MEMORY).unwrap();
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        for (addr, len) in [
            (MIN_MEMORY, 4096),
            (MIN_MEMORY - 4096, 8192),
            (u64::MAX, 4096),
            (4096, u64::MAX),
            (0, 8192),
        ] {
            let extents = [Extent { addr, len }];
            assert!(
                restore(&memory, &file, 0, &extents).is_err(),
                "{addr:x} {len:x}"
            );
        }
        let huge = Extent {
            addr: 0,
            len: u64::MAX,
        };
        assert_eq!(total(&[huge, huge]), None);
    }
}
