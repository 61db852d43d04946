//! The breaker on invented time. Properties over long histories live in `tests/props.rs`, the settings
//! that others publish in `published`.

mod published;

use super::*;

const OPEN_FOR: Duration = Duration::from_secs(5);
/// Chance that makes no time longer or shorter, and lets half of the calls of a ramp through.
const MIDDLE: u64 = 1 << 63;

fn streak_rules() -> Rules {
    Rules {
        consecutive_failures: Some(3),
        interval: None,
        failure_rate: None,
        slow_calls: None,
        min_requests: 1,
        window: Window::Time(Duration::from_secs(10)),
        open_for: OPEN_FOR,
        max_open_for: Duration::from_secs(60),
        half_open_requests: 2,
        ramp: Duration::ZERO,
    }
}

fn rate_rules() -> Rules {
    Rules { consecutive_failures: None, failure_rate: Some(50), min_requests: 4, ..streak_rules() }
}

fn at(seconds: u64) -> Moment {
    Moment::from_nanos(seconds * 1_000_000_000)
}

const GOOD: Report = Report { outcome: Outcome::Success, took: Duration::ZERO, id: 1 };
const BAD: Report = Report { outcome: Outcome::Failure(3), took: Duration::ZERO, id: 2 };
const GIVEN_UP: Report = Report { outcome: Outcome::Ignored, took: Duration::ZERO, id: 3 };

fn admit(cell: &Cell, rules: &Rules, now: Moment) -> Result<Admission, Refusal> {
    cell.admit(rules, now, MIDDLE)
}

fn end(
    cell: &Cell,
    rules: &Rules,
    now: Moment,
    ticket: Ticket,
    report: Report,
) -> Option<Transition> {
    cell.record(rules, now, ticket, &report, MIDDLE)
}

fn call(cell: &Cell, rules: &Rules, now: Moment, report: Report) -> Option<Transition> {
    let admission = admit(cell, rules, now).expect("the breaker should admit");
    end(cell, rules, now, admission.ticket, report)
}

fn opened(rules: &Rules) -> Cell {
    let cell = Cell::default();
    while call(&cell, rules, at(0), BAD).is_none() {}
    cell
}

/// Fails a trial, or the calls it takes to open, at `now`; says for how long it then refuses.
fn fail(cell: &Cell, rules: &Rules, now: Moment) -> Duration {
    while call(cell, rules, now, BAD).is_none() {}
    admit(cell, rules, now).unwrap_err().retry_after
}

#[test]
fn a_streak_opens_and_a_success_ends_it() {
    let (cell, rules) = (Cell::default(), streak_rules());
    for report in [BAD, BAD, GOOD, GIVEN_UP, BAD, BAD] {
        assert_eq!(call(&cell, &rules, at(0), report), None);
    }
    let opened = call(&cell, &rules, at(1), BAD);
    let why = Why::ConsecutiveFailures;
    assert_eq!(opened, Some(Transition { from: State::Closed, to: State::Open, why }));
    let refusal = Refusal { retry_after: Duration::from_secs(4) };
    assert_eq!(admit(&cell, &rules, at(2)).unwrap_err(), refusal);
    let view = cell.snapshot(&rules, at(2));
    assert_eq!((view.since, view.due, view.refused), (at(1), Some(at(6)), 1));
}

#[test]
fn a_streak_that_takes_too_long_begins_anew() {
    let rules = Rules { interval: Some(Duration::from_secs(10)), ..streak_rules() };
    let cell = Cell::default();
    for second in [0, 6, 12, 13] {
        assert_eq!(call(&cell, &rules, at(second), BAD), None, "{second}");
    }
    assert_eq!(call(&cell, &rules, at(22), BAD).unwrap().why, Why::ConsecutiveFailures);
}

#[test]
fn a_rate_opens_only_with_enough_calls() {
    let (cell, rules) = (Cell::default(), rate_rules());
    for report in [BAD, BAD, GOOD] {
        assert_eq!(call(&cell, &rules, at(0), report), None);
    }
    let view = cell.snapshot(&rules, at(0));
    assert_eq!((view.state, view.window.calls), (State::Closed, 3));
    assert!((view.window.failure_rate() - 2.0 / 3.0).abs() < 1e-9);
    let opened = call(&cell, &rules, at(0), BAD).unwrap();
    assert_eq!((opened.to, opened.why), (State::Open, Why::FailureRate));
}

#[test]
fn old_failures_are_forgotten() {
    let (cell, rules) = (Cell::default(), rate_rules());
    for _ in 0..3 {
        assert_eq!(call(&cell, &rules, at(0), BAD), None);
    }
    for _ in 0..3 {
        assert_eq!(call(&cell, &rules, at(20), GOOD), None);
    }
    assert_eq!(call(&cell, &rules, at(20), BAD), None);
}

