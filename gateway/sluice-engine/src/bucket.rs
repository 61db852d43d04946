//! A bucket that drains steadily. Each hit pours in a unit; what does not fit is refused. Read as a token
//! bucket, its depth is the burst that may come at once. Read as a leaky bucket, a hit that finds it filled
//! beyond the burst waits until it has drained that far, which makes a queue without a list of who waits.
//!
//! The level is kept in units times the span's nanoseconds, so that all of it is whole numbers: in a span
//! of time `elapsed` the bucket drains by `elapsed * limit`. A shared store repeats this arithmetic in
//! microseconds.
//!
//! Source: the generic cell rate algorithm, in its leaky-bucket form (ITU-T I.371, annex A).

use std::time::Duration;

use crate::moment::{self, Moment};
use crate::window::Verdict;

/// How fast it drains, how deep it is, and how long a hit may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Units that drain within `per`; 0 refuses everything.
    pub limit: u64,
    /// The span of `limit`; at least one nanosecond is used.
    pub per: Duration,
    /// Units that may come at once; at least one is used.
    pub burst: u64,
    /// Hits that may wait for their turn at a time; 0 refuses instead.
    pub queue: u64,
    /// Longest wait for a turn.
    pub max_wait: Duration,
}

/// How full it was, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Units times nanoseconds of `per`.
    pub level: u128,
    /// When that was so.
    pub at: Moment,
}

impl Bucket {
    /// Asks for `cost` units at `now`, and pours them in when they are admitted.
    ///
    /// Rules may change from call to call: the level stays as it is measured in time, so a higher limit
    /// drains it faster from then on.
    pub fn hit(&mut self, rules: &Rules, now: Moment, cost: u64) -> Verdict {
        let scale = Scale::of(rules);
        let elapsed = u128::from(now.nanos().saturating_sub(self.at.nanos()));
        self.level = self.level.saturating_sub(elapsed.saturating_mul(scale.limit));
        // A clock read by another thread may be a little ahead already.
        self.at = self.at.max(now);
        let poured = self.level.saturating_add(u128::from(cost).saturating_mul(scale.unit));
        let admitted = scale.limit > 0 && poured <= scale.most;
        if admitted {
            self.level = poured;
        }
        let never = u128::from(cost).saturating_mul(scale.unit) > scale.most || scale.limit == 0;
        let retry_after = match (admitted, never) {
            (true, _) => Duration::ZERO,
            (false, true) => Duration::MAX,
            (false, false) => scale.drained(poured - scale.most),
        };
        let spare = scale.burst.saturating_sub(self.level);
        Verdict {
            admitted,
            remaining: u64::try_from(spare / scale.unit).unwrap_or(u64::MAX),
            reset_after: scale.drained(self.level),
            wait: if admitted {
                scale.drained(self.level.saturating_sub(scale.burst))
            } else {
                Duration::ZERO
            },
            retry_after,
        }
    }

    /// Whether it is empty at `now`, so that it may be forgotten.
    #[must_use]
    pub fn is_idle(&self, rules: &Rules, now: Moment) -> bool {
        let elapsed = u128::from(now.nanos().saturating_sub(self.at.nanos()));
        self.level <= elapsed.saturating_mul(u128::from(rules.limit))
    }
}

/// Rules in the measure of the level.
struct Scale {
    /// What drains in a nanosecond.
    limit: u128,
    /// One unit.
    unit: u128,
    /// The level up to which nobody waits.
    burst: u128,
    /// The level up to which hits are admitted.
    most: u128,
}

impl Scale {
    fn of(rules: &Rules) -> Self {
        let unit = u128::from(moment::nanos(rules.per).max(1));
        let limit = u128::from(rules.limit);
        let burst = u128::from(rules.burst.max(1)) * unit;
        let waiting = u128::from(moment::nanos(rules.max_wait)).saturating_mul(limit);
        let queue = (u128::from(rules.queue) * unit).min(waiting);
        Self { limit, unit, burst, most: burst.saturating_add(queue) }
    }

    /// The time in which `level` drains.
    fn drained(&self, level: u128) -> Duration {
        let nanos = level.div_ceil(self.limit.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(limit: u64, burst: u64) -> Rules {
        let (per, max_wait) = (Duration::from_secs(1), Duration::ZERO);
        Rules { limit, per, burst, queue: 0, max_wait }
    }

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let (mut bucket, rules) = (Bucket::default(), rules(10, 5));
        let now = at(1_000);
        for left in (0..5).rev() {
            let verdict = bucket.hit(&rules, now, 1);
            assert!(verdict.admitted && verdict.remaining == left && verdict.wait.is_zero());
        }
        let refused = bucket.hit(&rules, now, 1);
        assert!(!refused.admitted);
        assert_eq!(refused.retry_after, Duration::from_millis(100));
        assert_eq!(refused.reset_after, Duration::from_millis(500));
        assert!(!bucket.hit(&rules, at(1_099), 1).admitted);
        assert!(bucket.hit(&rules, at(1_100), 1).admitted, "a refusal costs nothing");
        assert!(!bucket.hit(&rules, at(1_100), 1).admitted);
    }

    #[test]
    fn hits_beyond_the_burst_wait_their_turn_in_a_queue() {
        let rules = Rules { queue: 3, max_wait: Duration::from_secs(9), ..rules(10, 1) };
        let mut bucket = Bucket::default();
        let waits: Vec<u64> = (0..4)
            .map(|_| u64::try_from(bucket.hit(&rules, at(5), 1).wait.as_millis()).unwrap())
            .collect();
        assert_eq!(waits, [0, 100, 200, 300]);
        let refused = bucket.hit(&rules, at(5), 1);
        assert!(!refused.admitted, "the queue is full");
        assert_eq!(refused.retry_after, Duration::from_millis(100));
        let hasty = Rules { max_wait: Duration::from_millis(150), ..rules };
        let mut bucket = Bucket::default();
        let admitted = (0..9).filter(|_| bucket.hit(&hasty, at(5), 1).admitted).count();
        assert_eq!(admitted, 2, "the third would wait for 200 ms");
    }

    #[test]
    fn changed_rules_count_at_once_and_the_level_stays() {
        let mut bucket = Bucket::default();
        assert!(bucket.hit(&rules(10, 10), at(0), 10).admitted);
        assert!(!bucket.hit(&rules(10, 10), at(50), 1).admitted);
        assert!(bucket.hit(&rules(100, 10), at(60), 1).admitted, "it drains faster now");
        assert!(bucket.hit(&rules(100, 20), at(60), 10).admitted, "and is deeper");
    }

    #[test]
    fn odd_numbers_do_no_harm() {
        let mut bucket = Bucket::default();
        assert_eq!(bucket.hit(&rules(0, 5), at(0), 1).retry_after, Duration::MAX);
        assert_eq!(bucket.hit(&rules(5, 5), at(0), 6).retry_after, Duration::MAX);
        let most = Rules {
            limit: u64::MAX,
            per: Duration::MAX,
            burst: u64::MAX,
            queue: u64::MAX,
            max_wait: Duration::MAX,
        };
        assert!(bucket.hit(&most, Moment::from_nanos(u64::MAX), u64::MAX).admitted);
        bucket.hit(&most, at(0), u64::MAX);
        assert!(!bucket.is_idle(&most, at(0)) || bucket.level == 0);
    }

    #[test]
    fn an_empty_bucket_is_idle() {
        let (mut bucket, rules) = (Bucket::default(), rules(10, 5));
        bucket.hit(&rules, at(0), 5);
        assert!(!bucket.is_idle(&rules, at(499)) && bucket.is_idle(&rules, at(500)));
    }
}
