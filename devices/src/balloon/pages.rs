//! Which frames a chain names: a list of page numbers (inflation, deflation), or the pages themselves (a report of free
//! pages). Everything that a guest can get wrong about them is found here.
//!
//! A list is taken whole or not at all: one page that is not RAM makes the rest doubtful too.

use vm_memory::GuestMemoryMmap;

use crate::memory;
use crate::queue::Segment;
use crate::trace::event::{FRAME_SIZE, GuestRange};

/// Most bytes of one list of page numbers: 1 GiB of pages. Linux sends 1 KiB.
pub(super) const MAX_LIST: u64 = 1 << 20;
/// Length of a page number.
const PFN: u64 = 4;

/// The bytes of a chain that only the device reads, at most `most` of them.
///
/// # Errors
/// What is wrong with the chain.
pub(super) fn read_list(
    segments: &[Segment],
    memory: &GuestMemoryMmap<()>,
    most: u64,
) -> Result<Vec<u8>, &'static str> {
    if segments.iter().any(|segment| segment.writable) {
        return Err("a list in memory that the device is to write");
    }
    let ranges: Vec<GuestRange> = segments.iter().map(range).collect();
    let len = ranges
        .iter()
        .fold(0, |sum: u64, range| sum.saturating_add(range.len));
    if len > most {
        return Err("a list that is longer than any driver's");
    }
    if !ranges.iter().all(|range| memory::contains(memory, *range)) {
        return Err("a list outside guest memory");
    }
    let mut bytes = Vec::new();
    match memory::read(memory, &ranges, &mut bytes) {
        Ok(()) => Ok(bytes),
        Err(_) => Err("a list outside guest memory"),
    }
}

/// The frames of a list of page numbers, ascending and joined where they touch, appended to `into`.
///
/// # Errors
/// What is wrong with the list; `into` is then of no use.
pub(super) fn of_list(
    list: &[u8],
    ram: &[GuestRange],
    into: &mut Vec<GuestRange>,
) -> Result<(), &'static str> {
    if !(list.len() as u64).is_multiple_of(PFN) {
        return Err("a list of page numbers that is cut off");
    }
    let (numbers, _) = list.as_chunks::<4>();
    for number in numbers {
        let page = GuestRange {
            addr: u64::from(u32::from_le_bytes(*number)) * FRAME_SIZE,
            len: FRAME_SIZE,
        };
        if !is_ram(ram, page) {
            return Err("a page number that is not RAM");
        }
        into.push(page);
    }
    join(into)
}

/// The frames that a chain of free pages consists of, ascending and joined where they touch, appended to `into`.
///
/// # Errors
/// What is wrong with the chain; `into` is then of no use.
pub(super) fn of_chain(
    segments: &[Segment],
    ram: &[GuestRange],
    into: &mut Vec<GuestRange>,
) -> Result<(), &'static str> {
    for segment in segments {
        let range = range(segment);
        if !segment.writable {
            return Err("a free page that the device may not write");
        }
        if !range.addr.is_multiple_of(FRAME_SIZE) || !range.len.is_multiple_of(FRAME_SIZE) {
            return Err("a free page that is not a whole page");
        }
        if range.len == 0 {
            continue;
        }
        if !is_ram(ram, range) {
            return Err("a free page that is not RAM");
        }
        into.push(range);
    }
    join(into)
}

fn range(segment: &Segment) -> GuestRange {
    GuestRange {
        addr: segment.addr,
        len: u64::from(segment.len),
    }
}

fn is_ram(ram: &[GuestRange], range: GuestRange) -> bool {
    ram.iter().any(|ram| {
        let offset = range.addr.wrapping_sub(ram.addr);
        offset < ram.len && range.len <= ram.len - offset
    })
}

