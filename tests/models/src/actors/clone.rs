//! Clone (and freeze, which is the same to a page): the file's blocks become an image that may not change.

use crate::actors::writeback::{Asked, Policy, mkclean, wait_for_pins, write_back};
use crate::cpu::Cpu;
use crate::design::Design;
use crate::state::{Lock, Mark};

/// `generic_remap_file_range_prep` and the sharing of blocks: new faults are kept out, the page is written, the block is shared.
/// A design that can tell is asked whether the file has pins, after no page table lets a write through any more.
pub fn clone(cpu: &Cpu, design: &dyn Design, policy: Policy) {
    cpu.lock(Lock::Invalidate);
    while !cpu.is_over() {
        mkclean(cpu, design);
        let seen = cpu.steps_of_others();
        if !design.answers_for_files() || !cpu.ask(|| design.file_has_pins(cpu)) {
            break;
        }
        cpu.mark_if_held(Mark::CloneWhileHeld);
        wait_for_pins(cpu, seen);
    }
    write_back(cpu, design, policy, Asked::AfterMkclean);
    cpu.step("clone: shares the block", |state| {
        if state.is_held() {
            state.mark(Mark::CloneWhileHeld);
        }
        state.page.shared = true;
        state.page.image = Some(state.page.media);
    });
    cpu.unlock(Lock::Invalidate);
}
