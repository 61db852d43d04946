//! Everything the gateway counts, as Prometheus families. Only the admin thread runs this: a scrape
//! adds up shards and never stops a worker.

mod breakers;
mod broker;
mod itself;
mod keys;
mod login;
mod unattended;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Encoder as _, Registry, TextEncoder};
use sluice_engine::ejection::Reason;
use sluice_engine::pressure::Stage;

use super::shared::Shared;
use crate::base::fault::Fault;
use crate::lasting::bulkhead::Bulkhead;
use crate::lasting::link::{Close, Counts, Link};
use crate::lasting::telemetry::apps::{ContractSeries, Kept};
use crate::lasting::telemetry::families::Family;
use crate::lasting::telemetry::metrics::RouteSeries;
use crate::lasting::telemetry::reasons::{Handshake, Introduction};
use crate::parts::caller::Callers;
use crate::parts::upstream::{Kind, Service};
use crate::snapshot::compile::Snapshot;

/// A registry over the gateway and the process.
pub(crate) fn registry(shared: &Arc<Shared>) -> Result<Registry, prometheus::Error> {
    let application = shared.live.snapshot().settings.application.clone();
    let labels = [("application".to_owned(), application)].into_iter().collect();
    let registry = Registry::new_custom(None, Some(labels))?;
    registry
        .register(Box::new(Gateway { shared: Arc::clone(shared), descriptions: describe()? }))?;
    #[cfg(target_os = "linux")]
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    Ok(registry)
}

/// The text format of one scrape.
pub(crate) fn text(registry: &Registry) -> Result<Vec<u8>, prometheus::Error> {
    let mut out = Vec::with_capacity(64 * 1024);
    TextEncoder::new().encode(&registry.gather(), &mut out)?;
    Ok(out)
}

struct Gateway {
    shared: Arc<Shared>,
    descriptions: Vec<Desc>,
}

/// The registry wants to know a collector by something.
fn describe() -> Result<Vec<Desc>, prometheus::Error> {
    let labels = std::collections::HashMap::new();
    let desc =
        Desc::new("sluice_build_info".to_owned(), "The gateway.".to_owned(), Vec::new(), labels)?;
    Ok(vec![desc])
}

impl Collector for Gateway {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut out = Vec::new();
        let snapshot = self.shared.live.snapshot();
        requests(&self.shared, &mut out);
        unattended::writes(&self.shared.workshop.metrics, &mut out);
        routes(&self.shared, &snapshot, &mut out);
        upstreams(&snapshot, &mut out);
        breakers::fallbacks(&self.shared.workshop.retained, &mut out);
        breakers::writes(&self.shared.status, &mut out);
        pools(&self.shared, &mut out);
        clients(&self.shared, &mut out);
        handshakes(&self.shared, &mut out);
        certificates(&snapshot, &mut out);
        overload(&self.shared, &snapshot, &mut out);
        keys::sets(&self.shared, &mut out);
        login::logins(&snapshot, &mut out);
        broker::calls(&self.shared, &snapshot, &mut out);
        config(&self.shared, &snapshot, &mut out);
        itself::process(&self.shared, &mut out);
        out
    }
}

fn requests(shared: &Shared, out: &mut Vec<MetricFamily>) {
    let metrics = &shared.workshop.metrics;
    let mut requests =
        Family::counter("http_requests_total", "Requests answered, by method and status.");
    for (method, status, count) in metrics.requests() {
        requests.add(&[("method", method), ("status", &status)], count);
    }
    requests.done(out);
    let mut rejected = Family::counter(
        "sluice_rejected_total",
        "Requests the gateway itself answered, by reason.",
    );
    for fault in Fault::ALL {
        rejected.add(&[("reason", fault.reason())], metrics.rejected(*fault));
    }
    rejected.done(out);
    let mut in_flight =
        Family::gauge("sluice_http_requests_in_flight", "Requests between head and last byte.");
    let open = metrics.sum(|w| &w.started).saturating_sub(metrics.sum(|w| &w.finished));
    in_flight.add(&[], open);
    in_flight.done(out);
    for (name, help, count) in [
        (
            "sluice_client_aborts_total",
            "Answers whose client went away.",
            metrics.sum(|w| &w.aborted),
        ),
        ("sluice_panics_total", "Requests that ended in a panic.", metrics.sum(|w| &w.panics)),
    ] {
        let mut family = Family::counter(name, help);
        family.add(&[], count);
        family.done(out);
    }
}

