//! A driver that we did not write (the `virtio-drivers` crate) against our registers, queues, block device,
//! backends and network card, without a virtual machine: the driver runs in the test's thread and the device in its own.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends at the first surprise, helpers included"
)]

mod console;
mod guest;
mod machine;
mod net;
mod pci;

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use guest::GuestHal;
use machine::{Machine, SIZE, Store};
use pincushion_devices::backend::Engine;
use virtio_drivers::Error;
use virtio_drivers::device::blk::{BlkReq, BlkResp, RespStatus, SECTOR_SIZE, VirtIOBlk};
use virtio_drivers::transport::Transport;

/// The driver spins while it waits, so the limit is set around the whole test.
const LIMIT: Duration = Duration::from_secs(60);

const SECTORS: u64 = SIZE / SECTOR_SIZE as u64;

/// Runs a test in a thread of its own and gives up after [`LIMIT`].
fn within_limit(test: fn(Store), store: Store) {
    let (done, wait) = channel();
    let thread = std::thread::spawn(move || {
        test(store);
        done.send(()).unwrap();
    });
    if let Err(std::sync::mpsc::RecvTimeoutError::Timeout) = wait.recv_timeout(LIMIT) {
        panic!("the driver still waits for the device ({store:?}) after {LIMIT:?}");
    }
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| ((at / 7) ^ (at / 512) ^ seed).to_le_bytes()[0])
        .collect()
}

fn a_driver_finds_the_disk_as_it_is(store: Store) {
    let Some(machine) = Machine::new(store, false) else {
        return;
    };
    let mut blk = machine.drive();
    assert_eq!(blk.capacity(), SECTORS);
    assert!(!blk.readonly());
    let mut id = [0; 20];
    assert_eq!(blk.device_id(&mut id).unwrap(), 20);
    assert_eq!(&id, b"pincushion-serial-20");
    drop(blk);
    assert_eq!(machine.guest_mistakes(), []);
}

/// A device need not interrupt a driver that looks at the ring all the time (virtio 1.2, 2.7.7.2), but one that waits.
#[expect(
    unsafe_code,
    reason = "the driver crate's interface without waiting is unsafe"
)]
fn is_interrupted<T: Transport>(blk: &mut VirtIOBlk<GuestHal, T>, machine: &Machine) {
    let (mut request, mut response) = (BlkReq::default(), BlkResp::default());
    let mut bytes = [0; SECTOR_SIZE];
    // SAFETY: the three stay where they are until the request is completed.
    let token = unsafe { blk.read_blocks_nb(0, &mut request, &mut bytes, &mut response) };
    // The register has the reason before the line is raised.
    while blk.ack_interrupt().is_empty() {
        std::thread::yield_now();
    }
    while machine.line.read().is_err() {
        std::thread::yield_now();
    }
    let token = token.unwrap();
    assert_eq!(next_used(blk), token);
    // SAFETY: these are what `read_blocks_nb` was given when it returned this token.
    unsafe { blk.complete_read_blocks(token, &request, &mut bytes, &mut response) }.unwrap();
}

fn what_is_written_is_read_back(store: Store) {
    let Some(machine) = Machine::new(store, false) else {
        return;
    };
    let mut blk = machine.drive();
    for (round, sectors) in [1, 3, 8, 16, 128].into_iter().enumerate() {
        let sector = 1000 * round + round;
        let bytes = pattern(round, sectors * SECTOR_SIZE);
        blk.write_blocks(sector, &bytes).unwrap();
        blk.flush().unwrap();
        let mut seen = vec![0xee; bytes.len()];
        blk.read_blocks(sector, &mut seen).unwrap();
        assert!(seen == bytes, "{sectors} sectors at {sector}");
    }
    let mut before = [0xee; SECTOR_SIZE];
    blk.read_blocks(usize::try_from(SECTORS).unwrap() - 1, &mut before)
        .unwrap();
    assert_eq!(before, [0; SECTOR_SIZE]);
    is_interrupted(&mut blk, &machine);
}

fn a_request_beyond_the_end_fails_and_the_next_one_does_not(store: Store) {
    let Some(machine) = Machine::new(store, false) else {
        return;
    };
    let mut blk = machine.drive();
    let end = usize::try_from(SECTORS).unwrap();
    let mut sectors = [0; 2 * SECTOR_SIZE];
    assert_eq!(blk.read_blocks(end - 1, &mut sectors), Err(Error::IoError));
    assert_eq!(blk.write_blocks(end, &sectors), Err(Error::IoError));
    assert_eq!(blk.write_blocks(usize::MAX, &sectors), Err(Error::IoError));
    blk.read_blocks(end - 2, &mut sectors).unwrap();
}

fn a_read_only_disk_says_so_and_refuses_writes(store: Store) {
    let Some(machine) = Machine::new(store, true) else {
        return;
    };
    let mut blk = machine.drive();
    assert!(blk.readonly());
    assert_eq!(blk.write_blocks(0, &[1; SECTOR_SIZE]), Err(Error::IoError));
    let mut seen = [0xee; SECTOR_SIZE];
    blk.read_blocks(0, &mut seen).unwrap();
    assert_eq!(seen, [0; SECTOR_SIZE]);
}

