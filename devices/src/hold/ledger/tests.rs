//! Counts over ranges of any shape, by several devices and queues.

use super::*;

fn range(addr: u64, len: u64) -> GuestRange {
    GuestRange { addr, len }
}

#[test]
fn overlapping_holds_are_counted_per_device_and_direction() {
    let ledger = Ledger::default();
    let mut a = ledger.shard("a", 64);
    let mut b = ledger.shard("b", 64);
    let read = a.open(Direction::FromDevice, &[range(0x1800, 0x1000)]);
    let again = a.open(Direction::FromDevice, &[range(0x2000, 1)]);
    let write = b.open(Direction::ToDevice, &[range(0x2000, 0x1000)]);

    let held = |device: &str, to_device, from_device| Held {
        device: device.into(),
        to_device,
        from_device,
    };
    assert_eq!(ledger.holders(1), [held("a", 0, 1)]);
    assert_eq!(ledger.holders(2), [held("a", 0, 2), held("b", 1, 0)]);
    assert!(!ledger.is_held(3));

    read.complete(&mut a, &[range(0x1800, 0x1000)]);
    assert!(!ledger.is_held(1));
    assert_eq!(ledger.holders(2), [held("a", 0, 1), held("b", 1, 0)]);
    again.abandon(&mut a, &[range(0x2000, 1)]);
    write.complete(&mut b, &[range(0x2000, 0x1000)]);
    assert!(!ledger.is_held(2));
    assert_eq!((a.open_holds(), b.open_holds()), (0, 0));
}

#[test]
fn queues_of_one_device_count_each_by_itself_and_are_told_as_one() {
    let ledger = Ledger::default();
    let mut first = ledger.shard("a", 64);
    let mut second = ledger.shard("a", 64);
    let page = [range(0x2000, 0x1000)];
    let read = first.open(Direction::FromDevice, &page);
    let write = second.open(Direction::ToDevice, &page);
    assert_ne!(read.id(), write.id());
    assert!(ledger.shares_frame("a", &page, &page));
    let [held] = &ledger.holders(2)[..] else {
        panic!("one device holds it");
    };
    assert_eq!((held.to_device, held.from_device), (1, 1));

    read.complete(&mut first, &page);
    drop(first);
    assert!(ledger.is_held(2), "the other queue holds it");
    write.complete(&mut second, &page);
    assert!(!ledger.is_held(2));
}

#[test]
fn a_hold_may_cross_neighbourhoods_and_large_guests_commit_nothing() {
    let ledger = Ledger::default();
    let top = 64 << 30;
    let mut a = ledger.shard("a", top / FRAME_SIZE);
    let edge = NEIGHBOURS * FRAME_SIZE;
    let ranges = [range(edge - 1, 2), range(top - 1, 1)];
    let hold = a.open(Direction::ToDevice, &ranges);
    assert!(ledger.is_held(NEIGHBOURS - 1) && ledger.is_held(NEIGHBOURS));
    assert!(ledger.is_held(top / FRAME_SIZE - 1) && !ledger.is_held(top / FRAME_SIZE));
    let districts: Vec<_> = a.table.districts.iter().filter_map(OnceLock::get).collect();
    let made = districts.iter().flat_map(|district| district.iter());
    assert_eq!(made.filter(|n| n.get().is_some()).count(), 3);
    assert_eq!(districts.len(), 2, "nothing between is made");
    hold.complete(&mut a, &ranges);
    assert!(!ledger.is_held(NEIGHBOURS));
}

#[test]
fn a_map_with_great_holes_costs_what_is_held_and_not_what_it_spans() {
    let ledger = Ledger::default();
    // 128 TiB, as another VMM's map of its own addresses spans.
    let top = 128 << 40;
    let mut a = ledger.shard("a", top / FRAME_SIZE);
    assert!(a.table.districts.len() <= 8192);
    let page = [range(top - FRAME_SIZE, FRAME_SIZE)];
    let hold = a.open(Direction::FromDevice, &page);
    assert!(ledger.is_held(top / FRAME_SIZE - 1) && !ledger.is_held(0));
    hold.complete(&mut a, &page);
    assert!(!ledger.is_held(top / FRAME_SIZE - 1));
}

#[test]
fn pages_are_counted_alike_wherever_one_of_another_shape_stands_among_them() {
    for odd in 0..10 {
        for other in [
            range(0x80_0800, 0x800),
            range(0x80_0000, 0x2000),
            range(4 * NEIGHBOURHOOD, 0x1000),
        ] {
            let ledger = Ledger::default();
            let mut a = ledger.shard("a", 8 * NEIGHBOURS);
            let mut ranges: Vec<_> = (0..9).map(|n| range(n << 12, 0x1000)).collect();
            ranges.insert(odd, other);
            let hold = a.open(Direction::FromDevice, &ranges);
            let held = |frame| {
                ledger
                    .holders(frame)
                    .iter()
                    .map(|held| held.from_device)
                    .sum::<u32>()
            };
            assert!((0..9).all(|frame| held(frame) == 1), "{odd}, {other:?}");
            assert!(
                other.frames().all(|frame| held(frame) == 1),
                "{odd}, {other:?}"
            );
            hold.complete(&mut a, &ranges);
            assert!((0..8 * NEIGHBOURS).all(|frame| held(frame) == 0));
        }
    }
}

#[test]
fn ranges_of_any_shape_and_order_count_each_frame_once_per_range() {
    let ledger = Ledger::default();
    let mut a = ledger.shard("a", 4 * NEIGHBOURS);
    let far = 2 * NEIGHBOURHOOD;
    let ranges = [
        range(0x1000, 0x1000),
        range(0x2fff, 1),
        range(0x3fff, 2),
        range(far, 0x1000),
        range(0x5000, 0),
        range(0x5fff, 0),
        range(0x1800, 0x800),
        range(far - 1, NEIGHBOURHOOD + 2),
        range(far + 0x1000, 0x1000),
    ];
    let hold = a.open(Direction::ToDevice, &ranges);
    let count = |frame| {
        ledger
            .holders(frame)
            .iter()
            .map(|held| held.to_device)
            .sum::<u32>()
    };
    assert_eq!([0, 1, 2, 3, 4, 5, 6].map(count), [0, 2, 1, 1, 1, 0, 0]);
    let far = far / FRAME_SIZE;
    assert_eq!(
        [far - 2, far - 1, far, far + 1, far + 2].map(count),
        [0, 1, 2, 2, 1]
    );
    assert_eq!(
        [far + NEIGHBOURS - 1, far + NEIGHBOURS, far + NEIGHBOURS + 1].map(count),
        [1, 1, 0]
    );
    hold.complete(&mut a, &ranges);
    assert!((0..4 * NEIGHBOURS).all(|frame| !ledger.is_held(frame)));
}

#[test]
fn a_request_does_not_share_a_frame_with_itself() {
    let ledger = Ledger::default();
    let mut a = ledger.shard("a", 64);
    let own = [range(0x1000, 512), range(0x1200, 512)];
    let hold = a.open(Direction::ToDevice, &own);
    assert!(!ledger.shares_frame("a", &own, &own));
    assert!(ledger.shares_frame("a", &own, &[]));
    let other = a.open(Direction::FromDevice, &[range(0x1f00, 8)]);
    assert!(ledger.shares_frame("a", &own, &own));
    other.complete(&mut a, &[range(0x1f00, 8)]);
    hold.complete(&mut a, &own);
}
