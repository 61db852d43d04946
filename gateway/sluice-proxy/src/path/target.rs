//! Asks whom a route leads to: its service, under the route's breaker and within the bulkheads, and where
//! that fails whoever stands in for it.
//!
//! The one rule: another upstream gets a request only if nobody has had anything of it, or if it may be
//! sent twice and is still whole.

use http::{HeaderMap, HeaderName, HeaderValue, Response};

use super::admission::Wants;
use super::permit::{Permit, ended};
use super::record::{Inbound, Record};
use super::{forward, overload};
use crate::base::body::Body;
use crate::base::clock;
use crate::base::cx::Instead;
use crate::base::fault::Fault;
use crate::lasting::link::Close;
use crate::parts::cache_control::forbid;
use crate::parts::fallback::{Fallback, Outcome, To};
use crate::parts::upstream::{Service, Upstream};
use crate::snapshot::route::Route;

/// Says that an answer is not the one that was asked for.
static X_SLUICE_DEGRADED: HeaderName = HeaderName::from_static("x-sluice-degraded");

/// Asks the service of a route, or whoever stands in for it.
pub(super) async fn ask(
    record: &mut Record,
    route: &Route,
    upstream: &Upstream,
    service: &Service,
    inbound: &mut Inbound,
    wants: Wants,
) -> Result<Response<Body>, Fault> {
    let fallback = route.fallback.as_ref();
    // Sending uses the fields up.
    let another = fallback.is_some_and(|fallback| fallback.service().is_some());
    let fields = another.then(|| inbound.head.headers.clone());
    let mut permit = Permit::ask(route.breaker.as_ref(), &mut record.cx, clock::now());
    let answer = match &mut permit {
        Ok(permit) => {
            overload::enter(record, route, service).await?;
            let answer = forward::send(record, route, upstream, service, inbound, wants).await;
            permit.judge(ended(&answer, record), &mut record.cx, clock::now());
            answer
        }
        Err(fault) => Err(*fault),
    };
    drop(permit);
    let answer = match (answer, fallback) {
        (Err(fault), Some(fallback)) if fallback.covers(fault) && record.cx.left().is_none() => {
            // Rare, and large: a request in progress should not carry its state.
            Box::pin(instead(record, route, fallback, inbound, (wants, fields), fault)).await
        }
        (answer, _) => answer,
    };
    overload::let_go(record, route, &answer);
    answer
}

/// Answers in place of what failed by `fault`.
async fn instead(
    record: &mut Record,
    route: &Route,
    fallback: &Fallback,
    inbound: &mut Inbound,
    (wants, fields): (Wants, Option<HeaderMap>),
    fault: Fault,
) -> Result<Response<Body>, Fault> {
    let answer = match (&fallback.to, fallback.service()) {
        // Who speaks gRPC would make nothing of a text.
        (To::Text(_), _) if record.cx.grpc => return Err(fault),
        (To::Text(text), _) => {
            clear(record);
            record.cx.instead = Some(Box::new(Instead { fault, upstream: None }));
            Ok(text.answer())
        }
        (To::Upstream(_), Some((upstream, service))) => {
            if inbound.body.is_none() && inbound.rest.is_none() {
                fallback.count(fault, Outcome::Unrepeatable);
                return Err(fault);
            }
            clear(record);
            inbound.head.headers = fields.unwrap_or_default();
            let name = std::sync::Arc::clone(&upstream.name);
            record.cx.instead = Some(Box::new(Instead { fault, upstream: Some(name) }));
            record.cx.retry_after = None;
            inbound.since = Some(clock::now());
            match overload::exchange(record, route, service) {
                Ok(()) => forward::send(record, route, upstream, service, inbound, wants).await,
                Err(fault) => Err(fault),
            }
        }
        (To::Upstream(_), None) => return Err(fault),
    };
    let outcome = if answer.is_ok() { Outcome::Answered } else { Outcome::Failed };
    fallback.count(fault, outcome);
    answer.map(|mut answer| {
        let fields = answer.headers_mut();
        fields.insert(&X_SLUICE_DEGRADED, HeaderValue::from_static("fallback"));
        // What stands in for an answer must not outlive the failure.
        forbid(fields);
        answer
    })
}

/// Gives back what the failed attempts have left.
fn clear(record: &mut Record) {
    if let Some(lease) = record.lease.take() {
        lease.discard(Close::Unusable);
    }
    record.unusable = false;
    record.in_flight = None;
}
