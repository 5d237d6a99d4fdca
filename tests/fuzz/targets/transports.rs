//! Registers: what a driver does with those of virtio-mmio, and with configuration space and BAR of virtio-pci.
//!
//! ```text
//!   byte 0   kind of device, and what it is like
//!   byte 1   the transport
//!   then     accesses of any place, width and value; steps of an honest set-up; resets; kicks; things from outside
//! ```
//!
//! Verifies: nothing panics, log and ledger agree, a BAR is a multiple of its size, only vectors that exist and were routed are
//! sent, the pin changes when it is said to; after a reset an honest driver is served.

use std::collections::BTreeSet;
use std::sync::Mutex;

use pincushion_devices::fault::Plan;
use pincushion_devices::trace::event::FRAME_SIZE;
use pincushion_devices::transport::pci::{BAR_SIZE, Message, PciInterrupts, PciTransport};
use pincushion_devices::transport::{MmioTransport, WINDOW_SIZE};
use pincushion_fuzz::Input;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::account::Account;
use crate::subject::{FRAMES, KINDS, QUEUE, Subject};

const HELD: &str = "[[rule]]\nprobability = 0.5\nhold = { gate = 'g' }\n";

enum Way {
    Mmio(MmioTransport),
    Pci(Box<PciTransport>),
}

/// What a driver sets up, in both transports.
#[derive(Debug, Clone, Copy)]
enum Register {
    Status,
    DriverSelect,
    DriverFeatures,
    QueueSelect,
    QueueSize,
    QueueReady,
    Descriptors,
    Available,
    Used,
}

/// The guest's interrupt controllers.
struct Controllers {
    vectors: usize,
    seen: Mutex<(bool, BTreeSet<u16>)>,
}

impl PciInterrupts for Controllers {
    fn set_pin(&self, asserted: bool) {
        let mut seen = self.seen.lock().expect("no panic");
        assert_ne!(seen.0, asserted, "the pin changes when it is said to");
        seen.0 = asserted;
    }

    fn route(&self, vector: u16, _message: Message) {
        assert!(usize::from(vector) < self.vectors, "vector {vector}");
        self.seen.lock().expect("no panic").1.insert(vector);
    }

    fn send(&self, vector: u16) {
        let routed = self.seen.lock().expect("no panic").1.contains(&vector);
        assert!(routed, "vector {vector} was never routed");
    }
}

pub fn target(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let what = input.byte();
    let kind = KINDS[usize::from(what) % KINDS.len()];
    let way = input.byte();
    let subject = Subject::new(kind, what / 16, if way & 2 == 0 { "" } else { HELD });
    let way = Way::new(&subject, way & 1 == 0);
    while !input.is_empty() {
        step(&subject, &way, &mut input);
    }
    let mut account = Account::default();
    let mut read_log = |subject: &Subject| {
        for event in subject.log.take() {
            account.enter(&event);
        }
        account.compare(subject.context.ledger(), FRAMES);
    };
    read_log(&subject);
    way.reset();
    subject.assert_forgotten();
    let context = &subject.context;
    context
        .replace_plan(Plan::default())
        .expect("an empty plan");
    context.finish();
    way.start(&subject);
    subject.assert_serves();
    read_log(&subject);
}

fn step(subject: &Subject, way: &Way, input: &mut Input<'_>) {
    match input.below(16) {
        0..=3 => {
            let (place, width) = (way.place(input), width(input));
            let bytes = input.number().to_le_bytes();
            way.write(place, &bytes[..width]);
        }
        4..=5 => {
            let place = way.place(input);
            let mut data = [0xee; 8];
            way.read(place, &mut data[..width(input)]);
        }
        6..=7 => {
            if let Way::Pci(pci) = way {
                let (place, width) = (u64::from(input.byte()) * 16, width(input));
                let place = (place + u64::from(input.below(16))) % 0x120;
                pci.write_config(place, &input.number().to_le_bytes()[..width]);
            }
        }
        8 => {
            if let Way::Pci(pci) = way {
                let mut data = [0xee; 8];
                pci.read_config(u64::from(input.word() % 0x1020), &mut data[..width(input)]);
            }
        }
        9 => way.honest_step(input),
        10 => way.start(subject),
        11 => subject.kick(u16::from(input.below(8))),
        12 => subject.wake(),
        13 => subject.stir(input),
        14 => {
            let driver = subject.driver(u16::from(input.byte()) % subject.queues());
            driver.put(
                FRAME_SIZE + u64::from(input.word()) % FRAME_SIZE,
                input.take(24),
            );
        }
        _ => way.reset(),
    }
    if let Way::Pci(pci) = way {
        let bar = pci.decoded_bar();
        assert!(bar.is_none_or(|bar| bar % BAR_SIZE == 0), "{bar:x?}");
    }
}

fn width(input: &mut Input<'_>) -> usize {
    *input.pick(&[4, 4, 2, 1, 8, 3])
}