fn routes(shared: &Shared, snapshot: &Snapshot, out: &mut Vec<MetricFamily>) {
    let mut active = Family::gauge("gateway_routes_active", "Routes in the table in force.");
    active.add(&[], snapshot.routes.len() as u64);
    active.done(out);
    let mut by_route = Family::counter(
        "gateway_requests_by_route_total",
        "Requests by route, status class and who answered.",
    );
    let mut latency = Family::histogram(
        "gateway_requests_seconds",
        "Time from head to last byte of the answer, by route.",
    );
    // Routes that are gone still show while requests of theirs are under way.
    for series in shared.workshop.retained.all::<RouteSeries>() {
        for (source, class, count) in series.outcomes() {
            let class = format!("{class}xx");
            by_route.add(
                &[("route", &series.id), ("class", &class), ("source", source.as_str())],
                count,
            );
        }
        if let Some((buckets, sum)) = series.latency() {
            latency.add_histogram(&[("route", &series.id)], &buckets, sum);
        }
    }
    by_route.done(out);
    latency.done(out);
    let mut apps = Family::counter(
        "sluice_app_requests_total",
        "Requests by the mini-program they say they come from, and the kind of its build.",
    );
    for series in snapshot.callers.iter().flat_map(Callers::counted) {
        for (env, count) in series.counts() {
            apps.add(&[("app", &series.id), ("env", env)], count);
        }
    }
    apps.done(out);
    let mut contracts = Family::counter(
        "sluice_contract_requests_total",
        "Requests to a service under contract, by what became of them.",
    );
    for series in shared.workshop.retained.all::<ContractSeries>() {
        for kept in Kept::ALL {
            let labels = [("service", &*series.service), ("verdict", kept.as_str())];
            contracts.add(&labels, series.count(kept));
        }
    }
    contracts.done(out);
}

fn services(snapshot: &Snapshot) -> impl Iterator<Item = (&str, &Service)> {
    snapshot.upstreams.values().filter_map(|upstream| match &upstream.kind {
        Kind::Service(service) => Some((&*upstream.name, &**service)),
        Kind::Builtin(_) => None,
    })
}

fn upstreams(snapshot: &Snapshot, out: &mut Vec<MetricFamily>) {
    let mut calls =
        Family::counter("http_client_requests_total", "Answers from upstreams, by status class.");
    let mut errors =
        Family::counter("sluice_upstream_errors_total", "Attempts that got no answer, by reason.");
    let mut up =
        Family::gauge("sluice_endpoint_up", "Whether an endpoint passes its health check.");
    let mut busy =
        Family::gauge("sluice_endpoint_requests_in_flight", "Requests in flight to an endpoint.");
    let mut ejected = Family::gauge(
        "sluice_endpoint_ejected",
        "Whether an endpoint is out of use because its requests fail.",
    );
    let mut ejections =
        Family::counter("sluice_endpoint_ejections_total", "Ejections of an endpoint, by reason.");
    let mut panic = Family::gauge(
        "sluice_upstream_panic",
        "Whether so few endpoints are up that all are used.",
    );
    let now = crate::base::clock::now();
    for (name, service) in services(snapshot) {
        for (class, count) in service.series.answers() {
            calls.add(&[("upstream", name), ("class", &format!("{class}xx"))], count);
        }
        for (fault, count) in service.series.faults() {
            errors.add(&[("upstream", name), ("reason", fault.reason())], count);
        }
        let mut seen = std::collections::BTreeSet::new();
        let set = service.endpoints.load();
        panic.add(&[("upstream", name)], u64::from(set.panics(now)));
        for endpoint in &set.endpoints {
            if seen.insert(Arc::clone(&endpoint.label)) {
                let labels = [("upstream", name), ("endpoint", &*endpoint.label)];
                up.add(&labels, u64::from(endpoint.target.is_up()));
                busy.add(&labels, u64::from(endpoint.target.in_flight()));
                ejected.add(&labels, u64::from(set.is_ejected(endpoint, now)));
                let [upstream, endpoint_label] = labels;
                for reason in Reason::ALL {
                    let count = endpoint.target.ejection.ejections(reason);
                    let reason = ("reason", reason.as_str());
                    ejections.add(&[upstream, endpoint_label, reason], count);
                }
            }
        }
    }
    [calls, errors, up, busy, ejected, ejections, panic]
        .into_iter()
        .for_each(|family| family.done(out));
    breakers::breakers(snapshot, out);
    retries(snapshot, out);
}

