//! What a driver may do with a device, whatever the transport: the status machine, features, the set-up of queues, reset.
//!
//! A transport says which register an access means and calls this; it owns the way to the guest's interrupts ([`Signals`]).
//! What a driver must not do is answered as the specification says, or ignored, and is a `GuestMistake` event.
//!
//! Locks, in this order: the registers, then the device, then the interrupt's own.

mod saved;

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::QueueT;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::queue_setup::{Half, QueueSetup, SizeAtReset, empty_queue, low, set_half};
use super::status::{
    DRIVER, DRIVER_OK, FAILED, FEATURES_OK, Meaning, NEEDS_RESET, StatusRegister, meaning,
};
use crate::device::{Activation, Interrupt, Memory, SavedQueue, SharedDevice, VirtioDevice};
use crate::trace::{EventKind, Tracer};

/// Mistakes of one guest that get an event each: a hostile one must not fill the host's disk with them.
const MISTAKES_TOLD: u32 = 1000;

/// The queue of a mistake that belongs to none.
pub(super) const NO_QUEUE: u16 = u16::MAX;

/// A transport's way to the guest. The device status lives there, so that a device may need a reset while its transport
/// is busy, and a vCPU reads its interrupt status without waiting for a device.
pub(super) trait Signals: Interrupt {
    /// The device status register.
    fn status(&self) -> &StatusRegister;
    /// The device was reset: nothing is pending any more.
    fn forget(&self);
    /// Whether the guest lets the device reach its memory.
    fn may_reach_memory(&self) -> bool {
        true
    }
}

/// One device and what its driver has told it.
pub(super) struct Core<I> {
    pub(super) name: String,
    pub(super) device_id: u32,
    pub(super) interrupt: Arc<I>,
    offered: u64,
    device: SharedDevice,
    memory: Memory,
    tracer: Arc<Tracer>,
    kicks: Vec<Arc<EventFd>>,
    mistakes: AtomicU32,
    registers: Mutex<Registers>,
    size_at_reset: SizeAtReset,
}

/// What the driver has written.
#[derive(Debug)]
pub(super) struct Registers {
    pub(super) device_features_sel: u32,
    pub(super) driver_features_sel: u32,
    driver_features: u64,
    pub(super) queue_sel: u32,
    queues: Vec<QueueSetup>,
}

impl Registers {
    fn new(queue_sizes: impl Iterator<Item = u16>, at_reset: SizeAtReset) -> Self {
        Self {
            device_features_sel: 0,
            driver_features_sel: 0,
            driver_features: 0,
            queue_sel: 0,
            queues: queue_sizes
                .map(|max_size| QueueSetup::new(max_size, at_reset))
                .collect(),
        }
    }

    pub(super) fn selected(&self) -> Option<&QueueSetup> {
        self.queues.get(usize::try_from(self.queue_sel).ok()?)
    }

    fn selected_mut(&mut self) -> Option<&mut QueueSetup> {
        self.queues.get_mut(usize::try_from(self.queue_sel).ok()?)
    }

    /// The selected queue for an event.
    pub(super) fn queue_index(&self) -> u16 {
        u16::try_from(self.queue_sel).unwrap_or(NO_QUEUE)
    }

    /// What the driver has accepted so far: the half that is selected.
    pub(super) fn selected_driver_features(&self) -> u32 {
        half_of(self.driver_features, self.driver_features_sel)
    }
}

