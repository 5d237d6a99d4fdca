//! A driver that writes anything anywhere: registers, descriptors, rings and headers, with a real block device behind.
//!
//! Whatever it does, nothing panics, every call returns, no byte outside guest memory is asked for, and after a reset an
//! honest driver finds a working disk. Each run is a seed, which a failure prints.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends at the first surprise, helpers included"
)]

use std::sync::{Arc, Mutex};

use pincushion_devices::backend::{
    Disk, DiskOptions, Engine, FileOptions, MemoryDisk, OpenError, open_disk,
};
use pincushion_devices::blk::{BlkConfig, BlkDevice};
use pincushion_devices::context::Context;
use pincushion_devices::device::{Memory, SharedDevice};
use pincushion_devices::fault::Plan;
use pincushion_devices::mock::ByHand;
use pincushion_devices::trace::{EventKind, Recording, Tracer};
use pincushion_devices::transport::{MmioTransport, QUEUE_NOTIFY};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const MEMORY: u64 = 1 << 20;
const DISK: u64 = 1 << 20;
const QUEUE: u64 = 16;

const DESC: u64 = 0x1000;
const AVAIL: u64 = 0x2000;
const USED: u64 = 0x3000;
const STATUS: u64 = 0x070;

/// A repeatable stream of numbers (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 27)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// An address that is often in memory, often near its end, and sometimes nowhere.
    fn address(&mut self) -> u64 {
        match self.below(8) {
            0 => self.next(),
            1 => MEMORY - self.below(600),
            2 => u64::MAX - self.below(600),
            3 => DESC + self.below(0x3000),
            _ => self.below(MEMORY),
        }
    }

    fn length(&mut self) -> u64 {
        match self.below(8) {
            0 => u64::from(u32::MAX) - self.below(3),
            1 => 0,
            2 => 1,
            3 => self.below(100),
            4 => 16,
            _ => 512 * self.below(20),
        }
    }
}

struct Bench {
    memory: Memory,
    device: SharedDevice,
    transport: MmioTransport,
    wake: Epoll,
    log: Recording,
}

impl Bench {
    fn new(disk: Box<dyn Disk>) -> Self {
        let ranges = [(GuestAddress(0), usize::try_from(MEMORY).unwrap())];
        let memory: Memory = Arc::new(GuestMemoryMmap::from_ranges(&ranges).unwrap());
        let (tracer, log) = Tracer::recording();
        let context = Context::new(Plan::default(), tracer.clone()).unwrap();
        let device = BlkDevice::new(BlkConfig::new("a"), disk, context).unwrap();
        let wake = Epoll::new().unwrap();
        let device: SharedDevice = Arc::new(Mutex::new(device));
        let readable = EpollEvent::new(EventSet::IN, 0);
        let fd = device.lock().unwrap().queues()[0].lock().unwrap().wake_fd();
        wake.ctl(ControlOperation::Add, fd, readable).unwrap();
        let line = EventFd::new(EFD_NONBLOCK).unwrap();
        let transport = MmioTransport::new(device.clone(), memory.clone(), line, tracer).unwrap();
        Self {
            memory,
            device,
            transport,
            wake,
            log,
        }
    }

    fn set(&self, offset: u64, value: u64) {
        self.transport.write(offset, &value.to_le_bytes()[..4]);
    }

    /// An honest driver's way to DRIVER_OK, with rings of zeros.
    fn start(&self) {
        self.set(STATUS, 0);
        let zeros = vec![0; usize::try_from(USED + 0x1000 - DESC).unwrap()];
        self.memory.write_slice(&zeros, GuestAddress(DESC)).unwrap();
        self.set(STATUS, 3);
        // VIRTIO_F_INDIRECT_DESC, VIRTIO_F_EVENT_IDX, VIRTIO_BLK_F_FLUSH; VIRTIO_F_VERSION_1.
        for (select, features) in [(0, 1 << 28 | 1 << 29 | 1 << 9), (1, 1)] {
            self.set(0x024, select);
            self.set(0x020, features);
        }
        self.set(STATUS, 11);
        for (register, value) in [
            (0x030, 0),
            (0x038, QUEUE),
            (0x080, DESC),
            (0x090, AVAIL),
            (0x0a0, USED),
            (0x044, 1),
        ] {
            self.set(register, value);
        }
        self.set(STATUS, 15);
        let mut status = [0; 4];
        self.transport.read(STATUS, &mut status);
        assert_eq!(status[0], 15, "an honest driver is served");
    }

