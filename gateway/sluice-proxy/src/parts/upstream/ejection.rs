//! Taking endpoints out of use whose requests keep failing: what operators write about it, and the
//! rules it becomes. What is known about an endpoint is kept with its address and survives reloads.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_engine::ejection::{Group, Member, Reason, Rules, SuccessRate, Verdict};

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
    /// Compare the endpoints' success rates too.
    success_rate: Option<SuccessRateConfig>,
}

/// When an endpoint is ejected because it fails more often than its peers: its rate of successes lies
/// more than `factor` standard deviations below the mean of all.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SuccessRateConfig {
    /// Rates are compared so often.
    interval: Span,
    /// Who had fewer requests in it is not judged.
    min_requests: u32,
    /// Nobody is, unless so many endpoints had enough.
    min_endpoints: u32,
    /// How many standard deviations below the mean are too many. One of n endpoints is never more than
    /// the root of n - 1 below.
    factor: f32,
    /// Who does at least this share of its requests well is spared.
    spare_above: Percent,
}

impl Default for SuccessRateConfig {
    fn default() -> Self {
        Self {
            interval: Span(Duration::from_secs(10)),
            min_requests: 100,
            min_endpoints: 5,
            factor: 1.9,
            spare_above: Percent(95),
        }
    }
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
            success_rate: None,
        }
    }
}

/// Rules of this compilation over cells that outlive it.
pub(crate) struct Ejection {
    rules: Rules,
    success_rate: Option<SuccessRate>,
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
        let success_rate = match self.success_rate {
            None => None,
            Some(config) => Some(config.build(&at.field("success_rate"), env)?),
        };
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
        Some(Some(Ejection { rules, success_rate, group, server_errors: self.server_errors }))
    }
}

impl SuccessRateConfig {
    fn build(self, at: &Place<'_>, env: &mut Env<'_>) -> Option<SuccessRate> {
        let mut whole = true;
        let mut wrong = |field: &str, message: String| {
            whole = false;
            env.problems.error(&at.field(field), message);
        };
        if !(Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&self.interval.0) {
            wrong("interval", "`interval` must lie between 100ms and 1h".to_owned());
        }
        if self.min_requests == 0 {
            wrong("min_requests", "`min_requests` starts at 1".to_owned());
        }
        if self.min_endpoints < 3 {
            wrong("min_endpoints", "of fewer than 3 endpoints none is an outlier".to_owned());
        }
        let farthest = SuccessRate::farthest(self.min_endpoints);
        if self.min_endpoints >= 3 && !(0.1..farthest).contains(&self.factor) {
            let message = format!(
                "one of {} endpoints is never {} deviations below their mean; write 0.1 to {:.2}",
                self.min_endpoints,
                self.factor,
                farthest - 0.01,
            );
            wrong("factor", message);
        }
        whole.then_some(SuccessRate {
            interval: self.interval.0,
            min_requests: self.min_requests,
            min_endpoints: self.min_endpoints,
            factor: self.factor,
            spared_percent: self.spare_above.0,
        })
    }
}

impl Ejection {
    /// Counts how a request to one endpoint of `set` ended, and takes out whom it is time for.
    pub(crate) fn count(
        &self,
        upstream: &str,
        set: &EndpointSet,
        one: &Endpoint,
        success: bool,
        now: Moment,
    ) {
        let cell = &one.target.ejection;
        if let Some(rules) = &self.success_rate {
            cell.tally(success);
            if self.group.is_due(rules, now) {
                self.compare(rules, upstream, set, now);
            }
        }
        if success {
            cell.succeeded();
        } else if cell.failed(&self.rules) {
            let failures = self.rules.consecutive_failures;
            let why = format!("{failures} failures in a row");
            self.eject(upstream, set, one, (Reason::ConsecutiveFailures, why), now);
        }
    }

    /// Ejects those that fail more often than their peers.
    fn compare(&self, rules: &SuccessRate, upstream: &str, set: &EndpointSet, now: Moment) {
        let cells = set.endpoints.iter().map(|endpoint| &endpoint.target.ejection);
        let found = rules.outliers(cells);
        for (index, rate) in found.members {
            let Some(one) = set.endpoints.get(index) else { continue };
            let why = format!(
                "{:.1} % of its requests went well, below {:.1} %",
                rate * 100.0,
                found.bar * 100.0
            );
            self.eject(upstream, set, one, (Reason::SuccessRate, why), now);
        }
    }

    fn eject(
        &self,
        upstream: &str,
        set: &EndpointSet,
        one: &Endpoint,
        (reason, why): (Reason, String),
        now: Moment,
    ) {
        // An endpoint of weight 0 bears no load that others could take over.
        let members = set.endpoints.iter().filter(|endpoint| endpoint.weight > 0).map(|endpoint| {
            Member { cell: &endpoint.target.ejection, up: endpoint.target.is_up() }
        });
        let (cell, chance) = (&one.target.ejection, (now, fastrand::u64(..)));
        let verdict = self.group.eject(&self.rules, cell, members, reason, chance);
        if let Verdict::Ejected(long) = verdict {
            let seconds = long.as_secs_f64();
            tracing::warn!(upstream, endpoint = %one.label, seconds, why, "requests keep failing; ejected");
            one.target.note_ejection(why);
        }
    }
}
