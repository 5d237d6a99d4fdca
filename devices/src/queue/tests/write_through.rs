//! A device whose cache is write through (virtio 1.2, 5.2.5.2: the driver cannot flush, or it chose so): what is
//! answered is on stable storage.

use std::sync::{Arc, Mutex};

use super::{Bench, Room, config};
use crate::backend::{Backend, Disk, Geometry, MemoryDisk, Submitted, Transfer, Work};
use crate::device::VirtioDevice;
use crate::mock::Driver;
use crate::trace::event::GuestRange;

/// Where the configuration space says whether the cache is write back (virtio 1.2, 5.2.4).
const WRITEBACK: u64 = 32;

/// What a disk was asked for, each with the used index that the guest could see at that moment.
type Seen = Arc<Mutex<Vec<(Work, u16)>>>;

/// A disk that looks at the used ring whenever it is asked for something.
struct Watchful<F> {
    disk: MemoryDisk,
    used_idx: F,
    seen: Seen,
}

impl<F: Fn() -> u16 + Send> Disk for Watchful<F> {
    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }
}

impl<F: Fn() -> u16 + Send> Backend for Watchful<F> {
    fn submit(&mut self, transfer: Transfer) -> Submitted {
        let moment = (transfer.work, (self.used_idx)());
        self.seen.lock().unwrap().push(moment);
        self.disk.submit(transfer)
    }
}

/// A device whose driver has chosen a mode (0 write through, 1 write back).
fn device(room: &Room, mode: u8) -> (Bench, Seen) {
    let config = config("a");
    let driver = Driver::new(config.queue_size, 64);
    let seen = Seen::default();
    let disk = Watchful {
        disk: MemoryDisk::new(1 << 20),
        used_idx: driver.used_idx_reader(),
        seen: seen.clone(),
    };
    let mut bench = room.device_on(config, disk, driver);
    bench.device.write_config(WRITEBACK, &[mode]);
    let mut now = [9];
    bench.device.read_config(WRITEBACK, &mut now);
    assert_eq!(now, [mode]);
    (bench, seen)
}

/// A segment of a discard or write-zeroes request over sectors 8 and 9.
fn segment(driver: &Driver) -> GuestRange {
    let range = driver.range(9, 16);
    driver.put(range.addr, &8u64.to_le_bytes());
    driver.put(range.addr + 8, &2u32.to_le_bytes());
    driver.put(range.addr + 12, &0u32.to_le_bytes());
    range
}

#[test]
fn with_write_back_off_each_write_is_flushed_before_it_is_used() {
    let room = Room::new("");
    let (mut bench, seen) = device(&room, 0);
    let first = bench.driver.write(0, &[bench.driver.range(0, 512)]);
    let second = bench.driver.write(1, &[bench.driver.range(1, 512)]);
    bench.kick();
    assert_eq!(
        *seen.lock().unwrap(),
        [
            (Work::Write, 0),
            (Work::Flush, 0),
            (Work::Write, 1),
            (Work::Flush, 1)
        ]
    );
    assert_eq!(bench.driver.used_idx(), 2);
    assert_eq!(
        (bench.driver.status(first), bench.driver.status(second)),
        (0, 0)
    );
    // Both works are one request: it is executed once.
    let words = room.words();
    let executed = words.iter().filter(|word| *word == "executed");
    assert_eq!(executed.count(), 2, "{words:?}");
}

#[test]
fn with_write_back_off_zeroing_is_flushed_too_and_reading_is_not() {
    let room = Room::new("");
    let (mut bench, seen) = device(&room, 0);
    let range = segment(&bench.driver);
    bench.driver.request(13, 0, &[range], false);
    bench.driver.discard(range);
    bench.driver.read(0, &[bench.driver.range(0, 512)]);
    bench.kick();
    let zeroes = Work::WriteZeroes { unmap: false };
    assert_eq!(
        *seen.lock().unwrap(),
        [
            (zeroes, 0),
            (Work::Flush, 0),
            (Work::Discard, 1),
            (Work::Flush, 1),
            (Work::Read, 2)
        ]
    );
}

#[test]
fn with_write_back_on_only_the_driver_flushes() {
    let room = Room::new("");
    let (mut bench, seen) = device(&room, 1);
    bench.driver.write(0, &[bench.driver.range(0, 512)]);
    bench.driver.flush();
    bench.kick();
    assert_eq!(
        *seen.lock().unwrap(),
        [(Work::Write, 0), (Work::Flush, 1)],
        "one flush, after the write was used"
    );
}
