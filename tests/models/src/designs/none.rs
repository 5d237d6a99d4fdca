//! `none`: a pin is a reference like any other, the world before 5.6.
//!
//! Nobody can be asked, so write-back cleans a page under a device. What repairs it without any count is what Jerome Glisse told owners
//! of capable hardware to do: no pin at all, but a device with a page table of its own, which `folio_mkclean` reaches by MMU notifier.

use crate::cpu::Cpu;
use crate::design::{BackOff, Design, Own, Pin, pin_ref, unpin_ref};

/// The form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The device writes by physical address.
    Plain,
    /// The device has a page table, and an MMU notifier empties it.
    Notifier,
}

/// The design.
#[derive(Debug)]
pub struct Nothing {
    form: Form,
    device_mapped: Own<bool>,
}

impl Nothing {
    /// In a form.
    #[must_use]
    pub fn new(form: Form) -> Self {
        Self {
            form,
            device_mapped: Own::new(false),
        }
    }
}

impl Design for Nothing {
    fn pin(&self, cpu: &Cpu) -> Result<Pin, BackOff> {
        pin_ref(cpu)?;
        Ok(Pin(0))
    }

    fn unpin(&self, cpu: &Cpu, _pin: Pin) {
        unpin_ref(cpu);
    }

    fn is_pinned(&self, cpu: &Cpu) -> bool {
        match self.form {
            Form::Plain => cpu.step("pinned? nobody can tell: no", |_| false),
            // The notifier has run: no device can write without a fault.
            Form::Notifier => cpu.step("pinned? the notifier ran: write it", |_| false),
        }
    }

    fn device_mapped(&self) -> Option<bool> {
        (self.form == Form::Notifier).then(|| *self.device_mapped.get())
    }

    fn map_device(&self) {
        *self.device_mapped.get() = true;
    }

    fn invalidate_device(&self) {
        *self.device_mapped.get() = false;
    }

    fn left_over(&self) -> Option<String> {
        None
    }

    fn show(&self) -> String {
        match self.form {
            Form::Plain => "-".to_owned(),
            Form::Notifier if *self.device_mapped.get() => "device: rw".to_owned(),
            Form::Notifier => "device: none".to_owned(),
        }
    }
}
