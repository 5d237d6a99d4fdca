//! What is on a disk or region before the guest begins.

use pincushion_abi::pattern::Pattern;
use serde::{Deserialize, Serialize};

/// What a disk holds at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// An ext4 file system.
    Ext4,
    /// The same with blocks of 1 KiB, four to a page.
    #[serde(rename = "ext4-1k")]
    Ext4Small,
    /// The first with the feature `verity`, so that a file can be sealed by a tree of hashes.
    Ext4Verity,
    /// An xfs file system.
    Xfs,
    /// A btrfs file system.
    Btrfs,
    /// Zeros.
    Zero,
    /// The same pattern in every 4096 bytes.
    Pattern(Pattern),
}

impl Content {
    /// The kernel's name of the file system, if it is one.
    #[must_use]
    pub fn file_system(self) -> Option<&'static str> {
        match self {
            Self::Ext4 | Self::Ext4Small | Self::Ext4Verity => Some("ext4"),
            Self::Xfs => Some("xfs"),
            Self::Btrfs => Some("btrfs"),
            Self::Zero | Self::Pattern(_) => None,
        }
    }

    /// Block size of an ext4 file system in bytes: that of a guest page, so that a page of a file is one block, but where a scenario wants
    /// several.
    #[must_use]
    pub fn block(self) -> u64 {
        if self == Self::Ext4Small { 1024 } else { 4096 }
    }
}

/// A file on a fresh ext4 disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DiskFile {
    /// Absolute path in the file system.
    pub path: String,
    /// Length in bytes.
    pub len: u64,
    /// Its bytes.
    pub pattern: Pattern,
}
