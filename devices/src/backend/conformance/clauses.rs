//! The clauses, one function each. A clause gets a fresh disk of zeros.

use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress};

use super::subject::{
    Numbers, SEAM, SIZE, Subject, guest, guest_memory, pattern, to_usize, transfer,
};
use crate::backend::{Buffers, Completion, Submitted, Transfer, Work};
use crate::trace::event::GuestRange;

pub(in crate::backend) fn what_is_written_is_read_back_over_odd_vectors(subject: &mut Subject) {
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

pub(in crate::backend) fn a_read_touches_nothing_outside_its_ranges(subject: &mut Subject) {
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

pub(in crate::backend) fn a_transfer_beyond_the_end_is_refused_and_changes_nothing(
    subject: &mut Subject,
) {
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

pub(in crate::backend) fn buffers_that_do_not_fit_are_refused(subject: &mut Subject) {
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

pub(in crate::backend) fn token_and_buffers_come_back(subject: &mut Subject) {
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

pub(in crate::backend) fn zeroes_and_discards_leave_their_neighbours_alone(subject: &mut Subject) {
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

pub(in crate::backend) fn nothing_is_a_legal_amount_of_work(subject: &mut Subject) {
    for work in [Work::Read, Work::Write, Work::WriteZeroes { unmap: true }] {
        subject
            .run(transfer(work, 0, 0, Buffers::None))
            .result
            .unwrap();
    }
}

pub(in crate::backend) fn a_flush_of_what_was_written_succeeds(subject: &mut Subject) {
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

pub(in crate::backend) fn many_in_flight_all_come_back_once(subject: &mut Subject) {
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

pub(in crate::backend) fn a_drain_finishes_even_what_was_not_begun(subject: &mut Subject) {
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

pub(in crate::backend) fn the_descriptor_goes_quiet_when_nothing_is_left(subject: &mut Subject) {
    if subject.disk.completion_fd().is_none() {
        let read = transfer(Work::Read, 0, 512, Buffers::Owned(vec![0; 512]));
        let submitted = subject.disk.submit(read);
        assert!(
            matches!(submitted, Submitted::Done(_)),
            "no descriptor, so done at once"
        );
        return;
    }
    assert!(!subject.is_readable(0), "nothing was asked yet");
    subject.run_all(many(300));
    assert!(goes_quiet(subject));
    for transfer in many(50) {
        subject.disk.submit(transfer);
    }
    subject.disk.drain(&mut Vec::new());
    assert!(goes_quiet(subject));
}

/// The kernel may ring just after its answer was collected, so a few looks for nothing are allowed.
fn goes_quiet(subject: &mut Subject) -> bool {
    (0..300).any(|_| {
        let mut done = Vec::new();
        let readable = subject.is_readable(0);
        subject.disk.completions(&mut done);
        assert!(done.is_empty(), "a completion comes once");
        !readable
    })
}

pub(in crate::backend) fn a_disk_with_work_under_way_can_be_dropped(subject: &mut Subject) {
    for transfer in many(400) {
        subject.disk.submit(transfer);
    }
    subject.disk.commit();
    // The caller drops it now.
}
