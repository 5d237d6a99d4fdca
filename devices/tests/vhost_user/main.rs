//! Our block device behind a vhost-user socket, used by a driver that we did not write: the `virtio-driver` crate, with
//! many requests in flight. The device holds; the foreign driver goes on.

mod backend;
mod driver;

use std::path::Path;

use backend::Backend;
use driver::{Driver, Request};
use pincushion_devices::backend::MemoryDisk;
use pincushion_devices::blk::{BlkConfig, BlkDevice};
use pincushion_devices::context::Context;
use pincushion_devices::fault::Plan;
use pincushion_devices::trace::event::FRAME_SIZE;
use pincushion_devices::trace::{EventKind, Recording, Tracer};

/// Requests in flight at once, and their length in bytes.
const REQUESTS: usize = 16;
const LEN: usize = 64 << 10;
/// The read that is held.
const HELD: usize = 5;

/// A device with this plan behind a socket, and a driver connected to it.
fn connected(plan: &str) -> (Backend, Driver, Context, Recording) {
    let plan = Plan::parse(plan, Path::new("plan.toml")).expect("a valid plan");
    let (tracer, recording) = Tracer::recording();
    let context = Context::new(plan, tracer).expect("rules that can be meant");
    let config = BlkConfig {
        queue_size: 128,
        ..BlkConfig::new("a")
    };
    let disk = MemoryDisk::new((REQUESTS * LEN) as u64);
    let device = BlkDevice::new(config, Box::new(disk), context.clone());
    let device = device.expect("descriptors for a device");
    let backend = Backend::listen(device);
    // One half of the buffer is written from, the other is read into.
    let driver = Driver::connect(backend.socket(), 2 * REQUESTS * LEN);
    (backend, driver, context, recording)
}

/// Bytes of request `n`, unlike those of any other at the same place.
fn pattern(n: usize) -> Vec<u8> {
    let byte = |at: usize| (at / 512 + 31 * n + 1).to_le_bytes()[0];
    (0..LEN).map(byte).collect()
}

/// Writes a pattern with all requests in flight, and flushes.
fn fill(driver: &mut Driver) {
    for n in 0..REQUESTS {
        driver.put(n * LEN, &pattern(n));
        driver.submit(Request::Write, n * LEN, n * LEN, LEN);
    }
    driver.notify();
    let mut done = driver.wait(REQUESTS);
    done.sort_unstable();
    let written: Vec<_> = (0..REQUESTS).map(|n| (Request::Write, n * LEN)).collect();
    assert_eq!(done, written);
    driver.submit(Request::Flush, 0, 0, 0);
    driver.notify();
    assert_eq!(driver.wait(1), [(Request::Flush, 0)]);
}

#[test]
fn what_a_foreign_driver_writes_it_reads_again() {
    let (backend, mut driver, _, _) = connected("");
    fill(&mut driver);
    for n in 0..REQUESTS {
        driver.submit(Request::Read, n * LEN, (REQUESTS + n) * LEN, LEN);
    }
    driver.notify();
    assert_eq!(driver.wait(REQUESTS).len(), REQUESTS);
    for n in 0..REQUESTS {
        assert!(
            driver.get((REQUESTS + n) * LEN, LEN) == pattern(n),
            "request {n}"
        );
    }
    drop(driver);
    backend.join();
}

#[test]
fn a_held_read_stays_in_flight_while_a_foreign_driver_goes_on() {
    let sector = HELD * LEN / 512;
    let plan = format!(
        "[[rule]]\noperation = \"read\"\nsectors = {{ from = {sector}, to = {} }}\nhold = {{ gate = \"g\" }}\n",
        sector + 1
    );
    let (backend, mut driver, context, recording) = connected(&plan);
    fill(&mut driver);
    for n in 0..REQUESTS {
        driver.submit(Request::Read, n * LEN, (REQUESTS + n) * LEN, LEN);
    }
    driver.notify();
    let others = driver.wait(REQUESTS - 1);
    assert!(!others.contains(&(Request::Read, HELD * LEN)), "{others:?}");

    // The driver goes on with other work, twice around the rings, past the request that is held.
    for round in 0..16 {
        for n in 0..REQUESTS {
            driver.put(n * LEN, &pattern(n + round));
            driver.submit(Request::Write, n * LEN, n * LEN, LEN);
        }
        driver.notify();
        let done = driver.wait(REQUESTS);
        assert!(done.iter().all(|(request, _)| *request == Request::Write));
    }
    driver.submit(Request::Flush, 0, 0, 0);
    driver.notify();
    assert_eq!(driver.wait(1), [(Request::Flush, 0)]);
    let frames = driver.address((REQUESTS + HELD) * LEN) / FRAME_SIZE..;
    let mut frames = frames.take(LEN / 4096);
    assert!(frames.all(|frame| context.ledger().is_held(frame)));
    let untouched = driver.get((REQUESTS + HELD) * LEN, LEN);
    assert!(
        untouched.iter().all(|byte| *byte == 0),
        "a held read touches nothing"
    );

    context.gates().open("g");
    assert_eq!(driver.wait(1), [(Request::Read, HELD * LEN)]);
    assert!(
        driver.get((REQUESTS + HELD) * LEN, LEN) == pattern(HELD + 15),
        "the read ran when the gate opened, after the writes"
    );
    assert!(context.waiting().is_empty());
    drop(driver);
    backend.join();
    let events = recording.take();
    let count = |wanted: fn(&EventKind) -> bool| {
        let kinds = events.iter().map(|event| &event.kind);
        kinds.filter(|kind| wanted(kind)).count()
    };
    assert_eq!(count(|kind| matches!(kind, EventKind::Parked { .. })), 1);
    assert_eq!(
        count(|kind| matches!(kind, EventKind::HoldOpened { .. })),
        count(|kind| matches!(kind, EventKind::HoldClosed { .. }))
    );
    assert_eq!(
        count(|kind| matches!(kind, EventKind::GuestMistake { .. })),
        0
    );
}
