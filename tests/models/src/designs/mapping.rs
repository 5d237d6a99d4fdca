//! `mapping` (D5): a counter in the file, so that "any pin in this file?" has an answer (John Hubbard, December 2018).
//!
//! Dan Williams asked how GUP-fast may look at `page->mapping`. Even where it may, a truncation between pin and unpin takes the way to the
//! counter away: it is never lowered again, and who waits for the file waits for ever. Repaired: a count per page stays beside it, and the
//! page that leaves its file takes its share off the counter, all under the lock of the file's tree of pages (`i_pages`).

use crate::cpu::Cpu;
use crate::design::{BackOff, Design, Own, Pin, pin_ref, unpin_ref};
use crate::state::Lock;

/// The form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `page->mapping` is read, then the counter changed.
    Bare,
    /// Under `i_pages`, with a share per page.
    Shares,
}

#[derive(Debug, Default)]
struct Fields {
    file: i64,
    /// Of it, by this page.
    share: i64,
}

/// The design.
#[derive(Debug)]
pub struct Mapping {
    form: Form,
    own: Own<Fields>,
}

impl Mapping {
    /// In a form.
    #[must_use]
    pub fn new(form: Form) -> Self {
        Self {
            form,
            own: Own::default(),
        }
    }

    /// Counts so many pins, if the page is in its file, beside their references.
    pub(super) fn add(&self, cpu: &Cpu, count: i64, verb: &'static str) {
        let is_in_file = |cpu: &Cpu| {
            cpu.tell(|state| {
                let in_file = state.page.in_file;
                (
                    in_file,
                    format!(
                        "{verb}: mapping is {}",
                        if in_file { "the file" } else { "NULL" }
                    ),
                )
            })
        };
        let change = |cpu: &Cpu| {
            cpu.tell(|_| {
                let mut own = self.own.get();
                own.file += count;
                own.share += count;
                ((), format!("{verb}: file's pins {}", own.file))
            });
        };
        match self.form {
            Form::Bare => {
                if is_in_file(cpu) {
                    change(cpu);
                }
            }
            Form::Shares => cpu.locked_irqsave(Lock::Own, || {
                if is_in_file(cpu) {
                    change(cpu);
                }
            }),
        }
    }
}

impl Design for Mapping {
    fn pin(&self, cpu: &Cpu) -> Result<Pin, BackOff> {
        pin_ref(cpu)?;
        self.add(cpu, 1, "grab");
        Ok(Pin(0))
    }

    fn unpin(&self, cpu: &Cpu, _pin: Pin) {
        self.add(cpu, -1, "unpin");
        unpin_ref(cpu);
    }

    fn is_pinned(&self, cpu: &Cpu) -> bool {
        self.file_has_pins(cpu)
    }

    fn answers_for_files(&self) -> bool {
        true
    }

    fn file_has_pins(&self, cpu: &Cpu) -> bool {
        cpu.tell(|_| {
            let pins = self.own.get().file;
            (pins > 0, format!("any pin in the file? {pins}"))
        })
    }

    fn leaves_file(&self, cpu: &Cpu) {
        match self.form {
            Form::Bare => cpu.step("mapping = NULL", |state| state.page.in_file = false),
            Form::Shares => cpu.locked_irqsave(Lock::Own, || {
                cpu.step("mapping = NULL, file's pins - share", |state| {
                    state.page.in_file = false;
                    let mut own = self.own.get();
                    own.file -= own.share;
                    own.share = 0;
                });
            }),
        }
    }

    fn left_over(&self) -> Option<String> {
        let own = self.own.get();
        (own.file != 0).then(|| format!("the file's count of pins is {}", own.file))
    }

    fn show(&self) -> String {
        let own = self.own.get();
        match self.form {
            Form::Bare => format!("file={}", own.file),
            Form::Shares => format!("file={} page={}", own.file, own.share),
        }
    }
}
