//! The only place that starts background work, so that all of it has a name and a count.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use tokio::task::JoinHandle;

/// What a task is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A client connection.
    Connection,
    /// A connection to a service.
    Upstream,
    /// A tunnel after an upgrade.
    Tunnel,
    /// An HTTP/2 stream or hyper's own helper.
    Stream,
    /// Accept loops and housekeeping of a worker.
    Worker,
    /// Watching, probing, resolving: the control plane.
    Control,
}

const KINDS: usize = 6;
static ALIVE: [AtomicUsize; KINDS] = [const { AtomicUsize::new(0) }; KINDS];

impl Kind {
    pub(crate) const ALL: [Self; KINDS] =
        [Self::Connection, Self::Upstream, Self::Tunnel, Self::Stream, Self::Worker, Self::Control];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Upstream => "upstream",
            Self::Tunnel => "tunnel",
            Self::Stream => "stream",
            Self::Worker => "worker",
            Self::Control => "control",
        }
    }

    /// Tasks of this kind that are alive in this process.
    pub(crate) fn alive(self) -> usize {
        self.cell().load(Ordering::Relaxed)
    }

    fn cell(self) -> &'static AtomicUsize {
        match self {
            Self::Connection => &ALIVE[0],
            Self::Upstream => &ALIVE[1],
            Self::Tunnel => &ALIVE[2],
            Self::Stream => &ALIVE[3],
            Self::Worker => &ALIVE[4],
            Self::Control => &ALIVE[5],
        }
    }
}

/// Starts a task on this worker's own thread.
pub(crate) fn local<F: Future<Output = ()> + 'static>(kind: Kind, future: F) -> JoinHandle<()> {
    let count = Count::of(kind);
    // An async block would hold the future twice, once as captured and once as awaited.
    tokio::task::spawn_local(future.map(move |()| drop(count)))
}

/// Starts a task of the control plane.
pub(crate) fn control<F: Future<Output = ()> + Send + 'static>(future: F) -> JoinHandle<()> {
    let count = Count::of(Kind::Control);
    #[expect(clippy::disallowed_methods, reason = "the one home of spawn")]
    tokio::spawn(future.map(move |()| drop(count)))
}

/// A task that is stopped when its owner goes.
pub(crate) struct Owned(JoinHandle<()>);

impl Owned {
    pub(crate) fn new(handle: JoinHandle<()>) -> Self {
        Self(handle)
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Lets hyper start its HTTP/2 helpers on this worker's thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Local(pub(crate) Kind);

impl<F> hyper::rt::Executor<F> for Local
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        local(self.0, future.map(drop));
    }
}

struct Count(Kind);

impl Count {
    fn of(kind: Kind) -> Self {
        kind.cell().fetch_add(1, Ordering::Relaxed);
        Self(kind)
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.0.cell().fetch_sub(1, Ordering::Relaxed);
    }
}
