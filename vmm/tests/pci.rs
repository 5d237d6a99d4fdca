//! Virtio devices on a PCI bus in a machine: configuration mechanism, BARs that move, vectors, the pin, reset. Skipped
//! without KVM.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pincushion_devices::device::SharedDevice;
use pincushion_vmm::machine::{
    Exit, Machine, MachineConfig, MachineError, OnReset, Parts, Transport,
};
use support::bell::{Bell, Seen};
use support::{Payload, machine_with};

const LIMIT: Option<Duration> = Some(Duration::from_secs(60));

/// Where the first device's BAR is placed, and places in it.
const BAR: u32 = 0xc000_0000;
const DRIVER_FEATURE_SELECT: u32 = 0x08;
const DRIVER_FEATURE: u32 = 0x0c;
const DEVICE_STATUS: u32 = 0x14;
const QUEUE_SELECT: u32 = 0x16;
const QUEUE_MSIX_VECTOR: u32 = 0x1a;
const ISR: u32 = 0x1000;
const NOTIFY: u32 = 0x3000;
const MSIX_TABLE: u32 = 0x4000;

/// Where ECAM has the first device's configuration space.
const ECAM: u32 = 0xe000_0000 + (1 << 15);

/// The guest writes a register of the configuration space of the function in `slot`.
trait Pci {
    fn config(self, slot: u32, register: u32, value: u32) -> Self;
    fn driver(self, bar: u32) -> Self;
    fn vector(self, bar: u32) -> Self;
}

impl Pci for Payload {
    fn config(self, slot: u32, register: u32, value: u32) -> Self {
        self.outl(0xcf8, 1 << 31 | slot << 11 | register)
            .outl(0xcfc, value)
    }

    fn driver(self, bar: u32) -> Self {
        self.store_byte(bar + DEVICE_STATUS, 1)
            .store_byte(bar + DEVICE_STATUS, 3)
            .store(bar + DRIVER_FEATURE_SELECT, 1)
            .store(bar + DRIVER_FEATURE, 1)
            .store_byte(bar + DEVICE_STATUS, 0xb)
            .store_byte(bar + DEVICE_STATUS, 0xf)
    }

    /// Vector 1, unmasked, is interrupt 0x40 of the boot processor, and both queues have it.
    fn vector(self, bar: u32) -> Self {
        let entry = bar + MSIX_TABLE + 16;
        let payload = self
            .store(0xfee0_00f0, 0x1ff)
            .config(1, 0x40, 0x8000_0000)
            .store(entry, 0xfee0_0000)
            .store(entry + 8, 0x40)
            .store(entry + 12, 0);
        (0..2).fold(payload, |payload, queue| {
            payload
                .store_word(bar + QUEUE_SELECT, queue)
                .store_word(bar + QUEUE_MSIX_VECTOR, 1)
        })
    }
}

/// Memory accesses are decoded, and the function may send messages.
const DECODE: u32 = 6;

fn start(kernel: &Path, devices: Vec<SharedDevice>, on_reset: OnReset) -> Option<Machine> {
    let config = MachineConfig {
        memory_bytes: 4 << 20,
        transport: Transport::Pci,
        on_reset,
        ..MachineConfig::new(kernel)
    };
    let parts = Parts {
        devices,
        ..Default::default()
    };
    machine_with(config, parts)
}

fn run(payload: &Payload) -> Option<Arc<Seen>> {
    let (device, seen) = Bell::shared();
    let kernel = payload.to_kernel();
    let machine = start(kernel.path(), vec![device], OnReset::Exit)?;
    let exit = machine.start().expect("threads").wait(LIMIT);
    assert_eq!(exit, Exit::PowerOff);
    Some(seen)
}

/// Interrupts are off, so the vector stays pending in the local APIC.
fn until_interrupted(payload: Payload) -> Payload {
    payload.wait_for(0xfee0_0220, 1)
}

#[test]
fn a_kick_reaches_the_device_and_its_vector_the_guest() {
    for queue in [0, 1] {
        let payload = Payload::new()
            .config(1, 4, DECODE)
            .vector(BAR)
            .driver(BAR)
            .store_word(BAR + NOTIFY + 4 * queue, 7);
        let Some(seen) = run(&until_interrupted(payload).power_off()) else {
            return;
        };
        let kicks = seen.kicks[queue as usize].load(Ordering::SeqCst);
        assert_eq!((seen.activated.load(Ordering::SeqCst), kicks), (1, 1));
    }
}

