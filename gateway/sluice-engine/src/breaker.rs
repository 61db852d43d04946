//! A circuit breaker: closed lets calls through, open refuses them, half-open lets a few try.
//!
//! What counts as a failure, and telling the world about transitions, is left to the caller. The one
//! rule: every [`Ticket`] comes back through [`Cell::record`], as `Ignored` when the call was given
//! up, because a trial's permit is free again only then.
//!
//! Each state is an epoch of its own, and a ticket carries the epoch it was drawn in. A result that
//! arrives in a later epoch says nothing about the present and changes nothing.

mod counts;
mod history;
mod ring;
mod rules;
mod state;
mod totals;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::moment::Moment;

pub use counts::{MAX_CALLS, Window};
pub use history::{ENTRIES, Entry, SAMPLES, Sample, Samples};
pub use rules::{Rules, SlowRule};
pub use state::{State, Transition, Why};
pub use totals::{KINDS, Totals};

use counts::Counts;
use history::History;
use rules::falls_into;
use state::{BITS, Stage};
use totals::{Seen, is_share};

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It went well.
    Success,
    /// It went wrong in a way the called side is to blame for, of this kind (below [`KINDS`]).
    Failure(u8),
    /// It says nothing, for instance because the client went away. Gives a trial's permit back.
    Ignored,
}

/// What is known of a call when it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
    /// What the caller knows it by, to be found again if it failed; 0 for nothing.
    pub id: u128,
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
    /// `open_for`, the least wait that follows if they fail; after closing, a tenth of the ramp.
    pub retry_after: Duration,
}

/// A breaker's standing, for gauges and listings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct View {
    /// The state; an open breaker turns half-open with the next call, not by itself.
    pub state: State,
    /// When the state was entered.
    pub since: Moment,
    /// What the window holds; without a rate rule, the failures in a row.
    pub window: Totals,
    /// Failures since the last success.
    pub streak: u32,
    /// When the next trial is due, while open.
    pub due: Option<Moment>,
    /// Until when it is held in its state, if somebody forced it.
    pub held_until: Option<Moment>,
    /// The share of calls let through after closing, while that is not all of them.
    pub share: Option<f64>,
    /// Calls it ever refused.
    pub refused: u64,
    /// How often the state ever changed, by the positions in [`Why::ALL`] and [`State::ALL`].
    pub transitions: Transitions,
}

/// Counts of transitions by reason and by the state they led to.
pub type Transitions = [[u64; State::ALL.len()]; Why::ALL.len()];

/// One breaker's observations. Outlives the rules, which come with each call.
#[derive(Debug, Default)]
pub struct Cell {
    /// The epoch and the stage, written under the lock and read without it, so that a closed breaker
    /// admits without locking.
    gate: AtomicU64,
    /// Failures since the last success while closed; written under the lock.
    streak: AtomicU32,
    refused: AtomicU64,
    /// Held for a few lines and never while waiting.
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    since: Moment,
    /// The first failure of the streak.
    streak_began: Moment,
    /// The calls to judge by; there is none before the first one that counts.
    counts: Option<Counts>,
    samples: Samples,
    /// Permits of the present half-open epoch that are out.
    trials: u32,
    /// Trials of the present half-open epoch that succeeded.
    passed: u32,
    /// How often in a row it has opened, and chance's part in how long it stays so.
    turn: u32,
    draw: u64,
    held_until: Moment,
    history: History,
    transitions: Transitions,
}

