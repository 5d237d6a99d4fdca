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
#[cfg(test)]
mod tests;

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
