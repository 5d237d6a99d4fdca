//! A whole console with a driver for each queue.

use std::io;
use std::sync::{Arc, Mutex};

use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::config::EMERGENCY;
use super::{ConsoleConfig, ConsoleDevice, ConsoleInput};
use crate::context::Context;
use crate::device::{Activation, VirtioDevice};
use crate::fault::Plan;
use crate::interrupt::Counting;
use crate::mock::{ByHand, Desc, Driver};
use crate::trace::event::EventKind;
use crate::trace::{Recording, Tracer};

const QUEUE: u16 = 8;
/// Where the test's buffers are.
const DATA: u64 = 0x2_0000;

/// Keeps what is written, or fails.
#[derive(Clone, Default)]
struct Page {
    text: Arc<Mutex<Vec<u8>>>,
    fails: bool,
}

impl io::Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.fails {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.text.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Bench {
    device: ConsoleDevice,
    input: ConsoleInput,
    receive: Driver,
    transmit: Driver,
    page: Page,
    context: Context,
    log: Recording,
}

impl Bench {
    fn new() -> Self {
        Self::with("", Page::default())
    }

    fn with(plan: &str, page: Page) -> Self {
        let plan = Plan::parse(plan, std::path::Path::new("plan.toml")).unwrap();
        let (tracer, log) = Tracer::recording();
        let context = Context::new(plan, tracer).unwrap();
        let config = ConsoleConfig {
            queue_size: QUEUE,
            ..ConsoleConfig::new("c")
        };
        let device = ConsoleDevice::new(config, Box::new(page.clone()), context.clone()).unwrap();
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x4_0000)]).unwrap();
        let memory = Arc::new(memory);
        let mut bench = Self {
            input: device.input(),
            device,
            receive: Driver::within(memory.clone(), 0x1000, QUEUE),
            transmit: Driver::within(memory, 0x8000, QUEUE),
            page,
            context,
            log,
        };
        bench.activate();
        bench
    }

    fn activate(&mut self) {
        let event_idx = 1 << virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
        let features = self.device.features() & !event_idx;
        assert!(self.device.accept_features(features));
        let activation = Activation {
            memory: self.receive.memory().clone(),
            features,
            queues: vec![self.receive.queue(), self.transmit.queue()],
            interrupt: Arc::new(Counting::default()),
            resume: Vec::new(),
        };
        self.device.activate(activation).unwrap();
    }

    fn send(&mut self, chain: &[Desc]) -> Vec<u32> {
        self.transmit.offer(chain);
        self.device.on_kick(1);
        self.transmit
            .take_used()
            .iter()
            .map(|used| used.len)
            .collect()
    }

    fn post(&mut self, addr: u64, len: u32) {
        self.receive.offer(&[desc(addr, len, true)]);
        self.device.on_kick(0);
    }

    fn type_in(&mut self, bytes: &[u8]) -> Vec<u32> {
        assert_eq!(self.input.send(bytes), bytes.len());
        self.device.on_wake();
        self.receive
            .take_used()
            .iter()
            .map(|used| used.len)
            .collect()
    }

    fn written(&self) -> Vec<u8> {
        self.page.text.lock().unwrap().clone()
    }

    fn mistakes(&self) -> usize {
        let is_mistake = |kind: &EventKind| matches!(kind, EventKind::GuestMistake { .. });
        let events = self.log.events();
        events
            .iter()
            .filter(|event| is_mistake(&event.kind))
            .count()
    }
}

fn desc(addr: u64, len: u32, writable: bool) -> Desc {
    Desc {
        addr,
        len,
        writable,
    }
}

#[test]
fn what_the_guest_sends_is_written_in_order() {
    let mut bench = Bench::new();
    bench.transmit.put(DATA, b"hello, world");
    let chain = [
        desc(DATA, 5, false),
        desc(DATA + 5, 0, false),
        desc(DATA + 5, 7, false),
    ];
    assert_eq!(bench.send(&chain), [0]);
    assert_eq!(bench.send(&[desc(DATA, 1, false)]), [0]);
    assert_eq!(bench.written(), b"hello, worldh");
}

