//! Two devices on one thread: one waits for the other, and gates are opened while a device is at work.

use crate::mock::ByHand;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use super::{Bench, Room, activate, config};
use crate::context::Context;
use crate::device::{Interrupt, VirtioDevice};
use crate::mock::UNANSWERED;
use crate::trace::{Event, EventKind};

/// Two devices in one guest memory: `a` waits for a point of `b` on the same frame.
fn two_devices(point: &str) -> (Room, Bench, Bench) {
    let room = Room::new(&format!(
        "[[rule]]\ndevice = \"a\"\nhold = {{ same-frame = {{ point = \"{point}\", device = \"b\" }} }}\n\
         [[rule]]\ndevice = \"b\"\nhold = {{ gate = \"b fetched\" }}\n\
         [[rule]]\ndevice = \"b\"\npoint = \"executed\"\nhold = {{ gate = \"b executed\" }}\n"
    ));
    let a = room.device(config("a"));
    let b = room.device(config("b"));
    (room, a, b)
}

#[test]
fn a_hold_ends_when_another_request_on_the_frame_reaches_the_point() {
    let stages = ["fetched", "executed", "completed"];
    for (index, point) in stages.iter().enumerate() {
        let (room, mut a, mut b) = two_devices(point);
        let head = a.driver.read(0, &[a.driver.range(0, 512)]);
        a.kick();
        assert_eq!(room.context.waiting().len(), 1);
        // The drivers have the same layout, so this is the same frame of the same (imagined) guest.
        b.driver.read(0, &[b.driver.range(0, 4096)]);
        for (stage, gate) in ["", "b fetched", "b executed"].iter().enumerate() {
            room.context.gates().open(gate);
            b.kick();
            b.device.on_wake();
            a.device.on_wake();
            let expected = if stage < index { UNANSWERED } else { 0 };
            assert_eq!(
                a.driver.status(head),
                expected,
                "waits for {point}, b is {}",
                stages[stage]
            );
        }
    }
}

#[test]
fn another_frame_ends_nothing() {
    let (room, mut a, mut b) = two_devices("fetched");
    a.driver.read(0, &[a.driver.range(0, 512)]);
    a.kick();
    b.driver.read(0, &[b.driver.range(1, 4096)]);
    b.kick();
    a.device.on_wake();
    assert_eq!(room.context.waiting().len(), 2);
}

/// Opens a gate whenever its device signals: on the device's thread, under the device's lock, in the middle of a turn.
struct Opens {
    context: Context,
    gate: &'static str,
}

impl Interrupt for Opens {
    fn signal_queue(&self, _queue: u16) {
        self.context.gates().open(self.gate);
    }
    fn signal_config(&self) {}
    fn signal_needs_reset(&self) {}
}

/// Names of all events so far that tell who was let go when, each with its device or gate.
fn story(room: &Room) -> Vec<String> {
    let tell = |event: &Arc<Event>| match &event.kind {
        EventKind::Parked { request, .. } => Some(format!("{} parked", request.device)),
        EventKind::Released { request, .. } => Some(format!("{} released", request.device)),
        EventKind::Executed { request, .. } => Some(format!("{} executed", request.device)),
        EventKind::Used { request, .. } => Some(format!("{} used", request.device)),
        EventKind::Signalled { device, .. } => Some(format!("{device} signalled")),
        EventKind::GateOpened { gate } => Some(format!("{gate} opened")),
        _ => None,
    };
    room.recording.take().iter().filter_map(tell).collect()
}

/// Fails if `turns` has not ended after a time that is long for any machine: locks wait for each other.
fn ends(turns: impl FnOnce() + Send + 'static) {
    let (done, ended) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        turns();
        // Nobody listens any more when the limit has passed.
        let _ = done.send(());
    });
    match ended.recv_timeout(Duration::from_secs(20)) {
        Err(RecvTimeoutError::Timeout) => {
            panic!("two devices on one thread: no turn ended in 20 s")
        }
        Ok(()) | Err(RecvTimeoutError::Disconnected) => {}
    }
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn a_gate_opened_inside_the_completion_of_another_device_lets_go_on_the_next_wake() {
    ends(|| {
        let room = Room::new(
            "[[rule]]\nordinals = { from = 0, to = 1 }\ndevice = \"a\"\nhold = { gate = \"g\" }\n",
        );
        let mut a = room.device(config("a"));
        let mut b = room.device(config("b"));
        let opens = Opens {
            context: room.context.clone(),
            gate: "g",
        };
        b.device.reset();
        activate(&mut b.device, &b.driver, &Arc::new(opens));
        let held = a.driver.read(0, &[a.driver.range(0, 512)]);
        a.kick();
        b.driver.read(0, &[b.driver.range(0, 512)]);
        b.kick();
        let inside = [
            "a parked",
            "b executed",
            "b used",
            "b signalled",
            "g opened",
        ];
        assert_eq!(story(&room), inside);
        assert_eq!(a.driver.status(held), UNANSWERED, "nobody calls into a");

        // A request that comes between the opening and the wake finds the gate open, and overtakes.
        let later = a.driver.read(0, &[a.driver.range(1, 512)]);
        a.kick();
        assert_eq!(a.driver.status(later), 0);
        a.device.on_wake();
        assert_eq!(a.driver.status(held), 0);
        let after = ["a executed", "a used", "a signalled"];
        let released = ["a released", "a executed", "a used", "a signalled"];
        assert_eq!(story(&room), [&after[..], &released[..]].concat());
        assert!(room.context.waiting().is_empty());
    });
}

#[test]
fn devices_that_let_each_other_go_from_within_their_turns_neither_block_nor_skip_a_turn() {
    ends(|| {
        // a waits for b on the same frame; b waits for a gate that opens between its kick and its wake; b's second
        // request, executed, waits for the gate that a's completion opens from within.
        let room = Room::new(
            "[[rule]]\ndevice = \"a\"\nhold = { same-frame = { point = \"executed\", device = \"b\" } }\n\
             [[rule]]\ndevice = \"b\"\nordinals = { from = 0, to = 1 }\nhold = { gate = \"go\" }\n\
             [[rule]]\ndevice = \"b\"\npoint = \"executed\"\nordinals = { from = 1, to = 2 }\nhold = { gate = \"back\" }\n",
        );
        let mut a = room.device(config("a"));
        let mut b = room.device(config("b"));
        let opens = Opens {
            context: room.context.clone(),
            gate: "back",
        };
        a.device.reset();
        activate(&mut a.device, &a.driver, &Arc::new(opens));

        a.driver.read(0, &[a.driver.range(0, 512)]);
        a.kick();
        // Both devices are the two disks of one guest: the same frame.
        b.driver.read(0, &[b.driver.range(0, 4096)]);
        b.driver.read(8, &[b.driver.range(1, 4096)]);
        b.kick();
        assert_eq!(
            story(&room),
            ["a parked", "b parked", "b executed", "b parked"]
        );
        room.context.gates().open("go");
        a.device.on_wake();
        assert_eq!(
            story(&room),
            ["go opened"],
            "a waits for b, not for b's gate"
        );
        b.device.on_wake();
        let first = ["b released", "b executed", "b used", "b signalled"];
        assert_eq!(story(&room), first, "a was told, but it is not its turn");
        a.device.on_wake();
        let told = [
            "a released",
            "a executed",
            "a used",
            "a signalled",
            "back opened",
        ];
        assert_eq!(story(&room), told);
        b.device.on_wake();
        assert_eq!(story(&room), ["b released", "b used", "b signalled"]);
        assert!(room.context.waiting().is_empty() && room.context.gates().awaited().is_empty());
    });
}
