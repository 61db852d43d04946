//! A request's way: begin a record, make the request canonical, find its route, ask
//! the filters, ask the service, walk back through the filters. Whatever fails on the way becomes an
//! answer in one place.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::Either;
use http::header::{ALLOW, CONNECTION};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use super::admission::{self, Admitted, Wants};
use super::lookup::{answer_preflight, find};
use super::push::{self, Pushed};
use super::record::{Inbound, Record};
use super::unattended::Attended;
use super::worker::{View, Worker};
use super::{builtin, overload, target};
use crate::base::body::Body;
use crate::base::clock::{self, Moment};
use crate::base::cx::{Cx, Logged, Peer, Trace};
use crate::base::fault::Fault;
use crate::base::inlet::{Ahead, Inlet};
use crate::base::respond;
use crate::base::tie::Tie;
use crate::lasting::telemetry::metrics;
use crate::parts::contract::{Choice, ServiceContract};
use crate::parts::filters::message_push::MessagePush;
use crate::parts::filters::{Flow, check_announced};
use crate::parts::upstream::{Kind, Upstream};
use crate::parts::version_gate::Verdict;
use crate::snapshot::route::Route;

/// Longest reading of a body ahead where no service has a time limit.
const LONGEST_READ: Duration = Duration::from_secs(55);

/// Handles one request; every way out of it is an answer.
pub(crate) fn handle(
    worker: Rc<Worker>,
    peer: Rc<Peer>,
    request: Request<Incoming>,
    last: bool,
) -> impl Future<Output = Response<Body>> {
    let view = worker.view();
    let cx = Cx::begin(peer, clock::now(), view.settings.envelope);
    let last = last || cx.started >= cx.peer.ends;
    let (head, body) = request.into_parts();
    attended(cx, worker, view, head, Inlet::Incoming(body), last)
}

/// A call of a batch.
pub(crate) struct Call {
    pub(crate) head: Parts,
    pub(crate) body: Inlet,
    /// Its place in the trace of the batch.
    pub(crate) trace: Trace,
    /// A page of another origin reads the answer.
    pub(crate) foreign: bool,
    /// When nobody waits for it any more.
    pub(crate) until: Moment,
}

/// Handles a call of a batch as if the client had sent it by itself.
pub(crate) fn call(
    worker: Rc<Worker>,
    view: View,
    peer: Rc<Peer>,
    call: Call,
) -> impl Future<Output = Response<Body>> {
    let mut cx = Cx::begin(peer, clock::now(), view.settings.envelope);
    (cx.batched, cx.trace, cx.deadline) = (true, Some(call.trace), Some(call.until));
    cx.foreign = call.foreign;
    attended(cx, worker, view, call.head, call.body, false)
}

/// A request, and who holds it if it may go on without its client. Only that one costs a box: who reads pays
/// nothing for who writes.
fn attended(
    mut cx: Cx,
    worker: Rc<Worker>,
    view: View,
    head: Parts,
    body: Inlet,
    last: bool,
) -> impl Future<Output = Response<Body>> {
    if head.method.is_safe() || !view.finishes {
        return Either::Left(go(cx, worker, view, head, body, last));
    }
    let tie = Rc::<Tie>::default();
    cx.tie = Some(Rc::clone(&tie));
    let (holder, peer) = (Rc::clone(&worker), Rc::clone(&cx.peer));
    Either::Right(Attended::new(go(cx, worker, view, head, body, last), tie, holder, peer))
}

/// No `async fn`: what that is given it would hold twice, as an argument and where it is moved to.
fn go(
    mut cx: Cx,
    worker: Rc<Worker>,
    view: View,
    head: Parts,
    body: Inlet,
    last: bool,
) -> impl Future<Output = Response<Body>> {
    cx.forwarded_header = view.settings.forwarded_header;
    let mut record = Box::new(Record::new(cx, worker, view));
    let mut inbound = Inbound { head, body: Some(body), rest: None, since: None };
    note(&mut record, &mut inbound.head);
    async move {
        // A panic must cost its own request only; the record is consistent at every await.
        let outcome = AssertUnwindSafe(run(&mut record, &mut inbound)).catch_unwind().await;
        over(record, outcome, last)
    }
}

