//! Asks a service: chooses an endpoint, gets a connection, sends, and judges what came of it. Whether it
//! is tried again is decided in `again`.

use std::rc::Rc;
use std::sync::Arc;

use http::header::SET_COOKIE;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode};
use sluice_engine::breaker::Outcome;
use sluice_engine::pressure::Stage;
use smallvec::SmallVec;

use super::admission::Wants;
use super::permit::{Permits, answered};
use super::record::{Inbound, Record};
use super::remaining;
use crate::base::body::{Answer, Body, Meter, Source as Bodies, Upload};
use crate::base::clock::{self, Moment};
use crate::base::fault::Fault;
use crate::base::http1::{Added as _, Head};
use crate::base::inlet::Inlet;
use crate::lasting::link::Protocol;
use crate::lasting::pool::Lease;
use crate::lasting::telemetry::metrics::Source;
use crate::parts::breaker::{End, Failures};
use crate::parts::repeats::Repeats;
use crate::parts::upstream::endpoints::{Endpoint, EndpointSet};
use crate::parts::upstream::retries::Why;
use crate::parts::upstream::sticky::Want;
use crate::parts::upstream::{Service, Upstream};
use crate::snapshot::route::Route;

mod again;
mod headers;
mod location;
mod lost;
mod tunnel;
mod wait;

use again::{Retry, Waited};
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
    /// The request's body, for each attempt.
    bodies: Bodies,
    /// What the route says about further attempts.
    repeats: &'a Repeats,
    /// Whether the request may be sent twice.
    twice: bool,
    /// Whether head and body are kept while they are sent.
    keeps: bool,
    /// The endpoints that were asked, in turn.
    tried: SmallVec<[usize; 3]>,
    /// Another attempt was granted before this one came to its end.
    granted: bool,
    /// Whether anybody may have had anything of the request.
    sent: bool,
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
    /// It may be tried again.
    Again(Fault, Why, Retry),
    Failed(Fault),
}

/// Sends the request to `service` and gives back its answer.
pub(crate) async fn send(
    record: &mut Record,
    route: &Route,
    upstream: &Upstream,
    service: &Service,
    inbound: &mut Inbound,
    wants: Wants,
) -> Result<Response<Body>, Fault> {
    let total = match inbound.since {
        None => route.total.map(|total| record.cx.started.after(total)),
        // Whoever stands in for another has a time of his own.
        Some(since) => route.total.map(|_| since.after(service.timeouts.total.0)),
    };
    let limit = total.into_iter().chain(record.cx.deadline).min();
    let mut bodies = match inbound.rest.take() {
        Some(bodies) => *bodies,
        None => Bodies::once(upload(record, inbound.body.take(), route.streaming)?),
    };
    let head = &mut inbound.head;
    if !route.finishes || record.cx.grpc || head.method.is_safe() {
        record.cx.tie = None;
    }
    let affinity = route.affinity.as_ref().filter(|_| inbound.since.is_none());
    let choice = affinity.map(|affinity| affinity.want(&record.cx, head)).unwrap_or_default();
    let repeats = &route.repeats;
    let twice = repeats.allow(&head.method, &head.headers);
    let keeps = keep(&mut bodies, repeats, twice, service.protocol, record);
    let introduction = Introduction::of(&mut head.headers, head.version, &mut record.cx);
    if service.protocol == Protocol::Http2 {
        // hyper's client wants all fields in the map.
        let map = &mut head.headers;
        Said(&introduction, &record.cx).each(&mut |name, value| {
            map.append(name, value.clone());
        });
    }
    let now = clock::now();
    if remaining::is_doomed(limit, service.timeouts.floor.0, now) {
        return Err(Fault::DeadlineExceeded);
    }
    if inbound.since.is_none() {
        record.cx.timing.gateway = now.saturating_since(record.cx.started);
    }
    let mut journey = Journey {
        record,
        upstream,
        service,
        head,
        introduction,
        answer: None,
        bodies,
        repeats,
        twice,
        keeps,
        tried: SmallVec::new(),
        granted: false,
        sent: false,
        wants,
        choice,
        cookie: None,
        streaming: route.streaming,
        limit,
    };
    if let Err(fault) = journey.attempts(now).await {
        let Journey { bodies, twice, sent, .. } = journey;
        let whole = bodies.is_whole() && (twice || !sent);
        inbound.rest = (whole && route.fallback.is_some()).then(|| Box::new(bodies));
        return Err(fault);
    }
    journey.accept()
}

