//! What the tests of all transports share: a device that only remembers, and numbers for hostile accesses.

use std::sync::{Arc, Mutex};

use crate::device::{
    ActivateError, Activation, SavedDevice, SavedQueue, SharedQueue, VirtioDevice,
};

pub(super) const VERSION_1: u64 = 1 << 32;
pub(super) const FEATURES: u64 = VERSION_1 | 1 << 29 | 0b110;

/// Remembers what it was told.
pub(super) struct Fake {
    pub(super) config: [u8; 12],
    pub(super) activation: Option<Activation>,
    pub(super) resets: u32,
    pub(super) refuses: bool,
}

impl Fake {
    pub(super) fn shared() -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            config: *b"configspace!",
            activation: None,
            resets: 0,
            refuses: false,
        }))
    }
}

impl VirtioDevice for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }
    fn device_type(&self) -> u32 {
        2
    }
    fn features(&self) -> u64 {
        FEATURES
    }
    fn queue_max_sizes(&self) -> &[u16] {
        &[256, 64]
    }
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data) {
            *byte = usize::try_from(at)
                .ok()
                .and_then(|at| self.config.get(at))
                .copied()
                .unwrap_or(0);
        }
    }
    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if let Ok(at) = usize::try_from(offset)
            && let Some(place) = self
                .config
                .get_mut(at..)
                .and_then(|rest| rest.get_mut(..data.len()))
        {
            place.copy_from_slice(data);
        }
    }
    fn config_generation(&self) -> u32 {
        77
    }
    fn accept_features(&mut self, features: u64) -> bool {
        features & 0b110 != 0b110
    }
    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        if self.refuses {
            return Err(ActivateError::Queue { queue: 0 });
        }
        self.activation = Some(activation);
        Ok(())
    }
    fn reset(&mut self) {
        self.activation = None;
        self.resets += 1;
    }
    fn save(&mut self) -> Result<SavedDevice, String> {
        let queue = SavedQueue {
            next_avail: 7,
            next_used: 5,
            next_ordinal: 9,
            requests: Vec::new(),
        };
        Ok(SavedDevice {
            own: serde_json::Value::Null,
            queues: vec![Some(queue), None],
        })
    }
    fn restore(&mut self, _own: &serde_json::Value) -> Result<(), String> {
        Ok(())
    }
    fn queues(&self) -> Vec<SharedQueue> {
        Vec::new()
    }
}

/// A repeatable stream of numbers (splitmix64).
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 27)
    }

    /// Values that registers are sensitive to, as often as any others.
    pub(super) fn value(&mut self) -> u64 {
        match self.next() % 4 {
            0 => self.next(),
            1 => self.next() % 20,
            2 => 1 << (self.next() % 64),
            _ => u64::MAX - self.next() % 5,
        }
    }
}
