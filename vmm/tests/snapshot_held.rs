//! A request that is held when a machine is saved: another machine completes it. Skipped, with a word, without KVM.

mod support;

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pincushion_devices::backend::MemoryDisk;
use pincushion_devices::blk::{BlkConfig, BlkDevice};
use pincushion_devices::context::Context;
use pincushion_devices::device::SharedDevice;
use pincushion_devices::fault::Plan;
use pincushion_devices::trace::{Event, EventKind, Tracer};
use pincushion_vmm::console::Console;
use pincushion_vmm::machine::{
    Exit, Machine, MachineConfig, MachineError, Parts, Running, Transport,
};
use pincushion_vmm::snapshot::{Check, Likeness, Snapshot};
use support::{Payload, machine_with};

const LIMIT: Duration = Duration::from_secs(60);

/// The window of the first device.
const WINDOW: u32 = 0xd000_0000;
const TABLE: u32 = 0x1_0000;
const AVAIL: u32 = 0x1_1000;
const USED: u32 = 0x1_2000;
const HEADER: u32 = 0x2_0000;
const DATA: u32 = 0x3_0000;
const STATUS: u32 = 0x4_0000;

/// Reads a sector, says so, waits for the answer by looking at the used index, and prints the first byte.
fn reading_guest() -> Payload {
    let register =
        |payload: Payload, offset: u32, value: u32| payload.store(WINDOW + offset, value);
    let descriptor = |payload: Payload, index: u32, addr: u32, len: u32, flags_and_next: u32| {
        let at = TABLE + 16 * index;
        payload
            .store(at, addr)
            .store(at + 8, len)
            .store(at + 12, flags_and_next)
    };
    let payload = [(0x70, 1), (0x70, 3), (0x24, 1), (0x20, 1), (0x70, 0xb)]
        .into_iter()
        .fold(Payload::new(), |payload, (offset, value)| {
            register(payload, offset, value)
        });
    let set_up = [
        (0x30, 0),
        (0x38, 16),
        (0x80, TABLE),
        (0x90, AVAIL),
        (0xa0, USED),
        (0x44, 1),
        (0x70, 0xf),
    ];
    let payload = set_up
        .into_iter()
        .fold(payload, |payload, (offset, value)| {
            register(payload, offset, value)
        });
    // A read (type 0) of sector 3; NEXT is 1, WRITE is 2.
    let payload = payload.store(HEADER + 8, 3);
    let payload = descriptor(payload, 0, HEADER, 16, 1 | 1 << 16);
    let payload = descriptor(payload, 1, DATA, 512, 3 | 2 << 16);
    let payload = descriptor(payload, 2, STATUS, 1, 2);
    let payload = payload.store(AVAIL, 1 << 16);
    register(payload, 0x50, 0)
        .print("offered\n")
        .wait_for(USED, 0xffff_0000)
        .load_byte(DATA)
        // mov dx,0x3f8; out dx,al
        .code(&[0x66, 0xba, 0xf8, 0x03, 0xee])
        .print("\n")
        .power_off()
}

struct Room {
    context: Context,
    events: Receiver<Arc<Event>>,
    heard: Receiver<String>,
    parts: Parts,
}

/// A machine's parts with one disk, filled with `byte`.
fn room(plan: &str, id: &str, byte: u8) -> Room {
    let tracer = Arc::new(Tracer::new());
    let events = tracer.subscribe();
    let plan = Plan::parse(plan, Path::new("plan.toml")).expect("a good plan");
    let context = Context::new(plan, tracer.clone()).expect("a good plan");
    let disk = Box::new(MemoryDisk::from_bytes(vec![byte; 1 << 20]));
    let disk = BlkDevice::new(BlkConfig::new(id), disk, context.clone()).expect("a good disk");
    let (lines, heard) = channel();
    let parts = Parts {
        devices: vec![Arc::new(Mutex::new(disk)) as SharedDevice],
        console: Console::new().to_lines(move |line| {
            let _ = lines.send(line.to_owned());
        }),
        tracer,
        ..Parts::default()
    };
    Room {
        context,
        events,
        heard,
        parts,
    }
}

fn in_background(mut running: Running) -> std::thread::JoinHandle<Exit> {
    std::thread::spawn(move || running.wait(Some(LIMIT)))
}

/// # Panics
/// It does not happen.
fn until(events: &Receiver<Arc<Event>>, happens: fn(&EventKind) -> bool) {
    while !happens(&events.recv_timeout(LIMIT).expect("an event").kind) {}
}

#[test]
fn a_request_that_was_held_is_completed_by_the_restored_machine() {
    const GATED: &str = "[[rule]]\nhold = { gate = \"g\" }\n";
    let kernel = reading_guest().to_kernel();
    let config = MachineConfig {
        memory_bytes: 4 << 20,
        transport: Transport::Mmio,
        ..MachineConfig::new(kernel.path())
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("held.snapshot");
    let first = room(GATED, "a", b'1');
    let Some(machine) = machine_with(config.clone(), first.parts) else {
        return;
    };
    let remote = machine.remote();
    let end = in_background(machine.start().unwrap());
    assert_eq!(first.heard.recv_timeout(LIMIT).unwrap(), "offered");
    until(&first.events, |kind| {
        matches!(kind, EventKind::Parked { .. })
    });
    remote.snapshot(&path, "").unwrap();
    // The first machine has lost nothing by it.
    first.context.gates().open("g");
    assert_eq!(first.heard.recv_timeout(LIMIT).unwrap(), "1");
    assert_eq!(end.join().unwrap(), Exit::PowerOff);

    let snapshot = Snapshot::open(&path, Check::Whole).unwrap();
    let second = room(GATED, "a", b'2');
    let machine =
        Machine::restore(config.clone(), second.parts, &snapshot, Likeness::Same).unwrap();
    let end = in_background(machine.start().unwrap());
    until(&second.events, |kind| {
        matches!(kind, EventKind::Fetched { .. })
    });
    until(&second.events, |kind| {
        matches!(kind, EventKind::Parked { .. })
    });
    assert_eq!(second.context.waiting().len(), 1);
    assert!(second.heard.try_recv().is_err(), "it waits");
    second.context.gates().open("g");
    assert_eq!(second.heard.recv_timeout(LIMIT).unwrap(), "2");
    assert_eq!(end.join().unwrap(), Exit::PowerOff);

    let named = room("", "b", b'3');
    let refused = Machine::restore(config.clone(), named.parts, &snapshot, Likeness::Same);
    let Err(error @ MachineError::Snapshot(_)) = refused.map(|_| ()) else {
        panic!("a disk of another name was taken");
    };
    assert!(
        error.to_string().contains("it is `a` there, `b` here"),
        "{error}"
    );
    let late = room("", "b", b'3');
    let refused = Machine::restore(config, late.parts, &snapshot, Likeness::BeforeDrivers);
    let said = refused.map(|_| ()).unwrap_err().to_string();
    assert!(said.contains("a driver had begun"), "{said}");
}
