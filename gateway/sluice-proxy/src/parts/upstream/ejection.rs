//! Taking endpoints out of use whose requests keep failing: what operators write about it, and the
//! rules it becomes. What is known about an endpoint is kept with its address and survives reloads.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_engine::ejection::{Group, Member, Rules, Verdict};

use super::endpoints::{Endpoint, EndpointSet};
use crate::base::clock::Moment;
use crate::base::units::{Percent, Span};
use crate::base::yaml::Place;
use crate::parts::env::Env;

/// When an endpoint is taken out of use because its requests fail. Failures are what the breaker calls
/// so. The health check has its own say; an endpoint is used when neither objects.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Whether this is done at all.
    enabled: bool,
    /// After this many failures in a row.
    consecutive_failures: u32,
    /// For how long the first time; the nth time in a row for n times as long, a fifth more or less.
    time: Span,
    /// But no longer than that.
    max_time: Span,
    /// Share of the endpoints that may be out at a time. The last one that is up always stays.
    max_ejected: Percent,
    /// Count every status of 5xx as a failure, not only 502, 503 and 504.
    server_errors: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            consecutive_failures: 5,
            time: Span(Duration::from_secs(10)),
            max_time: Span(Duration::from_secs(300)),
            max_ejected: Percent(50),
            server_errors: false,
        }
    }
}

/// Rules of this compilation over cells that outlive it.
pub(crate) struct Ejection {
    rules: Rules,
    group: Arc<Group>,
    pub(crate) server_errors: bool,
}

impl Config {
    /// `Some(None)` where nobody is ejected.
    pub(super) fn build(
        self,
        name: &str,
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> Option<Option<Ejection>> {
        let mut whole = true;
        if self.consecutive_failures == 0 {
            whole = false;
            env.problems
                .error(&at.field("consecutive_failures"), "`consecutive_failures` starts at 1")
                .help("write `enabled: false` if nobody is to be ejected");
        }
        for (key, span) in [("time", self.time), ("max_time", self.max_time)] {
            if !(Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&span.0) {
                whole = false;
                env.problems
                    .error(&at.field(key), format!("`{key}` must lie between 100ms and 1h"));
            }
        }
        if self.time.0 > self.max_time.0 {
            whole = false;
            env.problems.error(&at.field("max_time"), "`max_time` is shorter than `time`");
        }
        whole.then_some(())?;
        if !self.enabled {
            return Some(None);
        }
        let rules = Rules {
            consecutive_failures: self.consecutive_failures,
            base: self.time.0,
            longest: self.max_time.0,
            max_percent: self.max_ejected.0,
        };
        let group = env.retained.cell(&format!("ejections of upstream {name}"), Group::default);
        Some(Some(Ejection { rules, group, server_errors: self.server_errors }))
    }
}

impl Ejection {
    /// Counts a failure of one endpoint of `set`, and takes it out of use if it is time for that.
    pub(crate) fn failed(&self, upstream: &str, set: &EndpointSet, one: &Endpoint, now: Moment) {
        let cell = &one.target.ejection;
        if !cell.failed(&self.rules) {
            return;
        }
        // An endpoint of weight 0 bears no load that others could take over.
        let members = set.endpoints.iter().filter(|endpoint| endpoint.weight > 0).map(|endpoint| {
            Member { cell: &endpoint.target.ejection, up: endpoint.target.is_up() }
        });
        let random = fastrand::u64(..);
        if let Verdict::Ejected(long) = self.group.eject(&self.rules, cell, members, now, random) {
            tracing::warn!(
                upstream,
                endpoint = %one.label,
                seconds = long.as_secs_f64(),
                "requests keep failing; ejected"
            );
        }
    }
}
