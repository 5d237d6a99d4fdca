//! Payloads that rules damage, in both directions: what arrives, what the answer claims, what the log says.

use super::{Bench, Room, acted, config};
use crate::blk::BlkConfig;
use crate::mock::ByHand;
use crate::trace::event::{EventKind, Fault, Moment, Status};

/// Writes 1024 bytes of 0xaa to sector 4 under a rule, then reads them back without it.
fn on_disk_after_a_write(rule: &str) -> (Vec<u8>, u32, Vec<Fault>) {
    let room = Room::new(&format!("[[rule]]\noperation = \"write\"\n{rule}\n"));
    let Bench {
        device, mut driver, ..
    } = room.device(config("a"));
    driver.put(driver.data(0), &[0xaa; 1024]);
    driver.write(4, &[driver.range(0, 24), driver.range(1, 1000)]);
    driver.put(driver.data(1), &[0xaa; 1000]);
    device.on_kick(0);
    let [used] = driver.take_used()[..] else {
        panic!("one request was answered");
    };
    let head = driver.read(4, &[driver.range(8, 1024)]);
    device.on_kick(0);
    assert_eq!(driver.status(head), 0);
    (
        driver.get(driver.data(8), 1024),
        used.len,
        acted(&room.recording.take()),
    )
}

/// Reads 1024 bytes of sectors 4 and 5, whose bytes are 4 and 5, into two frames full of 0xee.
fn in_memory_after_a_read(rule: &str) -> (Vec<u8>, u32, Vec<Fault>) {
    let room = Room::new(&format!("[[rule]]\noperation = \"read\"\n{rule}\n"));
    let Bench {
        device, mut driver, ..
    } = room.device(config("a"));
    driver.put(driver.data(0), &[0xee; 8192]);
    let head = driver.read(4, &[driver.range(0, 24), driver.range(1, 1000)]);
    device.on_kick(0);
    assert_eq!(driver.status(head), 0);
    let [used] = driver.take_used()[..] else {
        panic!("one request was answered");
    };
    let mut bytes = driver.get(driver.data(0), 24);
    bytes.extend(driver.get(driver.data(1), 1000));
    assert_eq!(driver.get(driver.data(0) + 24, 8), [0xee; 8]);
    (bytes, used.len, acted(&room.recording.take()))
}

/// Every byte of a payload, by its place.
fn payload(byte: impl Fn(usize) -> u8) -> Vec<u8> {
    (0..1024).map(byte).collect()
}

fn sector(at: usize) -> u8 {
    if at < 512 { 4 } else { 5 }
}

#[test]
fn a_torn_write_leaves_what_was_on_the_disk_where_it_does_not_arrive() {
    for (torn, arrives) in [
        ("{ prefix = 100 }", (|at| at < 100) as fn(usize) -> bool),
        ("{ sectors = [1] }", |at| at >= 512),
        ("{ cache-lines = \"odd\" }", |at| at / 64 % 2 == 1),
        ("{ prefix = 0 }", |_| false),
    ] {
        let (bytes, used, faults) = on_disk_after_a_write(&format!("torn = {torn}"));
        let expected = payload(|at| if arrives(at) { 0xaa } else { sector(at) });
        assert_eq!(bytes, expected, "{torn}");
        assert_eq!(used, 1, "the answer of a write is its status byte");
        let [Fault::Torn { arrived }] = &faults[..] else {
            panic!("{torn}: {faults:?}");
        };
        let said: u64 = arrived.iter().map(|[from, to]| to - from).sum();
        assert_eq!(said, (0..1024).filter(|at| arrives(*at)).count() as u64);
    }
}

#[test]
fn a_torn_read_leaves_what_was_in_memory_where_it_does_not_arrive() {
    for (torn, arrives) in [
        ("{ prefix = 100 }", (|at| at < 100) as fn(usize) -> bool),
        ("{ sectors = [0] }", |at| at < 512),
        ("{ cache-lines = \"even\" }", |at| at / 64 % 2 == 0),
    ] {
        let (bytes, used, faults) = in_memory_after_a_read(&format!("torn = {torn}"));
        let expected = payload(|at| if arrives(at) { sector(at) } else { 0xee });
        assert_eq!(bytes, expected, "{torn}");
        assert_eq!(
            used, 1025,
            "the answer claims all of it and the status byte"
        );
        assert!(matches!(faults[..], [Fault::Torn { .. }]), "{faults:?}");
    }
}

