//! The function, with a driver written by hand and a device that only remembers.

mod saved;

use std::sync::{Arc, Mutex};

use virtio_queue::QueueT;
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::layout::*;
use super::{Message, PciInterrupts, PciTransport, notify_offset};
use crate::device::Interrupt;
use crate::trace::{Event, EventKind, Recording, Tracer};
use crate::transport::fake::{FEATURES, Fake, Numbers, VERSION_1};

mod bus_master;

const NO_VECTOR: u32 = 0xffff;

/// What the guest's interrupt controllers would have seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Pin(bool),
    Route(u16, Message),
    Sent(u16),
}

struct Controllers(Arc<Mutex<Vec<Seen>>>);

impl PciInterrupts for Controllers {
    fn set_pin(&self, asserted: bool) {
        self.0.lock().unwrap().push(Seen::Pin(asserted));
    }
    fn route(&self, vector: u16, message: Message) {
        self.0.lock().unwrap().push(Seen::Route(vector, message));
    }
    fn send(&self, vector: u16) {
        self.0.lock().unwrap().push(Seen::Sent(vector));
    }
}

struct Bench {
    device: Arc<Mutex<Fake>>,
    transport: PciTransport,
    seen: Arc<Mutex<Vec<Seen>>>,
    log: Recording,
}

fn bench() -> Bench {
    let device = Fake::shared();
    let memory = Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10_0000)]).unwrap());
    let (tracer, log) = Tracer::recording();
    let seen = Arc::new(Mutex::default());
    let interrupts = Box::new(Controllers(Arc::clone(&seen)));
    let transport = PciTransport::new(device.clone(), memory, interrupts, 1, tracer).unwrap();
    Bench {
        device,
        transport,
        seen,
        log,
    }
}

impl Bench {
    fn get(&self, offset: u64, width: usize) -> u32 {
        let mut data = [0xee; 4];
        self.transport.read_bar(offset, &mut data[..width]);
        data[width..].fill(0);
        u32::from_le_bytes(data)
    }

    fn set(&self, offset: u64, width: usize, value: u32) {
        let bytes = value.to_le_bytes();
        self.transport.write_bar(offset, &bytes[..width]);
    }

    fn config(&self, offset: u64, width: usize) -> u32 {
        let mut data = [0xee; 4];
        self.transport.read_config(offset, &mut data[..width]);
        data[width..].fill(0);
        u32::from_le_bytes(data)
    }

    fn set_config(&self, offset: u64, width: usize, value: u32) {
        let bytes = value.to_le_bytes();
        self.transport.write_config(offset, &bytes[..width]);
    }

    fn status(&self) -> u32 {
        self.get(0x14, 1)
    }

    /// Up to FEATURES_OK.
    fn negotiate(&self) {
        self.set(0x14, 1, 1);
        self.set(0x14, 1, 3);
        self.set(0x08, 4, 1);
        self.set(0x0c, 4, 1);
        self.set(0x14, 1, 11);
    }

    fn set_up_queue(&self, index: u32, desc: u32) {
        self.set(0x16, 2, index);
        self.set(0x18, 2, 16);
        for (at, address) in [(0x20, desc), (0x28, desc + 0x1000), (0x30, desc + 0x2000)] {
            self.set(at, 4, address);
            self.set(at + 4, 4, 0);
        }
        self.set(0x1c, 2, 1);
    }

    fn start(&self) {
        self.set_config(4, 2, 6);
        self.negotiate();
        self.set_up_queue(0, 0x1000);
        self.set(0x14, 1, 15);
        assert_eq!(self.status(), 15);
    }

    /// MSI-X on, with vector `vector` unmasked.
    fn enable_msix(&self, vector: u64) -> Message {
        let capability = self.capability(0x11, |_| true);
        self.set_config(capability + 2, 2, 0x8000);
        let entry = MSIX_TABLE + 16 * vector;
        self.set(entry, 4, 0xfee0_0000);
        self.set(entry + 8, 4, 0x40);
        self.set(entry + 12, 4, 0);
        Message {
            address: 0xfee0_0000,
            data: 0x40,
        }
    }

    /// Walks the list as a driver does.
    fn capability(&self, id: u32, wanted: impl Fn(u64) -> bool) -> u64 {
        assert_eq!(self.config(6, 2) & 0x10, 0x10, "there is a list");
        let mut at = u64::from(self.config(0x34, 1));
        for _ in 0..48 {
            assert!(at >= 0x40 && at.is_multiple_of(4));
            if self.config(at, 1) == id && wanted(at) {
                return at;
            }
            at = u64::from(self.config(at + 1, 1));
        }
        panic!("no capability {id:#x}");
    }

