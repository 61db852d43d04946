//! The breaker over long histories of calls that overlap, against a model that keeps everything.

use std::time::Duration;

use proptest::prelude::*;
use sluice_engine::breaker::{
    Cell, Outcome, Report, Rules, SlowRule, State, Ticket, Transition, Why, Window,
};
use sluice_engine::moment::Moment;

#[derive(Clone, Debug)]
enum Step {
    /// Asks, with this draw.
    Admit(u64),
    /// Ends the call at this position among those under way, with this draw.
    End(usize, Report, u64),
    Wait(u64),
    /// Holds it open or closed for so long.
    Force(bool, u64),
    Release,
}

fn report() -> impl Strategy<Value = Report> {
    let outcome = prop_oneof![
        4 => (0_u8..20).prop_map(Outcome::Failure),
        4 => Just(Outcome::Success),
        1 => Just(Outcome::Ignored),
    ];
    (outcome, 0_u64..2_000, any::<u128>()).prop_map(|(outcome, took, id)| Report {
        outcome,
        took: Duration::from_millis(took),
        id,
    })
}

fn steps(forced: u32) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        50 => any::<u64>().prop_map(Step::Admit),
        50 => (any::<usize>(), report(), any::<u64>()).prop_map(|(at, it, draw)| Step::End(at, it, draw)),
        10 => (0_u64..4_000).prop_map(Step::Wait),
        forced => (any::<bool>(), 0_u64..4_000).prop_map(|(open, long)| Step::Force(open, long)),
        forced => Just(Step::Release),
    ];
    proptest::collection::vec(step, 1..300)
}

fn rules() -> impl Strategy<Value = Rules> {
    let window = prop_oneof![
        (500_u64..20_000).prop_map(|long| Window::Time(Duration::from_millis(long))),
        (1_u32..30).prop_map(Window::Calls),
    ];
    let by = (proptest::option::of(0_u32..6), proptest::option::of(1_u8..=100));
    let slow = proptest::option::of((500_u64..2_000, 1_u8..=100));
    let times = (0_u64..5_000, 0_u64..20_000, 0_u64..3_000);
    let interval = proptest::option::of(0_u64..4_000);
    (by, slow, window, 0_u32..12, times, interval, 0_u32..4).prop_map(
        |((consecutive, rate), slow, window, min, (open_for, most, ramp), interval, trials)| {
            Rules {
                consecutive_failures: consecutive,
                interval: interval.map(Duration::from_millis),
                failure_rate: rate,
                slow_calls: slow.map(|(longer_than, percent)| SlowRule {
                    longer_than: Duration::from_millis(longer_than),
                    percent,
                }),
                min_requests: min,
                window,
                open_for: Duration::from_millis(open_for),
                max_open_for: Duration::from_millis(most),
                half_open_requests: trials,
                ramp: Duration::from_millis(ramp),
            }
        },
    )
}

/// A call under way, and the state in which it was let through.
struct Call {
    ticket: Ticket,
    drawn_in: usize,
}

/// What the documentation promises, kept in the plainest way.
#[derive(Default)]
struct Model {
    /// `None` is closed.
    state: Option<State>,
    /// Numbers the states entered.
    entered: usize,
    since: Moment,
    streak: u32,
    streak_began: Moment,
    passed: u32,
    /// Whether it has closed after trials, so that the ramp is on.
    tried: bool,
    /// How often in a row it has opened, and how long it is open now.
    turn: u32,
    open_for: Duration,
}

impl Model {
    fn state(&self) -> State {
        self.state.unwrap_or(State::Closed)
    }

    fn ramps(&self, rules: &Rules, now: Moment) -> bool {
        let closed = now.saturating_since(self.since);
        self.state() == State::Closed && self.tried && closed < rules.ramp
    }

