//! Counts, per guest frame and direction, how many requests of a device hold it.
//!
//! Each queue of a device has a [`Shard`], which only it writes (under the queue's lock), so a hold costs a plain load, add and
//! store per frame and no locked instruction. Anybody may read. A frame's counters are made when its neighbourhood is
//! first held, so a large guest commits no memory.
//!
//! The ledger under-approximates: a hold opens after the pop and closes before the used index becomes visible to the
//! guest. A reader on another thread may see a hold a moment late, never one that is over: closing is a release store
//! that comes before the used index.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};

use crate::trace::event::{Direction, FRAME_SIZE, GuestRange, HoldId};

use super::hold::Hold;

mod search;

/// Frames whose counters are made at once: 16 MiB of guest memory, 32 KiB of counters.
const NEIGHBOURS: u64 = 4096;
/// Their size in bytes.
const NEIGHBOURHOOD: u64 = NEIGHBOURS * FRAME_SIZE;
/// Neighbourhoods whose places are made at once: 16 GiB of guest memory, 16 KiB of places.
const NEIGHBOURHOODS: u64 = 1024;
/// Holds that a shard can name; the shard's number is above.
const HOLDS_PER_SHARD: u64 = 1 << 40;

/// Two counters: requests that read the frame in the low half, requests that write it in the high half.
/// One pair for each of [`NEIGHBOURS`] frames.
type Counters = [AtomicU64; 4096];
/// The places of [`NEIGHBOURHOODS`] side by side.
type District = [OnceLock<Box<Counters>>; 1024];

/// All shards of a machine.
#[derive(Debug, Default)]
pub struct Ledger {
    shards: RwLock<Vec<Weak<Table>>>,
    next_shard: AtomicU64,
}

/// The counters of one shard, as everybody sees them.
#[derive(Debug)]
struct Table {
    device: String,
    /// Guest memory may have great holes (persistent memory high up, another VMM's map), so districts are made where something is held.
    districts: Box<[OnceLock<Box<District>>]>,
}

/// The right to hold frames for one queue of a device. Made anew at each activation; the ledger forgets it when it is
/// dropped.
#[derive(Debug)]
pub struct Shard {
    table: Arc<Table>,
    next_hold: u64,
    open: u64,
}

/// How often one device holds a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Name of the device.
    pub device: String,
    /// Requests that read the frame.
    pub to_device: u32,
    /// Requests that write the frame.
    pub from_device: u32,
}

impl Ledger {
    /// A shard of a device, for frames below `frames`; each of its queues has one.
    #[must_use]
    pub fn shard(&self, device: &str, frames: u64) -> Shard {
        let number = self.next_shard.fetch_add(1, Ordering::Relaxed);
        let count = usize::try_from(frames.div_ceil(NEIGHBOURS * NEIGHBOURHOODS))
            .expect("guest memory fits the host's");
        let table = Arc::new(Table {
            device: device.to_owned(),
            districts: (0..count).map(|_| OnceLock::new()).collect(),
        });
        let mut shards = self.shards.write().unwrap_or_else(PoisonError::into_inner);
        shards.retain(|other| other.strong_count() > 0);
        shards.push(Arc::downgrade(&table));
        Shard {
            table,
            next_hold: number * HOLDS_PER_SHARD + 1,
            open: 0,
        }
    }

    /// Which devices hold a frame now.
    #[must_use]
    pub fn holders(&self, frame: u64) -> Vec<Held> {
        let mut holders: Vec<Held> = Vec::new();
        for table in self.tables() {
            let count = table.count(frame);
            if count == 0 {
                continue;
            }
            let (to_device, from_device) = (low(count), low(count >> 32));
            match holders.iter_mut().find(|held| held.device == table.device) {
                Some(held) => {
                    held.to_device += to_device;
                    held.from_device += from_device;
                }
                None => holders.push(Held {
                    device: table.device.clone(),
                    to_device,
                    from_device,
                }),
            }
        }
        holders
    }

