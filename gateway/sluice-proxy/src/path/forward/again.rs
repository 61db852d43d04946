//! Whether a request is tried again, when, and by whom. Another attempt is made only where nobody has
//! taken anything of the request, or where it may be sent twice (RFC 9110 section 9.2.2) and is still
//! whole; within the number of attempts, the time that is left, and the upstream's budget.
//!
//! The one rule: no endpoint is asked again while there is another one to ask.

use std::ops::DerefMut;
use std::pin::Pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use http::header::{HeaderMap, RETRY_AFTER};
use http_body_util::BodyExt as _;

use super::super::remaining;
use super::wait::Patience;
use super::{Attempt, Journey};
use crate::base::body::Answer;
use crate::base::clock::{self, Moment};
use crate::base::deadline::until;
use crate::base::fault::Fault;
use crate::lasting::link::{Close, Protocol};
use crate::parts::upstream::endpoints::EndpointSet;
use crate::parts::upstream::retries::Why;

/// Bytes of an answer that are read to keep its connection, before the next attempt.
const DRAINED: usize = 64 * 1024;

/// Where another attempt may go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// No connection could be made, or a new one died: another endpoint.
    Elsewhere,
    /// The close race: a connection of its own; to another endpoint if there is one, since the endpoint
    /// may have been stopped.
    Fresh,
    /// Another endpoint if there is one; a connection on which only this stream was refused is a good one.
    Refused,
    /// Another endpoint if there is one.
    Anywhere,
}

/// How waiting for a step of an attempt ended.
pub(super) enum Waited<T> {
    Done(T),
    /// The attempt's own time is over, and another one is granted.
    Overdue,
    /// Patience is over.
    Over,
}

/// An attempt that came to nothing.
struct Failure {
    /// What the client hears if it was the last; nothing if there is an answer.
    fault: Option<Fault>,
    why: Why,
    retry: Retry,
    /// How long the service asks to be left alone.
    after: Option<Duration>,
}

