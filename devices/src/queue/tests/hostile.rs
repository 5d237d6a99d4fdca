//! Rings that no driver should make. Whatever is in them, the device answers as the specification says or ignores it;
//! it never panics, never hangs, and leaves no frame held.

use crate::mock::ByHand;
use std::sync::Arc;

use proptest::prelude::*;
use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};

use super::{Bench, Room, activate};
use crate::blk::{BlkConfig, BlkDevice};
use crate::context::Context;
use crate::device::VirtioDevice;
use crate::fault::Plan;
use crate::interrupt::Counting;
use crate::mock::{Desc, Driver, UNANSWERED, Used};
use crate::trace::EventKind;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

fn config() -> BlkConfig {
    BlkConfig {
        queue_size: 16,
        ..BlkConfig::new("a")
    }
}

fn setup() -> (Room, Bench) {
    let room = Room::new("");
    let bench = room.device(config());
    (room, bench)
}

/// What the device says that the guest did wrong, and what it got.
fn mistakes(room: &Room) -> Vec<(String, String)> {
    let events = room.recording.take().into_iter();
    let mistake = |kind: &EventKind| match kind {
        EventKind::GuestMistake { what, answer, .. } => Some((what.clone(), answer.clone())),
        _ => None,
    };
    events.filter_map(|event| mistake(&event.kind)).collect()
}

#[test]
fn the_flags_are_those_of_the_specification() {
    let flags = [VRING_DESC_F_NEXT, VRING_DESC_F_WRITE, VRING_DESC_F_INDIRECT];
    assert_eq!(flags, [NEXT, WRITE, INDIRECT].map(u32::from));
}

#[test]
fn a_chain_that_loops_is_given_back_unanswered() {
    let (room, mut bench) = setup();
    let head = bench.driver.read(0, &[bench.driver.range(0, 512)]);
    // The payload's descriptor (the second) points back to the head.
    bench
        .driver
        .put_desc(1, bench.driver.data(0), 512, NEXT | WRITE, head);
    bench.kick();
    assert_eq!(bench.driver.take_used(), [Used { head, len: 0 }]);
    assert_eq!(bench.driver.status(head), UNANSWERED);
    let said = mistakes(&room);
    assert!(said.len() == 1 && said[0].0.contains("a loop"), "{said:?}");
}

#[test]
fn a_bad_indirect_table_is_given_back_and_a_good_one_is_served() {
    let (room, mut bench) = setup();
    let table = bench.driver.data(1);
    let head = bench.driver.offer(&[Desc {
        addr: table,
        len: 48,
        writable: false,
    }]);
    let data = bench.driver.data(0);
    let entries = [
        (bench.driver.header(head), 16, NEXT, 1),
        (data, 512, NEXT | WRITE, 2),
        (bench.driver.status_addr(head), 1, WRITE, 0),
    ];
    for (index, (addr, len, flags, next)) in (0u64..).zip(entries) {
        let mut bytes = u64::to_le_bytes(addr).to_vec();
        bytes.extend(u32::to_le_bytes(len));
        bytes.extend(u16::to_le_bytes(flags));
        bytes.extend(u16::to_le_bytes(next));
        bench.driver.put(table + 16 * index, &bytes);
    }
    bench.driver.put_header(head, 0, 9);
    bench.driver.put_desc(head, table, 48, INDIRECT, 0);
    bench.kick();
    assert_eq!(bench.driver.status(head), 0);
    assert_eq!(bench.driver.get(data, 512), [9; 512]);
    assert_eq!(mistakes(&room), []);
    assert_eq!(bench.driver.take_used(), [Used { head, len: 513 }]);

    let head = bench.driver.offer(&[Desc {
        addr: table,
        len: 47,
        writable: false,
    }]);
    bench.driver.put_desc(head, table, 47, INDIRECT, 0);
    bench.kick();
    assert_eq!(bench.driver.take_used(), [Used { head, len: 0 }]);
    assert_eq!(mistakes(&room).len(), 1);
}

#[test]
fn an_index_that_jumps_and_a_head_outside_the_table_need_a_reset() {
    for broken in ["index", "head"] {
        let (
            room,
            Bench {
                mut device,
                mut driver,
                interrupt,
            },
        ) = setup();
        match broken {
            "index" => driver.publish(17),
            _ => driver.offer_head(16),
        }
        device.on_kick(0);
        device.on_kick(0);
        assert_eq!(interrupt.resets_needed(), 1, "{broken}: said once");
        let said = mistakes(&room);
        assert!(
            said.len() == 1 && said[0].1.contains("needs a reset"),
            "{said:?}"
        );

        device.reset();
        driver.reset();
        activate(&mut device, &driver, &interrupt);
        let head = driver.read(1, &[driver.range(0, 512)]);
        device.on_kick(0);
        assert_eq!(driver.status(head), 0, "{broken}: a reset cures it");
    }
}

#[test]
fn a_head_offered_again_while_it_is_held_is_an_event_and_ignored() {
    let room = Room::new("[[rule]]\nhold = { gate = \"g\" }\n");
    let Bench {
        device, mut driver, ..
    } = room.device(config());
    let head = driver.read(0, &[driver.range(0, 512)]);
    device.on_kick(0);
    driver.offer_head(head);
    device.on_kick(0);
    let said = mistakes(&room);
    assert!(
        said.len() == 1 && said[0].0.contains("offered again"),
        "{said:?}"
    );
    room.context.gates().open("g");
    device.on_wake();
    assert_eq!(driver.take_used().len(), 1);
}

