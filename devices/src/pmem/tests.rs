//! Flushes as drivers may and may not ask for them, with the answers of the specification.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use vm_memory::{Bytes, GuestAddress};

use super::{PmemConfig, PmemDevice};
use crate::backend::{Backend, Completion, Submitted, Transfer, Work};
use crate::context::Context;
use crate::device::VirtioDevice;
use crate::fault::Plan;
use crate::interrupt::Silent;
use crate::mock::{ByHand, Desc, Driver};
use crate::trace::event::GuestRange;
use crate::trace::{EventKind, Recording, Tracer};

const REGION: GuestRange = GuestRange {
    addr: 1 << 32,
    len: 2 << 20,
};

/// Counts flushes, and fails them from `good` on.
struct Counting {
    flushes: Arc<AtomicU32>,
    good: u32,
}

impl Backend for Counting {
    fn submit(&mut self, transfer: Transfer) -> Submitted {
        assert_eq!(transfer.work, Work::Flush);
        let before = self.flushes.fetch_add(1, Ordering::Relaxed);
        let result = if before < self.good {
            Ok(0)
        } else {
            Err(std::io::Error::from_raw_os_error(libc::EIO))
        };
        Submitted::Done(Completion { transfer, result })
    }
}

struct Guest {
    device: PmemDevice,
    driver: Driver,
    flushes: Arc<AtomicU32>,
    recording: Recording,
}

impl Guest {
    fn new(good: u32) -> Self {
        let (tracer, recording) = Tracer::recording();
        let plan = Plan::parse("", Path::new("plan.toml")).unwrap();
        let context = Context::new(plan, tracer).unwrap();
        let flushes = Arc::new(AtomicU32::new(0));
        let backend = Counting {
            flushes: flushes.clone(),
            good,
        };
        let config = PmemConfig::new("p", REGION);
        let driver = Driver::new(config.queue_size, 64);
        let mut device = PmemDevice::new(config, Box::new(backend), context).unwrap();
        assert!(device.accept_features(device.features()));
        let features = device.features();
        device
            .activate(driver.activation(features, Arc::new(Silent)))
            .unwrap();
        Self {
            device,
            driver,
            flushes,
            recording,
        }
    }

    /// Memory for control words.
    fn room(&self) -> u64 {
        self.driver.data(0)
    }

    /// Puts `kind` into memory, offers the chain, and gives the answer at [`Self::room`]` + 0x100` and the used length.
    fn ask(&mut self, kind: u32, chain: &[Desc]) -> (u32, u32) {
        let room = self.room();
        let memory = self.driver.memory();
        memory.write_obj(kind, GuestAddress(room)).unwrap();
        memory
            .write_obj(0xaaaa_aaaau32, GuestAddress(room + 0x100))
            .unwrap();
        self.driver.offer(chain);
        self.device.on_kick(0);
        let used = self.driver.take_used();
        assert_eq!(used.len(), 1, "one chain was offered");
        let answer = self.driver.memory().read_obj(GuestAddress(room + 0x100));
        (answer.unwrap(), used[0].len)
    }

    fn mistakes(&self) -> Vec<String> {
        let events = self.recording.take();
        let mistakes = events.iter().filter_map(|event| match &event.kind {
            EventKind::GuestMistake { what, .. } => Some(what.clone()),
            _ => None,
        });
        mistakes.collect()
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
fn configuration_space_tells_start_and_size() {
    let guest = Guest::new(1);
    let mut space = [0xff; 20];
    guest.device.read_config(0, &mut space);
    assert_eq!(space[..8], REGION.addr.to_le_bytes());
    assert_eq!(space[8..16], REGION.len.to_le_bytes());
    assert_eq!(space[16..], [0; 4]);
    let events = guest.recording.take();
    assert!(events.iter().any(|event| matches!(
        &event.kind,
        EventKind::DeviceAdded { kind, region: Some(REGION), .. } if kind == "virtio-pmem"
    )));
}

#[test]
fn a_flush_is_answered_with_zero_and_a_failed_one_with_minus_one() {
    let mut guest = Guest::new(1);
    let room = guest.room();
    let chain = [desc(room, 4, false), desc(room + 0x100, 4, true)];
    assert_eq!(guest.ask(0, &chain), (0, 4));
    assert_eq!(guest.ask(0, &chain), (u32::MAX, 4));
    assert_eq!(guest.flushes.load(Ordering::Relaxed), 2);
}

#[test]
fn request_and_answer_may_be_cut_anywhere() {
    let mut guest = Guest::new(9);
    let room = guest.room();
    let chain = [
        desc(room, 1, false),
        desc(room + 1, 0, false),
        desc(room + 1, 3, false),
        desc(room + 0x100, 3, true),
        desc(room + 0x103, 9, true),
    ];
    assert_eq!(guest.ask(0, &chain), (0, 4));
}

#[test]
fn what_is_no_flush_fails_and_flushes_nothing() {
    let mut guest = Guest::new(9);
    let room = guest.room();
    let answer = desc(room + 0x100, 4, true);
    assert_eq!(guest.ask(1, &[desc(room, 4, false), answer]).0, u32::MAX);
    assert!(guest.mistakes().is_empty(), "an unknown type is no mistake");
    assert_eq!(guest.ask(0, &[desc(room, 3, false), answer]).0, u32::MAX);
    assert_eq!(guest.ask(0, &[answer, desc(room, 4, false)]).0, u32::MAX);
    assert_eq!(
        guest.ask(0, &[desc(u64::MAX - 1, 4, false), answer]).0,
        u32::MAX
    );
    assert_eq!(guest.mistakes().len(), 3);
    assert_eq!(guest.flushes.load(Ordering::Relaxed), 0);
}

#[test]
fn a_chain_without_a_place_for_its_answer_is_given_back_with_length_zero() {
    let mut guest = Guest::new(9);
    let room = guest.room();
    let request = desc(room, 4, false);
    for answer in [
        desc(room + 0x100, 3, true),
        desc(u64::MAX - 1, 4, true),
        desc(1 << 40, 4, true),
    ] {
        assert_eq!(guest.ask(0, &[request, answer]), (0xaaaa_aaaa, 0));
    }
    assert_eq!(guest.mistakes().len(), 3);
}
