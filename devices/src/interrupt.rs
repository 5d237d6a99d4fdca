//! Ways to tell the guest. The real ones belong to transports; here are those that need none.

pub use crate::device::Interrupt;

/// Tells nobody: for a guest that polls, and for benchmarks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Interrupt for Silent {
    fn signal_queue(&self, _queue: u16) {}
    fn signal_config(&self) {}
    fn signal_needs_reset(&self) {}
}

#[cfg(any(test, feature = "test-utils"))]
pub use counting::Counting;

#[cfg(any(test, feature = "test-utils"))]
mod counting {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Interrupt;

    /// Counts what it is asked to tell.
    #[derive(Debug, Default)]
    pub struct Counting {
        queue: AtomicU64,
        config: AtomicU64,
        needs_reset: AtomicU64,
    }

    impl Counting {
        /// Used buffer notifications so far.
        #[must_use]
        pub fn queue_signals(&self) -> u64 {
            self.queue.load(Ordering::Relaxed)
        }

        /// Configuration change notifications so far.
        #[must_use]
        pub fn config_signals(&self) -> u64 {
            self.config.load(Ordering::Relaxed)
        }

        /// How often the device asked to be reset.
        #[must_use]
        pub fn resets_needed(&self) -> u64 {
            self.needs_reset.load(Ordering::Relaxed)
        }
    }

    impl Interrupt for Counting {
        fn signal_queue(&self, _queue: u16) {
            self.queue.fetch_add(1, Ordering::Relaxed);
        }

        fn signal_config(&self) {
            self.config.fetch_add(1, Ordering::Relaxed);
        }

        fn signal_needs_reset(&self) {
            self.needs_reset.fetch_add(1, Ordering::Relaxed);
        }
    }
}
