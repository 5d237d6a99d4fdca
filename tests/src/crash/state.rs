//! A medium just after an event, if the power went then: what is certain, and which units may hold what.
//!
//! A unit (a sector, a cache line) arrives whole or not at all. It holds what the last settled change made of it, or what any later
//! change made that has begun and is not settled. A later one never loses to an earlier one that had ended
//! before it began and is not later than the settled one; all others may win in any order.

use std::collections::BTreeMap;

use super::history::{Change, History, Kind};

/// Longest unit in bytes.
static ZEROES: [u8; 512] = [0; 512];

/// What one unit may hold instead of its settled bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version<'h> {
    /// Which change makes it.
    pub(super) change: usize,
    pub(super) bytes: &'h [u8],
}

/// A unit of which more than one content is possible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Open<'h> {
    /// Its first byte.
    pub(super) offset: usize,
    /// In the order of the changes.
    pub(super) versions: Vec<Version<'h>>,
}

/// A medium at a cut.
#[derive(Debug, Clone)]
pub struct State<'h> {
    /// All of it, with nothing that is not settled.
    settled: Vec<u8>,
    unit: usize,
    pub(super) open: Vec<Open<'h>>,
}

impl<'h> State<'h> {
    /// The medium just after event `cut`; `base` is what it held before the first change.
    ///
    /// # Errors
    /// A change that does not lie on it; in words.
    pub fn at(history: &'h History, base: Vec<u8>, cut: u64) -> Result<Self, String> {
        let mut state = Self {
            settled: base,
            unit: history.unit,
            open: Vec::new(),
        };
        let mut open: BTreeMap<usize, Vec<Version<'h>>> = BTreeMap::new();
        for (index, change) in history.changes.iter().enumerate() {
            if change.began > cut {
                continue;
            }
            let settled = change.settled(&history.barriers);
            let is_settled = settled.is_some_and(|settled| settled <= cut);
            let (from, to) = state.span(change)?;
            for offset in (from..to).step_by(state.unit) {
                let bytes = bytes_of(change, offset - from, state.unit);
                if is_settled && change.kind != Kind::Discard {
                    state.settled[offset..offset + state.unit].copy_from_slice(bytes);
                    if let Some(versions) = open.get_mut(&offset) {
                        versions.retain(|older| history.changes[older.change].ended > change.began);
                    }
                } else {
                    let version = Version {
                        change: index,
                        bytes,
                    };
                    open.entry(offset).or_default().push(version);
                }
            }
        }
        for (offset, versions) in open {
            let settled = &state.settled[offset..offset + state.unit];
            if versions.iter().any(|version| version.bytes != settled) {
                state.open.push(Open { offset, versions });
            }
        }
        Ok(state)
    }

    fn span(&self, change: &Change) -> Result<(usize, usize), String> {
        let from = usize::try_from(change.offset).unwrap_or(usize::MAX);
        let to = usize::try_from(change.len)
            .ok()
            .and_then(|len| from.checked_add(len))
            .filter(|to| *to <= self.settled.len());
        let whole = from.is_multiple_of(self.unit) && change.len.is_multiple_of(self.unit as u64);
        to.filter(|_| whole).map(|to| (from, to)).ok_or_else(|| {
            format!(
                "the record changes {} bytes at {}, which are not whole units of a medium of {} bytes",
                change.len,
                change.offset,
                self.settled.len()
            )
        })
    }

    /// How many units may hold more than one thing.
    #[must_use]
    pub fn open_units(&self) -> usize {
        self.open.len()
    }

    /// Changes that are not settled and of which something may be found, ascending.
    pub(super) fn open_changes(&self) -> Vec<usize> {
        let versions = self.open.iter().flat_map(|open| &open.versions);
        let mut changes: Vec<usize> = versions.map(|version| version.change).collect();
        changes.sort_unstable();
        changes.dedup();
        changes
    }

