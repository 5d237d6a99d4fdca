//! Swap files and devices.

use serde::{Deserialize, Serialize};

/// `op = "swap"`, by its `do`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
#[expect(missing_docs, reason = "field names are those of the system calls")]
pub enum Swap {
    /// Writes the header that `mkswap` writes into the first page of an open file or device, of `len` bytes in all, by one `pwrite(2)`.
    Format { file: String, len: u64 },
    /// `swapon(2)`.
    On { path: String },
    /// `swapoff(2)`.
    Off { path: String },
}
