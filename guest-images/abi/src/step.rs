//! What the agent can be asked to do.
//!
//! Steps are data: a scenario file spells them in TOML with the same names. Files, mappings, threads
//! and processes are called by the names that the step gave them.

use serde::{Deserialize, Serialize};

/// One message to the agent: a line of JSON on `/dev/ttyS1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the host, comes back in the report and in the marks. Below 2^31.
    pub id: u32,
    /// Runs the step in the thread of this name (made at its first use, steps of one thread run in
    /// order); absent: in the agent's main thread. The answer comes when the step has ended, so
    /// several threads may be inside a step at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<String>,
    /// What to do.
    pub step: Step,
}

/// One thing to do in the guest. Offsets and lengths are in bytes; `file` and `map` are names given
/// by `open` and `mmap`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
#[expect(missing_docs, reason = "field names are those of the system calls")]
pub enum Step {
    /// Loads a module of the image by name (`virtio_blk`); a no-op when it is loaded.
    LoadModule { name: String },
    /// `mount(2)`; makes the target. `options` as in fstab: flags (`ro`, `noatime`) and data.
    Mount {
        source: String,
        target: String,
        fstype: String,
        #[serde(default)]
        options: String,
    },
    /// `mount(2)` with MS_REMOUNT.
    Remount {
        target: String,
        #[serde(default)]
        options: String,
    },
    /// `umount(2)`.
    Umount { target: String },
    /// `mkdir -p`.
    Mkdir { path: String },
    /// Waits until a path exists (a device node), by inotify or uevent, at most `limit_ms`.
    WaitPath {
        path: String,
        #[serde(default = "ten_seconds")]
        limit_ms: u64,
    },
    /// `open(2)`; flags are names without `O_`, lower case: `rdonly rdwr wronly creat trunc direct sync dsync excl`.
    Open {
        path: String,
        flags: Vec<String>,
        file: String,
    },
    /// `close(2)`.
    Close { file: String },
    /// `unlink(2)`.
    Unlink { path: String },
    /// `rename(2)`.
    Rename { from: String, to: String },
    /// `ftruncate(2)`.
    Truncate { file: String, len: u64 },
    /// `fallocate(2)`; mode names lower case without `FALLOC_FL_`: `keep_size punch_hole zero_range`.
    Fallocate {
        file: String,
        #[serde(default)]
        mode: Vec<String>,
        offset: u64,
        len: u64,
    },
    /// `pwrite(2)` of a pattern from an own aligned buffer.
    WritePattern {
        file: String,
        offset: u64,
        len: u64,
        pattern: Pattern,
    },
    /// `pread(2)` into an own aligned buffer; `hash` (xxh3 as 16 hex digits), `first` (first byte), `uniform` (all bytes equal).
    ReadHash { file: String, offset: u64, len: u64 },
    /// `pread(2)` and compare with a pattern: `equal`, `first_difference`.
    ReadVerify {
        file: String,
        offset: u64,
        len: u64,
        pattern: Pattern,
    },
    /// `mmap(2)`: `kind` is `shared`, `private` (both of a file) or `anonymous`. Touches every page and reports `frames`
    /// (guest physical addresses, one per 4 KiB page, from /proc/self/pagemap) when `populate` is set.
    Mmap {
        #[serde(default)]
        file: Option<String>,
        kind: MapKind,
        #[serde(default)]
        offset: u64,
        len: u64,
        map: String,
        #[serde(default)]
        populate: bool,
    },
    /// `munmap(2)` of a whole mapping.
    Munmap { map: String },
    /// Guest physical addresses of a mapping's pages (`frames`, 0 = not present) and their /proc/kpageflags (`flags`, raw).
    Frames {
        map: String,
        #[serde(default)]
        offset: u64,
        #[serde(default)]
        len: Option<u64>,
    },
    /// /proc/kpageflags of a frame by address: `flags` raw, `names` (LOCKED DIRTY WRITEBACK LRU ...).
    PageFlags { frame: u64 },
    /// Stores a pattern into a mapping by the CPU.
    Store {
        map: String,
        #[serde(default)]
        offset: u64,
        len: u64,
        pattern: Pattern,
    },
    /// Loads from a mapping by the CPU: `hash`, `first`, `uniform`.
    Load {
        map: String,
        #[serde(default)]
        offset: u64,
        len: u64,
    },
    /// Loads and compares with a pattern: `equal`, `first_difference`.
    Verify {
        map: String,
        #[serde(default)]
        offset: u64,
        len: u64,
        pattern: Pattern,
    },
    /// `pread(2)` of a file into a mapping: with an O_DIRECT file this is the DMA into its pages.
    PreadInto {
        file: String,
        offset: u64,
        map: String,
        #[serde(default)]
        map_offset: u64,
        len: u64,
    },
    /// `pwrite(2)` of a file from a mapping.
    PwriteFrom {
        file: String,
        offset: u64,
        map: String,
        #[serde(default)]
        map_offset: u64,
        len: u64,
    },
    /// `io_submit(2)` of one read or write; returns at once.
    AioSubmit {
        direction: IoDirection,
        file: String,
        offset: u64,
        map: String,
        #[serde(default)]
        map_offset: u64,
        len: u64,
        tag: String,
    },
    /// Waits for an `AioSubmit`'s end: `result` (bytes, or the errno as a fault).
    AioWait { tag: String },
    /// Submits one read or write by io_uring; returns at once.
    UringSubmit {
        direction: IoDirection,
        file: String,
        offset: u64,
        map: String,
        #[serde(default)]
        map_offset: u64,
        len: u64,
        tag: String,
    },
    /// Waits for a `UringSubmit`'s end.
    UringWait { tag: String },
    /// `fsync(2)`.
    Fsync { file: String },
    /// `fdatasync(2)`.
    Fdatasync { file: String },
    /// `msync(2)`: flags `sync`, `async`, `invalidate`.
    Msync {
        map: String,
        #[serde(default)]
        offset: u64,
        #[serde(default)]
        len: Option<u64>,
        flags: Vec<String>,
    },
    /// `sync_file_range(2)`: flags `wait_before`, `write`, `wait_after`.
    SyncFileRange {
        file: String,
        offset: u64,
        len: u64,
        flags: Vec<String>,
    },
    /// `syncfs(2)`.
    Syncfs { file: String },
    /// `sync(2)`.
    Sync {},
    /// `madvise(2)`: the advice in lower case without `MADV_`.
    Madvise { map: String, advice: String },
    /// Forks a child that keeps the mappings and serves [`Step::InChild`].
    Fork { child: String },
    /// Runs a step in a child made by `fork`.
    InChild { child: String, step: Box<Step> },
    /// Ends a child and reaps it: `status`.
    EndChild { child: String },
    /// `echo 3 > /proc/sys/vm/drop_caches`.
    DropCaches {},
    /// /proc/vmstat after a stat_refresh: `nr_foll_pin_acquired`, `nr_foll_pin_released`, and any other `names`.
    Counters {
        #[serde(default)]
        names: Vec<String>,
    },
    /// Writes a file of /proc or /sys whole.
    WriteFile { path: String, text: String },
    /// Reads a file whole as text: `text`.
    ReadFile { path: String },
    /// Where the thread of that name sleeps: `stack` (/proc/self/task/TID/stack), `state`, `syscall`. Polls (with a limit) until a
    /// line contains `until` when that is given.
    WhereBlocked {
        thread: String,
        #[serde(default)]
        until: Option<String>,
        #[serde(default = "ten_seconds")]
        limit_ms: u64,
    },
    /// Runs a program of the image: `status`, `stdout`, `stderr`.
    Exec { argv: Vec<String> },
    /// A mixed file-system load in a directory for some seconds: creates, writes, reads back and checks, mmaps, renames, truncates,
    /// fsyncs, unlinks, by seed. `operations`, and a fault at the first wrong byte.
    FsLoad {
        dir: String,
        seconds: u64,
        seed: u64,
        #[serde(default = "two")]
        threads: u32,
    },
    /// Unbinds and binds a virtio device's driver (device reset and re-init): `device` is the driver's bus name, e.g. `virtio1`.
    Rebind { device: String },
    /// Finds the block device whose virtio serial (GET_ID) is this: `path` (`/dev/vdb`), `bus` (`virtio1`).
    FindDisk { serial: String },
    /// Kernel log: `lines` since the last call.
    Dmesg {},
    /// `reboot(2)` with RB_AUTOBOOT, without sync.
    Reboot {},
    /// `sync` and `reboot(2)` with RB_POWER_OFF.
    PowerOff {},
    /// Crashes the kernel by `echo c > /proc/sysrq-trigger`.
    Panic {},
    /// Stops answering for ever without a crash (spins with the agent's lock held).
    Hang {},
    /// Does nothing: a mark in the log.
    Mark { name: String },
}

/// A pattern of bytes that both ends can make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Pattern {
    /// The same byte everywhere.
    Byte(u8),
    /// Bytes that depend on the seed and the position: see [`pattern_byte`].
    Seed(u64),
}

/// The byte of `Pattern::Seed(seed)` at `position` of the transfer (not of the file).
#[must_use]
pub fn pattern_byte(seed: u64, position: u64) -> u8 {
    let word = (position / 8)
        .wrapping_add(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (word ^ (word >> 29)).to_le_bytes()[(position % 8) as usize]
}

/// Kind of mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MapKind {
    /// MAP_SHARED of a file.
    Shared,
    /// MAP_PRIVATE of a file.
    Private,
    /// MAP_PRIVATE | MAP_ANONYMOUS.
    Anonymous,
}

/// Direction of an asynchronous transfer, seen from the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IoDirection {
    /// Disk to memory: the device writes the pages.
    Read,
    /// Memory to disk: the device reads the pages.
    Write,
}

fn ten_seconds() -> u64 {
    10_000
}

fn two() -> u32 {
    2
}
