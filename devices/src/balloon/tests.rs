//! A whole balloon with a driver for each queue, over memory that is mapped from a file as a machine's is.

use std::fs::File;
use std::sync::Arc;

use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};

use super::config::{ACTUAL, DEFLATE_ON_OOM, PAGE_POISON, POISON, REPORTING, STATS_VQ};
use super::{BalloonConfig, BalloonDevice, BalloonHandle, TargetError};
use crate::context::Context;
use crate::device::{Activation, Memory, VirtioDevice};
use crate::fault::Plan;
use crate::hold::Shard;
use crate::interrupt::Counting;
use crate::mock::{ByHand, Desc, Driver};
use crate::trace::event::{Direction, EventKind, FRAME_SIZE, GuestRange};
use crate::trace::{Recording, Tracer};

/// 4 MiB, of which the balloon may have the upper 3; a hole; a region that is no RAM, as one of pmem is.
const RAM: GuestRange = GuestRange {
    addr: 0x10_0000,
    len: 0x30_0000,
};
const PMEM: u64 = 0x1_0000_0000;
const QUEUE: u16 = 16;

struct Bench {
    device: BalloonDevice,
    handle: BalloonHandle,
    memory: Memory,
    drivers: Vec<Driver>,
    context: Context,
    log: Recording,
    interrupt: Arc<Counting>,
}

fn memfd(len: u64) -> File {
    let fd = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let file = File::from(fd);
    file.set_len(len).unwrap();
    file
}

fn file_memory() -> Memory {
    let regions = [(0, 0x40_0000), (PMEM, 0x10_0000)].map(|(addr, len)| {
        let file = FileOffset::new(memfd(len), 0);
        (
            GuestAddress(addr),
            usize::try_from(len).unwrap(),
            Some(file),
        )
    });
    Arc::new(GuestMemoryMmap::from_ranges_with_files(regions).unwrap())
}

fn every_feature(device: &BalloonDevice) -> u64 {
    device.features() & !(1 << virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX)
}

impl Bench {
    fn new() -> Self {
        Self::with("", u64::MAX)
    }

    /// With a plan, and without the features that are not in `features`.
    fn with(plan: &str, features: u64) -> Self {
        let plan = Plan::parse(plan, std::path::Path::new("plan.toml")).unwrap();
        let (tracer, log) = Tracer::recording();
        let context = Context::new(plan, tracer).unwrap();
        let config = BalloonConfig {
            queue_size: QUEUE,
            ..BalloonConfig::new("m", vec![RAM])
        };
        let mut device = BalloonDevice::new(config, context.clone()).unwrap();
        let memory = file_memory();
        let drivers: Vec<Driver> = (0..5)
            .map(|index| Driver::within(memory.clone(), 0x1000 + index * 0x4000, QUEUE))
            .collect();
        let interrupt = Arc::new(Counting::default());
        let features = every_feature(&device) & features;
        assert!(device.accept_features(features));
        device
            .activate(Activation {
                memory: memory.clone(),
                features,
                queues: drivers.iter().map(Driver::queue).collect(),
                interrupt: interrupt.clone(),
                resume: Vec::new(),
            })
            .unwrap();
        let _ = log.take();
        Self {
            handle: device.handle(),
            device,
            memory,
            drivers,
            context,
            log,
            interrupt,
        }
    }

    /// Offers a list on a queue and lets the device work. The length in the used element, if there is one.
    fn list(&mut self, queue: u16, bytes: &[u8]) -> Option<u32> {
        let at = 0x8_0000;
        self.drivers[0].put(at, bytes);
        let len = u32::try_from(bytes.len()).unwrap();
        let desc = Desc {
            addr: at,
            len,
            writable: false,
        };
        self.offer(queue, &[desc])
    }

    fn offer(&mut self, queue: u16, chain: &[Desc]) -> Option<u32> {
        let driver = &mut self.drivers[usize::from(queue)];
        driver.offer(chain);
        self.device.on_kick(queue);
        let used = driver.take_used();
        used.first().map(|used| used.len)
    }

    fn numbers(&mut self, queue: u16, numbers: &[u32]) -> Option<u32> {
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        self.list(queue, &bytes)
    }

    fn report(&mut self, queue: u16, ranges: &[GuestRange]) -> Option<u32> {
        let chain: Vec<Desc> = ranges
            .iter()
            .map(|range| Desc {
                addr: range.addr,
                len: u32::try_from(range.len).unwrap(),
                writable: true,
            })
            .collect();
        self.offer(queue, &chain)
    }

