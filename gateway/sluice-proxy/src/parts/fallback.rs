//! `fallback:` of a route: what callers get instead when the service cannot be asked or does not answer:
//! a fixed answer, or that of another upstream. A fallback has none of its own, so there are no loops.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::env::{Env, Owner};
use super::filters::{Respond, RespondConfig};
use super::upstream::{Kind, Service, Upstream};
use crate::base::fault::Fault;
use crate::base::yaml::Place;

/// What callers get instead of a failure; either `upstream` or `respond`. Its answers are marked with
/// `X-Sluice-Degraded: fallback`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Fallback")]
pub(crate) struct Config {
    /// Instead of which failures. An answer of the service, whatever its status, is none.
    #[serde(default = "default_causes")]
    on: Vec<Cause>,
    /// Ask this upstream. Where the service may have had the request already, only requests that may be
    /// sent twice go there.
    #[serde(default)]
    pub(crate) upstream: Option<String>,
    /// Answer with this text.
    #[serde(default)]
    respond: Option<RespondConfig>,
}

/// A kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cause {
    /// A breaker is open.
    Breaker,
    /// No connection could be made, or no endpoint is there.
    Connect,
    /// No connection or no answer in time.
    Timeout,
    /// The connection broke, or what came was no correct answer.
    Reset,
}

const CAUSES: [Cause; 4] = [Cause::Breaker, Cause::Connect, Cause::Timeout, Cause::Reset];

/// What came of a fallback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The caller got its answer.
    Answered,
    /// The other upstream failed, too.
    Failed,
    /// The request could not be sent again: something of it was sent, and it may not be sent twice.
    Unrepeatable,
}

const OUTCOMES: [Outcome; 3] = [Outcome::Answered, Outcome::Failed, Outcome::Unrepeatable];

fn default_causes() -> Vec<Cause> {
    vec![Cause::Breaker, Cause::Connect, Cause::Timeout]
}

/// A compiled fallback.
#[derive(Debug)]
pub(crate) struct Fallback {
    causes: Vec<Cause>,
    pub(crate) to: To,
    counts: Arc<Counts>,
}

/// Who answers instead.
#[derive(Debug)]
pub(crate) enum To {
    Upstream(Arc<Upstream>),
    Text(Box<Respond>),
}

/// What fallbacks of a route have come to; kept over reloads.
#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) route: Arc<str>,
    counts: [[AtomicU64; OUTCOMES.len()]; CAUSES.len()],
}

impl Config {
    /// `owner` is the route; `own` and `other` are the upstreams it leads to and names here.
    pub(crate) fn build(
        &self,
        owner: (&str, &Owner),
        own: &str,
        other: Option<Arc<Upstream>>,
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> Option<Fallback> {
        let (route, owner) = owner;
        let before = env.problems.errors();
        if self.on.is_empty() {
            env.problems
                .error(&at.field("on"), "nothing leads to this fallback")
                .help("leave `on` out, or write `on: [breaker, connect, timeout]`");
        }
        let to = match (&self.upstream, &self.respond) {
            (Some(_), None) => self.other(own, other, &at.field("upstream"), env).map(To::Upstream),
            (None, Some(text)) => {
                text.build(&at.field("respond"), owner, env).map(|text| To::Text(Box::new(text)))
            }
            _ => {
                env.problems
                    .error(at, "a fallback is either another upstream or a fixed answer")
                    .help("write `upstream: other`, or `respond: { status: 200, body: \"...\" }`");
                None
            }
        };
        if env.problems.errors() > before {
            return None;
        }
        let name = format!("fallbacks of route {route}");
        let counts = env.retained.cell(&name, || Counts::new(route));
        Some(Fallback { causes: self.on.clone(), to: to?, counts })
    }

    fn other(
        &self,
        own: &str,
        other: Option<Arc<Upstream>>,
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> Option<Arc<Upstream>> {
        if self.upstream.as_deref() == Some(own) {
            env.problems
                .error(at, format!("`{own}` is what has failed by then"))
                .help("name another upstream, or answer with `respond`");
        }
        let other = other?;
        if let Kind::Builtin(_) = other.kind {
            env.problems
                .error(at, format!("`{}` has no endpoints to ask", other.name))
                .help("name an upstream with endpoints, or answer with `respond`");
        }
        Some(other)
    }
}

impl Fallback {
    /// Whether this failure leads here.
    pub(crate) fn covers(&self, fault: Fault) -> bool {
        causes(fault).iter().any(|cause| self.causes.contains(cause))
    }

    /// The service that is asked instead, if one is.
    pub(crate) fn service(&self) -> Option<(&Arc<Upstream>, &Service)> {
        match &self.to {
            To::Upstream(upstream) => match &upstream.kind {
                Kind::Service(service) => Some((upstream, service)),
                Kind::Builtin(_) => None,
            },
            To::Text(_) => None,
        }
    }

    pub(crate) fn count(&self, fault: Fault, outcome: Outcome) {
        let cause = causes(fault).iter().find(|cause| self.causes.contains(cause));
        let row = cause.and_then(|cause| self.counts.counts.get(*cause as usize));
        if let Some(count) = row.and_then(|row| row.get(outcome as usize)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Counts {
    fn new(route: &str) -> Self {
        Self { route: route.into(), counts: Default::default() }
    }

    /// By cause and outcome.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
        CAUSES.into_iter().zip(&self.counts).flat_map(|(cause, row)| {
            OUTCOMES.into_iter().zip(row).map(move |(outcome, count)| {
                (cause.as_str(), outcome.as_str(), count.load(Ordering::Relaxed))
            })
        })
    }
}

impl Cause {
    fn as_str(self) -> &'static str {
        match self {
            Self::Breaker => "breaker",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
        }
    }
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Unrepeatable => "unrepeatable",
        }
    }
}

/// What the client caused, and what the gateway itself refuses, has no fallback: it would only hide it.
fn causes(fault: Fault) -> &'static [Cause] {
    match fault {
        Fault::BreakerOpen => &[Cause::Breaker],
        Fault::ConnectRefused | Fault::ConnectFailed | Fault::UpstreamTls | Fault::NoEndpoint => {
            &[Cause::Connect]
        }
        Fault::ConnectTimeout => &[Cause::Connect, Cause::Timeout],
        Fault::UpstreamTimeout => &[Cause::Timeout],
        Fault::UpstreamReset | Fault::UpstreamMalformed | Fault::UnexpectedUpgrade => {
            &[Cause::Reset]
        }
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_or_the_gateway_caused_has_no_fallback() {
        for fault in Fault::ALL {
            let upstream = [
                "breaker_open",
                "connect_refused",
                "connect_failed",
                "connect_timeout",
                "upstream_tls",
                "no_endpoint",
                "upstream_timeout",
                "upstream_reset",
                "upstream_malformed",
                "unexpected_upgrade",
            ]
            .contains(&fault.reason());
            assert_eq!(!causes(*fault).is_empty(), upstream, "{fault}");
        }
    }

    #[test]
    fn positions_are_those_of_the_lists() {
        assert!(CAUSES.into_iter().enumerate().all(|(at, cause)| cause as usize == at));
        assert!(OUTCOMES.into_iter().enumerate().all(|(at, outcome)| outcome as usize == at));
    }
}
