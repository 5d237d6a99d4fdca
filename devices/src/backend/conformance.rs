//! What every [`Disk`] promises, as one suite that each backend runs.
//!
//! `conforms!(name, make)` makes a module of tests, one per clause of the contract in [`super::disk`]; `make` builds a disk of
//! a given size that is all zeros, or says why it cannot be had here. What only a file can suffer (truncated under
//! us, disk full, locks) is in [`super::host_trouble`].

use std::io;
use std::sync::Arc;

use tempfile::TempDir;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::disk::{Buffers, Completion, Disk, Submitted, Transfer, Work};
use crate::device::Memory;
use crate::trace::event::GuestRange;

/// A disk and what must outlive it.
pub(super) struct Subject {
    pub(super) disk: Box<dyn Disk>,
    pub(super) _dir: Option<TempDir>,
}

/// Builds a disk of so many bytes, or says why it cannot be had.
pub(super) type Make = fn(u64) -> Result<Subject, String>;

/// Longest wait for a completion, in milliseconds.
const LIMIT_MS: i32 = 30_000;

const SIZE: u64 = 1 << 20;

/// End of the first region of [`guest_memory`], whose second one begins there.
const SEAM: u64 = 0x1_0000;

/// Guest memory of 128 KiB whose middle is a seam between two mappings.
pub(super) fn guest_memory() -> Memory {
    let regions = [
        (GuestAddress(0), to_usize(SEAM)),
        (GuestAddress(SEAM), 0x1_0000),
    ];
    Arc::new(GuestMemoryMmap::from_ranges(&regions).unwrap())
}

fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap()
}

pub(super) fn transfer(work: Work, offset: u64, len: u64, buffers: Buffers) -> Transfer {
    Transfer {
        token: offset ^ 0x5a,
        work,
        offset,
        len,
        buffers,
    }
}

fn guest(memory: &Memory, pieces: &[(u64, u64)]) -> Buffers {
    Buffers::Guest {
        memory: memory.clone(),
        ranges: pieces
            .iter()
            .map(|&(addr, len)| GuestRange { addr, len })
            .collect(),
    }
}

impl Subject {
    /// Submits, begins and waits.
    pub(super) fn run(&mut self, transfer: Transfer) -> Completion {
        let submitted = self.disk.submit(transfer);
        self.disk.commit();
        match submitted {
            Submitted::Done(completion) => completion,
            Submitted::Pending => self.collect(1).pop().unwrap(),
        }
    }

    /// Waits for `count` completions.
    fn collect(&mut self, count: usize) -> Vec<Completion> {
        let mut done = Vec::new();
        while done.len() < count {
            let so_far = done.len();
            assert!(
                self.is_readable(LIMIT_MS),
                "{so_far} of {count} completions after {LIMIT_MS} ms"
            );
            self.disk.completions(&mut done);
        }
        done
    }

    /// Whether the completion descriptor is readable within so many milliseconds.
    fn is_readable(&self, limit_ms: i32) -> bool {
        let fd = self
            .disk
            .completion_fd()
            .expect("a disk that is pending has a descriptor");
        let epoll = Epoll::new().unwrap();
        let readable = EpollEvent::new(EventSet::IN, 0);
        epoll.ctl(ControlOperation::Add, fd, readable).unwrap();
        loop {
            match epoll.wait(limit_ms, &mut [EpollEvent::default()]) {
                Ok(count) => return count == 1,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::Interrupted),
            }
        }
    }

    /// Submits all, begins them, and gives back every completion, whenever it came.
    fn run_all(&mut self, transfers: Vec<Transfer>) -> Vec<Completion> {
        let count = transfers.len();
        let mut done = Vec::new();
        for transfer in transfers {
            if let Submitted::Done(completion) = self.disk.submit(transfer) {
                done.push(completion);
            }
        }
        self.disk.commit();
        let pending = count - done.len();
        done.extend(self.collect(pending));
        done
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let buffers = Buffers::Owned(bytes.to_vec());
        self.run(transfer(Work::Write, offset, bytes.len() as u64, buffers))
            .result
    }

    pub(super) fn read(&mut self, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        let buffers = Buffers::Owned(vec![0xee; to_usize(len)]);
        let completion = self.run(transfer(Work::Read, offset, len, buffers));
        completion.result?;
        match completion.transfer.buffers {
            Buffers::Owned(bytes) => Ok(bytes),
            other => panic!("another buffer came back: {other:?}"),
        }
    }
}

/// A repeatable stream of numbers (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)) % limit
    }
}