    fn write_descriptor(&self, index: u64, addr: u64, len: u64, flags: u64, next: u64) {
        let mut bytes = addr.to_le_bytes().to_vec();
        bytes.extend(&len.to_le_bytes()[..4]);
        bytes.extend(&flags.to_le_bytes()[..2]);
        bytes.extend(&next.to_le_bytes()[..2]);
        let at = GuestAddress(DESC + 16 * index);
        self.memory.write_slice(&bytes, at).unwrap();
    }

    fn kick(&self) {
        self.set(QUEUE_NOTIFY, 0);
        self.device.lock().unwrap().on_kick(0);
    }

    /// One thing that no honest driver does, or that one does at another time.
    fn misbehave(&self, numbers: &mut Numbers) {
        match numbers.below(32) {
            0..4 => self.scribble_descriptor(numbers),
            4..20 => self.offer_spoiled_request(numbers),
            20..26 => self.offer_anything(numbers),
            26..29 => self.device.lock().unwrap().on_wake(),
            29 => self.set(STATUS, numbers.below(256)),
            30 => {
                let value = numbers.next().to_le_bytes();
                self.transport.write(numbers.below(0x120), &value[..4]);
            }
            _ => self.start(),
        }
        // A device that waits for a reset would sit out the rest.
        let mut status = [0; 4];
        self.transport.read(STATUS, &mut status);
        if status[0] != 15 && numbers.below(4) == 0 {
            self.start();
        }
    }

    fn scribble_descriptor(&self, numbers: &mut Numbers) {
        let index = numbers.below(QUEUE);
        let (addr, len) = (numbers.address(), numbers.length());
        // NEXT, WRITE and INDIRECT in every mixture, and sometimes flags that do not exist.
        let flags = if numbers.below(9) == 0 {
            numbers.next()
        } else {
            numbers.below(8)
        };
        self.write_descriptor(index, addr, len, flags, numbers.below(QUEUE + 2));
    }

    /// A request as it should be, but for one thing that often is not.
    fn offer_spoiled_request(&self, numbers: &mut Numbers) {
        let kinds: [u32; 7] = [0, 1, 4, 8, 11, 13, 99];
        let kind = kinds[usize::try_from(numbers.below(7)).unwrap()];
        let base = 4 * numbers.below(QUEUE / 4);
        let page = 0x1_0000 + 0x1000 * base;
        let mut header = header_words(kind);
        header.extend(numbers.below(DISK / 512 + 8).to_le_bytes());
        self.memory
            .write_slice(&header, GuestAddress(page))
            .unwrap();
        let is_read = u64::from(matches!(kind, 0 | 8)) * 2;
        let data_len = if numbers.below(3) == 0 {
            numbers.length()
        } else {
            512 << numbers.below(4)
        };
        self.write_descriptor(base, page, 16, 1, base + 1);
        self.write_descriptor(base + 1, page + 0x100, data_len, 1 | is_read, base + 2);
        self.write_descriptor(base + 2, page + 0xf00, 1, 2, 0);
        if numbers.below(3) == 0 {
            let index = base + numbers.below(3);
            let (addr, len) = (numbers.address(), numbers.length());
            self.write_descriptor(index, addr, len, numbers.below(8), numbers.below(QUEUE + 2));
        }
        self.offer(&[base], 1);
    }

    /// Heads that may be in use, may not exist, or may be more than the ring has.
    fn offer_anything(&self, numbers: &mut Numbers) {
        let heads: Vec<u64> = (0..numbers.below(4))
            .map(|_| numbers.below(QUEUE + 1))
            .collect();
        let jump = if numbers.below(20) == 0 {
            numbers.below(1 << 16)
        } else {
            heads.len() as u64
        };
        self.offer(&heads, u16::try_from(jump).unwrap());
    }