#[test]
fn a_short_transfer_moves_its_first_part_and_says_so() {
    let (bytes, used, faults) = in_memory_after_a_read("short = { bytes = 600 }");
    assert_eq!(
        bytes,
        payload(|at| if at < 600 { sector(at) } else { 0xee })
    );
    assert_eq!(used, 600);
    assert_eq!(faults, [Fault::Short { bytes: 600 }]);

    let (bytes, _, faults) = on_disk_after_a_write("short = { share = 0.5 }");
    assert_eq!(
        bytes,
        payload(|at| if at < 512 { 0xaa } else { sector(at) })
    );
    assert_eq!(faults, [Fault::Short { bytes: 512 }]);
}

#[test]
fn flipped_bits_are_those_that_the_log_names() {
    type After = fn(&str) -> (Vec<u8>, u32, Vec<Fault>);
    type Original = fn(usize) -> u8;
    let cases: [(After, Original); 2] = [
        (in_memory_after_a_read, sector),
        (on_disk_after_a_write, |_| 0xaa),
    ];
    for (after, original) in cases {
        let (bytes, _, faults) = after("corrupt = { bits = 5 }");
        let [Fault::Corrupt { bits }] = &faults[..] else {
            panic!("{faults:?}");
        };
        let mut expected = payload(original);
        for bit in bits {
            expected[usize::try_from(bit / 8).unwrap()] ^= 1 << (bit % 8);
        }
        assert_eq!(bits.len(), 5);
        assert_eq!(bytes, expected);
    }
}

#[test]
fn what_was_sent_is_hashed_as_it_was_sent() {
    let room = Room::new("[[rule]]\noperation = \"write\"\ncorrupt = { bits = 1 }\n");
    let Bench {
        device, mut driver, ..
    } = room.device(BlkConfig::new("a"));
    driver.write(0, &[driver.range(0, 4096)]);
    device.on_kick(0);
    let events = room.recording.take();
    let hash_at = |wanted| {
        events.iter().find_map(|event| match &event.kind {
            EventKind::PayloadHashed { moment, pages, .. } if *moment == wanted => {
                Some(pages[0].hash.clone())
            }
            _ => None,
        })
    };
    let [fetch, transfer, completion] = [Moment::Fetch, Moment::Transfer, Moment::Completion]
        .map(|moment| hash_at(moment).unwrap());
    assert_eq!(fetch, completion, "the guest's page did not change");
    assert_ne!(fetch, transfer, "and is not what the disk got");
}

#[test]
fn a_damaged_request_may_be_answered_with_any_status() {
    let room = Room::new("[[rule]]\ntorn = { prefix = 512 }\nfail = 77\n");
    let Bench {
        device, mut driver, ..
    } = room.device(config("a"));
    driver.put(driver.data(0), &[0xee; 1024]);
    let head = driver.read(4, &[driver.range(0, 1024)]);
    device.on_kick(0);
    assert_eq!(driver.status(head), 77);
    assert_eq!(
        driver.get(driver.data(0), 1024),
        payload(|at| if at < 512 { 4 } else { 0xee })
    );
    let faults = acted(&room.recording.take());
    let worked = Some(Status::Ok);
    assert_eq!(faults[1..], [Fault::Status { worked }]);
}

#[test]
fn what_the_device_itself_puts_into_memory_is_damaged_too() {
    let room = Room::new("[[rule]]\noperation = \"get-id\"\nshort = { bytes = 3 }\n");
    let Bench {
        device, mut driver, ..
    } = room.device(BlkConfig {
        serial: Some("abcdef".to_owned()),
        ..config("a")
    });
    driver.put(driver.data(0), &[0xee; 20]);
    driver.get_id(driver.range(0, 20));
    device.on_kick(0);
    assert_eq!(driver.get(driver.data(0), 5), *b"abc\xee\xee");
    assert_eq!(driver.take_used()[0].len, 3);
}
