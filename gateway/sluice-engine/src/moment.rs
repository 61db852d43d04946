//! A point in time as the engine sees it: nanoseconds since an origin which the caller chose.
//!
//! Reading a clock is left to the caller, so that tests and replays can invent time. The one rule:
//! moments are comparable only when they share an origin, so a process uses one origin for all.

use std::time::Duration;

/// Nanoseconds since the caller's origin. 64 bits last for 584 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The moment `nanos` nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`; zero when `earlier` is not earlier at all, which happens
    /// when two threads read the clock and then take a lock in the other order.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The moment `wait` after this one, or the last representable moment.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(nanos(wait)))
    }
}

/// A duration in whole nanoseconds, at most `u64::MAX`.
pub(crate) fn nanos(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)
}

/// `long`, a fifth longer or shorter by chance: between four and six fifths of it. `draw` is 64 random bits.
pub(crate) fn spread(long: Duration, draw: u64) -> Duration {
    let nanos = u128::from(nanos(long));
    let part = (nanos * 2 / 5 * u128::from(draw)) >> 64;
    Duration::from_nanos(u64::try_from(nanos - nanos / 5 + part).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_moves_a_time_by_a_fifth() {
        let long = Duration::from_secs(10);
        assert_eq!(spread(long, 0), Duration::from_secs(8));
        assert_eq!(spread(long, 1 << 63), long);
        assert!(spread(long, u64::MAX) <= Duration::from_secs(12));
        assert!(spread(Duration::MAX, u64::MAX) >= Duration::from_secs(1));
    }

    #[test]
    fn differences_never_go_below_zero() {
        let (early, late) = (Moment::from_nanos(5), Moment::from_nanos(9));
        assert_eq!(late.saturating_since(early), Duration::from_nanos(4));
        assert_eq!(early.saturating_since(late), Duration::ZERO);
        assert!(early < late);
    }

    #[test]
    fn addition_stops_at_the_end_of_time() {
        assert_eq!(Moment::from_nanos(1).after(Duration::from_nanos(2)).nanos(), 3);
        assert_eq!(Moment::default().after(Duration::MAX).nanos(), u64::MAX);
    }
}