/// The answer to what has run, or has panicked.
fn over(
    mut record: Box<Record>,
    outcome: std::thread::Result<Result<Response<Body>, Fault>>,
    last: bool,
) -> Response<Body> {
    let outcome = outcome.unwrap_or_else(|_| {
        record.worker.shard.panics.add(1);
        Err(Fault::Internal)
    });
    // What nobody has read of a body goes before the answer does.
    record.cx.ahead = None;
    answer(record, outcome, last)
}

/// Answers what was refused before anybody made a request of it. Of what it says nothing is believed or
/// written down but whether its answer may have a body.
pub(crate) fn refuse(
    worker: &Rc<Worker>,
    peer: &Rc<Peer>,
    fault: Fault,
    method: &Method,
) -> Response<Body> {
    let view = worker.view();
    let mut cx = Cx::begin(Rc::clone(peer), clock::now(), view.settings.envelope);
    cx.head_request = *method == Method::HEAD;
    let unknown = Method::from_bytes(b"-").unwrap_or_default();
    let mut record = Box::new(Record::new(cx, Rc::clone(worker), view));
    record.method = metrics::method(&unknown);
    if record.worker.log.borrow().is_some() {
        record.cx.logged = Some(Box::new(Logged {
            method: unknown,
            version: Version::HTTP_11,
            path: String::new(),
            query: None,
            user_agent: None,
        }));
    }
    answer(record, Err(fault), true)
}

/// Fills in what the record wants to know before the request is changed.
fn note(record: &mut Record, head: &mut Parts) {
    record.method = metrics::method(&head.method);
    if record.worker.log.borrow().is_some() {
        record.cx.logged = Some(Box::new(Logged {
            method: head.method.clone(),
            version: head.version,
            path: head.uri.path().to_owned(),
            query: allowed(head.uri.query(), &record.view.settings.logged_query),
            user_agent: head.headers.get(http::header::USER_AGENT).cloned(),
        }));
    }
    if head.headers.contains_key(http::header::UPGRADE) {
        record.upgrade = head.extensions.remove::<hyper::upgrade::OnUpgrade>();
    }
}

/// The parameters of a query that may be logged, by their names as they are written.
fn allowed(query: Option<&str>, names: &[String]) -> Option<String> {
    if names.is_empty() {
        return None;
    }
    let is_listed = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default();
        names.iter().any(|listed| listed == name)
    };
    let logged = query?.split('&').filter(is_listed).collect::<Vec<_>>().join("&");
    (!logged.is_empty()).then_some(logged)
}

async fn run(record: &mut Record, inbound: &mut Inbound) -> Result<Response<Body>, Fault> {
    let view = Rc::clone(&record.view);
    let head = &mut inbound.head;
    let wants = match admission::admit(&mut record.cx, head, &view)? {
        Admitted::Request(wants) => wants,
        Admitted::Server => return Ok(about_the_server()),
    };
    if record.cx.overridden {
        record.method = metrics::method(&head.method);
    }
    if let Some(logged) = &mut record.cx.logged {
        if logged.path != head.uri.path() {
            logged.path = head.uri.path().to_owned();
        }
        if record.cx.overridden {
            logged.method = head.method.clone();
        }
    }
    if let Some(answer) = answer_preflight(record, head) {
        return Ok(answer);
    }
    let missed = find(record, head).err();
    let route = record.route.and_then(|index| view.routes.get(index)).unwrap_or(&view.unmatched);
    if record.cx.batched
        && record.route.is_some()
        && !(route.may_be_batched(&head.method) && (!record.cx.foreign || route.lets_page(head)))
    {
        return Err(Fault::BatchRefused);
    }
    overload::refuse_if_short(record, route)?;
    overload::refuse_if_doomed(record, route)?;
    record.cx.sensitive = route.sensitive;
    if route.batches {
        // Before filters take credentials away.
        record.cx.said = Some(Box::new(head.headers.clone()));
    }
    if route.reads_body {
        record.cx.ahead = inbound.body.take().map(|inlet| ahead(inlet, &record.cx, route));
    }
    for (at, filter) in route.chain.iter().enumerate() {
        if at == route.guards {
            judge_caller(record, route, head)?;
        }
        record.passed += 1;
        match filter.on_request(&mut record.cx, head).await? {
            Flow::Next => {}
            Flow::Answer(answer) => return Ok(*answer),
        }
        if let (true, Some(callers)) = (filter.identifies(), &view.callers) {
            callers.prove(&mut record.cx);
        }
    }
    if route.guards == route.chain.len() {
        judge_caller(record, route, head)?;
    }
    if let Some(prefetch) = &route.prefetch {
        prefetch.agree(&record.cx, head)?;
    }
    if let Some(ahead) = record.cx.ahead.take() {
        inbound.body = Some(ahead.inlet);
    }
    match missed {
        Some(fault) => Err(fault),
        None => ask(record, route, inbound, wants).await,
    }
}

