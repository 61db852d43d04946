//! Asks a service: chooses an endpoint, gets a connection, sends, judges, and maybe tries once more.
//!
//! A second attempt is made in two cases only: no connection could be made, so nothing was sent; or the
//! connection died before any byte of an answer, and the request was provably not sent or may be sent
//! twice (RFC 9110 section 9.2.2). Never more than two, and within the budget.

use std::rc::Rc;
use std::sync::Arc;

use http::header::SET_COOKIE;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use sluice_engine::breaker::Outcome;

use super::admission::Wants;
use super::permit::{Permits, answered};
use super::record::{Inbound, Record};
use super::remaining;
use crate::base::body::{Answer, Body, Meter, Upload};
use crate::base::clock::{self, Moment};
use crate::base::fault::Fault;
use crate::base::http1::{Added as _, Head};
use crate::lasting::link::Protocol;
use crate::lasting::pool::Lease;
use crate::lasting::telemetry::metrics::Source;
use crate::parts::breaker::{End, Failures};
use crate::parts::upstream::endpoints::{Endpoint, EndpointSet};
use crate::parts::upstream::sticky::Want;
use crate::parts::upstream::{Service, Upstream};

mod headers;
mod lost;
mod tunnel;
mod wait;

use headers::{Introduction, Said};
use wait::{Patience, STREAM_IDLE};

/// Cap on a request body where no filter says otherwise, bytes.
const DEFAULT_BODY: u64 = 10 * 1024 * 1024;

/// A request on its way to a service.
struct Journey<'a> {
    record: &'a mut Record,
    upstream: &'a Upstream,
    service: &'a Service,
    head: &'a mut Parts,
    /// What the gateway says beside what the client said.
    introduction: Introduction,
    /// The service's answer, once there is one.
    answer: Option<Response<Answer>>,
    /// The request's body until it is sent.
    upload: Option<Upload>,
    /// Whether it may be sent twice: an idempotent method without a body (RFC 9110 section 9.2.2).
    repeatable: bool,
    wants: Wants,
    /// What it wants of the choice of an endpoint.
    choice: Want,
    /// The cookie that keeps the caller at the endpoint that answered.
    cookie: Option<HeaderValue>,
    streaming: bool,
    /// When the head of the answer must be there; streaming routes have no such moment unless the client
    /// names one.
    limit: Option<Moment>,
}

/// What one attempt came to.
#[derive(Clone, Copy)]
enum Attempt {
    /// The answer is in the journey.
    Answered(StatusCode),
    /// It may be tried once more.
    Again(Fault, Retry),
    Failed(Fault),
}

/// How a second attempt differs from the first.
#[derive(Clone, Copy)]
enum Retry {
    /// No connection could be made, or a new one died: another endpoint.
    Elsewhere,
    /// The close race: a connection of its own; to another endpoint if there is one, since the endpoint
    /// may have been stopped.
    Fresh,
}

/// Sends the request to `service` and gives back its answer.
pub(crate) async fn send(
    record: &mut Record,
    upstream: &Upstream,
    service: &Service,
    inbound: &mut Inbound,
    wants: Wants,
) -> Result<Response<Body>, Fault> {
    let streaming = record.route().streaming;
    let total = (!streaming).then(|| record.cx.started.after(service.timeouts.total.0));
    let limit = total.into_iter().chain(record.cx.deadline).min();
    let upload = upload(record, inbound.body.take(), streaming)?;
    let head = &mut inbound.head;
    let affinity = record.route().affinity.as_ref();
    let choice = affinity.map(|affinity| affinity.want(&record.cx, head)).unwrap_or_default();
    let introduction = Introduction::of(&mut head.headers, head.version, &record.cx);
    if service.protocol == Protocol::Http2 {
        // hyper's client wants all fields in the map.
        let map = &mut head.headers;
        Said(&introduction, &record.cx).each(&mut |name, value| {
            map.append(name, value.clone());
        });
    }
    let bodiless = http_body::Body::is_end_stream(&upload);
    let repeatable = bodiless && is_idempotent(&head.method);
    let now = clock::now();
    if record.cx.deadline.is_some_and(|deadline| deadline <= now) {
        return Err(Fault::DeadlineExceeded);
    }
    record.cx.timing.gateway = now.saturating_since(record.cx.started);
    let upload = Some(upload);
    let mut journey = Journey {
        record,
        upstream,
        service,
        head,
        introduction,
        answer: None,
        upload,
        repeatable,
        wants,
        choice,
        cookie: None,
        streaming,
        limit,
    };
    journey.attempts(now).await?;
    journey.accept()
}

