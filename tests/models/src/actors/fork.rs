//! Fork: a child maps the page too, and goes again. Reference and mapcount move one after the other, as in the kernel.

use crate::cpu::Cpu;
use crate::page::{CHILD, PARENT, Pte};
use crate::state::{Lock, Mark, State};

/// `copy_present_ptes`: reference, then mapcount, then the child's entry. A page of a file is shared, not copied.
pub fn fork(cpu: &Cpu) {
    cpu.lock(Lock::PageTable);
    if cpu.peek(|state| state.page.ptes[PARENT] != Pte::None) {
        cpu.step("fork: refcount+1", |state| state.page.refs += 1);
        cpu.step("fork: mapcount+1", |state| {
            state.page.mapcount += 1;
            remapped(state);
        });
        cpu.step("fork: child's pte = parent's", |state| {
            state.page.ptes[CHILD] = state.page.ptes[PARENT];
            remapped(state);
        });
    }
    cpu.unlock(Lock::PageTable);
}

/// `zap_present_ptes` when the child ends.
pub fn exit(cpu: &Cpu) {
    cpu.lock(Lock::PageTable);
    if cpu.peek(|state| state.page.ptes[CHILD] != Pte::None) {
        cpu.step("exit: child's pte none", |state| {
            state.page.ptes[CHILD] = Pte::None;
            remapped(state);
        });
        cpu.step("exit: mapcount-1", |state| {
            state.page.mapcount -= 1;
            remapped(state);
        });
        cpu.step("exit: refcount-1", |state| state.put_refs(1));
    }
    cpu.unlock(Lock::PageTable);
}

fn remapped(state: &mut State) {
    state.design.remapped();
    if !state.questions.is_empty() {
        state.mark(Mark::RemappedWhileAsked);
    }
}