/// What holds for mini-programs on all routes, asked behind the guards and before anybody is identified.
fn judge_caller(record: &mut Record, route: &Route, head: &mut Parts) -> Result<(), Fault> {
    if let Some(prefetch) = &route.prefetch {
        return prefetch.admit(&mut record.cx, head);
    }
    if route.open {
        return Ok(());
    }
    let Some(callers) = &record.view.callers else { return Ok(()) };
    let client = record.cx.mini.as_deref();
    callers.admit(client, &head.headers, record.route, head.uri.path())?;
    let Some(client) = client else { return Ok(()) };
    match callers.judge(client, record.route, head.uri.path()) {
        Verdict::Fine => Ok(()),
        Verdict::Old => {
            record.cx.upgrade = Some("available");
            Ok(())
        }
        Verdict::TooOld(told) => {
            record.cx.upgrade = Some("required");
            record.cx.detail = Some(told);
            Err(Fault::UpgradeRequired)
        }
    }
}

/// A body that filters may read: for as long as the service's answer may take at most.
fn ahead(inlet: Inlet, cx: &Cx, route: &Route) -> Ahead {
    let total = route.total.unwrap_or(LONGEST_READ);
    let until = cx.started.after(total);
    Ahead { inlet, until: cx.deadline.map_or(until, |deadline| deadline.min(until)) }
}

/// The pool of a service that fits the client's build.
fn pool<'r>(
    record: &mut Record,
    contract: &'r ServiceContract,
    usual: &'r Arc<Upstream>,
) -> Result<&'r Upstream, Fault> {
    match contract.choose(record.cx.mini.as_deref(), usual) {
        Choice::To(upstream) => {
            if !Arc::ptr_eq(upstream, usual) {
                record.pool = Some(Arc::clone(&upstream.name));
            }
            Ok(upstream)
        }
        Choice::Nowhere(told) => {
            record.cx.detail = Some(told);
            Err(Fault::ContractMismatch)
        }
    }
}

/// Asks the service behind the route.
async fn ask(
    record: &mut Record,
    route: &Route,
    inbound: &mut Inbound,
    mut wants: Wants,
) -> Result<Response<Body>, Fault> {
    match route.websocket.as_ref().filter(|_| wants.websocket) {
        None => wants.websocket = false,
        Some(websocket) if websocket.admits(&inbound.head.headers) => {}
        Some(_) => return Err(Fault::OriginRefused),
    }
    let Some(usual) = &route.upstream else { return Err(Fault::NoRoute) };
    let upstream = match &route.contract {
        None => usual,
        Some(contract) => pool(record, contract, usual)?,
    };
    if let Some(teller) = &route.teller {
        teller.tell(&mut record.cx, &mut inbound.head)?;
    }
    if let Some(limit) = record.cx.body_limit {
        check_announced(&inbound.head, limit)?;
    }
    let push = route.push.and_then(|at| route.chain.get(at)).and_then(|filter| filter.as_push());
    if let Some(push) = push {
        // Rare, and large: a request in progress should not carry its state.
        return Box::pin(pass_on(push, record, route, upstream, inbound, wants)).await;
    }
    match &upstream.kind {
        Kind::Builtin(kind) => Box::pin(builtin::serve(*kind, record, inbound)).await,
        // Rare, and large: a request in progress should not carry its state.
        Kind::Service(_) if route.prefetch.is_some() => {
            Box::pin(fetch(record, route, upstream, inbound, wants)).await
        }
        Kind::Service(service) => {
            target::ask(record, route, upstream, service, inbound, wants).await
        }
    }
}