/// The body as it is sent: counted, capped, and failing when the client stalls.
fn upload(record: &mut Record, body: Option<Incoming>, streaming: bool) -> Result<Upload, Fault> {
    let Some(body) = body.filter(|body| !http_body::Body::is_end_stream(body)) else {
        return Ok(Upload::empty());
    };
    let default = if streaming { u64::MAX } else { DEFAULT_BODY };
    let cap = record.cx.body_limit.unwrap_or(default);
    if http_body::Body::size_hint(&body).lower() > cap {
        return Err(Fault::BodyTooLarge);
    }
    let meter = Rc::new(Meter::default());
    record.cx.upload = Some(Rc::clone(&meter));
    let idle = if streaming { STREAM_IDLE } else { record.cx.peer.body_idle };
    Ok(Upload::stream(body, cap, idle, !streaming, meter))
}

impl<'a> Journey<'a> {
    async fn attempts(&mut self, begun: Moment) -> Result<(), Fault> {
        let set = self.service.endpoints.load_full();
        let first = set
            .choose(&self.service.position, &self.choice, None, begun)
            .ok_or(Fault::NoEndpoint)?;
        let (fault, retry) = match self.attempt(&set, first, None, begun).await? {
            Attempt::Answered(_) => return Ok(()),
            Attempt::Failed(fault) => return Err(fault),
            Attempt::Again(fault, retry) => (fault, retry),
        };
        let now = clock::now();
        // A turn that is taken moves on, so nobody is chosen who may not be asked.
        let alone = set.endpoints.len() < 2 && matches!(retry, Retry::Elsewhere);
        if alone || !self.may_repeat(fault, retry, now) {
            return Err(fault);
        }
        let second = match set.choose(&self.service.position, &self.choice, Some(first), now) {
            Some(other) if other != first => other,
            _ if matches!(retry, Retry::Fresh) => first,
            _ => return Err(fault),
        };
        self.record.worker.shard.retries.add(1);
        // Another endpoint's one HTTP/2 connection is not suspected of anything.
        let suspect = second == first || self.service.protocol == Protocol::Http1;
        let fresh = (matches!(retry, Retry::Fresh) && suspect).then_some(begun);
        match Box::pin(self.attempt(&set, second, fresh, now)).await? {
            Attempt::Answered(_) => Ok(()),
            Attempt::Failed(fault) | Attempt::Again(fault, _) => Err(fault),
        }
    }

    /// Whether the budget allows a second attempt. Where nobody has had any work with the first one, none
    /// is asked for: an address that refuses is given no load by being asked, and only a connection that
    /// has served well before can lose the close race.
    fn may_repeat(&self, fault: Fault, retry: Retry, now: Moment) -> bool {
        let free = match retry {
            Retry::Fresh => self.record.cx.reused,
            Retry::Elsewhere => matches!(fault, Fault::ConnectRefused | Fault::ConnectFailed),
        };
        free || self.service.retries.admit(&self.service.series, now)
    }

