//! The few statistics of the report: medians, ratios round by round, and their spread.

use serde::Serialize;

/// A figure over all rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
    /// How far off the median may be: twice its standard error, as the quartiles tell it.
    pub(crate) off: f64,
}

/// The standard error of a median of normal figures, in quartile distances by the root of their
/// number.
const ERROR: f64 = 1.2533 / 1.349;

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
        let quartile = |share: usize| sorted.get((sorted.len() - 1) * share / 4).copied();
        let off = 2.0 * ERROR * (quartile(3)? - quartile(1)?) / (sorted.len() as f64).sqrt();
        Some(Self { median, least: *sorted.first()?, most: *sorted.last()?, off })
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
        assert_eq!((odd.median, odd.least, odd.most), (2.0, 1.0, 3.0));
        assert!((Spread::of([4.0, 1.0, 2.0, 3.0]).unwrap().median - 2.5).abs() < 1e-9);
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn many_figures_make_a_median_certain() {
        let off = |count: usize| {
            let figures = (0..count).map(|number| f64::from(u32::try_from(number % 5).unwrap()));
            Spread::of(figures).unwrap().off
        };
        assert!((off(100) - 2.0 * ERROR * 2.0 / 10.0).abs() < 1e-9, "{}", off(100));
        assert!(off(400) < off(100));
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
