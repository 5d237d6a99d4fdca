//! What it costs to let one request go while many are held: at a gate, by another request on the same frame, and when
//! its time is over.
//!
//! `cargo bench -p pincushion-devices --bench holds`. Requests of ten devices are held, up to 100,000 at once; then single
//! ones are let go, one by one, and each is timed from the opening to its used element. The table shows the median for
//! each number of held requests: it must not grow with that number.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pincushion_devices::backend::MemoryDisk;
use pincushion_devices::blk::{BlkConfig, BlkDevice};
use pincushion_devices::clock::FakeClock;
use pincushion_devices::context::Context;
use pincushion_devices::device::VirtioDevice;
use pincushion_devices::fault::Plan;
use pincushion_devices::interrupt::Silent;
use pincushion_devices::mock::{ByHand, Driver};
use pincushion_devices::trace::Tracer;

const DEVICES: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
/// Requests that are let go and timed, spread over all that are held by one device.
const OPENED: u64 = 64;
const QUEUE: u16 = 32768;
const HELD: [u64; 3] = [1_000, 10_000, 100_000];
/// The medians at most and at least held may differ by so much: a hundred times as many take a search seven steps more.
const MAX_GROWTH: f64 = 3.0;

/// How a request is let go.
#[derive(Clone, Copy)]
enum Way {
    Gate,
    SameFrame,
    Duration,
}

impl Way {
    const ALL: [(&'static str, Self); 3] = [
        ("opened gate", Self::Gate),
        ("same frame", Self::SameFrame),
        ("duration", Self::Duration),
    ];

    /// The rules of the requests that are timed; `step` lies between their ordinals.
    fn plan(self, step: u64) -> String {
        let ordinals = |n: u64| {
            format!(
                "ordinals = {{ from = {}, to = {} }}",
                n * step,
                n * step + 1
            )
        };
        let rule = |n| match self {
            Self::Gate => format!("[[rule]]\n{}\nhold = {{ gate = \"{n}\" }}\n", ordinals(n)),
            Self::SameFrame => String::new(),
            Self::Duration => format!(
                "[[rule]]\n{}\nhold = {{ for-ms = {} }}\n",
                ordinals(n),
                n + 1
            ),
        };
        let rest = match self {
            Self::SameFrame => {
                "[[rule]]\noperation = \"read\"\nhold = { same-frame = { point = \"fetched\", device = \"a\" } }\n"
            }
            Self::Gate => "[[rule]]\nhold = { gate = \"rest\" }\n",
            Self::Duration => "[[rule]]\nhold = { for-ms = 1000000 }\n",
        };
        (0..OPENED).map(rule).collect::<String>() + rest
    }
}

struct House {
    context: Context,
    clock: FakeClock,
    devices: Vec<(BlkDevice, Driver)>,
    step: u64,
}

impl House {
    /// Devices that hold `held` requests in all, each on a frame of its own.
    fn new(way: Way, held: u64) -> Self {
        let each = held / DEVICES.len() as u64;
        let step = each / OPENED;
        let plan = Plan::parse(&way.plan(step), "benchmark".as_ref()).expect("a plan");
        let clock = FakeClock::default();
        let tracer = Arc::new(Tracer::new());
        let context = Context::with_clock(plan, tracer, Arc::new(clock.clone()));
        let mut house = Self {
            context: context.expect("a plan that is meant"),
            clock,
            devices: Vec::new(),
            step,
        };
        for name in DEVICES {
            house.add(name, each);
        }
        assert_eq!(house.context.waiting().len() as u64, held, "all are held");
        house
    }

    fn add(&mut self, name: &str, held: u64) {
        let config = BlkConfig {
            queue_size: QUEUE,
            hash: false,
            ..BlkConfig::new(name)
        };
        let disk = Box::new(MemoryDisk::new(1 << 20));
        let device = BlkDevice::new(config, disk, self.context.clone());
        let mut device = device.expect("descriptors for a benchmark");
        let mut driver = Driver::new(QUEUE, held);
        assert!(
            device.accept_features(device.features()),
            "a device accepts what it offers"
        );
        let activation = driver.activation(device.features(), Arc::new(Silent));
        device.activate(activation).expect("a usable ring");
        for frame in 0..held {
            driver.read(0, &[driver.range(frame, 512)]);
        }
        let before = self.context.waiting().len() as u64;
        device.on_kick(0);
        // A turn is bounded; the rest comes with the next ones.
        while (self.context.waiting().len() as u64) < before + held {
            device.on_wake();
        }
        self.devices.push((device, driver));
    }

    /// Lets the `n`-th of the first device go and serves it. Returns how long that took.
    fn open(&mut self, way: Way, n: u64) -> Duration {
        let (device, driver) = &mut self.devices[0];
        let before = driver.used_idx();
        let range = driver.range(n * self.step, 512);
        let start = Instant::now();
        // The other request is answered too.
        let answers = match way {
            Way::Gate => {
                self.context.gates().open(&n.to_string());
                1
            }
            Way::SameFrame => {
                driver.write(0, &[range]);
                device.on_kick(0);
                2
            }
            Way::Duration => {
                self.clock.advance_ns(1_000_000);
                1
            }
        };
        device.on_wake();
        let took = start.elapsed();
        let answered = driver.used_idx().wrapping_sub(before);
        assert_eq!(answered, answers, "exactly this one was let go");
        took
    }
}

/// The median time to let one of `held` requests go, in nanoseconds.
fn median_ns(way: Way, held: u64) -> f64 {
    let mut house = House::new(way, held);
    let mut times: Vec<Duration> = (0..OPENED).map(|n| house.open(way, n)).collect();
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e9
}

fn main() {
    // `cargo test --benches` only asks whether it runs.
    let measures = std::env::args().any(|argument| argument == "--bench");
    let helds = if measures { &HELD[..] } else { &HELD[..1] };
    println!(
        "ns to let one request go, of so many held over {} devices:",
        DEVICES.len()
    );
    let captions: String = helds.iter().map(|held| format!("{held:>10}")).collect();
    println!("{:<14}{captions}    growth", "");
    let mut met = true;
    for (name, way) in Way::ALL {
        let costs: Vec<f64> = helds.iter().map(|held| median_ns(way, *held)).collect();
        let growth = costs[costs.len() - 1] / costs[0];
        let cells: String = costs.iter().map(|cost| format!("{cost:>10.0}")).collect();
        println!("{name:<14}{cells}{growth:>9.1}x");
        met &= growth <= MAX_GROWTH;
    }
    println!(
        "limit: growth {MAX_GROWTH:.1}x for {} times as many: {}",
        helds[helds.len() - 1] / helds[0],
        if met { "met" } else { "NOT met" }
    );
}
