//! One function: what a bus hands to it, and where that goes.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::EventFd;

use super::common;
use super::config_space::{COMMAND, ConfigSpace, INTERRUPT_STATUS, SIZE, STATUS_LOW};
use super::identity::{Places, config_space};
use super::interrupt::{PciInterrupt, PciInterrupts};
use super::layout::*;
use crate::device::{Memory, SharedDevice};
use crate::trace::Tracer;
use crate::transport::core::{Core, NO_QUEUE};
use crate::transport::queue_setup::SizeAtReset;
use crate::transport::saved::{DeviceShape, SavedPci, StateError};

/// "Initiate FLR" of the advanced features' control.
const INITIATE_FLR: u8 = 1;

/// A device behind a PCI function.
///
/// A bus hands it the guest's accesses of its configuration space and of its BAR, from any vCPU; after a write to
/// configuration space it looks at [`Self::decoded_bar`] again. Kicks are meant to be ioeventfds at
/// [`notify_offset`](super::notify_offset); a write that arrives there all the same is passed on.
pub struct PciTransport {
    core: Core<PciInterrupt>,
    config: Mutex<ConfigSpace>,
    places: Places,
}

impl PciTransport {
    /// A function as after a reset. `pin` is 1 to 4 for INTA# to INTD#.
    ///
    /// # Errors
    /// The host has no eventfd left.
    pub fn new(
        device: SharedDevice,
        memory: Memory,
        interrupts: Box<dyn PciInterrupts>,
        pin: u8,
        tracer: Arc<Tracer>,
    ) -> io::Result<Self> {
        let interrupt = |_: &str, queues| PciInterrupt::new(interrupts, queues, vectors(queues));
        let core = Core::new(device, memory, tracer, SizeAtReset::Greatest, interrupt)?;
        let (config, places) = config_space(core.device_id, vectors(core.kicks().len()), pin);
        Ok(Self {
            core,
            config: Mutex::new(config),
            places,
        })
    }

    /// Says that the slot has more functions: for the first function of such a slot, before a guest looks.
    pub fn set_multifunction(&self) {
        self.config().set_multifunction();
    }

    /// Number of MSI-X vectors: one per queue and one for configuration changes.
    #[must_use]
    pub fn vectors(&self) -> usize {
        vectors(self.core.kicks().len())
    }

    /// The same of a device with so many queues, before it is one.
    #[must_use]
    pub fn vectors_for(queues: usize) -> usize {
        vectors(queues)
    }

    /// One eventfd per queue: register each in the BAR at [`notify_offset`](super::notify_offset) without a datum, and
    /// serve the queue when it is readable.
    #[must_use]
    pub fn kick_fds(&self) -> &[Arc<EventFd>] {
        self.core.kicks()
    }

    /// Where the BAR is, of [`BAR_SIZE`] bytes, or `None` while the guest does not let memory accesses be decoded.
    #[must_use]
    pub fn decoded_bar(&self) -> Option<u64> {
        self.config().decoded_bar()
    }

    /// Places the BAR at a multiple of [`BAR_SIZE`], as firmware does before a guest looks.
    pub fn place_bar(&self, address: u64) {
        self.config().place_bar(address);
    }

    /// Resets the function, configuration space included, for a VM that begins anew. The BAR has to be placed again.
    pub fn reset(&self) {
        let mut config = self.config();
        self.reset_locked(&mut config);
    }

    /// What a guest can find out about the device.
    #[must_use]
    pub fn shape(&self) -> DeviceShape {
        self.core.shape()
    }

    /// For a snapshot: no vCPU runs, and nobody serves the queues.
    ///
    /// # Errors
    /// [`StateError::Save`].
    pub fn save(&self) -> Result<SavedPci, StateError> {
        Ok(SavedPci {
            core: self.core.save()?,
            config: self.config().save(),
            interrupt: self.core.interrupt.save(),
        })
    }

    /// Of a function as after a reset, whose interrupts are connected. The bus looks at [`Self::decoded_bar`] afterwards.
    ///
    /// # Errors
    /// [`StateError::Restore`]; the function has to be reset then.
    pub fn restore(&self, saved: &SavedPci) -> Result<(), StateError> {
        let misfit = |what: &str| StateError::Restore {
            device: self.core.name.clone(),
            what: what.to_owned(),
        };
        let mut config = self.config();
        if !config.restore(&saved.config) {
            return Err(misfit("its configuration space is of another function"));
        }
        if !self.core.interrupt.restore(&saved.interrupt) {
            return Err(misfit("it has another number of interrupt vectors"));
        }
        self.apply_control(&config);
        self.core.restore(&saved.core)
    }

    /// COMMAND and message control as they are now.
    fn apply_control(&self, config: &ConfigSpace) {
        let command = config.word(COMMAND);
        let control = config.word(self.places.msix_control);
        self.core
            .change_reach(|interrupt| interrupt.set_control(command, control));
    }

    /// The guest reads configuration space at `offset`.
    pub fn read_config(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let Ok(at) = usize::try_from(offset) else {
            return;
        };
        if let Some((window, skip)) = self.window(at, data.len()) {
            let mut bytes = [0; 4];
            self.read_bar(window.offset, &mut bytes[..window.len]);
            let rest = bytes[..window.len].iter().skip(skip);
            data.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            return;
        }
        let mut config = self.config();
        let waiting = self.core.interrupt.is_waiting();
        config.set_bits(STATUS_LOW, INTERRUPT_STATUS, waiting);
        config.read(at, data);
    }

