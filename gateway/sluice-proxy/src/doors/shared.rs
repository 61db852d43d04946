//! What all threads of one gateway share.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sluice_engine::pressure::Stage;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;

use super::balance::{Handed, Underway};
use crate::base::clock;
use crate::lasting::telemetry::access::{Log, Writer};
use crate::snapshot::compile::Workshop;
use crate::snapshot::live::Live;

/// The gateway, as its threads see it.
pub(crate) struct Shared {
    pub(crate) live: Live,
    pub(crate) workshop: Workshop,
    pub(crate) status: Status,
    /// Where to send commands to each worker.
    pub(crate) workers: Mutex<Vec<UnboundedSender<Command>>>,
    pub(crate) underway: Underway,
    pub(crate) places: Places,
    pub(crate) log: Mutex<Option<Arc<Writer>>>,
}

/// What a worker can be told.
pub(crate) enum Command {
    /// Accept on these sockets too; each belongs to the listener of that name.
    Listen(Vec<(Arc<str>, TcpListener)>),
    /// Serve a connection that another worker has accepted.
    Serve(Handed),
    /// Accept no more for these listeners; open connections stay.
    Unlisten(Vec<Arc<str>>),
    /// Write the access log there from now on.
    Log(Option<Log>),
    /// Give up an idle connection of this link, if there is one.
    Yield(u64),
    /// Memory is that short now.
    Pressure(Stage),
    /// Cut the connections that hold most.
    Shed,
    /// Close connections at rest, since others wait for their places.
    MakeRoom,
    /// Answers ask clients to come back on a new connection.
    Farewell,
    /// Accept no more, finish what is open.
    Drain,
}

/// What connections are told of the gateway's state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Normal,
    /// Connections at rest are not kept.
    Lean,
    /// The gateway is stopping.
    Draining,
}

/// Places of client connections, over all listeners and workers.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) free: Arc<Semaphore>,
    granted: Mutex<usize>,
}

impl Places {
    pub(crate) fn new(wanted: usize) -> Self {
        let wanted = wanted.min(Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(wanted)), granted: Mutex::new(wanted) }
    }

    /// Follows a changed limit. Places in use can be taken away only when they are free again, at the next
    /// call.
    pub(crate) fn resize(&self, wanted: usize) {
        let mut granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        *granted = resize(&self.free, *granted, wanted.min(Semaphore::MAX_PERMITS));
    }

    pub(crate) fn limit(&self) -> usize {
        *self.granted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Brings `places` from `granted` to `wanted`, as far as they are free; returns what is granted then.
pub(crate) fn resize(places: &Semaphore, granted: usize, wanted: usize) -> usize {
    if wanted >= granted {
        places.add_permits(wanted - granted);
        wanted
    } else {
        granted - places.forget_permits(granted - wanted)
    }
}

/// Facts for readiness, metrics and operators.
#[derive(Debug, Default)]
pub(crate) struct Status {
    pub(crate) serving: AtomicBool,
    pub(crate) draining: AtomicBool,
    /// Bytes of memory in use, as far as they are measured.
    pub(crate) memory: AtomicU64,
    /// How short it is: the stage's position.
    pub(crate) stage: AtomicU8,
    pub(crate) generation: AtomicU64,
    pub(crate) reloads_ok: AtomicU64,
    pub(crate) reloads_rejected: AtomicU64,
    pub(crate) last_reload_ok: AtomicBool,
    /// Seconds since 1970 of the last accepted config.
    pub(crate) last_success: AtomicU64,
    /// Changes by operators: made, not possible as they were asked for, and of those without the token.
    pub(crate) writes: AtomicU64,
    pub(crate) writes_refused: AtomicU64,
    pub(crate) writes_denied: AtomicU64,
    /// Requests to the token broker without its token.
    pub(crate) broker_denied: AtomicU64,
    /// What was wrong with the last rejected one.
    pub(crate) last_problems: Mutex<String>,
}

impl Shared {
    /// Sends a command to every worker.
    pub(crate) fn command(&self, make: impl Fn(usize) -> Command) {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, worker) in workers.iter().enumerate() {
            // A worker that is gone needs no commands.
            let _ = worker.send(make(index));
        }
    }

    /// Sends a command to one worker.
    pub(crate) fn command_one(&self, worker: usize, command: Command) {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(worker) = workers.get(worker) {
            let _ = worker.send(command);
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.status.serving.load(Ordering::Acquire) && !self.status.draining.load(Ordering::Acquire)
    }
}

impl Status {
    pub(crate) fn accepted(&self, reload: bool) {
        self.generation.fetch_add(1, Ordering::Relaxed);
        if reload {
            self.reloads_ok.fetch_add(1, Ordering::Relaxed);
        }
        self.last_reload_ok.store(true, Ordering::Relaxed);
        self.last_success.store(clock::unix_seconds(), Ordering::Relaxed);
        self.last_problems.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(crate) fn rejected(&self, problems: String) {
        self.reloads_rejected.fetch_add(1, Ordering::Relaxed);
        self.last_reload_ok.store(false, Ordering::Relaxed);
        *self.last_problems.lock().unwrap_or_else(PoisonError::into_inner) = problems;
    }
}
