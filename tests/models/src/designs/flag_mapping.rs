//! `flag+mapping` (D4 and D5): a flag and a count for the page, and a counter in the file, each as it is alone.
//!
//! Nobody posted it. It is what our kernel of that name does (`mm/pin_flag_mapping.c`): a pin comes into the page's count first and leaves it last,
//! so that whoever finds the file without pins, and holds new ones off, meets at most a page that seems pinned a little longer.

use super::flag::{self, Flag};
use super::mapping::{self, Mapping};
use crate::cpu::Cpu;
use crate::design::{BackOff, Design, Pin, pin_ref, unpin_ref};

/// The design.
#[derive(Debug)]
pub struct FlagMapping {
    page: Flag,
    file: Mapping,
}

impl FlagMapping {
    /// With the file's counter in a form.
    #[must_use]
    pub fn new(file: mapping::Form) -> Self {
        Self {
            page: Flag::new(flag::Form::Locked),
            file: Mapping::new(file),
        }
    }
}

impl Design for FlagMapping {
    fn pin(&self, cpu: &Cpu) -> Result<Pin, BackOff> {
        pin_ref(cpu)?;
        self.page.count(cpu);
        self.file.add(cpu, 1, "grab");
        Ok(Pin(0))
    }

    fn unpin(&self, cpu: &Cpu, _pin: Pin) {
        self.file.add(cpu, -1, "unpin");
        self.page.uncount(cpu);
        unpin_ref(cpu);
    }

    fn is_pinned(&self, cpu: &Cpu) -> bool {
        self.page.is_pinned(cpu)
    }

    fn answers_for_files(&self) -> bool {
        true
    }

    fn file_has_pins(&self, cpu: &Cpu) -> bool {
        self.file.file_has_pins(cpu)
    }

    fn leaves_file(&self, cpu: &Cpu) {
        self.file.leaves_file(cpu);
    }

    fn left_over(&self) -> Option<String> {
        self.page.left_over().or_else(|| self.file.left_over())
    }

    fn show(&self) -> String {
        format!("{} {}", self.page.show(), self.file.show())
    }
}
