//! The handler under a real block device: order, holds, resets, hostile rings, and every fault that a rule can want.

mod damage;
mod holds;
mod hostile;
mod misdeeds;
mod order;
mod saved;
mod two_devices;
mod write_through;

use crate::mock::ByHand;
use std::sync::Arc;

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;

use crate::backend::{Disk, MemoryDisk};
use crate::blk::{BlkConfig, BlkDevice};
use crate::clock::FakeClock;
use crate::context::Context;
use crate::device::{Interrupt, VirtioDevice};
use crate::fault::Plan;
use crate::interrupt::Counting;
use crate::mock::Driver;
use crate::trace::event::Fault;
use crate::trace::{Event, EventKind, Recording, Tracer};

/// A device with its driver.
pub(super) struct Bench {
    pub device: BlkDevice,
    pub driver: Driver,
    pub interrupt: Arc<Counting>,
}

impl Bench {
    pub fn kick(&mut self) {
        self.device.on_kick(0);
    }
}

/// What devices share in a test.
pub(super) struct Room {
    pub context: Context,
    pub clock: FakeClock,
    pub recording: Recording,
}

impl Room {
    pub fn new(plan: &str) -> Self {
        let plan = Plan::parse(plan, std::path::Path::new("plan.toml")).unwrap();
        let (tracer, recording) = Tracer::recording();
        let clock = FakeClock::default();
        let context = Context::with_clock(plan, tracer, Arc::new(clock.clone())).unwrap();
        Self {
            context,
            clock,
            recording,
        }
    }

    /// An activated device of 1 MiB whose byte at offset `n` is `n / 512`.
    pub fn device(&self, config: BlkConfig) -> Bench {
        let bytes = (0..1 << 20)
            .map(|n: usize| (n / 512).to_le_bytes()[0])
            .collect();
        let driver = Driver::new(config.queue_size, 64);
        self.device_on(config, MemoryDisk::from_bytes(bytes), driver)
    }

    pub fn device_on(&self, config: BlkConfig, disk: impl Disk + 'static, driver: Driver) -> Bench {
        let mut device = BlkDevice::new(config, Box::new(disk), self.context.clone()).unwrap();
        let interrupt = Arc::new(Counting::default());
        activate(&mut device, &driver, &interrupt);
        Bench {
            device,
            driver,
            interrupt,
        }
    }

    /// The words of all events so far but the life cycle's; forgets them.
    pub fn words(&self) -> Vec<String> {
        self.recording
            .take()
            .iter()
            .filter_map(|event| word(event))
            .collect()
    }
}

/// What rules made the device do, in order.
pub(super) fn acted(events: &[Arc<Event>]) -> Vec<Fault> {
    let fault = |event: &Arc<Event>| match &event.kind {
        EventKind::FaultActed { fault, .. } => Some(fault.clone()),
        _ => None,
    };
    events.iter().filter_map(fault).collect()
}

/// A device that hashes nothing, so that the log has only what is asked about.
pub(super) fn config(name: &str) -> BlkConfig {
    BlkConfig {
        hash: false,
        ..BlkConfig::new(name)
    }
}

/// Activates with all features of the device but VIRTIO_F_EVENT_IDX, so that each batch is signalled.
pub(super) fn activate<I: Interrupt + 'static>(
    device: &mut BlkDevice,
    driver: &Driver,
    interrupt: &Arc<I>,
) {
    let event_idx = 1 << virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
    let features = device.features() & !event_idx;
    assert!(features & (1 << VIRTIO_F_VERSION_1) != 0 && device.accept_features(features));
    device
        .activate(driver.activation(features, interrupt.clone()))
        .unwrap();
}

fn word(event: &Event) -> Option<String> {
    let value = serde_json::to_value(event).unwrap();
    let name = value["event"].as_str().unwrap().to_owned();
    let detail = match &event.kind {
        EventKind::LogOpened { .. }
        | EventKind::DeviceAdded { .. }
        | EventKind::Activated { .. } => return None,
        EventKind::PayloadHashed { .. } => value["moment"].as_str(),
        EventKind::Executed { .. } | EventKind::Used { .. } => {
            value["status"].as_str().filter(|status| *status != "ok")
        }
        EventKind::HoldClosed { .. } => value["how"].as_str().filter(|how| *how != "completed"),
        _ => None,
    };
    Some(match detail {
        Some(detail) => format!("{name} {detail}"),
        None => name,
    })
}
