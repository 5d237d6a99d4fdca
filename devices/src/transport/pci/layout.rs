//! Where things are in a function's one BAR. Each structure has pages of its own.

/// Size of the BAR in bytes; also its alignment.
pub const BAR_SIZE: u64 = 0x8000;

/// Common configuration (virtio 1.2, 4.1.4.3), up to `queue_reset`.
pub(super) const COMMON: u64 = 0x0000;
pub(super) const COMMON_LEN: u64 = 0x3c;
/// ISR status (virtio 1.2, 4.1.4.5).
pub(super) const ISR: u64 = 0x1000;
pub(super) const ISR_LEN: u64 = 4;
/// Device-specific configuration (virtio 1.2, 4.1.4.6).
pub(super) const DEVICE: u64 = 0x2000;
pub(super) const DEVICE_LEN: u64 = 0x1000;
/// Notifications (virtio 1.2, 4.1.4.4).
pub(super) const NOTIFY: u64 = 0x3000;
pub(super) const NOTIFY_LEN: u64 = 0x1000;
pub(super) const NOTIFY_MULTIPLIER: u32 = 4;
/// MSI-X table, 16 bytes for each vector.
pub(super) const MSIX_TABLE: u64 = 0x4000;
pub(super) const MSIX_TABLE_LEN: u64 = 0x2000;
/// MSI-X pending bits.
pub(super) const MSIX_PBA: u64 = 0x6000;
pub(super) const MSIX_PBA_LEN: u64 = 0x1000;

/// Most vectors that the table has room for.
pub(super) const MAX_VECTORS: usize = 512;

/// Where in the BAR a driver kicks a queue, in whatever width and with whatever value. A VMM puts its ioeventfds here.
#[must_use]
pub fn notify_offset(queue: u16) -> u64 {
    NOTIFY + u64::from(queue) * u64::from(NOTIFY_MULTIPLIER)
}
