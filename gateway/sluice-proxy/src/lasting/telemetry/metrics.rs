//! Counters without locks or shared cache lines: every worker writes its own shard with plain stores,
//! and the scrape adds the shards up. Series belong to routes and upstreams and die with them; labels
//! come from the config and from fixed words, never from a client.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Method, StatusCode};

use super::reasons::{BatchItem, Handshake, Introduction, Unattended};
use crate::base::fault::Fault;

/// A counter with a single writer.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// Only the owning worker may call this: it is a load and a store, no locked instruction.
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the latency buckets, nanoseconds.
pub(crate) const BUCKETS: [u64; 15] = [
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    15_000_000_000,
    30_000_000_000,
];

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Upstream,
    Gateway,
}

impl Source {
    pub(crate) const ALL: [Self; 2] = [Self::Upstream, Self::Gateway];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Gateway => "gateway",
        }
    }
}

/// Labels `method` can have.
pub(crate) const METHODS: [&str; 8] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "OTHER"];

/// Statuses counted by number; others are counted by class.
pub(crate) const STATUSES: [u16; 38] = [
    101, 200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 408, 409,
    410, 412, 413, 414, 415, 417, 421, 422, 426, 429, 431, 499, 500, 501, 502, 503, 504, 505, 508,
];
const CLASSES: usize = 5;
const CODES: usize = STATUSES.len() + CLASSES;

/// One worker's counters that belong to no route.
#[derive(Debug)]
pub(crate) struct Worker {
    requests: [[Count; CODES]; METHODS.len()],
    rejected: Vec<Count>,
    pub(crate) started: Count,
    pub(crate) finished: Count,
    pub(crate) connections_opened: Count,
    pub(crate) connections_closed: Count,
    /// Of those it accepted, handed to another worker.
    pub(crate) connections_handed: Count,
    /// Closed while at rest, to make room for others.
    pub(crate) connections_made_room: Count,
    /// Cut because memory was short.
    pub(crate) connections_shed: Count,
    pub(crate) connections_parked: Count,
    pub(crate) connections_unparked: Count,
    /// Ended by what hyper's HTTP/1 parser does not take, although the gate did.
    pub(crate) http1_broken: Count,
    /// Ended by a violation of HTTP/2.
    pub(crate) http2_broken: Count,
    handshakes_failed: [Count; Handshake::ALL.len()],
    introductions_failed: [Count; Introduction::ALL.len()],
    batch_items: [Count; BatchItem::ALL.len()],
    unattended: [Count; Unattended::ALL.len()],
    pub(crate) unattended_begun: Count,
    pub(crate) unattended_over: Count,
    pub(crate) accept_errors: Count,
    pub(crate) aborted: Count,
    pub(crate) panics: Count,
    pub(crate) tunnels_opened: Count,
    pub(crate) tunnels_closed: Count,
}

impl Worker {
    fn new() -> Self {
        Self {
            requests: std::array::from_fn(|_| std::array::from_fn(|_| Count::default())),
            rejected: Fault::ALL.iter().map(|_| Count::default()).collect(),
            started: Count::default(),
            finished: Count::default(),
            connections_opened: Count::default(),
            connections_closed: Count::default(),
            connections_handed: Count::default(),
            connections_made_room: Count::default(),
            connections_shed: Count::default(),
            connections_parked: Count::default(),
            connections_unparked: Count::default(),
            http1_broken: Count::default(),
            http2_broken: Count::default(),
            handshakes_failed: Default::default(),
            introductions_failed: Default::default(),
            batch_items: Default::default(),
            unattended: Default::default(),
            unattended_begun: Count::default(),
            unattended_over: Count::default(),
            accept_errors: Count::default(),
            aborted: Count::default(),
            panics: Count::default(),
            tunnels_opened: Count::default(),
            tunnels_closed: Count::default(),
        }
    }

    /// Client connections open now.
    pub(crate) fn open_connections(&self) -> u64 {
        self.connections_opened.get().saturating_sub(self.connections_closed.get())
    }

    /// Those of them that wait for a request.
    pub(crate) fn parked_connections(&self) -> u64 {
        self.connections_parked.get().saturating_sub(self.connections_unparked.get())
    }

    pub(crate) fn request(&self, method: usize, status: StatusCode) {
        if let Some(cell) = self.requests.get(method).and_then(|row| row.get(code(status))) {
            cell.add(1);
        }
    }

    /// A TLS handshake has failed.
    pub(crate) fn handshake_failed(&self, why: Handshake) {
        if let Some(cell) = self.handshakes_failed.get(why as usize) {
            cell.add(1);
        }
    }

    /// A connection was not served for want of a PROXY header.
    pub(crate) fn introduction_failed(&self, why: Introduction) {
        if let Some(cell) = self.introductions_failed.get(why as usize) {
            cell.add(1);
        }
    }

    /// A call of a batch is over.
    pub(crate) fn batch_item(&self, what: BatchItem) {
        if let Some(cell) = self.batch_items.get(what as usize) {
            cell.add(1);
        }
    }

