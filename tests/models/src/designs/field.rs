//! `field` (D3): a counter of its own in `struct page`, exact; rejected for its size, never for a race.
//!
//! What a careless form would do: drop the reference of a pin before its count. The reference may be the last, and the page is given to
//! somebody else with a count that is not zero. Repaired: the count first.

use crate::cpu::Cpu;
use crate::design::{BackOff, Design, Own, Pin, not_zero, pin_ref, unpin_ref};

/// The form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The unpin drops the reference, then the count.
    ReferenceFirst,
    /// The count, then the reference.
    CountFirst,
}

/// The design.
#[derive(Debug)]
pub struct Field {
    form: Form,
    pins: Own<i64>,
}

impl Field {
    /// In a form.
    #[must_use]
    pub fn new(form: Form) -> Self {
        Self {
            form,
            pins: Own::new(0),
        }
    }

    fn count_down(&self, cpu: &Cpu) {
        cpu.step("unpin: pins-1", |_| *self.pins.get() -= 1);
    }
}

impl Design for Field {
    fn pin(&self, cpu: &Cpu) -> Result<Pin, BackOff> {
        pin_ref(cpu)?;
        cpu.step("grab: pins+1", |_| *self.pins.get() += 1);
        Ok(Pin(0))
    }

    fn unpin(&self, cpu: &Cpu, _pin: Pin) {
        match self.form {
            Form::ReferenceFirst => {
                unpin_ref(cpu);
                self.count_down(cpu);
            }
            Form::CountFirst => {
                self.count_down(cpu);
                unpin_ref(cpu);
            }
        }
    }

    fn is_pinned(&self, cpu: &Cpu) -> bool {
        cpu.tell(|_| {
            let pins = *self.pins.get();
            (pins > 0, format!("pinned? pins is {pins}"))
        })
    }

    fn left_over(&self) -> Option<String> {
        not_zero("the page's count of pins", *self.pins.get())
    }

    fn show(&self) -> String {
        format!("pins={}", self.pins.get())
    }
}
