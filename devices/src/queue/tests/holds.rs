//! Parked requests: what they wait for, who lets them go, and what a reset does to them.

use super::{Bench, Room, activate, config};
use crate::backend::MemoryDisk;
use crate::blk::BlkConfig;
use crate::device::VirtioDevice;
use crate::mock::ByHand;
use crate::mock::{Driver, UNANSWERED};
use crate::trace::EventKind;
use crate::trace::event::{FRAME_SIZE, Moment, Until};

const GATED: &str = "[[rule]]\nname = \"hold\"\ndevice = \"a\"\nhold = { gate = \"g\" }\n";

#[test]
fn a_gated_read_keeps_its_page_until_the_gate_opens() {
    let room = Room::new(GATED);
    let Bench {
        device, mut driver, ..
    } = room.device(config("a"));
    let frame = driver.data(0) / FRAME_SIZE;
    let head = driver.read(7, &[driver.range(0, 4096)]);
    device.on_kick(0);
    device.on_wake();

    assert_eq!(
        room.words(),
        ["fetched", "hold-opened", "fault-applied", "parked"]
    );
    assert_eq!(driver.status(head), UNANSWERED);
    assert!(room.context.ledger().is_held(frame));
    let waiting = room.context.waiting();
    assert_eq!(waiting.len(), 1);
    assert_eq!(waiting[0].until, Until::Gate("g".into()));
    assert_eq!(waiting[0].request.to_string(), "a:0#0");

    room.context.gates().open("g");
    assert_eq!(
        driver.status(head),
        UNANSWERED,
        "opening only leaves a message"
    );
    device.on_wake();
    assert_eq!(
        room.words(),
        [
            "gate-opened",
            "released",
            "touch-began",
            "touch-ended",
            "executed",
            "hold-closed",
            "used",
            "signalled"
        ]
    );
    assert_eq!(driver.status(head), 0);
    assert!(!room.context.ledger().is_held(frame) && room.context.waiting().is_empty());
}

#[test]
fn a_request_may_be_held_after_it_was_executed() {
    let room = Room::new("[[rule]]\npoint = \"executed\"\nhold = { gate = \"g\" }\n");
    let Bench {
        device, mut driver, ..
    } = room.device(config("a"));
    let head = driver.read(7, &[driver.range(0, 512)]);
    device.on_kick(0);
    assert_eq!(
        driver.get(driver.data(0), 512),
        [7; 512],
        "the bytes are there"
    );
    assert_eq!(driver.status(head), UNANSWERED, "the answer is not");
    assert!(room.context.ledger().is_held(driver.data(0) / FRAME_SIZE));
    room.context.gates().open("g");
    device.on_wake();
    assert_eq!(driver.status(head), 0);
}

#[test]
fn a_duration_ends_on_the_clock_and_earlier_ones_first() {
    let room = Room::new(
        "[[rule]]\nordinals = { from = 0, to = 1 }\nhold = { for-ms = 20 }\n\
         [[rule]]\nhold = { for-ms = 10 }\n",
    );
    let Bench {
        device, mut driver, ..
    } = room.device(config("a"));
    let heads = [
        driver.read(0, &[driver.range(0, 512)]),
        driver.read(0, &[driver.range(1, 512)]),
    ];
    device.on_kick(0);
    let statuses_after = |ns| {
        room.clock.advance_ns(ns);
        device.on_wake();
        heads.map(|head| driver.status(head))
    };
    assert_eq!(statuses_after(9_999_999), [UNANSWERED, UNANSWERED]);
    assert_eq!(statuses_after(1), [UNANSWERED, 0]);
    assert_eq!(statuses_after(10_000_000), [0, 0]);
}

#[test]
fn a_reset_abandons_what_is_held_and_the_device_works_again() {
    let room = Room::new(GATED);
    let Bench {
        mut device,
        mut driver,
        interrupt,
    } = room.device(config("a"));
    let head = driver.read(0, &[driver.range(0, 512)]);
    device.on_kick(0);
    let _ = room.words();
    device.reset();
    device.reset();
    assert_eq!(room.words(), ["hold-closed abandoned", "device-reset"]);
    assert!(!room.context.ledger().is_held(driver.data(0) / FRAME_SIZE));
    assert!(room.context.waiting().is_empty());

    room.context.gates().open("g");
    device.on_wake();
    assert_eq!(
        driver.status(head),
        UNANSWERED,
        "nobody answers an abandoned request"
    );

    driver.reset();
    activate(&mut device, &driver, &interrupt);
    let head = driver.read(5, &[driver.range(0, 512)]);
    device.on_kick(0);
    assert_eq!(driver.status(head), 0);
    let fetched = room
        .recording
        .take()
        .into_iter()
        .find_map(|event| match &event.kind {
            EventKind::Fetched { request, .. } => Some(request.ordinal),
            _ => None,
        });
    assert_eq!(fetched, Some(1), "ordinals go on after a reset");
}

