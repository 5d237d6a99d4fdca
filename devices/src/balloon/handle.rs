//! The host's side of a balloon: asks the guest for memory and reads what it says. For any thread.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::context::Context;
use crate::device::Interrupt;
use crate::trace::event::{EventKind, FRAME_SIZE};

use super::config::{BalloonConfig, MAX_FRAMES};

/// A target that no balloon of this machine can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not a whole number of frames.
    #[error("a balloon of {bytes} bytes is not a whole number of pages: give a multiple of 4096")]
    NotPages {
        /// What was asked for.
        bytes: u64,
    },
    /// More than the guest has.
    #[error(
        "a balloon of {bytes} bytes is more than the guest's memory of {ram_bytes} bytes: give less"
    )]
    TooLarge {
        /// What was asked for.
        bytes: u64,
        /// RAM of the machine, or the most that a balloon can be.
        ram_bytes: u64,
    },
}

/// What is known of a balloon.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct BalloonState {
    /// Name of the device.
    pub name: String,
    /// Size that the host asks for, in bytes.
    pub target_bytes: u64,
    /// Size that the driver says it has, in bytes; a guest may say anything.
    pub actual_bytes: u64,
    /// Whether a driver is at work.
    pub active: bool,
    /// What the driver said last, by name; sizes in bytes. Empty until it has.
    pub statistics: BTreeMap<String, u64>,
    /// How often it said so.
    pub statistics_count: u64,
}

/// The host's side of one balloon; clones are the same one.
#[derive(Clone)]
pub struct BalloonHandle {
    shared: Arc<Shared>,
}

/// What the device's queues and the handle share. Each lock is a leaf: nothing is locked or called under it.
pub(super) struct Shared {
    name: String,
    ram_bytes: u64,
    context: Context,
    target_frames: AtomicU32,
    actual_frames: AtomicU32,
    poison: AtomicU32,
    generation: AtomicU32,
    interrupt: Mutex<Option<Arc<dyn Interrupt>>>,
    statistics: Mutex<(BTreeMap<String, u64>, u64)>,
    ask: EventFd,
}

/// What of it is in a snapshot.
#[derive(serde::Serialize, serde::Deserialize)]
struct Numbers {
    target_frames: u32,
    actual_frames: u32,
    poison: u32,
    generation: u32,
}

impl BalloonHandle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Asks the guest for a balloon of this size in bytes. It says so in the event log; what comes of it is in
    /// [`Self::state`], sooner or later or never.
    ///
    /// # Errors
    /// Not a whole number of pages, or more than the guest has. Nothing has changed then.
    pub fn set_target(&self, bytes: u64) -> Result<(), TargetError> {
        self.shared.set_target(bytes)
    }

    /// Asks the driver for statistics, which come into [`Self::state`] and the event log. Without effect while no driver
    /// offers any; several wishes before an answer are one.
    pub fn request_statistics(&self) {
        if let Err(error) = self.shared.ask.write(1) {
            log::error!("{}: cannot ask for statistics: {error}", self.shared.name);
        }
    }

    /// What is known now.
    #[must_use]
    pub fn state(&self) -> BalloonState {
        let shared = &self.shared;
        let (statistics, statistics_count) = lock(&shared.statistics).clone();
        BalloonState {
            name: shared.name.clone(),
            target_bytes: bytes(shared.target_frames.load(Ordering::Acquire)),
            actual_bytes: bytes(shared.actual_frames()),
            active: lock(&shared.interrupt).is_some(),
            statistics,
            statistics_count,
        }
    }
}

impl std::fmt::Debug for BalloonHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("BalloonHandle").field(&self.state()).finish()
    }
}

