//! An attempt under the breaker: permission before it, judgement after it.

use std::time::Duration;

use http::StatusCode;
use sluice_engine::breaker::{Outcome, Ticket, Transition};

use crate::base::clock::{self, Moment};
use crate::base::fault::Fault;
use crate::parts::upstream::Service;
use crate::parts::upstream::breaker::Breaker;

/// Permission to make one attempt; whoever drops it unjudged has learnt nothing about the service.
pub(super) struct Permit<'a> {
    breaker: Option<(&'a Breaker, Ticket)>,
    upstream: &'a str,
}

impl<'a> Permit<'a> {
    /// Asks the service's breaker, if it has one; an open one says when to come back.
    pub(super) fn ask(
        service: &'a Service,
        upstream: &'a str,
        now: Moment,
    ) -> Result<Self, Duration> {
        let Some(breaker) = &service.breaker else { return Ok(Self { breaker: None, upstream }) };
        match breaker.cell.admit(&breaker.rules, now) {
            Ok(admission) => {
                log_transition(upstream, admission.transition);
                Ok(Self { breaker: Some((breaker, admission.ticket)), upstream })
            }
            Err(refusal) => Err(refusal.retry_after.max(Duration::from_secs(1))),
        }
    }

    pub(super) fn record(&mut self, outcome: Outcome, now: Moment) {
        if let Some((breaker, ticket)) = self.breaker.take() {
            log_transition(
                self.upstream,
                breaker.cell.record(&breaker.rules, now, ticket, outcome),
            );
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.breaker.is_some() {
            self.record(Outcome::Ignored, clock::now());
        }
    }
}

fn log_transition(upstream: &str, transition: Option<Transition>) {
    if let Some(transition) = transition {
        tracing::warn!(
            upstream,
            from = transition.from.as_str(),
            to = transition.to.as_str(),
            why = transition.why.as_str(),
            "breaker"
        );
    }
}

/// What an answer says about the service.
pub(super) fn judge(status: StatusCode) -> Outcome {
    match status.as_u16() {
        502..=504 => Outcome::Failure,
        _ => Outcome::Success,
    }
}

/// What a failure says about the service: what the client or our own limits caused says nothing.
pub(super) fn blame(fault: Fault) -> Outcome {
    match fault {
        Fault::PoolExhausted
        | Fault::ClientGone
        | Fault::DeadlineExceeded
        | Fault::BodyTimeout
        | Fault::BodyTooLarge
        | Fault::BodyBroken => Outcome::Ignored,
        _ => Outcome::Failure,
    }
}
