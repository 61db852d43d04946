//! Where a breaker stands, how it got there, and the words for both.

/// Where the breaker stands, as the world sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Calls pass.
    Closed,
    /// Calls are refused.
    Open,
    /// A few trials pass.
    HalfOpen,
}

/// Why the state changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// Too many failures in a row.
    ConsecutiveFailures,
    /// Too large a share of failures.
    FailureRate,
    /// Too large a share of slow calls.
    SlowCalls,
    /// The time for refusing is over.
    OpenTimeOver,
    /// As many trials succeeded as the rules ask for.
    TrialsPassed,
    /// A trial failed.
    TrialFailed,
    /// A trial succeeded too slowly.
    TrialSlow,
    /// Somebody forced it.
    Forced,
    /// Somebody ended that.
    Released,
    /// The time for which it was forced is over.
    ForceOver,
}

/// A change of state, for the caller to count and to log once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
    /// The reason.
    pub why: Why,
}

/// Where the breaker stands, in its own words; the number is what the gate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Closed = 0,
    Open = 1,
    HalfOpen = 2,
    /// Closed, and letting a growing share of the calls through.
    Ramping = 3,
    /// Open because somebody says so.
    HeldOpen = 4,
    /// Closed because somebody says so.
    HeldClosed = 5,
}

impl State {
    /// All of them; the position is that of [`super::Transitions`].
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The word for metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

impl Why {
    /// All of them; the position is that of [`super::Transitions`].
    pub const ALL: [Self; 10] = [
        Self::ConsecutiveFailures,
        Self::FailureRate,
        Self::SlowCalls,
        Self::OpenTimeOver,
        Self::TrialsPassed,
        Self::TrialFailed,
        Self::TrialSlow,
        Self::Forced,
        Self::Released,
        Self::ForceOver,
    ];

    /// The state it always leads to; what somebody forces leads to any.
    #[must_use]
    pub const fn leads_to(self) -> Option<State> {
        match self {
            Self::ConsecutiveFailures
            | Self::FailureRate
            | Self::SlowCalls
            | Self::TrialFailed
            | Self::TrialSlow => Some(State::Open),
            Self::OpenTimeOver => Some(State::HalfOpen),
            Self::TrialsPassed => Some(State::Closed),
            Self::Forced | Self::Released | Self::ForceOver => None,
        }
    }

    /// The word for metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::FailureRate => "failure_rate",
            Self::SlowCalls => "slow_calls",
            Self::OpenTimeOver => "open_time_over",
            Self::TrialsPassed => "trials_passed",
            Self::TrialFailed => "trial_failed",
            Self::TrialSlow => "trial_slow",
            Self::Forced => "forced",
            Self::Released => "released",
            Self::ForceOver => "force_over",
        }
    }
}

impl Stage {
    pub(super) const fn of(gate: u64) -> Self {
        match gate & MASK {
            0 => Self::Closed,
            1 => Self::Open,
            2 => Self::HalfOpen,
            3 => Self::Ramping,
            4 => Self::HeldOpen,
            _ => Self::HeldClosed,
        }
    }

    pub(super) const fn state(self) -> State {
        match self {
            Self::Closed | Self::Ramping | Self::HeldClosed => State::Closed,
            Self::Open | Self::HeldOpen => State::Open,
            Self::HalfOpen => State::HalfOpen,
        }
    }

    pub(super) const fn is_held(self) -> bool {
        matches!(self, Self::HeldOpen | Self::HeldClosed)
    }

    /// What follows when nobody holds it any more: after open times it is tried.
    pub(super) const fn let_go(self) -> Self {
        match self {
            Self::HeldOpen => Self::HalfOpen,
            Self::HeldClosed => Self::Closed,
            other => other,
        }
    }

    pub(super) const fn gate(self, epoch: u64) -> u64 {
        epoch << BITS | self as u64
    }
}

/// The part of the gate that is the stage; the rest numbers the epochs.
pub(super) const BITS: u32 = 3;
const MASK: u64 = (1 << BITS) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_tells_its_stage_and_epoch() {
        for stage in [
            Stage::Closed,
            Stage::Open,
            Stage::HalfOpen,
            Stage::Ramping,
            Stage::HeldOpen,
            Stage::HeldClosed,
        ] {
            let gate = stage.gate(77);
            assert_eq!((Stage::of(gate), gate >> BITS), (stage, 77));
        }
    }

    #[test]
    fn positions_are_those_of_the_list() {
        for (at, why) in Why::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, at);
        }
        for (at, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, at);
        }
    }
}
