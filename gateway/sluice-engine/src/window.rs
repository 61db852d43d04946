//! A sliding window made of two buckets: the current one counts in full, the one before by the
//! share of it that the window still covers.
//!
//! Storing counters by client, and sharing them between processes, is left to the caller; a shared
//! store repeats this arithmetic. The one rule: a refused hit is not recorded, so that a client who
//! keeps knocking is still admitted at the limit's rate.
//!
//! The estimate supposes that the hits of the former bucket came evenly. Under a steady flow it is
//! exact to within rounding. A burst at the very end of one bucket is forgotten evenly over the
//! next one, so the worst case over an arbitrary window is just under twice the limit; an exact
//! window needs a log of hits.

use std::time::Duration;

use crate::moment::{self, Moment};

/// How much is admitted in how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Units of cost per window; 0 refuses everything.
    pub limit: u64,
    /// The window's width, and the width of a bucket; at least one nanosecond is used.
    pub per: Duration,
}

/// What was seen so far. `index` numbers the current bucket since the origin of time. Fields are
/// open, because a shared store has to be able to fill and to read them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// `now / per` of the newest hit.
    pub index: u64,
    /// Units admitted in the bucket before `index`.
    pub previous: u64,
    /// Units admitted in the bucket `index`.
    pub current: u64,
}

/// The answer to one hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the hit may pass, and was recorded.
    pub admitted: bool,
    /// Whole units left after this hit.
    pub remaining: u64,
    /// Time until the current bucket ends.
    pub reset_after: Duration,
    /// How long an admitted hit has to wait for its turn; zero but for a bucket that queues.
    pub wait: Duration,
    /// Zero when admitted. Otherwise the exact time after which a hit of the same cost would pass
    /// if nothing else came; `Duration::MAX` when the cost is above the limit and never passes.
    pub retry_after: Duration,
}

impl Counter {
    /// Asks for `cost` units at `now`, and records them when they are admitted.
    ///
    /// `limit` may change from call to call, and counts stay. A changed `per` forgets the counts,
    /// because they were made with other buckets.
    pub fn hit(&mut self, rules: &Rules, now: Moment, cost: u64) -> Verdict {
        let per = width(rules);
        let elapsed = self.roll(per, now);
        let admitted = self.has_room(rules.limit, per, elapsed, cost);
        if admitted {
            self.current += cost;
        }
        let retry_after = if admitted {
            Duration::ZERO
        } else {
            self.wait(rules.limit, per, elapsed, cost).map_or(Duration::MAX, Duration::from_nanos)
        };
        Verdict {
            admitted,
            remaining: self.remaining(rules.limit, per, elapsed),
            reset_after: Duration::from_nanos(per - elapsed),
            wait: Duration::ZERO,
            retry_after,
        }
    }

    /// Whether nothing recorded here counts any more at `now`, so that the counter may be dropped.
    #[must_use]
    pub fn is_idle(&self, rules: &Rules, now: Moment) -> bool {
        let mut copy = self.clone();
        copy.roll(width(rules), now);
        copy.previous == 0 && copy.current == 0
    }

    /// Moves to the bucket of `now` and returns the nanoseconds since its start, below `per`.
    fn roll(&mut self, per: u64, now: Moment) -> u64 {
        let index = now.nanos() / per;
        if index.checked_add(1) == Some(self.index) {
            // Another thread saw a slightly later clock and has opened the bucket already.
            return 0;
        }
        if index != self.index {
            let follows = self.index.checked_add(1) == Some(index);
            self.previous = if follows { self.current } else { 0 };
            self.current = 0;
            self.index = index;
        }
        now.nanos() % per
    }

    /// `previous * (per - elapsed) / per + current + cost <= limit`, in whole numbers.
    fn has_room(&self, limit: u64, per: u64, elapsed: u64, cost: u64) -> bool {
        if limit == 0 {
            return false;
        }
        let spare = self.current.checked_add(cost).and_then(|sum| limit.checked_sub(sum));
        spare.is_some_and(|spare| product(self.previous, per - elapsed) <= product(spare, per))
    }

    fn remaining(&self, limit: u64, per: u64, elapsed: u64) -> u64 {
        let fading = product(self.previous, per - elapsed).div_ceil(u128::from(per));
        let fading = u64::try_from(fading).unwrap_or(u64::MAX);
        limit.saturating_sub(self.current).saturating_sub(fading)
    }