/// One request of the driver's interface without waiting.
struct Pending {
    token: u16,
    request: Box<BlkReq>,
    bytes: Vec<u8>,
    response: Box<BlkResp>,
}

/// Waits for the driver to see a used buffer, whichever it is.
fn next_used<T: Transport>(blk: &mut VirtIOBlk<GuestHal, T>) -> u16 {
    let begun = Instant::now();
    loop {
        if let Some(token) = blk.peek_used() {
            return token;
        }
        assert!(begun.elapsed() < LIMIT, "no used buffer after {LIMIT:?}");
        std::thread::yield_now();
    }
}

#[expect(
    unsafe_code,
    reason = "the driver crate's interface without waiting is unsafe"
)]
fn several_requests_in_flight_each_get_their_own_answer(store: Store) {
    let Some(machine) = Machine::new(store, false) else {
        return;
    };
    let mut blk = machine.drive();
    for round in 0..20 {
        let mut pending: Vec<Pending> = (0..5)
            .map(|index| {
                let mut request = Box::new(BlkReq::default());
                let bytes = pattern(round * 5 + index, 4096);
                let mut response = Box::new(BlkResp::default());
                // SAFETY: the three are kept in `pending`, untouched and unmoved on the heap, until the request is completed.
                let token =
                    unsafe { blk.write_blocks_nb(index * 8, &mut request, &bytes, &mut response) };
                Pending {
                    token: token.unwrap(),
                    request,
                    bytes,
                    response,
                }
            })
            .collect();
        while !pending.is_empty() {
            let token = next_used(&mut blk);
            let at = pending
                .iter()
                .position(|pending| pending.token == token)
                .unwrap();
            let mut done = pending.swap_remove(at);
            // SAFETY: these are what `write_blocks_nb` was given when it returned this token.
            unsafe {
                blk.complete_write_blocks(token, &done.request, &done.bytes, &mut done.response)
            }
            .unwrap();
            assert_eq!(done.response.status(), RespStatus::OK);
        }
        for index in 0..5 {
            let mut seen = vec![0; 4096];
            blk.read_blocks(index * 8, &mut seen).unwrap();
            assert!(
                seen == pattern(round * 5 + index, 4096),
                "round {round}, request {index}"
            );
        }
    }
}

#[expect(
    unsafe_code,
    reason = "the driver crate's interface without waiting is unsafe"
)]
fn a_driver_that_begins_anew_finds_its_data_and_no_ghosts(store: Store) {
    let Some(machine) = Machine::new(store, false) else {
        return;
    };
    for round in 0..10 {
        let mut blk = machine.drive();
        if round > 0 {
            let mut seen = vec![0; 4096];
            blk.read_blocks(0, &mut seen).unwrap();
            assert!(seen == pattern(round - 1, 4096), "round {round}");
        }
        blk.write_blocks(0, &pattern(round, 4096)).unwrap();
        // Left in flight: the driver goes away without waiting, and its queue must be still when it has stopped.
        let (mut request, mut response) = (BlkReq::default(), BlkResp::default());
        let mut bytes = vec![0; 64 << 10];
        // SAFETY: the buffers were copied to guest memory, and the three outlive the driver.
        unsafe { blk.read_blocks_nb(0, &mut request, &mut bytes, &mut response) }.unwrap();
        drop(blk);
    }
}

fn a_driver_on_a_pci_bus_reads_what_it_wrote(store: Store) {
    let Some(machine) = Machine::on_pci(store, false) else {
        return;
    };
    for round in 0..10 {
        let mut blk = machine.drive_on_pci();
        assert_eq!(blk.capacity(), SECTORS);
        let bytes = pattern(round, (round + 1) * SECTOR_SIZE);
        let sector = 100 * round;
        blk.write_blocks(sector, &bytes).unwrap();
        blk.flush().unwrap();
        let mut seen = vec![0xee; bytes.len()];
        blk.read_blocks(sector, &mut seen).unwrap();
        assert!(seen == bytes, "round {round}");
        is_interrupted(&mut blk, &machine);
    }
    assert_eq!(machine.guest_mistakes(), []);
}

/// Each test over each store.
macro_rules! over_every_store {
    ($($test:ident,)+) => {
        over_every_store!(@one memory, Store::Memory, $($test,)+);
        over_every_store!(@one file, Store::File { backend: Engine::File, direct: false }, $($test,)+);
        over_every_store!(@one file_direct, Store::File { backend: Engine::File, direct: true }, $($test,)+);
        over_every_store!(@one uring, Store::File { backend: Engine::Uring, direct: false }, $($test,)+);
        over_every_store!(@one uring_direct, Store::File { backend: Engine::Uring, direct: true }, $($test,)+);
    };
    (@one $name:ident, $store:expr, $($test:ident,)+) => {
        mod $name {
            use super::*;
            $(
                #[test]
                fn $test() {
                    within_limit(super::$test, $store);
                }
            )+
        }
    };
}

over_every_store!(
    a_driver_finds_the_disk_as_it_is,
    what_is_written_is_read_back,
    a_request_beyond_the_end_fails_and_the_next_one_does_not,
    a_read_only_disk_says_so_and_refuses_writes,
    several_requests_in_flight_each_get_their_own_answer,
    a_driver_that_begins_anew_finds_its_data_and_no_ghosts,
    a_driver_on_a_pci_bus_reads_what_it_wrote,
);