/// Asks the service for an answer that is read here before it is sent.
async fn fetch(
    record: &mut Record,
    route: &Route,
    upstream: &Upstream,
    inbound: &mut Inbound,
    wants: Wants,
) -> Result<Response<Body>, Fault> {
    let (Kind::Service(service), Some(prefetch)) = (&upstream.kind, &route.prefetch) else {
        return Err(Fault::Internal);
    };
    let answer = target::ask(record, route, upstream, service, inbound, wants).await?;
    prefetch.fit(answer, latest(record, route)).await
}

/// When an answer that is read here has to be there.
fn latest(record: &Record, route: &Route) -> Moment {
    record.cx.started.after(route.total.unwrap_or(record.cx.peer.body_idle))
}

/// Opens a pushed message for the service.
async fn pass_on(
    push: &MessagePush,
    record: &mut Record,
    route: &Route,
    upstream: &Upstream,
    inbound: &mut Inbound,
    wants: Wants,
) -> Result<Response<Body>, Fault> {
    let message = match push::open(push, record, inbound).await? {
        Pushed::Answer(answer) => return Ok(answer),
        Pushed::New(message) => message,
    };
    let answer = match &upstream.kind {
        Kind::Builtin(kind) => builtin::serve(*kind, record, inbound).await,
        Kind::Service(service) => {
            target::ask(record, route, upstream, service, inbound, wants).await
        }
    };
    push::close(push, &message, record, answer).await
}

/// Renders a failure, walks back through the filters that were passed, and hands the record to the
/// body, whose end closes it.
fn answer(
    mut record: Box<Record>,
    outcome: Result<Response<Body>, Fault>,
    last: bool,
) -> Response<Body> {
    let mut response = match outcome {
        Ok(response) => response,
        Err(fault) => {
            record.cx.fault = Some(fault);
            record.source = metrics::Source::Gateway;
            record.unusable = true;
            record.cx.envelope = record.route().envelope.unwrap_or(record.cx.envelope);
            respond::render(fault, &mut record.cx)
        }
    };
    let view = Rc::clone(&record.view);
    let route = record.route.and_then(|index| view.routes.get(index)).unwrap_or(&view.unmatched);
    for filter in route.chain.iter().take(record.passed).rev() {
        filter.on_response(&mut record.cx, &mut response);
    }
    route.unkept.tell(&record.cx, &mut response);
    if let Some(word) = record.cx.upgrade {
        let name = HeaderName::from_static("x-mp-upgrade");
        response.headers_mut().insert(name, HeaderValue::from_static(word));
    }
    if record.cx.http1 && (last || record.worker.keeps_none()) {
        let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if !switching {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
    record.status = Some(response.status());
    let bodiless = record.cx.head_request
        || matches!(response.status(), StatusCode::NOT_MODIFIED | StatusCode::NO_CONTENT);
    response.map(|body| body.ending(record, bodiless))
}

/// The answer to `OPTIONS *` (RFC 9110 section 9.3.7).
fn about_the_server() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, C, D, F>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_request_in_progress_stays_small() {
        let bytes = size(handle);
        assert!(bytes <= 4096, "the future of a request has {bytes} bytes");
    }

    /// Who may go on without its client is in a box of its own.
    #[test]
    fn a_read_is_no_larger_for_what_writes_may_need() {
        fn size<A, B, C, D, E, F, G>(_: fn(A, B, C, D, E, F) -> G) -> usize {
            size_of::<G>()
        }
        let (held, itself) = (size(attended), size(go));
        assert!(held <= itself + size_of::<usize>(), "{held} bytes instead of {itself}");
    }
}
