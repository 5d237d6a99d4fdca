//! `flag` (D4): one spare bit of the page says that it is pinned, the count lies in `page_ext`.
//!
//! A flag is not a count: who takes the count from one to zero clears the bit, and a pin that came in between has none. Repaired: bit and
//! count change under one bit lock of the `page_ext`, with interrupts off, since an unpin may come from one.

use crate::cpu::Cpu;
use crate::design::{BackOff, Design, Own, Pin, ask_flag, pin_ref, unpin_ref};
use crate::state::Lock;

/// The form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Count and bit one after the other.
    Bare,
    /// Both under a lock.
    Locked,
}

#[derive(Debug, Default)]
struct Fields {
    flag: bool,
    count: i64,
}

/// The design.
#[derive(Debug)]
pub struct Flag {
    form: Form,
    own: Own<Fields>,
}

impl Flag {
    /// In a form.
    #[must_use]
    pub fn new(form: Form) -> Self {
        Self {
            form,
            own: Own::default(),
        }
    }

    /// Does what changes count and bit, under the lock if the form has one.
    fn guarded(&self, cpu: &Cpu, change: impl FnOnce()) {
        if self.form == Form::Bare {
            return change();
        }
        cpu.locked_irqsave(Lock::Own, change);
    }

    /// Counts a pin, beside its reference.
    pub(super) fn count(&self, cpu: &Cpu) {
        self.guarded(cpu, || {
            if self.add(cpu, 1, "grab") == 1 {
                cpu.step("grab: it was 0, set the flag", |_| {
                    self.own.get().flag = true
                });
            }
        });
    }

    /// Counts a pin less, before its reference goes.
    pub(super) fn uncount(&self, cpu: &Cpu) {
        self.guarded(cpu, || {
            if self.add(cpu, -1, "unpin") == 0 {
                cpu.step("unpin: clear the flag", |_| self.own.get().flag = false);
            }
        });
    }

    fn add(&self, cpu: &Cpu, count: i64, verb: &str) -> i64 {
        cpu.tell(|_| {
            let mut own = self.own.get();
            own.count += count;
            (own.count, format!("{verb}: count is {}", own.count))
        })
    }
}

impl Design for Flag {
    fn pin(&self, cpu: &Cpu) -> Result<Pin, BackOff> {
        pin_ref(cpu)?;
        self.count(cpu);
        Ok(Pin(0))
    }

    fn unpin(&self, cpu: &Cpu, _pin: Pin) {
        self.uncount(cpu);
        unpin_ref(cpu);
    }

    fn is_pinned(&self, cpu: &Cpu) -> bool {
        ask_flag(cpu, || self.own.get().flag)
    }

    fn left_over(&self) -> Option<String> {
        let own = self.own.get();
        (own.flag || own.count != 0)
            .then(|| format!("the flag is {} and the count {}", own.flag, own.count))
    }

    fn show(&self) -> String {
        let own = self.own.get();
        format!("{}n={}", if own.flag { "flag " } else { "" }, own.count)
    }
}
