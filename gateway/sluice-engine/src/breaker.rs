//! A circuit breaker: closed lets calls through, open refuses them, half-open lets a few try.
//!
//! What counts as a failure, and telling the world about transitions, is left to the caller. The one
//! rule: every [`Ticket`] comes back through [`Cell::record`], as `Ignored` when the call was given
//! up, because a trial's permit is free again only then.
//!
//! Each state is an epoch of its own, and a ticket carries the epoch it was drawn in. A result that
//! arrives in a later epoch says nothing about the present and changes nothing.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::moment::Moment;
use crate::ring::Ring;

/// When to open and how to close again. With neither rule set the breaker never opens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// Open after this many failures with no success between them; 0 counts as 1.
    pub consecutive_failures: Option<u32>,
    /// Open when too large a share of calls fails.
    pub failure_rate: Option<RateRule>,
    /// How long to refuse before trying again.
    pub open_for: Duration,
    /// How many trials run when half-open, all of which have to succeed; 0 counts as 1.
    pub half_open_requests: u32,
}

/// A limit on the failed share of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateRule {
    /// Open at this share of failures, 1 to 100.
    pub percent: u8,
    /// But not before the window holds this many calls.
    pub min_requests: u32,
    /// How far back calls count, in tenths of it.
    pub window: Duration,
}

/// Where the breaker stands.
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
    /// The time for refusing is over.
    OpenTimeOver,
    /// As many trials succeeded as the rules ask for.
    TrialsPassed,
    /// A trial failed.
    TrialFailed,
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

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It went well.
    Success,
    /// It went wrong in a way the called side is to blame for.
    Failure,
    /// It says nothing, for instance because the client went away. Gives a trial's permit back.
    Ignored,
}

/// The right to make one call; to be handed back through [`Cell::record`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a ticket that never comes back keeps a trial's permit for ever"]
pub struct Ticket {
    epoch: u64,
}

/// A call may be made.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the ticket has to come back through `Cell::record`"]
pub struct Admission {
    /// To be handed back with the outcome.
    pub ticket: Ticket,
    /// Set when asking itself changed the state.
    pub transition: Option<Transition>,
}

/// No call may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Until the next trial is due. While trials are under way their end is unknown, and this is
    /// `open_for`, the wait that follows if they fail.
    pub retry_after: Duration,
}

/// A breaker's standing, for gauges and listings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct View {
    /// The state; an open breaker turns half-open with the next call, not by itself.
    pub state: State,
    /// Failed share of the rate rule's window, 0.0 to 1.0; 0.0 without such a rule.
    pub failure_rate: f64,
    /// Calls in the rate rule's window; 0 without such a rule.
    pub requests: u64,
    /// When the state was entered.
    pub since: Moment,
}

/// One breaker's observations. Outlives the rules, which come with each call.
#[derive(Debug, Default)]
pub struct Cell {
    /// `epoch << 2 | state`, written under the lock and read without it, so that a closed breaker
    /// admits without locking.
    gate: AtomicU64,
    /// Failures since the last success while closed; written under the lock.
    streak: AtomicU32,
    /// Held for a few lines and never while waiting.
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    since: Moment,
    ring: Ring,
    /// Permits of the present half-open epoch that are out.
    trials: u32,
    /// Trials of the present half-open epoch that succeeded.
    passed: u32,
}

impl State {
    /// The word for metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }

    const fn code(self) -> u64 {
        match self {
            Self::Closed => 0,
            Self::Open => 1,
            Self::HalfOpen => 2,
        }
    }

    const fn of(gate: u64) -> Self {
        match gate & 3 {
            0 => Self::Closed,
            1 => Self::Open,
            _ => Self::HalfOpen,
        }
    }
}

impl Why {
    /// The word for metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::FailureRate => "failure_rate",
            Self::OpenTimeOver => "open_time_over",
            Self::TrialsPassed => "trials_passed",
            Self::TrialFailed => "trial_failed",
        }
    }
}

impl Rules {
    fn trials(&self) -> u32 {
        self.half_open_requests.max(1)
    }
}

impl Cell {
    /// Asks to make one call at `now`. May turn an open breaker half-open.
    ///
    /// # Errors
    /// A [`Refusal`] while open, and while half-open with all trials under way.
    pub fn admit(&self, rules: &Rules, now: Moment) -> Result<Admission, Refusal> {
        let gate = self.gate.load(Ordering::Acquire);
        if State::of(gate) == State::Closed {
            return Ok(Admission { ticket: Ticket { epoch: gate >> 2 }, transition: None });
        }
        let mut inner = self.lock();
        let mut transition = None;
        if self.state() == State::Open {
            let waited = now.saturating_since(inner.since);
            if waited < rules.open_for {
                return Err(Refusal { retry_after: rules.open_for.saturating_sub(waited) });
            }
            transition = Some(self.enter(&mut inner, State::HalfOpen, Why::OpenTimeOver, now));
        }
        if self.state() == State::HalfOpen {
            if inner.passed >= rules.trials() {
                // Only after a reload that asks for fewer trials than had passed already.
                transition = Some(self.enter(&mut inner, State::Closed, Why::TrialsPassed, now));
            } else if inner.trials.saturating_add(inner.passed) < rules.trials() {
                inner.trials += 1;
            } else {
                return Err(Refusal { retry_after: rules.open_for });
            }
        }
        Ok(Admission { ticket: Ticket { epoch: self.epoch() }, transition })
    }