/// Sorts and joins ranges, none of which goes beyond the end of addresses.
fn join(ranges: &mut Vec<GuestRange>) -> Result<(), &'static str> {
    ranges.sort_unstable();
    if ranges
        .windows(2)
        .any(|pair| pair[0].addr + pair[0].len > pair[1].addr)
    {
        return Err("a page that is named twice");
    }
    ranges.dedup_by(|next, range| {
        let touches = range.addr + range.len == next.addr;
        if touches {
            range.len += next.len;
        }
        touches
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vm_memory::{Bytes, GuestAddress};

    use super::*;

    const RAM: [GuestRange; 2] = [
        GuestRange {
            addr: 0,
            len: 0x10_0000,
        },
        GuestRange {
            addr: 0x1_0000_0000,
            len: 0x10_0000,
        },
    ];

    fn list(numbers: &[u32]) -> Result<Vec<GuestRange>, &'static str> {
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        let mut ranges = Vec::new();
        of_list(&bytes, &RAM, &mut ranges).map(|()| ranges)
    }

    fn pages(first: u64, count: u64) -> GuestRange {
        GuestRange {
            addr: first * FRAME_SIZE,
            len: count * FRAME_SIZE,
        }
    }

    fn free(addr: u64, len: u32) -> Segment {
        Segment {
            addr,
            len,
            writable: true,
        }
    }

    fn chain(segments: &[Segment]) -> Result<Vec<GuestRange>, &'static str> {
        let mut ranges = Vec::new();
        of_chain(segments, &RAM, &mut ranges).map(|()| ranges)
    }

    #[test]
    fn page_numbers_in_any_order_become_ranges() {
        assert_eq!(
            list(&[9, 3, 8, 0x10_0000, 7]),
            Ok(vec![pages(3, 1), pages(7, 3), pages(0x10_0000, 1)])
        );
        assert_eq!(list(&[]), Ok(vec![]));
    }

    #[test]
    fn what_is_not_ram_or_named_twice_is_refused() {
        // Beyond the RAM, in the hole below 4 GiB, at the end of what a number can say.
        for number in [0x100, 0xd_0000, 0xf_ffff, 0x10_0100, u32::MAX] {
            assert_eq!(list(&[1, number]), Err("a page number that is not RAM"));
        }
        assert_eq!(list(&[5, 4, 5]), Err("a page that is named twice"));
        assert!(of_list(&[0; 7], &RAM, &mut Vec::new()).is_err());
    }

    #[test]
    fn reported_pages_are_whole_writable_ram_and_named_once() {
        assert_eq!(
            chain(&[free(0x3000, 0x2000), free(0x1000, 0x2000), free(0x8000, 0)]),
            Ok(vec![pages(1, 4)])
        );
        let readable = Segment {
            writable: false,
            ..free(0x1000, 0x1000)
        };
        assert!(chain(&[readable]).is_err());
        for (addr, len) in [
            (0x1001, 0x1000),
            (0x1000, 0x1001),
            (0xf_f000, 0x2000),
            (0xd000_0000, 0x1000),
            (!0xfff, 0x2000),
        ] {
            assert!(chain(&[free(addr, len)]).is_err(), "{addr:#x} {len:#x}");
        }
        assert!(chain(&[free(0x1000, 0x2000), free(0x2000, 0x1000)]).is_err());
    }

    #[test]
    fn a_list_is_read_where_it_is_and_not_beyond_its_limit() {
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x2000)]).unwrap();
        memory
            .write_slice(&[1, 2, 3, 4], GuestAddress(0x100))
            .unwrap();
        let readable = |addr, len| Segment {
            addr,
            len,
            writable: false,
        };
        let read = |segments: &[Segment]| read_list(segments, &memory, 16);
        assert_eq!(
            read(&[readable(0x102, 2), readable(0x100, 1)]),
            Ok(vec![3, 4, 1])
        );
        assert!(read(&[free(0x100, 4)]).is_err());
        assert!(read(&[readable(0x1fff, 2)]).is_err());
        assert!(read(&[readable(0x100, 17)]).is_err());
        assert!(read(&[readable(0, u32::MAX); 3]).is_err());
    }

    proptest! {
        #[test]
        fn no_chain_leaves_the_ram(segments in prop::collection::vec((any::<u64>(), any::<u32>(), any::<bool>(), any::<bool>()), 0..8)) {
            let segments: Vec<Segment> = segments
                .iter()
                .map(|&(addr, len, near, writable)| Segment {
                    addr: if near { (addr % 0x12_0000) & !0xfff } else { addr },
                    len: if near { (len % 0x4000) & !0xfff } else { len },
                    writable,
                })
                .collect();
            if let Ok(ranges) = chain(&segments) {
                for pair in ranges.windows(2) {
                    prop_assert!(pair[0].addr + pair[0].len < pair[1].addr);
                }
                for range in ranges {
                    prop_assert!(is_ram(&RAM, range) && range.len > 0);
                }
            }
        }
    }
}
