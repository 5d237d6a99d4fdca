//! Random choices that depend on nothing but what they are about.
//!
//! There is no stream: two requests that swap places in time draw what they would have drawn.

use xxhash_rust::xxh3::Xxh3;

use crate::trace::event::Point;

/// Names a choice: whose, where, and which rule asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) seed: u64,
    pub(crate) device: &'a str,
    pub(crate) queue: u16,
    pub(crate) ordinal: u64,
    pub(crate) point: Point,
    pub(crate) rule: &'a str,
}

/// What one choice is for, so that the choices of one rule do not depend on each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// `probability`; the argument tells the nested conditions of a rule apart.
    Probability(u64),
    Delay,
    Reorder,
    Damage,
    Touch,
}

impl Subject<'_> {
    /// The key of a choice: evenly distributed over all 64 bits.
    pub(crate) fn key(&self, purpose: Purpose) -> u64 {
        let (purpose, which) = match purpose {
            Purpose::Probability(which) => (0_u64, which),
            Purpose::Delay => (1, 0),
            Purpose::Reorder => (2, 0),
            Purpose::Damage => (3, 0),
            Purpose::Touch => (4, 0),
        };
        let point: u64 = match self.point {
            Point::Fetched => 0,
            Point::Executed => 1,
            Point::Completed => 2,
        };
        let mut hash = Xxh3::with_seed(self.seed);
        for text in [self.device, self.rule] {
            // The length keeps ("ab", "c") and ("a", "bc") apart.
            hash.update(&(text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        }
        hash.update(&self.queue.to_le_bytes());
        hash.update(&self.ordinal.to_le_bytes());
        for number in [point, purpose, which] {
            hash.update(&number.to_le_bytes());
        }
        hash.digest()
    }
}

/// The `index`-th number of a key.
pub(crate) fn number(key: u64, index: u64) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(&index.to_le_bytes(), key)
}

/// The `index`-th number of a key, below `bound` (0 for a bound of 0).
pub(crate) fn below(key: u64, index: u64, bound: u64) -> u64 {
    let wide = u128::from(number(key, index)) * u128::from(bound);
    u64::try_from(wide >> 64).expect("the product's upper half is below the bound")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECT: Subject<'_> = Subject {
        seed: 7,
        device: "b",
        queue: 0,
        ordinal: 3,
        point: Point::Fetched,
        rule: "rule 1",
    };

    #[test]
    fn a_choice_depends_on_all_that_it_is_about_and_on_nothing_else() {
        let key = |subject: Subject<'_>| subject.key(Purpose::Delay);
        assert_eq!(key(SUBJECT), key(SUBJECT));
        let others = [
            Subject { seed: 8, ..SUBJECT },
            Subject {
                device: "a",
                ..SUBJECT
            },
            Subject {
                queue: 1,
                ..SUBJECT
            },
            Subject {
                ordinal: 4,
                ..SUBJECT
            },
            Subject {
                point: Point::Executed,
                ..SUBJECT
            },
            Subject {
                rule: "rule 2",
                ..SUBJECT
            },
        ];
        for other in others {
            assert_ne!(key(SUBJECT), key(other), "{other:?}");
        }
        assert_ne!(SUBJECT.key(Purpose::Delay), SUBJECT.key(Purpose::Reorder));
        assert_ne!(
            SUBJECT.key(Purpose::Probability(0)),
            SUBJECT.key(Purpose::Probability(1))
        );
    }

    #[test]
    fn a_seed_draws_the_same_for_ever() {
        // A plan that is replayed a year from now must do what it did.
        assert_eq!(SUBJECT.key(Purpose::Delay), 9_500_876_553_008_850_964);
    }

    #[test]
    fn numbers_spread_evenly_below_their_bound() {
        let mut counts = [0_u32; 10];
        for index in 0..10_000 {
            counts[usize::try_from(below(1, index, 10)).unwrap()] += 1;
        }
        assert!(
            counts.iter().all(|count| (900..1100).contains(count)),
            "{counts:?}"
        );
        assert_eq!(below(1, 0, 0), 0);
    }
}