    /// One attempt, under the breaker, over a connection that was made since `fresh` if that is given.
    async fn attempt(
        &mut self,
        set: &EndpointSet,
        index: usize,
        fresh: Option<Moment>,
        now: Moment,
    ) -> Result<Attempt, Fault> {
        let (mut permits, index) =
            Permits::ask(self.service, set, index, &mut self.record.cx, now)?;
        let endpoint = set.endpoints.get(index).ok_or(Fault::NoEndpoint)?;
        self.record.cx.attempts += 1;
        self.record.cx.endpoint = Some(Arc::clone(&endpoint.label));
        self.record.in_flight = Some(endpoint.target.enter());
        if let (Some(_), Some(limit)) = (self.record.cx.deadline, self.limit) {
            remaining::write(&mut self.head.headers, limit.saturating_since(now));
        }
        let begun = now;
        let (attempt, now) = self.exchange(endpoint, fresh, begun).await;
        let worker = self.record.worker.index;
        let end = match &attempt {
            Attempt::Answered(status) => {
                self.service.series.answered(worker, *status);
                let plain = End::Answer { status: *status, unavailable: false };
                self.answer.as_ref().map_or(plain, |it| answered(it, &self.record.cx))
            }
            Attempt::Again(fault, _) | Attempt::Failed(fault) => {
                self.service.series.failed(worker, *fault);
                End::Fault(*fault)
            }
        };
        permits.judge(end, &mut self.record.cx, now);
        let outcome = Failures::USUAL.judge(end);
        self.hold_against(set, endpoint, &attempt, outcome, now);
        // The close race says nothing about an endpoint.
        if set.learns() && !matches!(attempt, Attempt::Again(_, Retry::Fresh)) {
            self.learn(endpoint, outcome, begun, now);
        }
        self.cookie = set.set_cookie(index, &self.choice);
        Ok(attempt)
    }

    /// Notes with the endpoint how an attempt ended.
    fn hold_against(
        &self,
        set: &EndpointSet,
        endpoint: &Endpoint,
        attempt: &Attempt,
        outcome: Outcome,
        now: Moment,
    ) {
        let Some(ejection) = &self.service.ejection else { return };
        let failed = match (outcome, attempt) {
            (Outcome::Ignored, _) => return,
            // The close race says nothing about an endpoint.
            (_, Attempt::Again(_, Retry::Fresh)) => return,
            (Outcome::Failure(_), _) => true,
            (Outcome::Success, Attempt::Answered(status)) => {
                ejection.server_errors && status.is_server_error()
            }
            (Outcome::Success, _) => false,
        };
        if failed {
            ejection.failed(&self.upstream.name, set, endpoint, now);
        } else {
            endpoint.target.ejection.succeeded();
        }
    }

    /// Notes with the endpoint how long the attempt took, the time aside that the client took for its
    /// body.
    fn learn(&self, endpoint: &Endpoint, outcome: Outcome, begun: Moment, now: Moment) {
        let moved = self.record.cx.upload.as_ref().map(|meter| meter.moved.get());
        let took = now.saturating_since(begun.max(moved.unwrap_or(begun)));
        let latency = &endpoint.target.latency;
        match outcome {
            Outcome::Success => latency.answered(took, now),
            Outcome::Failure(_) => latency.failed(took, now),
            Outcome::Ignored => {}
        }
    }

    /// Gets a connection and sends; tells what came of it, and when.
    async fn exchange(
        &mut self,
        endpoint: &Endpoint,
        fresh: Option<Moment>,
        begun: Moment,
    ) -> (Attempt, Moment) {
        let worker = Rc::clone(&self.record.worker);
        let kept = match fresh {
            Some(_) => None,
            None => worker.pools.kept(&endpoint.link, begun),
        };
        let (mut lease, connected) = match kept {
            Some(lease) => (lease, begun),
            None => {
                // Rare, and large: a request in progress should not carry its state.
                let lease = Box::pin(worker.pools.lease(&endpoint.link, fresh));
                match self.patience(begun).wait(lease).await {
                    Some(Ok(lease)) => (lease, clock::now()),
                    Some(Err(fault)) => {
                        return (Attempt::Again(fault, Retry::Elsewhere), clock::now());
                    }
                    None => return (Attempt::Failed(self.timeout()), clock::now()),
                }
            }
        };
        self.record.cx.timing.connect = connected.saturating_since(begun);
        self.record.cx.reused = lease.reused;
        let attempt = self.send(&mut lease, endpoint, connected).await;
        let now = clock::now();
        self.record.cx.timing.head = now.saturating_since(connected);
        if matches!(attempt, Some(Attempt::Answered(_))) {
            self.record.lease = Some(lease);
        }
        (attempt.unwrap_or_else(|| Attempt::Failed(self.timeout())), now)
    }

