//! `bulkhead:` of a route or an upstream: how many of its requests may be in progress, so that a slow one
//! cannot take what others need.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::env::Env;
use crate::base::clock::Moment;
use crate::base::units::Span;
use crate::base::yaml::Place as At;
use crate::lasting::bulkhead::{Bulkhead, Full, Place, Rules};

/// Most requests in progress, and most that wait.
const MOST: u32 = 1_000_000;
/// Nobody should wait longer for a place.
const LONGEST: Duration = Duration::from_secs(10);

/// A bound on requests in progress, over all workers of this gateway.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Requests in progress at a time, to the last byte of their answers; those of streaming routes and
    /// tunnels only to the head. More wait, or are refused with 503 `bulkhead_full`.
    pub(crate) requests: u32,
    /// Requests that wait for a place at a time.
    #[serde(default = "default_queue")]
    pub(crate) queue: u32,
    /// Longest wait for a place.
    #[serde(default = "default_wait")]
    pub(crate) max_wait: Span,
}

fn default_queue() -> u32 {
    128
}

fn default_wait() -> Span {
    Span(Duration::from_millis(100))
}

/// Rules of this compilation over a cell that outlives it.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    rules: Rules,
    cell: Arc<Bulkhead>,
}

impl Config {
    /// `owner` is the name in metrics: `route:x` or `upstream:x`.
    pub(crate) fn build(self, owner: &str, at: &At<'_>, env: &mut Env<'_>) -> Option<Bound> {
        let mut whole = true;
        for (key, count, least) in [("requests", self.requests, 1), ("queue", self.queue, 0)] {
            if !(least..=MOST).contains(&count) {
                whole = false;
                let message = format!("`{key}` must lie between {least} and {MOST}");
                env.problems.error(&at.field(key), message);
            }
        }
        if self.max_wait.0 > LONGEST {
            whole = false;
            env.problems
                .error(&at.field("max_wait"), "nobody should wait longer than 10s for a place")
                .help("whoever waits holds memory and may be gone by then; try 100ms");
        }
        let (requests, queue, max_wait) = (self.requests, self.queue, self.max_wait.0);
        whole.then(|| Bound {
            rules: Rules { requests, queue, max_wait },
            cell: env
                .retained
                .cell(&format!("bulkhead {owner}"), || Bulkhead::new(owner.to_owned())),
        })
    }
}

impl Bound {
    /// A place now, if that is possible without waiting.
    pub(crate) fn try_enter(&self) -> Option<Place> {
        self.cell.try_enter(&self.rules)
    }

    /// A place, after some waiting if need be, but not beyond `limit`.
    pub(crate) async fn enter(&self, now: Moment, limit: Option<Moment>) -> Result<Place, Full> {
        self.cell.enter(&self.rules, now, limit).await
    }
}
