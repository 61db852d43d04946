//! What of logins outlives a reload: for each app its breaker, its places and its counts; and which codes
//! are being exchanged at this moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sluice_engine::window::{self, Verdict};
use sluice_engine::{breaker, window::Counter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::limits::Table;
use super::telemetry::metrics::BUCKETS;
use crate::base::clock::{self, Moment};
use crate::base::fault::Fault;

pub(crate) mod flights;
pub(crate) mod seen;

/// An app's counter: what it is asked, and how its platform fares.
pub(crate) struct Desk {
    pub(crate) app: Arc<str>,
    pub(crate) breaker: breaker::Cell,
    places: Arc<Semaphore>,
    calls: Table<Counter>,
    users: Table<Counter>,
    addresses: Table<Counter>,
    outcomes: [AtomicU64; Fault::ALL.len() + 2],
    took: [AtomicU64; BUCKETS.len() + 1],
    took_nanos: AtomicU64,
}

/// How a login ended, for its counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    /// The answer to the same code was given again.
    Replayed,
    Refused(Fault),
}

/// Leave to call a platform, which comes back even if the call is given up.
pub(crate) struct Ticket<'a> {
    desk: &'a Desk,
    rules: &'a breaker::Rules,
    ticket: Option<breaker::Ticket>,
    began: Moment,
}

/// What a limit is counted by.
#[derive(Debug, Clone, Copy)]
pub(crate) enum By<'a> {
    App,
    User(&'a str),
    Address(std::net::IpAddr),
}

/// Exchanges that may run at a time, whatever the config says: the places of a desk outlive it.
pub(crate) const MOST_AT_ONCE: usize = 10_000;

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Desk").field(&self.app).finish()
    }
}

impl Outcome {
    fn index(self) -> usize {
        match self {
            Self::Ok => 0,
            Self::Replayed => 1,
            Self::Refused(fault) => 2 + fault.index(),
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Replayed => "replayed",
            Self::Refused(fault) => fault.reason(),
        }
    }
}

impl Ticket<'_> {
    /// The call is over: notes how long it took, and what the breaker is to think of it.
    pub(crate) fn record(mut self, outcome: breaker::Outcome) {
        self.desk.timed(clock::now().saturating_since(self.began));
        self.give_back(outcome);
    }

    fn give_back(&mut self, outcome: breaker::Outcome) {
        let Some(ticket) = self.ticket.take() else { return };
        let now = clock::now();
        let report = breaker::Report { outcome, took: now.saturating_since(self.began), id: 0 };
        let cell = &self.desk.breaker;
        let changed = cell.record(self.rules, now, ticket, &report, fastrand::u64(..));
        if let Some(transition) = changed {
            self.desk.tell(transition);
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.give_back(breaker::Outcome::Ignored);
    }
}

impl Desk {
    pub(crate) fn new(app: Arc<str>) -> Self {
        Self {
            app,
            breaker: breaker::Cell::default(),
            places: Arc::new(Semaphore::new(MOST_AT_ONCE)),
            calls: Table::new(),
            users: Table::new(),
            addresses: Table::new(),
            outcomes: std::array::from_fn(|_| AtomicU64::new(0)),
            took: std::array::from_fn(|_| AtomicU64::new(0)),
            took_nanos: AtomicU64::new(0),
        }
    }

    /// A place among `at_once` exchanges, waited for until `deadline`.
    pub(crate) async fn place(
        &self,
        at_once: usize,
        deadline: Moment,
    ) -> Option<OwnedSemaphorePermit> {
        // All but `at_once` places are out of reach: so a reload may change the number.
        let kept = MOST_AT_ONCE.saturating_sub(at_once);
        let wait = async {
            loop {
                if self.places.available_permits() > kept
                    && let Ok(permit) = Arc::clone(&self.places).try_acquire_owned()
                {
                    return permit;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout_at(clock::deadline(deadline), wait).await.ok()
    }

    /// Asks the breaker for a call; tells how long to stay away if it refuses.
    pub(crate) fn admit<'a>(&'a self, rules: &'a breaker::Rules) -> Result<Ticket<'a>, Duration> {
        let began = clock::now();
        let admission = self.breaker.admit(rules, began, fastrand::u64(..));
        let admission = admission.map_err(|refusal| refusal.retry_after)?;
        if let Some(transition) = admission.transition {
            self.tell(transition);
        }
        Ok(Ticket { desk: self, rules, ticket: Some(admission.ticket), began })
    }

    fn tell(&self, transition: breaker::Transition) {
        let (to, why) = (transition.to, transition.why);
        tracing::warn!(app = %self.app, ?to, ?why, "the breaker of a platform has changed");
    }

    /// Counts one call of a limit.
    pub(crate) fn count(&self, by: By<'_>, limit: u64, per: Duration) -> Verdict {
        let (rules, now) = (window::Rules { limit, per }, clock::now());
        match by {
            By::App => self.calls.hit(b"", &rules, now),
            By::User(user) => self.users.hit(user.as_bytes(), &rules, now),
            By::Address(std::net::IpAddr::V4(v4)) => self.addresses.hit(&v4.octets(), &rules, now),
            // One household has so many addresses.
            By::Address(std::net::IpAddr::V6(v6)) => {
                self.addresses.hit(v6.octets().get(..8).unwrap_or_default(), &rules, now)
            }
        }
    }

    pub(crate) fn note(&self, outcome: Outcome) {
        if let Some(count) = self.outcomes.get(outcome.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How long a platform took for its answer.
    fn timed(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.partition_point(|bound| *bound < nanos);
        if let Some(count) = self.took.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.took_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// Outcomes that happened, by their words.
    pub(crate) fn outcomes(&self) -> Vec<(&'static str, u64)> {
        let refused = Fault::ALL.iter().map(|fault| Outcome::Refused(*fault));
        let all = [Outcome::Ok, Outcome::Replayed].into_iter().chain(refused);
        let counted = |outcome: Outcome| {
            let count = self.outcomes.get(outcome.index())?.load(Ordering::Relaxed);
            Some((outcome.as_str(), count))
        };
        all.filter_map(counted).filter(|(_, count)| *count > 0).collect()
    }

    /// Counts by bucket, and the sum in seconds.
    pub(crate) fn latency(&self) -> (Vec<u64>, f64) {
        let counts = self.took.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let sum = Duration::from_nanos(self.took_nanos.load(Ordering::Relaxed));
        (counts, sum.as_secs_f64())
    }
}
