//! Endpoints that fail more often than their peers: those whose success rate lies more than a factor times
//! the standard deviation below the mean, as Envoy's outlier detection has it.
//!
//! Whether an outlier may be ejected is the group's. The one rule: rates are compared among endpoints with
//! enough requests only, and each comparison begins its counts anew.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Cell, Group};
use crate::moment::Moment;

/// When an endpoint is an outlier.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SuccessRate {
    /// Rates are compared so often.
    pub interval: Duration,
    /// Who had fewer requests in it is not judged.
    pub min_requests: u32,
    /// Nobody is, unless so many had enough.
    pub min_endpoints: u32,
    /// How many standard deviations below the mean are too many.
    pub factor: f32,
    /// Who does at least so many percent of its requests well is spared: among endpoints that hardly ever
    /// fail, the deviation is so small that one failure would be far out.
    pub spared_percent: u8,
}

/// Who lies too far below its peers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outliers {
    /// Their positions among those that were asked about, with their rates.
    pub members: Vec<(usize, f64)>,
    /// The rate below which they are.
    pub bar: f64,
}

/// Outcomes of one endpoint: successes above, all of them below.
#[derive(Debug, Default)]
pub(super) struct Tally(AtomicU64);

impl Tally {
    pub(super) fn count(&self, success: bool) {
        self.0.fetch_add(u64::from(success) << 32 | 1, Ordering::Relaxed);
    }

    /// Successes and all, which begin anew.
    fn take(&self) -> (u64, u64) {
        let both = self.0.swap(0, Ordering::Relaxed);
        (both >> 32, both & u64::from(u32::MAX))
    }
}

impl SuccessRate {
    /// The largest number of deviations that one of so many can be below the mean, however bad it is: a
    /// larger factor never finds anybody.
    #[must_use]
    pub fn farthest(members: u32) -> f32 {
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let others = members.saturating_sub(1) as f32;
        others.sqrt()
    }

    /// Compares, and begins all counts anew.
    pub fn outliers<'a>(&self, cells: impl Iterator<Item = &'a Cell>) -> Outliers {
        let mut rates = Vec::new();
        for (index, cell) in cells.enumerate() {
            let (good, all) = cell.tally.take();
            if all >= u64::from(self.min_requests.max(1)) {
                #[expect(clippy::cast_precision_loss, reason = "counts of one interval")]
                rates.push((index, good as f64 / all as f64));
            }
        }
        if rates.len() < usize::try_from(self.min_endpoints).unwrap_or(usize::MAX) {
            return Outliers::default();
        }
        #[expect(clippy::cast_precision_loss, reason = "a number of endpoints")]
        let count = rates.len() as f64;
        let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
        let variance = rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / count;
        let bar = mean - f64::from(self.factor) * variance.sqrt();
        rates.retain(|(_, rate)| *rate < bar && rate * 100.0 < f64::from(self.spared_percent));
        Outliers { members: rates, bar }
    }
}

impl Group {
    /// Whether it is time to compare: true for one caller in each interval.
    pub fn is_due(&self, rules: &SuccessRate, now: Moment) -> bool {
        let next = self.next.load(Ordering::Relaxed);
        if now.nanos() < next {
            return false;
        }
        let after = now.after(rules.interval).nanos();
        let first = self.next.compare_exchange(next, after, Ordering::Relaxed, Ordering::Relaxed);
        // With the first request the first interval begins.
        first.is_ok() && next > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: SuccessRate = SuccessRate {
        interval: Duration::from_secs(10),
        min_requests: 100,
        min_endpoints: 5,
        factor: 1.9,
        spared_percent: 95,
    };

    fn cells(rates: &[u32]) -> Vec<Cell> {
        let cell = |rate: &u32| {
            let cell = Cell::default();
            (0..100).for_each(|at| cell.tally(at < *rate));
            cell
        };
        rates.iter().map(cell).collect()
    }

    fn found(rules: &SuccessRate, cells: &[Cell]) -> Vec<usize> {
        rules.outliers(cells.iter()).members.into_iter().map(|(index, _)| index).collect()
    }

    #[test]
    fn who_fails_more_than_its_peers_is_found() {
        assert_eq!(found(&RULES, &cells(&[100, 99, 100, 60, 98])), [3]);
        assert!(found(&RULES, &cells(&[60, 61, 59, 60, 58])).is_empty(), "all are bad");
        assert!(
            found(&RULES, &cells(&[100, 100, 100, 100, 96])).is_empty(),
            "one is nearly as good"
        );
        assert!(found(&RULES, &cells(&[100, 100, 100, 0])).is_empty(), "too few to compare");
    }

    #[test]
    fn few_requests_are_not_judged() {
        let cells = cells(&[100; 5]);
        let lazy = Cell::default();
        lazy.tally(false);
        let all = || cells.iter().chain([&lazy]);
        assert!(RULES.outliers(all()).members.is_empty());
        assert!(RULES.outliers(all()).members.is_empty(), "counts begin anew");
    }

    #[test]
    fn some_factors_are_never_reached() {
        for (members, reached) in [(5, true), (4, false)] {
            let mut rates = vec![100; members];
            rates[0] = 0;
            let rules = SuccessRate { min_endpoints: 2, ..RULES };
            assert_eq!(!found(&rules, &cells(&rates)).is_empty(), reached, "{members}");
            let members = u32::try_from(members).unwrap();
            assert_eq!(SuccessRate::farthest(members) > RULES.factor, reached, "{members}");
        }
    }

    #[test]
    fn one_caller_compares_in_each_interval() {
        let group = Group::default();
        let due = |seconds: u64| group.is_due(&RULES, Moment::from_nanos(seconds * 1_000_000_000));
        assert_eq!(
            [5, 6, 14, 15, 15, 24, 25].map(due),
            [false, false, false, true, false, false, true]
        );
    }
}
