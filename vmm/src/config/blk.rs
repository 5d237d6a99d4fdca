//! A virtio-blk device, as `--blk` and `[[blk]]` spell it.

use std::path::PathBuf;

use pincushion_devices::backend::Engine;
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
    #[serde(default, alias = "ro", alias = "readonly")]
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
    /// Number of queues, 1 to 64 (VIRTIO_BLK_F_MQ). The guest uses at most one for each vCPU.
    #[serde(default = "one_queue")]
    pub queues: u16,
}

/// Most queues of a disk.
const MAX_QUEUES: u16 = 64;

fn one_queue() -> u16 {
    1
}

impl BlkConfig {
    /// Whether the values go together.
    ///
    /// # Errors
    /// What does not, in words.
    pub fn check(&self) -> Result<(), String> {
        if self.queues == 0 || self.queues > MAX_QUEUES {
            return Err(format!(
                "queues={}: a disk has 1 to {MAX_QUEUES}",
                self.queues
            ));
        }
        if self.queues > 1 && self.backend == DiskBackend::Memory {
            return Err("backend=memory has one queue: use backend=file or uring".into());
        }
        Ok(())
    }
}

/// How a disk's bytes are read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Spelled", into = "Spelled")]
pub enum DiskBackend {
    /// From and to the image.
    Image(Engine),
    /// The image is read into memory, and changes are lost when the machine ends.
    Memory,
}

impl Default for DiskBackend {
    fn default() -> Self {
        Self::Image(Engine::default())
    }
}

/// The words of a configuration.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Spelled {
    Auto,
    File,
    Uring,
    Memory,
}

impl From<Spelled> for DiskBackend {
    fn from(spelled: Spelled) -> Self {
        match spelled {
            Spelled::Auto => Self::Image(Engine::Auto),
            Spelled::File => Self::Image(Engine::File),
            Spelled::Uring => Self::Image(Engine::Uring),
            Spelled::Memory => Self::Memory,
        }
    }
}

impl From<DiskBackend> for Spelled {
    fn from(backend: DiskBackend) -> Self {
        match backend {
            DiskBackend::Image(Engine::Auto) => Self::Auto,
            DiskBackend::Image(Engine::File) => Self::File,
            DiskBackend::Image(Engine::Uring) => Self::Uring,
            DiskBackend::Memory => Self::Memory,
        }
    }
}
