//! What a block device is configured to be, its features, and its configuration space (virtio 1.2, 5.2.4).

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH,
    VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_SIZE_MAX,
    VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::backend::Geometry;
use crate::trace::event::Fetch;

/// Size of a sector in bytes, whatever the block size is.
pub const SECTOR: u64 = 512;
/// Length of configuration space up to `write_zeroes_may_unmap` and its padding.
pub(super) const CONFIG_LEN: usize = 60;
/// Offset of `writeback`, the only byte that a driver may write.
pub(super) const WRITEBACK: u64 = 32;
/// Length of a serial in bytes.
pub const SERIAL_LEN: usize = 20;

/// A block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlkConfig {
    /// Name on the command line and in every event.
    pub name: String,
    /// What GET_ID answers, at most 20 bytes; `None`: the name.
    pub serial: Option<String>,
    /// Refuse writes even if the disk could take them.
    pub read_only: bool,
    /// When a write's payload is read from guest memory, where no rule says otherwise.
    pub fetch: Fetch,
    /// Greatest size of the queue: a power of two up to 32768.
    pub queue_size: u16,
    /// Number of queues, at least 1; more than one need a disk that several can work on ([`crate::backend::Disk::another`]).
    pub queues: u16,
    /// Hash the payloads of writes.
    pub hash: bool,
    /// Hold frames in the ledger; off only to measure what that costs.
    pub ledger: bool,
    /// What a request may be.
    pub limits: Limits,
}

/// Limits of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most payload descriptors (`seg_max`); also bounded by the queue's size less 2.
    pub seg_max: u32,
    /// Most bytes of one payload descriptor (`size_max`).
    pub size_max: u32,
    /// Most sectors of one discard or write-zeroes segment.
    pub discard_sectors: u32,
    /// Most segments of one discard or write-zeroes request.
    pub discard_segments: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            seg_max: 254,
            size_max: 64 << 10,
            discard_sectors: 1 << 21,
            discard_segments: 16,
        }
    }
}

impl BlkConfig {
    /// A writable device with late fetch, 256 descriptors and hashes.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            serial: None,
            read_only: false,
            fetch: Fetch::Late,
            queue_size: 256,
            queues: 1,
            hash: true,
            ledger: true,
            limits: Limits::default(),
        }
    }

    /// The answer to GET_ID: padded with zeros, cut to 20 bytes.
    #[must_use]
    pub fn serial_bytes(&self) -> [u8; SERIAL_LEN] {
        let serial = self.serial.as_ref().unwrap_or(&self.name).as_bytes();
        let mut bytes = [0; SERIAL_LEN];
        let len = serial.len().min(SERIAL_LEN);
        bytes[..len].copy_from_slice(&serial[..len]);
        bytes
    }

    /// Payload descriptors that fit into the queue beside header and status.
    #[must_use]
    pub fn seg_max(&self) -> u32 {
        let room = u32::from(self.queue_size).saturating_sub(2).max(1);
        self.limits.seg_max.clamp(1, room)
    }

    /// Features on offer for a disk.
    #[must_use]
    pub(super) fn features(&self, disk: &Geometry) -> u64 {
        let read_only = self.read_only || disk.read_only;
        let mut features = vec![
            VIRTIO_F_VERSION_1,
            VIRTIO_RING_F_EVENT_IDX,
            VIRTIO_RING_F_INDIRECT_DESC,
            VIRTIO_BLK_F_SEG_MAX,
            VIRTIO_BLK_F_SIZE_MAX,
            VIRTIO_BLK_F_BLK_SIZE,
            VIRTIO_BLK_F_TOPOLOGY,
            VIRTIO_BLK_F_FLUSH,
            VIRTIO_BLK_F_CONFIG_WCE,
        ];
        let optional = [
            (read_only, VIRTIO_BLK_F_RO),
            (self.queues > 1, VIRTIO_BLK_F_MQ),
            (disk.discard && !read_only, VIRTIO_BLK_F_DISCARD),
            (disk.write_zeroes && !read_only, VIRTIO_BLK_F_WRITE_ZEROES),
        ];
        features.extend(
            optional
                .iter()
                .filter(|(offered, _)| *offered)
                .map(|(_, bit)| *bit),
        );
        features.iter().fold(0, |bits, bit| bits | 1 << bit)
    }

    /// Configuration space, with `writeback` as it is now.
    #[must_use]
    pub(super) fn space(&self, disk: &Geometry, writeback: bool) -> [u8; CONFIG_LEN] {
        let mut space = [0; CONFIG_LEN];
        let mut put = |offset: usize, bytes: &[u8]| {
            space[offset..offset + bytes.len()].copy_from_slice(bytes)
        };
        put(0, &(disk.capacity_bytes / SECTOR).to_le_bytes());
        put(8, &self.limits.size_max.to_le_bytes());
        put(12, &self.seg_max().to_le_bytes());
        put(20, &disk.block_size.to_le_bytes());
        // topology: one logical block per physical block, no offset, smallest and best I/O size of one block.
        put(26, &1u16.to_le_bytes());
        put(28, &1u32.to_le_bytes());
        put(32, &[u8::from(writeback)]);
        put(34, &self.queues.to_le_bytes());
        put(36, &self.limits.discard_sectors.to_le_bytes());
        put(40, &self.limits.discard_segments.to_le_bytes());
        put(44, &(disk.block_size / 512).to_le_bytes());
        put(48, &self.limits.discard_sectors.to_le_bytes());
        put(52, &self.limits.discard_segments.to_le_bytes());
        put(56, &[1]);
        space
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: Geometry = Geometry {
        capacity_bytes: 1 << 20,
        read_only: false,
        block_size: 4096,
        discard: true,
        write_zeroes: false,
    };

    #[test]
    fn only_what_the_disk_can_do_is_offered() {
        let config = BlkConfig::new("a");
        let has = |features: u64, bit: u32| features & (1 << bit) != 0;
        let features = config.features(&DISK);
        assert!(has(features, VIRTIO_F_VERSION_1) && has(features, VIRTIO_BLK_F_DISCARD));
        assert!(!has(features, VIRTIO_BLK_F_WRITE_ZEROES) && !has(features, VIRTIO_BLK_F_RO));
        let features = config.features(&Geometry {
            read_only: true,
            ..DISK
        });
        assert!(has(features, VIRTIO_BLK_F_RO) && !has(features, VIRTIO_BLK_F_DISCARD));
    }

    #[test]
    fn configuration_space_has_the_layout_of_the_specification() {
        let mut config = BlkConfig::new("a");
        config.queue_size = 64;
        let space = config.space(&DISK, true);
        let word =
            |offset: usize| u32::from_le_bytes(space[offset..offset + 4].try_into().unwrap());
        assert_eq!((word(0), word(4)), (2048, 0));
        assert_eq!((word(8), word(12), word(20)), (64 << 10, 62, 4096));
        assert_eq!((space[32], space[34]), (1, 1));
        config.queues = 4;
        assert_eq!(config.space(&DISK, true)[34], 4);
        assert_ne!(config.features(&DISK) & 1 << VIRTIO_BLK_F_MQ, 0);
        assert_eq!((word(40), word(44), space[56]), (16, 8, 1));
    }

    #[test]
    fn a_serial_is_cut_to_twenty_bytes() {
        let mut config = BlkConfig::new("name");
        assert_eq!(&config.serial_bytes()[..5], b"name\0");
        config.serial = Some("0123456789abcdefghijklmn".into());
        assert_eq!(&config.serial_bytes(), b"0123456789abcdefghij");
    }
}
