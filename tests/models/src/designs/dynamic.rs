//! `dynamic` (D10): a pinned page gets a `struct dynamic_page` out of line, found by frame number (Matthew Wilcox, December 2018).
//!
//! An idea that became the plan of separately allocated folios; no pin counter was posted. The form here frees the structure with its last
//! pin: a pin that has looked it up and not yet counted adds to freed memory, and is seen by nobody. Repaired: a count that is zero is not
//! added to, the looker makes a new one, and freed ones stay readable until no looker is left (RCU).

use super::numbered::Numbered;
use crate::cpu::Cpu;
use crate::design::{BackOff, Design, Own, Pin, pin_ref, unpin_ref};

/// The form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Look up, add one.
    Plain,
    /// Look up, add one unless it is zero; else anew.
    IncNotZero,
}

/// The design.
#[derive(Debug)]
pub struct Dynamic {
    form: Form,
    own: Own<Numbered>,
}

impl Dynamic {
    /// In a form.
    #[must_use]
    pub fn new(form: Form) -> Self {
        Self {
            form,
            own: Own::default(),
        }
    }

    fn look_up(&self, cpu: &Cpu) -> usize {
        cpu.tell(|_| {
            let current = self.own.get().current;
            (
                current,
                if current == 0 {
                    "grab: looks up: none".to_owned()
                } else {
                    format!("grab: looks up: {current}")
                },
            )
        })
    }

    /// Counts one more, in one that was found or a new one; `None` if the one found is going.
    fn count_up(&self, cpu: &Cpu, found: usize) -> Option<usize> {
        cpu.tell(|_| {
            let mut own = self.own.get();
            if found == 0 && own.current == 0 {
                let number = own.make(1);
                return (Some(number), format!("grab: new {number}, count 1"));
            }
            // Somebody else was faster, or it is the one found.
            let number = if found == 0 { own.current } else { found };
            if self.form == Form::IncNotZero && *own.count_in(number) == 0 {
                return (None, format!("grab: {number} is going, again"));
            }
            *own.count_in(number) += 1;
            (Some(number), format!("grab: {number} count+1"))
        })
    }
}

impl Design for Dynamic {
    fn pin(&self, cpu: &Cpu) -> Result<Pin, BackOff> {
        pin_ref(cpu)?;
        while !cpu.is_over() {
            let found = self.look_up(cpu);
            if let Some(number) = self.count_up(cpu, found) {
                return Ok(Pin(u32::try_from(number).unwrap_or(u32::MAX)));
            }
        }
        unpin_ref(cpu);
        Err(BackOff)
    }

    fn unpin(&self, cpu: &Cpu, pin: Pin) {
        // Count and lookup go together (both under the lock of the bucket); what is wrong is on the other side.
        cpu.tell(|_| {
            let mut own = self.own.get();
            let number = pin.0 as usize;
            let count = own.count_in(number);
            *count -= 1;
            let is_last = *count == 0;
            if is_last && own.current == number {
                own.current = 0;
            }
            (
                (),
                format!(
                    "unpin: {number} count-1{}",
                    if is_last { ", free it" } else { "" }
                ),
            )
        });
        unpin_ref(cpu);
    }

    fn is_pinned(&self, cpu: &Cpu) -> bool {
        cpu.tell(|_| {
            let own = self.own.get();
            let count = own.count();
            (
                count > 0,
                format!("pinned? {} count is {count}", own.current),
            )
        })
    }

    fn left_over(&self) -> Option<String> {
        self.own.get().left_over("dynamic pages'")
    }

    fn show(&self) -> String {
        let own = self.own.get();
        format!("dyn={} n={:?}", own.current, own.counts)
    }
}
