//! What is measured: one turn over a ring of chains, by several ways.

use std::sync::Arc;

use pincushion_devices::backend::{Backend, Completion, Disk, Geometry, Submitted, Transfer};
use pincushion_devices::bare;
use pincushion_devices::blk::{BlkConfig, BlkDevice};
use pincushion_devices::context::Context;
use pincushion_devices::device::{Memory, SharedQueue, VirtioDevice};
use pincushion_devices::interrupt::Silent;
use pincushion_devices::mock::Driver;
use pincushion_devices::trace::event::GuestRange;
use virtio_queue::Queue;
use xxhash_rust::xxh3::xxh3_64;

/// Chains per turn.
pub const CHAINS: u16 = 32;
const QUEUE: u16 = 1024;
/// Turns before anything is measured.
const WARM_UP: u32 = 63;

/// A request's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// 4 KiB in one descriptor: a chain of 3.
    Page,
    /// 64 KiB in one descriptor: a chain of 3 over 16 frames.
    Long,
    /// 64 KiB in 16 descriptors: a chain of 18.
    Scattered,
}

impl Shape {
    pub const ALL: [Self; 3] = [Self::Page, Self::Long, Self::Scattered];

    pub fn name(self) -> &'static str {
        match self {
            Self::Page => "4 KiB",
            Self::Long => "64 KiB in one piece",
            Self::Scattered => "64 KiB in 16 pieces",
        }
    }

    pub fn frames(self) -> u64 {
        match self {
            Self::Page => 1,
            Self::Long | Self::Scattered => 16,
        }
    }

    fn ranges(self, driver: &Driver, chain: u64) -> Vec<GuestRange> {
        // Few frames that stay in the cache, so that the path is measured and not the memory; pieces are not
        // neighbours.
        let first = (chain % 4) * 32;
        match self {
            Self::Page => vec![driver.range(first, 4096)],
            Self::Long => vec![driver.range(first, 16 * 4096)],
            Self::Scattered => (0..16)
                .map(|piece| driver.range(first + 2 * piece, 4096))
                .collect(),
        }
    }
}

/// One way to serve a ring.
pub struct Subject {
    driver: Driver,
    offered: u16,
    way: Way,
}

enum Way {
    Bare {
        queue: Queue,
        memory: Memory,
    },
    Device {
        queue: SharedQueue,
        _device: Box<BlkDevice>,
    },
    /// Nothing but the hashes that a write needs: its frames, three times.
    Hashes {
        payload: Vec<u8>,
        frames: usize,
    },
}

/// Makes a subject.
type Make = fn(Shape) -> Subject;

impl Subject {
    /// All ways, by name; a subject is made when it is measured.
    pub const ALL: [(&'static str, Make); 5] = [
        ("bare virtio-queue", Self::bare),
        ("path, no ledger", Self::without_ledger),
        ("path", Self::whole),
        ("path, hashing", Self::hashing),
        ("hashes alone", Self::hashes),
    ];

    fn bare(shape: Shape) -> Self {
        let driver = driver(shape);
        let activation = driver.activation(0, Arc::new(Silent));
        let queue = activation.queues.into_iter().next().expect("one queue");
        let memory = activation.memory;
        Self::new(driver, Way::Bare { queue, memory })
    }

    fn without_ledger(shape: Shape) -> Self {
        Self::device(shape, false, false)
    }

    fn whole(shape: Shape) -> Self {
        Self::device(shape, true, false)
    }

    fn hashing(shape: Shape) -> Self {
        Self::device(shape, true, true)
    }

    fn hashes(shape: Shape) -> Self {
        let frames = usize::try_from(shape.frames()).expect("few");
        let payload = vec![7; frames * 4096];
        Self::new(driver(shape), Way::Hashes { payload, frames })
    }

    fn device(shape: Shape, ledger: bool, hash: bool) -> Self {
        let config = BlkConfig {
            queue_size: QUEUE,
            ledger,
            hash,
            ..BlkConfig::new("bench")
        };
        let mut device = BlkDevice::new(config, Box::new(Nothing), Context::quiet())
            .expect("descriptors for a benchmark");
        let driver = driver(shape);
        assert!(
            device.accept_features(device.features()),
            "a device accepts what it offers"
        );
        let activation = driver.activation(0, Arc::new(Silent));
        device.activate(activation).expect("a usable ring");
        let queue = device.queues().swap_remove(0);
        let _device = Box::new(device);
        Self::new(driver, Way::Device { queue, _device })
    }

    fn new(driver: Driver, way: Way) -> Self {
        // The first turns make what is made once, and warm the caches.
        let mut subject = Self {
            driver,
            offered: 0,
            way,
        };
        (0..WARM_UP).for_each(|_| subject.run());
        subject
    }

    /// Serves [`CHAINS`] chains.
    #[inline(never)]
    pub fn run(&mut self) {
        self.offered = self.offered.wrapping_add(CHAINS);
        self.driver.publish(self.offered);
        match &mut self.way {
            Way::Bare { queue, memory } => bare::serve(queue, memory),
            Way::Device { queue, .. } => queue.lock().expect("nobody panicked").on_kick(),
            Way::Hashes { payload, frames } => {
                for _ in 0..CHAINS {
                    for frame in 0..3 * *frames {
                        let at = frame % *frames * 4096;
                        std::hint::black_box(xxh3_64(std::hint::black_box(
                            &payload[at..at + 4096],
                        )));
                    }
                }
                return;
            }
        }
        assert_eq!(
            self.driver.used_idx(),
            self.offered,
            "every chain is served"
        );
    }
}

/// A driver whose available ring offers the same chains again and again: writes, because those are hashed.
fn driver(shape: Shape) -> Driver {
    let mut driver = Driver::new(QUEUE, 160);
    let mut heads = Vec::new();
    for chain in 0..u64::from(CHAINS) {
        let ranges = shape.ranges(&driver, chain);
        heads.push(driver.write(chain * 128, &ranges));
    }
    for index in 0..usize::from(QUEUE) {
        if index >= heads.len() {
            driver.offer_head(heads[index % heads.len()]);
        }
    }
    driver.publish(0);
    driver
}

/// A disk that does nothing, at once.
struct Nothing;

impl Disk for Nothing {
    fn geometry(&self) -> Geometry {
        Geometry {
            capacity_bytes: 1 << 30,
            read_only: false,
            block_size: 512,
            discard: false,
            write_zeroes: false,
        }
    }
}

impl Backend for Nothing {
    fn submit(&mut self, transfer: Transfer) -> Submitted {
        Submitted::Done(Completion {
            result: Ok(transfer.len),
            transfer,
        })
    }
}
