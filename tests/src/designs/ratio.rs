//! Times of rounds as ratios to those of another kernel in the same boot set.

use serde::Serialize;

/// Middle and spread of ratios.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ratio {
    /// Half of the rounds were below.
    pub median: f64,
    /// A quarter of the rounds was below.
    pub low: f64,
    /// A quarter of the rounds was above.
    pub high: f64,
    /// The quickest round to the base's quickest, in the middle one of the boot sets: what is left when nothing else runs meanwhile.
    pub quickest: f64,
}

impl Ratio {
    /// Of each round to the median of the base's rounds in the same boot set. Sets that one of the two lacks say nothing; `None`: all do.
    #[must_use]
    pub fn of(rounds: &[Vec<f64>], base: &[Vec<f64>]) -> Option<Self> {
        let (mut ratios, mut quickest) = (Vec::new(), Vec::new());
        for (own, base) in rounds.iter().zip(base) {
            let Some(middle) = median(base).filter(|middle| *middle > 0.0) else {
                continue;
            };
            ratios.extend(own.iter().map(|round| round / middle));
            if let (Some(own), Some(base)) = (quantile(own, 0.0), quantile(base, 0.0))
                && base > 0.0
            {
                quickest.push(own / base);
            }
        }
        Some(Self {
            median: median(&ratios)?,
            low: quantile(&ratios, 0.25)?,
            high: quantile(&ratios, 0.75)?,
            quickest: median(&quickest)?,
        })
    }

    /// Whether three quarters of its rounds are slower than three quarters of those of `base`, and its quickest is slower too.
    #[must_use]
    pub fn is_surely_above(&self, base: &Self) -> bool {
        self.low > base.high && self.quickest > 1.0
    }
}

/// The middle one.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// By linear interpolation.
fn quantile(values: &[f64], part: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index of some thousand rounds"
    )]
    let (place, below) = {
        let place = part * last as f64;
        (place, place.floor() as usize)
    };
    let above = sorted[(below + 1).min(last)];
    Some(sorted[below] + (above - sorted[below]) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_set_is_compared_with_itself() {
        // The second set ran on a machine that was twice as slow.
        let base = [vec![10.0, 10.0, 12.0], vec![20.0, 20.0, 20.0]];
        let own = [vec![15.0, 15.0, 15.0], vec![30.0, 30.0, 30.0]];
        let ratio = Ratio::of(&own, &base).unwrap();
        assert!((ratio.median - 1.5).abs() < 1e-9, "{ratio:?}");
        assert!((ratio.high - 1.5).abs() < 1e-9, "{ratio:?}");
        assert!((ratio.quickest - 1.5).abs() < 1e-9, "{ratio:?}");
        assert_eq!(Ratio::of(&own, &[]), None);
        assert_eq!(Ratio::of(&[vec![]], &base), None);
        assert_eq!(Ratio::of(&own, &[vec![0.0]]), None);
    }

    #[test]
    fn one_round_that_was_interrupted_moves_neither_the_middle_nor_the_quarters() {
        let base = [vec![10.0; 20]];
        let mut rounds = vec![11.0; 20];
        rounds[3] = 5000.0;
        let ratio = Ratio::of(&[rounds], &base).unwrap();
        assert!((ratio.median - 1.1).abs() < 1e-9 && (ratio.high - 1.1).abs() < 1e-9);
        let same = Ratio::of(&base, &base).unwrap();
        assert!(ratio.is_surely_above(&same) && !same.is_surely_above(&ratio));
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[3.0], 0.9), Some(3.0));
        assert_eq!(median(&[1.0, 4.0, 2.0, 3.0]), Some(2.5));
    }
}
