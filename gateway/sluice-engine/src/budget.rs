//! A budget for second attempts: a share of the requests of the last ten seconds, and a few where there
//! are few requests, so that a service that fails under its load is not given more of it.
//!
//! The few are for a service that works: they are no more than what it answered well in that time, or
//! [`TRUSTED`] that good answers earn back. A new service has those on credit, and its share repays them. So
//! one of which every request fails gets the share alone, over any number of requests above a few.
//!
//! Counting requests is left to the caller, who does so anyway and tells the sums when it asks; a
//! request that needs no second attempt costs nothing here. The one rule: those sums never fall.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::moment::Moment;

/// How far back requests and second attempts count.
pub const WINDOW: Duration = Duration::from_secs(10);

/// Second attempts that good answers earn, however long ago they were.
pub const TRUSTED: u64 = 10;

const SLOTS: usize = 10;
/// Nanoseconds of a slot.
const SLOT: u64 = WINDOW.as_secs() * 1_000_000_000 / SLOTS as u64;

/// How many second attempts there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// So many of 100 requests.
    pub percent: u8,
    /// And so many a second where there are few requests, counted over the window.
    pub min_per_second: u32,
}

/// What there has ever been, second attempts not counted; it may lag a little.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Requests.
    pub requests: u64,
    /// Those that were answered well.
    pub well: u64,
}

/// What one service's budget has seen. Outlives the rules, which come with each question.
#[derive(Debug, Default)]
pub struct Cell {
    /// Held for a few lines, by requests that want a second attempt only.
    inner: Mutex<Inner>,
}

/// The sums over a budget's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Second attempts that were granted.
    pub granted: u64,
    /// Second attempts that were refused.
    pub refused: u64,
}

#[derive(Debug, Default)]
struct Inner {
    tally: Tally,
    /// The caller's sums when it asked last.
    seen: Seen,
    /// The share of the requests that was not used, in hundredths of an attempt; a debt while a new
    /// service has used what it has not earned.
    share: i64,
    /// What good answers have earned.
    earned: u64,
    /// The number of the newest slot.
    newest: u64,
    slots: [Slot; SLOTS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    requests: u64,
    well: u64,
    granted: u64,
}

impl Cell {
    /// Asks for one second attempt at `now`.
    pub fn admit(&self, rules: &Rules, now: Moment, seen: Seen) -> bool {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let new = inner.roll(now, seen);
        let granted: u64 = inner.slots.iter().map(|slot| slot.granted).sum();
        let requests: u64 = inner.slots.iter().map(|slot| slot.requests).sum();
        let well: u64 = inner.slots.iter().map(|slot| slot.well).sum();
        let share = hundredths(requests, rules);
        inner.share = inner.share.saturating_add(hundredths(new.requests, rules)).min(share);
        let of_share = inner.share >= WHOLE && hundreds(granted + 1) <= share;
        let few = u64::from(rules.min_per_second).saturating_mul(WINDOW.as_secs());
        let is_new = hundredths(inner.seen.requests, rules) < hundreds(TRUSTED);
        let on_credit = is_new && inner.tally.granted < TRUSTED;
        let trusted = granted < TRUSTED && (inner.earned > 0 || on_credit);
        let admitted = of_share || granted < few && (granted < well || trusted);
        if admitted {
            inner.tally.granted += 1;
            if !of_share && granted >= well && inner.earned > 0 {
                inner.earned -= 1;
            } else if of_share || granted >= well {
                inner.share -= WHOLE;
            }
            let newest = inner.newest;
            if let Some(slot) = inner.slot(newest) {
                slot.granted += 1;
            }
        } else {
            inner.tally.refused += 1;
        }
        admitted
    }

    /// What has been granted and refused so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).tally
    }
}

/// The hundredths of one attempt.
const WHOLE: i64 = 100;

/// The share of so many requests.
fn hundredths(requests: u64, rules: &Rules) -> i64 {
    i64::try_from(requests).unwrap_or(i64::MAX).saturating_mul(i64::from(rules.percent))
}

fn hundreds(attempts: u64) -> i64 {
    i64::try_from(attempts).unwrap_or(i64::MAX).saturating_mul(WHOLE)
}

