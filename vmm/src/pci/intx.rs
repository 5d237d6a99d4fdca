//! INTA# to INTD#: level-triggered lines that functions share.
//!
//! Promises: a line is high exactly as long as one of its functions asserts its pin. KVM is told of each change at once
//! (KVM_IRQ_LINE), so neither the end of an interrupt nor another function's can lose one.

use std::sync::{Arc, Mutex, Weak};

use kvm_ioctls::VmFd;

use crate::layout::INTX_GSIS;
use crate::lock::lock;

/// The I/O APIC pin of a slot's interrupt pin, 1 to 4 for INTA# to INTD#. Neighbours differ.
pub(crate) fn intx_gsi(slot: u8, pin: u8) -> u32 {
    INTX_GSIS[(usize::from(slot) + usize::from(pin) - 1) % INTX_GSIS.len()]
}

/// All lines of a bus.
#[derive(Default)]
pub(super) struct IntxLines(Mutex<State>);

#[derive(Default)]
struct State {
    vm: Weak<VmFd>,
    /// How many functions assert each line.
    asserted: [u32; INTX_GSIS.len()],
}

impl IntxLines {
    /// From now on the lines are this VM's. Functions were reset before, so every line is low.
    pub(super) fn connect(&self, vm: &Arc<VmFd>) {
        let mut state = lock(&self.0);
        state.vm = Arc::downgrade(vm);
        state.asserted = Default::default();
    }

    /// A function's pin has changed.
    pub(super) fn set(&self, gsi: u32, asserted: bool) {
        let mut state = lock(&self.0);
        let index = INTX_GSIS.iter().position(|line| *line == gsi);
        let count = &mut state.asserted[index.expect("a line of ours")];
        let before = *count;
        *count = if asserted {
            before + 1
        } else {
            before.saturating_sub(1)
        };
        if (before == 0) == (*count == 0) {
            return;
        }
        // Without a VM nobody hears: between two boots.
        if let Some(vm) = state.vm.upgrade()
            && let Err(error) = vm.set_irq_line(gsi, asserted)
        {
            log::error!("cannot set interrupt line {gsi}: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_line_is_high_as_long_as_anybody_asserts_it() {
        let lines = IntxLines::default();
        let gsi = intx_gsi(1, 1);
        lines.set(gsi, true);
        lines.set(gsi, true);
        lines.set(gsi, false);
        assert_eq!(lock(&lines.0).asserted.iter().sum::<u32>(), 1);
        lines.set(gsi, false);
        lines.set(gsi, false);
        assert_eq!(lock(&lines.0).asserted.iter().sum::<u32>(), 0);
    }

    #[test]
    fn neighbouring_slots_and_pins_have_lines_of_their_own() {
        assert_ne!(intx_gsi(1, 1), intx_gsi(2, 1));
        assert_ne!(intx_gsi(1, 1), intx_gsi(1, 2));
        assert!((0..32).all(|slot| (1..=4).all(|pin| (16..24).contains(&intx_gsi(slot, pin)))));
    }
}