    /// Hands a ticket back with the outcome of its call.
    #[expect(clippy::needless_pass_by_value, reason = "a ticket is good for one answer only")]
    pub fn record(
        &self,
        rules: &Rules,
        now: Moment,
        ticket: Ticket,
        outcome: Outcome,
    ) -> Option<Transition> {
        if self.says_nothing_new(rules, &ticket, outcome) {
            return None;
        }
        let mut inner = self.lock();
        if ticket.epoch != self.epoch() {
            return None;
        }
        match self.state() {
            State::Closed => self.record_closed(&mut inner, rules, now, outcome),
            State::HalfOpen => self.record_trial(&mut inner, rules, now, outcome),
            // No ticket is drawn while open.
            State::Open => None,
        }
    }

    /// How the breaker stands at `now`.
    #[must_use]
    pub fn snapshot(&self, rules: &Rules, now: Moment) -> View {
        let inner = self.lock();
        let totals = rules.failure_rate.map(|rule| inner.ring.totals(rule.window, now));
        let totals = totals.unwrap_or_default();
        View {
            state: self.state(),
            failure_rate: totals.failure_rate(),
            requests: totals.requests(),
            since: inner.since,
        }
    }

    /// The common case, told apart without the lock: a success where no rate is kept and no streak
    /// of failures is to be ended.
    fn says_nothing_new(&self, rules: &Rules, ticket: &Ticket, outcome: Outcome) -> bool {
        let gate = self.gate.load(Ordering::Acquire);
        let present = ticket.epoch == gate >> 2;
        let closed = State::of(gate) == State::Closed;
        match outcome {
            _ if !present => true,
            Outcome::Ignored => closed,
            Outcome::Success => {
                closed && rules.failure_rate.is_none() && self.streak.load(Ordering::Acquire) == 0
            }
            Outcome::Failure => false,
        }
    }

    fn record_closed(
        &self,
        inner: &mut Inner,
        rules: &Rules,
        now: Moment,
        outcome: Outcome,
    ) -> Option<Transition> {
        if outcome == Outcome::Ignored {
            return None;
        }
        let success = outcome == Outcome::Success;
        let streak =
            if success { 0 } else { self.streak.load(Ordering::Relaxed).saturating_add(1) };
        self.streak.store(streak, Ordering::Release);
        if let Some(rule) = rules.failure_rate {
            inner.ring.record(rule.window, now, success);
        }
        let why = if success { None } else { reason_to_open(inner, rules, streak, now) };
        why.map(|why| self.enter(inner, State::Open, why, now))
    }

    fn record_trial(
        &self,
        inner: &mut Inner,
        rules: &Rules,
        now: Moment,
        outcome: Outcome,
    ) -> Option<Transition> {
        inner.trials = inner.trials.saturating_sub(1);
        match outcome {
            Outcome::Ignored => None,
            Outcome::Failure => Some(self.enter(inner, State::Open, Why::TrialFailed, now)),
            Outcome::Success => {
                inner.passed = inner.passed.saturating_add(1);
                (inner.passed >= rules.trials())
                    .then(|| self.enter(inner, State::Closed, Why::TrialsPassed, now))
            }
        }
    }

    /// Begins a new epoch. Whatever was counted before belongs to the former one.
    fn enter(&self, inner: &mut Inner, to: State, why: Why, now: Moment) -> Transition {
        let gate = self.gate.load(Ordering::Relaxed);
        *inner = Inner { since: now, ..Inner::default() };
        self.streak.store(0, Ordering::Release);
        let epoch = (gate >> 2).wrapping_add(1);
        self.gate.store(epoch << 2 | to.code(), Ordering::Release);
        Transition { from: State::of(gate), to, why }
    }

    fn state(&self) -> State {
        State::of(self.gate.load(Ordering::Acquire))
    }

    fn epoch(&self) -> u64 {
        self.gate.load(Ordering::Acquire) >> 2
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each holder leaves the fields consistent, so a panic elsewhere does not spoil them.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reason_to_open(inner: &Inner, rules: &Rules, streak: u32, now: Moment) -> Option<Why> {
    if rules.consecutive_failures.is_some_and(|limit| streak >= limit.max(1)) {
        return Some(Why::ConsecutiveFailures);
    }
    let rule = rules.failure_rate?;
    let totals = inner.ring.totals(rule.window, now);
    let enough = totals.requests() >= u64::from(rule.min_requests);
    (enough && totals.failed_at_least(rule.percent)).then_some(Why::FailureRate)
}

#[cfg(test)]
mod tests;
