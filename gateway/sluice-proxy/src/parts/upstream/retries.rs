//! The budget for second attempts: what operators write about it, and the rules it becomes. Which
//! requests may be sent twice at all is not theirs to say.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_engine::budget::{Cell, Rules};

use crate::base::clock::Moment;
use crate::base::units::Percent;
use crate::lasting::telemetry::metrics::UpstreamSeries;
use crate::parts::env::Env;

/// How many requests may be sent a second time, so that a service that fails under its load is not
/// given more of it. What is allowed is the larger of the two, counted over 10s.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Second attempts as a share of the requests.
    budget: Percent,
    /// Second attempts a second, on average.
    min_per_second: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self { budget: Percent(20), min_per_second: 3 }
    }
}

/// Rules of this compilation over a cell that outlives it.
pub(crate) struct Retries {
    rules: Rules,
    cell: Arc<Cell>,
}

impl Config {
    pub(super) fn build(self, name: &str, env: &Env<'_>) -> Retries {
        let rules =
            Rules { percent: self.budget.0, min_per_second: u32::from(self.min_per_second) };
        let cell = env.retained.cell(&format!("retries of upstream {name}"), Cell::default);
        Retries { rules, cell }
    }
}

impl Retries {
    /// Whether one more request may be sent a second time.
    pub(crate) fn admit(&self, series: &UpstreamSeries, now: Moment) -> bool {
        let first = series.attempts().saturating_sub(self.cell.tally().granted);
        self.cell.admit(&self.rules, now, first)
    }

    /// Second attempts that were refused so far.
    pub(crate) fn refused(&self) -> u64 {
        self.cell.tally().refused
    }
}