    /// Nanoseconds until `cost` has room, given that it has none now; `None` when it never will.
    fn wait(&self, limit: u64, per: u64, elapsed: u64, cost: u64) -> Option<u64> {
        if limit == 0 {
            return None;
        }
        let spare_when_empty = limit.checked_sub(cost)?;
        if let Some(spare) = spare_when_empty.checked_sub(self.current) {
            // The former bucket fades enough before the current one ends, or just at its end.
            return Some(fades_after(self.previous, per, spare).saturating_sub(elapsed));
        }
        let next = fades_after(self.current, per, spare_when_empty);
        Some((per - elapsed).saturating_add(next))
    }
}

fn width(rules: &Rules) -> u64 {
    moment::nanos(rules.per).max(1)
}

/// The nanoseconds into a bucket after which `before` units of the former one weigh at most `spare`.
fn fades_after(before: u64, per: u64, spare: u64) -> u64 {
    if before <= spare {
        return 0;
    }
    let covered = product(spare, per).checked_div(u128::from(before)).unwrap_or_default();
    per.saturating_sub(u64::try_from(covered).unwrap_or(u64::MAX))
}

fn product(a: u64, b: u64) -> u128 {
    u128::from(a) * u128::from(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn rules(limit: u64) -> Rules {
        Rules { limit, per: Duration::from_secs(1) }
    }

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn the_limit_is_admitted_and_no_more() {
        let mut counter = Counter::default();
        for left in (0..3).rev() {
            let verdict = counter.hit(&rules(3), at(100), 1);
            assert!(verdict.admitted);
            assert_eq!(verdict.remaining, left);
            assert_eq!(verdict.reset_after, Duration::from_millis(900));
            assert_eq!(verdict.retry_after, Duration::ZERO);
        }
        let refused = counter.hit(&rules(3), at(100), 1);
        assert!(!refused.admitted);
        assert_eq!(refused.remaining, 0);
        // The next bucket has room for one once a third of the former bucket is out of sight.
        assert_eq!(refused.retry_after.as_nanos(), 900_000_000 + 333_333_334);
        assert_eq!(counter.current, 3);
    }

    #[test]
    fn the_former_bucket_fades() {
        let mut counter = Counter { index: 0, previous: 0, current: 10 };
        assert!(!counter.hit(&rules(10), at(1_000), 1).admitted);
        let refused = counter.hit(&rules(10), at(1_050), 1);
        assert_eq!(refused.retry_after, Duration::from_millis(50));
        assert!(counter.hit(&rules(10), at(1_100), 1).admitted);
        assert!(!counter.hit(&rules(10), at(1_100), 1).admitted);
        let verdict = counter.hit(&rules(10), at(1_500), 2);
        assert!(verdict.admitted);
        assert_eq!(verdict.remaining, 2);
    }

    #[test]
    fn a_new_limit_applies_to_old_counts() {
        let mut counter = Counter::default();
        assert!(counter.hit(&rules(2), at(0), 2).admitted);
        assert!(!counter.hit(&rules(2), at(1), 1).admitted);
        assert!(counter.hit(&rules(3), at(2), 1).admitted);
        let lowered = counter.hit(&rules(1), at(3), 1);
        assert!(!lowered.admitted);
        assert_eq!(lowered.remaining, 0);
    }

    #[test]
    fn what_can_never_pass_says_so() {
        let mut counter = Counter::default();
        assert_eq!(counter.hit(&rules(0), at(0), 1).retry_after, Duration::MAX);
        assert!(!counter.hit(&rules(0), at(0), 0).admitted);
        assert_eq!(counter.hit(&rules(5), at(0), 6).retry_after, Duration::MAX);
    }

    #[test]
    fn extreme_numbers_do_not_overflow() {
        let widest = Rules { limit: u64::MAX, per: Duration::MAX };
        let mut counter = Counter { index: 0, previous: u64::MAX, current: u64::MAX };
        let verdict = counter.hit(&widest, Moment::from_nanos(7), u64::MAX);
        assert!(!verdict.admitted);
        let narrow = Rules { limit: 1, per: Duration::ZERO };
        assert!(counter.hit(&narrow, Moment::from_nanos(u64::MAX), 1).admitted);
    }

    #[test]
    fn clocks_that_disagree_a_little_lose_nothing() {
        let mut counter = Counter { index: 5, previous: 4, current: 3 };
        counter.hit(&rules(100), Moment::from_nanos(5 * SECOND - 1), 1);
        assert_eq!(counter, Counter { index: 5, previous: 4, current: 4 });
    }

    #[test]
    fn an_old_counter_is_idle_after_two_windows() {
        let mut counter = Counter::default();
        assert!(counter.is_idle(&rules(1), at(0)));
        counter.hit(&rules(1), at(100), 1);
        assert!(!counter.is_idle(&rules(1), at(1_999)));
        assert!(counter.is_idle(&rules(1), at(2_000)));
    }
}
