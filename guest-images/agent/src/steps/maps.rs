//! Mappings: made, touched by the CPU, synced, advised.

use pincushion_abi::step::{MAX_FRAMES, MapKind, Pattern};
use pincushion_abi::{Fault, Value};

use crate::agent::Agent;
use crate::fault::sentence;
use crate::found::{Found, StepResult};
use crate::stamp::Stamp;
use crate::steps::files::{file_offset, flag_bits};
use crate::steps::frames;
use crate::steps::transfer::Part;
use crate::sys::guard::{self, Stopped};
use crate::sys::memory::{self, PAGE, Span};

/// What a report of `mmap` tells the frames of.
const TOLD_BYTES: usize = MAX_FRAMES * PAGE;
const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// What kind of mapping a step wants.
pub struct Wanted<'s> {
    pub file: Option<&'s str>,
    pub kind: MapKind,
    pub offset: u64,
    pub len: u64,
    pub populate: bool,
}

/// `mmap(2)`.
pub fn map(agent: &Agent, stamp: &mut Stamp<'_>, name: &str, wanted: &Wanted<'_>) -> StepResult {
    let (flags, fd) = match (wanted.kind, wanted.file) {
        (MapKind::Anonymous, None) => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None),
        (MapKind::Anonymous, Some(_)) => {
            return Err(sentence(
                "mmap",
                "an anonymous mapping has no file: leave `file` out",
            ));
        }
        (MapKind::Shared, Some(file)) => (libc::MAP_SHARED, Some(agent.file(file)?)),
        (MapKind::Private, Some(file)) => (libc::MAP_PRIVATE, Some(agent.file(file)?)),
        (MapKind::Shared | MapKind::Private, None) => {
            return Err(sentence(
                "mmap",
                "a shared or private mapping needs a `file`",
            ));
        }
    };
    let len = usize::try_from(wanted.len)
        .map_err(|_| sentence("mmap", "the length is beyond all memory"))?;
    let offset = file_offset(wanted.offset)?;
    agent.names().maps.refuse_used("mapping", name)?;
    let (made, touched) = stamp.around(|| {
        let made =
            memory::map(len, READ_WRITE, flags, fd, offset).or_else(|errno| match errno.number {
                // A file that is open for reading only.
                libc::EACCES => memory::map(len, libc::PROT_READ, flags, fd, offset),
                _ => Err(errno),
            });
        let touched = match made {
            Ok(span) if wanted.populate => touch(span, wanted.kind),
            _ => Ok(()),
        };
        (made, touched)
    });
    let span = made?;
    if agent.names().maps.put(name, span).is_some() {
        return Err(sentence(
            "mapping",
            format!("two threads made a mapping {name:?} at once"),
        ));
    }
    touched.map_err(|stopped| stopped_fault("populate", stopped))?;
    let mut found = Found::nothing().number("address", span.address() as u64);
    if wanted.populate {
        let told = span.part(0, span.len().min(TOLD_BYTES)).unwrap_or(span);
        let frames = frames::pages(told)?
            .iter()
            .map(frames::Page::address)
            .collect();
        found.0.insert("frames".into(), Value::Numbers(frames));
    }
    Ok(found)
}

/// Reads a byte of each page; writes it back where the page would be the zero page otherwise.
fn touch(span: Span, kind: MapKind) -> Result<(), Stopped> {
    for offset in (0..span.len()).step_by(PAGE) {
        let mut byte = [0];
        let part = span
            .part(offset, 1)
            .expect("the offset is below the length");
        let at = |stopped: Stopped| Stopped {
            at: offset,
            ..stopped
        };
        guard::load(part, &mut byte).map_err(at)?;
        if kind == MapKind::Anonymous {
            guard::store(part, &byte).map_err(at)?;
        }
    }
    Ok(())
}

/// Reads a byte and writes it back, so that its page is there and may be written.
pub(super) fn touch_for_writing(byte: Span) -> Result<(), Fault> {
    touch(byte, MapKind::Anonymous).map_err(|stopped| stopped_fault("populate", stopped))
}

/// `munmap(2)`.
pub fn unmap(agent: &Agent, stamp: &mut Stamp<'_>, name: &str) -> StepResult {
    let span = agent.names().maps.take("mapping", name)?;
    stamp.around(|| memory::unmap(span))?;
    Ok(Found::nothing())
}

