//! Messages (MSI-X) by irqfd: each vector has an eventfd and a route in KVM's table.
//!
//! Promises: a vector is sent without leaving the thread that signals it; a message that KVM refuses is logged and
//! leaves the other routes as they are.

use std::io;
use std::sync::{Arc, Mutex, Weak};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_irqchip,
    kvm_irq_routing_msi,
};
use kvm_ioctls::VmFd;
use pincushion_devices::transport::pci::{Message, PciInterrupts};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::intx::IntxLines;
use crate::lock::lock;

/// Pins of the I/O APIC: lines below this number are not messages.
const IOAPIC_PINS: u32 = 24;
/// Lines of the two 8259.
const PIC_PINS: u32 = 16;

/// KVM's routing table, as far as it is ours.
#[derive(Default)]
pub(super) struct Routes(Mutex<State>);

#[derive(Default)]
struct State {
    vm: Weak<VmFd>,
    /// Of line 24 and on. `None` where nothing was routed yet: then no irqfd is there either.
    messages: Vec<Option<Message>>,
}

impl Routes {
    /// Takes the next `count` lines; returns the first.
    pub(super) fn reserve(&self, count: usize) -> u32 {
        let mut state = lock(&self.0);
        let first = state.messages.len();
        state.messages.resize(first + count, None);
        IOAPIC_PINS + u32::try_from(first).expect("a few thousand vectors")
    }

    /// From now on the routes are this VM's, which has none yet.
    pub(super) fn connect(&self, vm: &Arc<VmFd>) {
        let mut state = lock(&self.0);
        state.vm = Arc::downgrade(vm);
        state.messages.fill(None);
    }

    /// Routes a line, and connects `event` with it the first time.
    fn set(&self, gsi: u32, message: Message, event: &EventFd) {
        let mut state = lock(&self.0);
        let Some(vm) = state.vm.upgrade() else {
            return;
        };
        let index = (gsi - IOAPIC_PINS) as usize;
        let before = state.messages[index].replace(message);
        let table = KvmIrqRouting::from_entries(&table(&state.messages))
            .expect("fewer vectors than KVM has routes");
        let mut done = vm.set_gsi_routing(&table);
        if done.is_ok() && before.is_none() {
            // EAGAIN means that nothing was left over from an earlier VM.
            let _ = event.read();
            done = vm.register_irqfd(event, gsi);
        }
        if let Err(error) = done {
            log::error!("cannot route interrupt {gsi} to {message:x?}: {error}");
            state.messages[index] = before;
        }
    }
}

/// All routes: those that KVM has by itself, and the messages.
fn table(messages: &[Option<Message>]) -> Vec<kvm_irq_routing_entry> {
    let mut entries: Vec<_> = (0..PIC_PINS)
        .map(|line| match line.checked_sub(8) {
            None => chip(line, KVM_IRQCHIP_PIC_MASTER, line),
            Some(pin) => chip(line, KVM_IRQCHIP_PIC_SLAVE, pin),
        })
        .collect();
    entries.extend((0..IOAPIC_PINS).map(|line| chip(line, KVM_IRQCHIP_IOAPIC, line)));
    for (gsi, message) in (IOAPIC_PINS..).zip(messages) {
        entries.extend(message.map(|message| of_message(gsi, message)));
    }
    entries
}

fn chip(gsi: u32, irqchip: u32, pin: u32) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_IRQCHIP,
        ..Default::default()
    };
    entry.u.irqchip = kvm_irq_routing_irqchip { irqchip, pin };
    entry
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the two halves of an address"
)]
fn of_message(gsi: u32, message: Message) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        ..Default::default()
    };
    entry.u.msi = kvm_irq_routing_msi {
        address_lo: message.address as u32,
        address_hi: (message.address >> 32) as u32,
        data: message.data,
        ..Default::default()
    };
    entry
}

/// The interrupts of one function.
pub(super) struct FunctionInterrupts {
    routes: Arc<Routes>,
    lines: Arc<IntxLines>,
    line: u32,
    first: u32,
    events: Vec<EventFd>,
}

impl FunctionInterrupts {
    /// With `vectors` vectors, and the pin at line `line`.
    pub(super) fn new(
        routes: Arc<Routes>,
        lines: Arc<IntxLines>,
        line: u32,
        vectors: usize,
    ) -> io::Result<Self> {
        let new_event = |_| EventFd::new(EFD_NONBLOCK);
        Ok(Self {
            events: (0..vectors).map(new_event).collect::<Result<_, _>>()?,
            first: routes.reserve(vectors),
            routes,
            lines,
            line,
        })
    }

    fn event(&self, vector: u16) -> &EventFd {
        &self.events[usize::from(vector)]
    }
}

impl PciInterrupts for FunctionInterrupts {
    fn set_pin(&self, asserted: bool) {
        self.lines.set(self.line, asserted);
    }

    fn route(&self, vector: u16, message: Message) {
        let gsi = self.first + u32::from(vector);
        self.routes.set(gsi, message, self.event(vector));
    }

    fn send(&self, vector: u16) {
        if let Err(error) = self.event(vector).write(1) {
            log::error!("cannot send interrupt vector {vector}: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_keeps_the_lines_that_kvm_has_by_itself() {
        let message = Message {
            address: 0x1_fee0_1000,
            data: 0x41,
        };
        let table = table(&[None, Some(message)]);
        let count = |gsi| table.iter().filter(|entry| entry.gsi == gsi).count();
        assert_eq!((count(3), count(15), count(16), count(24)), (2, 2, 1, 0));
        assert_eq!((count(25), table.len()), (1, 16 + 24 + 1));
    }

    #[test]
    fn each_function_has_lines_of_its_own() {
        let routes = Routes::default();
        assert_eq!((routes.reserve(3), routes.reserve(2)), (24, 27));
    }
}
