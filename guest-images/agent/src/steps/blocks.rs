//! Blocks below files: where they are, who shares them, and which device has them.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use pincushion_abi::Fault;
use pincushion_abi::step::MAX_EXTENTS;

use crate::agent::Agent;
use crate::fault::{self, sentence};
use crate::found::{Found, StepResult};
use crate::stamp::Stamp;
use crate::sys::clock::pause_between_looks;
use crate::sys::extents::{self, Extent, Fiemap};

/// Between two looks for a device.
const LOOK: Duration = Duration::from_millis(5);

/// FS_IOC_FIEMAP.
pub fn fiemap(agent: &Agent, stamp: &mut Stamp<'_>, name: &str) -> StepResult {
    let fd = agent.file(name)?;
    // One more than is told, to know whether there are more.
    let mut map = Fiemap::new(MAX_EXTENTS + 1);
    let (inode, generation) = stamp.around(|| {
        let identity = extents::identity(fd)?;
        map.ask(fd)?;
        Ok::<_, fault::Errno>(identity)
    })?;
    let mut found = map.extents();
    let more = found.len() > MAX_EXTENTS;
    found.truncate(MAX_EXTENTS);
    let each = |of: fn(&Extent) -> u64| found.iter().map(of).collect();
    let values = Found::nothing()
        .text("owner", format!("{inode}.{generation}"))
        .numbers("logical", each(|extent| extent.logical))
        .numbers("physical", each(|extent| extent.physical))
        .numbers("lengths", each(|extent| extent.len))
        .numbers("flags", each(|extent| extent.flags));
    Ok(if more {
        values.flag("more", true)
    } else {
        values
    })
}

/// FICLONE.
pub fn clone(agent: &Agent, stamp: &mut Stamp<'_>, from: &str, to: &str) -> StepResult {
    let (from, to) = (agent.file(from)?, agent.file(to)?);
    stamp.around(|| extents::clone(from, to))?;
    Ok(Found::nothing())
}

/// The block device of the region that begins at `start`.
pub fn find_pmem(stamp: &mut Stamp<'_>, start: u64, limit_ms: u64) -> StepResult {
    stamp.around(|| {
        let deadline = Instant::now() + Duration::from_millis(limit_ms);
        loop {
            let devices = pmem_devices(Path::new("/sys/block"))
                .map_err(|error| fault::io("read /sys/block", &error))?;
            let found = devices.iter().find(|device| device.start == Some(start));
            if let Some(device) = found {
                return Ok(Found::nothing()
                    .text("path", format!("/dev/{}", device.name))
                    .text("bus", device.bus.as_str()));
            }
            if Instant::now() >= deadline {
                return Err(not_found(start, limit_ms, &devices));
            }
            pause_between_looks(LOOK);
        }
    })
}

fn not_found(start: u64, limit_ms: u64, devices: &[Pmem]) -> Fault {
    let seen: Vec<String> = devices
        .iter()
        .map(|device| format!("{} at {:x?}", device.name, device.start))
        .collect();
    let text = format!(
        "no persistent memory at {start:#x} within {limit_ms} ms; seen: [{}]",
        seen.join(", ")
    );
    sentence("find-pmem", text)
}

struct Pmem {
    name: String,
    start: Option<u64>,
    bus: String,
}

fn pmem_devices(root: &Path) -> std::io::Result<Vec<Pmem>> {
    let mut devices = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("pmem") {
            continue;
        }
        // A device that goes away while it is looked at counts as one without a start.
        let namespace = fs::canonicalize(entry.path().join("device")).unwrap_or_default();
        let resource = fs::read_to_string(namespace.join("resource")).unwrap_or_default();
        let parts = namespace.iter().map(|part| part.to_string_lossy());
        devices.push(Pmem {
            name,
            start: hexadecimal(resource.trim()),
            bus: parts
                .rev()
                .find(|part| part.starts_with("virtio"))
                .map_or_else(String::new, |part| part.into_owned()),
        });
    }
    Ok(devices)
}

fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use pincushion_abi::Value;
    use serde_json::json;

    use super::*;
    use crate::steps::testing::Bench;

    #[test]
    fn a_region_is_known_by_where_it_begins() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("virtio7/ndbus0/region0/namespace0.0");
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("resource"), "0x100000000\n").unwrap();
        let block = dir.path().join("block/pmem0");
        fs::create_dir_all(&block).unwrap();
        std::os::unix::fs::symlink(&device, block.join("device")).unwrap();
        fs::create_dir_all(dir.path().join("block/vda")).unwrap();
        let devices = pmem_devices(&dir.path().join("block")).unwrap();
        let [pmem] = &devices[..] else {
            panic!("one device")
        };
        assert_eq!((pmem.start, pmem.bus.as_str()), (Some(1 << 32), "virtio7"));
    }

    #[test]
    fn a_files_blocks_are_told_with_an_owner_that_stays_where_the_host_can_tell() {
        let bench = Bench::new();
        bench.create("a");
        bench.ok(json!({"op": "write-pattern", "file": "a", "offset": 0, "len": 8192, "pattern": {"byte": 1}}));
        bench.ok(json!({"op": "fsync", "file": "a"}));
        match bench.run(json!({"op": "fiemap", "file": "a"})) {
            Err(fault) => println!("skipped: {} {}", fault.call, fault.name),
            Ok(found) => {
                let Value::Numbers(lengths) = &found["lengths"] else {
                    panic!("numbers")
                };
                assert!(lengths.iter().sum::<u64>() >= 8192, "{lengths:?}");
                let again = bench.ok(json!({"op": "fiemap", "file": "a"}));
                assert_eq!(again["owner"], found["owner"]);
            }
        }
    }
}