    /// The guest writes configuration space at `offset`.
    pub fn write_config(&self, offset: u64, data: &[u8]) {
        let Some(at) = usize::try_from(offset).ok().filter(|at| *at < SIZE) else {
            return;
        };
        if let Some((window, skip)) = self.window(at, data.len()) {
            // A window has one meaning for one width: other writes than of the whole of it are nothing.
            if skip == 0 && data.len() == window.len {
                self.write_bar(window.offset, data);
            }
            return;
        }
        let mut config = self.config();
        let flr = self.places.flr.checked_sub(at).and_then(|at| data.get(at));
        if flr.is_some_and(|byte| byte & INITIATE_FLR != 0) {
            return self.reset_locked(&mut config);
        }
        config.write(at, data);
        self.apply_control(&config);
    }

    /// The guest reads at `offset` of the BAR.
    pub fn read_bar(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let interrupt = &self.core.interrupt;
        match Structure::at(offset) {
            Some(Structure::Common) => common::read(&self.core, offset - COMMON, data),
            Some(Structure::Isr) => {
                if let (0, Some(byte)) = (offset - ISR, data.first_mut()) {
                    *byte = interrupt.take_isr();
                }
            }
            Some(Structure::Device) => self.core.device().read_config(offset - DEVICE, data),
            Some(Structure::Table) => interrupt.read_table(offset - MSIX_TABLE, data),
            Some(Structure::Pending) => interrupt.read_pending(offset - MSIX_PBA, data),
            Some(Structure::Notify) | None => {}
        }
    }

    /// The guest writes at `offset` of the BAR.
    pub fn write_bar(&self, offset: u64, data: &[u8]) {
        match Structure::at(offset) {
            Some(Structure::Common) => common::write(&self.core, offset - COMMON, data),
            Some(Structure::Device) => self.core.write_device_config(offset - DEVICE, data),
            Some(Structure::Notify) => {
                let place = (offset - NOTIFY) / u64::from(NOTIFY_MULTIPLIER);
                self.core.notify(u32::try_from(place).unwrap_or(u32::MAX));
            }
            Some(Structure::Table) => {
                if !self.core.interrupt.write_table(offset - MSIX_TABLE, data) {
                    let what = "wrote the MSI-X table where it has nothing, or in a wrong width";
                    self.core.mistake(NO_QUEUE, what, "ignored");
                }
            }
            Some(Structure::Isr | Structure::Pending) | None => {
                let what = format!("wrote {offset:#x} of its BAR, which is read-only");
                self.core.mistake(NO_QUEUE, &what, "ignored");
            }
        }
    }

    /// The device first: when the guest goes on, nothing touches its memory any more.
    fn reset_locked(&self, config: &mut ConfigSpace) {
        self.core.reset();
        self.core.interrupt.reset();
        config.reset();
    }

    /// What an access of `pci_cfg_data` means (virtio 1.2, 4.1.4.9), and the byte of it that is accessed. `None` where
    /// the access is none, or the driver has set up a window that is not 1, 2 or 4 aligned bytes of our BAR.
    fn window(&self, at: usize, len: usize) -> Option<(Window, usize)> {
        let skip = at.checked_sub(self.places.window_data)?;
        if skip + len > 4 {
            return None;
        }
        let config = self.config();
        let mut bar = [0];
        config.read(self.places.window_bar, &mut bar);
        let offset = u64::from(config.dword(self.places.window_offset));
        let len = config.dword(self.places.window_length);
        let good = bar == [0] && matches!(len, 1 | 2 | 4) && offset.is_multiple_of(len.into());
        let len = usize::try_from(len).ok().filter(|_| good)?;
        Some((Window { offset, len }, skip))
    }

    fn config(&self) -> MutexGuard<'_, ConfigSpace> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An access of the BAR by way of configuration space.
struct Window {
    offset: u64,
    len: usize,
}

fn vectors(queues: usize) -> usize {
    (queues + 1).min(MAX_VECTORS)
}

/// What is where in the BAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Structure {
    Common,
    Isr,
    Device,
    Notify,
    Table,
    Pending,
}

impl Structure {
    fn at(offset: u64) -> Option<Self> {
        let places = [
            (COMMON, COMMON_LEN, Self::Common),
            (ISR, ISR_LEN, Self::Isr),
            (DEVICE, DEVICE_LEN, Self::Device),
            (NOTIFY, NOTIFY_LEN, Self::Notify),
            (MSIX_TABLE, MSIX_TABLE_LEN, Self::Table),
            (MSIX_PBA, MSIX_PBA_LEN, Self::Pending),
        ];
        let hit = |(start, len, _): &(u64, u64, Self)| (*start..start + len).contains(&offset);
        places.into_iter().find(hit).map(|(_, _, what)| what)
    }
}

impl std::fmt::Debug for PciTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PciTransport")
            .field("name", &self.core.name)
            .field("status", &self.core.status())
            .finish_non_exhaustive()
    }
}
