//! The pvpanic device: a guest with the driver says that its kernel has panicked.
//!
//! Debian has the driver as a module, so the words on the console stay the primary sign
//! ([`crate::console`]); a kernel with the driver built in is heard even when it prints nothing.

use crate::bus::{BusDevice, Flow};

/// The kernel has panicked.
const PANICKED: u8 = 1;

/// One port: reads say which events exist, a write reports one.
#[derive(Debug, Default)]
pub struct Pvpanic;

impl BusDevice for Pvpanic {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        if let Some(byte) = data.first_mut() {
            *byte = PANICKED;
        }
    }

    fn write(&self, _offset: u64, data: &[u8]) -> Flow {
        match data.first() {
            Some(event) if event & PANICKED != 0 => Flow::Panicked,
            _ => Flow::Continue,
        }
    }

    fn reset(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_reported_and_other_events_are_not() {
        assert_eq!(Pvpanic.write(0, &[1]), Flow::Panicked);
        assert_eq!(Pvpanic.write(0, &[2]), Flow::Continue);
    }
}
