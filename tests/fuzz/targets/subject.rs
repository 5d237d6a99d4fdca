//! One device of each kind, with what is outside of it, in a small memory; and an honest driver that ends every story.

use std::sync::{Arc, Mutex};

use pincushion_devices::backend::MemoryDisk;
use pincushion_devices::balloon::{BalloonConfig, BalloonDevice, BalloonHandle};
use pincushion_devices::blk::{BlkConfig, BlkDevice};
use pincushion_devices::clock::FakeClock;
use pincushion_devices::console::{ConsoleConfig, ConsoleDevice, ConsoleInput};
use pincushion_devices::context::Context;
use pincushion_devices::device::{Memory, SharedDevice};
use pincushion_devices::fault::Plan;
use pincushion_devices::mock::{ByHand, Driver};
use pincushion_devices::net::loopback::Loopback;
use pincushion_devices::net::pattern::Pattern;
use pincushion_devices::net::{Link, NetConfig, NetDevice, Port};
use pincushion_devices::pmem::{PmemConfig, PmemDevice};
use pincushion_devices::trace::event::{FRAME_SIZE, GuestRange};
use pincushion_devices::trace::{Recording, Tracer};
use pincushion_fuzz::Input;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};

/// Guest memory in frames.
pub const FRAMES: u64 = 64;
pub const MEMORY: u64 = FRAMES * FRAME_SIZE;
/// Descriptors of each queue.
pub const QUEUE: u16 = 16;
/// Capacity of the disk in bytes.
pub const DISK: u64 = 64 << 10;
/// Where the memory begins that is no ring.
pub const DATA: u64 = 8 * FRAME_SIZE;
const REGION: GuestRange = GuestRange {
    addr: 1 << 32,
    len: 2 << 20,
};

/// Kinds of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Blk,
    Net,
    Balloon,
    Pmem,
    Console,
}

pub const KINDS: [Kind; 5] = [
    Kind::Blk,
    Kind::Net,
    Kind::Balloon,
    Kind::Pmem,
    Kind::Console,
];

enum Outside {
    Nothing,
    Cable(Link),
    Balloon(BalloonHandle),
    Keyboard(ConsoleInput),
}

/// A device under test.
pub struct Subject {
    pub kind: Kind,
    pub device: SharedDevice,
    pub context: Context,
    pub clock: FakeClock,
    pub log: Recording,
    pub tracer: Arc<Tracer>,
    pub memory: Memory,
    outside: Outside,
}

impl Subject {
    pub fn new(kind: Kind, variant: u8, plan: &str) -> Self {
        let plan = Plan::parse(plan, "plan.toml".as_ref()).expect("a plan of a target");
        let (tracer, log) = Tracer::recording();
        let clock = FakeClock::default();
        let context = Context::with_clock(plan, tracer.clone(), Arc::new(clock.clone()))
            .expect("a plan that was read");
        let memory = memory(kind);
        let (device, outside) = make(kind, variant, &context);
        Self {
            kind,
            device,
            context,
            clock,
            log,
            tracer,
            memory: Arc::new(memory),
            outside,
        }
    }

    /// What the device's thread does at a kick.
    pub fn kick(&self, queue: u16) {
        self.device.lock().expect("no panic").on_kick(queue);
    }

    /// What it does when anything is readable.
    pub fn wake(&self) {
        self.device.lock().expect("no panic").on_wake();
    }

    /// Something happens that is not the driver's doing.
    pub fn stir(&self, input: &mut Input<'_>) {
        match input.below(8) {
            0..=2 => self.context.gates().open("g"),
            3 | 4 => self.clock.advance_ns(1 << input.below(34)),
            _ => match &self.outside {
                Outside::Nothing => {}
                Outside::Cable(link) => match input.below(4) {
                    up @ 0..=1 => link.set_up(up == 1),
                    _ => {
                        let rate = u64::from(input.word());
                        let mut device = self.device.lock().expect("no panic");
                        device.change_setting("rate", rate).expect("a rate");
                    }
                },
                Outside::Balloon(handle) => match input.below(2) {
                    0 => drop(handle.set_target(u64::from(input.byte()) * FRAME_SIZE)),
                    _ => handle.request_statistics(),
                },
                Outside::Keyboard(keyboard) => drop(keyboard.send(input.take(40))),
            },
        }
    }

    /// Number of queues.
    pub fn queues(&self) -> u16 {
        let device = self.device.lock().expect("no panic");
        u16::try_from(device.queue_max_sizes().len()).expect("a handful")
    }

    /// A driver by hand for one queue, whose rings have a frame of their own.
    pub fn driver(&self, queue: u16) -> Driver {
        let table = FRAME_SIZE * (1 + u64::from(queue));
        Driver::within(self.memory.clone(), table, QUEUE)
    }

    /// After a reset nothing is held and nobody waits.
    pub fn assert_forgotten(&self) {
        assert_eq!(self.context.waiting(), [], "a request waits after a reset");
        let held: Vec<u64> = (0..FRAMES)
            .filter(|frame| self.context.ledger().is_held(*frame))
            .collect();
        assert_eq!(held, [0; 0], "frames are held after a reset");
    }