    /// A write whose client left has come to this.
    pub(crate) fn unattended(&self, what: Unattended) {
        if let Some(cell) = self.unattended.get(what as usize) {
            cell.add(1);
        }
    }

    pub(crate) fn reject(&self, fault: Fault) {
        if let Some(cell) = self.rejected.get(fault.index()) {
            cell.add(1);
        }
    }
}

/// Position of a method's label.
pub(crate) fn method(method: &Method) -> usize {
    METHODS.iter().position(|known| *known == method.as_str()).unwrap_or(METHODS.len() - 1)
}

fn code(status: StatusCode) -> usize {
    let number = status.as_u16();
    STATUSES
        .binary_search(&number)
        .unwrap_or_else(|_| STATUSES.len() + usize::from(number / 100).clamp(1, CLASSES) - 1)
}

fn code_label(at: usize) -> String {
    STATUSES.get(at).map_or_else(|| format!("{}xx", at + 1 - STATUSES.len()), ToString::to_string)
}

/// All workers' shards, plus counters of the whole process.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) workers: Vec<Arc<Worker>>,
    pub(crate) log_dropped: AtomicU64,
    pub(crate) log_lines: AtomicU64,
}

impl Metrics {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers).map(|_| Arc::new(Worker::new())).collect(),
            log_dropped: AtomicU64::new(0),
            log_lines: AtomicU64::new(0),
        }
    }

    /// Sum over the workers of one counter.
    pub(crate) fn sum(&self, pick: impl Fn(&Worker) -> &Count) -> u64 {
        self.workers.iter().map(|worker| pick(worker).get()).sum()
    }

    /// Non-zero request counts as (method, status label, count).
    pub(crate) fn requests(&self) -> Vec<(&'static str, String, u64)> {
        let mut out = Vec::new();
        for (m, name) in METHODS.iter().enumerate() {
            for c in 0..CODES {
                let total: u64 = self
                    .workers
                    .iter()
                    .filter_map(|w| w.requests.get(m)?.get(c))
                    .map(Count::get)
                    .sum();
                if total > 0 {
                    out.push((*name, code_label(c), total));
                }
            }
        }
        out
    }

    /// TLS handshakes that failed for this reason.
    pub(crate) fn handshakes_failed(&self, why: Handshake) -> u64 {
        let cells = self.workers.iter().filter_map(|w| w.handshakes_failed.get(why as usize));
        cells.map(Count::get).sum()
    }

    /// Connections without a good PROXY header, for this reason.
    pub(crate) fn introductions_failed(&self, why: Introduction) -> u64 {
        let cells = self.workers.iter().filter_map(|w| w.introductions_failed.get(why as usize));
        cells.map(Count::get).sum()
    }

    /// Calls of batches that ended so.
    pub(crate) fn batch_items(&self, what: BatchItem) -> u64 {
        let cells = self.workers.iter().filter_map(|w| w.batch_items.get(what as usize));
        cells.map(Count::get).sum()
    }

    /// Writes that came to this without their clients.
    pub(crate) fn unattended(&self, what: Unattended) -> u64 {
        let cells = self.workers.iter().filter_map(|w| w.unattended.get(what as usize));
        cells.map(Count::get).sum()
    }

    /// Writes that are under way without their clients.
    pub(crate) fn open_unattended(&self) -> u64 {
        self.sum(|w| &w.unattended_begun).saturating_sub(self.sum(|w| &w.unattended_over))
    }

    /// Counts of refusals by fault.
    pub(crate) fn rejected(&self, fault: Fault) -> u64 {
        self.workers.iter().filter_map(|w| w.rejected.get(fault.index())).map(Count::get).sum()
    }
}

// === Series of a route ===

/// The series of one route; shards appear with the first request a worker serves on it.
#[derive(Debug)]
pub(crate) struct RouteSeries {
    pub(crate) id: Arc<str>,
    shards: Vec<OnceLock<Box<RouteShard>>>,
}

/// One worker's part of a route's series.
#[derive(Debug, Default)]
pub(crate) struct RouteShard {
    outcomes: [[Count; CLASSES]; 2],
    buckets: [Count; BUCKETS.len() + 1],
    sum_nanos: Count,
}

impl RouteSeries {
    pub(crate) fn new(id: Arc<str>, workers: usize) -> Self {
        Self { id, shards: (0..workers).map(|_| OnceLock::new()).collect() }
    }

