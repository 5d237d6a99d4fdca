//! What a program does with its own memory, beside the plain calls on whole mappings.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use pincushion_abi::step::{Memory, MemoryFile, Pattern, Protection};

use crate::agent::Agent;
use crate::fault;
use crate::found::{Found, StepResult};
use crate::stamp::Stamp;
use crate::steps::files::flag_bits;
use crate::steps::maps::advice;
use crate::steps::transfer::{Part, whole};
use crate::sys::memory::{PAGE, Span};
use crate::sys::{file, mm};

/// One act of the family.
pub fn run(agent: &Agent, stamp: &mut Stamp<'_>, act: &Memory) -> StepResult {
    match act {
        Memory::Remap { map, to } => remap(agent, stamp, map, to),
        Memory::Protect {
            map,
            offset,
            len,
            protection,
        } => {
            let span = agent.span(map, *offset, *len)?;
            protect(stamp, span, *protection)
        }
        Memory::Advise {
            map,
            offset,
            len,
            advice: name,
        } => {
            let span = agent.span(map, *offset, Some(*len))?;
            let advice = advice(name)?;
            stamp.around(|| crate::sys::memory::madvise(span, advice))?;
            Ok(Found::nothing())
        }
        Memory::Unmap { map, offset, len } => {
            let span = agent.span(map, *offset, Some(*len))?;
            stamp.around(|| crate::sys::memory::unmap(span))?;
            Ok(Found::nothing())
        }
        Memory::WriteProcess {
            map,
            offset,
            len,
            pattern,
        } => write_process(agent, stamp, &Part::new(map, *offset, *len), *pattern),
        Memory::CopyProcess {
            map,
            offset,
            from,
            from_offset,
            len,
        } => {
            let to = agent.span(map, *offset, Some(*len))?;
            let from = agent.span(from, *from_offset, Some(*len))?;
            copy_process(stamp, from, to)
        }
        Memory::RepeatPage {
            file,
            offset,
            count,
            map,
        } => repeat_page(agent, stamp, (file, *offset), *count, map),
        Memory::MovePages {
            map,
            offset,
            len,
            node,
        } => {
            let span = agent.span(map, *offset, *len)?;
            move_pages(stamp, span, *node)
        }
        Memory::File { file, len, kind } => new_file(agent, stamp, file, *len, *kind),
        Memory::Seal { file, seals } => seal(agent, stamp, file, seals),
        Memory::Udmabuf {
            file,
            offset,
            len,
            buffer,
        } => udmabuf(agent, stamp, (file, *offset, *len), buffer),
    }
}

fn protect(stamp: &mut Stamp<'_>, span: Span, protection: Protection) -> StepResult {
    let bits = match protection {
        Protection::None => libc::PROT_NONE,
        Protection::Read => libc::PROT_READ,
        Protection::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
    };
    stamp.around(|| mm::protect(span, bits))?;
    Ok(Found::nothing())
}

fn seal(agent: &Agent, stamp: &mut Stamp<'_>, file: &str, seals: &[String]) -> StepResult {
    let table = [
        ("seal", libc::F_SEAL_SEAL),
        ("shrink", libc::F_SEAL_SHRINK),
        ("grow", libc::F_SEAL_GROW),
        ("write", libc::F_SEAL_WRITE),
        ("future_write", 0x10),
    ];
    let (fd, seals) = (agent.file(file)?, flag_bits("seal", seals, &table)?);
    stamp.around(|| mm::seal(fd, seals))?;
    Ok(Found::nothing())
}

fn copy_process(stamp: &mut Stamp<'_>, from: Span, to: Span) -> StepResult {
    let written = stamp.around(|| mm::write_own_process(from, to))?;
    whole("process_vm_writev", written, from.len() as u64)?;
    Ok(Found::nothing().count("written", written))
}

fn write_process(
    agent: &Agent,
    stamp: &mut Stamp<'_>,
    part: &Part<'_>,
    pattern: Pattern,
) -> StepResult {
    const CALL: &str = "pwrite /proc/self/mem";
    let (span, mut buffer) = part.in_map(agent)?;
    pattern.fill(buffer.bytes_mut());
    let memory = OpenOptions::new().write(true).open("/proc/self/mem");
    let memory = memory.map_err(|error| fault::io("open", &error))?;
    let written = stamp.around(|| memory.write_at(buffer.bytes(), span.address() as u64));
    whole(
        CALL,
        written.map_err(|error| fault::io(CALL, &error))?,
        part.len,
    )?;
    Ok(Found::nothing())
}

