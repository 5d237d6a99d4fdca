//! Structures beside a page, each with a count of pins, of which the page leads to one.

use crate::design::not_zero;

/// Numbered from 1 in the order in which they were made; they are never forgotten, so that a pin in one that nobody finds is still seen.
#[derive(Debug, Default)]
pub(super) struct Numbered {
    /// The one that the page leads to; 0 if there is none.
    pub(super) current: usize,
    pub(super) counts: Vec<i64>,
}

impl Numbered {
    /// Makes one with a count, and the page leads to it.
    pub(super) fn make(&mut self, count: i64) -> usize {
        self.counts.push(count);
        self.current = self.counts.len();
        self.current
    }

    /// The count in one.
    pub(super) fn count_in(&mut self, number: usize) -> &mut i64 {
        &mut self.counts[number - 1]
    }

    /// The count that is found by way of the page.
    pub(super) fn count(&self) -> i64 {
        let index = self.current.checked_sub(1);
        index.map_or(0, |index| self.counts[index])
    }

    /// What is left in all of them, in words, `whose` they are.
    pub(super) fn left_over(&self, whose: &str) -> Option<String> {
        not_zero(
            &format!("the sum of all {whose} counts"),
            self.counts.iter().sum(),
        )
    }
}
