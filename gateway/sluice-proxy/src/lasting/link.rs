//! The lasting side of an endpoint. [`Target`] is what all workers share about an address of an
//! upstream (requests in flight, health, ejection); [`Link`] adds one way of talking to it (TLS, protocol,
//! pool settings), and is what pools are kept by. Same settings after a reload, same link, same
//! connections.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sluice_engine::{balance, breaker, ejection};
use tokio::sync::Semaphore;

use crate::base::clock::Moment;

/// What is known about one address of one upstream.
#[derive(Debug)]
pub(crate) struct Target {
    /// Requests between choice and last body byte, over all workers.
    in_flight: AtomicU32,
    /// Set by the health check while the address fails it.
    down: AtomicBool,
    /// Whether it is out of use because its requests fail.
    pub(crate) ejection: ejection::Cell,
    /// How long its answers take; only where that decides.
    pub(crate) latency: balance::Latency,
    /// When it came to a service that ran already, or back from its health check, in nanoseconds; 0 if it
    /// was there from the beginning.
    came: AtomicU64,
    /// Whether it is out of use because its own breaker says so.
    pub(crate) breaker: breaker::Cell,
    /// When it was first heard of.
    pub(crate) known: Moment,
    /// What the health check found, for people. Held for a few lines.
    checked: Mutex<Option<Checked>>,
    /// What it was ejected for last, for people. Held for a few lines.
    ejected: Mutex<String>,
}

/// What the health check says of an address.
#[derive(Debug, Clone)]
pub(crate) struct Checked {
    /// Since when its verdict is what it is.
    pub(crate) since: Moment,
    /// When it asked last.
    pub(crate) asked: Moment,
    /// What came of it.
    pub(crate) answer: String,
    /// Answers in a row that speak against the verdict.
    pub(crate) against: u32,
}

impl Target {
    /// An address that is heard of now; `fresh` if the service ran without it until now.
    pub(crate) fn new(now: Moment, fresh: bool) -> Self {
        Self {
            in_flight: AtomicU32::new(0),
            down: AtomicBool::new(false),
            ejection: ejection::Cell::default(),
            breaker: breaker::Cell::default(),
            latency: balance::Latency::default(),
            came: AtomicU64::new(if fresh { now.nanos().max(1) } else { 0 }),
            known: now,
            checked: Mutex::default(),
            ejected: Mutex::default(),
        }
    }

    /// Notes what the health check says; `None` when there is none any more.
    pub(crate) fn note_check(&self, checked: Option<Checked>) {
        *self.checked.lock().unwrap_or_else(PoisonError::into_inner) = checked;
    }

    pub(crate) fn checked(&self) -> Option<Checked> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what it was ejected for.
    pub(crate) fn note_ejection(&self, why: String) {
        *self.ejected.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    pub(crate) fn ejected_for(&self) -> String {
        self.ejected.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn is_up(&self) -> bool {
        !self.down.load(Ordering::Relaxed)
    }

    /// Returns whether this changed anything.
    pub(crate) fn set_up(&self, up: bool) -> bool {
        self.down.swap(!up, Ordering::Relaxed) == up
    }

    /// It is new, or was out of use until now.
    pub(crate) fn came(&self, now: Moment) {
        self.came.store(now.nanos().max(1), Ordering::Relaxed);
    }

    /// When that was, if ever.
    pub(crate) fn came_back(&self) -> Option<Moment> {
        let came = self.came.load(Ordering::Relaxed);
        (came > 0).then(|| Moment::from_nanos(came))
    }

    /// Counts a request until the guard is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }
}

/// One request in flight to a target.
pub(crate) struct InFlight(Arc<Target>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How to talk to an endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) tls: Option<Tls>,
    pub(crate) protocol: Protocol,
    pub(crate) connect: Duration,
    pub(crate) idle_per_endpoint: usize,
    pub(crate) idle_timeout: Duration,
    pub(crate) max_requests: u64,
    pub(crate) max_age: Duration,
    pub(crate) max_connections: usize,
    pub(crate) max_wait: Duration,
}

#[derive(Debug, Clone)]
pub(crate) struct Tls {
    pub(crate) config: Arc<rustls::ClientConfig>,
    pub(crate) server_name: rustls::pki_types::ServerName<'static>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// Why a connection to a service ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Close {
    /// Unused for `idle_timeout`.
    Idle,
    /// Served `max_requests`.
    Requests,
    /// Older than `max_age`.
    Age,
    /// The service closed it.
    Peer,
    /// It failed while a request was on it.
    Error,
    /// The client went away while it was in use.
    Abandoned,
    /// More idle connections than `idle_per_endpoint`.
    Surplus,
    /// Given up so that another worker could open one.
    Yielded,
    /// The answer forbade reuse (HTTP/1.0, `Connection: close`).
    Unusable,
    /// Its endpoint, or the way of talking to it, is no longer in the table.
    Gone,
}

const CLOSES: usize = 10;

impl Close {
    pub(crate) const ALL: [Self; CLOSES] = [
        Self::Idle,
        Self::Requests,
        Self::Age,
        Self::Peer,
        Self::Error,
        Self::Abandoned,
        Self::Surplus,
        Self::Yielded,
        Self::Unusable,
        Self::Gone,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle_timeout",
            Self::Requests => "max_requests",
            Self::Age => "max_age",
            Self::Peer => "peer_closed",
            Self::Error => "error",
            Self::Abandoned => "abandoned",
            Self::Surplus => "surplus",
            Self::Yielded => "yielded",
            Self::Unusable => "unusable",
            Self::Gone => "endpoint_gone",
        }
    }
}

