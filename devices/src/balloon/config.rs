//! What a balloon is configured to be, its features, and its configuration space (virtio 1.2, 5.5.3 and 5.5.4).

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::trace::event::{FRAME_SIZE, GuestRange};

/// The driver tells before it uses a page of the balloon again.
pub const MUST_TELL_HOST: u32 = 0;
/// There is a queue for statistics.
pub const STATS_VQ: u32 = 1;
/// The driver may take pages back when it is short of memory.
pub const DEFLATE_ON_OOM: u32 = 2;
/// The driver tells the value that it fills free pages with.
pub const PAGE_POISON: u32 = 4;
/// There is a queue for reports of free pages.
pub const REPORTING: u32 = 5;

/// Length of configuration space.
pub(super) const CONFIG_LEN: usize = 16;
/// Offset of `actual`, which the driver writes.
pub(super) const ACTUAL: u64 = 4;
/// Offset of `poison_val`, which the driver writes.
pub(super) const POISON: u64 = 12;
/// The greatest target, in frames: `num_pages` has 32 bits.
pub const MAX_FRAMES: u64 = u32::MAX as u64;

/// A balloon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BalloonConfig {
    /// Name on the command line and in every event.
    pub name: String,
    /// Size that the balloon shall have at first, in bytes; a whole number of frames, at most all of `ram`.
    pub target_bytes: u64,
    /// Offer free page reporting.
    pub reporting: bool,
    /// Let the guest take pages back without a word when it is short of memory.
    pub deflate_on_oom: bool,
    /// Greatest size of each queue: a power of two up to 32768.
    pub queue_size: u16,
    /// Memory that may be given back to the host, in whole frames. What is not in it is never discarded.
    pub ram: Vec<GuestRange>,
}

impl BalloonConfig {
    /// An empty balloon that reports, for a machine with this RAM.
    #[must_use]
    pub fn new(name: &str, ram: Vec<GuestRange>) -> Self {
        Self {
            name: name.to_owned(),
            target_bytes: 0,
            reporting: true,
            deflate_on_oom: true,
            queue_size: 128,
            ram,
        }
    }

    /// RAM in bytes.
    #[must_use]
    pub fn ram_bytes(&self) -> u64 {
        self.ram.iter().map(|range| range.len).sum()
    }

    /// Features on offer.
    ///
    /// MUST_TELL_HOST is: a page is then the host's until the driver has said that it takes it back, so what the log says
    /// about the balloon is certain. PAGE_POISON is: a driver that fills free pages with a value would otherwise not report
    /// any (Linux, `virtballoon_validate`). Hints for a migration are not: nobody would use them.
    #[must_use]
    pub(super) fn features(&self) -> u64 {
        let mut features = vec![
            VIRTIO_F_VERSION_1,
            VIRTIO_RING_F_EVENT_IDX,
            VIRTIO_RING_F_INDIRECT_DESC,
            MUST_TELL_HOST,
            STATS_VQ,
        ];
        if self.deflate_on_oom {
            features.push(DEFLATE_ON_OOM);
        }
        if self.reporting {
            features.extend([PAGE_POISON, REPORTING]);
        }
        features.iter().fold(0, |bits, bit| bits | 1 << bit)
    }

    /// What is wrong with it, if anything.
    pub(super) fn problem(&self) -> Option<String> {
        if !self.queue_size.is_power_of_two() || self.queue_size > 1 << 15 {
            return Some(format!(
                "queue size {} is not a power of two up to 32768",
                self.queue_size
            ));
        }
        let is_frames = |bytes: u64| bytes.is_multiple_of(FRAME_SIZE);
        if self.ram.is_empty()
            || !self.ram.iter().all(|range| {
                is_frames(range.addr)
                    && is_frames(range.len)
                    && range.addr.checked_add(range.len).is_some()
            })
        {
            return Some("the memory that it may give back is not in whole frames".to_owned());
        }
        None
    }
}

/// Configuration space.
#[must_use]
pub(super) fn space(target_frames: u32, actual_frames: u32, poison: u32) -> [u8; CONFIG_LEN] {
    let mut space = [0; CONFIG_LEN];
    // Between the two stands free_page_hint_cmd_id: 0 is VIRTIO_BALLOON_CMD_ID_STOP.
    let fields = [target_frames, actual_frames, 0, poison];
    for (place, field) in space.chunks_exact_mut(4).zip(fields) {
        place.copy_from_slice(&field.to_le_bytes());
    }
    space
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reporting_and_poison_are_offered_together_or_not_at_all() {
        let ram = vec![GuestRange {
            addr: 0,
            len: 1 << 20,
        }];
        let mut config = BalloonConfig::new("balloon", ram);
        let has = |features: u64, bit: u32| features & (1 << bit) != 0;
        assert!(
            has(config.features(), REPORTING)
                && has(config.features(), PAGE_POISON)
                && has(config.features(), MUST_TELL_HOST)
        );
        config.reporting = false;
        config.deflate_on_oom = false;
        for bit in [REPORTING, PAGE_POISON, DEFLATE_ON_OOM] {
            assert!(!has(config.features(), bit), "{bit}");
        }
    }

    #[test]
    fn configuration_space_has_the_layout_of_the_specification() {
        let space = space(0x0102_0304, 5, 0xaa);
        assert_eq!(space[..8], [4, 3, 2, 1, 5, 0, 0, 0]);
        assert_eq!(space[8..], [0, 0, 0, 0, 0xaa, 0, 0, 0]);
    }

    #[test]
    fn memory_that_is_not_in_whole_frames_is_refused() {
        let problem = |addr, len| BalloonConfig::new("b", vec![GuestRange { addr, len }]).problem();
        assert_eq!(problem(0, 4096), None);
        assert!(problem(1, 4096).is_some() && problem(0, 4095).is_some());
        assert!(problem(!4095, 8192).is_some());
        assert!(BalloonConfig::new("b", Vec::new()).problem().is_some());
    }
}
