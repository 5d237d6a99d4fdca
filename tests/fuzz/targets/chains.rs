//! Chains: what a driver writes into the rings of each device, when it kicks, and when it resets, under a fault plan.
//!
//! ```text
//!   byte 0   kind of device, and what it is like
//!   byte 1   the plan
//!   then     moves of the driver and of the world, until the bytes end
//! ```
//!
//! After it: log and ledger agree, a reset gives every frame back, and an honest driver is served.

use std::sync::Arc;

use pincushion_devices::device::Activation;
use pincushion_devices::fault::Plan;
use pincushion_devices::interrupt::Counting;
use pincushion_devices::mock::Driver;
use pincushion_devices::trace::event::FRAME_SIZE;
use pincushion_fuzz::Input;
use virtio_queue::Queue;

use crate::account::Account;
use crate::subject::{DATA, DISK, FRAMES, KINDS, Kind, MEMORY, QUEUE, Subject};

/// VIRTIO_F_VERSION_1.
const VERSION_1: u64 = 1 << 32;
const NEXT: u8 = 1;
const WRITE: u8 = 2;

const HELD: &str = r#"
    [[rule]]
    ordinals = { from = 1, to = 4 }
    hold = { gate = "g" }
    [[rule]]
    times = 2
    hold = { same-frame = { point = "fetched" } }
    [[rule]]
    point = "executed"
    probability = 0.5
    hold = { same-frame = { point = "completed" } }
    [[rule]]
    probability = 0.3
    hold = { for = { uniform-us = { from = 1, to = 900 } } }
    [[rule]]
    point = "executed"
    probability = 0.3
    hold = { for-ms = 3 }
    [[rule]]
    fetch = "early"
"#;

/// Every fault, each now and then, also several in one request.
const WRONG: &str = r#"
    [[rule]]
    probability = 0.15
    torn = { cache-lines = "random" }
    corrupt = { bits = 3 }
    duplicate = true
    [[rule]]
    probability = 0.15
    short = { share = 0.5 }
    fail = 9
    [[rule]]
    probability = 0.15
    torn = { sectors = [0, 2] }
    fetch = "early"
    [[rule]]
    probability = 0.15
    corrupt = { bits = 2, within = { from = 0, to = 64 } }
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
    point = "executed"
    probability = 0.3
    fail = "ioerr"
    [[rule]]
    point = "completed"
    probability = 0.2
    duplicate = true
    config-changes = 3
    interrupt = "drop"
"#;

const PLANS: [&str; 3] = ["", HELD, WRONG];

/// A device that is wrong on purpose.
#[cfg(not(feature = "libfuzzer"))]
const PLANTED: &str = "[[rule]]\nplanted = 'hold-after-completion'\n";

/// Meets a disk that keeps a hold when its request is used: has to panic.
#[cfg(not(feature = "libfuzzer"))]
pub fn meet_planted_bug() {
    let play = Play::new(Kind::Blk, 0, PLANTED);
    play.subject.assert_serves();
    play.end();
}

/// A driver of all queues of a device, and what the log said.
struct Play {
    subject: Subject,
    drivers: Vec<Driver>,
    interrupt: Arc<Counting>,
    account: Account,
}

pub fn target(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let what = input.byte();
    let kind = KINDS[usize::from(what) % KINDS.len()];
    let plan = *input.pick(&PLANS);
    let mut play = Play::new(kind, what / 16, plan);
    while !input.is_empty() {
        play.step(&mut input);
    }
    play.end();
}

impl Play {
    fn new(kind: Kind, variant: u8, plan: &str) -> Self {
        let subject = Subject::new(kind, variant, plan);
        let drivers = (0..subject.queues()).map(|queue| subject.driver(queue));
        let mut play = Self {
            drivers: drivers.collect(),
            subject,
            interrupt: Arc::default(),
            account: Account::default(),
        };
        play.start(u64::MAX);
        play
    }

    /// Activates the device, with all of the features that it lets a driver choose by `mask`.
    fn start(&mut self, mask: u64) {
        for driver in &mut self.drivers {
            driver.reset();
        }
        let mut device = self.subject.device.lock().expect("no panic");
        let offered = device.features();
        let chosen = offered & mask | VERSION_1;
        let features = if device.accept_features(chosen) {
            chosen
        } else {
            assert!(device.accept_features(offered), "what it offers itself");
            offered
        };
        let queues: Vec<Queue> = self.drivers.iter().map(Driver::queue).collect();
        let activation = Activation {
            memory: self.subject.memory.clone(),
            features,
            queues,
            interrupt: self.interrupt.clone(),
            resume: Vec::new(),
        };
        device.activate(activation).expect("rings in guest memory");
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let queue = u16::from(input.byte()) % self.subject.queues();
        let driver = &mut self.drivers[usize::from(queue)];
        match input.below(16) {
            0..=2 => put_desc(driver, input),
            3..=6 => offer_request(self.subject.kind, queue, driver, input),
            7 => driver.offer_head(u16::from(input.below(18))),
            8 => driver.publish(input.word()),
            9 => {
                let bytes = input.take(24);
                let at = place(input) % (MEMORY - 24);
                driver.put(at, bytes);
            }
            10..=11 => self.subject.kick(queue),
            12 => self.subject.wake(),
            13 => self.subject.stir(input),
            14 => match input.below(4) {
                0 => driver.set_avail_flags(input.word()),
                _ => driver.set_used_event(input.word()),
            },
            _ => {
                self.subject.device.lock().expect("no panic").reset();
                self.subject.assert_forgotten();
                let mask = input.number();
                self.start(mask);
            }
        }
    }

