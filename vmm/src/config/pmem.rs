//! A virtio-pmem device, as `--pmem` and `[[pmem]]` spell it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::units;

/// One region of persistent memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PmemConfig {
    /// The file: its blocks are allocated at once, and it is locked while the machine runs.
    pub path: PathBuf,
    /// Length of the region in bytes, a multiple of 2 MiB. Default: the file's length.
    #[serde(
        default,
        with = "units::optional_size",
        skip_serializing_if = "Option::is_none"
    )]
    pub size: Option<u64>,
    /// Name in plans, events and messages. At most 20 bytes. Default: `pmem0`, `pmem1`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}
