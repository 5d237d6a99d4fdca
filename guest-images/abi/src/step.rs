//! What the agent can be asked to do.
//!
//! Steps are data: a scenario file spells them in TOML with the same names. Files, mappings, threads
//! and processes are called by the names that the step gave them.
//!
//! # What comes back
//!
//! Each step of [`Step`] says the *values* of its [`crate::Outcome::Ok`]; where none are named the outcome is empty. Hashes are xxh3 (64 bits)
//! as 16 hex digits. Positions count from the transfer's first byte. A transfer shorter than asked is a [`crate::Fault`] with `errno` 0, which
//! says how much came. Unknown names are faults with `errno` 0 as well.
//!
//! # Marks
//!
//! Each step has exactly one begin and one end mark, also one that failed. What can be prepared is prepared before the begin mark and what can
//! be judged later is judged after the end mark, so that between them lie the system calls of the step and little else. Where a step needs a
//! look-up that fails, both marks come just before the report.
//!
//! # Families
//!
//! Calls that belong together are one step with a `do`: `{ op = "swap", do = "on", path = "/mnt/swap" }`. Each family is a type of its own.
//!
//! # Threads
//!
//! A step without `thread` runs in the thread `main`, which is not the one that listens: the agent
//! answers for other threads while `main` is blocked.

mod crowd;
mod file_system;
mod fixed;
mod kinds;
mod load;
mod measure;
mod memory;
mod memory_block;
mod net;
mod pipe;
mod swap;
mod userfault;
mod zero_copy;

use serde::{Deserialize, Serialize};

pub use crate::pattern::{Pattern, pattern_byte};
pub use crowd::Crowd;
pub use file_system::FileSystem;
pub use fixed::UringFixed;
pub use kinds::{IoDirection, MapKind};
use kinds::{ether_type, one, ten_seconds};
pub use load::FsLoad;
pub use measure::Measure;
pub use memory::{Memory, MemoryFile, Protection};
pub use memory_block::MemoryBlock;
pub use net::{LinkSet, PacketVerify, Ping, TcpEcho};
pub use pipe::Pipe;
pub use swap::Swap;
pub use userfault::Userfault;
pub use zero_copy::ZeroCopy;

/// One message to the agent: a line of JSON on `/dev/ttyS1`, at most [`MAX_LINE`] bytes.
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

/// Longest request in bytes, without its line feed.
pub const MAX_LINE: usize = 16 * 1024;
/// Largest transfer of a step with an own buffer, in bytes.
pub const MAX_TRANSFER: u64 = 64 << 20;
/// Most pages that one report of frames tells.
pub const MAX_FRAMES: usize = 1024;
/// Ethernet type of the frames of [`Step::PacketSend`]: the first one for local experiments (IEEE 802).
pub const ETHER_TYPE: u16 = 0x88b5;
/// Most extents that one report of a file's blocks tells.
pub const MAX_EXTENTS: usize = 128;
/// Most bytes of a text value; a longer text is cut there and `truncated` is set.
pub const MAX_TEXT: usize = 16 * 1024;

