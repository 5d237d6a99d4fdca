//! The interrupts of a virtio-pci device: MSI-X vectors, or the ISR status and the pin (virtio 1.2, 4.1.5.3 and 4.1.4.5).
//!
//! One lock, which is the last of all: it is held for a moment, and while the VMM takes a route or a signal.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::config_space::{BUS_MASTER, INTX_DISABLE};
use super::msix::{Message, Msix, Todo};
use crate::device::Interrupt;
use crate::transport::core::Signals;
use crate::transport::saved::SavedPciInterrupt;
use crate::transport::status::StatusRegister;

/// No vector (virtio 1.2, 4.1.5.1.2).
pub(super) const NO_VECTOR: u16 = 0xffff;

/// ISR: a queue has used a buffer.
const ISR_QUEUE: u8 = 1;
/// ISR: the configuration has changed, or the device needs a reset.
const ISR_CONFIG: u8 = 2;

/// Carries a function's interrupts to the guest. A VMM implements it; calls come from any thread, never two at once for
/// one function, and must not call the transport.
pub trait PciInterrupts: Send + Sync {
    /// The interrupt pin is asserted, or is not any more. Level triggered.
    fn set_pin(&self, asserted: bool);
    /// From now on `vector` is this message; the guest has unmasked it.
    fn route(&self, vector: u16, message: Message);
    /// Sends the message of `vector`, which was routed before.
    fn send(&self, vector: u16);
}

struct State {
    msix: Msix,
    config_vector: u16,
    queue_vectors: Vec<u16>,
    isr: u8,
    /// COMMAND as the guest left it.
    command: u16,
    pin: bool,
    todo: Vec<Todo>,
}

/// Interrupt state and device status of one function.
pub(super) struct PciInterrupt {
    status: StatusRegister,
    way: Box<dyn PciInterrupts>,
    state: Mutex<State>,
}

impl PciInterrupt {
    pub(super) fn new(way: Box<dyn PciInterrupts>, queues: usize, vectors: usize) -> Self {
        let state = State {
            msix: Msix::new(vectors),
            config_vector: NO_VECTOR,
            queue_vectors: vec![NO_VECTOR; queues],
            isr: 0,
            command: 0,
            pin: false,
            todo: Vec::new(),
        };
        Self {
            status: StatusRegister::default(),
            way,
            state: Mutex::new(state),
        }
    }

    /// The guest reads ISR status, which clears it and the pin.
    pub(super) fn take_isr(&self) -> u8 {
        self.with(|state| std::mem::take(&mut state.isr))
    }

    /// Whether an interrupt of the pin waits for the driver, for the status register of configuration space.
    pub(super) fn is_waiting(&self) -> bool {
        let state = self.lock();
        state.isr != 0 && !state.msix.is_enabled()
    }

    /// COMMAND and message control as the guest left them. A message is a write to memory, so it waits while the function
    /// must not write there.
    pub(super) fn set_control(&self, command: u16, message_control: u16) {
        self.with(|state| {
            state.command = command;
            let State { msix, todo, .. } = state;
            msix.set_control(message_control, command & BUS_MASTER != 0, todo);
        });
    }

    pub(super) fn read_table(&self, offset: u64, data: &mut [u8]) {
        self.lock().msix.read_table(offset, data);
    }

    pub(super) fn read_pending(&self, offset: u64, data: &mut [u8]) {
        self.lock().msix.read_pending(offset, data);
    }

    pub(super) fn write_table(&self, offset: u64, data: &[u8]) -> bool {
        self.with(|state| {
            let State { msix, todo, .. } = state;
            msix.write_table(offset, data, todo)
        })
    }

    pub(super) fn config_vector(&self) -> u16 {
        self.lock().config_vector
    }

    /// `None` for a queue that does not exist.
    pub(super) fn queue_vector(&self, queue: u32) -> Option<u16> {
        let queue = usize::try_from(queue).ok()?;
        self.lock().queue_vectors.get(queue).copied()
    }