impl Cell {
    /// Asks to make one call at `now`. May turn an open breaker half-open. `draw` is 64 random bits, which
    /// decide while only a share of the calls is let through.
    ///
    /// # Errors
    /// A [`Refusal`] while open, while half-open with all trials under way, and to those calls that have
    /// to wait after closing.
    pub fn admit(&self, rules: &Rules, now: Moment, draw: u64) -> Result<Admission, Refusal> {
        let gate = self.gate.load(Ordering::Acquire);
        if Stage::of(gate) == Stage::Closed {
            return Ok(Admission { ticket: Ticket { epoch: gate >> BITS }, transition: None });
        }
        let mut inner = self.lock();
        let mut transition = self.settle(&mut inner, rules, now);
        let refused = match self.stage() {
            Stage::Closed | Stage::HeldClosed => None,
            Stage::Open => Some(inner.due(rules).saturating_since(now)),
            Stage::HeldOpen => Some(inner.held_until.saturating_since(now)),
            Stage::Ramping => match rules.share(now.saturating_since(inner.since)) {
                Some(share) if !falls_into(draw, share) => Some(rules.ramp / 10),
                _ => None,
            },
            Stage::HalfOpen if inner.passed >= rules.trials() => {
                // Only after a reload that asks for fewer trials than had passed already.
                transition = Some(self.close(&mut inner, rules, now));
                None
            }
            Stage::HalfOpen if inner.trials.saturating_add(inner.passed) < rules.trials() => {
                inner.trials += 1;
                None
            }
            Stage::HalfOpen => Some(rules.open_for),
        };
        match refused {
            None => Ok(Admission { ticket: Ticket { epoch: self.epoch() }, transition }),
            Some(retry_after) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                Err(Refusal { retry_after })
            }
        }
    }

    /// Whether [`Cell::admit`] would let a call through, to choose among several breakers by.
    #[must_use]
    pub fn would_admit(&self, rules: &Rules, now: Moment, draw: u64) -> bool {
        if self.stage() == Stage::Closed {
            return true;
        }
        let inner = self.lock();
        match self.stage() {
            Stage::Closed | Stage::HeldClosed => true,
            Stage::Open => now >= inner.due(rules),
            Stage::HeldOpen => now >= inner.held_until,
            Stage::HalfOpen => inner.trials.saturating_add(inner.passed) < rules.trials(),
            Stage::Ramping => rules
                .share(now.saturating_since(inner.since))
                .is_none_or(|share| falls_into(draw, share)),
        }
    }

    /// Hands a ticket back with what is known of its call. `draw` is 64 random bits, which count when the
    /// breaker opens.
    #[expect(clippy::needless_pass_by_value, reason = "a ticket is good for one answer only")]
    pub fn record(
        &self,
        rules: &Rules,
        now: Moment,
        ticket: Ticket,
        report: &Report,
        draw: u64,
    ) -> Option<Transition> {
        if self.says_nothing_new(rules, &ticket, report.outcome) {
            return None;
        }
        let mut inner = self.lock();
        if ticket.epoch != self.epoch() {
            return None;
        }
        // Counts only if this opens it.
        inner.draw = draw;
        match self.stage() {
            Stage::HalfOpen => self.record_trial(&mut inner, rules, now, report),
            _ => self.record_closed(&mut inner, rules, now, report),
        }
    }

    /// Holds it open or closed until `until`, whatever is observed meanwhile.
    pub fn force(&self, open: bool, until: Moment, now: Moment) -> Transition {
        let mut inner = self.lock();
        inner.held_until = until;
        let stage = if open { Stage::HeldOpen } else { Stage::HeldClosed };
        self.enter(&mut inner, stage, Why::Forced, Totals::default(), now)
    }

    /// Ends what [`Cell::force`] began; `None` if nobody holds it.
    pub fn release(&self, now: Moment) -> Option<Transition> {
        let mut inner = self.lock();
        let stage = self.stage();
        stage.is_held().then(|| {
            let totals = Totals::default();
            self.enter(&mut inner, stage.let_go(), Why::Released, totals, now)
        })
    }

    /// How the breaker stands at `now`.
    #[must_use]
    pub fn snapshot(&self, rules: &Rules, now: Moment) -> View {
        let inner = self.lock();
        let mut stage = self.stage();
        if stage.is_held() && now >= inner.held_until {
            stage = stage.let_go();
        }
        let share = match stage {
            Stage::Ramping => rules.share(now.saturating_since(inner.since)),
            _ => None,
        };
        View {
            state: stage.state(),
            since: inner.since,
            window: inner.totals(rules, now),
            streak: self.streak.load(Ordering::Relaxed),
            due: (stage == Stage::Open).then(|| inner.due(rules)),
            held_until: stage.is_held().then_some(inner.held_until),
            share: share.map(|share| share as f64 / (1_u64 << 32) as f64),
            refused: self.refused.load(Ordering::Relaxed),
            transitions: inner.transitions,
        }
    }

    /// The last [`ENTRIES`] transitions, the oldest first.
    #[must_use]
    pub fn history(&self) -> Vec<Entry> {
        self.lock().history.to_vec()
    }

    /// The last transition, with what caused it.
    #[must_use]
    pub fn last_entry(&self) -> Option<Entry> {
        self.lock().history.last().copied()
    }

    /// The common case, told apart without the lock: a success where no rate is kept and no streak
    /// of failures is to be ended.
    fn says_nothing_new(&self, rules: &Rules, ticket: &Ticket, outcome: Outcome) -> bool {
        let gate = self.gate.load(Ordering::Acquire);
        let present = ticket.epoch == gate >> BITS;
        let closed = Stage::of(gate).state() == State::Closed;
        match outcome {
            _ if !present => true,
            Outcome::Ignored => closed,
            Outcome::Success => {
                closed && !rules.rates() && self.streak.load(Ordering::Acquire) == 0
            }
            Outcome::Failure(_) => false,
        }
    }

    /// What time alone changes.
    fn settle(&self, inner: &mut Inner, rules: &Rules, now: Moment) -> Option<Transition> {
        let stage = self.stage();
        let (next, why) = match stage {
            Stage::Open if now >= inner.due(rules) => (Stage::HalfOpen, Why::OpenTimeOver),
            held if held.is_held() && now >= inner.held_until => (held.let_go(), Why::ForceOver),
            Stage::Ramping if rules.share(now.saturating_since(inner.since)).is_none() => {
                // The same epoch: what was counted since it closed goes on counting.
                self.gate.store(Stage::Closed.gate(self.epoch()), Ordering::Release);
                return None;
            }
            _ => return None,
        };
        Some(self.enter(inner, next, why, Totals::default(), now))
    }

    fn record_closed(
        &self,
        inner: &mut Inner,
        rules: &Rules,
        now: Moment,
        report: &Report,
    ) -> Option<Transition> {
        let seen = seen(rules, report)?;
        let streak = self.count_streak(inner, rules, now, seen);
        if !rules.rates() && streak <= 1 {
            // Nobody counts what lies between: the calls to judge by are those of the streak.
            inner.forget();
            seen.failure?;
        }
        inner.note(rules, now, seen, report.id);
        if self.stage() == Stage::HeldClosed || (seen.failure.is_none() && !seen.slow) {
            return None;
        }
        let totals = inner.totals(rules, now);
        let why = reason_to_open(rules, streak, &totals)?;
        Some(self.open(inner, rules, why, totals, now))
    }

    fn count_streak(&self, inner: &mut Inner, rules: &Rules, now: Moment, seen: Seen) -> u32 {
        let before = self.streak.load(Ordering::Relaxed);
        let over = rules
            .interval
            .is_some_and(|interval| now.saturating_since(inner.streak_began) > interval);
        let streak = match (seen.failure, before) {
            (None, _) => 0,
            (Some(_), 1..) if !over => before.saturating_add(1),
            (Some(_), _) => {
                inner.streak_began = now;
                1
            }
        };
        self.streak.store(streak, Ordering::Release);
        streak
    }

    fn record_trial(
        &self,
        inner: &mut Inner,
        rules: &Rules,
        now: Moment,
        report: &Report,
    ) -> Option<Transition> {
        inner.trials = inner.trials.saturating_sub(1);
        let seen = seen(rules, report)?;
        inner.note(rules, now, seen, report.id);
        let why = match seen {
            Seen { failure: Some(_), .. } => Why::TrialFailed,
            Seen { slow: true, .. } => Why::TrialSlow,
            _ => {
                inner.passed = inner.passed.saturating_add(1);
                let enough = inner.passed >= rules.trials();
                return enough.then(|| self.close(inner, rules, now));
            }
        };
        let totals = inner.totals(rules, now);
        Some(self.open(inner, rules, why, totals, now))
    }

    fn open(
        &self,
        inner: &mut Inner,
        rules: &Rules,
        why: Why,
        totals: Totals,
        now: Moment,
    ) -> Transition {
        let well =
            self.stage() != Stage::HalfOpen && now.saturating_since(inner.since) >= rules.longest();
        inner.turn = if well { 1 } else { inner.turn.saturating_add(1) };
        let transition = self.enter(inner, Stage::Open, why, totals, now);
        inner.history.opened_for(rules.open_time(inner.turn, inner.draw));
        transition
    }

    fn close(&self, inner: &mut Inner, rules: &Rules, now: Moment) -> Transition {
        let totals = inner.totals(rules, now);
        let stage = if rules.ramp.is_zero() { Stage::Closed } else { Stage::Ramping };
        self.enter(inner, stage, Why::TrialsPassed, totals, now)
    }

    /// Begins a new epoch. Whatever was counted before belongs to the former one.
    fn enter(
        &self,
        inner: &mut Inner,
        stage: Stage,
        why: Why,
        window: Totals,
        now: Moment,
    ) -> Transition {
        let gate = self.gate.load(Ordering::Relaxed);
        let (from, to) = (Stage::of(gate).state(), stage.state());
        let (samples, streak) = (inner.samples, self.streak.swap(0, Ordering::AcqRel));
        let entry = Entry { at: now, from, to, why, window, streak, samples, open_for: None };
        inner.history.add(entry);
        let counts = inner.transitions.get_mut(why as usize);
        if let Some(count) = counts.and_then(|counts| counts.get_mut(to as usize)) {
            *count = count.saturating_add(1);
        }
        inner.since = now;
        inner.forget();
        (inner.trials, inner.passed) = (0, 0);
        self.gate.store(stage.gate((gate >> BITS).wrapping_add(1)), Ordering::Release);
        Transition { from, to, why }
    }

    fn stage(&self) -> Stage {
        Stage::of(self.gate.load(Ordering::Acquire))
    }

    fn epoch(&self) -> u64 {
        self.gate.load(Ordering::Acquire) >> BITS
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each holder leaves the fields consistent, so a panic elsewhere does not spoil them.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// When the next trial is due.
    fn due(&self, rules: &Rules) -> Moment {
        self.since.after(rules.open_time(self.turn, self.draw))
    }

    fn forget(&mut self) {
        self.samples = Samples::default();
        if let Some(counts) = &mut self.counts {
            counts.clear();
        }
    }

    fn note(&mut self, rules: &Rules, now: Moment, seen: Seen, id: u128) {
        if !self.counts.as_ref().is_some_and(|counts| counts.fit(rules.window)) {
            self.counts = Some(Counts::new(rules.window));
        }
        if let Some(counts) = &mut self.counts {
            counts.record(rules.window, now, seen);
        }
        if seen.failure.is_some() || seen.slow {
            self.samples.keep(Sample { id, kind: seen.failure });
        }
    }

    fn totals(&self, rules: &Rules, now: Moment) -> Totals {
        let counts = self.counts.as_ref().filter(|counts| counts.fit(rules.window));
        counts.map(|counts| counts.totals(rules.window, now)).unwrap_or_default()
    }
}

fn seen(rules: &Rules, report: &Report) -> Option<Seen> {
    let failure = match report.outcome {
        Outcome::Ignored => return None,
        Outcome::Success => None,
        Outcome::Failure(kind) => Some(kind),
    };
    Some(Seen { failure, slow: rules.is_slow(report.took) })
}

fn reason_to_open(rules: &Rules, streak: u32, totals: &Totals) -> Option<Why> {
    if rules.consecutive_failures.is_some_and(|limit| streak >= limit.max(1)) {
        return Some(Why::ConsecutiveFailures);
    }
    if totals.calls < rules.min_requests {
        return None;
    }
    if rules.failure_rate.is_some_and(|rate| is_share(totals.failures, totals.calls, rate)) {
        return Some(Why::FailureRate);
    }
    let slow = rules.slow_calls.is_some_and(|it| is_share(totals.slow, totals.calls, it.percent));
    slow.then_some(Why::SlowCalls)
}

#[cfg(test)]
mod tests;