impl Shared {
    pub(super) fn new(config: &BalloonConfig, context: Context) -> io::Result<Self> {
        Ok(Self {
            name: config.name.clone(),
            ram_bytes: config.ram_bytes().min(MAX_FRAMES * FRAME_SIZE),
            context,
            target_frames: AtomicU32::new(0),
            actual_frames: AtomicU32::new(0),
            poison: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            interrupt: Mutex::default(),
            statistics: Mutex::default(),
            ask: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    pub(super) fn set_target(&self, bytes: u64) -> Result<(), TargetError> {
        if !bytes.is_multiple_of(FRAME_SIZE) {
            return Err(TargetError::NotPages { bytes });
        }
        let frames = u32::try_from(bytes / FRAME_SIZE).ok();
        let Some(frames) = frames.filter(|_| bytes <= self.ram_bytes) else {
            let ram_bytes = self.ram_bytes;
            return Err(TargetError::TooLarge { bytes, ram_bytes });
        };
        if self.target_frames.swap(frames, Ordering::AcqRel) == frames {
            return Ok(());
        }
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.context.tracer().emit(|| EventKind::BalloonTarget {
            device: self.name.clone(),
            bytes,
        });
        let interrupt = lock(&self.interrupt).clone();
        if let Some(interrupt) = interrupt {
            interrupt.signal_config();
        }
        Ok(())
    }

    pub(super) fn target_frames(&self) -> u32 {
        self.target_frames.load(Ordering::Acquire)
    }

    pub(super) fn actual_frames(&self) -> u32 {
        self.actual_frames.load(Ordering::Acquire)
    }

    /// The driver says how large the balloon is.
    pub(super) fn set_actual(&self, frames: u32) {
        self.actual_frames.store(frames, Ordering::Release);
        self.context.tracer().emit(|| EventKind::BalloonActual {
            device: self.name.clone(),
            bytes: bytes(frames),
            target_bytes: bytes(self.target_frames()),
        });
    }

    pub(super) fn poison(&self) -> u32 {
        self.poison.load(Ordering::Acquire)
    }

    pub(super) fn set_poison(&self, value: u32) {
        self.poison.store(value, Ordering::Release);
    }

    pub(super) fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// A driver begins, or with `None` ends, to work: a balloon that begins is empty.
    pub(super) fn connect(&self, interrupt: Option<Arc<dyn Interrupt>>) {
        if interrupt.is_none() {
            self.actual_frames.store(0, Ordering::Release);
            self.set_poison(0);
        }
        *lock(&self.interrupt) = interrupt;
    }

    /// For a snapshot.
    pub(super) fn save(&self) -> serde_json::Value {
        let numbers = Numbers {
            target_frames: self.target_frames(),
            actual_frames: self.actual_frames(),
            poison: self.poison(),
            generation: self.generation(),
        };
        serde_json::to_value(numbers).expect("four numbers")
    }

    /// As it was saved. A size that this machine cannot ask for is refused.
    pub(super) fn restore(&self, own: &serde_json::Value) -> Result<(), String> {
        let numbers: Numbers =
            serde_json::from_value(own.clone()).map_err(|error| error.to_string())?;
        if bytes(numbers.target_frames) > self.ram_bytes {
            let target = numbers.target_frames;
            return Err(format!(
                "a target of {target} pages is more than its memory"
            ));
        }
        self.target_frames
            .store(numbers.target_frames, Ordering::Release);
        self.actual_frames
            .store(numbers.actual_frames, Ordering::Release);
        self.generation.store(numbers.generation, Ordering::Release);
        self.set_poison(numbers.poison);
        Ok(())
    }

    /// The driver has told its statistics.
    pub(super) fn told(&self, statistics: BTreeMap<String, u64>) {
        self.context.tracer().emit(|| EventKind::BalloonStatistics {
            device: self.name.clone(),
            statistics: statistics.clone(),
        });
        let mut last = lock(&self.statistics);
        *last = (statistics, last.1 + 1);
    }

    /// Readable when somebody asks for statistics.
    pub(super) fn ask_fd(&self) -> RawFd {
        self.ask.as_raw_fd()
    }

    /// Whether somebody has asked since the last call.
    pub(super) fn take_wish(&self) -> bool {
        self.ask.read().is_ok()
    }
}

fn bytes(frames: u32) -> u64 {
    u64::from(frames) * FRAME_SIZE
}

/// Nothing panics while one of these is locked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