fn retries(snapshot: &Snapshot, out: &mut Vec<MetricFamily>) {
    let mut exhausted = Family::counter(
        "sluice_retry_budget_exhausted_total",
        "Further attempts that were not made because the budget was used up.",
    );
    let mut again =
        Family::counter("sluice_upstream_retries_total", "Further attempts, by reason.");
    let mut unkept = Family::counter(
        "sluice_retry_body_gone_total",
        "Further attempts that were not made because the body was not kept.",
    );
    for (name, service) in services(snapshot) {
        exhausted.add(&[("upstream", name)], service.retries.refused());
        unkept.add(&[("upstream", name)], service.retries.unkept());
        for (why, count) in service.retries.made() {
            again.add(&[("upstream", name), ("reason", why.as_str())], count);
        }
    }
    [exhausted, again, unkept].into_iter().for_each(|family| family.done(out));
}

/// Sums of one upstream's links, now.
#[derive(Default)]
struct Pool {
    open: u64,
    idle: u64,
    waiting: u64,
}

fn pools(shared: &Shared, out: &mut Vec<MetricFamily>) {
    let retained = &shared.workshop.retained;
    let mut by_upstream: std::collections::BTreeMap<Arc<str>, Pool> =
        std::collections::BTreeMap::new();
    for link in retained.all::<Link>() {
        let pool = by_upstream.entry(Arc::clone(&link.upstream)).or_default();
        pool.open += link.open.load(Ordering::Relaxed) as u64;
        pool.idle += link.idle.load(Ordering::Relaxed) as u64;
        pool.waiting += link.waiting.load(Ordering::Relaxed) as u64;
    }
    let mut connections = Family::gauge("sluice_pool_connections", "Connections to upstreams.");
    let mut waiting = Family::gauge("sluice_pool_waiting", "Requests waiting for a connection.");
    for (name, pool) in &by_upstream {
        let in_use = pool.open.saturating_sub(pool.idle);
        connections.add(&[("upstream", name), ("state", "idle")], pool.idle);
        connections.add(&[("upstream", name), ("state", "in_use")], in_use);
        waiting.add(&[("upstream", name)], pool.waiting);
    }
    let mut opened = Family::counter("sluice_pool_opened_total", "Connections made to upstreams.");
    let mut reused =
        Family::counter("sluice_pool_reused_total", "Requests sent on a kept connection.");
    let mut interim = Family::counter(
        "sluice_upstream_interim_total",
        "Interim answers (1xx) of services that were dropped.",
    );
    let mut closed = Family::counter("sluice_pool_closed_total", "Connections closed, by reason.");
    for counts in retained.all::<Counts>() {
        let name = &*counts.upstream;
        opened.add(&[("upstream", name)], counts.opened.load(Ordering::Relaxed));
        reused.add(&[("upstream", name)], counts.reused.load(Ordering::Relaxed));
        interim.add(&[("upstream", name)], counts.interim.load(Ordering::Relaxed));
        for why in Close::ALL {
            closed.add(&[("upstream", name), ("reason", why.as_str())], counts.closed(why));
        }
    }
    [connections, opened, reused, interim, closed, waiting]
        .into_iter()
        .for_each(|family| family.done(out));
}