    fn fill(&self, range: GuestRange) {
        let bytes = vec![7; usize::try_from(range.len).unwrap()];
        self.drivers[0].put(range.addr, &bytes);
    }

    /// The first byte of each frame of a range.
    fn first_bytes(&self, range: GuestRange) -> Vec<u8> {
        let frames = range.frames().map(|frame| frame * FRAME_SIZE);
        frames.map(|addr| self.drivers[0].get(addr, 1)[0]).collect()
    }

    fn hold(&self, device: &str, range: GuestRange) -> (Shard, crate::hold::Hold) {
        let ledger = self.context.ledger();
        let mut shard = ledger.shard(device, crate::memory::frames(&self.memory));
        let hold = shard.open(Direction::FromDevice, &[range]);
        (shard, hold)
    }

    fn mistakes(&self) -> Vec<String> {
        let mistakes = self.log.take();
        let mistakes = mistakes.iter().filter_map(|event| match &event.kind {
            EventKind::GuestMistake { what, .. } => Some(what.clone()),
            _ => None,
        });
        mistakes.collect()
    }
}

fn pages(first: u64, count: u64) -> GuestRange {
    GuestRange {
        addr: first * FRAME_SIZE,
        len: count * FRAME_SIZE,
    }
}

#[test]
fn pages_in_the_balloon_are_given_back_and_acknowledged() {
    let mut bench = Bench::new();
    bench.fill(pages(0x200, 4));
    assert_eq!(bench.numbers(0, &[0x203, 0x201, 0x200]), Some(0));
    assert_eq!(bench.first_bytes(pages(0x200, 4)), [0, 0, 7, 0]);
    let words: Vec<String> = bench
        .log
        .take()
        .iter()
        .map(|event| {
            let value = serde_json::to_value(event.as_ref()).unwrap();
            value["event"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(
        words,
        [
            "fetched",
            "frames-freed",
            "host-memory",
            "executed",
            "used",
            "signalled"
        ]
    );
    assert_eq!(bench.numbers(1, &[0x200, 0x201]), Some(0));
    assert!(bench.mistakes().is_empty());
}

#[test]
fn reports_are_heard_at_either_number_of_their_queue_and_free_memory_of_the_host() {
    let mut bench = Bench::new();
    for queue in [3, 4] {
        let range = pages(0x180, 0x40);
        bench.fill(range);
        assert_eq!(bench.report(queue, &[range]), Some(0));
        assert!(bench.first_bytes(range).iter().all(|byte| *byte == 0));
        let events = bench.log.take();
        let told = events.iter().find_map(|event| match event.kind {
            EventKind::HostMemory {
                before_bytes,
                resident_bytes,
                ..
            } => Some((before_bytes, resident_bytes)),
            _ => None,
        });
        let (before, after) = told.unwrap();
        assert!(before >= after + range.len, "{before} {after}");
    }
}

#[test]
fn without_statistics_their_queue_is_the_one_for_reports() {
    let mut bench = Bench::with("", !(1 << STATS_VQ));
    bench.fill(pages(0x180, 1));
    assert_eq!(bench.report(2, &[pages(0x180, 1)]), Some(0));
    assert_eq!(bench.first_bytes(pages(0x180, 1)), [0]);
}

#[test]
fn a_frame_that_a_device_holds_is_kept_and_the_log_says_who_holds_it() {
    let mut bench = Bench::new();
    let range = pages(0x180, 4);
    for queue in [0, 3] {
        bench.fill(range);
        let half = GuestRange {
            addr: range.addr + FRAME_SIZE + 512,
            len: 512,
        };
        let (mut shard, hold) = bench.hold("b", half);
        let used = if queue == 0 {
            bench.numbers(0, &[0x180, 0x181, 0x182, 0x183])
        } else {
            bench.report(3, &[range])
        };
        assert_eq!(used, Some(0), "it is acknowledged all the same");
        assert_eq!(bench.first_bytes(range), [0, 7, 0, 0]);
        let events = bench.log.take();
        let freed = events.iter().find_map(|event| match &event.kind {
            EventKind::FramesFreed { bytes, held, .. } => Some((*bytes, held.clone())),
            _ => None,
        });
        let (bytes, held) = freed.unwrap();
        assert_eq!(bytes, 3 * FRAME_SIZE);
        assert_eq!(held.len(), 1);
        assert_eq!(
            (held[0].range, held[0].device.as_str()),
            (pages(0x181, 1), "b")
        );
        assert_eq!((held[0].to_device, held[0].from_device), (0, 1));
        hold.complete(&mut shard, &[half]);
    }
}

#[test]
fn what_is_no_ram_is_never_discarded() {
    let mut bench = Bench::new();
    let pmem = GuestRange {
        addr: PMEM,
        len: FRAME_SIZE,
    };
    let below = pages(1, 1);
    let beyond = pages(0x400, 1);
    bench.fill(pmem);
    bench.fill(pages(0x200, 1));
    let rings = bench.first_bytes(below);
    for bad in [pmem, below, beyond, pages(0xd_0000, 1)] {
        // The good page beside it is kept too: a list with a wrong page is wrong.
        let number = u32::try_from(bad.addr / FRAME_SIZE).unwrap();
        assert_eq!(bench.numbers(0, &[0x200, number]), Some(0));
        assert_eq!(bench.report(3, &[pages(0x200, 1), bad]), Some(0));
        assert_eq!(bench.mistakes().len(), 2, "{bad:x?}");
    }
    assert_eq!(bench.first_bytes(pmem), [7]);
    assert_eq!(bench.first_bytes(pages(0x200, 1)), [7]);
    assert_eq!(bench.first_bytes(below), rings);
}

#[test]
fn hostile_lists_are_given_back_with_a_word() {
    let mut bench = Bench::new();
    let readable = |addr, len| Desc {
        addr,
        len,
        writable: false,
    };
    assert_eq!(bench.numbers(0, &[0x200, 0x200]), Some(0));
    assert_eq!(bench.list(0, &[0; 7]), Some(0));
    assert_eq!(bench.list(1, &[0; 3]), Some(0));
    assert_eq!(bench.list(2, &[0; 3]), Some(0));
    assert_eq!(bench.offer(0, &[readable(0x10_0000, 0x20_0000)]), Some(0));
    assert_eq!(bench.offer(0, &[readable(u64::MAX - 3, 8)]), Some(0));
    assert_eq!(bench.offer(2, &[readable(0x10_0000, 0x1000)]), Some(0));
    assert_eq!(bench.report(0, &[pages(0x200, 1)]), Some(0));
    assert_eq!(bench.list(4, &[0; 16]), Some(0));
    assert_eq!(bench.mistakes().len(), 9);
}

#[test]
fn a_queue_that_was_not_agreed_on_does_nothing() {
    let mut bench = Bench::with("", !(1 << REPORTING));
    bench.fill(pages(0x200, 1));
    assert_eq!(bench.report(4, &[pages(0x200, 1)]), Some(0));
    assert_eq!(bench.first_bytes(pages(0x200, 1)), [7]);
    assert_eq!(bench.mistakes(), ["a queue that was not agreed on"]);
}

#[test]
fn poisoned_pages_keep_their_poison_when_they_are_reported() {
    let mut bench = Bench::new();
    bench
        .device
        .write_config(POISON, &0xaaaa_aaaau32.to_le_bytes());
    let mut poison = [0; 4];
    bench.device.read_config(POISON, &mut poison);
    assert_eq!(poison, [0xaa; 4]);
    bench.fill(pages(0x200, 2));
    bench.report(3, &[pages(0x200, 1)]);
    assert_eq!(bench.first_bytes(pages(0x200, 1)), [7]);
    // A page in the balloon is not the guest's to read, so its poison does not matter.
    bench.numbers(0, &[0x201]);
    assert_eq!(bench.first_bytes(pages(0x201, 1)), [0]);

    let mut bench = Bench::with("", !(1 << PAGE_POISON));
    bench.device.write_config(POISON, &[1; 4]);
    bench.fill(pages(0x200, 1));
    bench.report(3, &[pages(0x200, 1)]);
    assert_eq!(bench.first_bytes(pages(0x200, 1)), [0]);
}

#[test]
fn the_target_is_a_wish_that_the_driver_is_told_of() {
    let bench = Bench::new();
    let mut device = bench.device;
    let target = |device: &BalloonDevice| {
        let mut bytes = [0; 4];
        device.read_config(0, &mut bytes);
        u32::from_le_bytes(bytes)
    };
    let generation = device.config_generation();
    bench.handle.set_target(0x10_0000).unwrap();
    assert_eq!(
        (target(&device), bench.interrupt.config_signals()),
        (0x100, 1)
    );
    assert_ne!(device.config_generation(), generation);
    bench.handle.set_target(0x10_0000).unwrap();
    assert_eq!(bench.interrupt.config_signals(), 1, "nothing has changed");

    device.write_config(ACTUAL, &0x80u32.to_le_bytes());
    let state = bench.handle.state();
    assert_eq!(
        (state.target_bytes, state.actual_bytes),
        (0x10_0000, 0x8_0000)
    );
    assert!(state.active);
    device.write_config(0, &[0; 4]);
    device.write_config(ACTUAL + 2, &[0; 4]);
    device.write_config(u64::MAX, &[0; 8]);
    assert_eq!(target(&device), 0x100);

    let refusal = |bytes| bench.handle.set_target(bytes).unwrap_err();
    assert_eq!(refusal(1), TargetError::NotPages { bytes: 1 });
    let more = RAM.len + FRAME_SIZE;
    assert!(matches!(refusal(more), TargetError::TooLarge { .. }));
    assert!(matches!(refusal(!0xfff), TargetError::TooLarge { .. }));

    device.reset();
    let state = bench.handle.state();
    assert_eq!((state.actual_bytes, state.active), (0, false));
    bench.handle.set_target(0).unwrap();
}

#[test]
fn statistics_are_kept_until_somebody_wants_new_ones() {
    let mut bench = Bench::new();
    let free = |bytes: u64| [&4u16.to_le_bytes()[..], &bytes.to_le_bytes()[..]].concat();
    assert_eq!(bench.list(2, &free(1 << 20)), None);
    let state = bench.handle.state();
    assert_eq!(state.statistics["free-memory"], 1 << 20);
    bench.device.on_wake();
    assert!(bench.drivers[2].take_used().is_empty());

    bench.handle.request_statistics();
    bench.device.on_wake();
    assert_eq!(bench.drivers[2].take_used().len(), 1);
    assert_eq!(bench.list(2, &free(1 << 21)), None);
    let state = bench.handle.state();
    assert_eq!(
        (state.statistics["free-memory"], state.statistics_count),
        (1 << 21, 2)
    );

    bench.device.reset();
    bench.handle.request_statistics();
    bench.device.on_wake();
    assert!(bench.drivers[2].take_used().is_empty());
}

#[test]
fn a_report_may_be_held_by_the_plan_and_is_not_discarded_meanwhile() {
    let plan = "[[rule]]\ndevice = 'm'\noperation = 'report-free'\nhold = { gate = 'g' }\n";
    let mut bench = Bench::with(plan, u64::MAX);
    bench.fill(pages(0x200, 1));
    assert_eq!(bench.report(3, &[pages(0x200, 1)]), None);
    assert!(
        bench.context.ledger().held_within(RAM).is_empty(),
        "no device owns it"
    );
    assert_eq!(bench.first_bytes(pages(0x200, 1)), [7]);
    bench.context.gates().open("g");
    bench.device.on_wake();
    assert_eq!(bench.drivers[3].take_used().len(), 1);
    assert_eq!(bench.first_bytes(pages(0x200, 1)), [0]);
}

#[test]
fn memory_without_a_file_is_left_as_it_is() {
    let (tracer, log) = Tracer::recording();
    let context = Context::new(Plan::default(), tracer).unwrap();
    let mut driver = Driver::new(QUEUE, 8);
    let config = BalloonConfig::new("m", vec![driver.range(0, 8 * FRAME_SIZE)]);
    let mut device = BalloonDevice::new(config, context).unwrap();
    let features = every_feature(&device);
    assert!(device.accept_features(features) && features & (1 << DEFLATE_ON_OOM) != 0);
    device
        .activate(driver.activation(features, Arc::new(Counting::default())))
        .unwrap();
    let number = u32::try_from(driver.data(1) / FRAME_SIZE).unwrap();
    driver.put(driver.data(0), &number.to_le_bytes());
    driver.put(driver.data(1), &[7]);
    driver.offer(&[Desc {
        addr: driver.data(0),
        len: 4,
        writable: false,
    }]);
    device.on_kick(0);
    assert_eq!(driver.take_used().len(), 1);
    assert_eq!(driver.get(driver.data(1), 1), [7]);
    let failed = |kind: &EventKind| {
        matches!(
            kind,
            EventKind::Executed {
                host_error: Some(_),
                ..
            }
        )
    };
    assert!(log.events().iter().any(|event| failed(&event.kind)));
}

#[test]
fn a_configuration_that_cannot_be_is_refused() {
    let context = Context::quiet();
    let refused = |config: BalloonConfig| {
        let result = BalloonDevice::new(config, context.clone());
        result.err().expect("refused").to_string()
    };
    let config = BalloonConfig::new("m", vec![RAM]);
    let said = refused(BalloonConfig {
        target_bytes: 4097,
        ..config.clone()
    });
    assert!(said.contains("multiple of 4096"), "{said}");
    let said = refused(BalloonConfig {
        queue_size: 100,
        ..config
    });
    assert!(said.contains("power of two"), "{said}");
}
