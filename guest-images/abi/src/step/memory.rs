//! What a program may do with its own memory, beside the plain calls on whole mappings.

use serde::{Deserialize, Serialize};

use super::Pattern;

/// `op = "memory"`, by its `do`. Without `len`: to the mapping's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
#[expect(missing_docs, reason = "field names are those of the system calls")]
pub enum Memory {
    /// `mremap(2)` of a whole mapping to an address that was never used before; it is then called `to`, and `map` is gone.
    Remap { map: String, to: String },
    /// `mprotect(2)`.
    Protect {
        map: String,
        #[serde(default)]
        offset: u64,
        #[serde(default)]
        len: Option<u64>,
        protection: Protection,
    },
    /// `madvise(2)` of a part: the advice as [`super::Step::Madvise`] spells it.
    Advise {
        map: String,
        #[serde(default)]
        offset: u64,
        len: u64,
        advice: String,
    },
    /// `munmap(2)` of a part; the mapping keeps its name.
    Unmap { map: String, offset: u64, len: u64 },
    /// `pwrite(2)` of a pattern to /proc/self/mem: the kernel stores into the page as another process would.
    WriteProcess {
        map: String,
        #[serde(default)]
        offset: u64,
        len: u64,
        pattern: Pattern,
    },
    /// `process_vm_writev(2)` to the agent itself: the kernel pins the pages of `map`, copies the bytes of `from` into them, and then dirties
    /// and unpins them. It sleeps in between where a page of `from` is missing ([`super::Userfault`]). Values: `written`.
    CopyProcess {
        map: String,
        #[serde(default)]
        offset: u64,
        from: String,
        #[serde(default)]
        from_offset: u64,
        len: u64,
    },
    /// A mapping of `count` times the same page of a file, shared; each is touched.
    RepeatPage {
        file: String,
        #[serde(default)]
        offset: u64,
        count: u32,
        map: String,
    },
    /// `move_pages(2)` of the pages of a part to a node. Values: `status` (the node where each page is, or an errno with
    /// 2^32 added to its negative).
    MovePages {
        map: String,
        #[serde(default)]
        offset: u64,
        #[serde(default)]
        len: Option<u64>,
        node: u32,
    },
    /// A file in memory of this length: `memfd_create(2)`, with huge pages of 2 MiB where `huge` says so, or `memfd_secret(2)`.
    File {
        file: String,
        len: u64,
        #[serde(default)]
        kind: MemoryFile,
    },
    /// `fcntl(F_ADD_SEALS)`: `seal shrink grow write future_write`.
    Seal { file: String, seals: Vec<String> },
    /// `ioctl(UDMABUF_CREATE)` of a part of a sealed memfd: its pages are pinned for as long as the new file `buffer` (a dma-buf) is open or
    /// mapped.
    Udmabuf {
        file: String,
        #[serde(default)]
        offset: u64,
        len: u64,
        buffer: String,
    },
}

/// Protection of a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protection {
    /// PROT_NONE.
    None,
    /// PROT_READ.
    Read,
    /// PROT_READ | PROT_WRITE.
    ReadWrite,
}

/// Kind of a file in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemoryFile {
    /// `memfd_create(2)`, that can be sealed.
    #[default]
    Memfd,
    /// The same with huge pages.
    Huge,
    /// `memfd_secret(2)`: pages that the kernel itself cannot see.
    Secret,
}
