//! The snapshot in force.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::compile::Snapshot;

/// Where the current snapshot is published and read.
pub(crate) struct Live {
    current: Arc<ArcSwap<Snapshot>>,
}

/// A worker's cached reader: one atomic load per request.
pub(crate) type Reader = arc_swap::Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>;

impl Live {
    pub(crate) fn new(snapshot: Arc<Snapshot>) -> Self {
        Self { current: Arc::new(ArcSwap::new(snapshot)) }
    }

    /// The snapshot now, for those who look rarely.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// A cached reader for one worker.
    pub(crate) fn reader(&self) -> Reader {
        arc_swap::Cache::new(Arc::clone(&self.current))
    }

    /// Puts the new snapshot in force and gives back the old one.
    pub(crate) fn publish(&self, snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
        self.current.swap(snapshot)
    }
}