    fn offer(&self, heads: &[u64], jump: u16) {
        let index: u16 = self.memory.read_obj(GuestAddress(AVAIL + 2)).unwrap();
        for (step, head) in (u64::from(index)..).zip(heads) {
            let at = GuestAddress(AVAIL + 4 + 2 * (step % QUEUE));
            self.memory
                .write_slice(&head.to_le_bytes()[..2], at)
                .unwrap();
        }
        let index = index.wrapping_add(jump);
        self.memory
            .write_obj(index, GuestAddress(AVAIL + 2))
            .unwrap();
        self.kick();
    }

    /// Reads a sector as an honest driver does.
    fn read_sector(&self, sector: u64) -> Vec<u8> {
        const HEADER: u64 = 0x8000;
        const DATA: u64 = 0x9000;
        const ANSWER: u64 = 0xa000;
        let mut header = header_words(0);
        header.extend(sector.to_le_bytes());
        self.memory
            .write_slice(&header, GuestAddress(HEADER))
            .unwrap();
        self.memory.write_obj(0xeeu8, GuestAddress(ANSWER)).unwrap();
        self.write_descriptor(0, HEADER, 16, 1, 1);
        self.write_descriptor(1, DATA, 512, 1 | 2, 2);
        self.write_descriptor(2, ANSWER, 1, 2, 0);
        self.memory
            .write_obj(0u16, GuestAddress(AVAIL + 4))
            .unwrap();
        self.memory
            .write_obj(1u16, GuestAddress(AVAIL + 2))
            .unwrap();
        self.kick();
        while self.memory.read_obj::<u16>(GuestAddress(USED + 2)).unwrap() == 0 {
            match self.wake.wait(30_000, &mut [EpollEvent::default()]) {
                Ok(count) => assert_eq!(count, 1, "no answer in 30 s"),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::Interrupted),
            }
            self.device.lock().unwrap().on_wake();
        }
        assert_eq!(self.memory.read_obj::<u8>(GuestAddress(ANSWER)).unwrap(), 0);
        let mut bytes = vec![0; 512];
        self.memory
            .read_slice(&mut bytes, GuestAddress(DATA))
            .unwrap();
        bytes
    }
}

/// Type and reserved words of a request header.
fn header_words(kind: u32) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend([0; 4]);
    bytes
}

fn torment(seeds: std::ops::Range<u64>, steps: u32, disk: impl Fn() -> Box<dyn Disk>) {
    for seed in seeds {
        println!("seed {seed}");
        let bench = Bench::new(disk());
        let mut numbers = Numbers(seed);
        bench.start();
        for _ in 0..steps {
            bench.misbehave(&mut numbers);
        }
        let count = |is: fn(&EventKind) -> bool| {
            bench
                .log
                .events()
                .iter()
                .filter(|event| is(&event.kind))
                .count()
        };
        let served = count(|kind| matches!(kind, EventKind::Executed { .. }));
        let mistakes = count(|kind| matches!(kind, EventKind::GuestMistake { .. }));
        println!("{served} requests served, {mistakes} mistakes told");
        assert!(
            served > 10 && mistakes > 10,
            "the torment reached the device"
        );
        bench.start();
        bench.read_sector(DISK / 512 - 1);
    }
}

#[test]
fn a_disk_in_memory_survives_every_driver() {
    torment(0..60, 3000, || Box::new(MemoryDisk::new(DISK)));
}

#[test]
fn a_disk_with_transfers_in_the_background_survives_every_driver() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("disk.img");
    std::fs::File::create(&path).unwrap().set_len(DISK).unwrap();
    for direct in [false, true] {
        let options = DiskOptions {
            engine: Engine::Uring,
            file: FileOptions {
                path: path.clone(),
                read_only: false,
                direct,
            },
        };
        match open_disk(&options).map(drop) {
            Ok(()) => torment(0..10, 2000, || open_disk(&options).unwrap()),
            Err(error @ (OpenError::NoUring { .. } | OpenError::NoDirectIo { .. })) => {
                eprintln!("skipped: {error}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}
