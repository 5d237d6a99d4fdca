//! A file system's load that checks itself.

use serde::{Deserialize, Serialize};

use super::kinds::two;

/// For some seconds of guest time each thread creates, writes, reads back and checks, maps, renames, truncates, fsyncs and unlinks files
/// of its own, by seed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FsLoad {
    /// Where the threads make their directories.
    pub dir: String,
    /// How long.
    pub seconds: u64,
    /// Which operations come.
    pub seed: u64,
    /// 1 to 16.
    #[serde(default = "two")]
    pub threads: u32,
    /// A block device, or a file, whose content nobody else changes: with it parts of it are read by O_DIRECT into shared mappings of the
    /// files, or written out of them, which pins their pages, while the same file is synced, stored to, and moved in another mapping beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Clone files (FICLONE) while the device transfers: a clone must not change any more. The file system must have clones; EBUSY is counted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clones: bool,
}
