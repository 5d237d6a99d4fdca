//! Write-back of the page, with what it does about a page that is pinned.

use crate::cpu::Cpu;
use crate::design::Design;
use crate::invariant::Invariant;
use crate::page::{CHILD, PARENT, Pte, Source};
use crate::state::{Lock, Mark, State};

/// What write-back does with a page that the design calls pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// It does not ask, as 6.12 does not.
    None,
    /// Leaves it dirty for the next time.
    Skip,
    /// Waits until it is let go.
    Wait,
    /// Writes a copy, and keeps the page dirty.
    Bounce,
    /// Writes a copy and calls the page clean.
    BounceAndClean,
}

/// When the design is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Before the page tables are made read-only.
    BeforeMkclean,
    /// After, when no new pin can come in unseen.
    AfterMkclean,
}

/// One pass over the page, as `write_cache_pages` and the file system's `writepage` do it.
pub fn write_back(cpu: &Cpu, design: &dyn Design, policy: Policy, asked: Asked) {
    cpu.lock(Lock::Folio);
    let has_work = cpu.tell(|state| {
        let has_work = state.page.dirty && state.page.in_file && state.page.moved.is_none();
        (
            has_work,
            if has_work {
                "write-back: page is dirty"
            } else {
                "write-back: nothing to do"
            },
        )
    });
    if !has_work {
        cpu.unlock(Lock::Folio);
        return;
    }
    let source = if asked == Asked::BeforeMkclean {
        let source = choose_source(cpu, design, policy);
        mkclean(cpu, design);
        source
    } else {
        mkclean(cpu, design);
        choose_source(cpu, design, policy)
    };
    match source {
        None => cpu.unlock(Lock::Folio),
        Some(source) => transfer(cpu, source, policy),
    }
}

/// `folio_mkclean`: one page table after the other, each under its lock.
pub fn mkclean(cpu: &Cpu, design: &dyn Design) {
    let free = |state: &State| !state.locks.iter().any(|(lock, _)| *lock == Lock::PageTable);
    for who in [PARENT, CHILD] {
        if cpu.is_over() {
            return;
        }
        let what = if who == PARENT {
            "mkclean: pte ro"
        } else {
            "mkclean: child's pte ro"
        };
        if who == CHILD && cpu.peek(|state| state.page.ptes[CHILD] == Pte::None) {
            continue;
        }
        cpu.step_when("the page-table lock", free, what, |state| {
            if state.page.ptes[who] == Pte::Writable {
                state.page.ptes[who] = Pte::ReadOnly;
            }
            if who == PARENT {
                design.invalidate_device();
            }
        });
    }
}

/// Asks as the policy wants, and says where the bytes are to come from; `None` leaves the page as it is.
fn choose_source(cpu: &Cpu, design: &dyn Design, policy: Policy) -> Option<Source> {
    if policy == Policy::None {
        return Some(Source::Page);
    }
    while !cpu.is_over() {
        let seen = cpu.steps_of_others();
        if !cpu.ask(|| design.is_pinned(cpu)) {
            return Some(Source::Page);
        }
        match policy {
            Policy::None => return Some(Source::Page),
            Policy::Skip => {
                cpu.step("pinned: skip it, stays dirty", |_| {});
                return None;
            }
            Policy::Bounce | Policy::BounceAndClean => return Some(Source::Copy),
            Policy::Wait => wait_for_pins(cpu, seen),
        }
    }
    None
}

/// Waits until nobody holds the page and something has happened since the question began: the count is lowered a step or two after the
/// hold has ended, and a wait that began with the answer would miss what came before it.
pub fn wait_for_pins(cpu: &Cpu, seen: usize) {
    let me = cpu.me();
    let ready = move |state: &State| !state.is_held() && state.steps_of_others(me) > seen;
    cpu.step_when(
        "the last unpin",
        ready,
        "pinned: has waited; asks again",
        |_| {},
    );
}

fn transfer(cpu: &Cpu, source: Source, policy: Policy) {
    let stays_dirty = source == Source::Copy && policy == Policy::Bounce;
    let what = match (source, stays_dirty) {
        (Source::Page, _) => "page clean; write-back begins",
        (Source::Copy, true) => "copy it; page stays dirty; write-back begins",
        (Source::Copy, false) => "copy it; page clean; write-back begins",
    };
    let (bytes, in_place) = cpu.step(what, move |state| {
        if state.is_held() {
            state.mark(Mark::WrittenWhileHeld);
        }
        let page = &mut state.page;
        page.writeback = Some(source);
        // The block that was ready is used up; the next write needs mkwrite again.
        (page.dirty, page.prepared) = (stays_dirty, stays_dirty);
        (page.bytes, page.shared)
    });
    cpu.unlock(Lock::Folio);
    cpu.step("disk has read; write-back ends", move |state| {
        if let Some(image) = state.page.image.filter(|image| in_place && *image != bytes) {
            let how = format!("write-back writes {bytes} over the block that the clone shares; the clone held {image}");
            state.violate(Invariant::ImageUnchanged, how);
        }
        state.page.media = bytes;
        state.page.writeback = None;
    });
}
