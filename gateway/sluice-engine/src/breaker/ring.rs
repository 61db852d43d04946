//! The calls of the last while, in a fixed ring of time slots: a window of time is forgotten in steps of
//! a tenth.
//!
//! What the counts mean is left to the breaker. The one rule: a slot remembers when it began, so a
//! changed window keeps what it still covers, and a late observation never wipes a newer slot.

use std::time::Duration;

use super::totals::{Seen, Totals};
use crate::moment::{self, Moment};

/// The number of slots.
const SLOTS: usize = 10;

/// Counts by slot.
#[derive(Clone, Debug, Default)]
pub(super) struct Ring {
    slots: [Slot; SLOTS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    began: u64,
    totals: Totals,
}

impl Ring {
    /// Counts one call at `now` in a ring that spans `window`.
    pub(super) fn record(&mut self, window: Duration, now: Moment, seen: Seen) {
        let width = slot_width(window);
        let number = now.nanos() / width;
        let began = number * width;
        let at = usize::try_from(number % SLOTS as u64).unwrap_or_default();
        let Some(slot) = self.slots.get_mut(at) else { return };
        if slot.began < began {
            *slot = Slot { began, totals: Totals::default() };
        }
        slot.totals.add(seen);
    }

    /// The sums over the slots that began within the last `window`.
    pub(super) fn totals(&self, window: Duration, now: Moment) -> Totals {
        let reach = slot_width(window).saturating_mul(SLOTS as u64);
        let covered =
            self.slots.iter().filter(|slot| slot.began.saturating_add(reach) > now.nanos());
        covered.fold(Totals::default(), |sum, slot| sum.plus(&slot.totals))
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

    fn seen(failure: Option<u8>) -> Seen {
        Seen { failure, slow: false }
    }

    #[test]
    fn calls_are_counted_and_forgotten() {
        let mut ring = Ring::default();
        for second in 0..10 {
            ring.record(WINDOW, at(second), seen((second % 2 == 1).then_some(3)));
        }
        let counts = |totals: Totals| (totals.calls, totals.failures, totals.kinds[3]);
        assert_eq!(counts(ring.totals(WINDOW, at(9))), (10, 5, 5));
        assert_eq!(counts(ring.totals(WINDOW, at(10))), (9, 5, 5));
        ring.record(WINDOW, at(10), seen(None));
        assert_eq!(ring.totals(WINDOW, at(10)).calls, 10);
        assert_eq!(ring.totals(WINDOW, at(30)).calls, 0);
    }

    #[test]
    fn a_late_observation_keeps_the_newer_slot() {
        let mut ring = Ring::default();
        ring.record(WINDOW, at(25), seen(Some(0)));
        ring.record(WINDOW, at(15), seen(Some(0)));
        assert_eq!(ring.totals(WINDOW, at(25)).failures, 2);
    }

    #[test]
    fn another_window_keeps_what_it_covers() {
        let mut ring = Ring::default();
        ring.record(WINDOW, at(12), seen(Some(0)));
        ring.record(WINDOW, at(19), seen(Some(0)));
        assert_eq!(ring.totals(Duration::from_secs(5), at(20)).failures, 1);
        assert_eq!(ring.totals(Duration::from_secs(60), at(60)).failures, 2);
    }
}