    /// Sends the request over a connection; `None` when patience ends first.
    async fn send(
        &mut self,
        lease: &mut Lease,
        endpoint: &Endpoint,
        connected: Moment,
    ) -> Option<Attempt> {
        let host = headers::host(endpoint, self.service, &self.record.cx);
        let patience = self.patience(connected);
        let idle = lease.reused;
        let Some(body) = self.body() else { return Some(Attempt::Failed(Fault::Internal)) };
        Some(match self.service.protocol {
            Protocol::Http1 => {
                let said = Said(&self.introduction, &self.record.cx);
                lease.begin1(self.head1(&host, &said), body);
                if !self.repeatable {
                    // Written once: nobody holds the fields while a body comes slowly.
                    self.head.headers = http::HeaderMap::new();
                }
                let sending = std::pin::pin!(lease.answer1());
                match patience.wait(sending).await? {
                    Ok(answer) => self.answered(answer),
                    Err(lost) => self.lost1(lost, idle),
                }
            }
            Protocol::Http2 => {
                let request = self.request2(endpoint, &host, body);
                let sending = std::pin::pin!(lease.send2(request));
                match patience.wait(sending).await? {
                    Ok(answer) => self.answered(answer),
                    Err(lost) => self.lost2(*lost, idle),
                }
            }
        })
    }

    /// The body to send: the client's the first time, none if there was none.
    fn body(&mut self) -> Option<Upload> {
        if self.repeatable { Some(Upload::empty()) } else { self.upload.take() }
    }

    fn answered(&mut self, answer: Response<Answer>) -> Attempt {
        let status = answer.status();
        self.answer = Some(answer);
        Attempt::Answered(status)
    }

    fn head1<'h>(&'h self, host: &'h HeaderValue, said: &'h Said<'_>) -> Head<'h> {
        Head {
            method: &self.head.method,
            target: &self.head.uri,
            host,
            fields: &self.head.headers,
            added: said,
            trailers: self.wants.trailers,
            websocket: self.wants.websocket,
        }
    }

    /// The request for HTTP/2, whose client takes it whole; what it took is kept only if it may be
    /// sent again.
    fn request2(
        &mut self,
        endpoint: &Endpoint,
        host: &HeaderValue,
        body: Upload,
    ) -> Request<Upload> {
        let mut request = Request::new(body);
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = self.head.uri.clone();
        let headers = &mut self.head.headers;
        *request.headers_mut() =
            if self.repeatable { headers.clone() } else { std::mem::take(headers) };
        headers::address2(&mut request, endpoint, host, self.wants);
        request
    }

    /// How long the head of the answer is waited for from `now` on.
    fn patience(&self, now: Moment) -> Patience {
        match self.limit {
            Some(limit) => Patience::Until(limit.min(now.after(self.service.timeouts.head()))),
            None => Patience::WhileMoving(self.record.cx.upload.clone()),
        }
    }

    fn upload_fault(&self) -> Option<Fault> {
        self.record.cx.upload.as_ref().and_then(|meter| meter.fault.get())
    }

    /// A time limit ran out: was the service slow, or the client, who never finished its body, or waits
    /// no longer?
    fn timeout(&self) -> Fault {
        if self.record.cx.deadline.is_some_and(|deadline| deadline <= clock::now()) {
            return Fault::DeadlineExceeded;
        }
        let waiting = self.record.cx.upload.as_ref().is_some_and(|meter| meter.waiting.get());
        if waiting { Fault::BodyTimeout } else { Fault::UpstreamTimeout }
    }

    /// Makes the service's answer one of ours.
    fn accept(self) -> Result<Response<Body>, Fault> {
        let record = self.record;
        let (mut head, body) = self.answer.ok_or(Fault::Internal)?.into_parts();
        let switching = head.status == StatusCode::SWITCHING_PROTOCOLS;
        if switching && !self.wants.websocket {
            record.unusable = true;
            return Err(Fault::UnexpectedUpgrade);
        }
        if head.status.as_u16() > 599 {
            record.unusable = true;
            return Err(Fault::UpstreamMalformed);
        }
        headers::from_service(&mut head, self.service.protocol);
        if let Some(cookie) = self.cookie {
            head.headers.append(SET_COOKIE, cookie);
        }
        record.source = Source::Upstream;
        if switching {
            return tunnel::switch(record, head);
        }
        let idle = if self.streaming { STREAM_IDLE } else { self.service.timeouts.idle.0 };
        Ok(Response::from_parts(head, Body::stream(body, idle)))
    }
}

fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}
