//! Durations in buckets that double: cheap to count, and what Prometheus wants as they are.

use std::time::Duration;

/// Number of buckets with an upper bound: 1 us, 2 us, 4 us, ... 2^27 us (134 s). One more takes the rest.
pub const BOUNDS: usize = 28;

/// Counts durations. Memory and the cost of a count do not grow.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    counts: [u64; BOUNDS + 1],
    sum_ns: u64,
    max_ns: u64,
}

/// Upper bound of a bucket, inclusive, in nanoseconds; `None` for the last one.
#[must_use]
pub fn bound_ns(bucket: usize) -> Option<u64> {
    (bucket < BOUNDS).then(|| 1000 << bucket)
}

impl Histogram {
    /// Counts one.
    pub fn add(&mut self, ns: u64) {
        let bucket = (0..BOUNDS)
            .find(|bucket| bound_ns(*bucket).is_some_and(|bound| ns <= bound))
            .unwrap_or(BOUNDS);
        self.counts[bucket] += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
        self.max_ns = self.max_ns.max(ns);
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_ns)
    }

    /// The longest.
    #[must_use]
    pub fn max_ns(&self) -> u64 {
        self.max_ns
    }

    /// The counts by bucket; the last one is of what is beyond all bounds.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// A duration that `percent` of all do not exceed: the bound of its bucket, so up to twice the true one, and never
    /// above the longest that was seen. 0 where nothing was counted.
    #[must_use]
    pub fn percentile_ns(&self, percent: u64) -> u64 {
        let count = self.count();
        let rank = count.saturating_mul(percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (bucket, of_bucket) in self.counts.iter().enumerate() {
            seen += of_bucket;
            if seen >= rank {
                return bound_ns(bucket).map_or(self.max_ns, |bound| bound.min(self.max_ns));
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_the_bucket_that_ends_at_or_above_them() {
        let mut histogram = Histogram::default();
        for ns in [0, 1000, 1001, 2000, u64::MAX] {
            histogram.add(ns);
        }
        assert_eq!(histogram.counts()[..3], [2, 2, 0]);
        assert_eq!(histogram.counts()[BOUNDS], 1);
        assert_eq!(histogram.count(), 5);
        assert_eq!(histogram.sum(), Duration::from_nanos(u64::MAX));
    }

    #[test]
    fn a_percentile_is_the_bound_of_its_bucket_and_at_most_the_longest() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile_ns(50), 0);
        for _ in 0..98 {
            histogram.add(900);
        }
        histogram.add(3_500);
        histogram.add(9_000);
        assert_eq!(histogram.percentile_ns(50), 1_000);
        assert_eq!(histogram.percentile_ns(99), 4_000);
        assert_eq!(histogram.percentile_ns(100), 9_000, "not 16 us");
    }
}