    fn apply(
        &mut self,
        transition: Transition,
        rules: &Rules,
        now: Moment,
        draw: u64,
    ) -> Result<(), TestCaseError> {
        prop_assert_eq!(transition.from, self.state());
        prop_assert_ne!(transition.from, transition.to);
        if transition.to == State::Open {
            let longest = rules.max_open_for.max(rules.open_for);
            let well =
                transition.from == State::Closed && now.saturating_since(self.since) >= longest;
            self.turn = if well { 1 } else { self.turn + 1 };
            self.open_for = rules.open_time(self.turn, draw);
            prop_assert!(self.open_for <= longest * 6 / 5);
            let doubled = rules.open_for.saturating_mul(1 << (self.turn - 1).min(20));
            prop_assert!(self.open_for >= doubled.min(longest) * 4 / 5);
        }
        self.tried = transition.why == Why::TrialsPassed;
        self.state = Some(transition.to);
        self.entered += 1;
        self.since = now;
        self.streak = 0;
        self.passed = 0;
        Ok(())
    }

    fn under_way(&self, calls: &[Call]) -> u32 {
        let present = calls.iter().filter(|call| call.drawn_in == self.entered);
        u32::try_from(present.count()).unwrap()
    }
}

fn admit(
    cell: &Cell,
    rules: &Rules,
    now: Moment,
    model: &mut Model,
    (calls, draw): (&mut Vec<Call>, u64),
) -> Result<(), TestCaseError> {
    let trials = rules.half_open_requests.max(1);
    let would = cell.would_admit(rules, now, draw);
    match cell.admit(rules, now, draw) {
        Ok(admission) => {
            prop_assert!(would);
            if let Some(transition) = admission.transition {
                prop_assert_eq!(transition.why, Why::OpenTimeOver);
                prop_assert!(now.saturating_since(model.since) >= model.open_for);
                model.apply(transition, rules, now, draw)?;
            }
            prop_assert_ne!(model.state(), State::Open);
            calls.push(Call { ticket: admission.ticket, drawn_in: model.entered });
            if model.state() == State::HalfOpen {
                prop_assert!(model.under_way(calls) + model.passed <= trials);
            }
        }
        Err(refusal) => {
            prop_assert!(!would);
            match model.state() {
                State::Closed => prop_assert!(model.ramps(rules, now)),
                State::Open => {
                    let due = model.since.after(model.open_for);
                    prop_assert_eq!(now.after(refusal.retry_after), due);
                    prop_assert!(refusal.retry_after > Duration::ZERO);
                }
                State::HalfOpen => {
                    prop_assert_eq!(model.under_way(calls) + model.passed, trials);
                }
            }
        }
    }
    Ok(())
}

fn end(
    cell: &Cell,
    rules: &Rules,
    now: Moment,
    model: &mut Model,
    (call, report, draw): (Call, Report, u64),
) -> Result<(), TestCaseError> {
    let transition = cell.record(rules, now, call.ticket, &report, draw);
    if call.drawn_in != model.entered || report.outcome == Outcome::Ignored {
        prop_assert_eq!(transition, None, "late and ignored results change nothing");
        return Ok(());
    }
    let failed = matches!(report.outcome, Outcome::Failure(_));
    let slow = rules.slow_calls.is_some_and(|rule| report.took > rule.longer_than);
    match model.state() {
        State::HalfOpen if failed || slow => {
            let why = if failed { Why::TrialFailed } else { Why::TrialSlow };
            prop_assert_eq!(transition.map(|it| (it.to, it.why)), Some((State::Open, why)));
        }
        State::HalfOpen => {
            model.passed += 1;
            let enough = model.passed >= rules.half_open_requests.max(1);
            prop_assert_eq!(transition.is_some(), enough);
            prop_assert!(transition.is_none_or(|it| it.to == State::Closed));
        }
        _ if failed => {
            let old =
                rules.interval.is_some_and(|it| now.saturating_since(model.streak_began) > it);
            if model.streak == 0 || old {
                (model.streak, model.streak_began) = (0, now);
            }
            model.streak += 1;
            let limit = rules.consecutive_failures.map(|limit| limit.max(1));
            let due = limit.is_some_and(|limit| model.streak >= limit);
            prop_assert!(!due || transition.is_some());
            let by_streak = transition.is_some_and(|it| it.why == Why::ConsecutiveFailures);
            prop_assert_eq!(due, by_streak);
        }
        _ => {
            model.streak = 0;
            prop_assert!(slow || transition.is_none(), "a good success never opens");
        }
    }
    transition.map_or(Ok(()), |transition| model.apply(transition, rules, now, draw))
}

