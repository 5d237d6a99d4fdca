//! Reclaim and migration: who takes a page away if its counts say that nobody refers to it.

use crate::actors::truncate::unmap_all;
use crate::cpu::Cpu;
use crate::design::Design;
use crate::page::{PARENT, Pte};
use crate::state::{Lock, Mark, State};

/// `shrink_folio_list` with a clean page: leaves pinned ones alone, strips `page->private`, and frees what nobody refers to.
pub fn reclaim(cpu: &Cpu, design: &dyn Design) {
    cpu.step("reclaim: isolates it", |state| state.page.refs += 1);
    cpu.lock(Lock::Folio);
    let is_idle =
        cpu.peek(|state| !state.page.dirty && state.page.writeback.is_none() && state.page.in_file);
    if is_idle && !cpu.ask(|| design.is_pinned(cpu)) {
        unmap_all(cpu, design, "reclaim: unmap");
        design.strip_private(cpu);
        let alone = cpu.tell(|state| {
            let alone = state.page.refs == 2 && !state.page.dirty;
            (
                alone,
                if alone {
                    "reclaim: frozen at 2"
                } else {
                    "reclaim: in use, keep"
                },
            )
        });
        if alone {
            design.leaves_file(cpu);
            cpu.step("reclaim: file's reference", |state| state.put_refs(1));
        }
    }
    cpu.unlock(Lock::Folio);
    cpu.step("reclaim: put", |state| state.put_refs(1));
}

/// `migrate_pages` of a page of a file: unmap, freeze the count, copy to another frame, let the file have that.
pub fn migrate(cpu: &Cpu, design: &dyn Design) {
    cpu.step("migrate: isolates it", |state| state.page.refs += 1);
    cpu.lock(Lock::Folio);
    let stable = |state: &State| state.page.writeback.is_none();
    cpu.step_when(
        "the end of write-back",
        stable,
        "migrate: no write-back",
        |_| {},
    );
    unmap_all(cpu, design, "migrate: unmap");
    let may_move = design.may_move(cpu);
    cpu.mark_if_held(Mark::MigrationWhileHeld);
    if may_move {
        design.leaves_file(cpu);
        cpu.step("migrate: copy, file has the new frame", |state| {
            state.page.moved = Some(state.page.bytes);
            state.put_refs(1);
        });
    } else {
        cpu.step("migrate: maps it again", |state| {
            let page = &mut state.page;
            if page.in_file && page.ptes[PARENT] == Pte::None {
                page.ptes[PARENT] = Pte::ReadOnly;
                page.mapcount += 1;
                page.refs += 1;
            }
        });
    }
    cpu.unlock(Lock::Folio);
    cpu.step("migrate: put", |state| state.put_refs(1));
}