impl Inner {
    /// Forgets slots that are over, and spreads the requests since the last question evenly over the
    /// time since then: when they came, nobody has noted.
    ///
    /// Tells what is new.
    fn roll(&mut self, now: Moment, seen: Seen) -> Seen {
        // Another thread may have seen a slightly later clock, and slightly larger sums.
        let slot = (now.nanos() / SLOT).max(self.newest);
        let new = seen.requests.saturating_sub(self.seen.requests);
        let well = seen.well.saturating_sub(self.seen.well);
        self.seen.requests = self.seen.requests.max(seen.requests);
        self.seen.well = self.seen.well.max(seen.well);
        let passed = slot - self.newest;
        let span = passed.max(1);
        let visible = span.min(SLOTS as u64);
        for number in slot.saturating_sub(passed.min(SLOTS as u64).saturating_sub(1))..=slot {
            if passed > 0
                && let Some(slot) = self.slot(number)
            {
                *slot = Slot::default();
            }
        }
        self.newest = slot;
        for age in 0..visible {
            if let Some(slot) = self.slot(slot.saturating_sub(age)) {
                slot.requests += new / span;
                slot.well += well / span;
            }
        }
        // What does not divide belongs to the newest.
        if let Some(slot) = self.slot(slot) {
            slot.requests += new % span;
            slot.well += well % span;
        }
        self.earned = self.earned.saturating_add(well).min(TRUSTED);
        Seen { requests: new, well }
    }

    fn slot(&mut self, number: u64) -> Option<&mut Slot> {
        let at = usize::try_from(number % SLOTS as u64).unwrap_or_default();
        self.slots.get_mut(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { percent: 20, min_per_second: 3 };

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    /// How many of 1,000 questions are granted where no request was answered well.
    fn granted(cell: &Cell, now: Moment, requests: u64) -> usize {
        let seen = Seen { requests, well: 0 };
        (0..1000).filter(|_| cell.admit(&RULES, now, seen)).count()
    }

    #[test]
    fn a_few_are_granted_without_any_requests() {
        let cell = Cell::default();
        assert_eq!(granted(&cell, at(0), 0), 10);
        assert_eq!(granted(&cell, at(60_000), 0), 0, "nothing was answered well since then");
        // Good answers count however long ago they were.
        assert!(cell.admit(&RULES, at(60_000), Seen { requests: 100, well: 100 }));
        assert_eq!(granted(&cell, at(90_000), 100), 10);
        assert_eq!(granted(&cell, at(120_000), 100), 0);
        assert_eq!(cell.tally(), Tally { granted: 21, refused: 3_980 });
    }

    #[test]
    fn a_service_that_works_earns_a_few_more() {
        for (well, few) in [(0, 12), (5, 12), (20, 20), (60, 30)] {
            let cell = Cell::default();
            let seen = Seen { requests: 60, well };
            let granted = (0..1000).filter(|_| cell.admit(&RULES, at(0), seen)).count();
            assert_eq!(granted, few, "{well}");
        }
    }

    /// However many requests there are, and whenever they come.
    #[test]
    fn a_service_that_always_fails_gets_a_fifth_more_at_most() {
        for (each, requests) in [(1, 60_000), (7, 3_000), (50, 500), (190, 300)] {
            let (cell, mut extra) = (Cell::default(), 0);
            for n in 1..=requests {
                let seen = Seen { requests: n, well: 0 };
                extra += u64::from(cell.admit(&RULES, at(n * each), seen));
            }
            let most = (requests / 5).max(TRUSTED);
            assert!((most * 9 / 10..=most).contains(&extra), "{each} ms: {extra}");
        }
    }

    #[test]
    fn a_share_of_many_requests_is_granted() {
        let cell = Cell::default();
        assert_eq!(granted(&cell, at(500), 1_000), 200);
        assert_eq!(granted(&cell, at(1_500), 2_000), 200);
        // The first thousand is out of sight, and so are the attempts that it paid for.
        assert_eq!(granted(&cell, at(10_500), 2_000), 0);
        assert_eq!(granted(&cell, at(11_500), 2_000), 0);
    }

    #[test]
    fn requests_of_long_ago_pay_for_nothing() {
        let cell = Cell::default();
        // 100 a second for 100 seconds, of which ten are in sight.
        assert_eq!(granted(&cell, at(100_000), 10_000), 200);
    }

    #[test]
    fn a_clock_or_a_sum_that_lags_changes_nothing() {
        let cell = Cell::default();
        assert_eq!(granted(&cell, at(5_000), 1_000), 200);
        assert_eq!(granted(&cell, at(4_000), 900), 0);
        assert_eq!(granted(&cell, at(5_000), 1_000), 0);
    }

    #[test]
    fn none_is_an_answer_too() {
        let rules = Rules { percent: 0, min_per_second: 0 };
        assert!(!Cell::default().admit(&rules, at(0), Seen { requests: u64::MAX, well: 0 }));
    }
}
