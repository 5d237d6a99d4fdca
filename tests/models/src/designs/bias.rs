//! `bias` (U1): each pin adds 1,024 to the refcount, as upstream does since 5.7.
//!
//! Jan Kara's first version (January 2019) took the mapcount off before it compared, so that many mappings do not look like a pin. Jerome
//! Glisse showed why that fails: two counters cannot be read at one time. Upstream reads one, and accepts that 1,024 references look pinned.
//!
//! What the count alone does not give: a policy, and an answer about the whole file. The forms of this design differ in those as well; the
//! file's counter of the last form is the design `mapping` beside this one.

use crate::cpu::Cpu;
use crate::design::{BackOff, Design, Own, Pin, not_zero, try_pin_refs};

/// `GUP_PIN_COUNTING_BIAS`.
pub const BIAS: i64 = 1024;

/// The form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `refcount - mapcount > BIAS`.
    Subtract,
    /// `refcount >= BIAS`.
    Upstream,
    /// Upstream's, and a counter in the file that is raised before the look at the page table is repeated.
    WithFileCounter,
}

/// The design.
#[derive(Debug)]
pub struct Bias {
    form: Form,
    file_pins: Own<i64>,
}

impl Bias {
    /// In a form.
    #[must_use]
    pub fn new(form: Form) -> Self {
        Self {
            form,
            file_pins: Own::new(0),
        }
    }
}

impl Design for Bias {
    fn pin(&self, cpu: &Cpu) -> Result<Pin, BackOff> {
        try_pin_refs(cpu, BIAS)?;
        if self.form == Form::WithFileCounter {
            cpu.step("grab: file's pins+1", |_| *self.file_pins.get() += 1);
        }
        Ok(Pin(0))
    }

    fn unpin(&self, cpu: &Cpu, _pin: Pin) {
        if self.form == Form::WithFileCounter {
            // By the handle's own pointer to the file, so a truncation in between changes nothing; before the page can be freed.
            cpu.step("unpin: file's pins-1", |_| *self.file_pins.get() -= 1);
        }
        cpu.step("unpin: refcount-1024", |state| state.put_refs(BIAS));
    }

    fn is_pinned(&self, cpu: &Cpu) -> bool {
        let refs = cpu.tell(|state| {
            (
                state.page.refs,
                format!("pinned? refcount is {}", state.page.refs),
            )
        });
        match self.form {
            Form::Upstream | Form::WithFileCounter => refs >= BIAS,
            Form::Subtract => {
                let mapcount = cpu.tell(|state| {
                    let mapcount = state.page.mapcount;
                    let answer = if refs - mapcount > BIAS { "yes" } else { "no" };
                    (
                        mapcount,
                        format!("mapcount is {mapcount}: {refs}-{mapcount}>1024 {answer}"),
                    )
                });
                refs - mapcount > BIAS
            }
        }
    }

    fn answers_for_files(&self) -> bool {
        self.form == Form::WithFileCounter
    }

    fn file_has_pins(&self, cpu: &Cpu) -> bool {
        cpu.tell(|_| {
            let pins = *self.file_pins.get();
            (pins > 0, format!("any pin in the file? {pins}"))
        })
    }

    fn left_over(&self) -> Option<String> {
        not_zero("the file's count of pins", *self.file_pins.get())
    }

    fn show(&self) -> String {
        match self.form {
            Form::Subtract | Form::Upstream => "in refs".to_owned(),
            Form::WithFileCounter => format!("file={}", self.file_pins.get()),
        }
    }
}