/// One thing to do in the guest. Offsets and lengths are in bytes; `file` and `map` are names given
/// by `open` and `mmap`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
#[expect(missing_docs, reason = "field names are those of the system calls")]
pub enum Step {
    /// Loads a module of the image by name (`virtio_blk`) and before it those it depends on; a no-op when it is loaded.
    /// Values: `loaded` (names that were loaded now, in order). A compressed module's dependencies are not seen: ENOENT of
    /// `finit_module` then means that one of them must be loaded first.
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
    /// Waits until a path exists (a device node), by inotify and uevent, at most `limit_ms`.
    WaitPath {
        path: String,
        #[serde(default = "ten_seconds")]
        limit_ms: u64,
    },
    /// `open(2)`; flags are names without `O_`, lower case: `rdonly rdwr wronly creat trunc direct sync dsync excl append
    /// noatime directory nofollow tmpfile`. Without an access mode: `rdonly`. A new file gets mode 0644.
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
    /// `fallocate(2)`; mode names lower case without `FALLOC_FL_`: `keep_size punch_hole zero_range collapse_range
    /// insert_range unshare_range`.
    Fallocate {
        file: String,
        #[serde(default)]
        mode: Vec<String>,
        offset: u64,
        len: u64,
    },
    /// `pwrite(2)` of a pattern from an own aligned buffer, at most [`MAX_TRANSFER`]. Values: `written`, `hash`.
    WritePattern {
        file: String,
        offset: u64,
        len: u64,
        pattern: Pattern,
    },
    /// `pread(2)` into an own aligned buffer, at most [`MAX_TRANSFER`]. Values: `read`, `hash`, `first` (first byte), `uniform`
    /// (all bytes equal).
    ReadHash { file: String, offset: u64, len: u64 },
    /// `pread(2)` and compare with a pattern. Values: `read`, `hash`, `equal`; where not equal also `first_difference`
    /// (position), `expected` and `found` (bytes there), `differences` (number of bytes).
    ReadVerify {
        file: String,
        offset: u64,
        len: u64,
        pattern: Pattern,
    },
    /// `mmap(2)`, readable, and writable where the file is: `kind` is `shared`, `private` (both of a file) or `anonymous`. A mapping is 2 MiB
    /// aligned at an address that is never used again. With `populate` each page is touched: read, and written back as it was where the kind
    /// is `anonymous`, so that it is not the zero page. Values: `address`, and with `populate` `frames` as [`Step::Frames`] gives them.
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
    /// Where a mapping's pages are, from /proc/self/pagemap; at most [`MAX_FRAMES`] pages from `offset` on. Values, one number per 4 KiB page:
    /// `frames` (guest physical addresses, 0 = not present), `flags` (/proc/kpageflags raw, 0 where the kernel has none, as for DAX),
    /// `mapped` (/proc/kpagecount), `soft_dirty` and `swapped` (0 or 1).
    Frames {
        map: String,
        #[serde(default)]
        offset: u64,
        #[serde(default)]
        len: Option<u64>,
    },
    /// /proc/kpageflags of a frame by guest physical address, looked at again and again until it has the flags `with` and not those `without`,
    /// at most `limit_ms`. Values: `flags` raw, `names` (`LOCKED DIRTY WRITEBACK LRU` ...), `reached`, `mapped` (/proc/kpagecount).
    PageFlags {
        frame: u64,
        #[serde(default)]
        with: Vec<String>,
        #[serde(default)]
        without: Vec<String>,
        #[serde(default = "ten_seconds")]
        limit_ms: u64,
    },
    /// Stores a pattern into a mapping by the CPU, ascending. A page that cannot be had (beyond the file's end, an I/O error) is a
    /// fault of `store` that names the signal and the position.
    Store {
        map: String,
        #[serde(default)]
        offset: u64,
        len: u64,
        pattern: Pattern,
    },
    /// Loads from a mapping by the CPU. Values: `hash`, `first`, `uniform`. Faults as [`Step::Store`].
    Load {
        map: String,
        #[serde(default)]
        offset: u64,
        len: u64,
    },
    /// Loads and compares with a pattern. Values as [`Step::ReadVerify`] without `read`.
    Verify {
        map: String,
        #[serde(default)]
        offset: u64,
        len: u64,
        pattern: Pattern,
    },
    /// `pread(2)` of a file into a mapping: with an O_DIRECT file this is the DMA into its pages. Values: `read`.
    PreadInto {
        file: String,
        offset: u64,
        map: String,
        #[serde(default)]
        map_offset: u64,
        len: u64,
    },
    /// `pwrite(2)` of a file from a mapping. Values: `written`.
    PwriteFrom {
        file: String,
        offset: u64,
        map: String,
        #[serde(default)]
        map_offset: u64,
        len: u64,
    },
    /// `io_submit(2)` of one read or write in a context of its own; returns at once. `tag` names it until its
    /// [`Step::AioWait`] has ended.
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
    /// Waits for an `AioSubmit`'s end. Values: `result` (bytes; fewer than asked is a fault of `aio`, as is an errno).
    AioWait { tag: String },
    /// Submits one read or write by io_uring, in a ring of its own; returns at once. The kernel posts the completion when the
    /// submitting thread next runs, so submit in a thread that does not block afterwards.
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
    /// Waits for a `UringSubmit`'s end. Values as [`Step::AioWait`], faults of `io_uring`.
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
    /// `madvise(2)` of a whole mapping: the advice in lower case without `MADV_`.
    Madvise { map: String, advice: String },
    /// Forks a child that keeps the mappings and open files (not the asynchronous transfers) and serves [`Step::InChild`]. Values: `pid`.
    Fork { child: String },
    /// Runs a step in a child made by `fork`; values and faults are those of the step. The child sends the marks. It refuses
    /// steps that make or watch processes and threads, and those that end the machine.
    InChild { child: String, step: Box<Step> },
    /// Ends a child and reaps it: an idle one exits, one that is inside a step is killed by SIGKILL. Values: `status` (exit
    /// code) or `signal`.
    EndChild { child: String },
    /// `echo 3 > /proc/sys/vm/drop_caches`.
    DropCaches {},
    /// /proc/vmstat after a stat_refresh; with `until_pinned` again and again until so many pins are left (the kernel lets some go later, in a
    /// worker), with `until_grown` until that counter is above what it was at first; at most `limit_ms`. Values: `nr_foll_pin_acquired`,
    /// `nr_foll_pin_released`, `pinned` (their difference), and any other of `names`.
    Counters {
        #[serde(default)]
        names: Vec<String>,
        #[serde(default)]
        until_pinned: Option<u64>,
        #[serde(default)]
        until_grown: Option<String>,
        #[serde(default = "ten_seconds")]
        limit_ms: u64,
    },
    /// Writes a file of /proc or /sys whole, by one `write(2)`.
    WriteFile { path: String, text: String },
    /// Reads a file whole as text. Values: `text`, `truncated` (longer than [`MAX_TEXT`]), and each NAME of `numbers` from a line `NAME 5`.
    ReadFile {
        path: String,
        #[serde(default)]
        numbers: Vec<String>,
    },
    /// Polls a file of /proc or /sys until its text is this, line feeds at the end left away, at most `limit_ms`. Values: `text`.
    WaitText {
        path: String,
        text: String,
        #[serde(default = "ten_seconds")]
        limit_ms: u64,
    },
    /// Where the thread (or the forked child) of that name sleeps. Polls, at most `limit_ms`, until a line of `stack` contains
    /// `until`; without `until` it looks once. With `or_done` a thread that has done all its steps ends the wait as well. Values: `stack`
    /// (lines of /proc/self/task/TID/stack), `state` (`D`, `S`, `R` ...), `syscall` (the line of /proc/self/task/TID/syscall: number,
    /// arguments, or `running`), `blocked` (false: it is done).
    WhereBlocked {
        thread: String,
        #[serde(default)]
        until: Option<String>,
        #[serde(default)]
        or_done: bool,
        #[serde(default = "ten_seconds")]
        limit_ms: u64,
    },
    /// Runs a program of the image. Values: `status` or `signal`, `stdout`, `stderr`, `truncated`.
    Exec { argv: Vec<String> },
    /// A mixed file-system load. Values: `operations`, `bytes_checked`, `disk_full` (how often ENOSPC was met), `direct` (transfers
    /// between the device and mappings). It goes on with other files when something is wrong, and ends with the first fault: `fs-load`, or the call
    /// that failed, and how many there were.
    FsLoad(FsLoad),
    /// Unbinds and binds a virtio device's driver (device reset and re-init): `device` is the driver's bus name, e.g. `virtio1`.
    /// Values: `driver`.
    Rebind { device: String },
    /// Finds the block device whose virtio serial (GET_ID) is this. Values: `path` (`/dev/vdb`), `bus` (`virtio1`).
    FindDisk { serial: String },
    /// Finds the network interface with this address (`52:50:00:00:00:01`). Values: `interface` (`eth0`), `bus` (`virtio1`).
    FindNet { mac: String },
    /// Sets up a network interface.
    LinkSet(LinkSet),
    /// ICMP echo requests.
    Ping(Ping),
    /// Bytes over TCP, there and back.
    TcpEcho(TcpEcho),
    /// A packet socket on an interface, for whole frames of an Ethernet type (without: [`ETHER_TYPE`]).
    PacketOpen {
        interface: String,
        socket: String,
        #[serde(default = "ether_type")]
        ether_type: u16,
    },
    /// Broadcasts `count` frames of 14 bytes of header and `len` bytes of a pattern. Values: `sent`.
    PacketSend {
        socket: String,
        len: u64,
        pattern: Pattern,
        #[serde(default = "one")]
        count: u32,
    },
    /// Waits for `count` frames that came in, at most `limit_ms`. Values: `received`, `bytes`, `hash` (over all of them in order).
    PacketReceive {
        socket: String,
        count: u32,
        #[serde(default = "ten_seconds")]
        limit_ms: u64,
    },
    /// Waits for a frame and compares the bytes at its end.
    PacketVerify(PacketVerify),
    /// Closes a packet socket.
    PacketClose { socket: String },
    /// An AF_XDP socket whose umem is a whole mapping, in frames of 4096 bytes (XDP_UMEM_REG): each page is pinned, FOLL_LONGTERM.
    XdpOpen { map: String, socket: String },
    /// Binds it to a queue of an interface, in copy mode.
    XdpBind {
        socket: String,
        interface: String,
        #[serde(default)]
        queue: u32,
    },
    /// Sends `len` bytes of the umem, which lie in one frame: a whole Ethernet frame with its header.
    XdpSend {
        socket: String,
        #[serde(default)]
        offset: u64,
        len: u64,
    },
    /// Waits until `count` of the sent pieces have come back (completion ring), at most `limit_ms`. Values: `completed`, `offsets`.
    XdpWait {
        socket: String,
        count: u32,
        #[serde(default = "ten_seconds")]
        limit_ms: u64,
    },
    /// Gives the kernel frames of the umem to receive into, `count` of them from `offset` on, and lets an XDP program hand every frame of the
    /// queue that the socket is bound to over to it. Before [`Step::XdpReceive`], once.
    XdpListen {
        socket: String,
        interface: String,
        #[serde(default)]
        queue: u32,
        #[serde(default)]
        offset: u64,
        count: u32,
    },
    /// Waits for `count` frames, at most `limit_ms`. Values: `received`, `offsets` (in the umem), `lengths`.
    XdpReceive {
        socket: String,
        count: u32,
        #[serde(default = "ten_seconds")]
        limit_ms: u64,
    },
    /// Closes it, whatever is under way.
    XdpClose { socket: String },
    /// Finds the block device of the persistent memory that begins at this guest physical address; waits for it at most
    /// `limit_ms`. Values: `path` (`/dev/pmem0`), `bus` (`virtio1`).
    FindPmem {
        start: u64,
        #[serde(default = "ten_seconds")]
        limit_ms: u64,
    },
    /// Where a file's bytes are: FS_IOC_FIEMAP without FIEMAP_FLAG_SYNC, at most [`MAX_EXTENTS`] extents. Values: `owner` (inode and generation:
    /// no two files of a file system's life have both), and a number per extent of `logical`, `physical`, `lengths` (bytes; `physical` counts
    /// from the start of the block device) and `flags` (FIEMAP_EXTENT_*); `more` where there are more.
    Fiemap { file: String },
    /// `ioctl(FICLONE)`: `to` gets the blocks of `from`.
    Clone { from: String, to: String },
    /// A handled signal (SIGUSR1, without SA_RESTART) for the thread of that name, inside whatever call it sleeps in.
    Interrupt { thread: String },
    /// `sched_setscheduler(2)` of this thread to SCHED_FIFO, priority 1: woken, it runs before all ordinary threads, the kernel's too.
    RunFirst {},
    /// Registers a mapping as fixed buffers of an io_uring (FOLL_LONGTERM pins), `times` over in each of `rings` rings, until
    /// [`Step::UringRelease`] of `tag`. A failure leaves the rings that were registered before it.
    UringRegister {
        map: String,
        #[serde(default)]
        offset: u64,
        #[serde(default)]
        len: Option<u64>,
        #[serde(default = "one")]
        times: u32,
        #[serde(default = "one")]
        rings: u32,
        tag: String,
    },
    /// A transfer by the fixed buffer of a `UringRegister`, and its end.
    UringFixed(UringFixed),
    /// Ends the ring of a `UringRegister`: the pages are unpinned.
    UringRelease { tag: String },
    /// A mounted file system as a whole.
    FileSystem(FileSystem),
    /// Swap files and devices.
    Swap(Swap),
    /// Memory of the program itself.
    Memory(Memory),
    /// userfaultfd(2).
    Userfault(Userfault),
    /// Pipes, and memory in them.
    Pipe(Pipe),
    /// Many sleeping children.
    Crowd(Crowd),
    /// Blocks of memory that can be taken away.
    MemoryBlock(MemoryBlock),
    /// Sends that leave their pages where they are.
    ZeroCopy(ZeroCopy),
    /// How long something takes.
    Measure(Measure),
    /// Kernel log since the last call, since boot at the first. Values: `lines` (`[    1.234567] text`), `more` when the report was
    /// full (ask again), `lost` (records overwritten before they were read).
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
