//! Completions, interrupts and touches that no correct device does, each said in the log before the guest can see it.

use super::{Bench, Room, acted, config};
use crate::mock::ByHand;
use crate::mock::UNANSWERED;
use crate::trace::event::{EventKind, FRAME_SIZE, Fault, GuestRange, Planted, Status};

const MS: u64 = 1_000_000;

/// Offers `count` reads of a page each and kicks once. Returns their heads.
fn reads(bench: &mut Bench, count: u64) -> Vec<u16> {
    let driver = &mut bench.driver;
    let heads = (0..count).map(|n| driver.read(8 * n, &[driver.range(n, 4096)]));
    let heads = heads.collect();
    bench.kick();
    heads
}

fn used(bench: &mut Bench) -> Vec<u16> {
    let used = bench.driver.take_used();
    used.iter().map(|used| used.head).collect()
}

#[test]
fn gathered_completions_go_on_in_the_order_that_the_seed_draws() {
    let order = |seed: u64| {
        let room = Room::new(&format!(
            "seed = {seed}\n[[rule]]\nreorder = {{ window = 8 }}\n"
        ));
        let mut bench = room.device(config("a"));
        let heads = reads(&mut bench, 8);
        let used = used(&mut bench);
        let places: Vec<u16> = acted(&room.recording.take())
            .iter()
            .map(|fault| match fault {
                Fault::Reordered { place, of: 8 } => *place,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(places, [0, 1, 2, 3, 4, 5, 6, 7]);
        let index = |head| heads.iter().position(|other| *other == head).unwrap();
        used.into_iter().map(index).collect::<Vec<_>>()
    };
    let (first, again, other) = (order(1), order(1), order(2));
    assert_eq!(first, again);
    assert_ne!(first, other);
    assert_ne!(first, [0, 1, 2, 3, 4, 5, 6, 7]);
    let mut sorted = first;
    sorted.sort_unstable();
    assert_eq!(sorted, [0, 1, 2, 3, 4, 5, 6, 7], "each exactly once");
}

#[test]
fn a_window_that_never_fills_opens_after_5_ms_and_at_the_end() {
    let room = Room::new("[[rule]]\nreorder = { window = 100 }\n");
    let mut bench = room.device(config("a"));
    reads(&mut bench, 3);
    room.clock.advance_ns(5 * MS - 1);
    bench.device.on_wake();
    assert_eq!(used(&mut bench).len(), 0);
    room.clock.advance_ns(1);
    bench.device.on_wake();
    assert_eq!(used(&mut bench).len(), 3);

    reads(&mut bench, 2);
    assert_eq!(used(&mut bench).len(), 0);
    room.context.finish();
    bench.device.on_wake();
    assert_eq!(used(&mut bench).len(), 2);
    reads(&mut bench, 2);
    assert_eq!(used(&mut bench).len(), 2, "nothing is gathered any more");
}

#[test]
fn a_reset_takes_back_what_was_gathered() {
    use crate::device::VirtioDevice;
    let room = Room::new("[[rule]]\nreorder = { window = 100 }\n");
    let mut bench = room.device(config("a"));
    reads(&mut bench, 3);
    bench.device.reset();
    bench.driver.reset();
    room.clock.advance_ns(9 * MS);
    bench.device.on_wake();
    assert_eq!(bench.driver.used_idx(), 0);
    assert!((0..64).all(|frame| {
        !room
            .context
            .ledger()
            .is_held(bench.driver.data(frame) / FRAME_SIZE)
    }));
}

#[test]
fn any_status_is_answered_and_said() {
    for (rule, worked) in [
        ("fail = 200", None),
        ("point = \"executed\"\nfail = 200", Some(Status::Ok)),
    ] {
        let room = Room::new(&format!("[[rule]]\n{rule}\n"));
        let mut bench = room.device(config("a"));
        let heads = reads(&mut bench, 1);
        assert_eq!(bench.driver.status(heads[0]), 200);
        let faults = acted(&room.recording.take());
        assert_eq!(faults, [Fault::Status { worked }], "{rule}");
    }
}

#[test]
fn a_duplicate_publishes_the_same_element_twice() {
    let room = Room::new("[[rule]]\ntimes = 1\nduplicate = true\n");
    let mut bench = room.device(config("a"));
    let used_idx = bench.driver.used_idx();
    let heads = reads(&mut bench, 2);
    assert_eq!(bench.driver.used_idx().wrapping_sub(used_idx), 3);
    let elements = bench.driver.used_ring(3);
    assert_eq!(elements[0], elements[1]);
    assert_eq!([elements[0].head, elements[2].head], [heads[0], heads[1]]);
    assert_eq!(acted(&room.recording.take()), [Fault::Duplicate]);
}

#[test]
fn a_late_touch_writes_a_page_that_the_guest_has_back() {
    let room =
        Room::new("[[rule]]\nlate-touch = { after = { gate = \"late\" }, write = \"zeroes\" }\n");
    let mut bench = room.device(config("a"));
    reads(&mut bench, 1);
    assert_eq!(used(&mut bench).len(), 1);
    let page = bench.driver.range(0, 4096);
    assert!(!room.context.ledger().is_held(page.addr / FRAME_SIZE));
    bench.driver.put(page.addr, &[0x55; 4096]);
    assert_eq!(room.context.waiting().len(), 1, "people can see what waits");
    assert!(acted(&room.recording.take()).is_empty());

    room.context.gates().open("late");
    bench.device.on_wake();
    assert_eq!(bench.driver.get(page.addr, 4096), [0; 4096]);
    let events = room.recording.take();
    let ranges = vec![page];
    assert_eq!(acted(&events), [Fault::LateTouch { ranges }]);
    let ended = |event: &&std::sync::Arc<crate::trace::Event>| {
        matches!(event.kind, EventKind::FaultTouchEnded { .. })
    };
    assert_eq!(events.iter().filter(ended).count(), 1);
    assert!(room.context.waiting().is_empty());
}

#[test]
fn a_late_touch_comes_at_once_or_after_a_time_but_not_after_a_reset() {
    use crate::device::VirtioDevice;
    let room = Room::new(
        "[[rule]]\ntimes = 1\nlate-touch = {}\n[[rule]]\nlate-touch = { after = { for-ms = 3 } }\n",
    );
    let mut bench = room.device(config("a"));
    reads(&mut bench, 2);
    assert_eq!(acted(&room.recording.take()).len(), 1);
    room.clock.advance_ns(3 * MS);
    bench.device.on_wake();
    assert_eq!(acted(&room.recording.take()).len(), 1);

    reads(&mut bench, 1);
    bench.device.reset();
    room.clock.advance_ns(3 * MS);
    bench.device.on_wake();
    assert!(acted(&room.recording.take()).is_empty());
    assert!(room.context.waiting().is_empty());
}

#[test]
fn a_rogue_touch_hits_a_frame_that_nobody_gave() {
    let room = Room::new(
        "[[rule]]\nrogue-touch = { at = \"next-frame\", bytes = 16, write = \"zeroes\" }\n",
    );
    let mut bench = room.device(config("a"));
    let next = bench.driver.data(1);
    bench.driver.put(next, &[0x55; 32]);
    reads(&mut bench, 1);
    assert_eq!(
        bench.driver.get(next, 17),
        [[0; 16].as_slice(), &[0x55]].concat()
    );
    let range = GuestRange {
        addr: next,
        len: 16,
    };
    assert_eq!(acted(&room.recording.take()), [Fault::RogueTouch { range }]);
}

#[test]
fn a_rogue_touch_that_is_nowhere_is_left_out() {
    let room = Room::new("[[rule]]\nrogue-touch = { at = { address = 0xffff_ffff_ffff_f000 } }\n");
    let mut bench = room.device(config("a"));
    reads(&mut bench, 1);
    assert_eq!(used(&mut bench).len(), 1);
    assert!(acted(&room.recording.take()).is_empty());
}

#[test]
fn a_dropped_interrupt_is_not_raised_and_a_later_completion_raises_one() {
    let room = Room::new("[[rule]]\ntimes = 1\ninterrupt = \"drop\"\n");
    let mut bench = room.device(config("a"));
    reads(&mut bench, 1);
    assert_eq!(used(&mut bench).len(), 1);
    assert_eq!(bench.interrupt.queue_signals(), 0);
    assert_eq!(acted(&room.recording.take()), [Fault::InterruptDropped]);
    reads(&mut bench, 1);
    assert_eq!(bench.interrupt.queue_signals(), 1);
}

#[test]
fn a_coalesced_interrupt_comes_with_enough_completions_or_after_5_ms() {
    let room = Room::new("[[rule]]\ninterrupt = { coalesce = 3 }\n");
    let mut bench = room.device(config("a"));
    reads(&mut bench, 2);
    assert_eq!(bench.interrupt.queue_signals(), 0);
    reads(&mut bench, 1);
    assert_eq!(bench.interrupt.queue_signals(), 1);
    reads(&mut bench, 1);
    room.clock.advance_ns(5 * MS);
    bench.device.on_wake();
    assert_eq!(bench.interrupt.queue_signals(), 2);
    assert_eq!(used(&mut bench).len(), 4);
}

#[test]
fn a_spurious_interrupt_is_one_more() {
    let room = Room::new("[[rule]]\ninterrupt = \"spurious\"\n");
    let mut bench = room.device(config("a"));
    reads(&mut bench, 1);
    assert_eq!(bench.interrupt.queue_signals(), 2);
    assert_eq!(acted(&room.recording.take()), [Fault::InterruptSpurious]);
}

#[test]
fn a_storm_of_configuration_changes_raises_as_many_interrupts() {
    let room = Room::new("[[rule]]\nconfig-changes = 50\n");
    let mut bench = room.device(config("a"));
    let heads = reads(&mut bench, 1);
    assert_eq!(bench.interrupt.config_signals(), 50);
    assert_eq!(bench.driver.status(heads[0]), 0);
    let faults = acted(&room.recording.take());
    assert_eq!(faults, [Fault::ConfigChanges { count: 50 }]);
}

#[test]
fn a_device_that_needs_a_reset_does_nothing_until_then_and_works_after_it() {
    use crate::device::VirtioDevice;
    let room =
        Room::new("[[rule]]\ntimes = 1\nordinals = { from = 1, to = 9 }\nneeds-reset = true\n");
    let mut bench = room.device(config("a"));
    let heads = reads(&mut bench, 3);
    assert_eq!(bench.interrupt.resets_needed(), 1);
    for head in heads {
        assert_eq!(bench.driver.status(head), UNANSWERED);
    }
    reads(&mut bench, 1);
    bench.device.on_wake();
    assert_eq!(bench.driver.used_idx(), 0);
    assert_eq!(acted(&room.recording.take()), [Fault::NeedsReset]);

    bench.device.reset();
    bench.driver.reset();
    let interrupt = bench.interrupt.clone();
    super::activate(&mut bench.device, &bench.driver, &interrupt);
    let heads = reads(&mut bench, 2);
    assert_eq!(used(&mut bench), heads);
}

#[test]
fn a_device_that_needs_a_reset_stops_all_of_its_queues() {
    use crate::backend::{DiskOptions, Engine, FileOptions, open_disk};
    use crate::blk::BlkDevice;
    use crate::device::{Activation, VirtioDevice};
    use crate::interrupt::Counting;
    use crate::mock::Driver;
    use std::sync::Arc;

    let room = Room::new(
        "[[rule]]\nqueue = 1\nneeds-reset = true\n\
        [[rule]]\nqueue = 0\nhold = { gate = \"late\" }\n",
    );
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(1 << 20).unwrap();
    let file = FileOptions {
        path: image.path().to_owned(),
        ..FileOptions::default()
    };
    let engine = Engine::File;
    let disk = open_disk(&DiskOptions { engine, file }).unwrap();
    let config = crate::blk::BlkConfig {
        queues: 2,
        queue_size: 16,
        ..config("a")
    };
    let mut device = BlkDevice::new(config, disk, room.context.clone()).unwrap();
    let mut first = Driver::new(16, 600);
    let mut second = Driver::within(first.memory().clone(), first.data(300), 16);
    let interrupt = Arc::new(Counting::default());
    let activate = |device: &mut BlkDevice, first: &Driver, second: &Driver| {
        let features = 1 << virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
        assert!(device.accept_features(features));
        let activation = Activation {
            queues: vec![first.queue(), second.queue()],
            ..first.activation(features, interrupt.clone())
        };
        device.activate(activation).unwrap();
    };
    activate(&mut device, &first, &second);

    first.read(0, &[first.range(0, 4096)]);
    device.on_kick(0);
    second.read(0, &[second.range(0, 4096)]);
    device.on_kick(1);
    assert_eq!(acted(&room.recording.take()), [Fault::NeedsReset]);
    first.flush();
    device.on_kick(0);
    room.context.gates().open("late");
    device.on_wake();
    assert_eq!((first.used_idx(), second.used_idx()), (0, 0));
    assert_eq!(interrupt.resets_needed(), 1);
    let held = |addr: u64| room.context.ledger().is_held(addr / FRAME_SIZE);
    assert!(held(first.data(0)) && held(second.data(0)));

    device.reset();
    assert!(!held(first.data(0)) && !held(second.data(0)));
    first.reset();
    second.reset();
    activate(&mut device, &first, &second);
    first.flush();
    device.on_kick(0);
    assert_eq!(first.used_idx(), 1, "its queue works after the reset");
}

fn planted(events: &[std::sync::Arc<crate::trace::Event>]) -> Vec<Planted> {
    let planted = events.iter().filter_map(|event| match &event.kind {
        EventKind::PlantedFault { planted, .. } => Some(*planted),
        _ => None,
    });
    planted.collect()
}

#[test]
fn an_early_completion_moves_its_payload_when_the_guest_has_the_page_back() {
    let plan = "[[rule]]\ntimes = 1\nplanted = \"early-completion\"\nhold = { gate = \"late\" }\n";
    let room = Room::new(plan);
    let mut bench = room.device(config("a"));
    let heads = reads(&mut bench, 1);
    assert_eq!(used(&mut bench), heads);
    assert_eq!(bench.driver.status(heads[0]), 0);
    let page = bench.driver.range(0, 4096);
    let is_held = || room.context.ledger().is_held(page.addr / FRAME_SIZE);
    assert!(is_held(), "and nobody but the ledger knows");
    bench.driver.put(page.addr, &[0x55; 4096]);
    let others = reads(&mut bench, 3);
    assert_eq!(used(&mut bench), others, "the head may be among them");
    bench.driver.put(page.addr, &[0x55; 4096]);

    room.context.gates().open("late");
    bench.device.on_wake();
    assert_ne!(bench.driver.get(page.addr, 4096), [0x55; 4096]);
    assert!(!is_held());
    assert_eq!(used(&mut bench), [0_u16; 0], "the guest was told long ago");
    let events = room.recording.take();
    assert_eq!(planted(&events), [Planted::EarlyCompletion]);
    assert!(acted(&events).is_empty(), "no rule asked for it");
}

#[test]
fn a_reset_ends_an_early_completion() {
    use crate::device::VirtioDevice;
    let plan = "[[rule]]\nplanted = \"early-completion\"\nhold = { gate = \"late\" }\n";
    let room = Room::new(plan);
    let mut bench = room.device(config("a"));
    reads(&mut bench, 2);
    reads(&mut bench, 2);
    bench.device.reset();
    bench.driver.reset();
    room.context.gates().open("late");
    bench.device.on_wake();
    let held = |frame| {
        let frame = bench.driver.data(frame) / FRAME_SIZE;
        room.context.ledger().is_held(frame)
    };
    assert!(!(0..64).any(held));
}

#[test]
fn wrong_bytes_are_told_as_planted_and_not_as_asked_for() {
    let room = Room::new("[[rule]]\ntimes = 1\nplanted = \"wrong-bytes\"\n");
    let mut bench = room.device(config("a"));
    let page = bench.driver.range(0, 4096);
    let mut read = || {
        reads(&mut bench, 1);
        bench.driver.get(page.addr, 4096)
    };
    let (wrong, right) = (read(), read());
    let differ = |(a, b): (&u8, &u8)| (a ^ b).count_ones();
    assert_eq!(wrong.iter().zip(&right).map(differ).sum::<u32>(), 16);
    let events = room.recording.take();
    assert_eq!(planted(&events), [Planted::WrongBytes]);
    assert!(acted(&events).is_empty());
}
