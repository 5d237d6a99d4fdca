//! Files, directories and mounts.

use std::os::fd::RawFd;

use pincushion_abi::Fault;

use crate::agent::Agent;
use crate::fault::{self, Errno, sentence};
use crate::found::{Found, StepResult};
use crate::stamp::Stamp;
use crate::sys::{c_string, file, fs};

/// `open(2)`.
pub fn open(
    agent: &Agent,
    stamp: &mut Stamp<'_>,
    path: &str,
    names: &[String],
    name: &str,
) -> StepResult {
    let flags = flag_bits("open flag", names, &OPEN_FLAGS)?;
    let path = c_string(path)?;
    agent.names().files.refuse_used("file", name)?;
    let fd = stamp.around(|| file::open(&path, flags))?;
    if let Some(other) = agent.names().files.put(name, fd) {
        // Two threads opened under one name at once: the later one stays.
        file::close(other)?;
    }
    Ok(Found::nothing())
}

/// `close(2)`.
pub fn close(agent: &Agent, stamp: &mut Stamp<'_>, name: &str) -> StepResult {
    let fd = agent.names().files.take("file", name)?;
    stamp.around(|| file::close(fd))?;
    Ok(Found::nothing())
}

/// `unlink(2)`.
pub fn unlink(stamp: &mut Stamp<'_>, path: &str) -> StepResult {
    let path = c_string(path)?;
    stamp.around(|| fs::unlink(&path))?;
    Ok(Found::nothing())
}

/// `rename(2)`.
pub fn rename(stamp: &mut Stamp<'_>, from: &str, to: &str) -> StepResult {
    let (from, to) = (c_string(from)?, c_string(to)?);
    stamp.around(|| fs::rename(&from, &to))?;
    Ok(Found::nothing())
}

/// `mkdir -p`.
pub fn mkdir(stamp: &mut Stamp<'_>, path: &str) -> StepResult {
    let made = stamp.around(|| std::fs::create_dir_all(path));
    made.map_err(|error| fault::io("mkdir", &error))?;
    Ok(Found::nothing())
}

/// `ftruncate(2)`.
pub fn truncate(agent: &Agent, stamp: &mut Stamp<'_>, name: &str, len: u64) -> StepResult {
    let len = file_offset(len)?;
    on_file(agent, stamp, name, |fd| file::truncate(fd, len))
}

/// `fallocate(2)`.
pub fn fallocate(
    agent: &Agent,
    stamp: &mut Stamp<'_>,
    name: &str,
    mode: &[String],
    offset: u64,
    len: u64,
) -> StepResult {
    let mode = flag_bits("fallocate mode", mode, &FALLOCATE_MODES)?;
    let (offset, len) = (file_offset(offset)?, file_offset(len)?);
    on_file(agent, stamp, name, |fd| {
        file::fallocate(fd, mode, offset, len)
    })
}

/// `fsync(2)`.
pub fn fsync(agent: &Agent, stamp: &mut Stamp<'_>, name: &str) -> StepResult {
    on_file(agent, stamp, name, file::fsync)
}

/// `fdatasync(2)`.
pub fn fdatasync(agent: &Agent, stamp: &mut Stamp<'_>, name: &str) -> StepResult {
    on_file(agent, stamp, name, file::fdatasync)
}

/// `syncfs(2)`.
pub fn syncfs(agent: &Agent, stamp: &mut Stamp<'_>, name: &str) -> StepResult {
    on_file(agent, stamp, name, file::syncfs)
}

/// `sync_file_range(2)`.
pub fn sync_file_range(
    agent: &Agent,
    stamp: &mut Stamp<'_>,
    name: &str,
    offset: u64,
    len: u64,
    flags: &[String],
) -> StepResult {
    let flags = flag_bits("sync_file_range flag", flags, &SYNC_RANGE_FLAGS)?.cast_unsigned();
    let (offset, len) = (file_offset(offset)?, file_offset(len)?);
    on_file(agent, stamp, name, |fd| {
        file::sync_file_range(fd, offset, len, flags)
    })
}

/// `sync(2)`.
#[expect(clippy::unnecessary_wraps, reason = "as every step")]
pub fn sync(stamp: &mut Stamp<'_>) -> StepResult {
    stamp.around(file::sync);
    Ok(Found::nothing())
}

