//! What a console is configured to be, its features, and its configuration space (virtio 1.2, 5.3.3 and 5.3.4).

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

/// The size of the terminal is known.
pub const SIZE: u32 = 0;
/// A byte can be written without a queue.
pub const EMERG_WRITE: u32 = 2;

/// Length of configuration space.
pub(super) const CONFIG_LEN: usize = 12;
/// Offset of `emerg_wr`, the only field that a driver may write.
pub(super) const EMERGENCY: u64 = 8;

/// A console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsoleConfig {
    /// Name in every event.
    pub name: String,
    /// Columns and rows of the terminal; `None`: not known.
    pub size: Option<(u16, u16)>,
    /// Greatest size of each queue: a power of two up to 32768.
    pub queue_size: u16,
}

impl ConsoleConfig {
    /// A console of an unknown size.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            size: None,
            queue_size: 128,
        }
    }

    /// Features on offer.
    #[must_use]
    pub(super) fn features(&self) -> u64 {
        let mut features = vec![
            VIRTIO_F_VERSION_1,
            VIRTIO_RING_F_EVENT_IDX,
            VIRTIO_RING_F_INDIRECT_DESC,
            EMERG_WRITE,
        ];
        features.extend(self.size.map(|_| SIZE));
        features.iter().fold(0, |bits, bit| bits | 1 << bit)
    }

    /// Configuration space.
    #[must_use]
    pub(super) fn space(&self) -> [u8; CONFIG_LEN] {
        let (columns, rows) = self.size.unwrap_or((0, 0));
        let mut space = [0; CONFIG_LEN];
        space[..2].copy_from_slice(&columns.to_le_bytes());
        space[2..4].copy_from_slice(&rows.to_le_bytes());
        // max_nr_ports: as many as there are.
        space[4] = 1;
        space
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_told_where_it_is_known() {
        let mut config = ConsoleConfig::new("c");
        assert_eq!(config.features() & (1 << SIZE), 0);
        config.size = Some((80, 0x119));
        assert_ne!(config.features() & (1 << SIZE), 0);
        assert_eq!(config.space()[..8], [80, 0, 0x19, 1, 1, 0, 0, 0]);
    }
}
