//! Which of the many possible images are looked at: chosen by seed, place and number, and by nothing else.
//!
//! Number 0 has nothing that is not settled, number 1 all of it. Then, in turn, where few writes (or else few units) are open: each of
//! them missing alone and present alone; and at random: a set of whole writes, a set of units, or all writes up
//! to one that is torn.

use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use super::state::{Open, State};

/// So many parts, at most, are left out and kept one by one.
const FEW: usize = 8;

/// Names an image of one medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice<'a> {
    /// The run's seed.
    pub seed: u64,
    /// The disk or region.
    pub device: &'a str,
    /// Event after which the power went.
    pub cut: u64,
    /// Its number, from 0.
    pub image: u32,
    /// So many bytes, in line, arrive together where one write changes them: the physical sector of a disk. Not more than a unit: nothing
    /// beyond that.
    pub atomic: u64,
}

/// Which parts are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Nothing,
    Everything,
    /// All but one, or one alone.
    Single {
        part: usize,
        missing: bool,
    },
    /// Each write by the toss of a coin.
    Writes,
    /// Each group of units by the toss of a coin, each of its versions as likely as the others.
    Groups,
    /// Writes up to this one, of which each group of units is tossed.
    Prefix {
        last: usize,
    },
}

/// What is left out one by one.
enum Parts {
    Writes(Vec<usize>),
    /// By number.
    Groups(Vec<u64>),
    TooMany,
}

