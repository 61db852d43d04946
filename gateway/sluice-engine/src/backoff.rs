//! How long to wait before another attempt: full jitter, which is any time between nothing and a bound
//! that doubles with each attempt. Callers whose attempts failed together do not come back together.
//!
//! Source: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015. Whether there is
//! another attempt at all is left to the caller. The one rule: no wait is longer than [`Rules::most`].

use std::time::Duration;

/// The bounds of the waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The longest wait before the second attempt.
    pub base: Duration,
    /// The longest wait before any.
    pub most: Duration,
}

impl Rules {
    /// The wait after so many attempts (1 or more) have failed; `random` is 64 random bits.
    #[must_use]
    pub fn wait(&self, failed: u32, random: u64) -> Duration {
        let doubled = 1_u32.checked_shl(failed.saturating_sub(1)).unwrap_or(u32::MAX);
        let bound = self.base.saturating_mul(doubled).min(self.most).as_nanos();
        // A share of the bound: the product of two 64-bit numbers has 128 bits.
        let bound = u64::try_from(bound).unwrap_or(u64::MAX);
        let share = (u128::from(bound) * u128::from(random)) >> u64::BITS;
        Duration::from_nanos(u64::try_from(share).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules =
        Rules { base: Duration::from_millis(25), most: Duration::from_millis(250) };

    #[test]
    fn the_bound_doubles_up_to_the_most() {
        let longest = |failed| RULES.wait(failed, u64::MAX).as_micros().div_ceil(1_000);
        for (failed, millis) in [(1, 25), (2, 50), (3, 100), (5, 250), (40, 250), (u32::MAX, 250)] {
            assert_eq!(longest(failed), millis, "{failed}");
        }
        assert_eq!(RULES.wait(3, 0), Duration::ZERO);
    }

    #[test]
    fn waits_are_spread_evenly() {
        let mut tenths = [0_u32; 10];
        for step in 0..10_000_u64 {
            let wait = RULES.wait(1, step * (u64::MAX / 10_000));
            tenths[(wait.as_micros() / 2_500) as usize] += 1;
        }
        assert!(tenths.iter().all(|count| (990..=1_010).contains(count)), "{tenths:?}");
    }

    #[test]
    fn without_a_base_nobody_waits() {
        let rules = Rules { base: Duration::ZERO, most: Duration::MAX };
        assert_eq!(rules.wait(9, u64::MAX), Duration::ZERO);
    }
}