#[test]
fn without_vectors_the_guest_hears_the_pin() {
    // Slot 1, INTA#: pin 17 of the I/O APIC, level triggered.
    let payload = Payload::new()
        .store(0xfee0_00f0, 0x1ff)
        .store(0xfec0_0000, 0x10 + 2 * 17)
        .store(0xfec0_0010, 0x8040)
        .store(0xfec0_0000, 0x11 + 2 * 17)
        .store(0xfec0_0010, 0)
        .config(1, 4, DECODE)
        .driver(BAR)
        .store_word(BAR + NOTIFY, 0);
    let payload = until_interrupted(payload).load_byte(BAR + ISR).power_off();
    run(&payload);
}

#[test]
fn a_bar_that_moves_takes_its_registers_and_kicks_along() {
    let moved = 0xc800_0000;
    let payload = Payload::new()
        .config(1, 4, DECODE)
        .vector(BAR)
        .driver(BAR)
        .store_word(BAR + NOTIFY, 0)
        .config(1, 0x10, moved)
        // Nobody is there any more.
        .store_word(BAR + NOTIFY, 0)
        .store_word(moved + NOTIFY + 4, 0);
    let Some(seen) = run(&until_interrupted(payload).power_off()) else {
        return;
    };
    assert_eq!(seen.kicks[0].load(Ordering::SeqCst), 1);
    assert_eq!(seen.kicks[1].load(Ordering::SeqCst), 1);
}

#[test]
fn a_bar_where_there_is_no_window_or_another_bar_harms_nobody() {
    let (first, seen) = Bell::shared();
    let (second, _) = Bell::shared();
    let places = [
        0,
        0x10_0000,
        0xe000_0000,
        0xfec0_0000,
        0xffff_8000,
        BAR + 0x8000,
    ];
    let payload = places.into_iter().fold(
        Payload::new().config(1, 4, DECODE).config(2, 4, DECODE),
        |payload, place| payload.config(1, 0x10, place),
    );
    let payload = payload
        .config(1, 0x10, BAR)
        .vector(BAR)
        .driver(BAR)
        .store_word(BAR + NOTIFY, 0);
    let payload = until_interrupted(payload).power_off();
    let kernel = payload.to_kernel();
    let Some(machine) = start(kernel.path(), vec![first, second], OnReset::Exit) else {
        return;
    };
    let exit = machine.start().expect("threads").wait(LIMIT);
    assert_eq!(exit, Exit::PowerOff);
    assert_eq!(seen.kicks[0].load(Ordering::SeqCst), 1);
}

#[test]
fn configuration_space_is_memory_too() {
    // mov eax,[ECAM]; cmp eax,0x106a1af4 (device 42); jne spin; then the BAR by way of ECAM
    let payload = Payload::new()
        .code(&[0xa1])
        .code(&ECAM.to_le_bytes())
        .code(&[0x3d])
        .code(&0x106a_1af4u32.to_le_bytes())
        .code(&[0x75, 0xfe])
        .store(ECAM + 4, DECODE)
        .driver(BAR)
        .power_off();
    let Some(seen) = run(&payload) else {
        return;
    };
    assert_eq!(seen.activated.load(Ordering::SeqCst), 1);
}

#[test]
fn a_rebooting_guest_finds_its_functions_reset_and_in_place() {
    let (device, seen) = Bell::shared();
    let payload = Payload::new()
        .config(1, 4, DECODE)
        .vector(BAR)
        .driver(BAR)
        .store_word(BAR + NOTIFY, 0);
    let payload = until_interrupted(payload)
        .config(1, 0x10, 0xc800_0000)
        .outb(0xcf9, 6)
        .spin();
    let kernel = payload.to_kernel();
    let Some(machine) = start(kernel.path(), vec![device], OnReset::Reboot) else {
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
fn there_is_room_for_248_functions_and_no_more() {
    let devices = |count| (0..count).map(|_| Bell::shared().0).collect();
    let payload = Payload::new().power_off();
    let kernel = payload.to_kernel();
    let Some(machine) = start(kernel.path(), devices(40), OnReset::Exit) else {
        return;
    };
    let exit = machine.start().expect("threads").wait(LIMIT);
    assert_eq!(exit, Exit::PowerOff);
    let config = MachineConfig {
        memory_bytes: 4 << 20,
        transport: Transport::Pci,
        ..MachineConfig::new(kernel.path())
    };
    let parts = Parts {
        devices: devices(249),
        ..Default::default()
    };
    let refused = Machine::new(config, parts).err();
    assert!(
        matches!(
            refused,
            Some(MachineError::TooManyDevices {
                count: 249,
                room: 248
            })
        ),
        "{refused:?}"
    );
}
