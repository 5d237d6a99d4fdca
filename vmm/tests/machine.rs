//! The machine, with guests of a few instructions on this host's KVM. Skipped, with a word, where there is none.

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pincushion_vmm::agent_port::FromAgent;
use pincushion_vmm::console::Console;
use pincushion_vmm::machine::{Exit, MachineConfig, OnReset, Parts};
use support::{Payload, machine, machine_with};

/// Far more than any of these guests needs, on a loaded host too.
const LIMIT: Option<Duration> = Some(Duration::from_secs(60));

/// Runs `payload` to its end; `None` without KVM.
fn run(payload: &Payload, parts: Parts, limit: Option<Duration>) -> Option<Exit> {
    let kernel = payload.to_kernel();
    let mut running = machine(kernel.path(), parts)?.start().expect("threads");
    Some(running.wait(limit))
}

fn console_lines() -> (Console, Arc<Mutex<Vec<String>>>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = lines.clone();
    (
        Console::new().to_lines(move |line| {
            sink.lock()
                .expect("no panic while locked")
                .push(line.to_owned())
        }),
        lines,
    )
}

#[test]
fn a_guest_prints_and_powers_off() {
    let (console, lines) = console_lines();
    let payload = Payload::new()
        .print("hello\r\nworld")
        .power_off()
        .print("never")
        .spin();
    let Some(exit) = run(
        &payload,
        Parts {
            console,
            ..Default::default()
        },
        LIMIT,
    ) else {
        return;
    };
    assert_eq!(exit, Exit::PowerOff);
    assert_eq!(
        *lines.lock().unwrap(),
        ["hello", "world"],
        "nothing runs after power-off"
    );
}

/// The CPUs that the present thread may run on.
fn own_cpus() -> Vec<usize> {
    use rustix::thread::{CpuSet, sched_getaffinity};
    let set = sched_getaffinity(None).expect("the host says where a thread may run");
    (0..CpuSet::MAX_CPU)
        .filter(|cpu| set.is_set(*cpu))
        .collect()
}

#[test]
fn a_vcpu_runs_on_the_host_cpu_that_is_named_for_it() {
    for cpu in own_cpus() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = seen.clone();
        // Lines come on the vCPU's thread.
        let console = Console::new().to_lines(move |_| *sink.lock().unwrap() = own_cpus());
        let kernel = Payload::new()
            .print("here\n")
            .power_off()
            .spin()
            .to_kernel();
        let config = MachineConfig {
            memory_bytes: 4 << 20,
            cpu_affinity: cpu.to_string().parse().unwrap(),
            ..MachineConfig::new(kernel.path())
        };
        let parts = Parts {
            console,
            ..Default::default()
        };
        let Some(machine) = machine_with(config, parts) else {
            return;
        };
        assert_eq!(
            machine.start().expect("threads").wait(LIMIT),
            Exit::PowerOff
        );
        assert_eq!(*seen.lock().unwrap(), [cpu]);
    }
}

#[test]
fn messages_and_marks_arrive_in_the_order_of_the_guests_instructions() {
    use pincushion_abi::port;
    let log = Arc::new(Mutex::new(Vec::new()));
    let sink = log.clone();
    let agent = Box::new(move |event: FromAgent<'_>| {
        sink.lock().unwrap().push(match event {
            FromAgent::Message(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            FromAgent::Mark(mark) => format!("mark {mark}"),
        });
    });
    let payload = Payload::new()
        .outl(port::MARK, 2)
        .outl(port::DATA, u32::from_le_bytes(*b"hell"))
        .outl(port::DATA, u32::from_le_bytes(*b"o\0\0\0"))
        .outl(port::COMMIT, 5)
        .outl(port::MARK, 3)
        .power_off();
    let Some(exit) = run(
        &payload,
        Parts {
            agent: Some(agent),
            ..Default::default()
        },
        LIMIT,
    ) else {
        return;
    };
    assert_eq!(exit, Exit::PowerOff);
    assert_eq!(*log.lock().unwrap(), ["mark 2", "hello", "mark 3"]);
}

