//! Pieces of guest physical memory, and the frames that they touch.

use serde::{Deserialize, Serialize};

/// Size of a guest frame in bytes.
pub const FRAME_SIZE: u64 = 4096;

/// A piece of guest physical memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GuestRange {
    /// Guest physical address of its first byte.
    pub addr: u64,
    /// Its length in bytes.
    pub len: u64,
}

impl GuestRange {
    /// Guest frame numbers that it touches, ascending. Empty for an empty range; clipped at the end of the address space.
    pub fn frames(self) -> impl Iterator<Item = u64> + Clone {
        let last = self.addr.saturating_add(self.len.max(1) - 1);
        let count = if self.len == 0 {
            0
        } else {
            last / FRAME_SIZE - self.addr / FRAME_SIZE + 1
        };
        let first = self.addr / FRAME_SIZE;
        (0..count).map(move |index| first + index)
    }

    /// Whether the two share a byte.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.len > 0
            && other.len > 0
            && self.addr < other.addr.saturating_add(other.len)
            && other.addr < self.addr.saturating_add(self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_knows_its_frames_to_the_last_byte() {
        let frames = |addr, len| GuestRange { addr, len }.frames().collect::<Vec<_>>();
        assert_eq!(frames(0x1fff, 2), [1, 2]);
        assert_eq!(frames(0x2000, 4096), [2]);
        assert!(frames(0x2000, 0).is_empty());
        assert_eq!(frames(u64::MAX, 9), [u64::MAX / FRAME_SIZE]);
    }
}