fn repeat_page(
    agent: &Agent,
    stamp: &mut Stamp<'_>,
    (file, offset): (&str, u64),
    count: u32,
    map: &str,
) -> StepResult {
    let fd = agent.file(file)?;
    let offset = crate::steps::files::file_offset(offset)?;
    agent.names().maps.refuse_used("mapping", map)?;
    let made = stamp.around(|| crate::sys::memory::map_again_and_again(fd, offset, count))?;
    let _ = agent.names().maps.put(map, made);
    for at in (0..made.len()).step_by(PAGE) {
        let byte = made.part(at, 1).expect("the offset is below the length");
        crate::steps::maps::touch_for_writing(byte)?;
    }
    Ok(Found::nothing().number("address", made.address() as u64))
}

fn udmabuf(
    agent: &Agent,
    stamp: &mut Stamp<'_>,
    (file, offset, len): (&str, u64, u64),
    buffer: &str,
) -> StepResult {
    const DEVICE: &str = "/dev/udmabuf";
    agent.names().files.refuse_used("file", buffer)?;
    let fd = agent.file(file)?;
    let device = OpenOptions::new().read(true).write(true).open(DEVICE);
    let device = device.map_err(|error| fault::io("open /dev/udmabuf", &error))?;
    let made = stamp.around(|| mm::udmabuf(&device, fd, offset, len))?;
    let _ = agent.names().files.put(buffer, made);
    Ok(Found::nothing())
}

fn move_pages(stamp: &mut Stamp<'_>, span: Span, node: u32) -> StepResult {
    let mut pages = mm::Pages::new(span, node.cast_signed());
    stamp.around(|| pages.migrate())?;
    let told = |status: &i32| match u64::try_from(*status) {
        Ok(node) => node,
        Err(_) => (1 << 32) - u64::from(status.unsigned_abs()),
    };
    let status = pages.status().iter().map(told).collect();
    Ok(Found::nothing().numbers("status", status))
}

fn remap(agent: &Agent, stamp: &mut Stamp<'_>, name: &str, to: &str) -> StepResult {
    agent.names().maps.refuse_used("mapping", to)?;
    let span = agent.names().maps.take("mapping", name)?;
    match stamp.around(|| crate::sys::memory::remap(span)) {
        Ok(moved) => {
            let _ = agent.names().maps.put(to, moved);
            Ok(Found::nothing().number("address", moved.address() as u64))
        }
        Err(errno) => {
            let _ = agent.names().maps.put(name, span);
            Err(errno.into())
        }
    }
}

fn new_file(
    agent: &Agent,
    stamp: &mut Stamp<'_>,
    name: &str,
    len: u64,
    kind: MemoryFile,
) -> StepResult {
    let len = crate::steps::files::file_offset(len.next_multiple_of(PAGE as u64))?;
    agent.names().files.refuse_used("file", name)?;
    let fd = stamp.around(|| {
        let fd = match kind {
            MemoryFile::Memfd => mm::memfd(libc::MFD_ALLOW_SEALING),
            MemoryFile::Huge => mm::memfd(libc::MFD_ALLOW_SEALING | libc::MFD_HUGETLB),
            MemoryFile::Secret => mm::secret(),
        }?;
        file::truncate(fd, len).map(|()| fd)
    })?;
    let _ = agent.names().files.put(name, fd);
    Ok(Found::nothing())
}

#[cfg(test)]
mod tests {
    use pincushion_abi::Value;
    use serde_json::json;

    use crate::steps::testing::Bench;

    fn mapped() -> Bench {
        let bench = Bench::new();
        bench.ok(json!({"op": "mmap", "kind": "anonymous", "len": 8192, "map": "m"}));
        bench.ok(json!({"op": "store", "map": "m", "len": 8192, "pattern": {"byte": 5}}));
        bench
    }

    fn first(bench: &Bench, map: &str, offset: u64) -> Value {
        let load = json!({"op": "load", "map": map, "offset": offset, "len": 1});
        bench.ok(load)["first"].clone()
    }