/// `mount(2)`.
pub fn mount(
    stamp: &mut Stamp<'_>,
    source: &str,
    target: &str,
    fstype: &str,
    options: &str,
) -> StepResult {
    std::fs::create_dir_all(target).map_err(|error| fault::io("mkdir", &error))?;
    mount_with(stamp, 0, source, target, fstype, options)
}

/// `mount(2)` with MS_REMOUNT.
pub fn remount(stamp: &mut Stamp<'_>, target: &str, options: &str) -> StepResult {
    mount_with(stamp, libc::MS_REMOUNT, "", target, "", options)
}

fn mount_with(
    stamp: &mut Stamp<'_>,
    more: u64,
    source: &str,
    target: &str,
    fstype: &str,
    options: &str,
) -> StepResult {
    let (flags, data) = mount_options(options);
    let (source, target, fstype) = (c_string(source)?, c_string(target)?, c_string(fstype)?);
    let data = c_string(&data)?;
    stamp.around(|| fs::mount(&source, &target, &fstype, flags | more, &data))?;
    Ok(Found::nothing())
}

/// `umount(2)`.
pub fn umount(stamp: &mut Stamp<'_>, target: &str) -> StepResult {
    let target = c_string(target)?;
    stamp.around(|| fs::umount(&target))?;
    Ok(Found::nothing())
}

fn on_file(
    agent: &Agent,
    stamp: &mut Stamp<'_>,
    name: &str,
    call: impl FnOnce(RawFd) -> Result<(), Errno>,
) -> StepResult {
    let fd = agent.file(name)?;
    stamp.around(|| call(fd))?;
    Ok(Found::nothing())
}

/// An offset or length as the kernel takes it.
pub fn file_offset(value: u64) -> Result<i64, Fault> {
    i64::try_from(value).map_err(|_| {
        sentence(
            "offset",
            format!("{value} is beyond the largest file offset, 2^63 - 1"),
        )
    })
}

const OPEN_FLAGS: [(&str, i32); 13] = [
    ("rdonly", libc::O_RDONLY),
    ("rdwr", libc::O_RDWR),
    ("wronly", libc::O_WRONLY),
    ("creat", libc::O_CREAT),
    ("trunc", libc::O_TRUNC),
    ("direct", libc::O_DIRECT),
    ("sync", libc::O_SYNC),
    ("dsync", libc::O_DSYNC),
    ("excl", libc::O_EXCL),
    ("append", libc::O_APPEND),
    ("noatime", libc::O_NOATIME),
    ("directory", libc::O_DIRECTORY),
    ("nofollow", libc::O_NOFOLLOW),
];

const FALLOCATE_MODES: [(&str, i32); 6] = [
    ("keep_size", libc::FALLOC_FL_KEEP_SIZE),
    ("punch_hole", libc::FALLOC_FL_PUNCH_HOLE),
    ("zero_range", libc::FALLOC_FL_ZERO_RANGE),
    ("collapse_range", libc::FALLOC_FL_COLLAPSE_RANGE),
    ("insert_range", libc::FALLOC_FL_INSERT_RANGE),
    ("unshare_range", libc::FALLOC_FL_UNSHARE_RANGE),
];

const SYNC_RANGE_FLAGS: [(&str, i32); 3] = [
    (
        "wait_before",
        libc::SYNC_FILE_RANGE_WAIT_BEFORE.cast_signed(),
    ),
    ("write", libc::SYNC_FILE_RANGE_WRITE.cast_signed()),
    ("wait_after", libc::SYNC_FILE_RANGE_WAIT_AFTER.cast_signed()),
];

/// Flags of fstab's fourth field that are bits of `mount(2)`; what is not here is data for the file
/// system.
const MOUNT_FLAGS: [(&str, u64); 14] = [
    ("defaults", 0),
    ("rw", 0),
    ("ro", libc::MS_RDONLY),
    ("nosuid", libc::MS_NOSUID),
    ("nodev", libc::MS_NODEV),
    ("noexec", libc::MS_NOEXEC),
    ("sync", libc::MS_SYNCHRONOUS),
    ("dirsync", libc::MS_DIRSYNC),
    ("noatime", libc::MS_NOATIME),
    ("nodiratime", libc::MS_NODIRATIME),
    ("relatime", libc::MS_RELATIME),
    ("strictatime", libc::MS_STRICTATIME),
    ("lazytime", 1 << 25),
    ("bind", libc::MS_BIND),
];

