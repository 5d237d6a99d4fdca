//! Who takes plain references, many of them, or gives back what it did not take.

use crate::actors::gup::pin_page;
use crate::cpu::Cpu;
use crate::design::{Design, Kind, Pin};
use crate::state::Mark;

/// `get_page`, something else, `put_page`: a reader of the page cache, reclaim's isolation, a pipe.
pub fn get_and_put(cpu: &Cpu, design: &dyn Design) {
    design.get(cpu);
    cpu.step("reads the page", |_| {});
    cpu.mark_if_held(Mark::PutWhileHeld);
    design.put(cpu);
}

/// As many plain references as a page that 1,100 programs map has.
pub fn crowd(cpu: &Cpu, count: i64) {
    cpu.step(
        format!("{count} programs: refcount+{count}"),
        move |state| state.page.refs += count,
    );
    cpu.step(format!("they end: refcount-{count}"), move |state| {
        state.put_refs(count)
    });
}

/// A driver that took a plain reference and gives it back as if it were a pin.
pub fn puts_wrongly(cpu: &Cpu, design: &dyn Design) {
    design.get(cpu);
    design.give_back_as(cpu, Kind::Plain, Kind::Pinned, Pin(0));
}

/// A driver whose error path gives its pin back a second time.
pub fn puts_twice(cpu: &Cpu, design: &dyn Design) {
    let Some(held) = pin_page(cpu, design) else {
        return;
    };
    cpu.end_hold(held.id);
    design.give_back_as(cpu, Kind::Pinned, Kind::Pinned, held.pin);
    design.give_back_as(cpu, Kind::Pinned, Kind::Pinned, held.pin);
}