#[test]
fn what_is_typed_fills_the_buffers_in_order_and_waits_for_more() {
    let mut bench = Bench::new();
    bench.post(DATA, 4);
    bench.post(DATA + 0x1000, 4);
    assert!(
        bench.context.ledger().is_held(DATA / 4096),
        "held since it was posted"
    );
    assert_eq!(bench.type_in(b"abcdefghij"), [4, 4]);
    assert_eq!(bench.receive.get(DATA, 4), b"abcd");
    assert_eq!(bench.receive.get(DATA + 0x1000, 4), b"efgh");
    assert!(!bench.context.ledger().is_held(DATA / 4096));
    bench.post(DATA, 4);
    let used = bench.receive.take_used();
    assert_eq!(used[0].len, 2, "less than there is room for");
    assert_eq!(bench.receive.get(DATA, 4), b"ijcd");
}

#[test]
fn input_survives_a_reset_and_no_buffer_is_held_after_it() {
    let mut bench = Bench::new();
    bench.post(DATA, 4);
    bench.device.reset();
    assert!(!bench.context.ledger().is_held(DATA / 4096));
    bench.receive.reset();
    bench.transmit.reset();
    bench.input.send(b"xy");
    bench.device.on_wake();
    bench.activate();
    bench.post(DATA, 4);
    assert_eq!(bench.receive.take_used()[0].len, 2);
}

#[test]
fn a_full_disk_loses_output_and_stops_nothing() {
    let page = Page {
        fails: true,
        ..Page::default()
    };
    let mut bench = Bench::with("", page);
    assert_eq!(bench.send(&[desc(DATA, 5, false)]), [0]);
    let failed = |kind: &EventKind| {
        matches!(
            kind,
            EventKind::Executed {
                host_error: Some(_),
                ..
            }
        )
    };
    assert!(bench.log.events().iter().any(|event| failed(&event.kind)));
}

#[test]
fn hostile_chains_are_given_back_with_a_word() {
    let mut bench = Bench::new();
    let bad = [
        desc(DATA, 5, true),
        desc(u64::MAX - 2, 8, false),
        desc(0x3_ffff, 2, false),
    ];
    for chain in bad {
        assert_eq!(bench.send(&[chain]), [0]);
    }
    let whole = desc(0, 0x4_0000, false);
    assert_eq!(bench.send(&[whole; 5]), [0], "more than a mebibyte");
    for chain in [desc(DATA, 0, true), desc(DATA, 9, false), desc(!0, 9, true)] {
        bench.receive.offer(&[chain]);
        bench.device.on_kick(0);
        assert_eq!(bench.receive.take_used()[0].len, 0);
    }
    assert_eq!(bench.mistakes(), 7);
    assert!(bench.written().is_empty());
}

#[test]
fn a_byte_can_be_written_in_an_emergency_without_a_queue() {
    let mut bench = Bench::new();
    bench.device.reset();
    bench
        .device
        .write_config(EMERGENCY, &u32::from(b'!').to_le_bytes());
    bench.device.write_config(EMERGENCY, b"?");
    bench.device.write_config(0, &[1, 2]);
    bench.device.write_config(u64::MAX, &[1; 8]);
    assert_eq!(bench.written(), b"!?");
    let mut space = [9; 16];
    bench.device.read_config(4, &mut space);
    assert_eq!(space[..5], [1, 0, 0, 0, 0]);
}

#[test]
fn output_can_be_held_by_the_plan() {
    let plan = "[[rule]]\ndevice = 'c'\noperation = 'transmit'\nhold = { gate = 'g' }\n";
    let mut bench = Bench::with(plan, Page::default());
    bench.transmit.put(DATA, b"a");
    assert!(bench.send(&[desc(DATA, 1, false)]).is_empty());
    assert!(bench.context.ledger().is_held(DATA / 4096));
    // A late fetch: what is sent is what is there when the gate opens.
    bench.transmit.put(DATA, b"b");
    bench.context.gates().open("g");
    bench.device.on_wake();
    assert_eq!(bench.written(), b"b");
}
