//! Nothing of a machine is left behind. One test in a program of its own, since it counts what the process has.

mod support;

use std::time::Duration;

use pincushion_vmm::machine::{Exit, MachineConfig, OnReset, Parts};
use support::{Payload, machine_with};

fn count(what: &str) -> usize {
    std::fs::read_dir(format!("/proc/self/{what}"))
        .expect("procfs")
        .count()
}

fn mappings_of_guest_memory() -> usize {
    std::fs::read_to_string("/proc/self/maps")
        .expect("procfs")
        .lines()
        .filter(|line| line.contains("pincushion-ram"))
        .count()
}

#[test]
fn threads_descriptors_and_memory_are_gone_after_every_kind_of_end() {
    let before = (count("task"), count("fd"), mappings_of_guest_memory());
    let ends = [
        (Payload::new().power_off(), OnReset::Exit),
        (Payload::new().spin(), OnReset::Exit),
        (Payload::new().halt(), OnReset::Exit),
        (Payload::new().outb(0xcf9, 6).spin(), OnReset::Reboot),
        (Payload::new().code(&[0x0f, 0x0b]), OnReset::Exit),
    ];
    for (payload, on_reset) in ends {
        let kernel = payload.to_kernel();
        let config = MachineConfig {
            memory_bytes: 4 << 20,
            vcpus: 2,
            on_reset,
            ..MachineConfig::new(kernel.path())
        };
        let Some(machine) = machine_with(config.clone(), Parts::default()) else {
            return;
        };
        let exit = machine
            .start()
            .unwrap()
            .wait(Some(Duration::from_millis(200)));
        assert_ne!(exit, Exit::Stopped);
        let made = machine_with(config.clone(), Parts::default()).unwrap();
        drop(made);
        let running = machine_with(config, Parts::default())
            .unwrap()
            .start()
            .unwrap();
        drop(running);
    }
    assert_eq!(
        (count("task"), count("fd"), mappings_of_guest_memory()),
        before
    );
}