impl Choice<'_> {
    /// The image.
    #[must_use]
    pub fn make(&self, state: &State<'_>) -> Vec<u8> {
        let parts = self.parts(state);
        let shape = self.shape(state, &parts);
        let latest = |open: &Open<'_>, there: &dyn Fn(usize) -> bool| {
            let mut versions = open.versions.iter();
            versions.rposition(|version| there(version.change))
        };
        state.image(|open| {
            let group = self.group(open);
            match shape {
                Shape::Nothing => None,
                Shape::Everything => latest(open, &|_| true),
                Shape::Single { part, missing } => match &parts {
                    Parts::Writes(writes) => {
                        latest(open, &|change| (change == writes[part]) != missing)
                    }
                    Parts::Groups(groups) => latest(open, &|_| (group == groups[part]) != missing),
                    Parts::TooMany => None,
                },
                Shape::Writes => latest(open, &|change| self.coin(change as u64)),
                Shape::Groups => {
                    let of = open.versions.len() as u64 + 1;
                    let chosen = self.below(group, of);
                    usize::try_from(chosen).unwrap_or(0).checked_sub(1)
                }
                Shape::Prefix { last } => {
                    let torn = self.coin(group);
                    latest(open, &|change| change < last || (change == last && torn))
                }
            }
        })
    }

    /// Units of one group are not torn apart.
    fn group(&self, open: &Open<'_>) -> u64 {
        open.offset as u64 / self.atomic.max(1)
    }

    fn parts(&self, state: &State<'_>) -> Parts {
        let changes = state.open_changes();
        if (2..=FEW).contains(&changes.len()) {
            return Parts::Writes(changes);
        }
        let mut groups: Vec<u64> = state.open.iter().map(|open| self.group(open)).collect();
        groups.dedup();
        if (1..=FEW).contains(&groups.len()) {
            Parts::Groups(groups)
        } else {
            Parts::TooMany
        }
    }

    fn shape(&self, state: &State<'_>, parts: &Parts) -> Shape {
        let count = match parts {
            Parts::Writes(writes) => writes.len(),
            Parts::Groups(groups) => groups.len(),
            Parts::TooMany => 0,
        };
        let number = match self.image {
            0 => return Shape::Nothing,
            1 => return Shape::Everything,
            number => number as usize - 2,
        };
        let single = number / 2;
        if number.is_multiple_of(2) && single < 2 * count {
            return Shape::Single {
                part: single / 2,
                missing: single.is_multiple_of(2),
            };
        }
        match self.below(u64::MAX, 3) {
            0 => Shape::Writes,
            1 => Shape::Groups,
            _ => {
                let changes = state.open_changes();
                let last = self.below(u64::MAX - 1, changes.len() as u64);
                let last = changes.get(usize::try_from(last).unwrap_or(0));
                Shape::Prefix {
                    last: last.copied().unwrap_or(0),
                }
            }
        }
    }

    fn number(&self, index: u64) -> u64 {
        let mut hash = Xxh3::with_seed(self.seed);
        hash.update(&(self.device.len() as u64).to_le_bytes());
        hash.update(self.device.as_bytes());
        hash.update(&self.cut.to_le_bytes());
        hash.update(&self.image.to_le_bytes());
        xxh3_64_with_seed(&index.to_le_bytes(), hash.digest())
    }

    fn coin(&self, index: u64) -> bool {
        self.number(index) & 1 == 1
    }

    fn below(&self, index: u64, bound: u64) -> u64 {
        let wide = u128::from(self.number(index)) * u128::from(bound);
        u64::try_from(wide >> 64).expect("the product's upper half is below the bound")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crash::history::{Change, History, Kind, SECTOR};
    use crate::crash::state::tests::{history, write};

    const SECTORS: u64 = 6;

    fn image(state: &State<'_>, cut: u64, image: u32) -> Vec<u8> {
        let choice = Choice {
            seed: 7,
            device: "a",
            cut,
            image,
            atomic: 512,
        };
        choice.make(state)
    }

    fn base() -> Vec<u8> {
        vec![0; usize::try_from(SECTORS).unwrap() * SECTOR]
    }

    #[test]
    fn nothing_everything_and_each_write_missing_and_alone_come_first() {
        let history = history(vec![write(0..1, 1, 10), write(1..3, 2, 20)], &[]);
        let state = State::at(&history, base(), 30).unwrap();
        let first_bytes = |number| -> Vec<u8> {
            let image = image(&state, 30, number);
            image.chunks(SECTOR).map(|sector| sector[0]).collect()
        };
        assert_eq!(first_bytes(0), [0; 6]);
        assert_eq!(first_bytes(1), [1, 2, 2, 0, 0, 0]);
        assert_eq!(first_bytes(2), [0, 2, 2, 0, 0, 0]);
        assert_eq!(first_bytes(4), [1, 0, 0, 0, 0, 0]);
        assert_eq!(first_bytes(6), [1, 0, 0, 0, 0, 0]);
        assert_eq!(first_bytes(8), [0, 2, 2, 0, 0, 0]);
    }

    #[test]
    fn a_number_names_the_same_image_for_ever_and_others_differ() {
        let changes = (0..6).map(|n| write(n..n + 1, 1, 10 * n)).collect();
        let history = history(changes, &[]);
        let state = State::at(&history, base(), 99).unwrap();
        assert_eq!(image(&state, 99, 31), image(&state, 99, 31));
        let mut all: Vec<_> = (0..64).map(|number| image(&state, 99, number)).collect();
        all.sort();
        all.dedup();
        assert!(all.len() > 20, "{} different images", all.len());
    }

    #[test]
    fn with_nothing_open_all_images_are_the_same() {
        let history = history(vec![write(0..1, 1, 10)], &[(20, 21)]);
        let state = State::at(&history, base(), 30).unwrap();
        assert_eq!(state.open_units(), 0);
        assert!((0..20).all(|number| image(&state, 30, number) == image(&state, 30, 0)));
    }

    #[test]
    fn a_disk_with_greater_sectors_tears_between_these() {
        let history = history(vec![write(0..6, 1, 10)], &[]);
        let state = State::at(&history, base(), 20).unwrap();
        let mut torn = 0;
        for image in 0..40 {
            let choice = Choice {
                seed: 7,
                device: "a",
                cut: 20,
                image,
                atomic: 1024,
            };
            let bytes = choice.make(&state);
            assert!(
                bytes
                    .chunks(1024)
                    .all(|pair| pair.iter().all(|byte| *byte == pair[0]))
            );
            torn += u32::from(bytes.iter().any(|byte| *byte != bytes[0]));
        }
        assert!(torn > 0);
    }

    /// What a sector may hold, worked out for it alone from the sentence in the specification, with no word of the code above: a write is
    /// possible if it began before the cut, and no write that certainly came after it is certain to be there.
    fn may_hold(history: &History, cut: u64, sector: u64) -> Vec<u8> {
        let covers = |change: &Change| {
            let at = change.offset / SECTOR as u64;
            (at..at + change.len / SECTOR as u64).contains(&sector)
        };
        let of_sector: Vec<&Change> = history.changes.iter().filter(|c| covers(c)).collect();
        let sure = |change: &Change| {
            change.kind != Kind::Discard
                && history
                    .barriers
                    .iter()
                    .any(|b| change.told.is_some_and(|t| b.began >= t) && b.complete <= cut)
        };
        let value = |change: &Change| match &change.kind {
            Kind::Bytes(bytes) => bytes[0],
            Kind::Zeroes | Kind::Discard => 0,
        };
        let mut may = Vec::new();
        if !of_sector.iter().any(|change| sure(change)) {
            may.push(0);
        }
        for (place, change) in of_sector.iter().enumerate() {
            let overwritten = of_sector[place + 1..]
                .iter()
                .any(|later| sure(later) && (later.began >= change.ended || sure(change)));
            if change.began <= cut && !overwritten {
                may.push(value(change));
            }
        }
        may
    }

    prop_compose! {
        fn a_change()(
            from in 0..SECTORS,
            len in 1..=3_u64,
            value in 1..=9_u8,
            gap in 0..6_u64,
            lasts in 1..20_u64,
            what in 0..8_u8,
            is_told in prop::bool::weighted(0.9),
        ) -> (u64, Change) {
            let mut change = write(from..(from + len).min(SECTORS), value, 0);
            change.kind = match what {
                0 => Kind::Zeroes,
                1 => Kind::Discard,
                _ => change.kind,
            };
            change.ended = lasts;
            change.told = is_told.then_some(lasts + 1);
            (gap, change)
        }
    }

    prop_compose! {
        fn a_history()(
            changes in prop::collection::vec(a_change(), 0..12),
            flushes in prop::collection::vec((0..60_u64, 1..15_u64), 0..5),
        ) -> History {
            let mut now = 1;
            let changes = changes.into_iter().map(|(gap, mut change)| {
                now += gap;
                change.began += now;
                change.ended += now;
                change.told = change.told.map(|told| told + now);
                change
            });
            let flushes: Vec<_> = flushes.iter().map(|(began, lasts)| (*began, began + lasts)).collect();
            history(changes.collect(), &flushes)
        }
    }

    proptest! {
        #[test]
        fn every_image_is_one_that_a_disk_may_leave(
            history in a_history(), cut in 0..80_u64, seed: u64, number in 0..40_u32,
            atomic in prop::sample::select(vec![64_u64, 512, 1024, 4096])
        ) {
            let state = State::at(&history, base(), cut).unwrap();
            let choice = Choice { seed, device: "a", cut, image: number, atomic };
            let image = choice.make(&state);
            prop_assert!(state.allows(&image));
            for (sector, bytes) in (0..).zip(image.chunks(SECTOR)) {
                let may = may_hold(&history, cut, sector);
                prop_assert!(may.contains(&bytes[0]), "sector {sector} holds {}, not of {may:?}", bytes[0]);
                prop_assert!(bytes.iter().all(|byte| *byte == bytes[0]), "sector {sector} is torn within");
            }
        }

        #[test]
        fn what_was_flushed_and_not_written_again_is_in_every_image(
            before in a_history(), sector in 0..SECTORS, seed: u64, number in 0..40_u32
        ) {
            let mut history = before;
            // After all that was random, one sector is written, and a flush is asked for and answered.
            let mut last = write(sector..sector + 1, 0xee, 200);
            last.told = Some(202);
            history.changes.push(last);
            history.barriers.push(crate::crash::history::Barrier { began: 203, complete: 204 });
            let state = State::at(&history, base(), 204).unwrap();
            let choice = Choice { seed, device: "a", cut: 204, image: number, atomic: 512 };
            let at = usize::try_from(sector).unwrap() * SECTOR;
            prop_assert_eq!(choice.make(&state)[at], 0xee);
        }
    }
}
