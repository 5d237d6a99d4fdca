//! virtio-mmio, version 2: the registers of one device and what its driver does with them (virtio 1.2, 4.2).
//!
//! A VMM routes the guest's accesses of the window here, from any vCPU, and waits on [`MmioTransport::kick_fds`] where
//! the device works. QueueNotify is meant to be an ioeventfd; a write that arrives here all the same is passed on.
//!
//! Whatever offset, width or value a guest uses, the answer is the specification's or "ignored" and a `GuestMistake` event.
//!
//! Locks, in this order: the registers, then the device. Interrupt status and device status are read without either, so
//! an interrupt handler never waits for a device that waits for a disk.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::QueueT;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::interrupt::MmioInterrupt;
use super::queue_setup::{Half, QueueSetup, empty_queue, low, set_half};
use super::registers::*;
use super::status::{DRIVER, DRIVER_OK, FAILED, FEATURES_OK, Meaning, meaning};
use crate::device::{Activation, Interrupt, Memory, SharedDevice, VirtioDevice};
use crate::trace::{EventKind, Tracer};

/// Mistakes of one guest that get an event each: a hostile one must not fill the host's disk with them.
const MISTAKES_TOLD: u32 = 1000;

/// The queue of a mistake that belongs to none.
const NO_QUEUE: u16 = u16::MAX;

/// A device behind virtio-mmio registers.
pub struct MmioTransport {
    name: String,
    device_id: u32,
    offered: u64,
    device: SharedDevice,
    memory: Memory,
    tracer: Arc<Tracer>,
    interrupt: Arc<MmioInterrupt>,
    kicks: Vec<Arc<EventFd>>,
    mistakes: AtomicU32,
    registers: Mutex<Registers>,
}

/// What the driver has written.
#[derive(Debug)]
struct Registers {
    device_features_sel: u32,
    driver_features_sel: u32,
    driver_features: u64,
    queue_sel: u32,
    queues: Vec<QueueSetup>,
}

impl Registers {
    fn new(queue_sizes: impl Iterator<Item = u16>) -> Self {
        Self {
            device_features_sel: 0,
            driver_features_sel: 0,
            driver_features: 0,
            queue_sel: 0,
            queues: queue_sizes.map(QueueSetup::new).collect(),
        }
    }

    fn selected(&self) -> Option<&QueueSetup> {
        self.queues.get(usize::try_from(self.queue_sel).ok()?)
    }

    fn selected_mut(&mut self) -> Option<&mut QueueSetup> {
        self.queues.get_mut(usize::try_from(self.queue_sel).ok()?)
    }

    /// The selected queue for an event.
    fn queue_index(&self) -> u16 {
        u16::try_from(self.queue_sel).unwrap_or(NO_QUEUE)
    }
}