/// Bytes that differ from page to page and from seed to seed.
pub(super) fn pattern(seed: u64, len: u64) -> Vec<u8> {
    let mut numbers = Numbers(seed);
    (0..len)
        .map(|_| numbers.below(256).to_le_bytes()[0])
        .collect()
}

pub(super) fn what_is_written_is_read_back_over_odd_vectors(subject: &mut Subject) {
    let memory = guest_memory();
    let mut model = vec![0; to_usize(SIZE)];
    let mut numbers = Numbers(7);
    for round in 0..60 {
        let len = 512 * (1 + numbers.below(48));
        let offset = 512 * numbers.below((SIZE - len) / 512);
        // Odd first and last pieces, and the middle one over the seam of two mappings.
        let first = 1 + numbers.below(200);
        let last = 1 + numbers.below(200);
        let middle = len - first - last;
        let pieces = [
            (1 + numbers.below(100), first),
            (SEAM - numbers.below(middle), middle),
            (0x1_fe00 + numbers.below(9), last),
        ];
        let bytes = pattern(round, len);
        let mut at = 0;
        for (addr, count) in pieces {
            memory
                .write_slice(&bytes[at..at + to_usize(count)], GuestAddress(addr))
                .unwrap();
            at += to_usize(count);
        }
        let done = subject.run(transfer(Work::Write, offset, len, guest(&memory, &pieces)));
        done.result.unwrap();
        model[to_usize(offset)..to_usize(offset + len)].copy_from_slice(&bytes);

        let len = 512 * (1 + numbers.below(48));
        let offset = 512 * numbers.below((SIZE - len) / 512);
        let target = [(0x333, 77), (SEAM - 100, len - 77)];
        let done = subject.run(transfer(Work::Read, offset, len, guest(&memory, &target)));
        done.result.unwrap();
        let mut seen = vec![0; to_usize(len)];
        let (head, tail) = seen.split_at_mut(77);
        memory.read_slice(head, GuestAddress(0x333)).unwrap();
        memory.read_slice(tail, GuestAddress(SEAM - 100)).unwrap();
        assert!(
            seen == model[to_usize(offset)..to_usize(offset + len)],
            "round {round}: {len} bytes at {offset} differ"
        );
    }
    assert!(subject.read(0, SIZE).unwrap() == model);
}

pub(super) fn a_read_touches_nothing_outside_its_ranges(subject: &mut Subject) {
    let memory = guest_memory();
    subject.write(0, &pattern(1, 1024)).unwrap();
    memory.write_slice(&[0xee; 4096], GuestAddress(0)).unwrap();
    let done = subject.run(transfer(
        Work::Read,
        0,
        1024,
        guest(&memory, &[(100, 24), (1000, 1000)]),
    ));
    done.result.unwrap();
    let mut seen = [0; 4096];
    memory.read_slice(&mut seen, GuestAddress(0)).unwrap();
    let bytes = pattern(1, 1024);
    assert!(seen[..100].iter().all(|&byte| byte == 0xee));
    assert!(seen[100..124] == bytes[..24]);
    assert!(seen[124..1000].iter().all(|&byte| byte == 0xee));
    assert!(seen[1000..2000] == bytes[24..]);
    assert!(seen[2000..].iter().all(|&byte| byte == 0xee));
}

pub(super) fn a_transfer_beyond_the_end_is_refused_and_changes_nothing(subject: &mut Subject) {
    for (offset, len) in [
        (SIZE, 512),
        (SIZE - 512, 1024),
        (u64::MAX - 511, 512),
        (u64::MAX - 511, 1024),
    ] {
        for work in [Work::Read, Work::Write] {
            let buffers = Buffers::Owned(vec![1; to_usize(len)]);
            let done = subject.run(transfer(work, offset, len, buffers));
            assert!(done.result.is_err(), "{work:?} of {len} at {offset}");
        }
        let zeroes = Work::WriteZeroes { unmap: true };
        let done = subject.run(transfer(zeroes, offset, len, Buffers::None));
        assert!(done.result.is_err(), "zeroes of {len} at {offset}");
    }
    assert_eq!(subject.disk.geometry().capacity_bytes, SIZE);
    assert!(subject.read(SIZE - 512, 512).unwrap() == vec![0; 512]);
}

pub(super) fn buffers_that_do_not_fit_are_refused(subject: &mut Subject) {
    let memory = guest_memory();
    for (what, buffers) in [
        ("too short", guest(&memory, &[(0, 511)])),
        ("too long", guest(&memory, &[(0, 513)])),
        ("behind memory", guest(&memory, &[(0x1_ff00, 512)])),
        ("nowhere", guest(&memory, &[(u64::MAX - 10, 512)])),
        ("missing", Buffers::None),
        ("short copy", Buffers::Owned(vec![0; 9])),
    ] {
        let done = subject.run(transfer(Work::Write, 0, 512, buffers));
        assert!(done.result.is_err(), "{what}");
    }
    assert!(subject.read(0, 512).unwrap() == vec![0; 512]);
}

