//! The device status field (virtio 1.2, 2.1): which writes of the driver are steps, and which are mistakes.
//!
//! ```text
//! 0 -> ACKNOWLEDGE -> DRIVER -> FEATURES_OK -> DRIVER_OK        0 from anywhere: reset
//!                                                               FAILED from anywhere, until a reset
//! ```
//!
//! ACKNOWLEDGE and DRIVER may come in one write, as some drivers do. FEATURES_OK and DRIVER_OK may not: between them the
//! driver must read whether its features were taken (virtio 1.2, 3.1.1, step 6).

use std::sync::atomic::{AtomicU8, Ordering};

pub(super) const ACKNOWLEDGE: u8 = 1;
pub(super) const DRIVER: u8 = 2;
pub(super) const DRIVER_OK: u8 = 4;
pub(super) const FEATURES_OK: u8 = 8;
pub(super) const NEEDS_RESET: u8 = 64;
pub(super) const FAILED: u8 = 128;

/// What the driver sets, in this order.
const STEPS: u8 = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;

/// Whether a guest with this status has chosen a driver for the device. One that has only acknowledged it knows its kind and its number of
/// queues, and has looked at no feature and at nothing of its configuration (virtio 1.2, 3.1.1).
#[must_use]
pub fn has_driver(status: u8) -> bool {
    status & !ACKNOWLEDGE != 0
}

/// The register itself. It is read and changed from any thread, without a lock.
#[derive(Debug, Default)]
pub(super) struct StatusRegister(AtomicU8);

impl StatusRegister {
    /// Its bits, with what the device itself set.
    pub(super) fn get(&self) -> u8 {
        self.0.load(Ordering::Acquire)
    }

    /// The driver made these steps.
    pub(super) fn add(&self, bits: u8) {
        self.0.fetch_or(bits, Ordering::AcqRel);
    }

    /// After a reset no step was made.
    pub(super) fn clear(&self) {
        self.0.store(0, Ordering::Release);
    }

    /// The device needs a reset. Returns whether the driver is to be told: only one at work is, the others find the
    /// bit (virtio 1.2, 2.1.2).
    #[must_use]
    pub(super) fn set_needs_reset(&self) -> bool {
        self.0.fetch_or(NEEDS_RESET, Ordering::AcqRel) & DRIVER_OK != 0
    }
}

/// What a write of the status register means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Begin anew.
    Reset,
    /// These bits are new (none: nothing to do).
    Step(u8),
    /// The driver gives up.
    GiveUp,
    /// What the specification forbids.
    Mistake(&'static str),
}

/// What it means that the driver writes `value` while the register holds `current`.
pub(super) fn meaning(current: u8, value: u32) -> Meaning {
    if value == 0 {
        return Meaning::Reset;
    }
    let Ok(value) = u8::try_from(value) else {
        return Meaning::Mistake("wrote status bits that do not exist");
    };
    if value & !(STEPS | NEEDS_RESET | FAILED) != 0 {
        return Meaning::Mistake("wrote status bits that do not exist");
    }
    if value & FAILED != 0 {
        return Meaning::GiveUp;
    }
    if current & FAILED != 0 {
        return Meaning::Mistake("went on after FAILED without a reset");
    }
    // NEEDS_RESET is the device's bit: a driver that adds to what it read writes it back, and steps wait for the reset.
    if current & NEEDS_RESET != 0 {
        return Meaning::Step(0);
    }
    if current & STEPS & !value != 0 {
        return Meaning::Mistake("cleared status bits");
    }
    let in_order = [
        ACKNOWLEDGE,
        ACKNOWLEDGE | DRIVER,
        ACKNOWLEDGE | DRIVER | FEATURES_OK,
        STEPS,
    ];
    let new = value & STEPS & !current;
    if !in_order.contains(&(value & STEPS)) {
        Meaning::Mistake("set status bits out of order")
    } else if new & (FEATURES_OK | DRIVER_OK) == FEATURES_OK | DRIVER_OK {
        Meaning::Mistake("set DRIVER_OK before its features were accepted")
    } else {
        Meaning::Step(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_has_only_acknowledged_a_device_has_no_driver_for_it() {
        assert!(![0, ACKNOWLEDGE].into_iter().any(has_driver));
        let others = [DRIVER, ACKNOWLEDGE | DRIVER, FAILED, NEEDS_RESET];
        assert!(others.into_iter().all(has_driver));
    }

    #[test]
    fn the_way_of_the_specification_is_free() {
        for (current, value, step) in [
            (0, 1, 1),
            (1, 3, 2),
            (3, 11, 8),
            (11, 15, 4),
            (0, 3, 3),
            (3, 3, 0),
            (15, 15, 0),
        ] {
            assert_eq!(
                meaning(current, value),
                Meaning::Step(step),
                "{current} to {value}"
            );
        }
        for current in 0..=u8::MAX {
            assert_eq!(meaning(current, 0), Meaning::Reset);
            assert_eq!(meaning(current, 128), Meaning::GiveUp);
        }
    }

    #[test]
    fn a_skipped_step_and_a_cleared_bit_are_mistakes() {
        for (current, value) in [
            (0, 2),
            (1, 9),
            (3, 7),
            (3, 15),
            (15, 11),
            (11, 3),
            (1, 0x11),
            (1, 0x101),
            (0x81, 3),
        ] {
            assert!(
                matches!(meaning(current, value), Meaning::Mistake(_)),
                "{current} to {value}"
            );
        }
    }

    #[test]
    fn a_device_that_needs_a_reset_takes_no_step_before_it() {
        assert_eq!(meaning(NEEDS_RESET | 11, 15), Meaning::Step(0));
        assert_eq!(
            meaning(NEEDS_RESET | 11, u32::from(NEEDS_RESET | 15)),
            Meaning::Step(0)
        );
    }
}
