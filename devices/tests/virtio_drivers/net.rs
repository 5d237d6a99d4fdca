//! The network driver of the `virtio-drivers` crate against our card, over both transports.

use std::time::Instant;

use pincushion_devices::net::loopback::Loopback;
use pincushion_devices::net::pattern::Pattern;
use pincushion_devices::net::{Mac, Port};
use virtio_drivers::device::net::VirtIONet;
use virtio_drivers::transport::Transport;

use crate::LIMIT;
use crate::guest::GuestHal;
use crate::machine::Machine;

const MAC: Mac = Mac([0x52, 0x50, 0, 0, 0, 1]);

type Net<T> = VirtIONet<GuestHal, T, 16>;

fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_there() {
        assert!(begun.elapsed() < LIMIT, "no {what} after {LIMIT:?}");
        std::thread::yield_now();
    }
}

/// Waits for a frame, takes it and gives its buffer back.
fn receive<T: Transport>(net: &mut Net<T>) -> Vec<u8> {
    wait_for("frame", || net.can_recv());
    let buffer = net.receive().unwrap();
    let frame = buffer.packet().to_vec();
    net.recycle_rx_buffer(buffer).unwrap();
    frame
}

/// Sends a frame and waits for it without looking at the ring: a device need not interrupt a driver that looks at it all the time
/// (virtio 1.2, 2.7.7.2), but one that waits. What has been sent may interrupt, too.
fn is_interrupted<T: Transport>(net: &mut Net<T>, machine: &Machine) {
    let buffer = net.new_tx_buffer(60);
    net.send(buffer).unwrap();
    loop {
        // The register has the reason before the line is raised.
        wait_for("reason", || !net.ack_interrupt().is_empty());
        wait_for("interrupt", || machine.line.read().is_ok());
        if net.can_recv() {
            return;
        }
    }
}

fn frames_come_back<T: Transport>(transport: T, machine: &Machine) {
    let mut net = Net::new(transport, 2048).unwrap();
    assert_eq!(net.mac_address(), MAC.0);
    // More than there are buffers.
    for round in 0..100_u8 {
        let sent = vec![round; 60 + 14 * usize::from(round)];
        let mut buffer = net.new_tx_buffer(sent.len());
        buffer.packet_mut().copy_from_slice(&sent);
        net.send(buffer).unwrap();
        assert_eq!(receive(&mut net), sent, "round {round}");
    }
    is_interrupted(&mut net, machine);
}

fn machine(port: impl Port + 'static, on_pci: bool) -> Machine {
    Machine::card(Box::new(port), MAC, on_pci)
}

#[test]
fn what_is_sent_comes_back_over_mmio() {
    let machine = machine(Loopback::default(), false);
    frames_come_back(machine.registers(), &machine);
    assert_eq!(machine.guest_mistakes(), []);
}

#[test]
fn what_is_sent_comes_back_over_pci() {
    let machine = machine(Loopback::default(), true);
    frames_come_back(machine.function(), &machine);
    assert_eq!(machine.guest_mistakes(), []);
}

#[test]
fn frames_made_from_a_seed_arrive_in_order_and_whole() {
    let port = Pattern {
        seed: 7,
        frames: 50,
        longest: 1514,
    };
    let machine = machine(port, false);
    let mut net = Net::new(machine.registers(), 2048).unwrap();
    for index in 0..50 {
        assert_eq!(receive(&mut net), port.frame(index), "frame {index}");
    }
    assert!(!net.can_recv());
}

#[test]
fn a_driver_that_begins_anew_gets_no_frame_of_the_time_before() {
    let machine = machine(Loopback::default(), false);
    for round in 0..5_u8 {
        let mut net = Net::new(machine.registers(), 2048).unwrap();
        for _ in 0..3 {
            let mut buffer = net.new_tx_buffer(60);
            buffer.packet_mut().fill(round);
            net.send(buffer).unwrap();
        }
        assert_eq!(receive(&mut net), [round; 60]);
        // Two frames stay where they are, the driver goes away, and its queues must be still when it has stopped.
    }
}