fn clients(shared: &Shared, out: &mut Vec<MetricFamily>) {
    let metrics = &shared.workshop.metrics;
    let opened = metrics.sum(|w| &w.connections_opened);
    let tunnels = metrics.sum(|w| &w.tunnels_opened);
    for (name, help, count) in [
        ("sluice_client_connections_accepted_total", "Client connections accepted.", opened),
        (
            "sluice_client_connections_handed_total",
            "Client connections handed to another worker.",
            metrics.sum(|w| &w.connections_handed),
        ),
        ("sluice_accept_errors_total", "Failed accepts.", metrics.sum(|w| &w.accept_errors)),
        ("sluice_tunnels_opened_total", "Connections switched to another protocol.", tunnels),
        (
            "sluice_log_lines_total",
            "Access log lines written.",
            metrics.log_lines.load(Ordering::Relaxed),
        ),
        (
            "sluice_log_dropped_total",
            "Access log lines dropped.",
            metrics.log_dropped.load(Ordering::Relaxed),
        ),
    ] {
        let mut family = Family::counter(name, help);
        family.add(&[], count);
        family.done(out);
    }
    let mut open = Family::gauge("sluice_client_connections", "Client connections open.");
    open.add(&[], metrics.workers.iter().map(|worker| worker.open_connections()).sum());
    open.done(out);
    let mut each = Family::gauge("sluice_worker_connections", "Client connections by worker.");
    for (index, worker) in metrics.workers.iter().enumerate() {
        each.add(&[("worker", &index.to_string())], worker.open_connections());
    }
    each.done(out);
    let mut parked = Family::gauge(
        "sluice_client_connections_parked",
        "Client connections that wait for a request and hold no buffers.",
    );
    parked.add(&[], metrics.workers.iter().map(|worker| worker.parked_connections()).sum());
    parked.done(out);
    let mut broken = Family::counter(
        "sluice_client_protocol_errors_total",
        "Client connections ended by a violation of their protocol, by protocol.",
    );
    broken.add(&[("proto", "http1")], metrics.sum(|w| &w.http1_broken));
    broken.add(&[("proto", "http2")], metrics.sum(|w| &w.http2_broken));
    broken.done(out);
    let mut spared = Family::counter(
        "sluice_client_connections_ended_total",
        "Client connections ended for the sake of others, by reason.",
    );
    spared.add(&[("reason", "room")], metrics.sum(|w| &w.connections_made_room));
    spared.add(&[("reason", "memory")], metrics.sum(|w| &w.connections_shed));
    spared.done(out);
    let mut websockets = Family::gauge("sluice_websocket_connections", "Tunnels open.");
    websockets.add(&[], tunnels.saturating_sub(metrics.sum(|w| &w.tunnels_closed)));
    websockets.done(out);
}

fn handshakes(shared: &Shared, out: &mut Vec<MetricFamily>) {
    let metrics = &shared.workshop.metrics;
    let mut errors =
        Family::counter("sluice_tls_handshake_errors_total", "TLS handshakes that failed.");
    for why in Handshake::ALL {
        errors.add(&[("reason", why.as_str())], metrics.handshakes_failed(why));
    }
    errors.done(out);
    let mut unknown = Family::counter(
        "sluice_proxy_protocol_errors_total",
        "Connections that did not begin with a PROXY header of a trusted proxy.",
    );
    for why in Introduction::ALL {
        unknown.add(&[("reason", why.as_str())], metrics.introductions_failed(why));
    }
    unknown.done(out);
}

