//! How much an endpoint bears that has just come, or come back: a share of its weight that grows until it
//! is whole.
//!
//! When it came is the caller's. The one rule: the share is never 0, or nobody would ever learn whether
//! the endpoint does well.

use std::time::Duration;

use super::WARM;
use crate::moment;

/// How the share grows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowStart {
    /// After so long it is whole.
    pub window: Duration,
    /// With 1 it grows evenly; with more it is larger at the beginning, with less it is smaller there. It
    /// is `(time / window) ^ (1 / aggression)`.
    pub aggression: f32,
    /// It begins with so many percent.
    pub least_percent: u8,
}

impl SlowStart {
    /// The share after so long, of [`WARM`].
    #[must_use]
    pub fn warmth(&self, age: Duration) -> u32 {
        if age >= self.window {
            return WARM;
        }
        let least = (u32::from(self.least_percent) * WARM / 100).clamp(1, WARM);
        #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
        let part = moment::nanos(age) as f32 / moment::nanos(self.window).max(1) as f32;
        #[expect(clippy::cast_precision_loss, reason = "it is 1024")]
        let share = part.powf(1.0 / self.aggression) * WARM as f32;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "casts saturate"
        )]
        let share = share as u32;
        share.clamp(least, WARM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, aggression: f32) -> u32 {
        let rules = SlowStart { window: Duration::from_secs(40), aggression, least_percent: 10 };
        rules.warmth(Duration::from_secs(seconds))
    }

    #[test]
    fn the_share_grows_to_the_whole() {
        assert_eq!(
            [0, 2, 10, 20, 40, 99].map(|age| at(age, 1.0)),
            [102, 102, 256, 512, WARM, WARM]
        );
        assert_eq!([10, 20].map(|age| at(age, 2.0)), [512, 724]);
        assert_eq!([10, 20].map(|age| at(age, 0.5)), [102, 256]);
    }

    #[test]
    fn odd_rules_do_no_harm() {
        for aggression in [0.0, -1.0, f32::NAN, f32::INFINITY, f32::MIN_POSITIVE] {
            let share = at(20, aggression);
            assert!((1..=WARM).contains(&share), "{aggression}: {share}");
        }
        let nothing = SlowStart { window: Duration::ZERO, aggression: 1.0, least_percent: 0 };
        assert_eq!(nothing.warmth(Duration::ZERO), WARM);
        let tiny = SlowStart { window: Duration::MAX, aggression: 1.0, least_percent: 0 };
        assert_eq!(tiny.warmth(Duration::ZERO), 1);
    }
}