/// What happened to the connections of one upstream, whichever of its endpoints they led to: counters
/// must not fall when an address goes.
#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) upstream: Arc<str>,
    pub(crate) opened: AtomicU64,
    pub(crate) reused: AtomicU64,
    /// Interim answers (1xx) that were dropped: hyper's server cannot pass them on.
    pub(crate) interim: AtomicU64,
    closed: [AtomicU64; CLOSES],
}

impl Counts {
    pub(crate) fn new(upstream: Arc<str>) -> Self {
        Self {
            upstream,
            opened: AtomicU64::new(0),
            reused: AtomicU64::new(0),
            interim: AtomicU64::new(0),
            closed: [const { AtomicU64::new(0) }; CLOSES],
        }
    }

    pub(crate) fn count_close(&self, why: Close) {
        if let Some(cell) = self.closed.get(why as usize) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn closed(&self, why: Close) -> u64 {
        self.closed.get(why as usize).map_or(0, |cell| cell.load(Ordering::Relaxed))
    }
}

/// One endpoint in one shape, shared by all workers. Snapshots and requests keep it alive, pools do
/// not: when nobody can ask for it any more, its connections go with it.
#[derive(Debug)]
pub(crate) struct Link {
    /// Unique in this process; what workers keep their pools by.
    pub(crate) id: u64,
    pub(crate) upstream: Arc<str>,
    pub(crate) address: SocketAddr,
    pub(crate) shape: Shape,
    /// One permit per open connection.
    pub(crate) permits: Arc<Semaphore>,
    /// Requests waiting for a permit, over all workers.
    pub(crate) waiting: AtomicUsize,
    /// Connections open and idle, over all workers.
    pub(crate) open: AtomicUsize,
    pub(crate) idle: AtomicUsize,
    pub(crate) counts: Arc<Counts>,
    /// Idle time the service announced (`Keep-Alive: timeout=`), in milliseconds; 0 if it did not.
    learned_idle: AtomicU64,
}

impl Link {
    pub(crate) fn new(counts: Arc<Counts>, address: SocketAddr, shape: Shape) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            upstream: Arc::clone(&counts.upstream),
            address,
            permits: Arc::new(Semaphore::new(shape.max_connections)),
            shape,
            waiting: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
            counts,
            learned_idle: AtomicU64::new(0),
        }
    }

    /// How long a connection may lie idle: the configured time, or a second less than what the
    /// service announced if that is shorter, since a request sent while it closes is lost.
    pub(crate) fn idle_timeout(&self) -> Duration {
        match self.learned_idle.load(Ordering::Relaxed) {
            0 => self.shape.idle_timeout,
            learned => self.shape.idle_timeout.min(Duration::from_millis(learned)),
        }
    }

    /// Remembers the service's own idle time.
    pub(crate) fn learn_idle(&self, announced: Duration) {
        let safe = announced.saturating_sub(Duration::from_secs(1)).max(Duration::from_millis(500));
        let millis = u64::try_from(safe.as_millis()).unwrap_or(u64::MAX);
        self.learned_idle.store(millis, Ordering::Relaxed);
    }
}
