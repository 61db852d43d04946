//! When a breaker opens, for how long, and how it closes again; what operators decide.

use std::time::Duration;

use super::counts::Window;
use crate::moment;

/// The rules of one breaker. With none of the three rules set it never opens by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// Open after this many failures with no success between them; 0 counts as 1.
    pub consecutive_failures: Option<u32>,
    /// Failures in a row count only if they come within this time of the first of them.
    pub interval: Option<Duration>,
    /// Open at this share of failures in the window, 1 to 100.
    pub failure_rate: Option<u8>,
    /// Open when too many calls take too long.
    pub slow_calls: Option<SlowRule>,
    /// But by a rate not before the window holds this many calls.
    pub min_requests: u32,
    /// The calls that rates are of.
    pub window: Window,
    /// How long to refuse the first time before trying again; twice as long each further time.
    pub open_for: Duration,
    /// But no longer than that, or than `open_for` if that is longer.
    pub max_open_for: Duration,
    /// How many trials run when half-open, all of which have to succeed; 0 counts as 1.
    pub half_open_requests: u32,
    /// For how long after closing only a growing share of the calls is let through.
    pub ramp: Duration,
}

/// A limit on the slow share of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowRule {
    /// What takes longer is slow.
    pub longer_than: Duration,
    /// Open at this share of slow calls, 1 to 100.
    pub percent: u8,
}

/// The share with which a ramp begins, of 2^32.
const RAMP_FLOOR: u64 = (1 << 32) / 10;

impl Rules {
    /// Whether successes have to be counted.
    pub(super) fn rates(&self) -> bool {
        self.failure_rate.is_some() || self.slow_calls.is_some()
    }

    pub(super) fn trials(&self) -> u32 {
        self.half_open_requests.max(1)
    }

    pub(super) fn is_slow(&self, took: Duration) -> bool {
        self.slow_calls.is_some_and(|rule| took > rule.longer_than)
    }

    /// The longest time for which it opens, chance aside. After so long a time closed, it begins anew.
    pub(super) fn longest(&self) -> Duration {
        self.max_open_for.max(self.open_for)
    }

    /// How long it stays open the `turn`th time in a row, from 1. `draw` is 64 random bits, which make the
    /// time a fifth longer or shorter, so that gateways do not try a service all at once.
    #[must_use]
    pub fn open_time(&self, turn: u32, draw: u64) -> Duration {
        let doubled = self.open_for.saturating_mul(1_u32 << turn.saturating_sub(1).min(31));
        moment::spread(doubled.min(self.longest()), draw)
    }

    /// The share of calls let through `closed` after closing, of 2^32; `None` when that is all of them.
    pub(super) fn share(&self, closed: Duration) -> Option<u64> {
        if closed >= self.ramp {
            return None;
        }
        let share = (closed.as_nanos() << 32) / self.ramp.as_nanos().max(1);
        Some(u64::try_from(share).unwrap_or(u64::MAX).max(RAMP_FLOOR))
    }
}

/// Whether `draw` falls into `share` of 2^32.
pub(super) fn falls_into(draw: u64, share: u64) -> bool {
    draw >> 32 < share
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIDDLE: u64 = 1 << 63;

    fn rules() -> Rules {
        Rules {
            consecutive_failures: Some(1),
            interval: None,
            failure_rate: None,
            slow_calls: None,
            min_requests: 1,
            window: Window::Time(Duration::from_secs(10)),
            open_for: Duration::from_secs(5),
            max_open_for: Duration::from_secs(60),
            half_open_requests: 1,
            ramp: Duration::from_secs(10),
        }
    }

    #[test]
    fn the_open_time_doubles_up_to_the_longest() {
        let rules = rules();
        let times = [1, 2, 3, 4, 5, 6, 40, u32::MAX];
        let seconds = times.map(|turn| rules.open_time(turn, MIDDLE).as_secs());
        assert_eq!(seconds, [5, 10, 20, 40, 60, 60, 60, 60]);
        assert_eq!(rules.open_time(1, 0), Duration::from_secs(4));
        assert!(rules.open_time(1, u64::MAX) <= Duration::from_secs(6));
        let longer = Rules { open_for: Duration::from_secs(300), ..rules };
        assert_eq!(longer.open_time(7, MIDDLE), Duration::from_secs(300));
    }

    #[test]
    fn the_share_grows_from_a_tenth_to_all() {
        let rules = rules();
        let share = |seconds: u64| rules.share(Duration::from_secs(seconds));
        assert_eq!(share(0), Some(RAMP_FLOOR));
        assert_eq!(share(5), Some(1 << 31));
        assert_eq!(share(10), None);
        let none = Rules { ramp: Duration::ZERO, ..rules };
        assert_eq!(none.share(Duration::ZERO), None);
        assert!(falls_into(0, RAMP_FLOOR) && !falls_into(u64::MAX, RAMP_FLOOR));
    }
}
