//! A sliding window that remembers each admitted hit, and so is never over its limit, whatever the pattern.
//! It costs eight bytes for each of them; where that is too much, [`crate::window`] does with three numbers
//! and is right for smooth traffic.
//!
//! The one rule: only admitted hits are remembered, at most `limit` of them.

use std::collections::VecDeque;
use std::time::Duration;

use crate::moment::Moment;
use crate::window::{Rules, Verdict};

/// When hits were admitted, the oldest first.
#[derive(Clone, Debug, Default)]
pub struct Log(VecDeque<Moment>);

impl Log {
    /// Asks for one hit at `now`, and remembers it when it is admitted. A lowered limit counts at once:
    /// nothing is admitted until enough has grown old.
    pub fn hit(&mut self, rules: &Rules, now: Moment) -> Verdict {
        while self.0.front().is_some_and(|at| at.after(rules.per) <= now) {
            self.0.pop_front();
        }
        let held = self.0.len() as u64;
        let admitted = held < rules.limit;
        if admitted {
            // A clock read by another thread may be a little ahead already; order is kept.
            let last = self.0.back().copied().unwrap_or_default();
            self.0.push_back(now.max(last));
        }
        let until = |at: Option<&Moment>| {
            at.map_or(Duration::ZERO, |at| at.after(rules.per).saturating_since(now))
        };
        // Of those held, as many must go as there are too many, and one for the newcomer.
        let too_many = usize::try_from(held.saturating_sub(rules.limit)).unwrap_or(usize::MAX);
        let retry_after = match (admitted, rules.limit) {
            (true, _) => Duration::ZERO,
            (false, 0) => Duration::MAX,
            (false, _) => until(self.0.get(too_many)),
        };
        Verdict {
            admitted,
            remaining: rules.limit.saturating_sub(self.0.len() as u64),
            reset_after: until(self.0.back()),
            wait: Duration::ZERO,
            retry_after,
        }
    }

    /// Whether nothing counts any more at `now`, so that it may be forgotten.
    #[must_use]
    pub fn is_idle(&self, rules: &Rules, now: Moment) -> bool {
        self.0.back().is_none_or(|at| at.after(rules.per) <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { limit: 3, per: Duration::from_secs(1) };

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_burst_across_the_edge_of_a_bucket_is_not_admitted_twice() {
        let mut log = Log::default();
        assert!((0..3).all(|_| log.hit(&RULES, at(990)).admitted));
        let refused = log.hit(&RULES, at(1_010));
        assert!(!refused.admitted);
        assert_eq!(refused.retry_after, Duration::from_millis(980));
        assert!(!log.hit(&RULES, at(1_989)).admitted);
        assert_eq!(log.hit(&RULES, at(1_990)).remaining, 2);
    }

    #[test]
    fn a_lowered_limit_counts_at_once() {
        let mut log = Log::default();
        for turn in 0..3 {
            assert!(log.hit(&RULES, at(turn * 100)).admitted);
        }
        let one = Rules { limit: 1, ..RULES };
        let refused = log.hit(&one, at(300));
        assert_eq!(refused.retry_after, Duration::from_millis(900), "the last of the three");
        assert!(log.hit(&one, at(1_200)).admitted);
        assert_eq!(log.hit(&Rules { limit: 0, ..RULES }, at(9_000)).retry_after, Duration::MAX);
    }

    #[test]
    fn an_old_log_is_idle() {
        let mut log = Log::default();
        assert!(log.is_idle(&RULES, at(0)));
        log.hit(&RULES, at(0));
        assert!(!log.is_idle(&RULES, at(999)) && log.is_idle(&RULES, at(1_000)));
    }
}