#[test]
fn lines_for_the_agent_wait_until_the_guest_reads_them() {
    let (console, lines) = console_lines();
    // Connects and enables the receive interrupt, then copies from the second serial port to the first up to a line end:
    // l: mov dx,0x2fd; in al,dx; test al,1; jz l; mov dx,0x2f8; in al,dx; mov dx,0x3f8; out dx,al; cmp al,10; jne l
    let echo = Payload::new()
        .outb(0x2fc, 0x08)
        .outb(0x2f9, 1)
        .code(&[0x66, 0xba, 0xfd, 0x02, 0xec, 0xa8, 0x01, 0x74, 0xf7])
        .code(&[
            0x66, 0xba, 0xf8, 0x02, 0xec, 0x66, 0xba, 0xf8, 0x03, 0xee, 0x3c, 0x0a, 0x75, 0xe9,
        ])
        .power_off();
    let kernel = echo.to_kernel();
    let Some(machine) = machine(
        kernel.path(),
        Parts {
            console,
            ..Default::default()
        },
    ) else {
        return;
    };
    let line = "x".repeat(1000);
    let agent = machine.agent_sender();
    agent.send(line.as_bytes());
    let mut running = machine.start().unwrap();
    agent.send(b"y\n");
    assert_eq!(running.wait(LIMIT), Exit::PowerOff);
    assert_eq!(*lines.lock().unwrap(), [line + "y"]);
}

#[test]
fn both_reset_registers_end_the_run_by_default() {
    for payload in [
        Payload::new().outb(0xcf9, 6),
        Payload::new().outb(0x64, 0xfe),
    ] {
        let Some(exit) = run(&payload.spin(), Parts::default(), LIMIT) else {
            return;
        };
        assert_eq!(exit, Exit::Reset);
    }
}

#[test]
fn a_guest_boots_again_after_a_reset_with_empty_memory() {
    use pincushion_abi::port;
    let marks = Arc::new(Mutex::new(Vec::new()));
    let sink = marks.clone();
    let agent = Box::new(move |event: FromAgent<'_>| {
        if let FromAgent::Mark(mark) = event {
            sink.lock().unwrap().push(mark);
        }
    });
    // Reports what memory holds at 2 MiB, stores 7 there, resets: mov eax,[0x200000]; mov dx,MARK; out dx,eax
    let payload = Payload::new()
        .code(&[0xa1, 0, 0, 0x20, 0, 0x66, 0xba])
        .code(&port::MARK.to_le_bytes())
        .code(&[0xef])
        .store(0x20_0000, 7)
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
            agent: Some(agent),
            ..Default::default()
        },
    ) else {
        return;
    };
    let mut running = machine.start().unwrap();
    while running.reboots() < 3 {
        let exit = running.wait_a_while(Duration::from_secs(1));
        assert_eq!(exit, None, "the machine goes on");
    }
    assert_eq!(running.stop(), Exit::Stopped);
    let marks = marks.lock().unwrap();
    assert!(
        marks.len() >= 3 && marks.iter().all(|mark| *mark == 0),
        "{marks:?}"
    );
}

#[test]
fn a_triple_fault_is_told_apart_from_a_reset() {
    // ud2, and no handler for anything
    let Some(exit) = run(&Payload::new().code(&[0x0f, 0x0b]), Parts::default(), LIMIT) else {
        return;
    };
    assert_eq!(exit, Exit::TripleFault { vcpu: 0 });
}

