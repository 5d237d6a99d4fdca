//! Frames that go out and come in, and holds on both.

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_MRG_RXBUF,
};

use super::*;
use crate::net::header::Header;
use crate::net::loopback::Loopback;
use crate::net::pattern::Pattern;
use crate::trace::event::{HoldEnd, Moment, Operation};

const MERGE: u64 = 1 << VIRTIO_NET_F_MRG_RXBUF;

#[test]
fn what_is_sent_comes_back_in_the_oldest_buffer() {
    let mut bench = Bench::new(Loopback::default(), 0, "");
    let first = bench.post(0, 2048);
    bench.post(1, 2048);
    assert!(bench.rx.serve().is_empty(), "no frame has come");
    let sent: Vec<u8> = (0..200).collect();
    assert_eq!(bench.send(&sent)[0].len, 0, "a device writes nothing there");
    let used = bench.rx.serve();
    assert_eq!(used.len(), 1);
    assert_eq!(used[0].len, 212);
    let bytes = bench.received(first, 212);
    assert_eq!(bytes[..LEN], Header::default().bytes(1));
    assert_eq!(bytes[LEN..], sent);
    assert_eq!(bench.mistakes(), [""; 0]);
}

#[test]
fn a_posted_buffer_is_held_until_its_frame_and_given_up_by_a_reset() {
    let mut bench = Bench::new(Loopback::default(), 0, "");
    let addr = bench.post(0, 2048);
    bench.post(1, 2048);
    bench.rx.serve();
    let holds = bench.context.ledger();
    assert!(
        holds.is_held(addr / 4096),
        "in flight from the moment it is posted"
    );
    bench.send(&[7; 60]);
    assert_eq!(bench.rx.serve().len(), 1);
    assert!(!bench.context.ledger().is_held(addr / 4096));
    assert_eq!(bench.rx.handler.reset(), 1, "the other buffer");
    let abandoned = |kind: &EventKind| {
        matches!(
            kind,
            EventKind::HoldClosed {
                how: HoldEnd::Abandoned,
                ..
            }
        )
    };
    assert_eq!(bench.count(abandoned), 1);
}

#[test]
fn a_held_buffer_is_passed_over_by_frames() {
    let plan =
        "[[rule]]\noperation = 'receive'\nordinals = { from = 0, to = 1 }\nhold = { gate = 'g' }\n";
    let mut bench = Bench::new(Loopback::default(), 0, plan);
    let (held, next) = (bench.post(0, 2048), bench.post(1, 2048));
    bench.rx.serve();
    bench.send(&[7; 60]);
    assert_eq!(bench.rx.serve().len(), 1);
    assert_eq!(bench.received(next, 72)[LEN..], [7; 60]);
    assert!(bench.context.ledger().is_held(held / 4096));
    bench.context.gates().open("g");
    bench.rx.serve();
    bench.send(&[8; 60]);
    assert_eq!(bench.rx.serve().len(), 1);
    assert_eq!(bench.received(held, 72)[LEN..], [8; 60]);
}

#[test]
fn a_held_frame_keeps_its_pages_and_its_hashes_tell_what_changed() {
    let plan = "[[rule]]\noperation = 'transmit'\nhold = { gate = 'g' }\n";
    let mut bench = Bench::new(Loopback::default(), 0, plan);
    assert!(bench.send(&[7; 60]).is_empty());
    let held: Vec<u64> = (0..64)
        .map(|frame| bench.tx.driver.data(frame))
        .filter(|addr| bench.context.ledger().is_held(addr / 4096))
        .collect();
    assert_eq!(held.len(), 1, "the frame is held, its header was read");
    bench.tx.driver.put(held[0], &[8; 60]);
    bench.context.gates().open("g");
    assert_eq!(bench.tx.serve().len(), 1);
    let hashes: Vec<String> = bench
        .log
        .events()
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::PayloadHashed { moment, pages, .. } if *moment != Moment::Transfer => {
                Some(pages[0].hash.clone())
            }
            _ => None,
        })
        .collect();
    assert_eq!(hashes.len(), 2);
    assert_ne!(hashes[0], hashes[1]);
}

#[test]
fn a_frame_that_the_plan_fails_is_lost() {
    let plan = "[[rule]]\noperation = 'transmit'\ntimes = 1\nfail = 'ioerr'\n";
    let mut bench = Bench::new(Loopback::default(), 0, plan);
    bench.post(0, 2048);
    bench.rx.serve();
    assert_eq!(bench.send(&[7; 60]).len(), 1, "the chain comes back");
    assert!(bench.rx.serve().is_empty());
    bench.send(&[8; 60]);
    assert_eq!(bench.rx.serve().len(), 1);
}

#[test]
fn a_checksum_is_made_for_a_driver_that_cannot() {
    let header = Header {
        flags: 1,
        csum_start: 14,
        csum_offset: 6,
        ..Header::default()
    };
    for (guest_checks, features) in [
        (false, 1 << VIRTIO_NET_F_CSUM),
        (true, 1 << VIRTIO_NET_F_CSUM | 1 << VIRTIO_NET_F_GUEST_CSUM),
    ] {
        let mut bench = Bench::new(Loopback::default(), features, "");
        let addr = bench.post(0, 2048);
        bench.rx.serve();
        bench.offer_frame(&header.bytes(0), &[1; 60]);
        bench.tx.serve();
        assert_eq!(bench.rx.serve().len(), 1);
        let bytes = bench.received(addr, 72);
        assert_eq!(bytes[0], u8::from(guest_checks));
        assert_eq!(bytes[LEN + 20..LEN + 22] == [1, 1], guest_checks);
    }
}