    /// Whether any device holds a frame now.
    #[must_use]
    pub fn is_held(&self, frame: u64) -> bool {
        self.tables().iter().any(|table| table.count(frame) != 0)
    }

    /// Whether `device` holds one of these frames now, not counting one hold over `own` ranges.
    #[must_use]
    pub fn shares_frame(&self, device: &str, ranges: &[GuestRange], own: &[GuestRange]) -> bool {
        let mut tables = self.tables();
        tables.retain(|table| table.device == device);
        let own_count = |frame| {
            own.iter()
                .flat_map(|range| range.frames())
                .filter(|f| *f == frame)
                .count() as u64
        };
        ranges.iter().flat_map(|range| range.frames()).any(|frame| {
            let holds: u64 = tables.iter().map(|table| sum(table.count(frame))).sum();
            holds > own_count(frame)
        })
    }

    fn tables(&self) -> Vec<Arc<Table>> {
        let shards = self.shards.read().unwrap_or_else(PoisonError::into_inner);
        shards.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Shard {
    /// Opens a hold over the frames of `ranges`, which must be inside guest memory. To be called after the pop.
    #[inline]
    pub fn open(&mut self, direction: Direction, ranges: &[GuestRange]) -> Hold {
        self.add(ranges, one(direction));
        let id = HoldId(self.next_hold);
        self.next_hold += 1;
        self.open += 1;
        Hold::new(id, direction)
    }

    /// Number of open holds.
    #[must_use]
    pub fn open_holds(&self) -> u64 {
        self.open
    }

    #[inline]
    pub(super) fn release(&mut self, direction: Direction, ranges: &[GuestRange]) {
        self.add(ranges, one(direction).wrapping_neg());
        self.open -= 1;
    }

    /// Adds to the counters of all frames.
    ///
    /// Ranges of a request are mostly whole pages in one neighbourhood, whose counters are looked up once, and which are
    /// checked four at a time. Not inlined: inside the whole path the loop would keep its few variables on the stack.
    #[inline(never)]
    fn add(&mut self, ranges: &[GuestRange], delta: u64) {
        let Some(first) = ranges.first() else { return };
        let start = first.addr & !(NEIGHBOURHOOD - 1);
        let Some(counters) = self.table.get(first.addr / FRAME_SIZE / NEIGHBOURS) else {
            return self.table.add_each(ranges, delta);
        };
        // A number of a frame, unless the range begins inside one or is far: then it is too great.
        let frame = |range: &GuestRange| {
            let offset = range.addr.wrapping_sub(start);
            offset.rotate_right(FRAME_SIZE.trailing_zeros())
        };
        let (fours, _) = ranges.as_chunks::<4>();
        let mut done = 0;
        for four in fours {
            let frames = four.each_ref().map(frame);
            // NEIGHBOURS is a power of two: if one number reaches it, all of them together do.
            let too_far = frames.iter().fold(0, |bits, frame| bits | frame);
            let other_size = four.iter().fold(0, |bits, r| bits | (r.len ^ FRAME_SIZE));
            if too_far >= NEIGHBOURS || other_size != 0 {
                break;
            }
            for frame in frames {
                bump(&counters[place(frame)], delta);
            }
            done += 4;
        }
        let mut left = ranges[done..].iter();
        loop {
            let these = left.as_slice();
            let Some(range) = left.next() else { return };
            let frame = frame(range);
            if frame >= NEIGHBOURS || range.len != FRAME_SIZE {
                return self.table.add_near(counters, start, these, delta);
            }
            bump(&counters[place(frame)], delta);
        }
    }
}

/// Single writer: only the owner of the shard stores, so load, add, store loses nothing.
#[inline]
fn bump(counter: &AtomicU64, delta: u64) {
    let count = counter.load(Ordering::Relaxed).wrapping_add(delta);
    debug_assert!(
        count >> 63 == 0,
        "a hold is closed with the ranges and the direction it was opened with"
    );
    counter.store(count, Ordering::Release);
}

/// Four at a time, which the compiler does not do by itself for atomics.
#[inline]
fn bump_all(counters: &[AtomicU64], delta: u64) {
    let (fours, rest) = counters.as_chunks::<4>();
    for [a, b, c, d] in fours {
        bump(a, delta);
        bump(b, delta);
        bump(c, delta);
        bump(d, delta);
    }
    for counter in rest {
        bump(counter, delta);
    }
}

impl Table {
    /// Adds to the counters of ranges of any shape, of which the first ones are in the neighbourhood at `start`.
    #[inline(never)]
    fn add_near(&self, counters: &Counters, start: u64, ranges: &[GuestRange], delta: u64) {
        let mut left = ranges.iter();
        loop {
            let these = left.as_slice();
            let Some(range) = left.next() else { return };
            let offset = range.addr.wrapping_sub(start);
            let near = offset < NEIGHBOURHOOD && range.len <= NEIGHBOURHOOD - offset;
            if !near || range.len == 0 {
                return self.add_each(these, delta);
            }
            let last = offset + (range.len - 1);
            bump_all(
                &counters[place(offset / FRAME_SIZE)..=place(last / FRAME_SIZE)],
                delta,
            );
        }
    }

    /// Adds to the counters of ranges of any shape and place.
    #[inline(never)]
    fn add_each(&self, ranges: &[GuestRange], delta: u64) {
        for range in ranges.iter().filter(|range| range.len > 0) {
            self.add_between(range.addr, range.addr.saturating_add(range.len - 1), delta);
        }
    }

    /// Adds to the counters of the frames from that of `addr` to that of `last`.
    fn add_between(&self, addr: u64, last: u64, delta: u64) {
        let (mut frame, last) = (addr / FRAME_SIZE, last / FRAME_SIZE);
        loop {
            let counters = self.made(frame / NEIGHBOURS);
            let end = last.min(frame | (NEIGHBOURS - 1));
            bump_all(&counters[place(frame)..=place(end)], delta);
            if end == last {
                return;
            }
            frame = end + 1;
        }
    }

    /// The counters of a neighbourhood, if there are any yet.
    #[inline]
    fn get(&self, neighbourhood: u64) -> Option<&Counters> {
        let district = usize::try_from(neighbourhood / NEIGHBOURHOODS).unwrap_or(usize::MAX);
        let district = self.districts.get(district)?.get()?;
        Some(district[place_in_district(neighbourhood)].get()?)
    }

    fn made(&self, neighbourhood: u64) -> &Counters {
        let district = usize::try_from(neighbourhood / NEIGHBOURHOODS).unwrap_or(usize::MAX);
        let district = self.districts.get(district);
        let district = district
            .expect("ranges are checked against guest memory before they are held")
            .get_or_init(|| boxed(OnceLock::new));
        district[place_in_district(neighbourhood)].get_or_init(|| boxed(|| AtomicU64::new(0)))
    }

    fn count(&self, frame: u64) -> u64 {
        let counters = self.get(frame / NEIGHBOURS);
        counters.map_or(0, |counters| counters[place(frame)].load(Ordering::Acquire))
    }
}

/// An array that was never on a stack.
#[cold]
fn boxed<T, const N: usize>(one: impl Fn() -> T) -> Box<[T; N]> {
    let all: Box<[T]> = (0..N).map(|_| one()).collect();
    let Ok(all) = all.try_into() else {
        unreachable!("there are as many as were made")
    };
    all
}

/// Place of a neighbourhood in its district.
fn place_in_district(neighbourhood: u64) -> usize {
    (neighbourhood % NEIGHBOURHOODS) as usize
}

/// Place of a frame among its neighbours.
fn place(frame: u64) -> usize {
    (frame % NEIGHBOURS) as usize
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the low half is what is asked for"
)]
fn low(count: u64) -> u32 {
    count as u32
}

fn sum(count: u64) -> u64 {
    (count & u64::from(u32::MAX)) + (count >> 32)
}

fn one(direction: Direction) -> u64 {
    match direction {
        Direction::ToDevice => 1,
        Direction::FromDevice => 1 << 32,
    }
}

#[cfg(test)]
mod tests {
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
}
