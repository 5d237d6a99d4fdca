//! Virtio devices by virtio-mmio in a machine: windows, kicks by ioeventfd, interrupts by irqfd, reset. Skipped without KVM.

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pincushion_vmm::machine::{
    Exit, Machine, MachineConfig, MachineError, OnReset, Parts, Transport,
};
use support::bell::Bell;
use support::{Payload, machine_with};

const LIMIT: Option<Duration> = Some(Duration::from_secs(60));

/// The window of the first device, and its registers (virtio 1.2, 4.2.2).
const WINDOW: u32 = 0xd000_0000;
const DRIVER_FEATURES: u32 = WINDOW + 0x20;
const DRIVER_FEATURES_SEL: u32 = WINDOW + 0x24;
const QUEUE_NOTIFY: u32 = WINDOW + 0x50;
const STATUS: u32 = WINDOW + 0x70;

/// A machine of one vCPU and 4 MiB with the kernel at `path`.
fn machine(path: &Path, parts: Parts) -> Option<Machine> {
    let config = MachineConfig {
        memory_bytes: 4 << 20,
        transport: Transport::Mmio,
        ..MachineConfig::new(path)
    };
    machine_with(config, parts)
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
        transport: Transport::Mmio,
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
        transport: Transport::Mmio,
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
