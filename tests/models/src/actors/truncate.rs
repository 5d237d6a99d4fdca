//! Truncation: the page leaves its page tables and its file; who holds it keeps it alive.

use crate::cpu::Cpu;
use crate::design::Design;
use crate::page::{CHILD, PARENT, Pte};
use crate::state::{Lock, Mark, State};

/// `truncate_inode_folio`.
pub fn truncate(cpu: &Cpu, design: &dyn Design) {
    cpu.lock(Lock::Invalidate);
    cpu.lock(Lock::Folio);
    unmap_all(cpu, design, "truncate: unmap");
    let idle = |state: &State| state.page.writeback.is_none();
    cpu.step_when(
        "the end of write-back",
        idle,
        "truncate: drop dirty",
        |state| {
            state.page.dirty = false;
            if state.is_held() {
                state.mark(Mark::TruncatedWhileHeld);
            }
        },
    );
    let was_in_file = cpu.peek(|state| state.page.in_file);
    if was_in_file {
        design.leaves_file(cpu);
        cpu.step("truncate: file's reference", |state| state.put_refs(1));
    }
    cpu.unlock(Lock::Folio);
    cpu.unlock(Lock::Invalidate);
}

/// `try_to_unmap`: entry, mapcount and reference of each page table, under its lock.
pub fn unmap_all(cpu: &Cpu, design: &dyn Design, what: &'static str) {
    let free = |state: &State| !state.locks.iter().any(|(lock, _)| *lock == Lock::PageTable);
    cpu.step_when("the page-table lock", free, what, |state| {
        for who in [PARENT, CHILD] {
            if state.page.ptes[who] != Pte::None {
                state.page.ptes[who] = Pte::None;
                state.page.mapcount -= 1;
                state.put_refs(1);
                state.design.remapped();
            }
        }
        design.invalidate_device();
    });
}