    /// The image in which each open unit holds the version that `choose` gives: its place in [`Open::versions`], `None` for the settled
    /// bytes.
    pub(super) fn image(&self, choose: impl Fn(&Open<'h>) -> Option<usize>) -> Vec<u8> {
        let mut image = self.settled.clone();
        for open in &self.open {
            if let Some(chosen) = choose(open) {
                let place = &mut image[open.offset..open.offset + self.unit];
                place.copy_from_slice(open.versions[chosen].bytes);
            }
        }
        image
    }

    /// Whether a correct device could have left this image.
    #[must_use]
    pub fn allows(&self, image: &[u8]) -> bool {
        if image.len() != self.settled.len() {
            return false;
        }
        let open: BTreeMap<usize, &Open<'h>> =
            self.open.iter().map(|open| (open.offset, open)).collect();
        let units = image.chunks(self.unit).zip(self.settled.chunks(self.unit));
        (0..).zip(units).all(|(index, (found, settled))| {
            found == settled
                || open
                    .get(&(index * self.unit))
                    .is_some_and(|open| open.versions.iter().any(|version| version.bytes == found))
        })
    }
}

/// What a change makes of the unit that begins `at` bytes into it.
fn bytes_of(change: &Change, at: usize, unit: usize) -> &[u8] {
    match &change.kind {
        Kind::Bytes(bytes) => &bytes[at..at + unit],
        Kind::Zeroes | Kind::Discard => &ZEROES[..unit],
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::crash::history::{Barrier, SECTOR};

    /// A write of one byte's value into whole sectors, from event `began` on; told one event after it ended.
    pub(crate) fn write(sectors: std::ops::Range<u64>, value: u8, began: u64) -> Change {
        let len = (sectors.end - sectors.start) * SECTOR as u64;
        Change {
            offset: sectors.start * SECTOR as u64,
            len,
            kind: Kind::Bytes(vec![value; usize::try_from(len).unwrap()]),
            began,
            ended: began + 1,
            told: Some(began + 2),
            by_itself: None,
            request: None,
        }
    }

    pub(crate) fn history(changes: Vec<Change>, barriers: &[(u64, u64)]) -> History {
        let barriers = barriers.iter();
        History {
            unit: SECTOR,
            changes,
            barriers: barriers
                .map(|&(began, complete)| Barrier { began, complete })
                .collect(),
            ..History::default()
        }
    }

    /// What the first sector may hold, by its first byte.
    fn first_sector(history: &History, cut: u64) -> Vec<u8> {
        let state = State::at(history, vec![0; 4 * SECTOR], cut).unwrap();
        (0..=9)
            .filter(|value| {
                let mut image = state.settled.clone();
                image[..SECTOR].fill(*value);
                state.allows(&image)
            })
            .collect()
    }

    #[test]
    fn a_sector_holds_what_was_flushed_or_any_later_write() {
        let history = history(
            vec![
                write(0..1, 1, 10),
                write(0..1, 2, 20),
                write(0..1, 3, 30),
                write(0..1, 4, 40),
            ],
            &[(25, 28)],
        );
        assert_eq!(first_sector(&history, 9), [0]);
        assert_eq!(first_sector(&history, 15), [0, 1]);
        // The flush is under way, and promises nothing yet.
        assert_eq!(first_sector(&history, 27), [0, 1, 2]);
        assert_eq!(first_sector(&history, 28), [2]);
        assert_eq!(first_sector(&history, 50), [2, 3, 4]);
    }

    #[test]
    fn a_write_that_was_under_way_when_a_settled_one_began_may_still_win() {
        let mut slow = write(0..1, 1, 10);
        (slow.ended, slow.told) = (30, Some(31));
        let history = history(vec![slow, write(0..1, 2, 20)], &[(25, 28)]);
        assert_eq!(first_sector(&history, 28), [1, 2]);
    }

    #[test]
    fn a_write_that_was_under_way_when_the_flush_began_may_be_lost() {
        let mut slow = write(0..1, 1, 10);
        (slow.ended, slow.told) = (26, Some(27));
        let history = history(vec![slow], &[(25, 28)]);
        assert_eq!(first_sector(&history, 40), [0, 1]);
    }

    #[test]
    fn a_discard_leaves_zeros_or_what_was_there_also_after_a_flush() {
        let mut discard = write(0..1, 0, 20);
        discard.kind = Kind::Discard;
        let mut zeroed = write(0..1, 0, 40);
        zeroed.kind = Kind::Zeroes;
        let history = history(
            vec![write(0..1, 1, 10), discard, zeroed],
            &[(15, 16), (25, 28), (45, 48)],
        );
        assert_eq!(first_sector(&history, 18), [1]);
        assert_eq!(first_sector(&history, 30), [0, 1]);
        assert_eq!(first_sector(&history, 48), [0]);
    }

    #[test]
    fn a_write_of_several_sectors_tears_between_them_and_never_within() {
        let history = history(vec![write(0..2, 1, 10)], &[]);
        let state = State::at(&history, vec![0; 4 * SECTOR], 20).unwrap();
        let mut image = vec![0; 4 * SECTOR];
        image[SECTOR..2 * SECTOR].fill(1);
        assert!(state.allows(&image));
        image[SECTOR] = 0;
        assert!(!state.allows(&image));
        assert!(!state.allows(&image[SECTOR..]));
    }

    #[test]
    fn a_change_beyond_the_end_is_refused() {
        let history = history(vec![write(3..5, 1, 10)], &[]);
        assert!(State::at(&history, vec![0; 4 * SECTOR], 20).is_err());
    }
}