#[test]
fn a_window_of_calls_forgets_none_by_time() {
    let rules = Rules { window: Window::Calls(4), ..rate_rules() };
    let cell = Cell::default();
    for (second, report) in [(0, BAD), (1000, GOOD), (2000, GOOD), (3000, GOOD), (4000, GOOD)] {
        assert_eq!(call(&cell, &rules, at(second), report), None);
    }
    assert_eq!(
        call(&cell, &rules, at(5000), BAD),
        None,
        "the first failure is the fifth call back"
    );
    assert_eq!(call(&cell, &rules, at(9000), BAD).unwrap().why, Why::FailureRate);
}

#[test]
fn slow_calls_open_it_whether_they_fail_or_not() {
    let slow_calls = Some(SlowRule { longer_than: Duration::from_secs(1), percent: 50 });
    let rules = Rules { slow_calls, failure_rate: None, ..rate_rules() };
    let slow = |report: Report| Report { took: Duration::from_millis(1001), ..report };
    let just = Report { took: Duration::from_secs(1), ..GOOD };
    let cell = Cell::default();
    for report in [just, just, slow(BAD), BAD, slow(GIVEN_UP)] {
        assert_eq!(call(&cell, &rules, at(0), report), None);
    }
    for report in [slow(GOOD), BAD] {
        assert_eq!(call(&cell, &rules, at(0), report), None);
    }
    let view = cell.snapshot(&rules, at(0));
    assert_eq!((view.window.calls, view.window.slow, view.window.failures), (6, 2, 3));
    assert_eq!(call(&cell, &rules, at(0), slow(GOOD)), None);
    assert_eq!(call(&cell, &rules, at(0), slow(GOOD)).unwrap().why, Why::SlowCalls);
    // A trial that succeeds too slowly is a bad sign, too.
    assert_eq!(call(&cell, &rules, at(5), slow(GOOD)).unwrap().why, Why::TrialSlow);
    let last = cell.last_entry().unwrap();
    assert_eq!((last.window.slow, last.samples.iter().next().unwrap().kind), (1, None));
}

#[test]
fn failures_from_before_opening_are_not_held_against_a_closed_breaker() {
    let rules = rate_rules();
    let cell = opened(&rules);
    let rules = Rules { half_open_requests: 1, ..rules };
    assert_eq!(call(&cell, &rules, at(5), GOOD).unwrap().to, State::Closed);
    assert_eq!(cell.snapshot(&rules, at(5)).window.calls, 0);
    assert_eq!(call(&cell, &rules, at(5), BAD), None);
}

#[test]
fn exactly_the_asked_number_of_trials_run_and_all_must_pass() {
    let rules = streak_rules();
    let cell = opened(&rules);
    assert!(!cell.would_admit(&rules, at(4), 0) && cell.would_admit(&rules, at(5), 0));
    let first = admit(&cell, &rules, at(5)).unwrap();
    assert_eq!(first.transition.unwrap().to, State::HalfOpen);
    let second = admit(&cell, &rules, at(5)).unwrap();
    assert_eq!(second.transition, None);
    assert_eq!(admit(&cell, &rules, at(5)).unwrap_err().retry_after, OPEN_FOR);
    assert_eq!(end(&cell, &rules, at(6), first.ticket, GOOD), None);
    assert!(admit(&cell, &rules, at(6)).is_err(), "one trial passed and one is under way");
    assert!(!cell.would_admit(&rules, at(6), 0));
    let closed = end(&cell, &rules, at(6), second.ticket, GOOD).unwrap();
    assert_eq!(
        (closed.from, closed.to, closed.why),
        (State::HalfOpen, State::Closed, Why::TrialsPassed)
    );
}

#[test]
fn one_failed_trial_opens_again_for_twice_as_long() {
    let rules = streak_rules();
    let cell = opened(&rules);
    let failing = admit(&cell, &rules, at(5)).unwrap();
    let late = admit(&cell, &rules, at(5)).unwrap();
    let opened = end(&cell, &rules, at(7), failing.ticket, BAD).unwrap();
    assert_eq!((opened.to, opened.why), (State::Open, Why::TrialFailed));
    assert_eq!(admit(&cell, &rules, at(8)).unwrap_err().retry_after, Duration::from_secs(9));
    assert_eq!(end(&cell, &rules, at(8), late.ticket, GOOD), None);
    assert_eq!(cell.snapshot(&rules, at(8)).state, State::Open);
}