impl Journey<'_> {
    /// Makes attempts until one is answered, or none may follow.
    pub(super) async fn attempts(&mut self, begun: Moment) -> Result<(), Fault> {
        let set = self.service.endpoints.load_full();
        let first = set.choose(&self.service.position, &self.choice, None, begun);
        let (mut endpoint, mut fresh, mut now) = (first.ok_or(Fault::NoEndpoint)?, None, begun);
        loop {
            let failure = match self.attempt(&set, endpoint, fresh, now).await? {
                Attempt::Failed(fault) => return Err(fault),
                Attempt::Again(fault, why, retry) => {
                    Failure { fault: Some(fault), why, retry, after: None }
                }
                Attempt::Answered(status) if self.twice && self.repeats.after(status) => {
                    let after = self.answer.as_ref().and_then(|head| retry_after(head.headers()));
                    Failure { fault: None, why: Why::Status, retry: Retry::Anywhere, after }
                }
                Attempt::Answered(_) => return Ok(()),
            };
            now = clock::now();
            let Some(next) = self.next(&set, &failure, &mut now).await else {
                return failure.fault.map_or(Ok(()), Err);
            };
            // Another endpoint's one HTTP/2 connection is not suspected of anything.
            let suspect = self.tried.contains(&next) || self.service.protocol == Protocol::Http1;
            fresh = (failure.retry == Retry::Fresh && suspect).then_some(begun);
            endpoint = next;
        }
    }

    /// The endpoint for another attempt, when it is time for that.
    async fn next(
        &mut self,
        set: &EndpointSet,
        failure: &Failure,
        now: &mut Moment,
    ) -> Option<usize> {
        // A turn that is taken moves on, so nobody is chosen who may not be asked.
        let alone = set.endpoints.len() <= self.tried.len() && failure.retry == Retry::Elsewhere;
        if alone || self.record.cx.left().is_some() {
            return None;
        }
        let wait = match std::mem::take(&mut self.granted) {
            true => Duration::ZERO,
            false => self.grant(failure, *now)?,
        };
        let next = self.choose(set, failure.retry, *now)?;
        self.put_aside(*now);
        self.untie();
        self.service.retries.count(failure.why);
        self.record.cx.retried = Some(failure.why.as_str());
        // Ours has a number of its own.
        self.head.headers.remove(&super::headers::X_SLUICE_ATTEMPT);
        if !wait.is_zero() {
            let end = clock::deadline(now.after(wait));
            Box::pin(tokio::time::sleep_until(end)).await;
            *now = clock::now();
        }
        Some(next)
    }

    /// Whether there may be another attempt, and after which wait: the number, the body, the time and the
    /// budget have a say. Where nobody has had any work with this one the budget is not asked: an address
    /// that refuses is given no load by being asked, and only a connection that has served well before can
    /// lose the close race.
    fn grant(&self, failure: &Failure, now: Moment) -> Option<Duration> {
        let most = usize::from(self.repeats.attempts);
        if self.tried.len() >= most || self.record.cx.left().is_some() {
            return None;
        }
        if !self.bodies.is_whole() {
            self.service.retries.count_unkept();
            return None;
        }
        let rules = &self.service.retries;
        let free = match failure.retry {
            Retry::Fresh | Retry::Refused => self.record.cx.reused,
            Retry::Elsewhere => {
                matches!(failure.fault, Some(Fault::ConnectRefused | Fault::ConnectFailed))
            }
            Retry::Anywhere => false,
        };
        if free {
            return (!self.is_doomed(now)).then_some(Duration::ZERO);
        }
        let failed = u32::try_from(self.tried.len()).unwrap_or(u32::MAX);
        let wait = match failure.why {
            // It has waited long enough.
            Why::Timeout => Duration::ZERO,
            _ => rules.backoff.wait(failed, fastrand::u64(..)),
        };
        let after = failure.after.unwrap_or_default();
        let wait = wait.max(after);
        let fine = after <= rules.max_retry_after
            && !self.is_doomed(now.after(wait))
            && rules.admit(&self.service.series, now);
        fine.then_some(wait)
    }

    /// An endpoint that was not asked yet, else one that may be asked again.
    fn choose(&self, set: &EndpointSet, retry: Retry, now: Moment) -> Option<usize> {
        let last = self.tried.last().copied();
        let choice = set.choose(&self.service.position, &self.choice, last, now);
        let new = |index: &usize| !self.tried.contains(index);
        choice
            .filter(new)
            .or_else(|| set.untried(&self.tried, now))
            .or_else(|| choice.or(last).filter(|_| retry != Retry::Elsewhere))
    }

    /// Whether what is left of the time at `now` is too little to ask anybody.
    pub(super) fn is_doomed(&self, now: Moment) -> bool {
        remaining::is_doomed(self.limit, self.service.timeouts.floor.0, now)
    }

    /// Waits for a step of an attempt that has `begun`, from `now` on. When its own time is over it gives
    /// way to another attempt; without one it goes on, since giving up would help nobody.
    pub(super) async fn wait<F: Future>(
        &mut self,
        begun: Moment,
        now: Moment,
        mut step: Pin<impl DerefMut<Target = F>>,
    ) -> Waited<F::Output> {
        let patience = self.patience(now);
        let per_try = self.repeats.per_try.filter(|_| self.twice).map(|time| begun.after(time));
        if let Some(end) = per_try {
            let end = match &patience {
                Patience::Until(limit) => end.min(*limit),
                Patience::WhileMoving(_) => end,
            };
            if let Some(output) = until(end, step.as_mut()).await {
                return Waited::Done(output);
            }
            if self.gives_way(clock::now()) {
                self.granted = true;
                return Waited::Overdue;
            }
        }
        patience.wait(step.as_mut()).await.map_or(Waited::Over, Waited::Done)
    }

    /// Whether another attempt is granted to a request whose service, not whose client, is slow.
    fn gives_way(&self, now: Moment) -> bool {
        let waits = self.record.cx.upload.as_ref().is_some_and(|meter| meter.waiting.get());
        let (fault, why) = (Some(Fault::UpstreamTimeout), Why::Timeout);
        let failure = Failure { fault, why, retry: Retry::Anywhere, after: None };
        !waits && self.upload_fault().is_none() && self.grant(&failure, now).is_some()
    }

    /// Lets go of an answer that is not passed on. What is there of it is read, so that its connection can
    /// serve again.
    fn put_aside(&mut self, now: Moment) {
        self.record.in_flight = None;
        let answer = self.answer.take();
        let Some(lease) = self.record.lease.take() else { return };
        if answer.is_some_and(|answer| is_read(answer.into_body())) {
            lease.release(now);
        } else {
            lease.discard(Close::Unusable);
        }
    }
}

impl<T> Waited<T> {
    pub(super) fn map<U>(self, f: impl FnOnce(T) -> U) -> Waited<U> {
        match self {
            Self::Done(output) => Waited::Done(f(output)),
            Self::Overdue => Waited::Overdue,
            Self::Over => Waited::Over,
        }
    }
}

/// Reads what has come of an answer; tells whether that was all.
fn is_read(mut body: Answer) -> bool {
    let mut read = 0;
    while read < DRAINED {
        match body.frame().now_or_never() {
            Some(Some(Ok(frame))) => read += frame.data_ref().map_or(0, |data| data.len()),
            Some(None) => return true,
            Some(Some(Err(_))) | None => return false,
        }
    }
    false
}

/// How long a service asks to be left alone (RFC 9110 section 10.2.3); what cannot be read is for ever.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().unwrap_or_default().trim();
    Some(text.parse().map(Duration::from_secs).unwrap_or(Duration::MAX))
}
