//! The registers, with a driver written by hand and a device that only remembers.

use std::sync::{Arc, Mutex};

use virtio_queue::QueueT;
use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::fake::{FEATURES, Fake, Numbers, VERSION_1};
use super::mmio::MmioTransport;
use super::registers::*;
use crate::device::Interrupt;
use crate::trace::{EventKind, Recording, Tracer};

struct Bench {
    device: Arc<Mutex<Fake>>,
    transport: MmioTransport,
    line: EventFd,
    log: Recording,
}

fn bench() -> Bench {
    let device = Fake::shared();
    let memory = Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10_0000)]).unwrap());
    let line = EventFd::new(EFD_NONBLOCK).unwrap();
    let (tracer, log) = Tracer::recording();
    let transport =
        MmioTransport::new(device.clone(), memory, line.try_clone().unwrap(), tracer).unwrap();
    Bench {
        device,
        transport,
        line,
        log,
    }
}

impl Bench {
    fn get(&self, offset: u64) -> u32 {
        let mut word = [0xee; 4];
        self.transport.read(offset, &mut word);
        u32::from_le_bytes(word)
    }

    fn set(&self, offset: u64, value: u32) {
        self.transport.write(offset, &value.to_le_bytes());
    }

    fn set_features(&self, features: u64) {
        self.set(DRIVER_FEATURES_SEL, 0);
        self.set(
            DRIVER_FEATURES,
            u32::try_from(features & 0xffff_ffff).unwrap(),
        );
        self.set(DRIVER_FEATURES_SEL, 1);
        self.set(DRIVER_FEATURES, u32::try_from(features >> 32).unwrap());
    }

    /// Up to FEATURES_OK.
    fn negotiate(&self, features: u64) -> u32 {
        self.set(STATUS, 1);
        self.set(STATUS, 3);
        self.set_features(features);
        self.set(STATUS, 11);
        self.get(STATUS)
    }

    fn set_up_queue(&self, index: u32, desc: u32) {
        self.set(QUEUE_SEL, index);
        self.set(QUEUE_NUM, 16);
        self.set(QUEUE_DESC_LOW, desc);
        self.set(QUEUE_DRIVER_LOW, desc + 0x1000);
        self.set(QUEUE_DEVICE_LOW, desc + 0x2000);
        self.set(QUEUE_READY, 1);
    }

    fn start(&self) {
        assert_eq!(self.negotiate(VERSION_1 | 1 << 29), 11);
        self.set_up_queue(0, 0x1000);
        self.set(STATUS, 15);
        assert_eq!(self.get(STATUS), 15);
    }

    fn mistakes(&self) -> usize {
        let is_mistake = |event: &&Arc<crate::trace::Event>| {
            matches!(event.kind, EventKind::GuestMistake { .. })
        };
        self.log.events().iter().filter(is_mistake).count()
    }

    fn interrupt(&self) -> Arc<dyn Interrupt> {
        let device = self.device.lock().unwrap();
        device.activation.as_ref().unwrap().interrupt.clone()
    }
}

#[test]
fn a_device_says_what_it_is() {
    let bench = bench();
    assert_eq!(bench.get(MAGIC_VALUE).to_le_bytes(), *b"virt");
    assert_eq!(bench.get(DEVICE_VERSION), 2);
    assert_eq!(bench.get(DEVICE_ID), 2);
    let features = [0, 1, 2].map(|select| {
        bench.set(DEVICE_FEATURES_SEL, select);
        u64::from(bench.get(DEVICE_FEATURES))
    });
    assert_eq!(
        (features[0] | features[1] << 32, features[2]),
        (FEATURES, 0)
    );
    let sizes = [0, 1, 2, u32::MAX].map(|select| {
        bench.set(QUEUE_SEL, select);
        bench.get(QUEUE_NUM_MAX)
    });
    assert_eq!(sizes, [256, 64, 0, 0]);
    assert_eq!(bench.get(SHM_LEN_LOW), u32::MAX);
    assert_eq!(bench.get(CONFIG_GENERATION), 77);
    assert_eq!(bench.mistakes(), 0);
}

#[test]
fn a_driver_that_follows_the_specification_gets_its_queues_activated() {
    let bench = bench();
    bench.start();
    {
        let device = bench.device.lock().unwrap();
        let activation = device.activation.as_ref().unwrap();
        assert_eq!(activation.features, VERSION_1 | 1 << 29);
        let [first, second] = &activation.queues[..] else {
            panic!("two queues")
        };
        assert!(first.ready() && first.event_idx_enabled() && !second.ready());
        assert_eq!((first.size(), first.desc_table()), (16, 0x1000));
        assert_eq!((first.avail_ring(), first.used_ring()), (0x2000, 0x3000));
    }
    assert_eq!(bench.mistakes(), 0);
    let statuses: Vec<u8> = bench
        .log
        .events()
        .iter()
        .filter_map(|event| match event.kind {
            EventKind::DeviceStatus { status, .. } => Some(status),
            _ => None,
        })
        .collect();
    assert_eq!(statuses, [1, 3, 11, 15]);
}

