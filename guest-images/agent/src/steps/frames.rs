//! Where pages are: /proc/self/pagemap, /proc/kpageflags and /proc/kpagecount.

use std::fs::File;
use std::os::unix::fs::FileExt;

use pincushion_abi::Fault;
use pincushion_abi::step::MAX_FRAMES;

use crate::agent::Agent;
use crate::fault::{self, sentence};
use crate::found::{Found, StepResult};
use crate::stamp::Stamp;
use crate::sys::memory::{PAGE, Span};

const PAGE_SHIFT: u32 = PAGE.trailing_zeros();

/// One page's entry of /proc/self/pagemap (Documentation/admin-guide/mm/pagemap.rst).
#[derive(Debug, Clone, Copy)]
pub struct Page(u64);

impl Page {
    fn present(self) -> bool {
        self.0 >> 63 == 1
    }

    fn swapped(self) -> bool {
        self.0 >> 62 & 1 == 1
    }

    fn soft_dirty(self) -> bool {
        self.0 >> 55 & 1 == 1
    }

    /// The frame's number, 0 where the page is not present.
    fn frame(self) -> u64 {
        if self.present() {
            self.0 & ((1 << 55) - 1)
        } else {
            0
        }
    }

    /// The frame's guest physical address, 0 where the page is not present.
    pub fn address(&self) -> u64 {
        self.frame() << PAGE_SHIFT
    }
}

/// The pages of a span, of which the first may begin before it.
pub fn pages(span: Span) -> Result<Vec<Page>, Fault> {
    let first = span.address() >> PAGE_SHIFT;
    let end = (span.address() + span.len()).div_ceil(PAGE);
    let mut bytes = vec![0; (end - first) * 8];
    let pagemap = open("/proc/self/pagemap")?;
    pagemap
        .read_exact_at(&mut bytes, first as u64 * 8)
        .map_err(|error| fault::io("pread pagemap", &error))?;
    Ok(numbers(&bytes).map(Page).collect())
}

/// The pages of a mapping.
pub fn of_map(
    agent: &Agent,
    stamp: &mut Stamp<'_>,
    name: &str,
    offset: u64,
    len: Option<u64>,
) -> StepResult {
    let span = agent.span(name, offset, len)?;
    let count = span.len().div_ceil(PAGE);
    if count > MAX_FRAMES {
        let text = format!(
            "{count} pages are more than one report tells ({MAX_FRAMES}): give `offset` and `len`"
        );
        return Err(sentence("frames", text));
    }
    let (pages, flags, counts) = stamp.around(|| {
        let pages = pages(span)?;
        let of = |path| {
            pages
                .iter()
                .map(|page| entry(path, page.frame()))
                .collect::<Result<Vec<_>, _>>()
        };
        Ok::<_, Fault>((of("/proc/kpageflags")?, of("/proc/kpagecount")?))
            .map(|(flags, counts)| (pages, flags, counts))
    })?;
    let each = |of: fn(Page) -> u64| pages.iter().map(|page| of(*page)).collect();
    Ok(Found::nothing()
        .numbers("frames", each(|page| page.address()))
        .numbers("soft_dirty", each(|page| page.soft_dirty().into()))
        .numbers("swapped", each(|page| page.swapped().into()))
        .numbers("flags", flags)
        .numbers("mapped", counts))
}

/// Flags that a frame shall have, and those that it shall not.
pub struct Flags {
    with: u64,
    without: u64,
}

impl Flags {
    /// By their names.
    pub fn named(with: &[String], without: &[String]) -> Result<Self, Fault> {
        let bits = |names: &[String]| {
            names.iter().try_fold(0, |bits, name| {
                let known = FLAG_NAMES.iter().find(|(_, known)| *known == name.as_str());
                let (bit, _) = known.ok_or_else(|| {
                    sentence("page-flags", format!("there is no page flag {name:?}"))
                })?;
                Ok::<u64, Fault>(bits | 1 << bit)
            })
        };
        Ok(Self {
            with: bits(with)?,
            without: bits(without)?,
        })
    }
}

/// The flags of one frame now, and whether they are as wanted.
pub fn flags_now(address: u64, wanted: &Flags) -> Result<(bool, Found), Fault> {
    let frame = address >> PAGE_SHIFT;
    let flags = entry("/proc/kpageflags", frame)?;
    let reached = flags & wanted.with == wanted.with && flags & wanted.without == 0;
    let found = Found::nothing()
        .number("flags", flags)
        .texts("names", flag_names(flags))
        .flag("reached", reached)
        .number("mapped", entry("/proc/kpagecount", frame)?);
    Ok((reached, found))
}