    pub(crate) fn record(&self, worker: usize, source: Source, status: StatusCode, took: Duration) {
        let Some(shard) = self.shards.get(worker) else { return };
        let shard = shard.get_or_init(Box::default);
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES) - 1;
        if let Some(cell) = shard.outcomes.get(source as usize).and_then(|row| row.get(class)) {
            cell.add(1);
        }
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let at = BUCKETS.iter().position(|bound| nanos <= *bound).unwrap_or(BUCKETS.len());
        if let Some(cell) = shard.buckets.get(at) {
            cell.add(1);
        }
        shard.sum_nanos.add(nanos);
    }

    fn live(&self) -> impl Iterator<Item = &RouteShard> {
        self.shards.iter().filter_map(OnceLock::get).map(Box::as_ref)
    }

    /// Counts as (source, status class 1..=5, count), non-zero only.
    pub(crate) fn outcomes(&self) -> Vec<(Source, usize, u64)> {
        let mut out = Vec::new();
        for source in Source::ALL {
            for class in 0..CLASSES {
                let total: u64 = self
                    .live()
                    .filter_map(|shard| shard.outcomes.get(source as usize)?.get(class))
                    .map(Count::get)
                    .sum();
                if total > 0 {
                    out.push((source, class + 1, total));
                }
            }
        }
        out
    }

    /// Bucket counts (not cumulative, the last one is +Inf) and the sum in seconds; none before the
    /// first request.
    pub(crate) fn latency(&self) -> Option<(Vec<u64>, f64)> {
        self.live().next()?;
        let buckets = (0..=BUCKETS.len())
            .map(|at| self.live().filter_map(|s| s.buckets.get(at)).map(Count::get).sum())
            .collect();
        let nanos: u64 = self.live().map(|shard| shard.sum_nanos.get()).sum();
        Some((buckets, Duration::from_nanos(nanos).as_secs_f64()))
    }
}

// === Series of an upstream ===

/// The series of one upstream.
#[derive(Debug)]
pub(crate) struct UpstreamSeries {
    shards: Vec<OnceLock<Box<UpstreamShard>>>,
}

#[derive(Debug)]
struct UpstreamShard {
    answers: [Count; CLASSES],
    faults: Vec<Count>,
}

impl UpstreamSeries {
    pub(crate) fn new(workers: usize) -> Self {
        Self { shards: (0..workers).map(|_| OnceLock::new()).collect() }
    }

    pub(crate) fn answered(&self, worker: usize, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES) - 1;
        if let Some(cell) = self.shard(worker).and_then(|shard| shard.answers.get(class)) {
            cell.add(1);
        }
    }

    pub(crate) fn failed(&self, worker: usize, fault: Fault) {
        if let Some(cell) = self.shard(worker).and_then(|shard| shard.faults.get(fault.index())) {
            cell.add(1);
        }
    }

    fn shard(&self, worker: usize) -> Option<&UpstreamShard> {
        let make = || {
            Box::new(UpstreamShard {
                answers: Default::default(),
                faults: Fault::ALL.iter().map(|_| Count::default()).collect(),
            })
        };
        Some(self.shards.get(worker)?.get_or_init(make))
    }

    /// Attempts that have ended, whichever way, and those that were answered well: with a status below
    /// 500.
    pub(crate) fn attempts(&self) -> (u64, u64) {
        self.live().fold((0, 0), |(all, well), shard| {
            let answers: u64 = shard.answers.iter().map(Count::get).sum();
            let errors = shard.answers.last().map_or(0, Count::get);
            let faults: u64 = shard.faults.iter().map(Count::get).sum();
            (all + answers + faults, well + answers.saturating_sub(errors))
        })
    }

    /// Answers by status class 1..=5.
    pub(crate) fn answers(&self) -> Vec<(usize, u64)> {
        let sum = |class: usize| {
            self.live().filter_map(|shard| shard.answers.get(class)).map(Count::get).sum()
        };
        (0..CLASSES).map(|class| (class + 1, sum(class))).filter(|(_, n)| *n > 0).collect()
    }

    /// Attempts that got no answer, by fault.
    pub(crate) fn faults(&self) -> Vec<(Fault, u64)> {
        let sum = |fault: Fault| {
            self.live().filter_map(|shard| shard.faults.get(fault.index())).map(Count::get).sum()
        };
        Fault::ALL.iter().map(|fault| (*fault, sum(*fault))).filter(|(_, n)| *n > 0).collect()
    }

    fn live(&self) -> impl Iterator<Item = &UpstreamShard> {
        self.shards.iter().filter_map(OnceLock::get).map(Box::as_ref)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_sorted_and_unknown_ones_count_by_class() {
        assert!(STATUSES.is_sorted());
        let metrics = Metrics::new(2);
        for (worker, status) in metrics.workers.iter().zip([200_u16, 299]) {
            worker.request(method(&Method::GET), StatusCode::from_u16(status).unwrap());
        }
        let counted = metrics.requests();
        assert_eq!(counted, vec![("GET", "200".to_owned(), 1), ("GET", "2xx".to_owned(), 1)]);
    }

    #[test]
    fn a_route_adds_up_its_shards() {
        let series = RouteSeries::new("r".into(), 2);
        assert!(series.latency().is_none());
        series.record(0, Source::Upstream, StatusCode::OK, Duration::from_millis(2));
        series.record(1, Source::Gateway, StatusCode::UNAUTHORIZED, Duration::from_secs(60));
        let (buckets, sum) = series.latency().unwrap();
        assert_eq!((buckets[1], buckets[BUCKETS.len()]), (1, 1));
        assert!((sum - 60.002).abs() < 1e-9);
        assert_eq!(series.outcomes(), vec![(Source::Upstream, 2, 1), (Source::Gateway, 4, 1)]);
    }
}
