//! A virtio-blk device, as `--blk` and `[[blk]]` spell it.

use std::path::PathBuf;

use pincushion_devices::trace::event::Fetch;
use serde::{Deserialize, Serialize};

/// One disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BlkConfig {
    /// The image: a raw file whose size is a multiple of 512 bytes, or a block device. Locked while the machine runs.
    pub path: PathBuf,
    /// Name in plans, events and messages; also the serial that the guest reads. At most 20 bytes. Default: `blk0`, `blk1`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Refuse writes (VIRTIO_BLK_F_RO).
    #[serde(default, alias = "ro")]
    pub read_only: bool,
    /// Bypass the host's page cache (O_DIRECT).
    #[serde(default)]
    pub direct: bool,
    /// How the file is read and written.
    #[serde(default)]
    pub backend: DiskBackend,
    /// When a write's payload is read from guest memory.
    #[serde(default)]
    pub fetch: Fetch,
}

/// How a disk image is read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskBackend {
    /// Positioned reads and writes, done when they return.
    #[default]
    File,
    /// io_uring, one submission per batch.
    Uring,
    /// The image is read into memory, and changes are lost when the machine ends.
    Memory,
}