impl MmioTransport {
    /// A device as after a reset. Writing `line` must make an edge of the guest's interrupt line (an irqfd).
    ///
    /// # Errors
    /// The host has no eventfd left.
    pub fn new(
        device: SharedDevice,
        memory: Memory,
        line: EventFd,
        tracer: Arc<Tracer>,
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
            interrupt: Arc::new(MmioInterrupt::new(name.clone(), line)),
            name,
            device_id,
            offered,
            device,
            memory,
            tracer,
            kicks,
            mistakes: AtomicU32::new(0),
            registers: Mutex::new(Registers::new(sizes.into_iter())),
        })
    }

    /// One eventfd per queue: register each at [`QUEUE_NOTIFY`] with its index as a datum of 4 bytes, and call the
    /// device's `on_kick` when it is readable.
    #[must_use]
    pub fn kick_fds(&self) -> &[Arc<EventFd>] {
        &self.kicks
    }

    /// Resets the device as a driver's write of 0 to the status register does, for a VM that begins anew.
    pub fn reset(&self) {
        self.restart(&mut self.registers());
    }

    /// The guest reads at `offset` of the window.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if offset >= CONFIG {
            self.device().read_config(offset - CONFIG, data);
            return;
        }
        let Ok(word) = <&mut [u8; 4]>::try_from(data) else {
            return self.mistake(NO_QUEUE, "read a register in another width than 4", "zero");
        };
        if !offset.is_multiple_of(4) {
            return self.mistake(NO_QUEUE, "read between two registers", "zero");
        }
        *word = self.register(offset).to_le_bytes();
    }

    /// The guest writes at `offset` of the window.
    pub fn write(&self, offset: u64, data: &[u8]) {
        if offset >= CONFIG {
            return self.write_config(offset - CONFIG, data);
        }
        let Ok(word) = <[u8; 4]>::try_from(data) else {
            return self.mistake(
                NO_QUEUE,
                "wrote a register in another width than 4",
                "ignored",
            );
        };
        let value = u32::from_le_bytes(word);
        match offset {
            INTERRUPT_ACK => self.interrupt.acknowledge(value),
            QUEUE_NOTIFY => self.notify(value),
            STATUS => self.write_status(value),
            _ => self.write_setup(offset, value),
        }
    }

    fn register(&self, offset: u64) -> u32 {
        match offset {
            MAGIC_VALUE => MAGIC,
            DEVICE_VERSION => VERSION,
            DEVICE_ID => self.device_id,
            VENDOR_ID => VENDOR,
            INTERRUPT_STATUS => self.interrupt.pending(),
            STATUS => u32::from(self.interrupt.status()),
            CONFIG_GENERATION => self.device().config_generation(),
            DEVICE_FEATURES => match self.registers().device_features_sel {
                0 => low(self.offered),
                1 => low(self.offered >> 32),
                _ => 0,
            },
            // A queue that does not exist has size 0 (virtio 1.2, 4.2.2).
            QUEUE_NUM_MAX => self
                .registers()
                .selected()
                .map_or(0, |queue| u32::from(queue.max_size)),
            QUEUE_READY => self
                .registers()
                .selected()
                .map_or(0, |queue| u32::from(queue.ready)),
            // There is no shared memory region: its length reads as -1, and so do the others.
            SHM_LEN_LOW | SHM_LEN_HIGH | SHM_BASE_LOW | SHM_BASE_HIGH => u32::MAX,
            _ => 0,
        }
    }

    fn write_config(&self, offset: u64, data: &[u8]) {
        let status = self.interrupt.status();
        if status & DRIVER == 0 || status & FAILED != 0 {
            return self.mistake(
                NO_QUEUE,
                "wrote configuration space without being the driver",
                "ignored",
            );
        }
        self.device().write_config(offset, data);
    }

    fn notify(&self, queue: u32) {
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

    fn write_setup(&self, offset: u64, value: u32) {
        let mut registers = self.registers();
        match offset {
            DEVICE_FEATURES_SEL => registers.device_features_sel = value,
            DRIVER_FEATURES_SEL => registers.driver_features_sel = value,
            DRIVER_FEATURES => self.write_features(&mut registers, value),
            QUEUE_SEL => registers.queue_sel = value,
            QUEUE_NUM => self.set_up(&mut registers, |queue| queue.size = value),
            QUEUE_DESC_LOW => self.set_up(&mut registers, |queue| {
                set_half(&mut queue.desc, Half::Low, value)
            }),
            QUEUE_DESC_HIGH => self.set_up(&mut registers, |queue| {
                set_half(&mut queue.desc, Half::High, value)
            }),
            QUEUE_DRIVER_LOW => self.set_up(&mut registers, |queue| {
                set_half(&mut queue.driver, Half::Low, value)
            }),
            QUEUE_DRIVER_HIGH => self.set_up(&mut registers, |queue| {
                set_half(&mut queue.driver, Half::High, value)
            }),
            QUEUE_DEVICE_LOW => self.set_up(&mut registers, |queue| {
                set_half(&mut queue.device, Half::Low, value)
            }),
            QUEUE_DEVICE_HIGH => self.set_up(&mut registers, |queue| {
                set_half(&mut queue.device, Half::High, value)
            }),
            QUEUE_READY => self.write_ready(&mut registers, value),
            // No region exists, so there is nothing to select.
            SHM_SEL => {}
            _ => self.mistake(
                NO_QUEUE,
                &format!("wrote {offset:#x}, which is no register for writing"),
                "ignored",
            ),
        }
    }

    fn write_features(&self, registers: &mut Registers, value: u32) {
        if self.interrupt.status() & (FEATURES_OK | FAILED) != 0 {
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
    fn set_up(&self, registers: &mut Registers, change: impl FnOnce(&mut QueueSetup)) {
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
        self.interrupt.status() & (FEATURES_OK | DRIVER_OK | FAILED) == FEATURES_OK
    }

    fn write_ready(&self, registers: &mut Registers, value: u32) {
        match value {
            0 => self.stop_queue(registers),
            1 => {
                let index = registers.queue_index();
                let checked = registers.selected().map(|queue| queue.queue(&self.memory));
                match checked {
                    Some(Err(what)) if self.is_set_up_time() => {
                        self.mistake(index, what, "not ready")
                    }
                    _ => self.set_up(registers, |queue| queue.ready = true),
                }
            }
            _ => self.mistake(
                registers.queue_index(),
                "wrote QueueReady with neither 0 nor 1",
                "ignored",
            ),
        }
    }

    /// QueueReady becomes 0: the driver takes its memory back, and reads 0 when the queue is still (virtio 1.2, 4.2.3.2).
    /// A device at work can only stop as a whole, so it needs a reset then.
    fn stop_queue(&self, registers: &mut Registers) {
        let Some(queue) = registers.selected_mut() else {
            // Drivers take down what they could not set up.
            return;
        };
        let was_ready = std::mem::replace(&mut queue.ready, false);
        if was_ready && self.interrupt.status() & DRIVER_OK != 0 {
            log::info!(
                "{}: the driver stopped a queue, and so the device",
                self.name
            );
            self.device().reset();
            self.interrupt.signal_needs_reset();
        }
    }

    fn write_status(&self, value: u32) {
        let mut registers = self.registers();
        self.tracer.emit(|| EventKind::DeviceStatus {
            device: self.name.clone(),
            status: u8::try_from(value).unwrap_or(u8::MAX),
        });
        match meaning(self.interrupt.status(), value) {
            Meaning::Reset => self.restart(&mut registers),
            Meaning::GiveUp => {
                log::warn!("{}: the driver gave up", self.name);
                self.interrupt.add_status(FAILED);
            }
            Meaning::Mistake(what) => {
                self.mistake(NO_QUEUE, what, "needs reset");
                self.interrupt.signal_needs_reset();
            }
            Meaning::Step(new) => {
                self.interrupt.add_status(new & !(FEATURES_OK | DRIVER_OK));
                if new & FEATURES_OK != 0 {
                    self.negotiate(&registers);
                }
                if new & DRIVER_OK != 0 {
                    self.activate(&registers);
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
            return self.interrupt.add_status(FEATURES_OK);
        };
        self.mistake(NO_QUEUE, what, "FEATURES_OK refused");
    }

    fn activate(&self, registers: &Registers) {
        let features = registers.driver_features;
        let queues = registers
            .queues
            .iter()
            .map(|setup| {
                let mut queue = match setup.queue(&self.memory) {
                    Ok(queue) if setup.ready => queue,
                    _ => empty_queue(setup.max_size),
                };
                queue.set_event_idx(features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0);
                queue
            })
            .collect();
        // Before the device begins: it may signal at once, and needs a reset only of a driver at work.
        self.interrupt.add_status(DRIVER_OK);
        let activated = self.device().activate(Activation {
            memory: self.memory.clone(),
            features,
            queues,
            interrupt: self.interrupt.clone(),
        });
        if let Err(error) = activated {
            log::error!("{}: cannot be activated: {error}", self.name);
            self.interrupt.signal_needs_reset();
        }
    }

    fn restart(&self, registers: &mut Registers) {
        // The device first: when the driver reads 0, nothing touches its memory any more (virtio 1.2, 2.4).
        self.device().reset();
        *registers = Registers::new(registers.queues.iter().map(|queue| queue.max_size));
        self.interrupt.clear();
    }

    fn mistake(&self, queue: u16, what: &str, answer: &str) {
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

    fn registers(&self) -> MutexGuard<'_, Registers> {
        self.registers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn device(&self) -> MutexGuard<'_, dyn VirtioDevice + 'static> {
        lock(&self.device)
    }
}

/// A device whose thread has died is still reset and read: the guest must not take the whole VMM with it.
fn lock(device: &SharedDevice) -> MutexGuard<'_, dyn VirtioDevice + 'static> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for MmioTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MmioTransport")
            .field("name", &self.name)
            .field("status", &self.interrupt.status())
            .finish_non_exhaustive()
    }
}
