//! Virtio devices in a machine: windows, kicks by ioeventfd, interrupts by irqfd, reset. Skipped without KVM.

mod support;

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pincushion_devices::device::{
    ActivateError, Activation, Interrupt, QueueService, SharedDevice, SharedQueue, VirtioDevice,
};
use pincushion_vmm::machine::{Exit, MachineConfig, MachineError, OnReset, Parts};
use support::{Payload, machine, machine_with};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const LIMIT: Option<Duration> = Some(Duration::from_secs(60));
const VERSION_1: u64 = 1 << 32;

/// The window of the first device, and its registers (virtio 1.2, 4.2.2).
const WINDOW: u32 = 0xd000_0000;
const DRIVER_FEATURES: u32 = WINDOW + 0x20;
const DRIVER_FEATURES_SEL: u32 = WINDOW + 0x24;
const QUEUE_NOTIFY: u32 = WINDOW + 0x50;
const STATUS: u32 = WINDOW + 0x70;

/// What happened to a [`Bell`].
#[derive(Default)]
struct Seen {
    activated: AtomicU32,
    resets: AtomicU32,
    wakes: AtomicU32,
    kicks: [AtomicU32; 2],
}

/// A device that answers each kick with an interrupt, either at once or after it woke itself.
struct Bell {
    seen: Arc<Seen>,
    rope: Rope,
    clappers: Vec<SharedQueue>,
}

/// The way to the guest, while there is one.
type Rope = Arc<Mutex<Option<Arc<dyn Interrupt>>>>;

impl Bell {
    fn shared() -> (SharedDevice, Arc<Seen>) {
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

/// Enables the local APIC and gives I/O APIC pin 16, the line of the first device, to vector 0x40.
fn with_interrupt_line() -> Payload {
    Payload::new()
        .store(0xfee0_00f0, 0x1ff)
        .store(0xfec0_0000, 0x10 + 2 * 16)
        .store(0xfec0_0010, 0x40)
        .store(0xfec0_0000, 0x11 + 2 * 16)
        .store(0xfec0_0010, 0)
}

/// Waits until vector 0x40 is pending in the local APIC: interrupts are off, so it stays there.
fn until_interrupted(payload: Payload) -> Payload {
    payload.wait_for(0xfee0_0220, 1)
}

fn with_driver(payload: Payload) -> Payload {
    payload
        .store(STATUS, 1)
        .store(STATUS, 3)
        .store(DRIVER_FEATURES_SEL, 1)
        .store(DRIVER_FEATURES, 1)
        .store(STATUS, 0xb)
        .store(STATUS, 0xf)
}

#[test]
fn a_kick_reaches_the_device_and_its_interrupt_the_guest() {
    for queue in [0, 1] {
        let (device, seen) = Bell::shared();
        let payload =
            until_interrupted(with_driver(with_interrupt_line()).store(QUEUE_NOTIFY, queue))
                .power_off();
        let kernel = payload.to_kernel();
        let Some(machine) = machine(
            kernel.path(),
            Parts {
                devices: vec![device],
                ..Default::default()
            },
        ) else {
            return;
        };
        let exit = machine.start().expect("threads").wait(LIMIT);
        assert_eq!(exit, Exit::PowerOff, "queue {queue}");
        let count = |counter: &AtomicU32| counter.load(Ordering::SeqCst);
        assert_eq!(
            (count(&seen.activated), count(&seen.kicks[queue as usize])),
            (1, 1)
        );
        assert_eq!(
            count(&seen.wakes),
            queue,
            "the second queue's answer comes by a wake"
        );
        assert!(
            count(&seen.resets) >= 1,
            "a device is reset when the run ends"
        );
    }
}

#[test]
fn the_guest_reads_the_devices_registers() {
    let (device, _) = Bell::shared();
    // mov eax,[WINDOW + 8]; cmp eax,42; jne spin; power off
    let payload = Payload::new()
        .code(&[0xa1])
        .code(&(WINDOW + 8).to_le_bytes())
        .code(&[0x83, 0xf8, 42, 0x75, 0xfe]);
    let kernel = payload.power_off().to_kernel();
    let Some(machine) = machine(
        kernel.path(),
        Parts {
            devices: vec![device],
            ..Default::default()
        },
    ) else {
        return;
    };
    assert_eq!(
        machine.start().expect("threads").wait(LIMIT),
        Exit::PowerOff
    );
}

#[test]
fn a_rebooting_guest_finds_its_devices_reset_and_working() {
    let (device, seen) = Bell::shared();
    let payload = until_interrupted(with_driver(with_interrupt_line()).store(QUEUE_NOTIFY, 0))
        .outb(0xcf9, 6)
        .spin();
    let kernel = payload.to_kernel();
    let config = MachineConfig {
        memory_bytes: 4 << 20,
        on_reset: OnReset::Reboot,
        ..MachineConfig::new(kernel.path())
    };
    let Some(machine) = machine_with(
        config,
        Parts {
            devices: vec![device],
            ..Default::default()
        },
    ) else {
        return;
    };
    let mut running = machine.start().expect("threads");
    while running.reboots() < 3 {
        assert_eq!(running.wait_a_while(Duration::from_millis(50)), None);
    }
    running.stop();
    assert!(seen.activated.load(Ordering::SeqCst) >= 3);
    assert!(seen.resets.load(Ordering::SeqCst) >= 3);
}

#[test]
fn there_are_fifteen_windows_and_a_sixteenth_device_is_refused() {
    let devices = |count| (0..count).map(|_| Bell::shared().0).collect();
    let kernel = Payload::new().power_off().to_kernel();
    let Some(machine) = machine(
        kernel.path(),
        Parts {
            devices: devices(15),
            ..Default::default()
        },
    ) else {
        return;
    };
    assert_eq!(
        machine.start().expect("threads").wait(LIMIT),
        Exit::PowerOff
    );
    let config = MachineConfig {
        memory_bytes: 4 << 20,
        ..MachineConfig::new(kernel.path())
    };
    let refused = pincushion_vmm::machine::Machine::new(
        config,
        Parts {
            devices: devices(16),
            ..Default::default()
        },
    );
    assert!(matches!(
        refused.err(),
        Some(MachineError::TooManyDevices {
            count: 16,
            room: 15
        })
    ));
}