proptest! {
    #[test]
    fn histories_keep_the_promises(rules in rules(), steps in steps(0)) {
        let cell = Cell::default();
        let (mut now, mut calls, mut model) = (Moment::default(), Vec::new(), Model::default());
        for step in steps {
            match step {
                Step::Wait(millis) => now = now.after(Duration::from_millis(millis)),
                Step::Admit(draw) => admit(&cell, &rules, now, &mut model, (&mut calls, draw))?,
                Step::End(at, report, draw) if !calls.is_empty() => {
                    let call = calls.swap_remove(at % calls.len());
                    end(&cell, &rules, now, &mut model, (call, report, draw))?;
                }
                _ => {}
            }
            let view = cell.snapshot(&rules, now);
            prop_assert_eq!((view.state, view.since), (model.state(), model.since));
            prop_assert!((0.0..=1.0).contains(&view.window.failure_rate()));
            prop_assert!(view.window.failures <= view.window.calls);
            prop_assert_eq!(view.window.kinds.iter().sum::<u32>(), view.window.failures);
            prop_assert_eq!(view.share.is_some(), model.ramps(&rules, now));
            let entered = view.transitions.iter().flatten().sum::<u64>();
            prop_assert_eq!(entered, model.entered as u64);
        }
    }

    /// When all permits come back, an open breaker can always be closed by good trials, whatever was
    /// forced on it.
    #[test]
    fn a_breaker_never_sticks(rules in rules(), steps in steps(3)) {
        let cell = Cell::default();
        let (mut now, mut calls) = (Moment::default(), Vec::new());
        for step in steps {
            match step {
                Step::Wait(millis) => now = now.after(Duration::from_millis(millis)),
                Step::Admit(draw) => {
                    calls.extend(cell.admit(&rules, now, draw).map(|it| it.ticket));
                }
                Step::End(at, report, draw) if !calls.is_empty() => {
                    let ticket = calls.swap_remove(at % calls.len());
                    cell.record(&rules, now, ticket, &report, draw);
                }
                Step::End(..) => {}
                Step::Force(open, long) => {
                    let until = now.after(Duration::from_millis(long));
                    let transition = cell.force(open, until, now);
                    let want = if open { State::Open } else { State::Closed };
                    prop_assert_eq!(transition.to, want);
                    prop_assert_eq!(cell.admit(&rules, now, 0).is_ok(), !open || long == 0);
                }
                Step::Release => {
                    cell.release(now);
                    prop_assert_eq!(cell.snapshot(&rules, now).held_until, None);
                }
            }
        }
        let ignored = Report { outcome: Outcome::Ignored, took: Duration::ZERO, id: 0 };
        for ticket in calls {
            cell.record(&rules, now, ticket, &ignored, 0);
        }
        cell.release(now);
        now = now.after(rules.max_open_for.max(rules.open_for) * 6 / 5);
        let good = Report { outcome: Outcome::Success, ..ignored };
        for _ in 0..rules.half_open_requests.max(1) {
            let admission = cell.admit(&rules, now, 0).unwrap();
            cell.record(&rules, now, admission.ticket, &good, 0);
        }
        prop_assert_eq!(cell.snapshot(&rules, now).state, State::Closed);
    }
}