    /// Lets what waits for nothing but time and the plan go, then asks an active device, whose rings are new and which obeys no
    /// plan, for something that every driver may ask for.
    pub fn assert_serves(&self) {
        if let Outside::Cable(link) = &self.outside {
            link.set_up(true);
        }
        let (queue, chain): (u16, Vec<(u64, u32, bool)>) = match self.kind {
            Kind::Blk => (0, vec![(DATA, 16, false), (DATA + 4096, 512, true)]),
            Kind::Net => (1, vec![(DATA, 72, false)]),
            Kind::Balloon => (0, vec![(DATA, 4, false)]),
            Kind::Pmem => (0, vec![(DATA, 4, false)]),
            Kind::Console => (1, vec![(DATA, 5, false)]),
        };
        let tail = match self.kind {
            Kind::Blk => Some(1),
            Kind::Pmem => Some(4),
            _ => None,
        };
        let mut driver = self.driver(queue);
        driver.put(DATA, &[0; 128]);
        let tail = tail.map(|len| (DATA + 64, len, true));
        let chain: Vec<_> = chain.into_iter().chain(tail).collect();
        for (index, (addr, len, writable)) in (0u16..).zip(&chain) {
            let more = usize::from(index) + 1 < chain.len();
            let flags = u16::from(more) | u16::from(*writable) << 1;
            driver.put_desc(index, *addr, *len, flags, index + 1);
        }
        driver.offer_head(0);
        self.kick(queue);
        self.wake();
        let (kind, used) = (self.kind, driver.used_idx());
        assert_eq!(used, 1, "{kind:?} does not serve an honest driver any more");
        if kind == Kind::Blk {
            assert_eq!(driver.get(DATA + 64, 1), [0], "an honest read failed");
        }
    }
}

/// The balloon gives pages back to a file, as that of a machine's memory is.
fn memory(kind: Kind) -> GuestMemoryMmap<()> {
    let len = usize::try_from(MEMORY).expect("small");
    let file = (kind == Kind::Balloon).then(|| {
        let file = memfd_create("fuzz", MemfdFlags::CLOEXEC).expect("descriptors");
        ftruncate(&file, MEMORY).expect("host memory");
        FileOffset::new(file.into(), 0)
    });
    let range = (GuestAddress(0), len, file);
    GuestMemoryMmap::from_ranges_with_files([range]).expect("host memory")
}

fn make(kind: Kind, variant: u8, context: &Context) -> (SharedDevice, Outside) {
    let context = context.clone();
    match kind {
        Kind::Blk => {
            let config = BlkConfig {
                queue_size: QUEUE,
                read_only: variant & 1 == 1,
                ..BlkConfig::new("d")
            };
            let disk = Box::new(MemoryDisk::new(DISK));
            let device = BlkDevice::new(config, disk, context).expect("descriptors");
            (Arc::new(Mutex::new(device)), Outside::Nothing)
        }
        Kind::Net => card(variant, context),
        Kind::Balloon => {
            let ram = GuestRange {
                addr: 0,
                len: MEMORY,
            };
            let config = BalloonConfig {
                queue_size: QUEUE,
                reporting: variant & 1 == 0,
                ..BalloonConfig::new("d", vec![ram])
            };
            let device = BalloonDevice::new(config, context).expect("descriptors");
            let handle = device.handle();
            (Arc::new(Mutex::new(device)), Outside::Balloon(handle))
        }
        Kind::Pmem => {
            let config = PmemConfig {
                queue_size: QUEUE,
                ..PmemConfig::new("d", REGION)
            };
            let flushed = Box::new(MemoryDisk::new(DISK));
            let device = PmemDevice::new(config, flushed, context).expect("descriptors");
            (Arc::new(Mutex::new(device)), Outside::Nothing)
        }
        Kind::Console => {
            let config = ConsoleConfig {
                queue_size: QUEUE,
                ..ConsoleConfig::new("d")
            };
            let output = Box::new(std::io::sink());
            let device = ConsoleDevice::new(config, output, context).expect("descriptors");
            let keyboard = device.input();
            (Arc::new(Mutex::new(device)), Outside::Keyboard(keyboard))
        }
    }
}

fn card(variant: u8, context: Context) -> (SharedDevice, Outside) {
    let config = NetConfig {
        queue_size: QUEUE,
        pairs: 1 + u16::from(variant & 1),
        mtu: (variant & 2 == 2).then_some(1280),
        ..NetConfig::new("d")
    };
    let port: Box<dyn Port> = if variant & 4 == 4 {
        Box::new(Pattern {
            seed: 7,
            frames: 20,
            longest: 1514,
        })
    } else {
        Box::new(Loopback::default())
    };
    let device = NetDevice::new(config, port, context).expect("descriptors");
    let link = device.link();
    (Arc::new(Mutex::new(device)), Outside::Cable(link))
}
