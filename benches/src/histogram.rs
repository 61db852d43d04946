//! Latencies in a log-linear histogram: 64 steps for every doubling, so that any percentile is known
//! to 1.6 % and recording costs an addition.

use std::time::Duration;

use crate::load::Latency;

/// Steps for each power of two, as a power of two itself.
const BITS: u32 = 6;
const STEPS: u64 = 1 << BITS;
/// Powers of two that are told apart; with nanoseconds the last ends beyond an hour.
const POWERS: usize = 42 - BITS as usize;

/// Counts by size of the latency, in nanoseconds.
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; (POWERS + 1) * STEPS as usize], total: 0 }
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        let step = step(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
        let step = step.min(self.counts.len() - 1);
        if let Some(count) = self.counts.get_mut(step) {
            *count += 1;
            self.total += 1;
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The latency that this share of all did not exceed, in microseconds.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let wanted = (self.total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (step, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return middle(step) / 1e3;
            }
        }
        0.0
    }

    pub(crate) fn latency(&self) -> Latency {
        Latency {
            p50: self.quantile(0.5),
            p90: self.quantile(0.9),
            p99: self.quantile(0.99),
            p999: self.quantile(0.999),
        }
    }
}

/// The step of a number of nanoseconds: itself while small, then its highest bits.
fn step(ns: u64) -> usize {
    if ns < STEPS {
        return ns as usize;
    }
    let power = ns.ilog2() - BITS;
    (power as usize + 1) * STEPS as usize + ((ns >> power) - STEPS) as usize
}

/// The middle of what falls into a step.
fn middle(step: usize) -> f64 {
    let (power, rest) = (step as u64 / STEPS, step as u64 % STEPS);
    if power == 0 {
        return rest as f64;
    }
    ((STEPS + rest) as f64 + 0.5) * 2f64.powi(power as i32 - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_falls_near_the_middle_of_its_step() {
        for ns in [0, 1, 63, 64, 65, 127, 128, 1000, 123_456, 9_999_999, 7_200_000_000] {
            let off = (middle(step(ns)) - ns as f64).abs();
            assert!(off <= ns as f64 * 0.008 + 0.5, "{ns}: {}", middle(step(ns)));
        }
        assert!((1..100_000).all(|ns| step(ns) >= step(ns - 1)));
    }

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let mut histogram = Histogram::new();
        for us in 1..=1000 {
            histogram.record(Duration::from_micros(us));
        }
        let latency = histogram.latency();
        for (found, wanted) in [
            (latency.p50, 500.0),
            (latency.p90, 900.0),
            (latency.p99, 990.0),
            (latency.p999, 999.0),
        ] {
            assert!((found / wanted - 1.0_f64).abs() < 0.016, "{found} for {wanted}");
        }
        histogram.record(Duration::from_secs(1_000_000));
        assert_eq!(histogram.total(), 1001);
        assert_eq!(Histogram::new().latency().p50, 0.0);
    }
}