#[test]
fn the_limit_ends_a_guest_that_spins_and_one_that_sleeps() {
    let limit = Duration::from_millis(300);
    for (payload, halted) in [
        (Payload::new().spin(), false),
        (Payload::new().halt(), true),
    ] {
        let Some(exit) = run(&payload, Parts::default(), Some(limit)) else {
            return;
        };
        let Exit::Hang { limit: told, vcpus } = exit else {
            panic!("{exit:?}")
        };
        assert_eq!((told, vcpus.len(), vcpus[0].halted), (limit, 1, halted));
        assert!((0x10_0000..0x10_0010).contains(&vcpus[0].rip), "{vcpus:?}");
        let does = if halted { "sleeps in hlt, " } else { "runs, " };
        assert!(vcpus[0].summary.starts_with(does), "{vcpus:?}");
        // Both loop by a short jump, which the code at the instruction pointer shows.
        assert!(vcpus[0].details.contains(" eb "), "{vcpus:?}");
    }
}

#[test]
fn a_kernel_panic_is_seen_on_the_console_and_its_end_ends_the_run() {
    let payload = Payload::new()
        .print("[    0.1] Kernel panic - not syncing: it is broken\n")
        .print("[    0.2] Call Trace:\n")
        .print("[    0.3] ---[ end Kernel panic - not syncing: it is broken ]---\n")
        .spin();
    let Some(exit) = run(&payload, Parts::default(), LIMIT) else {
        return;
    };
    assert_eq!(
        exit,
        Exit::Panic {
            message: "it is broken".into()
        }
    );
}

#[test]
fn a_kernel_that_resets_after_its_panic_has_panicked() {
    let payload = Payload::new()
        .print("Kernel panic - not syncing: x\n")
        .outb(0xcf9, 6)
        .spin();
    let Some(exit) = run(&payload, Parts::default(), LIMIT) else {
        return;
    };
    assert_eq!(
        exit,
        Exit::Panic {
            message: "x".into()
        }
    );
}

#[test]
fn a_panic_by_pvpanic_needs_no_console() {
    let Some(exit) = run(
        &Payload::new().outb(0x505, 1).spin(),
        Parts::default(),
        LIMIT,
    ) else {
        return;
    };
    assert_eq!(
        exit,
        Exit::Panic {
            message: String::new()
        }
    );
}

#[test]
fn a_stop_handle_stops_from_another_thread_and_the_exit_stays() {
    let kernel = Payload::new().halt().to_kernel();
    let Some(machine) = machine(kernel.path(), Parts::default()) else {
        return;
    };
    let stop = machine.stop_handle();
    let mut running = machine.start().unwrap();
    std::thread::spawn(move || stop.stop()).join().unwrap();
    assert_eq!(running.wait(LIMIT), Exit::Stopped);
    assert_eq!(running.wait(LIMIT), Exit::Stopped);
}

#[test]
fn sixteen_vcpus_start_and_stop() {
    let kernel = Payload::new().spin().to_kernel();
    let config = MachineConfig {
        memory_bytes: 4 << 20,
        vcpus: 16,
        ..MachineConfig::new(kernel.path())
    };
    let Some(machine) = machine_with(config, Parts::default()) else {
        return;
    };
    let exit = machine
        .start()
        .unwrap()
        .wait(Some(Duration::from_millis(100)));
    let Exit::Hang { vcpus, .. } = exit else {
        panic!("{exit:?}")
    };
    assert_eq!(vcpus.len(), 16);
    assert!(
        vcpus[1..].iter().all(|vcpu| vcpu.halted),
        "they wait for their start-up interrupt: {vcpus:?}"
    );
}

#[test]
fn a_handler_that_panics_ends_the_run_and_not_this_process() {
    use pincushion_abi::port;
    let agent = Box::new(|_: FromAgent<'_>| panic!("a bug in the caller"));
    let payload = Payload::new().outl(port::MARK, 1).spin();
    let parts = Parts {
        agent: Some(agent),
        ..Default::default()
    };
    let Some(exit) = run(&payload, parts, LIMIT) else {
        return;
    };
    let Exit::Failed { reason } = exit else {
        panic!("{exit:?}")
    };
    assert!(reason.contains("panic"), "{reason}");
}
