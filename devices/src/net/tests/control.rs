//! Commands of the control queue.

use virtio_bindings::virtio_net::VIRTIO_NET_F_MQ;

use super::*;
use crate::net::config::Mac;
use crate::net::loopback::Loopback;

/// Offers a command and returns its answer: 0 is OK, 1 an error.
fn command(bench: &mut Bench, bytes: &[u8]) -> u8 {
    let driver = &mut bench.control.driver;
    let (at, ack) = (driver.data(0), driver.data(1));
    driver.put(at, bytes);
    driver.put(ack, &[0xee]);
    driver.offer(&[
        readable(at, 2),
        readable(at + 2, bytes.len() - 2),
        writable(ack, 1),
    ]);
    assert_eq!(bench.control.serve()[0].len, 1);
    bench.control.driver.get(ack, 1)[0]
}

#[test]
fn modes_and_addresses_are_answered_and_remembered() {
    let mut bench = Bench::new(Loopback::default(), 0, "");
    assert_eq!(command(&mut bench, &[0, 0, 1]), 0, "promiscuous");
    assert_eq!(command(&mut bench, &[0, 1, 1]), 0, "all multicast");
    assert_eq!(bench.link.state().mode.bits, 0b11);
    assert_eq!(command(&mut bench, &[0, 0, 0]), 0);
    assert_eq!(bench.link.state().mode.bits, 0b10);
    assert_eq!(command(&mut bench, &[1, 1, 2, 0, 0, 0, 0, 9]), 0);
    assert_eq!(bench.link.state().mac, Mac([2, 0, 0, 0, 0, 9]));
    let table = [1, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    assert_eq!(command(&mut bench, &table), 0);
    assert_eq!(bench.link.state().mode.addresses, 1);
    assert_eq!(
        command(&mut bench, &table[..12]),
        1,
        "it is shorter than it says"
    );
    assert_eq!(bench.mistakes().len(), 1);
}

#[test]
fn pairs_are_set_within_what_the_card_has() {
    let mut bench = Bench::new(Loopback::default(), 1 << VIRTIO_NET_F_MQ, "");
    assert_eq!(command(&mut bench, &[4, 0, 4, 0]), 0);
    assert_eq!(bench.link.state().pairs, 4);
    for pairs in [0, 5, 255] {
        assert_eq!(command(&mut bench, &[4, 0, pairs, 0]), 1, "{pairs}");
    }
    assert_eq!(bench.link.state().pairs, 4);
    let mut single = Bench::new(Loopback::default(), 0, "");
    assert_eq!(command(&mut single, &[4, 0, 1, 0]), 1, "not negotiated");
}

#[test]
fn what_is_unknown_is_an_error_and_no_blame() {
    let mut bench = Bench::new(Loopback::default(), 0, "");
    assert_eq!(command(&mut bench, &[9, 9, 0]), 1);
    assert_eq!(bench.mistakes(), [""; 0]);
    let driver = &mut bench.control.driver;
    let at = driver.data(0);
    driver.offer(&[readable(at, 2)]);
    assert_eq!(bench.control.serve()[0].len, 0, "no place for an answer");
    assert_eq!(bench.mistakes().len(), 1);
}

#[test]
fn a_command_that_the_plan_fails_is_not_obeyed() {
    let plan = "[[rule]]\noperation = 'control'\nfail = 'ioerr'\n";
    let mut bench = Bench::new(Loopback::default(), 0, plan);
    assert_eq!(command(&mut bench, &[0, 0, 1]), 1);
    assert_eq!(bench.link.state().mode.bits, 0);
}