impl Way {
    fn new(subject: &Subject, is_mmio: bool) -> Self {
        let (device, memory) = (subject.device.clone(), subject.memory.clone());
        let tracer = subject.tracer.clone();
        if is_mmio {
            let line = EventFd::new(EFD_NONBLOCK).expect("descriptors");
            return Self::Mmio(
                MmioTransport::new(device, memory, line, tracer).expect("descriptors"),
            );
        }
        let controllers = Controllers {
            vectors: PciTransport::vectors_for(usize::from(subject.queues())),
            seen: Mutex::default(),
        };
        let pci = PciTransport::new(device, memory, Box::new(controllers), 1, tracer);
        Self::Pci(Box::new(pci.expect("descriptors")))
    }

    /// Anywhere, and mostly where something is.
    fn place(&self, input: &mut Input<'_>) -> u64 {
        let (high, low) = (u64::from(input.byte()), u64::from(input.byte()));
        match self {
            Self::Mmio(_) if high < 0xf0 => low * 4 % 0x120,
            Self::Mmio(_) => (high * 0x100 + low) % WINDOW_SIZE,
            Self::Pci(_) if high < 0x80 => low % 0x40,
            Self::Pci(_) => high % 8 * 0x1000 + low,
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        match self {
            Self::Mmio(mmio) => mmio.write(offset, data),
            Self::Pci(pci) => pci.write_bar(offset, data),
        }
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        match self {
            Self::Mmio(mmio) => mmio.read(offset, data),
            Self::Pci(pci) => pci.read_bar(offset, data),
        }
    }

    fn reset(&self) {
        match self {
            Self::Mmio(mmio) => mmio.reset(),
            Self::Pci(pci) => pci.reset(),
        }
    }

    /// Where a register is, and its width.
    fn register(&self, register: Register) -> (u64, usize) {
        use Register as R;
        match (self, register) {
            (Self::Mmio(_), register) => {
                let offset = match register {
                    R::Status => 0x70,
                    R::DriverSelect => 0x24,
                    R::DriverFeatures => 0x20,
                    R::QueueSelect => 0x30,
                    R::QueueSize => 0x38,
                    R::QueueReady => 0x44,
                    R::Descriptors => 0x80,
                    R::Available => 0x90,
                    R::Used => 0xa0,
                };
                (offset, 4)
            }
            (Self::Pci(_), R::Status) => (0x14, 1),
            (Self::Pci(_), R::DriverSelect) => (0x08, 4),
            (Self::Pci(_), R::DriverFeatures) => (0x0c, 4),
            (Self::Pci(_), R::QueueSelect) => (0x16, 2),
            (Self::Pci(_), R::QueueSize) => (0x18, 2),
            (Self::Pci(_), R::QueueReady) => (0x1c, 2),
            (Self::Pci(_), R::Descriptors) => (0x20, 4),
            (Self::Pci(_), R::Available) => (0x28, 4),
            (Self::Pci(_), R::Used) => (0x30, 4),
        }
    }

    fn set(&self, register: Register, value: u64) {
        let (offset, width) = self.register(register);
        self.write(offset, &value.to_le_bytes()[..width]);
    }

    fn status(&self) -> u8 {
        let (offset, width) = self.register(Register::Status);
        let mut data = [0; 4];
        self.read(offset, &mut data[..width]);
        data[0]
    }

    /// One write that an honest driver might make next, of a value that it might not.
    fn honest_step(&self, input: &mut Input<'_>) {
        use Register as R;
        let register = *input.pick(&[
            R::Status,
            R::DriverSelect,
            R::DriverFeatures,
            R::QueueSelect,
            R::QueueSize,
            R::QueueReady,
            R::Descriptors,
            R::Available,
            R::Used,
        ]);
        let value = match register {
            R::Status => u64::from(*input.pick(&[0u8, 1, 3, 11, 15, 128, 64])),
            R::Descriptors | R::Available | R::Used => u64::from(input.word()) * 16,
            R::DriverFeatures => input.number(),
            _ => u64::from(input.below(34)),
        };
        self.set(register, value);
    }

    /// An honest driver's way from a reset to DRIVER_OK with all features, with rings of zeros.
    fn start(&self, subject: &Subject) {
        use Register as R;
        if let Self::Pci(pci) = self {
            // COMMAND: memory accesses are decoded, and the function is bus master.
            pci.write_config(4, &6u16.to_le_bytes());
        }
        self.set(R::Status, 0);
        assert_eq!(self.status(), 0, "a reset is over when it reads 0");
        self.set(R::Status, 1);
        self.set(R::Status, 3);
        let features = subject.device.lock().expect("no panic").features();
        for half in 0..2 {
            self.set(R::DriverSelect, half);
            self.set(R::DriverFeatures, features >> (32 * half) & 0xffff_ffff);
        }
        self.set(R::Status, 11);
        for queue in 0..subject.queues() {
            let mut driver = subject.driver(queue);
            driver.reset();
            let rings = driver.rings();
            self.set(R::QueueSelect, queue.into());
            self.set(R::QueueSize, QUEUE.into());
            for (register, ring) in [R::Descriptors, R::Available, R::Used]
                .into_iter()
                .zip(rings)
            {
                self.set(register, ring.addr);
                let (offset, width) = self.register(register);
                self.write(offset + 4, &[0; 4][..width]);
            }
            self.set(R::QueueReady, 1);
        }
        self.set(R::Status, 15);
        assert_eq!(self.status(), 15, "an honest driver is served");
    }
}
