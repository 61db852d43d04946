//! `retries:` of a route: which of its requests may be sent twice, and after which answers they are. A
//! route knows what its requests mean; what its upstream says about attempts counts where it says
//! nothing else.

use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;

use super::env::Env;
use super::upstream::Service;
use super::upstream::retries::{attempts, per_try};
use crate::base::units::Span;
use crate::base::yaml::Place;
use crate::lasting::link::Protocol;

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Which requests may be sent twice. Idempotent methods may (RFC 9110 section 9.2.2), and every request
/// of which nobody has taken anything.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Attempts of one request, instead of the upstream's.
    attempts: Option<u8>,
    /// The time of one attempt, instead of the upstream's.
    per_try_timeout: Option<Span>,
    /// Answers after which such a request is tried again: statuses from 500 to 599, like `[502, 503, 504]`.
    statuses: Vec<u16>,
    /// The service takes any of these requests twice without harm, whatever its method.
    idempotent: bool,
    /// It does so with requests that carry an `Idempotency-Key`.
    idempotency_key: bool,
}

/// Which requests of a route may be sent twice, and how.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Repeats {
    pub(crate) attempts: u8,
    pub(crate) per_try: Option<Duration>,
    statuses: Statuses,
    idempotent: bool,
    keyed: bool,
    /// Bytes of a body that may be kept for requests that may be sent twice.
    replay: usize,
    /// The same for others, which a service may refuse to begin with.
    replay_unsafe: usize,
}

/// A set of statuses from 500 to 599.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Statuses(u128);

impl Config {
    /// `service` is where the route leads; `streaming` means that its bodies may be endless.
    pub(crate) fn build(
        &self,
        service: Option<&Service>,
        streaming: bool,
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> Option<Repeats> {
        let mut whole = per_try(self.per_try_timeout, at, env);
        if let Some(count) = self.attempts {
            whole &= attempts(count, at, env);
        }
        let mut set = Statuses::default();
        for (index, status) in self.statuses.iter().enumerate() {
            if !set.insert(*status) {
                whole = false;
                env.problems
                    .error(
                        &at.field("statuses").index(index),
                        format!("`{status}` does not lie between 500 and 599"),
                    )
                    .help("what a client got wrong stays wrong; write [502, 503, 504]");
            }
        }
        let rules = service.map(|service| &service.retries);
        let attempts = self.attempts.or_else(|| rules.map(|rules| rules.attempts)).unwrap_or(1);
        let keeps = attempts > 1 && !streaming;
        let replay = rules.filter(|_| keeps).map_or(0, |rules| rules.replay);
        let http2 = service.is_some_and(|service| service.protocol == Protocol::Http2);
        whole.then_some(Repeats {
            attempts,
            per_try: self
                .per_try_timeout
                .map(|span| span.0)
                .or_else(|| rules.and_then(|rules| rules.per_try)),
            statuses: set,
            idempotent: self.idempotent,
            keyed: self.idempotency_key,
            replay,
            // Only HTTP/2 can say that it has not begun with a request (RFC 9113 section 8.7).
            replay_unsafe: if http2 { replay } else { 0 },
        })
    }
}

impl Repeats {
    /// Whether a request may be sent twice.
    pub(crate) fn allow(&self, method: &Method, headers: &HeaderMap) -> bool {
        is_idempotent(method)
            || self.idempotent
            || self.keyed && headers.contains_key(&IDEMPOTENCY_KEY)
    }

    /// Whether an answer calls for another attempt.
    pub(crate) fn after(&self, status: StatusCode) -> bool {
        status.is_server_error() && self.statuses.contains(status.as_u16())
    }

    /// Bytes of a request body to keep; `twice` is what [`Repeats::allow`] says of the request.
    pub(crate) fn replay(&self, twice: bool) -> usize {
        if twice { self.replay } else { self.replay_unsafe }
    }
}

fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}

impl Statuses {
    /// Whether it could be a member.
    fn insert(&mut self, status: u16) -> bool {
        let bit = bit(status);
        self.0 |= bit.unwrap_or(0);
        bit.is_some()
    }

    fn contains(self, status: u16) -> bool {
        bit(status).is_some_and(|bit| self.0 & bit != 0)
    }
}

fn bit(status: u16) -> Option<u128> {
    let at = status.checked_sub(500).filter(|at| *at < 100)?;
    Some(1 << at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_of_servers() {
        let mut set = Statuses::default();
        assert!(set.insert(500) && set.insert(503) && set.insert(599));
        assert!(!set.insert(499) && !set.insert(600) && !set.insert(0) && !set.insert(u16::MAX));
        let members: Vec<u16> = (0..=u16::MAX).filter(|status| set.contains(*status)).collect();
        assert_eq!(members, [500, 503, 599]);
    }
}
