//! A request's record from its first byte to the last byte of its answer. However the request ends,
//! by the answer's end, by a failure or by the client going away, the record is closed exactly once:
//! counters, access log and the connection to the service.

use std::rc::Rc;
use std::time::Duration;

use http::StatusCode;
use http::request::Parts;
use sluice_engine::mini::Client;

use super::worker::{View, Worker};
use crate::base::body::{End, Ending, Source as Bodies};
use crate::base::clock::{self, Moment};
use crate::base::cx::Cx;
use crate::base::fault::Fault;
use crate::base::inlet::Inlet;
use crate::lasting::bulkhead::Place;
use crate::lasting::link::{Close, InFlight};
use crate::lasting::pool::Lease;
use crate::lasting::telemetry::access::Line;
use crate::lasting::telemetry::metrics::Source;
use crate::lasting::telemetry::reasons::Unattended;
use crate::parts::caller::Callers;
use crate::snapshot::route::Route;

/// A request as it came in; passed by reference, since every move of it would be a copy.
pub(crate) struct Inbound {
    pub(crate) head: Parts,
    /// Taken by whoever reads it.
    pub(crate) body: Option<Inlet>,
    /// The body of a request that has failed and may be sent to somebody else.
    pub(crate) rest: Option<Box<Bodies>>,
    /// When somebody else was asked; his time begins then.
    pub(crate) since: Option<Moment>,
}

/// The record of one request.
pub(crate) struct Record {
    pub(crate) cx: Cx,
    pub(crate) worker: Rc<Worker>,
    pub(crate) view: View,
    /// Index of the matched route.
    pub(crate) route: Option<usize>,
    /// The method's label.
    pub(crate) method: usize,
    pub(crate) status: Option<StatusCode>,
    pub(crate) source: Source,
    /// The upstream that was asked, where it is not the route's own.
    pub(crate) pool: Option<std::sync::Arc<str>>,
    /// The connection the answer comes over, to be given back when it was read.
    pub(crate) lease: Option<Lease>,
    /// The answer must be the last on its connection.
    pub(crate) unusable: bool,
    pub(crate) in_flight: Option<InFlight>,
    /// Its places in the bulkheads of the gateway, the route and the upstream.
    pub(crate) places: [Option<Place>; 3],
    /// Filters whose request hook was called; their response hooks run on the way back.
    pub(crate) passed: usize,
    /// The client's side of a switch of protocols, if it asked for one.
    pub(crate) upgrade: Option<hyper::upgrade::OnUpgrade>,
    closed: bool,
}

impl Record {
    pub(crate) fn new(cx: Cx, worker: Rc<Worker>, view: View) -> Self {
        worker.shard.started.add(1);
        cx.peer.clocks.begin();
        Self {
            cx,
            worker,
            view,
            route: None,
            method: 0,
            status: None,
            source: Source::Gateway,
            pool: None,
            lease: None,
            unusable: false,
            in_flight: None,
            places: [None, None, None],
            passed: 0,
            upgrade: None,
            closed: false,
        }
    }

    pub(crate) fn route(&self) -> &Route {
        self.route.and_then(|index| self.view.routes.get(index)).unwrap_or(&self.view.unmatched)
    }

