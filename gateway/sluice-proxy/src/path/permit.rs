//! A call under breakers: permission before it, judgement after it. A request asks its route's breaker,
//! each of its attempts the upstream's and the endpoint's.
//!
//! The one rule: whoever drops a permit unjudged has learnt nothing, and gives it back.

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use sluice_engine::breaker::{Cell, Outcome, Report, Ticket, Transition};

use super::record::Record;
use crate::base::clock::{self, Moment};
use crate::base::cx::Cx;
use crate::base::fault::Fault;
use crate::parts::breaker::{Breaker, End, Terms, tell};
use crate::parts::upstream::Service;
use crate::parts::upstream::endpoints::{Endpoint, EndpointSet};

/// Permission to make one call.
pub(super) struct Permit<'a> {
    held: Option<Held<'a>>,
}

struct Held<'a> {
    terms: &'a Terms,
    cell: &'a Cell,
    name: Name<'a>,
    ticket: Ticket,
    asked: Moment,
}

/// A breaker's name; that of an endpoint is put together when somebody wants to read it.
#[derive(Clone, Copy)]
enum Name<'a> {
    Own(&'a Arc<str>),
    Endpoint(&'a Endpoint),
}

/// The permits of one attempt.
pub(super) struct Permits<'a> {
    upstream: Permit<'a>,
    endpoint: Permit<'a>,
}

impl<'a> Permit<'a> {
    const NONE: Self = Self { held: None };

    /// Asks a breaker, if there is one; a refusal is noted with the request.
    pub(super) fn ask(
        breaker: Option<&'a Breaker>,
        cx: &mut Cx,
        now: Moment,
    ) -> Result<Self, Fault> {
        let Some(Breaker { name, terms, cell }) = breaker else { return Ok(Self::NONE) };
        Self::of(terms, cell, Name::Own(name), fastrand::u64(..), now)
            .map_err(|wait| refused(cx, Name::Own(name), wait))
    }

    fn of(
        terms: &'a Terms,
        cell: &'a Cell,
        name: Name<'a>,
        draw: u64,
        now: Moment,
    ) -> Result<Self, Duration> {
        let admission = cell.admit(&terms.rules, now, draw).map_err(|it| it.retry_after)?;
        log(name, cell, admission.transition);
        let ticket = admission.ticket;
        Ok(Self { held: Some(Held { terms, cell, name, ticket, asked: now }) })
    }

    /// Tells the breaker how the call ended.
    pub(super) fn judge(&mut self, end: End, cx: &mut Cx, now: Moment) {
        let Some(Held { terms, cell, name, ticket, asked }) = self.held.take() else { return };
        let outcome = terms.failures.judge(end);
        let took = now.saturating_since(asked);
        let slow = terms.rules.slow_calls.is_some_and(|rule| took > rule.longer_than);
        let failed = matches!(outcome, Outcome::Failure(_));
        let id = if failed || slow { u128::from_be_bytes(cx.trace().trace_id) } else { 0 };
        let report = Report { outcome, took, id };
        log(name, cell, cell.record(&terms.rules, now, ticket, &report, fastrand::u64(..)));
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let Some(Held { terms, cell, name, ticket, .. }) = self.held.take() else { return };
        let report = Report { outcome: Outcome::Ignored, took: Duration::ZERO, id: 0 };
        log(name, cell, cell.record(&terms.rules, clock::now(), ticket, &report, 0));
    }
}

impl<'a> Permits<'a> {
    /// Asks for one attempt at the endpoint `index`, and says which one it is for in the end: where the
    /// breaker of one endpoint refuses, another one is taken, and one of those `tried` before at last.
    pub(super) fn ask(
        service: &'a Service,
        set: &'a EndpointSet,
        index: usize,
        tried: &[usize],
        cx: &mut Cx,
        now: Moment,
    ) -> Result<(Self, usize), Fault> {
        let upstream = Permit::ask(service.breaker.as_ref(), cx, now)?;
        let Some(terms) = &service.endpoint_breaker else {
            return Ok((Self { upstream, endpoint: Permit::NONE }, index));
        };
        let mut soonest = None;
        let others =
            |again| set.others(index, now).filter(move |other| tried.contains(other) == again);
        let all = std::iter::once(index).chain(others(false)).chain(others(true));
        for index in all {
            let Some(endpoint) = set.endpoints.get(index) else { continue };
            // Whom to ask has been drawn for already.
            let (cell, name) = (&endpoint.target.breaker, Name::Endpoint(endpoint));
            match Permit::of(terms, cell, name, 0, now) {
                Ok(endpoint) => return Ok((Self { upstream, endpoint }, index)),
                Err(wait) => {
                    let known = soonest.take_if(|(_, known)| *known <= wait);
                    soonest = known.or(Some((name, wait)));
                }
            }
        }
        match soonest {
            Some((name, wait)) => Err(refused(cx, name, wait)),
            None => Err(Fault::NoEndpoint),
        }
    }

    pub(super) fn judge(&mut self, end: End, cx: &mut Cx, now: Moment) {
        self.upstream.judge(end, cx, now);
        self.endpoint.judge(end, cx, now);
    }
}

/// What the head of an answer says to breakers.
pub(super) fn answered<B>(answer: &Response<B>, cx: &Cx) -> End {
    let said = answer.headers();
    let unavailable = cx.grpc && said.get("grpc-status").is_some_and(|it| it == "14");
    End::Answer { status: answer.status(), unavailable }
}

/// What a request's end says to its route's breaker.
pub(super) fn ended<B>(outcome: &Result<Response<B>, Fault>, record: &Record) -> End {
    match outcome {
        Ok(answer) => answered(answer, &record.cx),
        Err(fault) => End::Fault(*fault),
    }
}

fn refused(cx: &mut Cx, name: Name<'_>, wait: Duration) -> Fault {
    cx.retry_after = Some(wait.max(Duration::from_secs(1)));
    cx.breaker = Some(match name {
        Name::Own(name) => Arc::clone(name),
        Name::Endpoint(endpoint) => endpoint.breaker_name().into(),
    });
    Fault::BreakerOpen
}

/// Says what a breaker did, and why.
fn log(name: Name<'_>, cell: &Cell, transition: Option<Transition>) {
    let Some(transition) = transition else { return };
    let name = match name {
        Name::Own(name) => name.to_string(),
        Name::Endpoint(endpoint) => endpoint.breaker_name(),
    };
    tell(&name, cell, transition);
}
