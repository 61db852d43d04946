//! Settings that people publish for their breakers, in our words, and what they then do. The open time
//! stays the same each time where theirs does.

use super::*;

/// What happens to a breaker: at a second, so many calls end so, and then it is in this state.
type Step = (u64, u32, Report, State);

struct Setting {
    name: &'static str,
    rules: Rules,
    steps: &'static [Step],
}

const RULES: Rules = Rules {
    consecutive_failures: None,
    interval: None,
    failure_rate: None,
    slow_calls: None,
    min_requests: 1,
    window: Window::Time(Duration::from_secs(10)),
    open_for: Duration::from_secs(5),
    max_open_for: Duration::from_secs(5),
    half_open_requests: 1,
    ramp: Duration::ZERO,
};

const SETTINGS: [Setting; 4] = [
    Setting {
        name: "three failures in a row, 5 s",
        rules: Rules { consecutive_failures: Some(3), ..RULES },
        steps: &[
            (0, 2, BAD, State::Closed),
            (0, 1, GOOD, State::Closed),
            (1, 2, BAD, State::Closed),
            (1, 1, BAD, State::Open),
            (5, 0, GOOD, State::Open),
            (6, 1, BAD, State::Open),
            (10, 0, GOOD, State::Open),
            (11, 1, GOOD, State::Closed),
            (11, 2, BAD, State::Closed),
        ],
    },
    Setting {
        name: "50 %, 30 s",
        rules: Rules {
            failure_rate: Some(50),
            min_requests: 20,
            open_for: Duration::from_secs(30),
            max_open_for: Duration::from_secs(30),
            ..RULES
        },
        steps: &[
            (0, 10, GOOD, State::Closed),
            (1, 9, BAD, State::Closed),
            (1, 1, BAD, State::Open),
            (30, 0, GOOD, State::Open),
            (31, 1, GOOD, State::Closed),
        ],
    },
    Setting {
        name: "50 % of the last 10 calls, 5 s",
        rules: Rules {
            failure_rate: Some(50),
            window: Window::Calls(10),
            min_requests: 10,
            ..RULES
        },
        steps: &[
            (0, 5, GOOD, State::Closed),
            (100, 4, BAD, State::Closed),
            (200, 1, BAD, State::Open),
            (205, 1, GOOD, State::Closed),
            (205, 9, BAD, State::Closed),
            (206, 1, BAD, State::Open),
        ],
    },
    Setting {
        name: "more than 5 in a row within 10 s, 60 s, 3 trials",
        rules: Rules {
            consecutive_failures: Some(6),
            interval: Some(Duration::from_secs(10)),
            open_for: Duration::from_secs(60),
            max_open_for: Duration::from_secs(60),
            half_open_requests: 3,
            ..RULES
        },
        steps: &[
            (0, 5, BAD, State::Closed),
            (11, 5, BAD, State::Closed),
            (12, 1, BAD, State::Open),
            (71, 0, GOOD, State::Open),
            (72, 2, GOOD, State::HalfOpen),
            (72, 1, GOOD, State::Closed),
            (80, 6, BAD, State::Open),
            (140, 2, GOOD, State::HalfOpen),
            (140, 1, BAD, State::Open),
        ],
    },
];

#[test]
fn published_settings_do_what_they_say() {
    for Setting { name, rules, steps } in SETTINGS {
        let cell = Cell::default();
        for (step, (second, calls, report, after)) in steps.iter().enumerate() {
            let now = at(*second);
            if *calls == 0 {
                assert!(admit(&cell, &rules, now).is_err(), "{name}: step {step} was let through");
            }
            for _ in 0..*calls {
                let admission = admit(&cell, &rules, now);
                let admission = admission.unwrap_or_else(|it| panic!("{name}: {step}: {it:?}"));
                let _ = end(&cell, &rules, now, admission.ticket, *report);
            }
            assert_eq!(cell.snapshot(&rules, now).state, *after, "{name}: step {step}");
        }
    }
}

/// Never more trials at a time than the setting says, whatever waits.
#[test]
fn published_settings_try_with_as_many_as_they_say() {
    for Setting { name, rules, .. } in SETTINGS {
        let cell = opened(&rules);
        let later = at(0).after(rules.open_for);
        let tickets: Vec<_> = (0..1000).filter_map(|_| admit(&cell, &rules, later).ok()).collect();
        assert_eq!(tickets.len(), rules.half_open_requests as usize, "{name}");
    }
}
