//! How short memory is, and what follows from it: a little less than what is allowed, connections are kept
//! no longer; at more, requests are refused; near the end, the largest users are given up.
//!
//! A stage is entered at one share of the limit and left below a lower one, so that a reading which
//! wavers does not make the gateway waver.

/// What is done about the use of memory; each stage includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nothing.
    #[default]
    Normal,
    /// Client connections end with their answers, and those at rest are closed.
    Lean,
    /// New requests to services are refused.
    Refusing,
    /// The connections that hold most are cut.
    Shedding,
}

/// Stages with the shares of the limit, in percent, at which each is entered and left.
const SHARES: [(Stage, u64, u64); 3] =
    [(Stage::Shedding, 95, 92), (Stage::Refusing, 92, 88), (Stage::Lean, 85, 80)];

impl Stage {
    /// The stage that follows on this one when `used` of `limit` bytes are in use.
    #[must_use]
    pub fn next(self, used: u64, limit: u64) -> Self {
        let reaches =
            |percent: u64| u128::from(used) * 100 >= u128::from(limit) * u128::from(percent);
        SHARES
            .iter()
            .find(|(stage, enter, leave)| reaches(if *stage <= self { *leave } else { *enter }))
            .map_or(Self::Normal, |(stage, _, _)| *stage)
    }

    /// Its name in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Lean => "lean",
            Self::Refusing => "refusing",
            Self::Shedding => "shedding",
        }
    }

    /// Every stage, in order.
    pub const ALL: [Self; 4] = [Self::Normal, Self::Lean, Self::Refusing, Self::Shedding];
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(readings: &[u64]) -> Vec<Stage> {
        let mut stage = Stage::Normal;
        let step = |used: &u64| {
            stage = stage.next(*used, 1_000);
            stage
        };
        readings.iter().map(step).collect()
    }

    #[test]
    fn stages_are_entered_at_their_shares() {
        assert_eq!(
            walk(&[0, 849, 850, 919, 920, 949, 950, 2_000]),
            [
                Stage::Normal,
                Stage::Normal,
                Stage::Lean,
                Stage::Lean,
                Stage::Refusing,
                Stage::Refusing,
                Stage::Shedding,
                Stage::Shedding
            ]
        );
        assert_eq!(walk(&[960]), [Stage::Shedding], "stages may be skipped");
    }

    #[test]
    fn a_stage_is_left_only_well_below_its_share() {
        assert_eq!(
            walk(&[960, 930, 919, 890, 879, 820, 800, 799]),
            [
                Stage::Shedding,
                Stage::Shedding,
                Stage::Refusing,
                Stage::Refusing,
                Stage::Lean,
                Stage::Lean,
                Stage::Lean,
                Stage::Normal
            ]
        );
        assert_eq!(walk(&[960, 0]), [Stage::Shedding, Stage::Normal]);
    }

    #[test]
    fn large_numbers_do_not_overflow() {
        assert_eq!(Stage::Normal.next(u64::MAX, u64::MAX), Stage::Shedding);
        assert_eq!(Stage::Normal.next(1, u64::MAX), Stage::Normal);
    }
}
