//! Tokens that are good once each: every use makes the next one. A client that has lost an answer may come
//! with the one before for a short while; whoever comes later with a used one has stolen it, or was stolen
//! from, and the whole family ends (RFC 9700 section 4.14).
//!
//! Tokens are numbered here. That a number is genuine is the caller's to know.

use std::time::Duration;

/// A family of tokens: of all that were ever given out, one is current.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// The number of the current token; the first one is 0.
    pub current: u32,
    /// When it became that, in milliseconds of any clock that all who judge share.
    pub since: u64,
}

/// What becomes of a token that was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was the current one; the next one is current now and is to be given out.
    Rotated,
    /// It was the one before, used a moment ago: the current one is to be given out again.
    Again,
    /// It was used long ago: the family has to end.
    Reused,
    /// Nobody has given it out.
    Unknown,
}

/// Uses of one family at most; beyond it somebody has to log in again.
pub const MOST: u32 = 1_000_000;

impl Family {
    /// A family whose first token is given out now.
    #[must_use]
    pub fn begin(now: u64) -> Self {
        Self { current: 0, since: now }
    }

    /// Judges the token of this number, and rotates if it is the current one.
    pub fn show(&mut self, number: u32, now: u64, grace: Duration) -> Verdict {
        if number > self.current {
            return Verdict::Unknown;
        }
        if number == self.current {
            if self.current >= MOST {
                return Verdict::Reused;
            }
            *self = Self { current: self.current + 1, since: now };
            return Verdict::Rotated;
        }
        // A clock that went back must not make the grace longer.
        let age = Duration::from_millis(now.saturating_sub(self.since));
        if number + 1 == self.current && age < grace {
            return Verdict::Again;
        }
        Verdict::Reused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    #[test]
    fn each_token_is_good_once_and_the_last_one_again_for_a_while() {
        let mut family = Family::begin(0);
        assert_eq!(family.show(1, 10, GRACE), Verdict::Unknown);
        assert_eq!(family.show(0, 1_000, GRACE), Verdict::Rotated);
        assert_eq!(family, Family { current: 1, since: 1_000 });
        assert_eq!(family.show(0, 30_999, GRACE), Verdict::Again);
        assert_eq!(family.show(0, 31_000, GRACE), Verdict::Reused);
        assert_eq!(family.show(1, 40_000, GRACE), Verdict::Rotated);
        assert_eq!(family.show(0, 40_001, GRACE), Verdict::Reused, "two generations back");
        assert_eq!(family.show(3, 40_001, GRACE), Verdict::Unknown);
        assert_eq!(family.show(1, 10, GRACE), Verdict::Again, "the clock went back");
    }

    #[test]
    fn without_grace_a_used_token_ends_the_family() {
        let mut family = Family::begin(0);
        assert_eq!(family.show(0, 0, Duration::ZERO), Verdict::Rotated);
        assert_eq!(family.show(0, 0, Duration::ZERO), Verdict::Reused);
    }

    #[test]
    fn a_family_does_not_go_on_for_ever() {
        let mut family = Family { current: MOST, since: 0 };
        assert_eq!(family.show(MOST, 0, GRACE), Verdict::Reused);
    }
}