    fn end(mut self) {
        for queue in 0..self.subject.queues() {
            self.subject.kick(queue);
        }
        self.read_log();
        let ledger = self.subject.context.ledger();
        self.account.compare(ledger, FRAMES);
        self.subject.device.lock().expect("no panic").reset();
        self.subject.assert_forgotten();
        let context = &self.subject.context;
        context
            .replace_plan(Plan::default())
            .expect("an empty plan");
        context.finish();
        self.start(u64::MAX);
        self.subject.assert_serves();
        self.read_log();
    }

    fn read_log(&mut self) {
        for event in self.subject.log.take() {
            self.account.enter(&event);
        }
    }
}

/// An address, mostly in memory.
fn place(input: &mut Input<'_>) -> u64 {
    match input.below(8) {
        0 => input.number(),
        1 => MEMORY - u64::from(input.byte()),
        2 => FRAME_SIZE + u64::from(input.word()) % (5 * FRAME_SIZE),
        3 => u64::MAX - u64::from(input.byte()),
        _ => DATA + u64::from(input.word()),
    }
}

fn length(input: &mut Input<'_>) -> u32 {
    match input.below(8) {
        0 => u32::MAX - u32::from(input.byte()),
        1 => u32::from(input.word()),
        2 => u32::from(input.byte()),
        3 => 1 << input.below(17),
        4 => 16 * u32::from(input.below(20)),
        _ => 512 * u32::from(input.below(20)),
    }
}

/// NEXT, WRITE and INDIRECT in every mixture, and now and then flags that do not exist.
fn put_desc(driver: &Driver, input: &mut Input<'_>) {
    let index = u16::from(input.byte()) % QUEUE;
    let (addr, len) = (place(input), length(input));
    let flags = u16::from(input.byte());
    driver.put_desc(index, addr, len, flags, u16::from(input.below(18)));
}

/// A request as its device expects it, with whatever places and lengths; later moves may spoil it before the kick.
fn offer_request(kind: Kind, queue: u16, driver: &mut Driver, input: &mut Input<'_>) {
    let head = 4 * u16::from(input.below(4));
    let room = DATA + FRAME_SIZE * u64::from(head);
    let Shape {
        control,
        payload,
        answer,
    } = shape(kind, queue, input);
    driver.put(room, &control);
    let mut parts = Vec::new();
    if !control.is_empty() {
        let len = u32::try_from(control.len()).expect("a few bytes");
        parts.push((room, len, 0));
    }
    if let Some(flag) = payload {
        let count = if input.byte() & 1 == 0 { 1 } else { 2 };
        for _ in 0..count {
            parts.push((place(input), length(input), flag));
        }
    }
    if answer > 0 {
        parts.push((room + 0x800, answer, WRITE));
    }
    for (at, (addr, len, flags)) in (head..).zip(&parts) {
        let more = usize::from(at - head) + 1 < parts.len();
        let flags = u16::from(flags | if more { NEXT } else { 0 });
        driver.put_desc(at, *addr, *len, flags, at + 1);
    }
    driver.offer_head(head);
}

/// What a request of a queue is made of.
struct Shape {
    /// Bytes that the device reads first.
    control: Vec<u8>,
    /// Flag of the descriptors of its payload.
    payload: Option<u8>,
    /// Length of what the device answers at the end.
    answer: u32,
}

fn shape(kind: Kind, queue: u16, input: &mut Input<'_>) -> Shape {
    let shape = |control: Vec<u8>, payload, answer| Shape {
        control,
        payload,
        answer,
    };
    match (kind, queue) {
        (Kind::Blk, _) => {
            let operation = u32::from(*input.pick(&[0u8, 1, 4, 8, 11, 13, 14, 99]));
            let mut header = operation.to_le_bytes().to_vec();
            header.extend([0; 4]);
            let sector = u64::from(input.byte()) % (DISK / 512 + 4);
            header.extend(sector.to_le_bytes());
            let flag = if matches!(operation, 0 | 8) { WRITE } else { 0 };
            let payload = (operation != 4).then_some(flag);
            shape(header, payload, 1)
        }
        (Kind::Net, queue) if queue == 2 || queue == 4 => {
            let mut command = vec![input.below(6), input.below(6)];
            command.extend(input.take(usize::from(input.clone().below(20))));
            shape(command, None, 1)
        }
        (Kind::Net, queue) if queue.is_multiple_of(2) => shape(Vec::new(), Some(WRITE), 0),
        (Kind::Net, _) => {
            let mut header = vec![0; 12];
            let given = input.take(usize::from(input.clone().below(13)));
            header[..given.len()].copy_from_slice(given);
            shape(header, Some(0), 0)
        }
        (Kind::Balloon, 0..=2) => {
            let len = usize::from(input.clone().below(33));
            shape(input.take(len).to_vec(), None, 0)
        }
        (Kind::Balloon, _) => shape(Vec::new(), Some(WRITE), 0),
        (Kind::Pmem, _) => {
            let operation = u32::from(input.below(3));
            shape(operation.to_le_bytes().to_vec(), None, 4)
        }
        (Kind::Console, 0) => shape(Vec::new(), Some(WRITE), 0),
        (Kind::Console, _) => shape(input.take(8).to_vec(), Some(0), 0),
    }
}
