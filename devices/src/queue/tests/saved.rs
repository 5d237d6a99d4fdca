//! Requests in flight through a snapshot: popped once more by another device over the same guest memory.

use std::sync::Arc;

use virtio_queue::QueueT;

use super::{Bench, Room, config};
use crate::backend::MemoryDisk;
use crate::blk::{BlkConfig, BlkDevice};
use crate::device::{Activation, SavedDevice, VirtioDevice};
use crate::interrupt::Counting;
use crate::mock::{ByHand, Driver, UNANSWERED, Used};
use crate::trace::EventKind;
use crate::trace::event::Fetch;

const GATED: &str = "[[rule]]\ndevice = \"a\"\nhold = { gate = \"g\" }\n";
const EXECUTED: &str = "[[rule]]\npoint = \"executed\"\nhold = { gate = \"g\" }\n";

/// The device's state through the text of a file, and the device is gone.
fn saved(mut device: BlkDevice) -> SavedDevice {
    let saved = device.save().unwrap();
    let text = serde_json::to_string(&saved).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Another device, of other bytes, that goes on where the first one was.
fn restored(room: &Room, config: BlkConfig, driver: &Driver, saved: &SavedDevice) -> BlkDevice {
    let disk = Box::new(MemoryDisk::from_bytes(vec![0xdd; 1 << 20]));
    let mut device = BlkDevice::new(config, disk, room.context.clone()).unwrap();
    let event_idx = 1 << virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
    let features = device.features() & !event_idx;
    assert!(device.accept_features(features));
    device.restore(&saved.own).unwrap();
    let mut queue = driver.queue();
    let its = saved.queues[0].as_ref().expect("it was at work");
    queue.set_next_avail(its.next_avail);
    queue.set_next_used(its.next_used);
    let activation = Activation {
        queues: vec![queue],
        resume: saved.queues.clone(),
        ..driver.activation(features, Arc::new(Counting::default()))
    };
    device.activate(activation).unwrap();
    device
}

/// What the driver publishes over the elements that named the first requests.
fn forget_avail_ring(driver: &Driver) {
    let [_, avail, _] = driver.rings();
    driver.put(avail.addr + 4, &[0xff; 8]);
}

#[test]
fn held_requests_are_popped_again_in_their_order_before_newer_ones() {
    let first = Room::new(GATED);
    let Bench {
        device, mut driver, ..
    } = first.device(config("a"));
    let heads = [
        driver.read(7, &[driver.range(0, 512)]),
        driver.read(8, &[driver.range(1, 512)]),
    ];
    device.on_kick(0);
    assert_eq!(first.context.waiting().len(), 2);
    forget_avail_ring(&driver);
    let saved = saved(device);
    assert_eq!(driver.take_used(), [], "a snapshot answers nothing");

    let newer = driver.read(9, &[driver.range(2, 512)]);
    let second = Room::new("");
    let device = restored(&second, config("a"), &driver, &saved);
    device.on_wake();
    let used: Vec<u16> = driver.take_used().iter().map(|used| used.head).collect();
    assert_eq!(used, [heads[0], heads[1], newer]);
    assert!((0..3).all(|frame| driver.get(driver.data(frame), 512) == [0xdd; 512]));
    let events = second.recording.take();
    let ordinals = events.iter().filter_map(|event| match &event.kind {
        EventKind::Fetched { request, .. } => Some(request.ordinal),
        _ => None,
    });
    assert_eq!(ordinals.collect::<Vec<_>>(), [2, 3, 4], "no number twice");
}

#[test]
fn the_plan_of_the_restored_machine_decides_anew() {
    let first = Room::new(GATED);
    let Bench {
        device, mut driver, ..
    } = first.device(config("a"));
    let head = driver.read(7, &[driver.range(0, 512)]);
    device.on_kick(0);
    let saved = saved(device);
    let second = Room::new("[[rule]]\nhold = { gate = \"other\" }\n");
    let device = restored(&second, config("a"), &driver, &saved);
    device.on_wake();
    assert_eq!(driver.status(head), UNANSWERED);
    assert_eq!(second.context.waiting().len(), 1);
    assert_eq!(
        second.words(),
        ["fetched", "hold-opened", "fault-applied", "parked"]
    );
    second.context.gates().open("other");
    device.on_wake();
    assert_eq!(driver.status(head), 0);
}

#[test]
fn a_payload_that_was_fetched_early_is_the_one_that_is_written() {
    let early = |name| BlkConfig {
        fetch: Fetch::Early,
        ..config(name)
    };
    let first = Room::new(GATED);
    let Bench {
        device, mut driver, ..
    } = first.device(early("a"));
    driver.put(driver.data(0), &[1; 512]);
    let head = driver.write(7, &[driver.range(0, 512)]);
    device.on_kick(0);
    driver.put(driver.data(0), &[2; 512]);
    let saved = saved(device);
    let second = Room::new("");
    let device = restored(&second, config("a"), &driver, &saved);
    device.on_wake();
    assert_eq!(driver.status(head), 0);
    driver.read(7, &[driver.range(1, 512)]);
    device.on_kick(0);
    assert_eq!(driver.get(driver.data(1), 512), [1; 512]);
}

#[test]
fn work_that_was_done_is_not_done_again() {
    let first = Room::new(EXECUTED);
    let Bench {
        device, mut driver, ..
    } = first.device(config("a"));
    let head = driver.read(7, &[driver.range(0, 512)]);
    device.on_kick(0);
    assert_eq!(driver.get(driver.data(0), 512), [7; 512]);
    let saved = saved(device);
    let second = Room::new("");
    let device = restored(&second, config("a"), &driver, &saved);
    device.on_wake();
    assert_eq!(driver.take_used(), [Used { head, len: 513 }]);
    assert_eq!(
        driver.get(driver.data(0), 512),
        [7; 512],
        "not the second disk's"
    );
    assert_eq!(
        second.words(),
        [
            "fetched",
            "hold-opened",
            "executed",
            "hold-closed",
            "used",
            "signalled"
        ]
    );
}

#[test]
fn a_saved_device_goes_on_and_one_that_a_rule_has_stopped_is_not_saved() {
    let room = Room::new(GATED);
    let Bench {
        mut device,
        mut driver,
        ..
    } = room.device(config("a"));
    let head = driver.read(7, &[driver.range(0, 512)]);
    device.on_kick(0);
    device.save().unwrap();
    room.context.gates().open("g");
    device.on_wake();
    assert_eq!(driver.status(head), 0, "it goes on");

    let room = Room::new("[[rule]]\nneeds-reset = true\n");
    let Bench {
        mut device,
        mut driver,
        ..
    } = room.device(config("a"));
    driver.read(7, &[driver.range(0, 512)]);
    device.on_kick(0);
    let said = device.save().unwrap_err();
    assert!(said.contains("a rule has stopped its queue 0"), "{said}");
}

#[test]
fn a_head_that_the_queue_does_not_have_needs_a_reset_and_nothing_more() {
    let first = Room::new(GATED);
    let Bench {
        device, mut driver, ..
    } = first.device(config("a"));
    driver.read(7, &[driver.range(0, 512)]);
    device.on_kick(0);
    let mut saved = saved(device);
    saved.queues[0].as_mut().unwrap().requests[0].head = 256;
    let second = Room::new("");
    let device = restored(&second, config("a"), &driver, &saved);
    device.on_wake();
    assert_eq!(driver.take_used(), []);
    assert!(second.words().contains(&"guest-mistake".to_owned()));
}