    #[test]
    fn a_mapping_that_was_moved_has_its_bytes_under_its_new_name() {
        let bench = mapped();
        bench.ok(json!({"op": "memory", "do": "remap", "map": "m", "to": "n"}));
        assert_eq!(first(&bench, "n", 4096), Value::Number(5));
        let gone = bench.fails(json!({"op": "load", "map": "m", "len": 1}));
        assert!(gone.name.contains("no mapping \"m\""), "{}", gone.name);
    }

    #[test]
    fn protection_is_changed_for_a_part_and_the_kernel_stores_all_the_same() {
        let bench = mapped();
        bench.ok(json!({"op": "memory", "do": "protect", "map": "m", "offset": 4096, "len": 4096, "protection": "read"}));
        let store =
            json!({"op": "store", "map": "m", "offset": 4096, "len": 1, "pattern": {"byte": 6}});
        assert!(bench.fails(store).name.contains("SIGSEGV"));
        bench.ok(json!({"op": "memory", "do": "write-process", "map": "m", "offset": 4096, "len": 16, "pattern": {"byte": 6}}));
        assert_eq!(first(&bench, "m", 4096), Value::Number(6));
    }

    #[test]
    fn advice_and_unmapping_reach_a_part_only() {
        let bench = mapped();
        bench.ok(json!({"op": "memory", "do": "advise", "map": "m", "offset": 4096, "len": 4096, "advice": "dontneed"}));
        assert_eq!(first(&bench, "m", 0), Value::Number(5));
        assert_eq!(first(&bench, "m", 4096), Value::Number(0));
        bench.ok(json!({"op": "memory", "do": "unmap", "map": "m", "offset": 4096, "len": 4096}));
        let fault = bench.fails(json!({"op": "load", "map": "m", "offset": 4096, "len": 1}));
        assert!(fault.name.contains("SIGSEGV"), "{}", fault.name);
    }

    #[test]
    fn the_kernel_copies_from_one_mapping_into_another() {
        let bench = mapped();
        bench.ok(json!({"op": "mmap", "kind": "anonymous", "len": 4096, "map": "n"}));
        let copy = |len| json!({"op": "memory", "do": "copy-process", "map": "n", "from": "m", "from_offset": 4096, "len": len});
        assert_eq!(bench.ok(copy(4096))["written"], Value::Number(4096));
        assert_eq!(first(&bench, "n", 4095), Value::Number(5));
        assert!(bench.fails(copy(4097)).name.contains("not inside"));
    }

    #[test]
    fn a_page_that_is_mapped_often_is_one_page() {
        let bench = Bench::new();
        bench.ok(json!({"op": "memory", "do": "file", "file": "f", "len": 8192}));
        bench.ok(json!({"op": "memory", "do": "repeat-page", "file": "f", "offset": 4096, "count": 3, "map": "m"}));
        bench.ok(json!({"op": "store", "map": "m", "len": 1, "pattern": {"byte": 9}}));
        assert_eq!(first(&bench, "m", 8192), Value::Number(9));
        let past = bench.fails(json!({"op": "load", "map": "m", "offset": 12288, "len": 1}));
        assert!(past.name.contains("not inside"), "{}", past.name);
        // Beyond the file's end there is no page to touch.
        let gone = json!({"op": "memory", "do": "repeat-page", "file": "f", "offset": 8192, "count": 1, "map": "n"});
        assert!(bench.fails(gone).name.contains("SIGBUS"));
    }

    #[test]
    fn a_file_that_is_not_sealed_becomes_no_udmabuf() {
        let bench = Bench::new();
        bench.ok(json!({"op": "memory", "do": "file", "file": "f", "len": 4096}));
        let step =
            json!({"op": "memory", "do": "udmabuf", "file": "f", "len": 4096, "buffer": "b"});
        let fault = bench.fails(step);
        assert!(
            ["EINVAL", "ENOENT", "EACCES"].contains(&fault.name.as_str()),
            "{}",
            fault.name
        );
    }

    #[test]
    fn a_file_in_memory_is_mapped_and_sealed() {
        let bench = Bench::new();
        bench.ok(json!({"op": "memory", "do": "file", "file": "f", "len": 4096}));
        bench.ok(json!({"op": "memory", "do": "seal", "file": "f", "seals": ["shrink"]}));
        let shrink = bench.fails(json!({"op": "truncate", "file": "f", "len": 0}));
        assert_eq!(shrink.name, "EPERM");
        bench.ok(json!({"op": "mmap", "file": "f", "kind": "shared", "len": 4096, "map": "s", "populate": true}));
    }
}
