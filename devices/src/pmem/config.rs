//! What a pmem device is configured to be, its features, and its configuration space (virtio 1.2, 5.19.4).

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::trace::event::GuestRange;

/// Length of configuration space: `start` and `size`.
pub(super) const CONFIG_LEN: usize = 16;

/// A pmem device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PmemConfig {
    /// Name on the command line and in every event.
    pub name: String,
    /// Where the region is in guest memory.
    pub region: GuestRange,
    /// Greatest size of the queue: a power of two up to 32768.
    pub queue_size: u16,
}

impl PmemConfig {
    /// A device with 64 descriptors: a flush takes two, and a guest has few at once.
    #[must_use]
    pub fn new(name: &str, region: GuestRange) -> Self {
        Self {
            name: name.to_owned(),
            region,
            queue_size: 64,
        }
    }

    /// Features on offer. VIRTIO_PMEM_F_SHMEM_REGION is not: the region is told by configuration space.
    #[must_use]
    pub(super) fn features() -> u64 {
        [
            VIRTIO_F_VERSION_1,
            VIRTIO_RING_F_EVENT_IDX,
            VIRTIO_RING_F_INDIRECT_DESC,
        ]
        .iter()
        .fold(0, |bits, bit| bits | 1 << bit)
    }

    /// Configuration space.
    #[must_use]
    pub(super) fn space(&self) -> [u8; CONFIG_LEN] {
        let mut space = [0; CONFIG_LEN];
        space[..8].copy_from_slice(&self.region.addr.to_le_bytes());
        space[8..].copy_from_slice(&self.region.len.to_le_bytes());
        space
    }
}
