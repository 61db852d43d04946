//! `breaker:` of an upstream, an endpoint or a route: when to stop asking what keeps failing. What
//! operators write about it, and the rules it becomes. The mechanism is the engine's, and its cell
//! outlives the rules.

mod failures;

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_engine::breaker::{Cell, MAX_CALLS, Rules, SlowRule, Transition, Window};

use super::env::Env;
use crate::base::units::{Percent, Span};
use crate::base::yaml::Place;

use failures::Sign;
pub(crate) use failures::{End, Failures, word};

/// When to stop asking what keeps failing, and when to try again. A client that goes away, or whose own
/// deadline is over, never counts.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Breaker")]
pub(crate) struct Config {
    /// Opens after this many failures in a row.
    #[serde(default)]
    consecutive_failures: Option<u32>,
    /// Failures in a row count only if they come within this time of the first of them; for ever if not
    /// given.
    #[serde(default)]
    interval: Option<Span>,
    /// Opens when this share of the calls in the window failed.
    #[serde(default)]
    failure_rate: Option<Percent>,
    /// Opens when too many calls in the window were slow, whether they failed or not.
    #[serde(default)]
    slow_calls: Option<SlowCalls>,
    /// Calls the window must hold before a rate counts; 20, or all of `window_calls` if those are fewer.
    #[serde(default)]
    min_requests: Option<u32>,
    /// The window of the rates: the calls of so long; `10s` if neither this nor `window_calls` is given.
    #[serde(default)]
    window: Option<Span>,
    /// The window of the rates instead: the last so many calls, however long ago they were.
    #[serde(default)]
    window_calls: Option<u32>,
    /// How long it stays open the first time before it tries again, a fifth more or less; twice as long
    /// each further time in a row.
    #[serde(default = "default_open_for")]
    open_for: Span,
    /// But no longer than this; `60s`, or `open_for` if that is longer. After so long a time closed it
    /// begins with `open_for` again.
    #[serde(default)]
    max_open_for: Option<Span>,
    /// Trial requests while half-open; all must succeed.
    #[serde(default = "default_trials")]
    half_open_requests: u32,
    /// For how long after closing only a growing share of the requests passes, from a tenth to all.
    #[serde(default = "default_ramp")]
    ramp: Span,
    /// What counts as a failure: statuses, classes like `5xx`, `connect` (no connection), `timeout` (no
    /// answer in time), `reset` (the connection broke), `malformed` (no correct answer),
    /// `grpc_unavailable` (status 14 without a body).
    #[serde(default = "default_failures")]
    failures: Vec<Sign>,
}

/// When too many calls are slow.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Slow calls")]
pub(crate) struct SlowCalls {
    /// What takes longer than this, from being asked to the head of the answer, is slow.
    longer_than: Span,
    /// Opens at this share of slow calls.
    #[serde(default = "default_slow_rate")]
    rate: Percent,
}

fn default_open_for() -> Span {
    Span(Duration::from_secs(5))
}

fn default_trials() -> u32 {
    3
}

fn default_ramp() -> Span {
    Span(Duration::from_secs(10))
}

fn default_slow_rate() -> Percent {
    Percent(50)
}

fn default_failures() -> Vec<Sign> {
    let words = [Sign::Connect, Sign::Timeout, Sign::Reset, Sign::Malformed, Sign::GrpcUnavailable];
    words.into_iter().chain([502, 503, 504].map(Sign::Status)).collect()
}

/// Calls that a rate needs where nobody says.
const MIN_REQUESTS: u32 = 20;
/// The window of rates where nobody says.
const WINDOW: Duration = Duration::from_secs(10);
/// The longest open time where nobody says.
const MAX_OPEN_FOR: Duration = Duration::from_secs(60);

/// What a breaker goes by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) rules: Rules,
    pub(crate) failures: Failures,
}

/// Terms of this compilation over a cell that outlives it.
#[derive(Debug)]
pub(crate) struct Breaker {
    /// `upstream:users` or `route:pay`.
    pub(crate) name: Arc<str>,
    pub(crate) terms: Terms,
    pub(crate) cell: Arc<Cell>,
}

/// Says in the log what a breaker did, and why.
pub(crate) fn tell(name: &str, cell: &Cell, transition: Transition) {
    let entry = cell.last_entry().filter(|entry| entry.to == transition.to);
    let window = entry.map(|entry| entry.window).unwrap_or_default();
    tracing::warn!(
        breaker = name,
        from = transition.from.as_str(),
        to = transition.to.as_str(),
        why = transition.why.as_str(),
        calls = window.calls,
        failures = window.failures,
        slow = window.slow,
        top_reason = window.top_kind().map(|kind| word(Some(kind))),
        seconds = entry.and_then(|it| it.open_for).map(|it| it.as_secs_f64()),
        "breaker"
    );
}