impl<I: Signals + 'static> Core<I> {
    /// A device as after a reset; `interrupt` is made from its name and its number of queues.
    ///
    /// # Errors
    /// The host has no eventfd left.
    pub(super) fn new(
        device: SharedDevice,
        memory: Memory,
        tracer: Arc<Tracer>,
        size_at_reset: SizeAtReset,
        interrupt: impl FnOnce(&str, usize) -> I,
    ) -> io::Result<Self> {
        let (name, device_id, offered, sizes) = {
            let device = lock(&device);
            (
                device.name().to_owned(),
                device.device_type(),
                device.features(),
                device.queue_max_sizes().to_vec(),
            )
        };
        let kicks = sizes
            .iter()
            .map(|_| EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map(Arc::new))
            .collect::<io::Result<_>>()?;
        Ok(Self {
            interrupt: Arc::new(interrupt(&name, sizes.len())),
            name,
            device_id,
            offered,
            device,
            memory,
            tracer,
            kicks,
            mistakes: AtomicU32::new(0),
            registers: Mutex::new(Registers::new(sizes.into_iter(), size_at_reset)),
            size_at_reset,
        })
    }

    /// One eventfd per queue.
    pub(super) fn kicks(&self) -> &[Arc<EventFd>] {
        &self.kicks
    }

    /// The device status, with what the device itself set in it.
    pub(super) fn status(&self) -> u8 {
        self.interrupt.status().get()
    }

    pub(super) fn registers(&self) -> MutexGuard<'_, Registers> {
        self.registers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn device(&self) -> MutexGuard<'_, dyn VirtioDevice + 'static> {
        lock(&self.device)
    }

    /// The selected 32 of the features on offer.
    pub(super) fn device_features(&self) -> u32 {
        half_of(self.offered, self.registers().device_features_sel)
    }

    /// Only a driver may write configuration space.
    pub(super) fn write_device_config(&self, offset: u64, data: &[u8]) {
        let status = self.status();
        if status & DRIVER == 0 || status & FAILED != 0 {
            return self.mistake(
                NO_QUEUE,
                "wrote configuration space without being the driver",
                "ignored",
            );
        }
        self.device().write_config(offset, data);
    }

    /// A kick that arrives as a write.
    pub(super) fn notify(&self, queue: u32) {
        let kick = usize::try_from(queue)
            .ok()
            .and_then(|queue| self.kicks.get(queue));
        match kick {
            // A full counter is a kick that nobody has seen yet.
            Some(kick) => drop(kick.write(1)),
            None => self.mistake(
                u16::try_from(queue).unwrap_or(NO_QUEUE),
                "kicked a queue that does not exist",
                "ignored",
            ),
        }
    }

    pub(super) fn write_features(&self, registers: &mut Registers, value: u32) {
        if self.status() & (FEATURES_OK | FAILED) != 0 {
            return self.mistake(NO_QUEUE, "changed features after FEATURES_OK", "ignored");
        }
        match registers.driver_features_sel {
            0 => set_half(&mut registers.driver_features, Half::Low, value),
            1 => set_half(&mut registers.driver_features, Half::High, value),
            _ if value == 0 => {}
            _ => self.mistake(NO_QUEUE, "accepted features beyond bit 63", "ignored"),
        }
    }

    /// Changes the selected queue if this is the time for it: after FEATURES_OK, before DRIVER_OK, while it is not ready.
    pub(super) fn set_up(&self, registers: &mut Registers, change: impl FnOnce(&mut QueueSetup)) {
        let index = registers.queue_index();
        if !self.is_set_up_time() {
            return self.mistake(
                index,
                "changed a queue before FEATURES_OK or after DRIVER_OK",
                "ignored",
            );
        }
        match registers.selected_mut() {
            Some(queue) if !queue.ready => change(queue),
            Some(_) => self.mistake(index, "changed a queue that is ready", "ignored"),
            None => self.mistake(index, "changed a queue that does not exist", "ignored"),
        }
    }

    fn is_set_up_time(&self) -> bool {
        self.status() & (FEATURES_OK | DRIVER_OK | FAILED) == FEATURES_OK
    }

    /// The selected queue becomes ready, if it can be used.
    pub(super) fn make_ready(&self, registers: &mut Registers) {
        let index = registers.queue_index();
        let checked = registers.selected().map(|queue| queue.queue(&self.memory));
        match checked {
            Some(Err(what)) if self.is_set_up_time() => self.mistake(index, what, "not ready"),
            _ => self.set_up(registers, |queue| queue.ready = true),
        }
    }

    /// The driver takes the selected queue's memory back, and reads 0 when the queue is still (virtio 1.2, 4.2.3.2).
    /// A device at work can only stop as a whole, so it needs a reset then.
    pub(super) fn stop_queue(&self, registers: &mut Registers) {
        let Some(queue) = registers.selected_mut() else {
            // Drivers take down what they could not set up.
            return;
        };
        let was_ready = std::mem::replace(&mut queue.ready, false);
        if was_ready && self.status() & DRIVER_OK != 0 {
            self.stop("the driver stopped a queue, and so the device");
        }
    }

    /// Stops a device that is at work: when this returns, nothing touches guest memory, and only a reset brings it back.
    fn stop(&self, why: &str) {
        log::info!("{}: {why}", self.name);
        self.device().reset();
        self.interrupt.signal_needs_reset();
    }

    /// What the transport calls when the guest may have changed [`Signals::may_reach_memory`], by `change`. A device at work that
    /// must not reach guest memory any more can only stop as a whole.
    pub(super) fn change_reach(&self, change: impl FnOnce(&I)) {
        // Held meanwhile, so that no other vCPU sets DRIVER_OK in between.
        let _registers = self.registers();
        change(&self.interrupt);
        let at_work = self.status() & (DRIVER_OK | NEEDS_RESET) == DRIVER_OK;
        if at_work && !self.interrupt.may_reach_memory() {
            self.mistake(
                NO_QUEUE,
                "took the device's access to memory away while it is at work",
                "needs reset",
            );
            self.stop("no access to memory any more");
        }
    }

    /// The driver writes the device status.
    pub(super) fn write_status(&self, value: u32) {
        let mut registers = self.registers();
        self.tracer.emit(|| EventKind::DeviceStatus {
            device: self.name.clone(),
            status: u8::try_from(value).unwrap_or(u8::MAX),
        });
        match meaning(self.status(), value) {
            Meaning::Reset => self.restart(&mut registers),
            Meaning::GiveUp => {
                log::warn!("{}: the driver gave up", self.name);
                self.interrupt.status().add(FAILED);
            }
            Meaning::Mistake(what) => {
                self.mistake(NO_QUEUE, what, "needs reset");
                self.interrupt.signal_needs_reset();
            }
            Meaning::Step(new) => {
                self.interrupt
                    .status()
                    .add(new & !(FEATURES_OK | DRIVER_OK));
                if new & FEATURES_OK != 0 {
                    self.negotiate(&registers);
                }
                if new & DRIVER_OK != 0 {
                    self.activate(&registers, Vec::new());
                }
            }
        }
    }

    /// FEATURES_OK stays clear if the features are not the device's (virtio 1.2, 2.2.2).
    fn negotiate(&self, registers: &Registers) {
        let features = registers.driver_features;
        let what = if features & !self.offered != 0 {
            "accepted features that were not offered"
        } else if features & (1 << VIRTIO_F_VERSION_1) == 0 {
            "did not accept VIRTIO_F_VERSION_1"
        } else if !self.device().accept_features(features) {
            "accepted features that do not go together"
        } else {
            return self.interrupt.status().add(FEATURES_OK);
        };
        self.mistake(NO_QUEUE, what, "FEATURES_OK refused");
    }

    fn activate(&self, registers: &Registers, resume: Vec<Option<SavedQueue>>) {
        let features = registers.driver_features;
        let mut resumed = resume.iter().map(Option::as_ref);
        let queues = registers
            .queues
            .iter()
            .map(|setup| {
                let mut queue = match setup.queue(&self.memory) {
                    Ok(queue) if setup.ready => queue,
                    _ => empty_queue(setup.max_size),
                };
                queue.set_event_idx(features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0);
                if let Some(saved) = resumed.next().flatten() {
                    queue.set_next_avail(saved.next_avail);
                    queue.set_next_used(saved.next_used);
                }
                queue
            })
            .collect();
        // Before the device begins: it may signal at once, and needs a reset only of a driver at work.
        self.interrupt.status().add(DRIVER_OK);
        if !self.interrupt.may_reach_memory() {
            self.mistake(
                NO_QUEUE,
                "set DRIVER_OK without letting the device reach its memory",
                "needs reset",
            );
            return self.interrupt.signal_needs_reset();
        }
        let activated = self.device().activate(Activation {
            memory: self.memory.clone(),
            features,
            queues,
            interrupt: self.interrupt.clone(),
            resume,
        });
        if let Err(error) = activated {
            log::error!("{}: cannot be activated: {error}", self.name);
            self.interrupt.signal_needs_reset();
        }
    }

    /// Resets the device as a driver's write of 0 to the status register does.
    pub(super) fn reset(&self) {
        self.restart(&mut self.registers());
    }

    fn restart(&self, registers: &mut Registers) {
        // The device first: when the driver reads 0, nothing touches its memory any more (virtio 1.2, 2.4).
        self.device().reset();
        let sizes = registers.queues.iter().map(|queue| queue.max_size);
        *registers = Registers::new(sizes, self.size_at_reset);
        self.interrupt.forget();
        self.interrupt.status().clear();
    }

    /// Tells of what the driver did wrong, and what the device made of it.
    pub(super) fn mistake(&self, queue: u16, what: &str, answer: &str) {
        let told = self.mistakes.fetch_add(1, Ordering::Relaxed);
        if told >= MISTAKES_TOLD {
            // Saturates, so that a patient guest does not wrap it around.
            self.mistakes.store(MISTAKES_TOLD, Ordering::Relaxed);
            return;
        }
        let last = if told + 1 == MISTAKES_TOLD {
            " (and will not be told again)"
        } else {
            ""
        };
        log::warn!("{}: the driver {what}: {answer}{last}", self.name);
        self.tracer.emit(|| EventKind::GuestMistake {
            device: self.name.clone(),
            queue,
            what: what.to_owned(),
            answer: format!("{answer}{last}"),
        });
    }
}

/// The selected 32 of 64 feature bits; there are none beyond.
fn half_of(features: u64, select: u32) -> u32 {
    match select {
        0 => low(features),
        1 => low(features >> 32),
        _ => 0,
    }
}

/// A device whose thread has died is still reset and read: the guest must not take the whole VMM with it.
fn lock(device: &SharedDevice) -> MutexGuard<'_, dyn VirtioDevice + 'static> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}