#[test]
fn open_times_double_and_a_good_while_starts_them_over() {
    let rules = Rules { half_open_requests: 1, ..streak_rules() };
    let (cell, mut now) = (Cell::default(), at(1));
    for seconds in [5, 10, 20, 40, 60, 60] {
        let wait = fail(&cell, &rules, now);
        assert_eq!(wait, Duration::from_secs(seconds));
        now = now.after(wait);
    }
    assert_eq!(call(&cell, &rules, now, GOOD).unwrap().to, State::Closed);
    // Closed for less than the longest open time, it goes on where it was.
    let soon = now.after(Duration::from_secs(59));
    assert_eq!(fail(&cell, &rules, soon), Duration::from_secs(60));
    let now = soon.after(Duration::from_secs(60));
    assert_eq!(call(&cell, &rules, now, GOOD).unwrap().to, State::Closed);
    assert_eq!(fail(&cell, &rules, now.after(Duration::from_secs(60))), OPEN_FOR);
}

#[test]
fn after_closing_a_growing_share_passes() {
    let rules = Rules { ramp: Duration::from_secs(10), half_open_requests: 1, ..streak_rules() };
    let cell = opened(&rules);
    assert_eq!(call(&cell, &rules, at(5), GOOD).unwrap().to, State::Closed);
    let passed = |now: Moment| {
        let draws = (0..1000_u64).map(|n| n << 54);
        draws.filter(|draw| cell.admit(&rules, now, *draw).is_ok()).count()
    };
    assert_eq!(cell.admit(&rules, at(5), u64::MAX).unwrap_err().retry_after.as_secs(), 1);
    let shares = [5, 6, 8, 10, 14, 15].map(|second| passed(at(second)));
    assert_eq!(shares, [103, 103, 308, 512, 922, 1000]);
    assert_eq!(cell.snapshot(&rules, at(15)).share, None);
    // What fails meanwhile counts.
    let cell = opened(&rules);
    assert_eq!(call(&cell, &rules, at(5), GOOD).unwrap().to, State::Closed);
    assert!((cell.snapshot(&rules, at(10)).share.unwrap() - 0.5).abs() < 1e-9);
    let fail = |second: u64, report: Report| {
        let admission = cell.admit(&rules, at(second), 0).unwrap();
        end(&cell, &rules, at(second), admission.ticket, report)
    };
    assert_eq!((fail(6, BAD), fail(7, BAD)), (None, None));
    assert_eq!(fail(16, BAD).unwrap().why, Why::ConsecutiveFailures, "one stretch");
}

#[test]
fn an_ignored_trial_gives_its_permit_back() {
    let rules = Rules { half_open_requests: 0, ..streak_rules() };
    let cell = opened(&rules);
    let trial = admit(&cell, &rules, at(5)).unwrap();
    assert!(admit(&cell, &rules, at(5)).is_err());
    assert_eq!(end(&cell, &rules, at(5), trial.ticket, GIVEN_UP), None);
    assert_eq!(call(&cell, &rules, at(5), GOOD).unwrap().to, State::Closed);
}

#[test]
fn late_results_of_a_former_epoch_change_nothing() {
    let rules = streak_rules();
    let cell = Cell::default();
    let late: Vec<_> = (0..4).map(|_| admit(&cell, &rules, at(0)).unwrap().ticket).collect();
    while call(&cell, &rules, at(0), BAD).is_none() {}
    assert!(call(&cell, &rules, at(5), GOOD).is_none());
    for ticket in late {
        assert_eq!(end(&cell, &rules, at(6), ticket, BAD), None);
    }
    assert_eq!(cell.snapshot(&rules, at(6)).state, State::HalfOpen);
    assert_eq!(call(&cell, &rules, at(6), GOOD).unwrap().to, State::Closed);
}

#[test]
fn new_rules_apply_to_old_observations() {
    let rules = streak_rules();
    let cell = opened(&rules);
    let shorter = Rules { open_for: Duration::from_secs(1), ..rules };
    assert!(admit(&cell, &rules, at(2)).is_err());
    assert!(call(&cell, &shorter, at(2), GOOD).is_none());
    let one = Rules { half_open_requests: 1, ..rules };
    let admission = admit(&cell, &one, at(2)).unwrap();
    assert_eq!(admission.transition.unwrap().why, Why::TrialsPassed);
    assert_eq!(end(&cell, &one, at(2), admission.ticket, GOOD), None);
    // Another kind of window starts over instead of misreading what was counted.
    let (cell, rates) = (Cell::default(), rate_rules());
    assert_eq!(call(&cell, &rates, at(0), BAD), None);
    let rates = Rules { window: Window::Calls(4), ..rates };
    assert_eq!(call(&cell, &rates, at(0), BAD), None);
    assert_eq!(cell.snapshot(&rates, at(0)).window.calls, 1);
}