#[test]
fn features_that_do_not_fit_leave_features_ok_clear() {
    for features in [
        1 << 29,
        VERSION_1 | 1,
        VERSION_1 | 0b110,
        VERSION_1 | 1 << 63,
    ] {
        let bench = bench();
        assert_eq!(bench.negotiate(features), 3, "{features:#x}");
        assert_eq!(bench.mistakes(), 1);
        // A driver that thinks better of it may try again.
        bench.set_features(VERSION_1);
        bench.set(STATUS, 11);
        assert_eq!(bench.get(STATUS), 11);
    }
}

#[test]
fn a_step_out_of_order_needs_a_reset_and_activates_nothing() {
    let bench = bench();
    bench.set(STATUS, 1);
    bench.set(STATUS, 15);
    assert_eq!(bench.get(STATUS), 64 | 1);
    bench.set(STATUS, 64 | 3);
    assert_eq!(bench.get(STATUS), 64 | 1, "steps wait for the reset");
    assert!(bench.device.lock().unwrap().activation.is_none());
    assert!(bench.line.read().is_err(), "no interrupt before DRIVER_OK");
    bench.set(STATUS, 0);
    bench.start();
}

#[test]
fn a_driver_that_forgets_its_bits_at_work_is_told_by_an_interrupt() {
    let bench = bench();
    bench.start();
    bench.set(STATUS, 3);
    assert_eq!(bench.get(STATUS), 64 | 15);
    assert_eq!(bench.get(INTERRUPT_STATUS), 2);
    assert_eq!(bench.line.read().unwrap(), 1);
}

#[test]
fn a_device_that_cannot_begin_needs_a_reset() {
    let bench = bench();
    bench.device.lock().unwrap().refuses = true;
    assert_eq!(bench.negotiate(VERSION_1), 11);
    bench.set(STATUS, 15);
    assert_eq!(bench.get(STATUS), 64 | 15);
    assert_eq!(bench.get(INTERRUPT_STATUS), 2);
}

#[test]
fn a_reset_forgets_everything_at_any_moment() {
    let bench = bench();
    bench.start();
    bench.interrupt().signal_queue(0);
    bench.set(STATUS, 0);
    assert_eq!((bench.get(STATUS), bench.get(INTERRUPT_STATUS)), (0, 0));
    bench.set(QUEUE_SEL, 0);
    assert_eq!(bench.get(QUEUE_READY), 0);
    assert_eq!(bench.device.lock().unwrap().resets, 1);
    bench.start();
    bench.transport.reset();
    assert_eq!(bench.device.lock().unwrap().resets, 2);
    bench.start();
    assert_eq!(bench.mistakes(), 0);
}

#[test]
fn failed_is_remembered_until_a_reset() {
    let bench = bench();
    bench.set(STATUS, 1);
    bench.set(STATUS, 128);
    assert_eq!(bench.get(STATUS), 129);
    bench.set(STATUS, 131);
    bench.set(STATUS, 3);
    assert_eq!(bench.get(STATUS) & 3, 1);
    bench.set(STATUS, 0);
    bench.start();
}

#[test]
fn a_queue_outside_memory_does_not_become_ready() {
    let bench = bench();
    bench.negotiate(VERSION_1);
    bench.set_up_queue(0, 0x000f_f000);
    assert_eq!(bench.get(QUEUE_READY), 0);
    bench.set(QUEUE_DESC_HIGH, 1);
    bench.set(QUEUE_READY, 1);
    assert_eq!(bench.get(QUEUE_READY), 0);
    assert_eq!(bench.mistakes(), 2);
}

#[test]
fn queues_are_set_up_after_features_and_before_work() {
    let bench = bench();
    bench.set_up_queue(0, 0x1000);
    assert_eq!(bench.get(QUEUE_READY), 0);
    let early = bench.mistakes();
    assert!(early > 0);
    bench.start();
    bench.set_up_queue(1, 0x8000);
    assert_eq!(bench.get(QUEUE_READY), 0);
    assert!(bench.mistakes() > early);
}

#[test]
fn taking_a_queue_down_before_work_is_free_and_at_work_stops_the_device() {
    let bench = bench();
    bench.set(QUEUE_READY, 0);
    bench.negotiate(VERSION_1);
    bench.set_up_queue(0, 0x1000);
    bench.set(QUEUE_READY, 0);
    bench.set_up_queue(0, 0x4000);
    assert_eq!((bench.get(QUEUE_READY), bench.mistakes()), (1, 0));
    bench.set(STATUS, 15);
    bench.set(QUEUE_READY, 0);
    assert_eq!(bench.get(QUEUE_READY), 0);
    assert_eq!(bench.get(STATUS), 64 | 15);
    assert_eq!(bench.device.lock().unwrap().resets, 1);
}