impl Config {
    /// A breaker of its own; `name` is `upstream:x` or `route:x`, `limit` the longest that an attempt
    /// can take.
    pub(crate) fn build(
        &self,
        name: &str,
        limit: Option<Duration>,
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> Option<Breaker> {
        let terms = self.terms(limit, at, env)?;
        let cell = env.retained.cell(&format!("breaker of {name}"), Cell::default);
        Some(Breaker { name: name.into(), terms, cell })
    }

    /// What a breaker goes by whose cell is kept elsewhere.
    pub(crate) fn terms(
        &self,
        limit: Option<Duration>,
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> Option<Terms> {
        let before = env.problems.errors();
        self.check(at, env);
        if env.problems.errors() > before {
            return None;
        }
        self.remark(limit, at, env);
        Some(Terms { rules: self.rules(), failures: Failures::of(&self.failures) })
    }

    fn rules(&self) -> Rules {
        let calls = self.window_calls;
        let least = calls.map_or(MIN_REQUESTS, |calls| calls.min(MIN_REQUESTS));
        Rules {
            consecutive_failures: self.consecutive_failures,
            interval: self.interval.map(|interval| interval.0),
            failure_rate: self.failure_rate.map(|rate| rate.0),
            slow_calls: self
                .slow_calls
                .map(|slow| SlowRule { longer_than: slow.longer_than.0, percent: slow.rate.0 }),
            min_requests: self.min_requests.unwrap_or(least),
            window: match calls {
                Some(calls) => Window::Calls(calls),
                None => Window::Time(self.window.map_or(WINDOW, |window| window.0)),
            },
            open_for: self.open_for.0,
            max_open_for: self.max_open_for.map_or(MAX_OPEN_FOR, |most| most.0),
            half_open_requests: self.half_open_requests,
            ramp: self.ramp.0,
        }
    }

    fn rates(&self) -> bool {
        self.failure_rate.is_some() || self.slow_calls.is_some()
    }

    /// What cannot be meant.
    fn check(&self, at: &Place<'_>, env: &mut Env<'_>) {
        let problems = &mut *env.problems;
        if self.consecutive_failures.is_none() && !self.rates() {
            problems
                .error(at, "a breaker needs a rule")
                .help("write `failure_rate: 50%` or `consecutive_failures: 5`");
        }
        if self.failure_rate == Some(Percent(0)) {
            problems.error(&at.field("failure_rate"), "a failure rate lies between 1% and 100%");
        }
        if let Some(slow) = self.slow_calls {
            let at = at.field("slow_calls");
            if slow.rate == Percent(0) {
                problems.error(&at.field("rate"), "a rate lies between 1% and 100%");
            }
            between(&at, "longer_than", slow.longer_than, (1, 3_600_000), env);
        }
        let problems = &mut *env.problems;
        for (key, count) in [
            ("consecutive_failures", self.consecutive_failures),
            ("min_requests", self.min_requests),
            ("half_open_requests", Some(self.half_open_requests)),
        ] {
            if count == Some(0) {
                problems.error(&at.field(key), format!("`{key}` starts at 1"));
            }
        }
        if let Some(calls) = self.window_calls {
            let at_calls = at.field("window_calls");
            if !(1..=MAX_CALLS).contains(&calls) {
                let message = format!("`window_calls` must lie between 1 and {MAX_CALLS}");
                problems.error(&at_calls, message);
            }
            if self.window.is_some() {
                problems
                    .error(&at_calls, "there are two windows")
                    .help("write either `window` or `window_calls`");
            }
            if self.min_requests.is_some_and(|least| least > calls) {
                problems.error(
                    &at.field("min_requests"),
                    format!("the window never holds more than {calls} calls"),
                );
            }
        }
        if self.failures.is_empty() {
            problems
                .error(&at.field("failures"), "nothing counts as a failure")
                .help("leave `failures` out, or write `failures: [connect, timeout, reset, 5xx]`");
        }
        if self.max_open_for.is_some_and(|most| most.0 < self.open_for.0) {
            problems
                .error(&at.field("max_open_for"), "`max_open_for` is shorter than `open_for`")
                .help("leave it out, or write the same time twice if it is not to grow");
        }
        for (key, span, least) in [
            ("interval", self.interval, 100),
            ("window", self.window, 100),
            ("open_for", Some(self.open_for), 100),
            ("max_open_for", self.max_open_for, 100),
            ("ramp", Some(self.ramp), 0),
        ] {
            if let Some(span) = span {
                between(at, key, span, (least, 3_600_000), env);
            }
        }
    }

    /// What can be meant, but seldom is.
    fn remark(&self, limit: Option<Duration>, at: &Place<'_>, env: &mut Env<'_>) {
        let rates = self.rates();
        let mut odd = |key: &str, is: bool, message: &str| {
            if is {
                env.problems.warn(&at.field(key), message);
            }
        };
        let outside = |span: Span, least: u64, most: u64| {
            !(Duration::from_secs(least)..=Duration::from_secs(most)).contains(&span.0)
        };
        let one = self.consecutive_failures == Some(1);
        odd("consecutive_failures", one, "a single failure opens it; usual are 3 to 10");
        let strict = self.failure_rate.is_some_and(|rate| rate.0 < 10);
        odd("failure_rate", strict, "so few failures are normal for many services; usual is 50%");
        let rash = rates && self.min_requests.is_some_and(|least| least < 5);
        odd("min_requests", rash, "a rate of so few calls is chance; usual are 10 to 100");
        let unused = "without `failure_rate` or `slow_calls` this means nothing";
        odd("min_requests", !rates && self.min_requests.is_some(), unused);
        odd("window", !rates && self.window.is_some(), unused);
        odd("window_calls", !rates && self.window_calls.is_some(), unused);
        let window = self.window.is_some_and(|window| outside(window, 1, 300));
        odd("window", window, "usual are 5s to 60s");
        let alone = self.interval.is_some() && self.consecutive_failures.is_none();
        odd("interval", alone, "without `consecutive_failures` this means nothing");
        let interval = self.interval.is_some_and(|interval| outside(interval, 10, 60));
        odd("interval", interval, "usual are 10s to 60s");
        let open_for = outside(self.open_for, 1, 60);
        odd("open_for", open_for, "usual are 5s to 60s; it grows by itself, up to `max_open_for`");
        let trials = self.half_open_requests > 5;
        odd("half_open_requests", trials, "usual are 1 to 5; each one may fail for a caller");
        odd("ramp", self.ramp.0 > Duration::from_secs(120), "usual are 0s to 60s");
        if let (Some(slow), Some(limit)) = (self.slow_calls, limit)
            && slow.longer_than.0 >= limit
        {
            let message = format!("an attempt ends after {limit:?}, so none is ever slow");
            let at = at.field("slow_calls").field("longer_than");
            env.problems.warn(&at, message).help("write a time below `timeouts.head`");
        }
    }
}

/// Records a time outside `bounds`, milliseconds.
fn between(at: &Place<'_>, key: &str, span: Span, bounds: (u64, u64), env: &mut Env<'_>) {
    let (least, most) = (Duration::from_millis(bounds.0), Duration::from_millis(bounds.1));
    if !(least..=most).contains(&span.0) {
        let message = format!("`{key}` must lie between {} and {}", Span(least), Span(most));
        env.problems.error(&at.field(key), message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(words: serde_json::Value) -> Rules {
        serde_json::from_value::<Config>(words).unwrap().rules()
    }

    /// What `docs/breakers.md` writes for settings that others publish; what they do is shown in the engine.
    #[test]
    fn published_settings_are_these_rules() {
        let usual = Rules {
            consecutive_failures: None,
            interval: None,
            failure_rate: None,
            slow_calls: None,
            min_requests: 20,
            window: Window::Time(Duration::from_secs(10)),
            open_for: Duration::from_secs(5),
            max_open_for: Duration::from_secs(60),
            half_open_requests: 3,
            ramp: Duration::from_secs(10),
        };
        for (words, want) in [
            (
                serde_json::json!({ "consecutive_failures": 3, "open_for": "5s", "half_open_requests": 1 }),
                Rules { consecutive_failures: Some(3), half_open_requests: 1, ..usual },
            ),
            (
                serde_json::json!({ "failure_rate": "50%", "open_for": "30s", "half_open_requests": 1 }),
                Rules {
                    failure_rate: Some(50),
                    open_for: Duration::from_secs(30),
                    half_open_requests: 1,
                    ..usual
                },
            ),
            (
                serde_json::json!({ "failure_rate": "50%", "window_calls": 10, "open_for": "5s" }),
                Rules {
                    failure_rate: Some(50),
                    window: Window::Calls(10),
                    min_requests: 10,
                    ..usual
                },
            ),
            (
                serde_json::json!({ "consecutive_failures": 6, "interval": "10s", "open_for": "60s",
                    "half_open_requests": 3, "max_open_for": "60s", "ramp": "0s" }),
                Rules {
                    consecutive_failures: Some(6),
                    interval: Some(Duration::from_secs(10)),
                    open_for: Duration::from_secs(60),
                    ramp: Duration::ZERO,
                    ..usual
                },
            ),
        ] {
            assert_eq!(rules(words.clone()), want, "{words}");
        }
    }
}
