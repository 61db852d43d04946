//! The breaker on invented time. Properties over long histories live in `tests/props.rs`.

use super::*;

const OPEN_FOR: Duration = Duration::from_secs(5);

fn streak_rules() -> Rules {
    Rules {
        consecutive_failures: Some(3),
        failure_rate: None,
        open_for: OPEN_FOR,
        half_open_requests: 2,
    }
}

fn rate_rules() -> Rules {
    Rules {
        consecutive_failures: None,
        failure_rate: Some(RateRule {
            percent: 50,
            min_requests: 4,
            window: Duration::from_secs(10),
        }),
        ..streak_rules()
    }
}

fn at(seconds: u64) -> Moment {
    Moment::from_nanos(seconds * 1_000_000_000)
}

fn call(cell: &Cell, rules: &Rules, now: Moment, outcome: Outcome) -> Option<Transition> {
    let admission = cell.admit(rules, now).expect("the breaker should admit");
    cell.record(rules, now, admission.ticket, outcome)
}

fn opened(rules: &Rules) -> Cell {
    let cell = Cell::default();
    while call(&cell, rules, at(0), Outcome::Failure).is_none() {}
    cell
}

#[test]
fn a_streak_opens_and_a_success_ends_it() {
    let (cell, rules) = (Cell::default(), streak_rules());
    for outcome in [Outcome::Failure, Outcome::Failure, Outcome::Success, Outcome::Ignored] {
        assert_eq!(call(&cell, &rules, at(0), outcome), None);
    }
    assert_eq!(call(&cell, &rules, at(0), Outcome::Failure), None);
    assert_eq!(call(&cell, &rules, at(0), Outcome::Failure), None);
    let opened = call(&cell, &rules, at(1), Outcome::Failure);
    let why = Why::ConsecutiveFailures;
    assert_eq!(opened, Some(Transition { from: State::Closed, to: State::Open, why }));
    assert_eq!(
        cell.admit(&rules, at(2)).unwrap_err(),
        Refusal { retry_after: Duration::from_secs(4) }
    );
    assert_eq!(cell.snapshot(&rules, at(2)).since, at(1));
}

#[test]
fn a_rate_opens_only_with_enough_calls() {
    let (cell, rules) = (Cell::default(), rate_rules());
    assert_eq!(call(&cell, &rules, at(0), Outcome::Failure), None);
    assert_eq!(call(&cell, &rules, at(0), Outcome::Failure), None);
    assert_eq!(call(&cell, &rules, at(0), Outcome::Success), None);
    let view = cell.snapshot(&rules, at(0));
    assert_eq!((view.state, view.requests), (State::Closed, 3));
    assert!((view.failure_rate - 2.0 / 3.0).abs() < 1e-9);
    let opened = call(&cell, &rules, at(0), Outcome::Failure).unwrap();
    assert_eq!((opened.to, opened.why), (State::Open, Why::FailureRate));
}

#[test]
fn old_failures_are_forgotten() {
    let (cell, rules) = (Cell::default(), rate_rules());
    for _ in 0..3 {
        assert_eq!(call(&cell, &rules, at(0), Outcome::Failure), None);
    }
    for _ in 0..3 {
        assert_eq!(call(&cell, &rules, at(20), Outcome::Success), None);
    }
    assert_eq!(call(&cell, &rules, at(20), Outcome::Failure), None);
}

#[test]
fn failures_from_before_opening_are_not_held_against_a_closed_breaker() {
    let rules = rate_rules();
    let cell = opened(&rules);
    let rules = Rules { half_open_requests: 1, ..rules };
    assert_eq!(call(&cell, &rules, at(5), Outcome::Success).unwrap().to, State::Closed);
    assert_eq!(cell.snapshot(&rules, at(5)).requests, 0);
    assert_eq!(call(&cell, &rules, at(5), Outcome::Failure), None);
}