/// The bits of named flags.
pub fn flag_bits(kind: &str, names: &[String], table: &[(&str, i32)]) -> Result<i32, Fault> {
    names.iter().try_fold(0, |bits, name| {
        match table.iter().find(|(known, _)| known == name) {
            Some((_, bit)) => Ok(bits | bit),
            None => {
                let known: Vec<&str> = table.iter().map(|(known, _)| *known).collect();
                Err(sentence(
                    kind,
                    format!("there is no {kind} {name:?}; known: {}", known.join(" ")),
                ))
            }
        }
    })
}

fn mount_options(options: &str) -> (u64, String) {
    let mut flags = 0;
    let mut data = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match MOUNT_FLAGS.iter().find(|(name, _)| *name == option) {
            Some((_, bit)) => flags |= bit,
            None => data.push(option),
        }
    }
    (flags, data.join(","))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::steps::testing::Bench;

    #[test]
    fn mount_options_are_split_into_flags_and_data() {
        let (flags, data) = mount_options("ro,noatime,dax=always,,data=journal");
        assert_eq!(flags, libc::MS_RDONLY | libc::MS_NOATIME);
        assert_eq!(data, "dax=always,data=journal");
        assert_eq!(mount_options(""), (0, String::new()));
    }

    #[test]
    fn a_file_is_made_renamed_synced_and_unlinked() {
        let bench = Bench::new();
        bench.create("a");
        for op in ["fsync", "fdatasync", "syncfs"] {
            bench.ok(json!({"op": op, "file": "a"}));
        }
        bench.ok(json!({"op": "truncate", "file": "a", "len": 8192}));
        let hole = json!(["punch_hole", "keep_size"]);
        bench
            .run(json!({"op": "fallocate", "file": "a", "mode": hole, "offset": 0, "len": 4096}))
            .ok();
        bench.ok(json!({"op": "sync-file-range", "file": "a", "offset": 0, "len": 0, "flags": ["write", "wait_after"]}));
        bench.ok(json!({"op": "rename", "from": bench.path("a"), "to": bench.path("b")}));
        assert!(bench.has("b") && !bench.has("a"));
        bench.ok(json!({"op": "close", "file": "a"}));
        bench.ok(json!({"op": "unlink", "path": bench.path("b")}));
        assert!(!bench.has("b"));
    }

    #[test]
    fn a_missing_path_is_told_with_call_and_errno() {
        let bench = Bench::new();
        let fault = bench.fails(
            json!({"op": "open", "path": bench.path("none"), "flags": ["rdonly"], "file": "f"}),
        );
        assert_eq!(
            (fault.call.as_str(), fault.errno, fault.name.as_str()),
            ("open", 2, "ENOENT")
        );
    }

    #[test]
    fn an_unknown_flag_is_refused_with_the_known_ones() {
        let bench = Bench::new();
        let fault =
            bench.fails(json!({"op": "open", "path": "/", "flags": ["O_RDONLY"], "file": "f"}));
        assert!(
            fault.name.contains("\"O_RDONLY\"; known: rdonly"),
            "{}",
            fault.name
        );
    }

    #[test]
    fn a_name_in_use_is_refused_and_free_again_after_close() {
        let bench = Bench::new();
        bench.create("a");
        let again = json!({"op": "open", "path": bench.path("a"), "flags": [], "file": "a"});
        assert!(bench.fails(again.clone()).name.contains("in use"));
        bench.ok(json!({"op": "close", "file": "a"}));
        bench.ok(again);
        assert!(
            bench
                .fails(json!({"op": "close", "file": "b"}))
                .name
                .contains("known: a")
        );
    }

    #[test]
    fn a_length_beyond_every_file_is_refused() {
        let bench = Bench::new();
        bench.create("a");
        let fault = bench.fails(json!({"op": "truncate", "file": "a", "len": u64::MAX}));
        assert!(fault.name.contains("2^63"), "{}", fault.name);
    }

    #[test]
    fn a_path_with_a_zero_byte_is_refused() {
        let bench = Bench::new();
        assert!(
            bench
                .fails(json!({"op": "unlink", "path": "a\0b"}))
                .name
                .contains("zero byte")
        );
    }
}
