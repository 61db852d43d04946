//! A fixed ring of time slots that counts successes and failures of the last while.
//!
//! What the counts mean is left to the breaker. The one rule: a slot remembers when it began, so a
//! changed window keeps what it still covers, and a late observation never wipes a newer slot.

use std::time::Duration;

use crate::moment::{self, Moment};

/// The number of slots; a window is forgotten in steps of a tenth.
pub(crate) const SLOTS: usize = 10;

/// Counts by slot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ring {
    slots: [Slot; SLOTS],
}

/// What a window holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Calls that went well.
    pub(crate) successes: u64,
    /// Calls that went wrong.
    pub(crate) failures: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    began: u64,
    totals: Totals,
}

impl Totals {
    /// Successes and failures together.
    #[must_use]
    pub(crate) const fn requests(self) -> u64 {
        self.successes.saturating_add(self.failures)
    }

    /// The failed share, from 0.0 to 1.0; 0.0 when there were no calls.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share for people to read")]
    pub(crate) fn failure_rate(self) -> f64 {
        match self.requests() {
            0 => 0.0,
            requests => self.failures as f64 / requests as f64,
        }
    }

    /// Whether at least `percent` of the calls failed; false when there were none.
    #[must_use]
    pub(crate) fn failed_at_least(self, percent: u8) -> bool {
        let requests = u128::from(self.requests());
        requests > 0 && u128::from(self.failures) * 100 >= requests * u128::from(percent)
    }
}

impl Ring {
    /// Counts one call at `now` in a ring that spans `window`.
    pub(crate) fn record(&mut self, window: Duration, now: Moment, success: bool) {
        let width = slot_width(window);
        let number = now.nanos() / width;
        let began = number * width;
        let at = usize::try_from(number % SLOTS as u64).unwrap_or_default();
        let Some(slot) = self.slots.get_mut(at) else { return };
        if slot.began < began {
            *slot = Slot { began, totals: Totals::default() };
        }
        let count = if success { &mut slot.totals.successes } else { &mut slot.totals.failures };
        *count = count.saturating_add(1);
    }

    /// The sums over the slots that began within the last `window`.
    #[must_use]
    pub(crate) fn totals(&self, window: Duration, now: Moment) -> Totals {
        let reach = slot_width(window).saturating_mul(SLOTS as u64);
        let covered =
            self.slots.iter().filter(|slot| slot.began.saturating_add(reach) > now.nanos());
        covered.fold(Totals::default(), |sum, slot| Totals {
            successes: sum.successes.saturating_add(slot.totals.successes),
            failures: sum.failures.saturating_add(slot.totals.failures),
        })
    }
}

fn slot_width(window: Duration) -> u64 {
    (moment::nanos(window) / SLOTS as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn calls_are_counted_and_forgotten() {
        let mut ring = Ring::default();
        for second in 0..10 {
            ring.record(WINDOW, at(second), second % 2 == 0);
        }
        assert_eq!(ring.totals(WINDOW, at(9)), Totals { successes: 5, failures: 5 });
        assert_eq!(ring.totals(WINDOW, at(10)), Totals { successes: 4, failures: 5 });
        ring.record(WINDOW, at(10), true);
        assert_eq!(ring.totals(WINDOW, at(10)).requests(), 10);
        assert_eq!(ring.totals(WINDOW, at(30)).requests(), 0);
    }

    #[test]
    fn a_late_observation_keeps_the_newer_slot() {
        let mut ring = Ring::default();
        ring.record(WINDOW, at(25), false);
        ring.record(WINDOW, at(15), false);
        assert_eq!(ring.totals(WINDOW, at(25)).failures, 2);
    }

    #[test]
    fn another_window_keeps_what_it_covers() {
        let mut ring = Ring::default();
        ring.record(WINDOW, at(12), false);
        ring.record(WINDOW, at(19), false);
        assert_eq!(ring.totals(Duration::from_secs(5), at(20)).failures, 1);
        assert_eq!(ring.totals(Duration::from_secs(60), at(60)).failures, 2);
    }

    #[test]
    fn shares_are_exact_at_the_edge() {
        let half = Totals { successes: 1, failures: 1 };
        assert!(half.failed_at_least(50) && !half.failed_at_least(51));
        assert!(!Totals::default().failed_at_least(1));
        assert!((half.failure_rate() - 0.5).abs() < f64::EPSILON);
        assert!(Totals::default().failure_rate().abs() < f64::EPSILON);
    }
}