#[test]
fn a_release_that_was_under_way_at_a_reset_does_not_hit_the_next_request() {
    let room = Room::new(
        "[[rule]]\nordinals = { from = 0, to = 1 }\nhold = { gate = \"old\" }\n[[rule]]\nhold = { gate = \"new\" }\n",
    );
    let Bench {
        mut device,
        mut driver,
        interrupt,
    } = room.device(config("a"));
    driver.read(0, &[driver.range(0, 512)]);
    device.on_kick(0);
    room.context.gates().open("old");
    device.reset();
    driver.reset();
    activate(&mut device, &driver, &interrupt);
    let head = driver.read(0, &[driver.range(0, 512)]);
    device.on_kick(0);
    device.on_wake();
    assert_eq!(driver.status(head), UNANSWERED);
    assert_eq!(room.context.gates().awaited(), [("new".to_owned(), 1)]);
}

#[test]
fn the_end_of_the_machine_lets_everything_go_and_names_idle_rules() {
    let room = Room::new(&format!(
        "{GATED}[[rule]]\nname = \"idle\"\ndevice = \"nobody\"\nverify = true\n"
    ));
    let Bench {
        device, mut driver, ..
    } = room.device(config("a"));
    let first = driver.read(0, &[driver.range(0, 512)]);
    device.on_kick(0);
    let _ = room.words();
    room.context.finish();
    room.context.finish();
    device.on_wake();
    let second = driver.read(0, &[driver.range(0, 512)]);
    device.on_kick(0);
    assert_eq!((driver.status(first), driver.status(second)), (0, 0));
    let words = room.words();
    assert_eq!(words[..2], ["rule-unmatched", "released"], "{words:?}");
    assert!(!words.contains(&"parked".to_owned()), "{words:?}");
}

/// Hashes of the three moments of a write whose page the guest changes while it is held.
fn hashes_of_a_changed_page(fetch: &str) -> Vec<(Moment, String)> {
    let room = Room::new(&format!(
        "[[rule]]\noperation = \"write\"\nfetch = \"{fetch}\"\nhold = {{ gate = \"g\" }}\n"
    ));
    let Bench {
        device, mut driver, ..
    } = room.device(BlkConfig::new("a"));
    driver.put(driver.data(0), &[1; 4096]);
    driver.write(0, &[driver.range(0, 4096)]);
    device.on_kick(0);
    driver.put(driver.data(0), &[2; 4096]);
    room.context.gates().open("g");
    device.on_wake();
    driver.read(0, &[driver.range(1, 512)]);
    device.on_kick(0);
    let expected = if fetch == "early" { [1; 512] } else { [2; 512] };
    assert_eq!(
        driver.get(driver.data(1), 512),
        expected,
        "{fetch}: what is on the disk"
    );
    let hashed = room
        .recording
        .take()
        .into_iter()
        .filter_map(|event| match &event.kind {
            EventKind::PayloadHashed { moment, pages, .. } => {
                Some((*moment, pages[0].hash.clone()))
            }
            _ => None,
        });
    hashed.collect()
}

#[test]
fn hashes_say_whether_the_old_or_the_new_bytes_went_to_the_disk() {
    let early = hashes_of_a_changed_page("early");
    let late = hashes_of_a_changed_page("late");
    let moments = [Moment::Fetch, Moment::Transfer, Moment::Completion];
    assert_eq!(
        early.iter().map(|(moment, _)| *moment).collect::<Vec<_>>(),
        moments
    );
    let (old, new) = (&early[0].1, &early[2].1);
    assert_ne!(old, new);
    assert_eq!(&early[1].1, old);
    assert_eq!(
        late.iter().map(|(_, hash)| hash).collect::<Vec<_>>(),
        [old, new, new]
    );
}

#[test]
fn ten_thousand_held_requests_cost_no_thread_and_open_in_any_order() {
    const HELD: u64 = 10_000;
    let rules = (0..4).map(|gate| {
        let (from, to) = (gate * HELD / 4, (gate + 1) * HELD / 4);
        format!(
            "[[rule]]\nordinals = {{ from = {from}, to = {to} }}\nhold = {{ gate = \"{gate}\" }}\n"
        )
    });
    let room = Room::new(&rules.collect::<String>());
    let big = BlkConfig {
        queue_size: 32768,
        ..config("a")
    };
    let driver = Driver::new(32768, 64);
    let Bench {
        device, mut driver, ..
    } = room.device_on(big, MemoryDisk::new(1 << 20), driver);
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let before = threads();
    let heads: Vec<u16> = (0..HELD)
        .map(|n| driver.read(0, &[driver.range(n % 64, 512)]))
        .collect();
    device.on_kick(0);
    // A turn is bounded, and the rest is announced by the wake descriptor.
    while room.context.waiting().len() < heads.len() {
        device.on_wake();
    }
    assert!(
        threads() <= before + 4,
        "tests run beside this one, but 10,000 requests do not add threads"
    );

    let mut done = 0;
    for gate in [2, 0, 3, 1] {
        room.context.gates().open(&gate.to_string());
        device.on_wake();
        done += driver.take_used().len();
        let mut quarters = heads.chunks(heads.len() / 4);
        assert!(
            quarters
                .nth(gate)
                .unwrap()
                .iter()
                .all(|head| driver.status(*head) == 0),
            "gate {gate}"
        );
    }
    assert_eq!(done, heads.len());
    assert!(room.context.waiting().is_empty());
}
