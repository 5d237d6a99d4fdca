//! Blocks of memory that the kernel can be asked to give up (memory hot-unplug).

use serde::{Deserialize, Serialize};

/// `op = "memory-block"`, by its `do`. A block is taken away by `write-file` of `offline` to its `state`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
#[expect(missing_docs, reason = "field names are plain")]
pub enum MemoryBlock {
    /// Finds the lowest block that lies in ZONE_MOVABLE alone. Values: `number` (its files are in /sys/devices/system/memory/memoryN), `start`
    /// (guest physical address), `bytes`. ENODEV where the kernel knows no blocks, ENOENT where none is so.
    Find {},
    /// A page of anonymous memory in the block that begins at `start`, of `bytes`, as a mapping of its own: touches memory until a page lies
    /// there, at most `limit` bytes, and lets the others go. Values: `frames` (the one), `touched` (pages); ENOENT where none did.
    Page {
        start: u64,
        bytes: u64,
        limit: u64,
        map: String,
    },
}
