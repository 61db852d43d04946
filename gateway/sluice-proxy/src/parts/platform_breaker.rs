//! When to stop asking a platform that fails: a breaker of few words, for logins and for the token broker.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_engine::breaker::{Rules, Window};

use super::env::Env;
use crate::base::units::Span;
use crate::base::yaml::Place;

/// Longest time that it stays open by doubling.
const MAX_OPEN_FOR: Duration = Duration::from_secs(60);

/// When to stop asking a platform. What is the client's fault is no failure.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "PlatformBreaker")]
pub(crate) struct Config {
    /// Opens after this many failures in a row.
    consecutive_failures: u32,
    /// How long it stays open before it tries again; twice as long each further time, up to 60s.
    open_for: Span,
}

impl Default for Config {
    fn default() -> Self {
        Self { consecutive_failures: 5, open_for: Span(Duration::from_secs(10)) }
    }
}

impl Config {
    /// Notes what cannot be meant.
    pub(super) fn check(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<()> {
        let mut whole = Some(());
        let mut wrong = |field: &str, message: &str| {
            env.problems.error(&at.field(field), message);
            whole = None;
        };
        if self.consecutive_failures == 0 {
            wrong("consecutive_failures", "`consecutive_failures` starts at 1");
        }
        let usual = Duration::from_millis(100)..=Duration::from_secs(600);
        if !usual.contains(&self.open_for.0) {
            wrong("open_for", "`open_for` must lie between 100ms and 10m");
        }
        whole
    }

    pub(super) fn rules(&self) -> Rules {
        Rules {
            consecutive_failures: Some(self.consecutive_failures),
            interval: None,
            failure_rate: None,
            slow_calls: None,
            min_requests: 1,
            window: Window::Calls(1),
            open_for: self.open_for.0,
            max_open_for: MAX_OPEN_FOR,
            half_open_requests: 1,
            ramp: Duration::ZERO,
        }
    }
}