#[test]
fn without_rules_nothing_opens() {
    let rules = Rules { consecutive_failures: None, ..streak_rules() };
    let cell = Cell::default();
    for _ in 0..1_000 {
        assert_eq!(call(&cell, &rules, at(0), BAD), None);
    }
}

#[test]
fn a_forced_state_holds_and_ends() {
    let rules = streak_rules();
    let cell = Cell::default();
    let before = admit(&cell, &rules, at(0)).unwrap();
    let forced = cell.force(true, at(60), at(0));
    assert_eq!((forced.to, forced.why), (State::Open, Why::Forced));
    assert_eq!(end(&cell, &rules, at(1), before.ticket, GOOD), None);
    assert_eq!(admit(&cell, &rules, at(10)).unwrap_err().retry_after, Duration::from_secs(50));
    assert!(!cell.would_admit(&rules, at(59), 0) && cell.would_admit(&rules, at(60), 0));
    assert_eq!(cell.snapshot(&rules, at(59)).held_until, Some(at(60)));
    assert_eq!(cell.snapshot(&rules, at(60)).state, State::HalfOpen);
    let over = admit(&cell, &rules, at(60)).unwrap();
    let transition = over.transition.unwrap();
    assert_eq!((transition.to, transition.why), (State::HalfOpen, Why::ForceOver));
    assert_eq!(end(&cell, &rules, at(60), over.ticket, GOOD), None);
    assert_eq!(call(&cell, &rules, at(60), GOOD).unwrap().why, Why::TrialsPassed);

    assert_eq!(cell.force(false, at(100), at(70)).to, State::Closed);
    for _ in 0..10 {
        assert_eq!(call(&cell, &rules, at(80), BAD), None, "held closed");
    }
    assert_eq!(cell.snapshot(&rules, at(80)).window.failures, 10);
    assert_eq!(cell.release(at(81)).unwrap().why, Why::Released);
    assert_eq!(cell.release(at(81)), None);
    for _ in 0..2 {
        assert_eq!(call(&cell, &rules, at(82), BAD), None);
    }
    assert_eq!(call(&cell, &rules, at(82), BAD).unwrap().to, State::Open);
}

#[test]
fn each_transition_is_remembered_with_what_caused_it() {
    let rules = Rules { half_open_requests: 1, ..rate_rules() };
    let cell = Cell::default();
    for (id, outcome) in [
        (10, Outcome::Failure(3)),
        (11, Outcome::Success),
        (12, Outcome::Failure(5)),
        (13, Outcome::Failure(5)),
    ] {
        call(&cell, &rules, at(1), Report { outcome, took: Duration::ZERO, id });
    }
    assert_eq!(call(&cell, &rules, at(6), GOOD).unwrap().to, State::Closed);
    let history = cell.history();
    let steps: Vec<_> = history.iter().map(|entry| (entry.at, entry.to, entry.why)).collect();
    assert_eq!(
        steps,
        [
            (at(1), State::Open, Why::FailureRate),
            (at(6), State::HalfOpen, Why::OpenTimeOver),
            (at(6), State::Closed, Why::TrialsPassed),
        ]
    );
    let first = history[0];
    assert_eq!((first.window.calls, first.window.failures, first.streak), (4, 3, 2));
    assert_eq!((first.window.top_kind(), first.open_for), (Some(5), Some(OPEN_FOR)));
    let ids: Vec<u128> = first.samples.iter().map(|sample| sample.id).collect();
    assert_eq!(ids, [13, 12, 10]);
    assert_eq!((history[2].window.calls, history[2].samples.iter().count()), (1, 0));
    for second in 0..100 {
        cell.force(second % 2 == 0, at(1000), at(second));
    }
    assert_eq!(cell.history().len(), ENTRIES);
    let view = cell.snapshot(&rules, at(100));
    assert_eq!(view.transitions[Why::Forced as usize], [50, 50, 0]);
    let to = |why: Why| view.transitions[why as usize][why.leads_to().unwrap() as usize];
    assert_eq!((to(Why::FailureRate), to(Why::OpenTimeOver), to(Why::TrialsPassed)), (1, 1, 1));
}

#[test]
fn threads_never_hold_more_trials_than_asked() {
    let rules = streak_rules();
    let cell = opened(&rules);
    let admitted: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let tickets = (0..100).filter_map(|_| admit(&cell, &rules, at(5)).ok());
                    tickets.collect::<Vec<_>>().len()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(admitted, 2);
}