/// Stores a pattern by the CPU.
pub fn store(
    agent: &Agent,
    stamp: &mut Stamp<'_>,
    part: &Part<'_>,
    pattern: Pattern,
) -> StepResult {
    let (span, mut buffer) = part.in_map(agent)?;
    pattern.fill(buffer.bytes_mut());
    let stored = stamp.around(|| guard::store(span, buffer.bytes()));
    stored.map_err(|stopped| stopped_fault("store", stopped))?;
    Ok(Found::nothing())
}

/// Loads by the CPU.
pub fn load(agent: &Agent, stamp: &mut Stamp<'_>, part: &Part<'_>) -> StepResult {
    let buffer = loaded(agent, stamp, part)?;
    Ok(Found::nothing().content(buffer.bytes()))
}

/// Loads by the CPU and compares.
pub fn verify(
    agent: &Agent,
    stamp: &mut Stamp<'_>,
    part: &Part<'_>,
    pattern: Pattern,
) -> StepResult {
    let buffer = loaded(agent, stamp, part)?;
    Ok(Found::nothing().compared(buffer.bytes(), pattern))
}

fn loaded(agent: &Agent, stamp: &mut Stamp<'_>, part: &Part<'_>) -> Result<memory::Buffer, Fault> {
    let (span, mut buffer) = part.in_map(agent)?;
    let result = stamp.around(|| guard::load(span, buffer.bytes_mut()));
    result.map_err(|stopped| stopped_fault("load", stopped))?;
    Ok(buffer)
}

pub fn stopped_fault(call: &str, stopped: Stopped) -> Fault {
    let text = format!(
        "{} at byte {} of the mapping's part: that page cannot be had",
        stopped.signal, stopped.at
    );
    sentence(call, text)
}

/// `msync(2)`.
pub fn msync(
    agent: &Agent,
    stamp: &mut Stamp<'_>,
    name: &str,
    offset: u64,
    len: Option<u64>,
    flags: &[String],
) -> StepResult {
    let table = [
        ("sync", libc::MS_SYNC),
        ("async", libc::MS_ASYNC),
        ("invalidate", libc::MS_INVALIDATE),
    ];
    let flags = flag_bits("msync flag", flags, &table)?;
    let span = agent.span(name, offset, len)?;
    stamp.around(|| memory::msync(span, flags))?;
    Ok(Found::nothing())
}

/// `madvise(2)`.
pub fn madvise(agent: &Agent, stamp: &mut Stamp<'_>, name: &str, advice_name: &str) -> StepResult {
    let (advice, span) = (advice(advice_name)?, agent.map(name)?);
    stamp.around(|| memory::madvise(span, advice))?;
    Ok(Found::nothing())
}

/// An advice by its name.
pub fn advice(name: &str) -> Result<i32, Fault> {
    if let Some((_, advice)) = ADVICE.iter().find(|(known, _)| *known == name) {
        return Ok(*advice);
    }
    let known: Vec<&str> = ADVICE.iter().map(|(known, _)| *known).collect();
    Err(sentence(
        "madvise",
        format!("there is no advice {name:?}; known: {}", known.join(" ")),
    ))
}

