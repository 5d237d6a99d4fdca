//! A device without a host side, for machine tests: it rings when it is kicked.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use pincushion_devices::device::{
    ActivateError, Activation, Interrupt, QueueService, SharedDevice, SharedQueue, VirtioDevice,
};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const VERSION_1: u64 = 1 << 32;

/// What happened to a [`Bell`].
#[derive(Default)]
pub struct Seen {
    pub activated: AtomicU32,
    pub resets: AtomicU32,
    pub wakes: AtomicU32,
    pub kicks: [AtomicU32; 2],
}

/// A device that answers each kick with an interrupt, either at once or after it woke itself.
pub struct Bell {
    seen: Arc<Seen>,
    rope: Rope,
    clappers: Vec<SharedQueue>,
}

/// The way to the guest, while there is one.
type Rope = Arc<Mutex<Option<Arc<dyn Interrupt>>>>;

impl Bell {
    pub fn shared() -> (SharedDevice, Arc<Seen>) {
        let seen = Arc::new(Seen::default());
        let rope = Rope::default();
        let clapper = |index| -> SharedQueue {
            Arc::new(Mutex::new(Clapper {
                index,
                seen: seen.clone(),
                wake: EventFd::new(EFD_NONBLOCK).expect("an eventfd"),
                interrupt: rope.clone(),
            }))
        };
        let clappers = (0..2).map(clapper).collect();
        let bell = Self {
            seen: seen.clone(),
            rope,
            clappers,
        };
        (Arc::new(Mutex::new(bell)), seen)
    }
}

impl VirtioDevice for Bell {
    fn name(&self) -> &str {
        "bell"
    }
    fn device_type(&self) -> u32 {
        42
    }
    fn features(&self) -> u64 {
        VERSION_1
    }
    fn queue_max_sizes(&self) -> &[u16] {
        &[16, 16]
    }
    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}
    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        self.seen.activated.fetch_add(1, Ordering::SeqCst);
        *self.rope.lock().expect("nobody panicked") = Some(activation.interrupt);
        Ok(())
    }
    fn reset(&mut self) {
        self.seen.resets.fetch_add(1, Ordering::SeqCst);
        *self.rope.lock().expect("nobody panicked") = None;
    }
    fn queues(&self) -> Vec<SharedQueue> {
        self.clappers.clone()
    }
}

/// A queue of it: the first rings at once, the second when it was woken.
struct Clapper {
    index: u16,
    seen: Arc<Seen>,
    wake: EventFd,
    interrupt: Rope,
}

impl Clapper {
    fn ring(&self) {
        if let Some(interrupt) = &*self.interrupt.lock().expect("nobody panicked") {
            interrupt.signal_queue(self.index);
        }
    }
}

impl QueueService for Clapper {
    fn on_kick(&mut self) {
        self.seen.kicks[usize::from(self.index)].fetch_add(1, Ordering::SeqCst);
        match self.index {
            0 => self.ring(),
            _ => self.wake.write(1).expect("an eventfd takes 1"),
        }
    }
    fn wake_fd(&self) -> RawFd {
        self.wake.as_raw_fd()
    }
    fn on_wake(&mut self) {
        self.wake.read().expect("it is readable");
        self.seen.wakes.fetch_add(1, Ordering::SeqCst);
        self.ring();
    }
}
