//! Guest memory as lists of ranges: checked, read, written, cut at frame boundaries.
//!
//! Every access is volatile and goes through vm-memory; nothing here makes a reference into guest memory.

use std::ops::Range;

use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryMmap, GuestMemoryRegion,
};

use crate::trace::event::{FRAME_SIZE, GuestRange};

mod near;

pub use near::Near;

/// Whether all of a range is guest memory. An empty range is if its address is.
#[inline]
#[must_use]
pub fn contains(memory: &GuestMemoryMmap<()>, range: GuestRange) -> bool {
    let Some(end) = range.addr.checked_add(range.len) else {
        return false;
    };
    // Nearly always the range is in one region, which one lookup shows.
    let region = memory.find_region(GuestAddress(range.addr));
    region.is_some_and(|region| end.saturating_sub(1) <= region.last_addr().0)
        || spans_regions(memory, range)
}

#[cold]
fn spans_regions(memory: &GuestMemoryMmap<()>, range: GuestRange) -> bool {
    let len = usize::try_from(range.len);
    len.is_ok_and(|len| memory.check_range(GuestAddress(range.addr), len))
}

/// One past the highest frame of guest memory.
#[must_use]
pub fn frames(memory: &GuestMemoryMmap<()>) -> u64 {
    memory.last_addr().0 / FRAME_SIZE + 1
}

/// Appends the bytes of `ranges` to `into`.
///
/// # Errors
/// A range is not in guest memory; `into` then ends with a part of them.
pub fn read(
    memory: &GuestMemoryMmap<()>,
    ranges: &[GuestRange],
    into: &mut Vec<u8>,
) -> Result<(), GuestMemoryError> {
    for range in ranges {
        let start = into.len();
        let len = usize::try_from(range.len).map_err(|_| GuestMemoryError::GuestAddressOverflow)?;
        into.resize(start + len, 0);
        memory.read_slice(&mut into[start..], GuestAddress(range.addr))?;
    }
    Ok(())
}

/// Writes `bytes` over `ranges`, in order, until either ends.
///
/// # Errors
/// A range is not in guest memory; what came before is written.
pub fn write(
    memory: &GuestMemoryMmap<()>,
    ranges: &[GuestRange],
    bytes: &[u8],
) -> Result<(), GuestMemoryError> {
    let mut left = bytes;
    for range in ranges {
        let len = usize::try_from(range.len)
            .unwrap_or(usize::MAX)
            .min(left.len());
        let (now, later) = left.split_at(len);
        memory.write_slice(now, GuestAddress(range.addr))?;
        left = later;
    }
    Ok(())
}

/// The ranges in which the bytes `span` of all bytes of `ranges` lie.
#[must_use]
pub fn part(ranges: &[GuestRange], span: Range<u64>) -> Vec<GuestRange> {
    let mut start = 0;
    let mut inside = Vec::new();
    for range in ranges {
        let end = range.len.saturating_add(start);
        let (from, to) = (span.start.max(start), span.end.min(end));
        if from < to {
            inside.push(GuestRange {
                addr: range.addr + (from - start),
                len: to - from,
            });
        }
        start = end;
    }
    inside
}

/// Cuts ranges at frame boundaries: each piece is inside one frame.
pub fn pieces(ranges: &[GuestRange]) -> impl Iterator<Item = GuestRange> + '_ {
    ranges.iter().flat_map(|range| {
        let end = range.addr.saturating_add(range.len);
        let mut addr = range.addr;
        std::iter::from_fn(move || {
            let next = end.min((addr / FRAME_SIZE + 1).saturating_mul(FRAME_SIZE));
            let piece = GuestRange {
                addr,
                len: next.saturating_sub(addr),
            };
            addr = next;
            (piece.len > 0).then_some(piece)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> GuestMemoryMmap<()> {
        let regions = [(GuestAddress(0), 0x4000), (GuestAddress(0x8000), 0x4000)];
        GuestMemoryMmap::from_ranges(&regions).unwrap()
    }

    fn range(addr: u64, len: u64) -> GuestRange {
        GuestRange { addr, len }
    }

    #[test]
    fn a_range_over_a_hole_or_the_end_of_addresses_is_outside() {
        let memory = memory();
        assert!(contains(&memory, range(0x3000, 0x1000)));
        assert!(!contains(&memory, range(0x3000, 0x1001)));
        assert!(!contains(&memory, range(0x3fff, 0x4002)));
        assert!(!contains(&memory, range(u64::MAX, 2)));
        assert!(!contains(&memory, range(0, u64::MAX)));
        assert_eq!(frames(&memory), 0xc);
    }

    #[test]
    fn bytes_are_spread_over_ranges_in_order() {
        let memory = memory();
        let ranges = [range(0x3ffe, 2), range(0x8000, 3)];
        write(&memory, &ranges, &[1, 2, 3, 4, 5, 6]).unwrap();
        let mut bytes = vec![0];
        read(&memory, &ranges, &mut bytes).unwrap();
        assert_eq!(bytes, [0, 1, 2, 3, 4, 5]);
        assert!(read(&memory, &[range(0x4000, 1)], &mut bytes).is_err());
    }

    #[test]
    fn a_part_lies_where_its_bytes_are() {
        let ranges = [range(0x1000, 4), range(0x3000, 0), range(0x5000, 8)];
        let part = |span| part(&ranges, span);
        assert_eq!(part(0..12), [range(0x1000, 4), range(0x5000, 8)]);
        assert_eq!(part(2..5), [range(0x1002, 2), range(0x5000, 1)]);
        assert_eq!(part(4..99), [range(0x5000, 8)]);
        assert!(part(12..99).is_empty() && part(3..3).is_empty());
    }

    #[test]
    fn pieces_are_cut_at_frames() {
        let ranges = [range(0x1ffe, 4), range(0x3000, 0), range(0x5000, 0x2000)];
        let cut: Vec<_> = pieces(&ranges)
            .map(|piece| (piece.addr, piece.len))
            .collect();
        assert_eq!(
            cut,
            [(0x1ffe, 2), (0x2000, 2), (0x5000, 0x1000), (0x6000, 0x1000)]
        );
        assert_eq!(pieces(&[range(u64::MAX - 1, 9)]).count(), 1);
    }
}
