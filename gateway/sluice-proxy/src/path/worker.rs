//! What one worker thread has for itself: its view of the snapshot, its pools, its counters, its end
//! of the log. Requests of a worker share it without locks.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use crate::base::body::Shelf;
use crate::base::room::Rooms;
use sluice_engine::pressure::Stage;

use crate::lasting::pool::Pools;
use crate::lasting::telemetry::access::Log;
use crate::lasting::telemetry::metrics;
use crate::path::unattended::Crowd;
use crate::snapshot::compile::Snapshot;
use crate::snapshot::live::{Live, Reader};

/// One worker.
pub(crate) struct Worker {
    pub(crate) index: usize,
    /// How many workers there are; limits per gateway are shared equally among them.
    pub(crate) siblings: usize,
    pub(crate) pools: Pools,
    pub(crate) shard: Arc<metrics::Worker>,
    /// TLS handshakes under way, by listener.
    pub(crate) handshakes: Rooms,
    pub(crate) log: RefCell<Option<Log>>,
    /// The gateway is stopping: answers close their connections.
    pub(crate) draining: Cell<bool>,
    /// How short memory is.
    pub(crate) stage: Cell<Stage>,
    /// Bytes of answers that HTTP/2 holds until clients take them.
    pub(crate) held: Rc<Cell<usize>>,
    /// Room for request bodies that may have to be sent again.
    pub(crate) shelf: Rc<Shelf>,
    /// Its requests without clients.
    pub(crate) unattended: Crowd,
    reader: RefCell<Reader>,
    view: RefCell<View>,
}

/// A snapshot that this worker's requests share without touching its shared count.
pub(crate) type View = Rc<Arc<Snapshot>>;

impl Worker {
    pub(crate) fn new(
        index: usize,
        siblings: usize,
        live: &Live,
        pools: Pools,
        shard: Arc<metrics::Worker>,
    ) -> Self {
        let mut reader = live.reader();
        let view = Rc::new(Arc::clone(reader.load()));
        Self {
            index,
            siblings: siblings.max(1),
            pools,
            shard,
            handshakes: Rooms::default(),
            log: RefCell::new(None),
            draining: Cell::new(false),
            stage: Cell::new(Stage::Normal),
            held: Rc::default(),
            shelf: Rc::default(),
            unattended: Crowd::default(),
            reader: RefCell::new(reader),
            view: RefCell::new(view),
        }
    }

    /// Whether answers are the last on their connections.
    pub(crate) fn keeps_none(&self) -> bool {
        self.draining.get() || self.stage.get() >= Stage::Lean
    }

    /// The snapshot in force; a request asks once and keeps the answer.
    pub(crate) fn view(&self) -> View {
        let mut reader = self.reader.borrow_mut();
        let latest = reader.load();
        let mut view = self.view.borrow_mut();
        if !Arc::ptr_eq(latest, &view) {
            *view = Rc::new(Arc::clone(latest));
        }
        Rc::clone(&view)
    }
}