#[test]
fn a_kick_that_arrives_as_a_write_is_passed_on() {
    let bench = bench();
    bench.start();
    bench.set(QUEUE_NOTIFY, 1);
    let [first, second] = bench.transport.kick_fds() else {
        panic!("two queues")
    };
    assert!(first.read().is_err());
    assert_eq!(second.read().unwrap(), 1);
    bench.set(QUEUE_NOTIFY, 2);
    assert_eq!(bench.mistakes(), 1);
}

#[test]
fn an_interrupt_is_a_bit_an_edge_and_an_acknowledgement() {
    let bench = bench();
    bench.start();
    let interrupt = bench.interrupt();
    interrupt.signal_queue(0);
    interrupt.signal_config();
    assert_eq!(bench.line.read().unwrap(), 2);
    assert_eq!(bench.get(INTERRUPT_STATUS), 3);
    bench.set(INTERRUPT_ACK, 1);
    assert_eq!(bench.get(INTERRUPT_STATUS), 2);
    bench.set(INTERRUPT_ACK, u32::MAX);
    assert_eq!(bench.get(INTERRUPT_STATUS), 0);
    interrupt.signal_queue(0);
    assert_eq!(bench.line.read().unwrap(), 1);
}

#[test]
fn interrupt_status_is_read_while_the_device_is_busy() {
    let bench = bench();
    bench.start();
    let interrupt = bench.interrupt();
    let _busy = bench.device.lock().unwrap();
    interrupt.signal_queue(0);
    assert_eq!(bench.get(INTERRUPT_STATUS), 1);
    bench.set(INTERRUPT_ACK, 1);
    assert_eq!(bench.get(STATUS), 15);
    interrupt.signal_needs_reset();
    assert_eq!(bench.get(STATUS), 64 | 15);
}

#[test]
fn configuration_space_is_bytes_of_any_width() {
    let bench = bench();
    let mut eight = [0; 8];
    bench.transport.read(CONFIG, &mut eight);
    assert_eq!(&eight, b"configsp");
    let mut one = [0];
    bench.transport.read(CONFIG + 11, &mut one);
    assert_eq!(&one, b"!");
    let mut behind = [7; 4];
    bench.transport.read(CONFIG + 12, &mut behind);
    assert_eq!(behind, [0; 4]);
    bench.transport.write(CONFIG, b"X");
    assert_eq!(bench.mistakes(), 1, "only a driver may write it");
    bench.set(STATUS, 3);
    bench.transport.write(CONFIG, b"X");
    assert_eq!(&bench.device.lock().unwrap().config[..2], b"Xo");
}

#[test]
fn a_register_is_four_bytes_and_nothing_else() {
    let bench = bench();
    let mut one = [7];
    bench.transport.read(MAGIC_VALUE, &mut one);
    assert_eq!(one, [0]);
    let mut between = [7; 4];
    bench.transport.read(MAGIC_VALUE + 2, &mut between);
    assert_eq!(between, [0; 4]);
    bench.transport.write(STATUS, &[1]);
    bench.transport.write(STATUS, &[1; 8]);
    assert_eq!(bench.get(STATUS), 0);
    assert_eq!(bench.mistakes(), 4);
}

fn any_offset(numbers: &mut Numbers) -> u64 {
    match numbers.next() % 8 {
        0 => numbers.value(),
        1 => numbers.next() % 0x220,
        _ => (numbers.next() % 0x44) * 4,
    }
}

#[test]
fn no_offset_width_or_value_upsets_the_registers() {
    for seed in 0..40 {
        let bench = bench();
        let mut numbers = Numbers(seed);
        // Half of the runs begin with a device at work.
        if seed % 2 == 0 {
            bench.start();
        }
        for step in 0..4000 {
            let offset = any_offset(&mut numbers);
            let width = usize::try_from(numbers.next() % 18).unwrap();
            let width = if width > 9 { 4 } else { width };
            let mut data = [0; 9];
            data[..8].copy_from_slice(&numbers.value().to_le_bytes());
            if numbers.next().is_multiple_of(2) {
                bench.transport.read(offset, &mut data[..width]);
            } else {
                bench.transport.write(offset, &data[..width]);
            }
            let at_work = bench.get(STATUS) & 4 != 0;
            let needs_reset = bench.get(STATUS) & 64 != 0;
            let activated = bench.device.lock().unwrap().activation.is_some();
            assert!(
                at_work == activated || needs_reset,
                "seed {seed}, step {step}: DRIVER_OK is {at_work}, activated is {activated}"
            );
        }
        assert!(bench.mistakes() <= 1000, "seed {seed}: the log has an end");
        bench.set(STATUS, 0);
        bench.start();
    }
}
