//! What is counted about mini-programs. Labels are the ids that the config declares, and fixed words.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use sluice_engine::mini::Env;

use super::metrics::Count;

// === Series of an app ===

/// Requests of one mini-program by the kind of its build.
#[derive(Debug)]
pub(crate) struct AppSeries {
    pub(crate) id: Arc<str>,
    shards: Vec<OnceLock<Box<[Count; Env::ALL.len() + 1]>>>,
}

impl AppSeries {
    pub(crate) fn new(id: Arc<str>, workers: usize) -> Self {
        Self { id, shards: (0..workers).map(|_| OnceLock::new()).collect() }
    }

    pub(crate) fn record(&self, worker: usize, env: Option<Env>) {
        let Some(shard) = self.shards.get(worker) else { return };
        let at = env.map_or(Env::ALL.len(), |env| env as usize);
        if let Some(cell) = shard.get_or_init(Box::default).get(at) {
            cell.add(1);
        }
    }

    /// Counts by environment, non-zero only.
    pub(crate) fn counts(&self) -> Vec<(&'static str, u64)> {
        let words = Env::ALL.map(Env::as_str).into_iter().chain(["unknown"]);
        let sum = |at: usize| {
            self.shards.iter().filter_map(|shard| shard.get()?.get(at)).map(Count::get).sum()
        };
        words.enumerate().map(|(at, word)| (word, sum(at))).filter(|(_, n)| *n > 0).collect()
    }
}

// === Contracts ===

/// What became of requests to a service under contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// A pool fits the client's build.
    Fitting,
    /// None does: it went to the previous one,
    Previous,
    /// was refused,
    Blocked,
    /// or passed.
    Warned,
    /// The client does not say its build.
    Unsaid,
}

impl Kept {
    pub(crate) const ALL: [Self; 5] =
        [Self::Fitting, Self::Previous, Self::Blocked, Self::Warned, Self::Unsaid];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Fitting => "fitting",
            Self::Previous => "previous",
            Self::Blocked => "blocked",
            Self::Warned => "warned",
            Self::Unsaid => "unsaid",
        }
    }
}

/// Counts of one service under contract, for all workers.
#[derive(Debug)]
pub(crate) struct ContractSeries {
    pub(crate) service: Arc<str>,
    counts: [AtomicU64; Kept::ALL.len()],
}

impl ContractSeries {
    pub(crate) fn new(service: Arc<str>) -> Self {
        Self { service, counts: Default::default() }
    }

    pub(crate) fn add(&self, kept: Kept) {
        if let Some(count) = self.counts.get(kept as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn count(&self, kept: Kept) -> u64 {
        self.counts.get(kept as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}
