//! The breaker over long histories of calls that overlap, against a model that keeps everything.

use std::time::Duration;

use proptest::prelude::*;
use sluice_engine::breaker::{Cell, Outcome, RateRule, Rules, State, Ticket, Transition, Why};
use sluice_engine::moment::Moment;

#[derive(Clone, Debug)]
enum Step {
    Admit,
    /// Ends the call at this position among those under way.
    End(usize, Outcome),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let outcome = prop_oneof![
        4 => Just(Outcome::Failure),
        4 => Just(Outcome::Success),
        1 => Just(Outcome::Ignored),
    ];
    let step = prop_oneof![
        5 => Just(Step::Admit),
        5 => (any::<usize>(), outcome).prop_map(|(at, outcome)| Step::End(at, outcome)),
        1 => (0_u64..4_000).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 1..300)
}

fn rules() -> impl Strategy<Value = Rules> {
    let rate = (1_u8..=100, 0_u32..12, 500_u64..20_000).prop_map(|(percent, min, window)| {
        RateRule { percent, min_requests: min, window: Duration::from_millis(window) }
    });
    let consecutive = proptest::option::of(0_u32..6);
    (consecutive, proptest::option::of(rate), 0_u64..5_000, 0_u32..4).prop_map(
        |(consecutive_failures, failure_rate, open_for, half_open_requests)| Rules {
            consecutive_failures,
            failure_rate,
            open_for: Duration::from_millis(open_for),
            half_open_requests,
        },
    )
}

/// A call under way, and the state in which it was let through.
struct Call {
    ticket: Ticket,
    drawn_in: usize,
}

/// What the documentation promises, kept in the plainest way.
struct Model {
    state: State,
    /// Numbers the states entered.
    entered: usize,
    since: Moment,
    streak: u32,
    passed: u32,
}

impl Model {
    fn apply(&mut self, transition: Transition, now: Moment) -> Result<(), TestCaseError> {
        prop_assert_eq!(transition.from, self.state);
        prop_assert_ne!(transition.from, transition.to);
        self.state = transition.to;
        self.entered += 1;
        self.since = now;
        self.streak = 0;
        self.passed = 0;
        Ok(())
    }
}

fn admit(
    cell: &Cell,
    rules: &Rules,
    now: Moment,
    model: &mut Model,
    calls: &mut Vec<Call>,
) -> Result<(), TestCaseError> {
    let trials = rules.half_open_requests.max(1);
    let under_way = |calls: &[Call], entered| {
        u32::try_from(calls.iter().filter(|call| call.drawn_in == entered).count()).unwrap()
    };
    match cell.admit(rules, now) {
        Ok(admission) => {
            if let Some(transition) = admission.transition {
                prop_assert_eq!(transition.why, Why::OpenTimeOver);
                prop_assert!(now.saturating_since(model.since) >= rules.open_for);
                model.apply(transition, now)?;
            }
            prop_assert_ne!(model.state, State::Open);
            calls.push(Call { ticket: admission.ticket, drawn_in: model.entered });
            if model.state == State::HalfOpen {
                prop_assert!(under_way(calls, model.entered) + model.passed <= trials);
            }
        }
        Err(refusal) => {
            prop_assert_ne!(model.state, State::Closed);
            if model.state == State::Open {
                let due = model.since.after(rules.open_for);
                prop_assert_eq!(now.after(refusal.retry_after), due);
                prop_assert!(refusal.retry_after > Duration::ZERO);
            } else {
                prop_assert_eq!(under_way(calls, model.entered) + model.passed, trials);
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
    (call, outcome): (Call, Outcome),
) -> Result<(), TestCaseError> {
    let transition = cell.record(rules, now, call.ticket, outcome);
    if call.drawn_in != model.entered || outcome == Outcome::Ignored {
        prop_assert_eq!(transition, None, "late and ignored results change nothing");
        return Ok(());
    }
    match (model.state, outcome) {
        (State::HalfOpen, Outcome::Failure) => {
            prop_assert_eq!(
                transition.map(|it| (it.to, it.why)),
                Some((State::Open, Why::TrialFailed))
            );
        }
        (State::HalfOpen, _) => {
            model.passed += 1;
            let enough = model.passed >= rules.half_open_requests.max(1);
            prop_assert_eq!(transition.is_some(), enough);
            prop_assert!(transition.is_none_or(|it| it.to == State::Closed));
        }
        (_, Outcome::Failure) => {
            model.streak += 1;
            let limit = rules.consecutive_failures.map(|limit| limit.max(1));
            let due = limit.is_some_and(|limit| model.streak >= limit);
            prop_assert!(!due || transition.is_some());
            let by_rate = transition.is_some_and(|it| it.why == Why::FailureRate);
            prop_assert!(due || transition.is_none() || by_rate);
        }
        _ => {
            model.streak = 0;
            prop_assert_eq!(transition, None, "a success never opens");
        }
    }
    transition.map_or(Ok(()), |transition| model.apply(transition, now))
}

proptest! {
    #[test]
    fn histories_keep_the_promises(rules in rules(), steps in steps()) {
        let cell = Cell::default();
        let mut now = Moment::default();
        let mut calls = Vec::new();
        let mut model =
            Model { state: State::Closed, entered: 0, since: now, streak: 0, passed: 0 };
        for step in steps {
            match step {
                Step::Wait(millis) => now = now.after(Duration::from_millis(millis)),
                Step::Admit => admit(&cell, &rules, now, &mut model, &mut calls)?,
                Step::End(at, outcome) if !calls.is_empty() => {
                    let call = calls.swap_remove(at % calls.len());
                    end(&cell, &rules, now, &mut model, (call, outcome))?;
                }
                Step::End(..) => {}
            }
            let view = cell.snapshot(&rules, now);
            prop_assert_eq!((view.state, view.since), (model.state, model.since));
            prop_assert!((0.0..=1.0).contains(&view.failure_rate));
        }
    }

    /// When all permits come back, an open breaker can always be closed by good trials.
    #[test]
    fn a_breaker_never_sticks(rules in rules(), steps in steps()) {
        let cell = Cell::default();
        let mut now = Moment::default();
        let mut calls = Vec::new();
        for step in steps {
            match step {
                Step::Wait(millis) => now = now.after(Duration::from_millis(millis)),
                Step::Admit => calls.extend(cell.admit(&rules, now).map(|it| it.ticket)),
                Step::End(at, outcome) if !calls.is_empty() => {
                    let ticket = calls.swap_remove(at % calls.len());
                    cell.record(&rules, now, ticket, outcome);
                }
                Step::End(..) => {}
            }
        }
        for ticket in calls {
            cell.record(&rules, now, ticket, Outcome::Ignored);
        }
        now = now.after(rules.open_for);
        for _ in 0..rules.half_open_requests.max(1) {
            let admission = cell.admit(&rules, now).unwrap();
            cell.record(&rules, now, admission.ticket, Outcome::Success);
        }
        prop_assert_eq!(cell.snapshot(&rules, now).state, State::Closed);
    }
}