/// Decides whether head and body are kept while they are sent; bodies are while memory is not short.
fn keep(
    bodies: &mut Bodies,
    repeats: &Repeats,
    twice: bool,
    protocol: Protocol,
    record: &Record,
) -> bool {
    if repeats.attempts < 2 {
        return false;
    }
    if matches!(bodies, Bodies::Empty) {
        return twice || protocol == Protocol::Http2;
    }
    let most = repeats.replay(twice);
    if most == 0 || record.worker.stage.get() > Stage::Normal {
        return false;
    }
    bodies.keep(most, &record.worker.shelf);
    true
}

/// The body as it is sent: counted, capped, and failing when the client stalls.
fn upload(record: &mut Record, body: Option<Inlet>, streaming: bool) -> Result<Upload, Fault> {
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
    /// One attempt, under the breaker, over a connection that was made since `fresh` if that is given.
    async fn attempt(
        &mut self,
        set: &EndpointSet,
        index: usize,
        fresh: Option<Moment>,
        now: Moment,
    ) -> Result<Attempt, Fault> {
        let (mut permits, index) =
            Permits::ask(self.service, set, index, &self.tried, &mut self.record.cx, now)?;
        self.tried.push(index);
        let endpoint = set.endpoints.get(index).ok_or(Fault::NoEndpoint)?;
        self.record.cx.attempts += 1;
        self.record.cx.endpoint = Some(Arc::clone(&endpoint.label));
        self.record.in_flight = Some(endpoint.target.enter());
        let begun = now;
        let (attempt, now) = self.exchange(endpoint, fresh, begun).await;
        let worker = self.record.worker.index;
        let end = match &attempt {
            Attempt::Answered(status) => {
                self.service.series.answered(worker, *status);
                let plain = End::Answer { status: *status, unavailable: false };
                self.answer.as_ref().map_or(plain, |it| answered(it, &self.record.cx))
            }
            Attempt::Again(fault, ..) | Attempt::Failed(fault) => {
                self.service.series.failed(worker, *fault);
                End::Fault(*fault)
            }
        };
        permits.judge(end, &mut self.record.cx, now);
        let outcome = Failures::USUAL.judge(end);
        self.hold_against(set, endpoint, &attempt, outcome, now);
        // The close race says nothing about an endpoint.
        if set.learns() && !matches!(attempt, Attempt::Again(_, _, Retry::Fresh | Retry::Refused)) {
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
            (_, Attempt::Again(_, _, Retry::Fresh | Retry::Refused)) => return,
            (Outcome::Failure(_), _) => true,
            (Outcome::Success, Attempt::Answered(status)) => {
                ejection.server_errors && status.is_server_error()
            }
            (Outcome::Success, _) => false,
        };
        ejection.count(&self.upstream.name, set, endpoint, !failed, now);
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
                let waited = self.wait(begun, begun, lease).await;
                let now = clock::now();
                match waited {
                    // It may have been waited for, which counts.
                    Waited::Done(Ok(_)) if self.is_doomed(now) => {
                        return (Attempt::Failed(self.timeout()), now);
                    }
                    Waited::Done(Ok(lease)) => (lease, now),
                    Waited::Done(Err(fault)) => {
                        return (Attempt::Again(fault, Why::Connect, Retry::Elsewhere), now);
                    }
                    Waited::Overdue => {
                        let fault = Fault::ConnectTimeout;
                        return (Attempt::Again(fault, Why::Timeout, Retry::Anywhere), now);
                    }
                    Waited::Over => return (Attempt::Failed(self.timeout()), now),
                }
            }
        };
        self.record.cx.timing.connect = connected.saturating_since(begun);
        self.record.cx.reused = lease.reused;
        let attempt = self.send(&mut lease, endpoint, begun, connected).await;
        let now = clock::now();
        self.record.cx.timing.head = now.saturating_since(connected);
        if matches!(attempt, Attempt::Answered(_)) {
            self.record.lease = Some(lease);
        }
        (attempt, now)
    }

    /// Sends the request over a connection.
    async fn send(
        &mut self,
        lease: &mut Lease,
        endpoint: &Endpoint,
        begun: Moment,
        connected: Moment,
    ) -> Attempt {
        let host = headers::host(endpoint, self.service, &self.record.cx);
        let idle = lease.reused;
        let Some(body) = self.bodies.take() else { return Attempt::Failed(Fault::Internal) };
        self.sent = true;
        self.tell(connected);
        self.tie_up();
        let waited = match self.service.protocol {
            Protocol::Http1 => {
                let said = Said(&self.introduction, &self.record.cx);
                lease.begin1(self.head1(&host, &said), body);
                if !self.keeps {
                    // Written once: nobody holds the fields while a body comes slowly.
                    self.head.headers = http::HeaderMap::new();
                }
                let sending = std::pin::pin!(lease.answer1());
                self.wait(begun, connected, sending)
                    .await
                    .map(|sent| sent.map_err(|lost| self.lost1(lost, idle)))
            }
            Protocol::Http2 => {
                let request = self.request2(endpoint, &host, body);
                let sending = std::pin::pin!(lease.send2(request));
                self.wait(begun, connected, sending)
                    .await
                    .map(|sent| sent.map_err(|lost| self.lost2(*lost, idle)))
            }
        };
        if !matches!(waited, Waited::Done(Ok(_))) {
            self.untie();
        }
        match waited {
            Waited::Done(Ok(answer)) => self.answered(answer),
            Waited::Done(Err(attempt)) => attempt,
            Waited::Overdue => {
                Attempt::Again(Fault::UpstreamTimeout, Why::Timeout, Retry::Anywhere)
            }
            Waited::Over => Attempt::Failed(self.timeout()),
        }
    }

    /// Tells the service how much time is left, where it is to know.
    fn tell(&mut self, now: Moment) {
        let tells = self.record.cx.deadline.is_some() || self.service.timeouts.tell;
        if let Some(limit) = self.limit.filter(|_| tells) {
            let unasked = self.service.timeouts.tell.then_some(self.record.cx.grpc);
            remaining::write(&mut self.head.headers, limit.saturating_since(now), unasked);
        }
    }

    /// From now on the request may go on without its client, once all of it is there.
    fn tie_up(&self) {
        if let (Some(tie), Some(limit)) = (&self.record.cx.tie, self.limit) {
            tie.ask(limit, self.record.cx.upload.clone());
        }
    }

    /// A request that would have to be sent again may not.
    fn untie(&self) {
        if let Some(tie) = &self.record.cx.tie {
            tie.rest();
        }
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
        *request.headers_mut() = if self.keeps { headers.clone() } else { std::mem::take(headers) };
        headers::address2(&mut request, endpoint, host, self.wants);
        headers::number2(&mut request, &self.record.cx);
        request
    }

    /// How long the head of the answer is waited for from `now` on.
    fn patience(&self, now: Moment) -> Patience {
        let head = self.service.timeouts.head.filter(|_| !self.streaming);
        match self.limit {
            Some(limit) => Patience::Until(head.map_or(limit, |head| limit.min(now.after(head.0)))),
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
    fn accept(mut self) -> Result<Response<Body>, Fault> {
        self.bodies.let_go();
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
        if record.route().relocates {
            location::relocate(&mut head, self.service, (&self.head.uri, &record.cx));
        }
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
