//! What a design is to the actors: how it counts a pin, and what it can be asked.

use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::cpu::Cpu;
use crate::state::State;

/// A pin as its user keeps it; what is in it is the design's matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin(pub u32);

/// The grab saw something that forbids it, and took itself back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackOff;

/// What kind of reference somebody took, or believes to give back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// By `get_page`, to be given back by `put_page`.
    Plain,
    /// By GUP, to be given back by `unpin_user_page`.
    Pinned,
}

/// Whether GUP may go without locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GupFast {
    /// It may.
    Kept,
    /// Each pin takes the slow way.
    Lost,
}

/// One design in one form.
pub trait Design: Debug + Send + Sync {
    /// Counts one more pin, between GUP's two looks at the page table.
    ///
    /// # Errors
    ///
    /// If the design forbids it now; GUP goes the slow way then.
    fn pin(&self, cpu: &Cpu) -> Result<Pin, BackOff>;

    /// Counts one pin less.
    fn unpin(&self, cpu: &Cpu, pin: Pin);

    /// `folio_maybe_dma_pinned`.
    fn is_pinned(&self, cpu: &Cpu) -> bool;

    /// `get_page`.
    fn get(&self, cpu: &Cpu) {
        cpu.step("get: refcount+1", |state| state.page.refs += 1);
    }

    /// `put_page`.
    fn put(&self, cpu: &Cpu) {
        cpu.step("put: refcount-1", |state| state.put_refs(1));
    }

    /// Gives a reference back as another kind than it was taken, as a driver with a mistake does.
    fn give_back_as(&self, cpu: &Cpu, _taken: Kind, believed: Kind, pin: Pin) {
        match believed {
            Kind::Plain => self.put(cpu),
            Kind::Pinned => self.unpin(cpu, pin),
        }
    }

    /// Whether GUP-fast is left.
    fn gup_fast(&self) -> GupFast {
        GupFast::Kept
    }

    /// Whether the design can say if any page of a file is pinned.
    fn answers_for_files(&self) -> bool {
        false
    }

    /// Whether any page of the file is pinned, for designs that can say so; the others say yes.
    fn file_has_pins(&self, _cpu: &Cpu) -> bool {
        true
    }

    /// The page leaves its file (`__filemap_remove_folio`).
    fn leaves_file(&self, cpu: &Cpu) {
        cpu.step("mapping = NULL", |state| state.page.in_file = false);
    }

    /// `folio_migrate_mapping`: whether the counts say that nobody else refers to a page that is mapped nowhere any more.
    fn may_move(&self, cpu: &Cpu) -> bool {
        cpu.tell(|state| {
            // The file's, and migration's own.
            let alone = state.page.refs == 2;
            (
                alone,
                format!(
                    "refcount {}: {}",
                    state.page.refs,
                    if alone { "may move" } else { "in use" }
                ),
            )
        })
    }

    /// The file system detaches what it has at `page->private`.
    fn strip_private(&self, cpu: &Cpu) {
        cpu.step("detach private", |_| {});
    }

    /// A page table is filled or emptied: within that step.
    fn remapped(&self) {}

    /// `folio_mkclean` reaches the device too, by its MMU notifier: within that step.
    fn invalidate_device(&self) {}

    /// Whether the device may write without a fault; `None` for designs whose devices have no page tables of their own.
    fn device_mapped(&self) -> Option<bool> {
        None
    }

    /// The device has faulted and is mapped again: within that step.
    fn map_device(&self) {}

    /// Whether something is left for a worker, after an unpin that could not do it all.
    fn has_deferred(&self) -> bool {
        false
    }

    /// What the worker does then.
    fn run_deferred(&self, _cpu: &Cpu) {}

    /// What is not zero although no pin is left, in words.
    fn left_over(&self) -> Option<String>;

    /// The design's own fields, short, for the table.
    fn show(&self) -> String;
}

/// A design's own fields: touched only inside a step.
#[derive(Debug, Default)]
pub struct Own<T>(Mutex<T>);

impl<T> Own<T> {
    /// With these values at first.
    pub fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// The fields.
    pub fn get(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What write-back is told by a flag of the page.
pub(crate) fn ask_flag(cpu: &Cpu, flag: impl FnOnce() -> bool) -> bool {
    cpu.tell(|_| {
        if flag() {
            (true, "pinned? flag: yes")
        } else {
            (false, "pinned? no flag: no")
        }
    })
}

/// `"NAME is N"` if a count is not zero.
#[must_use]
pub fn not_zero(name: &str, count: i64) -> Option<String> {
    (count != 0).then(|| format!("{name} is {count}"))
}

/// `folio_try_get`: takes the page's references of a pin, unless the page was freed since GUP looked.
///
/// # Errors
///
/// If the page has no reference any more.
pub fn try_pin_refs(cpu: &Cpu, count: i64) -> Result<(), BackOff> {
    cpu.tell(|state: &mut State| {
        if state.page.refs <= 0 {
            return (Err(BackOff), "grab: refcount is 0".to_owned());
        }
        state.page.refs += count;
        (Ok(()), format!("grab: refcount+{count}"))
    })
}

/// The one reference of a pin in designs that count elsewhere.
///
/// # Errors
///
/// If the page has no reference any more.
pub fn pin_ref(cpu: &Cpu) -> Result<(), BackOff> {
    try_pin_refs(cpu, 1)
}

/// Gives it back.
pub fn unpin_ref(cpu: &Cpu) {
    cpu.step("unpin: refcount-1", |state: &mut State| state.put_refs(1));
}