    fn close(&mut self, end: End, bytes: u64) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let now = clock::now();
        self.settle(end, now);
        if self.cx.left().is_some() {
            return self.close_unattended(end, now);
        }
        let shard = &self.worker.shard;
        self.cx.peer.clocks.end(now);
        let took = now.saturating_since(self.cx.started);
        let status = self.status.unwrap_or(CLIENT_CLOSED);
        if end == End::Abandoned {
            shard.aborted.add(1);
        }
        let shed = end != End::Complete && self.cx.peer.clocks.is_shed();
        let unanswered = self.status.is_none().then_some(Fault::ClientGone);
        let fault = if shed { Some(Fault::Shed) } else { self.cx.fault.or(unanswered) };
        self.cx.fault = fault;
        if let Some(fault) = fault {
            shard.reject(fault);
        }
        self.count(status, took);
        if self.cx.logged.is_some() {
            self.log(end, bytes, (status, took), None);
        }
    }

    /// Closes the record of a write that went on without its client: to the client it was over when it left.
    fn close_unattended(&mut self, end: End, now: Moment) {
        let left = self.cx.left().unwrap_or(now);
        let fate = Fate {
            what: Unattended::of(end, self.cx.fault),
            word: match (end, self.cx.fault) {
                (_, Some(fault)) => fault.reason(),
                (End::Complete, None) => "answered",
                (End::Failed, None) => "upstream_broken",
                (End::Abandoned, None) => "cut",
            },
            status: self.status.filter(|_| self.source == Source::Upstream),
            took: now.saturating_since(left),
        };
        (self.source, self.cx.fault) = (Source::Gateway, Some(Fault::ClientGone));
        let shard = &self.worker.shard;
        shard.aborted.add(1);
        shard.reject(Fault::ClientGone);
        shard.unattended(fate.what);
        let took = left.saturating_since(self.cx.started);
        self.count(CLIENT_CLOSED, took);
        if self.cx.logged.is_some() {
            self.log(end, 0, (CLIENT_CLOSED, took), Some(&fate));
        }
    }

    fn count(&self, status: StatusCode, took: Duration) {
        let shard = &self.worker.shard;
        shard.request(self.method, status);
        self.route().series.record(self.worker.index, self.source, status, took);
        if let Some(callers) = &self.view.callers {
            let client = self.cx.mini.as_deref();
            callers.series(client).record(self.worker.index, client.and_then(|client| client.env));
        }
        shard.finished.add(1);
    }

    fn settle(&mut self, end: End, now: Moment) {
        self.in_flight = None;
        self.places = [None, None, None];
        self.cx.holds.clear();
        let Some(lease) = self.lease.take() else { return };
        match end {
            End::Complete if self.unusable => lease.discard(Close::Unusable),
            End::Complete => lease.release(now),
            End::Failed => lease.discard(Close::Error),
            End::Abandoned => drop(lease),
        }
    }

    fn log(
        &mut self,
        end: End,
        bytes: u64,
        (status, took): (StatusCode, Duration),
        fate: Option<&Fate>,
    ) {
        let Self { cx, worker, view, route, source, pool, .. } = self;
        let mut log = worker.log.borrow_mut();
        let Some(log) = log.as_mut() else { return };
        let trace = cx.trace();
        let Some(logged) = &cx.logged else { return };
        let route = route.and_then(|index| view.routes.get(index)).unwrap_or(&view.unmatched);
        log.line(&view.settings.mask, |line| {
            line.text("timestamp", &timestamp());
            line.text("level", if status.is_server_error() { "error" } else { "info" });
            line.text("msg", "request");
            line.text("trace_id", trace.trace_hex().as_str());
            line.text("span_id", trace.span_hex().as_str());
            line.text("listener", &cx.peer.listener);
            line.text("route", &route.id);
            let own = || route.upstream.as_ref().map(|upstream| &upstream.name);
            let instead = cx.instead.as_ref().and_then(|instead| instead.upstream.as_ref());
            if let Some(upstream) = instead.or(pool.as_ref()).or_else(own) {
                line.text("upstream", upstream);
            }
            if let Some(endpoint) = &cx.endpoint {
                line.text("endpoint", endpoint);
            }
            line.text("client_ip", &cx.client.to_string());
            if let Some(client) = cx.peer.tls.as_ref().and_then(|tls| tls.client.as_ref()) {
                line.text("client_cert_sha256", client.sha256.to_str().unwrap_or_default());
                if let Some(name) = &client.common_name {
                    line.foreign("client_cert_cn", name.as_bytes());
                }
            }
            if let Some(name) = &cx.key_name {
                line.foreign("key", name.as_bytes());
            }
            if cx.batched {
                line.flag("batch", true);
            }
            line.text("scheme", if cx.peer.secure { "https" } else { "http" });
            line.text("proto", proto(logged.version));
            line.foreign("host", cx.host_name().as_bytes());
            line.foreign("method", logged.method.as_str().as_bytes());
            if cx.overridden {
                line.flag("method_override", true);
            }
            line.foreign("path", logged.path.as_bytes());
            if let Some(query) = &logged.query {
                line.foreign("query", query.as_bytes());
            }
            if let Some(agent) = &logged.user_agent {
                line.foreign("ua", agent.as_bytes());
            }
            if let Some(client) = &cx.mini {
                mini(line, client, &view.callers);
            }
            line.number("status", u64::from(status.as_u16()));
            line.text("source", source.as_str());
            outcome(line, cx, end);
            if let Some(fate) = fate {
                fate.tell(line);
            }
            if let Some(instead) = &cx.instead {
                line.text("fallback", instead.fault.reason());
            }
            if let Some(breaker) = &cx.breaker {
                line.text("breaker", breaker);
            }
            line.number("bytes_in", cx.upload.as_ref().map_or(0, |meter| meter.bytes.get()));
            line.number("bytes_out", bytes);
            line.millis("dur_ms", took);
            line.millis("t_gateway_ms", cx.timing.gateway);
            line.millis("t_connect_ms", cx.timing.connect);
            line.millis("t_upstream_ms", cx.timing.head);
            line.number("attempts", u64::from(cx.attempts));
            if let Some(why) = cx.retried {
                line.text("retry_reason", why);
            }
            line.flag("reused", cx.reused);
        });
    }
}