    /// A vector that does not exist is refused: it reads back as none.
    pub(super) fn set_config_vector(&self, vector: u16) {
        let mut state = self.lock();
        state.config_vector = existing(&state.msix, vector);
    }

    pub(super) fn set_queue_vector(&self, queue: u32, vector: u16) {
        let mut state = self.lock();
        let vector = existing(&state.msix, vector);
        let slot = usize::try_from(queue)
            .ok()
            .and_then(|queue| state.queue_vectors.get_mut(queue));
        if let Some(slot) = slot {
            *slot = vector;
        }
    }

    /// The function was reset: table and masks too. What was routed has to be routed again.
    pub(super) fn reset(&self) {
        self.with(|state| {
            state.msix = Msix::new(state.msix.len());
            state.command = 0;
            state.isr = 0;
        });
    }

    /// For a snapshot. Masks and the pin follow from configuration space.
    pub(super) fn save(&self) -> SavedPciInterrupt {
        let state = self.lock();
        SavedPciInterrupt {
            vectors: state.msix.save(),
            config_vector: state.config_vector,
            queue_vectors: state.queue_vectors.clone(),
            isr: state.isr,
        }
    }

    /// The same back, as after a reset; [`Self::set_control`] has to follow. `false` where it is of another function.
    pub(super) fn restore(&self, saved: &SavedPciInterrupt) -> bool {
        let mut state = self.lock();
        if saved.queue_vectors.len() != state.queue_vectors.len() {
            return false;
        }
        if !state.msix.restore(&saved.vectors) {
            return false;
        }
        state.config_vector = existing(&state.msix, saved.config_vector);
        let vectors = saved.queue_vectors.iter();
        state.queue_vectors = vectors
            .map(|vector| existing(&state.msix, *vector))
            .collect();
        state.isr = saved.isr & (ISR_QUEUE | ISR_CONFIG);
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, then does for the guest what follows from it.
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        for todo in state.todo.drain(..) {
            self.carry_out(todo);
        }
        let pin = state.isr != 0 && state.command & INTX_DISABLE == 0 && !state.msix.is_enabled();
        if pin != state.pin {
            state.pin = pin;
            self.way.set_pin(pin);
        }
        result
    }

    fn carry_out(&self, todo: Todo) {
        match todo {
            Todo::Route(vector, message) => self.way.route(vector, message),
            Todo::Send(vector) => self.way.send(vector),
        }
    }

    fn changed(&self) {
        self.with(|state| {
            // The bit before the message, whichever way the message goes (virtio 1.2, 4.1.4.5.1).
            state.isr |= ISR_CONFIG;
            if state.msix.is_enabled() {
                let todo = state.msix.signal(state.config_vector);
                state.todo.extend(todo);
            }
        });
    }
}

/// The vector if the table has it.
fn existing(msix: &Msix, vector: u16) -> u16 {
    if usize::from(vector) < msix.len() {
        vector
    } else {
        NO_VECTOR
    }
}

impl Interrupt for PciInterrupt {
    fn signal_queue(&self, queue: u16) {
        self.with(|state| {
            if state.msix.is_enabled() {
                let vector = state.queue_vectors.get(usize::from(queue)).copied();
                let todo = state.msix.signal(vector.unwrap_or(NO_VECTOR));
                state.todo.extend(todo);
            } else {
                state.isr |= ISR_QUEUE;
            }
        });
    }

    fn signal_config(&self) {
        self.changed();
    }

    fn signal_needs_reset(&self) {
        if self.status.set_needs_reset() {
            self.changed();
        }
    }
}

impl Signals for PciInterrupt {
    fn status(&self) -> &StatusRegister {
        &self.status
    }

    fn may_reach_memory(&self) -> bool {
        self.lock().command & BUS_MASTER != 0
    }

    fn forget(&self) {
        self.with(|state| {
            state.isr = 0;
            state.msix.forget_pending();
            state.config_vector = NO_VECTOR;
            state.queue_vectors.fill(NO_VECTOR);
        });
    }
}