    fn virtio(&self, cfg_type: u32) -> u64 {
        self.capability(9, |at| self.config(at + 3, 1) == cfg_type)
    }

    fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    fn mistakes(&self) -> usize {
        let is_mistake = |event: &&Arc<Event>| matches!(event.kind, EventKind::GuestMistake { .. });
        self.log.events().iter().filter(is_mistake).count()
    }

    fn interrupt(&self) -> Arc<dyn Interrupt> {
        let device = self.device.lock().unwrap();
        device.activation.as_ref().unwrap().interrupt.clone()
    }
}

#[test]
fn a_function_says_what_it_is() {
    let bench = bench();
    assert_eq!(bench.config(0, 4), 0x1042_1af4);
    assert_eq!(bench.config(8, 4), 0x0180_0001);
    assert_eq!(bench.config(0x0e, 1), 0, "one function, type 0");
    assert_eq!(bench.config(0x3d, 1), 1, "INTA#");
    bench.transport.set_multifunction();
    assert_eq!(bench.config(0x0e, 1), 0x80);
}

#[test]
fn each_structure_has_a_capability_and_lies_in_the_bar() {
    let bench = bench();
    let places = [
        (1, COMMON, COMMON_LEN),
        (2, NOTIFY, NOTIFY_LEN),
        (3, ISR, ISR_LEN),
        (4, DEVICE, DEVICE_LEN),
    ];
    for (cfg_type, offset, len) in places {
        let at = bench.virtio(cfg_type);
        assert_eq!(bench.config(at + 4, 1), 0, "BAR 0");
        assert_eq!(u64::from(bench.config(at + 8, 4)), offset);
        assert_eq!(u64::from(bench.config(at + 12, 4)), len);
        assert!(offset + len <= BAR_SIZE);
    }
    assert_eq!(bench.config(bench.virtio(2) + 16, 4), 4, "multiplier");
    let msix = bench.capability(0x11, |_| true);
    assert_eq!(bench.config(msix + 2, 2), 2, "three vectors");
    assert_eq!(u64::from(bench.config(msix + 4, 4)), MSIX_TABLE);
    assert_eq!(u64::from(bench.config(msix + 8, 4)), MSIX_PBA);
}

#[test]
fn the_bar_is_sized_placed_and_decoded() {
    let bench = bench();
    bench.transport.place_bar(0xc000_8000);
    assert_eq!(bench.transport.decoded_bar(), None);
    bench.set_config(4, 2, 2);
    assert_eq!(bench.transport.decoded_bar(), Some(0xc000_8000));
    bench.set_config(0x10, 4, u32::MAX);
    bench.set_config(0x14, 4, u32::MAX);
    assert_eq!(bench.config(0x10, 4), 0xffff_8004);
    assert_eq!(bench.config(0x14, 4), u32::MAX);
    bench.set_config(0x10, 4, 0x1234_0000);
    bench.set_config(0x14, 4, 1);
    assert_eq!(bench.transport.decoded_bar(), Some(0x1_1234_0000));
    assert_eq!(bench.config(0x18, 4), 0, "no other BAR");
}

#[test]
fn a_driver_that_follows_the_specification_gets_its_queues_activated() {
    let bench = bench();
    bench.set(0, 4, 1);
    let high = u64::from(bench.get(4, 4));
    bench.set(0, 4, 0);
    assert_eq!(u64::from(bench.get(4, 4)) | high << 32, FEATURES);
    assert_eq!(bench.get(0x12, 2), 2, "queues");
    let sizes = [0, 1, 2].map(|queue| {
        bench.set(0x16, 2, queue);
        bench.get(0x18, 2)
    });
    assert_eq!(sizes, [256, 64, 0]);
    bench.start();
    assert_eq!(bench.get(0x15, 1), 77, "generation");
    let device = bench.device.lock().unwrap();
    let activation = device.activation.as_ref().unwrap();
    assert_eq!(activation.features, VERSION_1);
    let [first, second] = &activation.queues[..] else {
        panic!("two queues")
    };
    assert!(first.ready() && !second.ready());
    assert_eq!((first.size(), first.desc_table()), (16, 0x1000));
    assert_eq!((first.avail_ring(), first.used_ring()), (0x2000, 0x3000));
    assert_eq!(bench.mistakes(), 0);
}