#[test]
fn a_frame_over_several_buffers_is_seen_at_once_or_not_at_all() {
    let plan = "[[rule]]\noperation = 'receive'\npoint = 'executed'\nordinals = { from = 1, to = 2 }\nhold = { gate = 'g' }\n";
    let mut bench = Bench::new(Loopback::default(), MERGE, plan);
    let addrs: Vec<u64> = (0..4).map(|frame| bench.post(frame, 600)).collect();
    bench.rx.serve();
    let sent: Vec<u8> = (0..1500_u16).map(|n| n.to_le_bytes()[0]).collect();
    bench.send(&sent);
    assert!(bench.rx.serve().is_empty(), "its second buffer is held");
    assert_eq!(bench.rx.driver.used_idx(), 0);
    bench.send(&[9; 60]);
    let younger = bench.rx.serve();
    assert_eq!(younger.len(), 1, "a younger frame is not kept back");
    assert_eq!(bench.received(addrs[3], 72)[LEN..], [9; 60]);

    bench.context.gates().open("g");
    let used = bench.rx.serve();
    let lens: Vec<u32> = used.iter().map(|used| used.len).collect();
    assert_eq!(lens, [600, 600, 312]);
    let mut bytes = Vec::new();
    for (addr, used) in addrs.iter().zip(&used) {
        bytes.extend(bench.received(*addr, used.len));
    }
    assert_eq!(bytes[..LEN], Header::default().bytes(3));
    assert_eq!(bytes[LEN..], sent);
}

#[test]
fn a_frame_of_which_one_buffer_fails_is_lost_as_a_whole() {
    let plan = "[[rule]]\noperation = 'receive'\npoint = 'executed'\nordinals = { from = 2, to = 3 }\nfail = 'ioerr'\n";
    let mut bench = Bench::new(Loopback::default(), MERGE, plan);
    for frame in 0..3 {
        bench.post(frame, 600);
    }
    bench.rx.serve();
    bench.send(&[7; 1500]);
    let lens: Vec<u32> = bench.rx.serve().iter().map(|used| used.len).collect();
    assert_eq!(lens, [0, 0, 0]);
}

#[test]
fn frames_without_room_are_dropped_and_told_and_the_buffer_stays() {
    let mut bench = Bench::new(Loopback::default(), 0, "");
    let addr = bench.post(0, 100);
    bench.post(1, 4096);
    bench.rx.serve();
    bench.send(&[7; 200]);
    assert!(
        bench.rx.serve().is_empty(),
        "frames go to the oldest buffer only"
    );
    let dropped = |kind: &EventKind| matches!(kind, EventKind::FrameDropped { bytes: 200, .. });
    assert_eq!(bench.count(dropped), 1);
    bench.send(&[8; 88]);
    assert_eq!(bench.rx.serve()[0].len, 100);
    assert_eq!(bench.received(addr, 100)[LEN..], [8; 88]);
}

#[test]
fn a_frame_that_needs_more_buffers_waits_for_them() {
    let mut bench = Bench::new(Loopback::default(), MERGE, "");
    bench.post(0, 600);
    bench.rx.serve();
    bench.send(&[7; 1000]);
    assert!(bench.rx.serve().is_empty());
    bench.post(1, 600);
    let lens: Vec<u32> = bench.rx.serve().iter().map(|used| used.len).collect();
    assert_eq!(lens, [600, 412]);
    let dropped = |kind: &EventKind| matches!(kind, EventKind::FrameDropped { .. });
    assert_eq!(bench.count(dropped), 0);
    for frame in 0..16 {
        bench.post(frame, 60);
    }
    bench.send(&[7; 1500]);
    assert!(bench.rx.serve().is_empty());
    assert_eq!(
        bench.count(dropped),
        1,
        "not even all buffers of the queue have room"
    );
}

#[test]
fn a_pulled_cable_loses_what_is_sent_and_keeps_what_comes() {
    let port = Pattern {
        seed: 7,
        frames: 1,
        longest: 100,
    };
    let mut bench = Bench::new(port, 0, "");
    bench.link.set_up(false);
    assert_eq!(bench.interrupt.config_signals(), 1);
    bench.link.set_up(false);
    assert_eq!(bench.interrupt.config_signals(), 1, "nothing has changed");
    let addr = bench.post(0, 2048);
    assert!(bench.rx.serve().is_empty());
    assert_eq!(bench.send(&[7; 60]).len(), 1);
    let lost = |kind: &EventKind| {
        matches!(
            kind,
            EventKind::Executed {
                host_error: Some(_),
                ..
            }
        )
    };
    assert_eq!(bench.count(lost), 1);
    bench.link.set_up(true);
    let used = bench.rx.serve();
    assert_eq!(bench.received(addr, used[0].len)[LEN..], port.frame(0));
}

#[test]
fn a_request_is_named_by_what_it_is() {
    let mut bench = Bench::new(Loopback::default(), 0, "");
    bench.post(0, 2048);
    bench.rx.serve();
    bench.send(&[7; 60]);
    let named = |wanted| move |kind: &EventKind| matches!(kind, EventKind::Fetched { operation, .. } if *operation == wanted);
    assert_eq!(bench.count(named(Operation::Receive)), 1);
    assert_eq!(bench.count(named(Operation::Transmit)), 1);
}
