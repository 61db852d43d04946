//! Stopping to ask a service that keeps failing: what operators write about it, and the rules it
//! becomes. The breaker itself is the engine's, and its cell outlives the rules.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_engine::breaker;

use crate::base::units::{Percent, Span};
use crate::base::yaml::Place;
use crate::parts::env::Env;

/// When to stop asking a failing service. Failures are refused or broken connections, timeouts, and
/// the statuses 502, 503 and 504; a client that goes away is none.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Opens after this many failures in a row.
    #[serde(default)]
    consecutive_failures: Option<u32>,
    /// Opens when this share of the calls in the window failed.
    #[serde(default)]
    failure_rate: Option<Percent>,
    /// Calls the window must hold before the rate counts.
    #[serde(default = "default_min_requests")]
    min_requests: u32,
    /// The window of the rate.
    #[serde(default = "default_window")]
    window: Span,
    /// How long it stays open before it tries again.
    #[serde(default = "default_open_for")]
    open_for: Span,
    /// Trial requests while half-open; all must succeed.
    #[serde(default = "default_trials")]
    half_open_requests: u32,
}

fn default_min_requests() -> u32 {
    20
}

fn default_window() -> Span {
    Span(Duration::from_secs(10))
}

fn default_open_for() -> Span {
    Span(Duration::from_secs(5))
}

fn default_trials() -> u32 {
    3
}

/// Rules of this compilation over a cell that outlives it.
pub(crate) struct Breaker {
    pub(crate) rules: breaker::Rules,
    pub(crate) cell: Arc<breaker::Cell>,
}

impl Config {
    pub(super) fn build(&self, name: &str, at: &Place<'_>, env: &mut Env<'_>) -> Option<Breaker> {
        if self.consecutive_failures.is_none() && self.failure_rate.is_none() {
            env.problems
                .error(at, "a breaker needs a rule")
                .help("write `failure_rate: 50%` or `consecutive_failures: 5`");
            return None;
        }
        let percent = self.failure_rate.map(|percent| percent.0);
        let mut whole = true;
        if percent.is_some_and(|percent| !(1..=100).contains(&percent)) {
            whole = false;
            env.problems
                .error(&at.field("failure_rate"), "a failure rate lies between 1% and 100%");
        }
        for (key, count) in [
            ("consecutive_failures", self.consecutive_failures),
            ("min_requests", Some(self.min_requests)),
            ("half_open_requests", Some(self.half_open_requests)),
        ] {
            if count == Some(0) {
                whole = false;
                env.problems.error(&at.field(key), format!("`{key}` starts at 1"));
            }
        }
        for (key, span) in [("window", self.window), ("open_for", self.open_for)] {
            if !(Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&span.0) {
                whole = false;
                env.problems
                    .error(&at.field(key), format!("`{key}` must lie between 100ms and 1h"));
            }
        }
        let rules = breaker::Rules {
            consecutive_failures: self.consecutive_failures,
            failure_rate: percent.map(|percent| breaker::RateRule {
                percent,
                min_requests: self.min_requests,
                window: self.window.0,
            }),
            open_for: self.open_for.0,
            half_open_requests: self.half_open_requests,
        };
        // Slots of another width hold counts that mean something else.
        let cell = format!("breaker of upstream {name} {}ms", self.window.0.as_millis());
        whole.then(|| Breaker { rules, cell: env.retained.cell(&cell, breaker::Cell::default) })
    }
}