#[test]
fn an_address_can_be_written_and_read_at_once() {
    let bench = bench();
    bench.negotiate();
    let address = 0x1_2345_6000u64.to_le_bytes();
    bench.transport.write_bar(0x28, &address);
    let mut seen = [0; 8];
    bench.transport.read_bar(0x28, &mut seen);
    assert_eq!(seen, address);
    assert_eq!((bench.get(0x28, 4), bench.get(0x2c, 4)), (0x2345_6000, 1));
}

#[test]
fn a_queue_is_not_disabled_and_not_reset_by_itself() {
    let bench = bench();
    bench.start();
    bench.set(0x1c, 2, 0);
    bench.set(0x3a, 2, 1);
    assert_eq!((bench.get(0x1c, 2), bench.get(0x3a, 2)), (1, 0));
    assert_eq!((bench.status(), bench.mistakes()), (15, 2));
}

#[test]
fn without_vectors_an_interrupt_is_a_bit_and_the_pin_until_it_is_read() {
    let bench = bench();
    bench.start();
    bench.interrupt().signal_queue(0);
    bench.interrupt().signal_queue(0);
    bench.interrupt().signal_config();
    assert_eq!(bench.seen(), [Seen::Pin(true)]);
    assert_eq!(bench.config(6, 2) & 8, 8, "interrupt status");
    assert_eq!(bench.get(ISR, 1), 3);
    assert_eq!(bench.get(ISR, 1), 0);
    assert_eq!(bench.seen(), [Seen::Pin(false)]);
    assert_eq!(bench.config(6, 2) & 8, 0);
}

#[test]
fn a_disabled_pin_waits_and_comes() {
    let bench = bench();
    bench.start();
    bench.set_config(4, 2, 6 | 1 << 10);
    bench.interrupt().signal_queue(0);
    assert_eq!(bench.seen(), []);
    assert_eq!(bench.config(6, 2) & 8, 8);
    bench.set_config(4, 2, 6);
    assert_eq!(bench.seen(), [Seen::Pin(true)]);
}

#[test]
fn with_vectors_each_queue_sends_its_own() {
    let bench = bench();
    let message = bench.enable_msix(1);
    bench.start();
    bench.set(0x16, 2, 0);
    bench.set(0x1a, 2, 1);
    assert_eq!(bench.get(0x1a, 2), 1);
    bench.interrupt().signal_queue(0);
    bench.interrupt().signal_queue(1);
    assert_eq!(bench.seen(), [Seen::Route(1, message), Seen::Sent(1)]);
    assert_eq!(bench.get(ISR, 1), 0, "a queue leaves no bit");
}

#[test]
fn a_vector_that_does_not_exist_is_refused() {
    let bench = bench();
    bench.set(0x10, 2, 3);
    assert_eq!(bench.get(0x10, 2), NO_VECTOR);
    bench.set(0x10, 2, 2);
    assert_eq!(bench.get(0x10, 2), 2);
    bench.set(0x16, 2, 1);
    bench.set(0x1a, 2, 0xfffe);
    assert_eq!(bench.get(0x1a, 2), NO_VECTOR);
}

#[test]
fn a_masked_vector_is_pending_until_it_is_unmasked() {
    let bench = bench();
    bench.enable_msix(0);
    bench.set(MSIX_TABLE + 12, 4, 1);
    bench.start();
    bench.set(0x10, 2, 0);
    bench.seen();
    bench.interrupt().signal_config();
    assert_eq!((bench.seen(), bench.get(MSIX_PBA, 4)), (vec![], 1));
    bench.set(MSIX_TABLE + 12, 4, 0);
    assert_eq!(
        (bench.seen(), bench.get(MSIX_PBA, 4)),
        (vec![Seen::Sent(0)], 0)
    );
}

#[test]
fn a_reset_of_the_device_keeps_the_table_and_forgets_who_uses_it() {
    let bench = bench();
    bench.enable_msix(1);
    bench.set(0x10, 2, 1);
    bench.start();
    bench.set(0x14, 1, 0);
    assert_eq!((bench.status(), bench.get(0x10, 2)), (0, NO_VECTOR));
    assert_eq!(bench.get(MSIX_TABLE + 16, 4), 0xfee0_0000);
    assert_eq!(bench.device.lock().unwrap().resets, 1);
    bench.set(0x10, 2, 1);
    bench.seen();
    bench.start();
    bench.interrupt().signal_config();
    assert_eq!(bench.seen(), [Seen::Sent(1)], "the route is still there");
}

