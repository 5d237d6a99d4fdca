//! Who pins a page for a device: GUP-fast, GUP-slow with its fault, the device's DMA and the unpin.

use crate::cpu::Cpu;
use crate::design::{BackOff, Design, GupFast, Pin};
use crate::invariant::Invariant;
use crate::page::{PARENT, Pte, Source};
use crate::state::{Lock, Mark, State};

/// What a pin's user does when the device has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unpin {
    /// `unpin_user_pages_dirty_lock(.., true)`, as direct I/O does.
    Dirty,
    /// `unpin_user_page`, as `io_buffer_unmap` of io_uring does.
    AsItIs,
}

/// Pins the page for writing.
pub struct Held {
    /// For the design.
    pub pin: Pin,
    /// For the truth.
    pub id: u32,
}

/// GUP for writing: fast if the design has that, else slow. `None` if the page is not in the file any more.
pub fn pin_page(cpu: &Cpu, design: &dyn Design) -> Option<Held> {
    match design.gup_fast() {
        GupFast::Kept => gup_fast(cpu, design).or_else(|| gup_slow(cpu, design)),
        GupFast::Lost => gup_slow(cpu, design),
    }
}

/// `gup_fast_pte_range`: look, grab, look again.
pub fn gup_fast(cpu: &Cpu, design: &dyn Design) -> Option<Held> {
    if !reads_pte(cpu, "GUP-fast: pte is ") {
        return None;
    }
    // Interrupts are off in it, which is what keeps the page table alive.
    cpu.irqs_off();
    let grabbed = design.pin(cpu).ok().and_then(|pin| {
        if reads_pte(cpu, "GUP-fast: again: ") {
            return Some(Held {
                pin,
                id: cpu.begin_hold(),
            });
        }
        cpu.mark(Mark::BackedOff);
        design.unpin(cpu, pin);
        None
    });
    cpu.irqs_on();
    grabbed
}

/// `faultin_page` and `follow_page_pte`: the grab happens under the page table's lock, so it cannot cross `folio_mkclean`.
pub fn gup_slow(cpu: &Cpu, design: &dyn Design) -> Option<Held> {
    while !cpu.is_over() {
        let is_writable = {
            cpu.lock(Lock::PageTable);
            reads_pte(cpu, "GUP-slow: pte is ")
        };
        if is_writable {
            let pinned = design.pin(cpu);
            let held = pinned.map(|pin| Held {
                pin,
                id: cpu.begin_hold(),
            });
            cpu.unlock(Lock::PageTable);
            match held {
                Ok(held) => return Some(held),
                // A page that was freed by mistake may still be mapped.
                Err(BackOff) if cpu.peek(|state| state.page.freed) => return None,
                Err(BackOff) => continue,
            }
        }
        cpu.unlock(Lock::PageTable);
        if !fault(cpu, PARENT) {
            return None;
        }
    }
    None
}

/// A write fault: `page_mkwrite` waits for stable bytes, makes a block ready and lets writes through. False if the page is gone.
pub fn fault(cpu: &Cpu, who: usize) -> bool {
    cpu.lock(Lock::Invalidate);
    cpu.lock(Lock::Folio);
    let in_file = cpu.tell(|state| {
        let in_file = state.page.in_file && state.page.moved.is_none();
        (
            in_file,
            if in_file {
                "fault: page is in the file"
            } else {
                "fault: page is gone"
            },
        )
    });
    if in_file {
        let stable = |state: &State| state.page.writeback.is_none();
        cpu.step_when(
            "the end of write-back",
            stable,
            "mkwrite: block ready, dirty, pte rw",
            move |state| {
                let page = &mut state.page;
                (page.prepared, page.dirty, page.shared) = (true, true, false);
                if page.ptes[who] == Pte::None {
                    page.refs += 1;
                    page.mapcount += 1;
                }
                page.ptes[who] = Pte::Writable;
                state.design.remapped();
            },
        );
    }
    cpu.unlock(Lock::Folio);
    cpu.unlock(Lock::Invalidate);
    in_file
}

/// The device writes into the page that it was given.
pub fn dma(cpu: &Cpu, design: &dyn Design, byte: u32) {
    while !cpu.is_over() {
        let done = cpu.tell(|state| match design.device_mapped() {
            Some(false) => (false, "device: not mapped, it faults".to_owned()),
            Some(true) | None => {
                device_writes(state, byte);
                (true, format!("device writes {byte}"))
            }
        });
        if done {
            return;
        }
        if !fault(cpu, PARENT) {
            return;
        }
        cpu.step("device: mapped again", |state| {
            if state.page.ptes[PARENT] == Pte::Writable {
                design.map_device();
            }
        });
    }
}

fn device_writes(state: &mut State, byte: u32) {
    if state.page.freed {
        state.violate(
            Invariant::FreedIsNotWritten,
            format!("the device writes {byte} into a page that was freed"),
        );
    }
    if state.page.writeback == Some(Source::Page) {
        let how = format!("the device writes {byte} while write-back reads the page itself");
        state.violate(Invariant::StableBytes, how);
    }
    state.page.bytes = byte;
    state.last_device_byte = Some(byte);
}

/// Gives the pin back, after marking the page dirty if its user does that.
pub fn unpin(cpu: &Cpu, design: &dyn Design, held: &Held, how: Unpin) {
    // A device with a page table of its own has dirtied the page by its fault.
    if how == Unpin::Dirty && design.device_mapped().is_none() {
        mark_dirty_locked(cpu);
    }
    cpu.end_hold(held.id);
    design.unpin(cpu, held.pin);
}

/// `set_page_dirty_lock`, which a page that is dirty is spared.
fn mark_dirty_locked(cpu: &Cpu) {
    let is_dirty = cpu.tell(|state| {
        let is_dirty = state.page.dirty;
        (
            is_dirty,
            if is_dirty {
                "unpin: is dirty already"
            } else {
                "unpin: is clean, dirty it"
            },
        )
    });
    if is_dirty {
        return;
    }
    cpu.lock(Lock::Folio);
    cpu.step("mark dirty", |state| {
        if state.page.in_file && !state.page.dirty {
            if !state.page.prepared {
                let how =
                    "the unpin marks a page dirty for which the file system has no block ready";
                state.violate(Invariant::DirtyMeetsBlocks, how);
            }
            state.page.dirty = true;
        }
    });
    cpu.unlock(Lock::Folio);
}

/// Pin, two DMA writes, unpin.
pub fn direct_io(cpu: &Cpu, design: &dyn Design, first_byte: u32, how: Unpin) {
    let Some(held) = pin_page(cpu, design) else {
        return;
    };
    dma(cpu, design, first_byte);
    dma(cpu, design, first_byte + 1);
    unpin(cpu, design, &held, how);
}

/// One look at the parent's entry: whether it lets a write through.
fn reads_pte(cpu: &Cpu, what: &'static str) -> bool {
    cpu.tell(|state| {
        let pte = state.page.ptes[PARENT];
        let word = match pte {
            Pte::None => "none",
            Pte::ReadOnly => "ro",
            Pte::Writable => "rw",
        };
        (pte == Pte::Writable, format!("{what}{word}"))
    })
}