/// By listener and the first name of a certificate.
fn certificates(snapshot: &Snapshot, out: &mut Vec<MetricFamily>) {
    let mut begins = Family::gauge(
        "sluice_tls_cert_not_before_timestamp_seconds",
        "When a certificate begins to be valid, by its first name.",
    );
    let mut ends = Family::gauge(
        "sluice_tls_cert_not_after_timestamp_seconds",
        "When a certificate expires, by its first name.",
    );
    for listener in &snapshot.listeners {
        // Two certificates may be for one name; a series is there once, for the one that ends first.
        let mut first = std::collections::BTreeMap::new();
        for served in listener.tls.iter().flat_map(|tls| tls.all()) {
            let span = (served.not_after, served.not_before);
            let known = first.entry(served.name.as_str()).or_insert(span);
            *known = span.min(*known);
        }
        for (name, (not_after, not_before)) in first {
            let labels = [("listener", &*listener.name), ("sni", name)];
            begins.add(&labels, u64::try_from(not_before).unwrap_or(0));
            ends.add(&labels, u64::try_from(not_after).unwrap_or(0));
        }
    }
    begins.done(out);
    ends.done(out);
}

fn config(shared: &Shared, snapshot: &Snapshot, out: &mut Vec<MetricFamily>) {
    let status = &shared.status;
    let mut reloads = Family::counter("sluice_config_reloads_total", "Reloads, by result.");
    reloads.add(&[("result", "accepted")], status.reloads_ok.load(Ordering::Relaxed));
    reloads.add(&[("result", "rejected")], status.reloads_rejected.load(Ordering::Relaxed));
    reloads.done(out);
    for (name, help, value) in [
        (
            "sluice_config_last_reload_successful",
            "Whether the config on disk is the one in force.",
            u64::from(status.last_reload_ok.load(Ordering::Relaxed)),
        ),
        (
            "sluice_config_last_success_timestamp_seconds",
            "When a config was last accepted.",
            status.last_success.load(Ordering::Relaxed),
        ),
        (
            "sluice_config_generation",
            "Configs accepted since start.",
            status.generation.load(Ordering::Relaxed),
        ),
        ("sluice_ready", "Whether the gateway wants requests.", u64::from(shared.is_ready())),
    ] {
        let mut family = Family::gauge(name, help);
        family.add(&[], value);
        family.done(out);
    }
    let mut info = Family::gauge("sluice_config_info", "The config in force.");
    info.add(&[("hash", &snapshot.hash)], 1);
    info.done(out);
}

fn overload(shared: &Shared, snapshot: &Snapshot, out: &mut Vec<MetricFamily>) {
    let mut in_progress =
        Family::gauge("sluice_bulkhead_in_progress", "Requests that hold a place of a bulkhead.");
    let mut waiting =
        Family::gauge("sluice_bulkhead_waiting", "Requests that wait for a place of a bulkhead.");
    let mut refused = Family::counter(
        "sluice_bulkhead_refused_total",
        "Requests that a bulkhead refused, or that waited in vain.",
    );
    for bulkhead in shared.workshop.retained.all::<Bulkhead>() {
        let labels = [("bulkhead", bulkhead.name.as_str())];
        in_progress.add(&labels, u64::from(bulkhead.in_progress()));
        waiting.add(&labels, u64::from(bulkhead.waiting()));
        refused.add(&labels, bulkhead.refused());
    }
    [in_progress, waiting, refused].into_iter().for_each(|family| family.done(out));
    let status = &shared.status;
    let now = usize::from(status.stage.load(Ordering::Relaxed));
    let mut stage =
        Family::gauge("sluice_memory_stage", "1 for what is done about the use of memory, else 0.");
    for (index, known) in Stage::ALL.iter().enumerate() {
        stage.add(&[("stage", known.as_str())], u64::from(index == now));
    }
    stage.done(out);
    for (name, help, value) in [
        (
            "sluice_memory_limit_bytes",
            "Memory the gateway may use; 0 if nobody says.",
            snapshot.settings.overload.memory_limit.unwrap_or(0),
        ),
        (
            "sluice_memory_used_bytes",
            "Resident memory when it was last looked at.",
            status.memory.load(Ordering::Relaxed),
        ),
        (
            "sluice_client_connections_limit",
            "Client connections that all listeners together take.",
            shared.places.limit() as u64,
        ),
    ] {
        let mut family = Family::gauge(name, help);
        family.add(&[], value);
        family.done(out);
    }
}