#[test]
fn a_reset_of_the_function_forgets_everything() {
    let bench = bench();
    bench.enable_msix(1);
    bench.set_config(4, 2, 2);
    bench.set_config(0x10, 4, 0xc000_0000);
    bench.start();
    let features = bench.capability(0x13, |_| true);
    assert_eq!(bench.config(features + 3, 1), 3, "TP and FLR");
    bench.set_config(features + 4, 1, 1);
    assert_eq!((bench.status(), bench.config(4, 2)), (0, 0));
    assert_eq!(bench.transport.decoded_bar(), None);
    assert_eq!(bench.get(MSIX_TABLE + 28, 4), 1, "masked");
    assert_eq!(bench.device.lock().unwrap().resets, 1);
    bench.start();
}

#[test]
fn a_device_that_needs_a_reset_tells_a_driver_at_work() {
    let bench = bench();
    bench.start();
    bench.interrupt().signal_needs_reset();
    assert_eq!(
        (bench.status(), bench.seen()),
        (64 | 15, vec![Seen::Pin(true)])
    );
    assert_eq!(bench.get(ISR, 1), 2);
}

#[test]
fn a_kick_that_arrives_as_a_write_is_passed_on_in_any_width() {
    let bench = bench();
    bench.start();
    bench.set(notify_offset(1), 2, 1);
    bench.set(notify_offset(0), 4, 0);
    let [first, second] = bench.transport.kick_fds() else {
        panic!("two queues")
    };
    assert_eq!((first.read().unwrap(), second.read().unwrap()), (1, 1));
    bench.set(notify_offset(2), 2, 2);
    assert_eq!(bench.mistakes(), 1);
}

#[test]
fn the_bar_is_reached_by_way_of_configuration_space() {
    let bench = bench();
    let window = bench.virtio(5);
    bench.set_config(window + 8, 4, 0x14);
    bench.set_config(window + 12, 4, 1);
    bench.set_config(window + 16, 1, 1);
    assert_eq!((bench.status(), bench.config(window + 16, 4)), (1, 1));
    bench.set_config(window + 8, 4, 4);
    bench.set_config(window + 12, 4, 4);
    assert_eq!(
        u64::from(bench.config(window + 16, 4)),
        FEATURES & 0xffff_ffff
    );
    for (offset, len, bar) in [(2, 4, 0), (4, 3, 0), (4, 4, 1), (4, u32::MAX, 0)] {
        bench.set_config(window + 4, 1, bar);
        bench.set_config(window + 8, 4, offset);
        bench.set_config(window + 12, 4, len);
        bench.set_config(window + 16, 4, 0xf);
        assert_eq!((bench.config(window + 16, 4), bench.status()), (0, 1));
    }
}

#[test]
fn device_configuration_is_bytes_of_any_width() {
    let bench = bench();
    assert_eq!(bench.get(DEVICE, 4).to_le_bytes(), *b"conf");
    assert_eq!(bench.get(DEVICE + 11, 1), u32::from(b'!'));
    bench.set(DEVICE, 1, 0);
    assert_eq!(bench.mistakes(), 1, "only a driver may write it");
}

#[test]
fn no_offset_width_or_value_upsets_the_function() {
    for seed in 0..40 {
        let bench = bench();
        let mut numbers = Numbers(seed);
        if seed % 2 == 0 {
            bench.enable_msix(seed % 3);
            bench.start();
        }
        for step in 0..4000 {
            one_access(&bench, &mut numbers);
            let status = bench.status();
            let activated = bench.device.lock().unwrap().activation.is_some();
            assert!(
                (status & 4 != 0) == activated || status & 64 != 0,
                "seed {seed}, step {step}: status {status:#x}, activated is {activated}"
            );
        }
        assert!(bench.mistakes() <= 1000, "seed {seed}: the log has an end");
        bench.transport.reset();
        bench.start();
    }
}

fn one_access(bench: &Bench, numbers: &mut Numbers) {
    let offset = match numbers.next() % 8 {
        0 => numbers.value(),
        1 | 2 => numbers.next() % 0x100,
        3 | 4 => numbers.next() % 0x40,
        5 => MSIX_TABLE + numbers.next() % 0x40,
        _ => numbers.next() % BAR_SIZE,
    };
    let width = usize::try_from(numbers.next() % 18).unwrap();
    let width = if width > 9 { 1 << (width % 4) } else { width };
    let mut data = [0; 9];
    data[..8].copy_from_slice(&numbers.value().to_le_bytes());
    let (data, transport) = (&mut data[..width], &bench.transport);
    match numbers.next() % 5 {
        0 => transport.read_bar(offset, data),
        1 => transport.read_config(offset, data),
        2 => transport.write_config(offset, data),
        _ => transport.write_bar(offset, data),
    }
    if let Some(activation) = &bench.device.lock().unwrap().activation {
        activation.interrupt.signal_queue(0);
    }
}