/// What became of a write after its client left.
struct Fate {
    what: Unattended,
    word: &'static str,
    /// What the service has answered.
    status: Option<StatusCode>,
    took: Duration,
}

impl Fate {
    fn tell(&self, line: &mut Line<'_>) {
        line.text("unattended", self.word);
        if let Some(status) = self.status {
            line.number("unattended_status", u64::from(status.as_u16()));
        }
        line.millis("unattended_ms", self.took);
    }
}

impl Unattended {
    fn of(end: End, fault: Option<Fault>) -> Self {
        match (end, fault) {
            (End::Complete, None) => Self::Answered,
            (End::Abandoned, None) => Self::Cut,
            (_, Some(_)) | (End::Failed, None) => Self::Failed,
        }
    }
}

/// What is known of the mini-program.
fn mini(line: &mut Line<'_>, client: &Client, callers: &Option<Callers>) {
    if let Some(app) = callers.as_ref().and_then(|callers| callers.apps.get(client.app?)) {
        line.text("app", &app.id);
    }
    line.text("mp_trust", client.trust.as_str());
    if let Some(platform) = client.platform {
        line.text("mp_platform", platform.as_str());
    }
    if let Some(env) = client.env {
        line.text("mp_env", env.as_str());
    }
    if let Some(version) = &client.version {
        line.foreign("mp_version", version.to_string().as_bytes());
    }
    if let Some(build) = &client.build {
        line.foreign("mp_build", build.as_bytes());
    }
    if let Some(lib) = &client.lib {
        line.foreign("mp_lib", lib.as_bytes());
    }
    if client.reviewed {
        line.flag("mp_review", true);
    }
}

/// The status of requests whose client did not wait, as nginx names it; never sent.
const CLIENT_CLOSED: StatusCode = match StatusCode::from_u16(499) {
    Ok(status) => status,
    Err(_) => StatusCode::BAD_REQUEST,
};

fn outcome(line: &mut Line<'_>, cx: &Cx, end: End) {
    if let Some(fault) = cx.fault {
        line.text("reason", fault.reason());
    } else if end != End::Complete {
        line.text("reason", if end == End::Failed { "upstream_broken" } else { "client_gone" });
    }
}

fn timestamp() -> String {
    let now = jiff::Timestamp::try_from(clock::wall()).unwrap_or_default();
    format!("{now:.3}")
}

fn proto(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_2 => "HTTP/2",
        http::Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

impl Ending for Record {
    fn ended(mut self: Box<Self>, end: End, bytes: u64) {
        self.close(end, bytes);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // Dropped before an answer was handed over: the client is gone.
        self.close(End::Abandoned, 0);
    }
}