const ADVICE: [(&str, i32); 25] = [
    ("normal", libc::MADV_NORMAL),
    ("random", libc::MADV_RANDOM),
    ("sequential", libc::MADV_SEQUENTIAL),
    ("willneed", libc::MADV_WILLNEED),
    ("dontneed", libc::MADV_DONTNEED),
    ("dontneed_locked", 24),
    ("free", libc::MADV_FREE),
    ("remove", libc::MADV_REMOVE),
    ("dontfork", libc::MADV_DONTFORK),
    ("dofork", libc::MADV_DOFORK),
    ("mergeable", libc::MADV_MERGEABLE),
    ("unmergeable", libc::MADV_UNMERGEABLE),
    ("hugepage", libc::MADV_HUGEPAGE),
    ("nohugepage", libc::MADV_NOHUGEPAGE),
    ("collapse", 25),
    ("dontdump", libc::MADV_DONTDUMP),
    ("dodump", libc::MADV_DODUMP),
    ("wipeonfork", libc::MADV_WIPEONFORK),
    ("keeponfork", libc::MADV_KEEPONFORK),
    ("cold", libc::MADV_COLD),
    ("pageout", libc::MADV_PAGEOUT),
    ("populate_read", libc::MADV_POPULATE_READ),
    ("populate_write", libc::MADV_POPULATE_WRITE),
    ("hwpoison", libc::MADV_HWPOISON),
    ("soft_offline", 101),
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::steps::testing::Bench;

    #[test]
    fn what_is_stored_into_a_shared_mapping_is_in_the_file() {
        let bench = Bench::new();
        bench.create("a");
        bench.ok(json!({"op": "truncate", "file": "a", "len": 8192}));
        bench.ok(json!({"op": "mmap", "file": "a", "kind": "shared", "len": 8192, "map": "m"}));
        bench.ok(
            json!({"op": "store", "map": "m", "offset": 100, "len": 5000, "pattern": {"seed": 2}}),
        );
        bench.ok(json!({"op": "msync", "map": "m", "flags": ["sync"]}));
        let verify = json!({"op": "read-verify", "file": "a", "offset": 100, "len": 5000, "pattern": {"seed": 2}});
        assert_eq!(bench.ok(verify)["equal"], Value::Bool(true));
        bench.ok(json!({"op": "munmap", "map": "m"}));
        assert!(
            bench
                .fails(json!({"op": "load", "map": "m", "len": 1}))
                .name
                .contains("no mapping \"m\"")
        );
    }

    #[test]
    fn a_private_mapping_keeps_its_stores_from_the_file() {
        let bench = Bench::new();
        bench.create("a");
        bench.ok(json!({"op": "truncate", "file": "a", "len": 4096}));
        bench.ok(json!({"op": "mmap", "file": "a", "kind": "private", "len": 4096, "map": "m"}));
        bench.ok(json!({"op": "store", "map": "m", "len": 4096, "pattern": {"byte": 9}}));
        let read = bench.ok(json!({"op": "read-hash", "file": "a", "offset": 0, "len": 4096}));
        assert_eq!(
            (&read["first"], &read["uniform"]),
            (&Value::Number(0), &Value::Bool(true))
        );
    }

    #[test]
    fn a_load_of_a_truncated_page_is_a_fault_and_not_the_end() {
        let bench = Bench::new();
        bench.create("a");
        bench.ok(json!({"op": "truncate", "file": "a", "len": 8192}));
        bench.ok(json!({"op": "mmap", "file": "a", "kind": "shared", "len": 8192, "map": "m"}));
        bench.ok(json!({"op": "truncate", "file": "a", "len": 4096}));
        let fault = bench.fails(json!({"op": "load", "map": "m", "len": 8192}));
        assert_eq!(fault.call, "load");
        assert!(
            fault.name.starts_with("SIGBUS at byte 4096"),
            "{}",
            fault.name
        );
        let populate = json!({"op": "mmap", "file": "a", "kind": "shared", "len": 8192, "map": "n", "populate": true});
        assert!(
            bench
                .fails(populate)
                .name
                .starts_with("SIGBUS at byte 4096")
        );
    }

    #[test]
    fn a_file_open_for_reading_is_mapped_for_reading() {
        let bench = Bench::new();
        bench.create("a");
        bench.ok(json!({"op": "truncate", "file": "a", "len": 4096}));
        bench.ok(json!({"op": "open", "path": bench.path("a"), "flags": ["rdonly"], "file": "r"}));
        bench.ok(json!({"op": "mmap", "file": "r", "kind": "shared", "len": 4096, "map": "m"}));
        bench.ok(json!({"op": "load", "map": "m", "len": 4096}));
        let fault =
            bench.fails(json!({"op": "store", "map": "m", "len": 1, "pattern": {"byte": 0}}));
        assert!(
            fault.name.starts_with("SIGSEGV at byte 0"),
            "{}",
            fault.name
        );
    }

    #[test]
    fn kind_and_file_must_agree() {
        let bench = Bench::new();
        bench.create("a");
        let with = json!({"op": "mmap", "file": "a", "kind": "anonymous", "len": 4096, "map": "m"});
        assert!(bench.fails(with).name.contains("leave `file` out"));
        let without = json!({"op": "mmap", "kind": "shared", "len": 4096, "map": "m"});
        assert!(bench.fails(without).name.contains("needs a `file`"));
    }

    #[test]
    fn advice_is_known_by_name() {
        let bench = Bench::new();
        bench.ok(json!({"op": "mmap", "kind": "anonymous", "len": 4096, "map": "m"}));
        bench.ok(json!({"op": "store", "map": "m", "len": 4096, "pattern": {"byte": 9}}));
        bench.ok(json!({"op": "madvise", "map": "m", "advice": "dontneed"}));
        assert_eq!(
            bench.ok(json!({"op": "load", "map": "m", "len": 1}))["first"],
            Value::Number(0)
        );
        assert!(
            bench
                .fails(json!({"op": "madvise", "map": "m", "advice": "MADV_FREE"}))
                .name
                .contains("known: normal")
        );
    }
}
