//! `typed` (D2): "pinned" is a property of a reference, so get and pin have each their own put (Jan Kara, July 2018; adopted in 5.2 to 5.6).
//!
//! The count is upstream's. What C cannot check is which put a driver calls: a plain reference that is given back as a pin takes another's
//! pin away, a pin that is given back twice takes his page. Repaired: each reference has an entry with its kind (`ref_tracker`), a put looks
//! for it first, and what does not fit is named and refused.

use crate::cpu::Cpu;
use crate::design::{BackOff, Design, Kind, Own, Pin, not_zero, try_pin_refs};
use crate::designs::bias::BIAS;
use crate::state::Mark;

/// The form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Whoever calls a put is believed.
    Believed,
    /// Each put is checked against what was taken.
    Checked,
}

/// The design.
#[derive(Debug)]
pub struct Typed {
    form: Form,
    /// Entries of pins that were not given back; the last ordinal given.
    own: Own<(Vec<u32>, u32)>,
}

impl Typed {
    /// In a form.
    #[must_use]
    pub fn new(form: Form) -> Self {
        Self {
            form,
            own: Own::new((Vec::new(), 0)),
        }
    }
}

impl Design for Typed {
    fn pin(&self, cpu: &Cpu) -> Result<Pin, BackOff> {
        try_pin_refs(cpu, BIAS)?;
        // Part of the same step: nobody else uses this entry.
        let mut own = self.own.get();
        own.1 += 1;
        let pin = own.1;
        own.0.push(pin);
        Ok(Pin(pin))
    }

    fn unpin(&self, cpu: &Cpu, pin: Pin) {
        cpu.step("unpin: refcount-1024", |state| {
            self.own.get().0.retain(|entry| *entry != pin.0);
            state.put_refs(BIAS);
        });
    }

    fn is_pinned(&self, cpu: &Cpu) -> bool {
        cpu.tell(|state| {
            (
                state.page.refs >= BIAS,
                format!("pinned? refcount is {}", state.page.refs),
            )
        })
    }

    fn give_back_as(&self, cpu: &Cpu, taken: Kind, believed: Kind, pin: Pin) {
        let is_known = self.own.get().0.contains(&pin.0);
        let fits = taken == believed && (taken == Kind::Plain || is_known);
        if self.form == Form::Believed || fits {
            return match believed {
                Kind::Plain => self.put(cpu),
                Kind::Pinned => self.unpin(cpu, pin),
            };
        }
        cpu.step(
            match taken {
                Kind::Plain => "WARN: a plain reference given back as a pin",
                Kind::Pinned => "WARN: this pin was given back before",
            },
            |state| state.mark(Mark::WrongPutReported),
        );
        if taken == Kind::Plain {
            self.put(cpu);
        }
    }

    fn left_over(&self) -> Option<String> {
        match self.form {
            // Nobody keeps a list there.
            Form::Believed => None,
            Form::Checked => {
                let entries = i64::try_from(self.own.get().0.len()).unwrap_or(i64::MAX);
                not_zero("the number of pins that nobody gave back", entries)
            }
        }
    }

    fn show(&self) -> String {
        match self.form {
            Form::Believed => "in refs".to_owned(),
            Form::Checked => format!("entries={}", self.own.get().0.len()),
        }
    }
}
