//! The few statistics of the report: medians, ratios round by round, and their spread.

use serde::Serialize;

/// A figure over all rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// Of the figures of all rounds; nothing if there are none.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let median = if sorted.len() % 2 == 1 {
            upper
        } else {
            (upper + sorted.get(middle.checked_sub(1)?)?) / 2.0
        };
        Some(Self { median, least: *sorted.first()?, most: *sorted.last()? })
    }

    /// Of the ratios of two figures of the same round; rounds that lack one of them are left out.
    pub(crate) fn of_ratios(
        rounds: impl IntoIterator<Item = (Option<f64>, Option<f64>)>,
    ) -> Option<Self> {
        let ratio = |(ours, theirs): (Option<f64>, Option<f64>)| match (ours?, theirs?) {
            (_, 0.0) => None,
            (ours, theirs) => Some(ours / theirs),
        };
        Self::of(rounds.into_iter().filter_map(ratio))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two_middles() {
        let odd = Spread::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!(odd, Spread { median: 2.0, least: 1.0, most: 3.0 });
        assert!((Spread::of([4.0, 1.0, 2.0, 3.0]).unwrap().median - 2.5).abs() < 1e-9);
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine was twice as slow in the second round, for both.
        let rounds = [(Some(9.0), Some(10.0)), (Some(18.0), Some(20.0)), (None, Some(10.0))];
        let ratio = Spread::of_ratios(rounds).unwrap();
        assert!((ratio.median - 0.9).abs() < 1e-9 && (ratio.most - 0.9).abs() < 1e-9);
        assert_eq!(Spread::of_ratios([(Some(1.0), Some(0.0))]), None);
    }
}