#[test]
fn exactly_the_asked_number_of_trials_run_and_all_must_pass() {
    let rules = streak_rules();
    let cell = opened(&rules);
    let first = cell.admit(&rules, at(5)).unwrap();
    assert_eq!(first.transition.unwrap().to, State::HalfOpen);
    let second = cell.admit(&rules, at(5)).unwrap();
    assert_eq!(second.transition, None);
    assert_eq!(cell.admit(&rules, at(5)).unwrap_err().retry_after, OPEN_FOR);
    assert_eq!(cell.record(&rules, at(6), first.ticket, Outcome::Success), None);
    assert!(cell.admit(&rules, at(6)).is_err(), "one trial passed and one is under way");
    let closed = cell.record(&rules, at(6), second.ticket, Outcome::Success).unwrap();
    assert_eq!(
        (closed.from, closed.to, closed.why),
        (State::HalfOpen, State::Closed, Why::TrialsPassed)
    );
}

#[test]
fn one_failed_trial_opens_again_for_the_whole_time() {
    let rules = streak_rules();
    let cell = opened(&rules);
    let failing = cell.admit(&rules, at(5)).unwrap();
    let late = cell.admit(&rules, at(5)).unwrap();
    let opened = cell.record(&rules, at(7), failing.ticket, Outcome::Failure).unwrap();
    assert_eq!((opened.to, opened.why), (State::Open, Why::TrialFailed));
    assert_eq!(cell.admit(&rules, at(8)).unwrap_err().retry_after, Duration::from_secs(4));
    assert_eq!(cell.record(&rules, at(8), late.ticket, Outcome::Success), None);
    assert_eq!(cell.snapshot(&rules, at(8)).state, State::Open);
}

#[test]
fn an_ignored_trial_gives_its_permit_back() {
    let rules = Rules { half_open_requests: 0, ..streak_rules() };
    let cell = opened(&rules);
    let trial = cell.admit(&rules, at(5)).unwrap();
    assert!(cell.admit(&rules, at(5)).is_err());
    assert_eq!(cell.record(&rules, at(5), trial.ticket, Outcome::Ignored), None);
    assert_eq!(call(&cell, &rules, at(5), Outcome::Success).unwrap().to, State::Closed);
}

#[test]
fn late_results_of_a_former_epoch_change_nothing() {
    let rules = streak_rules();
    let cell = Cell::default();
    let late: Vec<_> = (0..4).map(|_| cell.admit(&rules, at(0)).unwrap().ticket).collect();
    while call(&cell, &rules, at(0), Outcome::Failure).is_none() {}
    assert!(call(&cell, &rules, at(5), Outcome::Success).is_none());
    for ticket in late {
        assert_eq!(cell.record(&rules, at(6), ticket, Outcome::Failure), None);
    }
    assert_eq!(cell.snapshot(&rules, at(6)).state, State::HalfOpen);
    assert_eq!(call(&cell, &rules, at(6), Outcome::Success).unwrap().to, State::Closed);
}

#[test]
fn new_rules_apply_to_old_observations() {
    let rules = streak_rules();
    let cell = opened(&rules);
    let shorter = Rules { open_for: Duration::from_secs(1), ..rules };
    assert!(cell.admit(&rules, at(2)).is_err());
    assert!(call(&cell, &shorter, at(2), Outcome::Success).is_none());
    let one = Rules { half_open_requests: 1, ..rules };
    let admission = cell.admit(&one, at(2)).unwrap();
    assert_eq!(admission.transition.unwrap().why, Why::TrialsPassed);
    assert_eq!(cell.record(&one, at(2), admission.ticket, Outcome::Success), None);
}

#[test]
fn without_rules_nothing_opens() {
    let rules = Rules { consecutive_failures: None, ..streak_rules() };
    let cell = Cell::default();
    for _ in 0..1_000 {
        assert_eq!(call(&cell, &rules, at(0), Outcome::Failure), None);
    }
    assert_eq!(State::HalfOpen.as_str(), "half_open");
}

#[test]
fn threads_never_hold_more_trials_than_asked() {
    let rules = streak_rules();
    let cell = opened(&rules);
    let admitted: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let tickets = (0..100).filter_map(|_| cell.admit(&rules, at(5)).ok());
                    tickets.collect::<Vec<_>>().len()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(admitted, 2);
}
