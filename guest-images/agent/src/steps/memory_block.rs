//! Blocks of memory that can be taken away: /sys/devices/system/memory.

use std::fs;
use std::path::{Path, PathBuf};

use pincushion_abi::Fault;
use pincushion_abi::step::MemoryBlock;

use crate::agent::Agent;
use crate::fault;
use crate::found::{Found, StepResult};
use crate::stamp::Stamp;
use crate::steps::{frames, maps};
use crate::sys::memory::{self, PAGE, Span};

const ROOT: &str = "/sys/devices/system/memory";
/// So many bytes are touched between two looks.
const AT_ONCE: usize = 256 * PAGE;

/// One act of the family.
pub fn run(agent: &Agent, stamp: &mut Stamp<'_>, act: &MemoryBlock) -> StepResult {
    match act {
        MemoryBlock::Find {} => stamp.around(|| find(Path::new(ROOT))),
        MemoryBlock::Page {
            start,
            bytes,
            limit,
            map,
        } => page(agent, stamp, (*start, *bytes), *limit, map),
    }
}

/// The first block that the kernel calls movable.
fn find(root: &Path) -> StepResult {
    let size = fs::read_to_string(root.join("block_size_bytes")).ok();
    let size = size.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    let size = size.ok_or_else(|| missing(libc::ENODEV, "ENODEV"))?;
    for (number, path) in blocks(root)? {
        let zones = fs::read_to_string(path.join("valid_zones")).unwrap_or_default();
        if zones.split_whitespace().next() == Some("Movable") {
            return Ok(Found::nothing()
                .number("number", number)
                .number("start", number.saturating_mul(size))
                .number("bytes", size));
        }
    }
    Err(missing(libc::ENOENT, "ENOENT"))
}

fn missing(errno: i32, name: &str) -> Fault {
    Fault {
        call: "memory-block".to_owned(),
        errno,
        name: name.to_owned(),
    }
}

/// All blocks by their number, in order.
fn blocks(root: &Path) -> Result<Vec<(u64, PathBuf)>, Fault> {
    let entries = fs::read_dir(root).map_err(|error| fault::io("read the blocks", &error))?;
    let mut blocks: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let number = name.to_str()?.strip_prefix("memory")?.parse().ok()?;
            Some((number, entry.path()))
        })
        .collect();
    blocks.sort_unstable();
    Ok(blocks)
}

/// A page in a block.
fn page(
    agent: &Agent,
    stamp: &mut Stamp<'_>,
    (start, bytes): (u64, u64),
    limit: u64,
    name: &str,
) -> StepResult {
    agent.names().maps.refuse_used("mapping", name)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let limit = limit.checked_next_multiple_of(PAGE).unwrap_or(limit);
    let (found, address, touched) = stamp.around(|| {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let read_write = libc::PROT_READ | libc::PROT_WRITE;
        let all = memory::map(limit, read_write, flags, None, 0)?;
        let found = first_in(all, start, bytes);
        // The others go, also where none was found.
        let kept = found.as_ref().ok().and_then(|found| *found);
        let at = kept.map_or(all.len(), |(span, _, _)| span.address() - all.address());
        for (offset, len) in [(0, at), (at + PAGE, all.len().saturating_sub(at + PAGE))] {
            if let Some(part) = all.part(offset, len).filter(|part| part.len() > 0) {
                memory::unmap(part)?;
            }
        }
        found?.ok_or_else(|| missing(libc::ENOENT, "ENOENT"))
    })?;
    let _ = agent.names().maps.put(name, found);
    Ok(Found::nothing()
        .numbers("frames", vec![address])
        .number("touched", touched))
}

/// Touches pages, some at a time, until one lies in the block: it, its frame, and how many were touched.
fn first_in(all: Span, start: u64, bytes: u64) -> Result<Option<(Span, u64, u64)>, Fault> {
    let mut touched = 0;
    for at in (0..all.len()).step_by(AT_ONCE) {
        let some = all.part(at, AT_ONCE.min(all.len() - at)).unwrap_or(all);
        for offset in (0..some.len()).step_by(PAGE) {
            maps::touch_for_writing(some.part(offset, 1).expect("the offset is inside"))?;
            touched += 1;
        }
        for (offset, page) in (0..).step_by(PAGE).zip(frames::pages(some)?) {
            let address = page.address();
            if address.checked_sub(start).is_some_and(|at| at < bytes) {
                let page = some.part(offset, PAGE).expect("the parts are whole pages");
                return Ok(Some((page, address, touched)));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use pincushion_abi::Value;
    use serde_json::json;

    use super::*;
    use crate::steps::testing::Bench;

    fn block(root: &Path, name: &str, zones: &str) {
        fs::create_dir(root.join(name)).unwrap();
        fs::write(root.join(name).join("valid_zones"), zones).unwrap();
    }

    #[test]
    fn the_lowest_block_that_begins_with_movable_is_found() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(find(root.path()).unwrap_err().name, "ENODEV");
        fs::write(root.path().join("block_size_bytes"), "8000000\n").unwrap();
        assert_eq!(find(root.path()).unwrap_err().name, "ENOENT");
        block(root.path(), "memory10", "Movable\n");
        block(root.path(), "memory3", "Movable Normal\n");
        block(root.path(), "memory2", "none\n");
        let found = find(root.path()).unwrap().0;
        assert_eq!(found["number"], Value::Number(3));
        assert_eq!(found["start"], Value::Number(3 << 27));
    }

    #[test]
    fn a_page_is_kept_where_it_lies_and_the_others_go() {
        let bench = Bench::new();
        // Everywhere: the first page is as good as any. Needs CAP_SYS_ADMIN: without it all frames read 0, which lies there too.
        let step = json!({"op": "memory-block", "do": "page", "start": 0, "bytes": u64::MAX >> 1, "limit": 16384, "map": "p"});
        assert_eq!(bench.ok(step)["touched"], Value::Number(4));
        bench.ok(json!({"op": "store", "map": "p", "len": 4096, "pattern": {"byte": 1}}));
        let nowhere = json!({"op": "memory-block", "do": "page", "start": 1, "bytes": 0, "limit": 16384, "map": "q"});
        assert_eq!(bench.fails(nowhere).name, "ENOENT");
    }
}