pub(super) fn token_and_buffers_come_back(subject: &mut Subject) {
    let memory = guest_memory();
    let mut sent = transfer(
        Work::Write,
        512,
        1024,
        guest(&memory, &[(3, 1000), (5000, 24)]),
    );
    sent.token = u64::MAX;
    let back = subject.run(sent).transfer;
    assert_eq!(
        (back.token, back.work, back.offset, back.len),
        (u64::MAX, Work::Write, 512, 1024)
    );
    let Buffers::Guest {
        ranges,
        memory: map,
    } = back.buffers
    else {
        panic!("another buffer came back");
    };
    assert!(Arc::ptr_eq(&map, &memory));
    assert_eq!(
        ranges,
        [
            GuestRange { addr: 3, len: 1000 },
            GuestRange {
                addr: 5000,
                len: 24
            }
        ]
    );
}

pub(super) fn zeroes_and_discards_leave_their_neighbours_alone(subject: &mut Subject) {
    let geometry = subject.disk.geometry();
    let block = u64::from(geometry.block_size);
    let mut works = vec![
        Work::WriteZeroes { unmap: false },
        Work::WriteZeroes { unmap: true },
    ];
    if geometry.discard {
        works.push(Work::Discard);
    }
    let bytes = pattern(3, SIZE);
    for work in works {
        for (offset, len) in [
            (block, 8 * block),
            (512, 1024),
            (64 << 10, 256 << 10),
            (SIZE - 512, 512),
        ] {
            subject.write(0, &bytes).unwrap();
            let done = subject.run(transfer(work, offset, len, Buffers::None));
            done.result.unwrap();
            let seen = subject.read(0, SIZE).unwrap();
            let (offset, end) = (to_usize(offset), to_usize(offset + len));
            assert!(
                seen[..offset] == bytes[..offset],
                "{work:?} {len} at {offset}"
            );
            assert!(seen[end..] == bytes[end..], "{work:?} {len} at {offset}");
            // Discarded contents are anybody's guess; zeroed ones are zeros.
            if work != Work::Discard {
                assert!(
                    seen[offset..end].iter().all(|&byte| byte == 0),
                    "{work:?} {len} at {offset}"
                );
            }
        }
    }
}

pub(super) fn nothing_is_a_legal_amount_of_work(subject: &mut Subject) {
    for work in [Work::Read, Work::Write, Work::WriteZeroes { unmap: true }] {
        subject
            .run(transfer(work, 0, 0, Buffers::None))
            .result
            .unwrap();
    }
}

pub(super) fn a_flush_of_what_was_written_succeeds(subject: &mut Subject) {
    subject
        .run(transfer(Work::Flush, 0, 0, Buffers::None))
        .result
        .unwrap();
    subject.write(0, &pattern(1, 4096)).unwrap();
    subject
        .run(transfer(Work::Flush, 0, 0, Buffers::None))
        .result
        .unwrap();
    assert!(subject.read(0, 4096).unwrap() == pattern(1, 4096));
}

/// Writes of one sector each, one per place, in a scattered order, and flushes between them.
fn many(count: u64) -> Vec<Transfer> {
    let places = SIZE / 512;
    (0..count)
        .map(|index| {
            let place = index * 7 % places;
            let mut transfer = if index % 100 == 99 {
                transfer(Work::Flush, 0, 0, Buffers::None)
            } else {
                let bytes = Buffers::Owned(pattern(place, 512));
                transfer(Work::Write, place * 512, 512, bytes)
            };
            transfer.token = index;
            transfer
        })
        .collect()
}

fn assert_all_came_back(done: Vec<Completion>, count: u64) {
    let mut tokens: Vec<u64> = done.iter().map(|done| done.transfer.token).collect();
    tokens.sort_unstable();
    assert!(tokens == (0..count).collect::<Vec<_>>(), "every token once");
    for completion in done {
        completion.result.unwrap();
    }
}

pub(super) fn many_in_flight_all_come_back_once(subject: &mut Subject) {
    const COUNT: u64 = 2000;
    let done = subject.run_all(many(COUNT));
    assert_all_came_back(done, COUNT);
    for place in [0, 7, 7 * 98] {
        assert!(subject.read(place * 512, 512).unwrap() == pattern(place, 512));
    }
    let mut late = Vec::new();
    subject.disk.completions(&mut late);
    assert!(late.is_empty(), "a completion comes once");
}