#[test]
fn a_driver_that_wants_no_interrupts_gets_none_and_one_with_event_idx_is_told_where_it_asked() {
    let (_room, mut bench) = setup();
    bench.driver.set_avail_flags(1);
    bench.driver.flush();
    bench.kick();
    assert_eq!(bench.interrupt.queue_signals(), 0);

    let room = Room::new("");
    let Bench {
        mut device,
        mut driver,
        ..
    } = room.device(config());
    let interrupt = Arc::new(Counting::default());
    device.reset();
    assert!(device.accept_features(device.features()));
    device
        .activate(driver.activation(device.features(), interrupt.clone()))
        .unwrap();
    driver.set_used_event(1);
    let mut signals_after_flush = || {
        driver.flush();
        device.on_kick(0);
        interrupt.queue_signals()
    };
    assert_eq!(
        [
            signals_after_flush(),
            signals_after_flush(),
            signals_after_flush()
        ],
        [0, 1, 1]
    );
}

/// Memory of a ring and a guest that does anything with it.
#[derive(Debug, Clone)]
enum Move {
    Descriptor {
        index: u16,
        addr: u64,
        len: u32,
        flags: u16,
        next: u16,
    },
    Header {
        head: u16,
        kind: u32,
        sector: u64,
    },
    Offer(u16),
    Publish(u16),
    Scribble {
        offset: u64,
        byte: u8,
    },
    Kick,
    Wake,
    OpenGate,
    Reset,
}

fn moves() -> impl Strategy<Value = Move> {
    let addr = prop_oneof![4 => 0u64..0x12000, 1 => Just(u64::MAX), 1 => any::<u64>()];
    let len = prop_oneof![
        Just(0u32),
        Just(1),
        Just(16),
        Just(512),
        Just(4096),
        any::<u32>()
    ];
    let descriptor = (0u16..16, addr, len, 0u16..8, 0u16..18);
    let sector = prop_oneof![0u64..2100, any::<u64>()];
    prop_oneof![
        8 => descriptor.prop_map(|(index, addr, len, flags, next)| Move::Descriptor { index, addr, len, flags, next }),
        4 => (0u16..16, 0u32..15, sector).prop_map(|(head, kind, sector)| Move::Header { head, kind, sector }),
        4 => (0u16..16).prop_map(Move::Offer),
        1 => (0u16..17).prop_map(Move::Offer),
        1 => any::<u16>().prop_map(Move::Publish),
        1 => (0u64..0x1000, any::<u8>()).prop_map(|(offset, byte)| Move::Scribble { offset, byte }),
        6 => Just(Move::Kick),
        2 => Just(Move::Wake),
        1 => Just(Move::OpenGate),
        1 => Just(Move::Reset),
    ]
}

const HELD: &str = "[[rule]]\nordinals = { from = 2, to = 5 }\nhold = { gate = \"g\" }\n\
     [[rule]]\nhold = { same-frame = { point = \"fetched\" } }\ntimes = 2\n";

/// Every fault, each now and then, also several in one request.
const WRONG: &str = r#"
    [[rule]]
    probability = 0.2
    torn = { cache-lines = "random" }
    corrupt = { bits = 3 }
    duplicate = true
    [[rule]]
    probability = 0.2
    short = { share = 0.5 }
    fail = 9
    [[rule]]
    probability = 0.2
    late-touch = { after = { gate = "g" }, write = "noise" }
    [[rule]]
    probability = 0.2
    rogue-touch = { at = "random", bytes = 4096, write = "noise" }
    [[rule]]
    probability = 0.2
    late-touch = { write = "zeroes" }
    interrupt = { coalesce = 3 }
    [[rule]]
    probability = 0.02
    needs-reset = true
    [[rule]]
    point = "executed"
    probability = 0.5
    reorder = { window = 3 }
    [[rule]]
    point = "completed"
    probability = 0.2
    duplicate = true
    config-changes = 3
    interrupt = "drop"
"#;

fn play(plan: &str, moves: &[Move]) -> (Context, BlkDevice, Driver) {
    let room = Room::new(plan);
    let Bench {
        mut device,
        mut driver,
        interrupt,
    } = room.device(config());
    for step in moves {
        match *step {
            Move::Descriptor {
                index,
                addr,
                len,
                flags,
                next,
            } => driver.put_desc(index, addr, len, flags, next),
            Move::Header { head, kind, sector } => driver.put_header(head, kind, sector),
            Move::Offer(head) => driver.offer_head(head),
            Move::Publish(index) => driver.publish(index),
            Move::Scribble { offset, byte } => driver.put(0x1000 + offset, &[byte]),
            Move::Kick => device.on_kick(0),
            Move::Wake => device.on_wake(),
            Move::OpenGate => room.context.gates().open("g"),
            Move::Reset => {
                device.reset();
                driver.reset();
                activate(&mut device, &driver, &interrupt);
            }
        }
    }
    device.on_kick(0);
    (room.context, device, driver)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_in_the_rings_the_device_lives_and_gives_every_frame_back(
        moves in prop::collection::vec(moves(), 1..80),
        plan in prop_oneof![Just(HELD), Just(WRONG)],
    ) {
        let (context, mut device, mut driver) = play(plan, &moves);
        device.reset();
        prop_assert!(context.waiting().is_empty());
        prop_assert!((0..0x20).all(|frame| !context.ledger().is_held(frame)));

        driver.reset();
        context.replace_plan(Plan::default()).unwrap();
        let interrupt = Arc::new(Counting::default());
        activate(&mut device, &driver, &interrupt);
        context.finish();
        let head = driver.read(1, &[driver.range(0, 512)]);
        device.on_wake();
        prop_assert_eq!(driver.status(head), 0);
    }
}
