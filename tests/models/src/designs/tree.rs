//! `tree` (D7): each pin is an entry in an interval tree of its file, in place of Jerome Glisse's fake VMA (December 2018).
//!
//! The tree has a lock, and unpins come from interrupts: one that comes into write-back's look at the tree waits for ever (Jan Kara). GUP-fast
//! is lost in each form. Repaired: an unpin in an interrupt is left to a worker, and until then the page seems pinned; or the lock is taken with
//! interrupts off, as by our kernel.

use crate::cpu::Cpu;
use crate::design::{BackOff, Design, GupFast, Own, Pin, pin_ref, unpin_ref};
use crate::state::Lock;

/// The form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The unpin takes the lock wherever it is.
    LockInIrq,
    /// In an interrupt it is left to a worker.
    Deferred,
    /// The lock is taken with interrupts off, by everybody (the kernel's `mm/pin_tree.c`).
    IrqsOff,
}

#[derive(Debug, Default)]
struct Fields {
    entries: i64,
    deferred: i64,
}

/// The design.
#[derive(Debug)]
pub struct Tree {
    form: Form,
    own: Own<Fields>,
}

impl Tree {
    /// In a form.
    #[must_use]
    pub fn new(form: Form) -> Self {
        Self {
            form,
            own: Own::default(),
        }
    }

    fn remove(&self, cpu: &Cpu) {
        self.locked(cpu, || {
            cpu.step("unpin: out of the tree", |_| self.own.get().entries -= 1);
        });
        unpin_ref(cpu);
    }

    fn locked<T>(&self, cpu: &Cpu, act: impl FnOnce() -> T) -> T {
        if self.form == Form::IrqsOff {
            return cpu.locked_irqsave(Lock::Own, act);
        }
        cpu.lock(Lock::Own);
        let value = act();
        cpu.unlock(Lock::Own);
        value
    }
}

impl Design for Tree {
    fn pin(&self, cpu: &Cpu) -> Result<Pin, BackOff> {
        pin_ref(cpu)?;
        self.locked(cpu, || {
            cpu.step("grab: into the tree", |_| self.own.get().entries += 1);
        });
        Ok(Pin(0))
    }

    fn unpin(&self, cpu: &Cpu, _pin: Pin) {
        if self.form == Form::Deferred && cpu.in_irq() {
            cpu.step("unpin: left to the worker", |_| {
                self.own.get().deferred += 1
            });
        } else {
            self.remove(cpu);
        }
    }

    fn is_pinned(&self, cpu: &Cpu) -> bool {
        self.file_has_pins(cpu)
    }

    fn answers_for_files(&self) -> bool {
        true
    }

    fn file_has_pins(&self, cpu: &Cpu) -> bool {
        let entries = self.locked(cpu, || {
            cpu.tell(|_| {
                let entries = self.own.get().entries;
                (entries, format!("pinned? tree has {entries}"))
            })
        });
        entries > 0
    }

    fn gup_fast(&self) -> GupFast {
        GupFast::Lost
    }

    fn has_deferred(&self) -> bool {
        self.own.get().deferred > 0
    }

    fn run_deferred(&self, cpu: &Cpu) {
        cpu.step("worker: takes what is left", |_| {
            self.own.get().deferred -= 1
        });
        self.remove(cpu);
    }

    fn left_over(&self) -> Option<String> {
        let own = self.own.get();
        (own.entries != 0).then(|| format!("the tree has {} entries", own.entries))
    }

    fn show(&self) -> String {
        let own = self.own.get();
        format!(
            "tree={}{}",
            own.entries,
            if own.deferred > 0 { " deferred" } else { "" }
        )
    }
}