pub(super) fn a_drain_finishes_even_what_was_not_begun(subject: &mut Subject) {
    const COUNT: u64 = 700;
    let mut done = Vec::new();
    for transfer in many(COUNT) {
        if let Submitted::Done(completion) = subject.disk.submit(transfer) {
            done.push(completion);
        }
    }
    subject.disk.drain(&mut done);
    assert_all_came_back(done, COUNT);
}

pub(super) fn the_descriptor_is_quiet_when_nothing_is_left(subject: &mut Subject) {
    if subject.disk.completion_fd().is_none() {
        let submitted =
            subject
                .disk
                .submit(transfer(Work::Read, 0, 512, Buffers::Owned(vec![0; 512])));
        assert!(
            matches!(submitted, Submitted::Done(_)),
            "no descriptor, so done at once"
        );
        return;
    }
    assert!(!subject.is_readable(0));
    subject.run_all(many(300));
    assert!(!subject.is_readable(0));
    for transfer in many(50) {
        subject.disk.submit(transfer);
    }
    subject.disk.drain(&mut Vec::new());
    assert!(!subject.is_readable(0));
}

pub(super) fn a_disk_with_work_under_way_can_be_dropped(subject: &mut Subject) {
    for transfer in many(400) {
        subject.disk.submit(transfer);
    }
    subject.disk.commit();
    // The caller drops it now.
}

/// Size of the disks that the clauses work on.
pub(super) fn disk(make: Make) -> Option<Subject> {
    match make(SIZE) {
        Ok(subject) => {
            assert_eq!(subject.disk.geometry().capacity_bytes, SIZE);
            Some(subject)
        }
        Err(reason) => {
            eprintln!("skipped: {reason}");
            None
        }
    }
}

/// A module of tests, one per clause.
macro_rules! conforms {
    ($name:ident, $make:expr) => {
        $crate::backend::conformance::conforms!(
            $name, $make,
            what_is_written_is_read_back_over_odd_vectors,
            a_read_touches_nothing_outside_its_ranges,
            a_transfer_beyond_the_end_is_refused_and_changes_nothing,
            buffers_that_do_not_fit_are_refused,
            token_and_buffers_come_back,
            zeroes_and_discards_leave_their_neighbours_alone,
            nothing_is_a_legal_amount_of_work,
            a_flush_of_what_was_written_succeeds,
            many_in_flight_all_come_back_once,
            a_drain_finishes_even_what_was_not_begun,
            the_descriptor_is_quiet_when_nothing_is_left,
            a_disk_with_work_under_way_can_be_dropped,
        );
    };
    ($name:ident, $make:expr, $($clause:ident,)+) => {
        mod $name {
            $(
                #[test]
                fn $clause() {
                    if let Some(mut subject) = $crate::backend::conformance::disk($make) {
                        $crate::backend::conformance::$clause(&mut subject);
                    }
                }
            )+
        }
    };
}
pub(super) use conforms;

/// An image of zeros in a directory of its own, under cargo's target directory: `/tmp` may be memory.
pub(super) fn image(size: u64) -> (TempDir, std::path::PathBuf) {
    let dir = match std::env::var_os("CARGO_TARGET_TMPDIR") {
        Some(base) => tempfile::tempdir_in(base),
        None => tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()),
    };
    let dir = dir.unwrap();
    let path = dir.path().join("disk.img");
    std::fs::File::create(&path).unwrap().set_len(size).unwrap();
    (dir, path)
}

mod backends {
    use super::super::{Backend, DiskOptions, FileOptions, OpenError, open_disk};
    use super::{Subject, image};

    fn open(backend: Backend, direct: bool, size: u64) -> Result<Subject, String> {
        let (dir, path) = image(size);
        let file = FileOptions {
            path,
            read_only: false,
            direct,
        };
        match open_disk(&DiskOptions { backend, file }) {
            Ok(disk) => Ok(Subject {
                disk,
                _dir: Some(dir),
            }),
            Err(error @ (OpenError::NoUring { .. } | OpenError::NoDirectIo { .. })) => {
                Err(error.to_string())
            }
            Err(error) => panic!("{error}"),
        }
    }

    conforms!(file, |size| super::open(
        crate::backend::Backend::File,
        false,
        size
    ));
    conforms!(file_direct, |size| super::open(
        crate::backend::Backend::File,
        true,
        size
    ));
    conforms!(uring, |size| super::open(
        crate::backend::Backend::Uring,
        false,
        size
    ));
    conforms!(uring_direct, |size| super::open(
        crate::backend::Backend::Uring,
        true,
        size
    ));
}