/// A frame's number in one of the two tables; 0 for frame 0 (no frame) and where the table ends
/// before the frame, as it does for DAX.
fn entry(path: &str, frame: u64) -> Result<u64, Fault> {
    let mut bytes = [0; 8];
    if frame == 0 {
        return Ok(0);
    }
    let file = open(path)?;
    match file.read_at(&mut bytes, frame.saturating_mul(8)) {
        Ok(8) => Ok(u64::from_le_bytes(bytes)),
        Ok(_) => Ok(0),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENXIO | libc::EINVAL)) => Ok(0),
        Err(error) => Err(fault::io(path, &error)),
    }
}

fn open(path: &str) -> Result<File, Fault> {
    File::open(path).map_err(|error| fault::io(path, &error))
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes
        .chunks_exact(8)
        .map(|chunk| u64::from_le_bytes(chunk.try_into().expect("chunks of eight")))
}

/// include/uapi/linux/kernel-page-flags.h, then include/linux/kernel-page-flags.h; by bit.
const FLAG_NAMES: [(u32, &str); 37] = [
    (0, "LOCKED"),
    (1, "ERROR"),
    (2, "REFERENCED"),
    (3, "UPTODATE"),
    (4, "DIRTY"),
    (5, "LRU"),
    (6, "ACTIVE"),
    (7, "SLAB"),
    (8, "WRITEBACK"),
    (9, "RECLAIM"),
    (10, "BUDDY"),
    (11, "MMAP"),
    (12, "ANON"),
    (13, "SWAPCACHE"),
    (14, "SWAPBACKED"),
    (15, "COMPOUND_HEAD"),
    (16, "COMPOUND_TAIL"),
    (17, "HUGE"),
    (18, "UNEVICTABLE"),
    (19, "HWPOISON"),
    (20, "NOPAGE"),
    (21, "KSM"),
    (22, "THP"),
    (23, "OFFLINE"),
    (24, "ZERO_PAGE"),
    (25, "IDLE"),
    (26, "PGTABLE"),
    (32, "RESERVED"),
    (33, "MLOCKED"),
    (34, "MAPPEDTODISK"),
    (35, "PRIVATE"),
    (36, "PRIVATE_2"),
    (37, "OWNER_PRIVATE"),
    (38, "ARCH"),
    (39, "UNCACHED"),
    (40, "SOFTDIRTY"),
    (41, "ARCH_2"),
];

fn flag_names(flags: u64) -> Vec<String> {
    (0..64)
        .filter(|bit| flags >> bit & 1 == 1)
        .map(
            |bit| match FLAG_NAMES.iter().find(|(known, _)| *known == bit) {
                Some((_, name)) => (*name).to_owned(),
                None => format!("BIT_{bit}"),
            },
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use pincushion_abi::Value;
    use serde_json::json;

    use super::*;
    use crate::steps::testing::Bench;

    #[test]
    fn flags_are_named_by_bit_and_an_unknown_bit_is_not_lost() {
        assert_eq!(
            flag_names(1 << 4 | 1 << 8 | 1 << 50),
            ["DIRTY", "WRITEBACK", "BIT_50"]
        );
    }

    #[test]
    fn a_pagemap_entry_is_taken_apart() {
        let page = Page(1 << 63 | 1 << 55 | 0x1234);
        assert!(page.soft_dirty() && !page.swapped());
        assert_eq!(page.address(), 0x0123_4000);
        let swapped = Page(1 << 62 | 0x1234);
        assert!(swapped.swapped());
        assert_eq!(swapped.address(), 0);
    }

    #[test]
    fn flags_are_waited_for_by_name_and_what_was_seen_last_is_told() {
        let bench = Bench::new();
        // Frame 0 has no flags.
        let step =
            |with: &str| json!({"op": "page-flags", "frame": 0, "with": [with], "limit_ms": 5});
        assert_eq!(bench.ok(step("DIRTY"))["reached"], Value::Bool(false));
        let none = json!({"op": "page-flags", "frame": 0, "without": ["DIRTY"]});
        assert_eq!(bench.ok(none)["reached"], Value::Bool(true));
        assert!(bench.fails(step("DIRT")).name.contains("\"DIRT\""));
    }

    #[test]
    fn an_untouched_page_has_no_frame() {
        let bench = Bench::new();
        bench.ok(json!({"op": "mmap", "kind": "anonymous", "len": 12288, "map": "m"}));
        let found = bench.ok(json!({"op": "frames", "map": "m"}));
        assert_eq!(found["frames"], Value::Numbers(vec![0, 0, 0]));
        assert_eq!(found["flags"], Value::Numbers(vec![0, 0, 0]));
    }

    #[test]
    fn a_part_of_a_mapping_tells_each_page_it_touches_and_too_many_are_refused() {
        let bench = Bench::new();
        bench.ok(json!({"op": "mmap", "kind": "anonymous", "len": 8_388_608, "map": "m"}));
        let found = bench.ok(json!({"op": "frames", "map": "m", "offset": 4095, "len": 2}));
        assert_eq!(found["frames"], Value::Numbers(vec![0, 0]));
        assert!(
            bench
                .fails(json!({"op": "frames", "map": "m"}))
                .name
                .contains("give `offset`")
        );
    }
}
