//! The only place that starts background work, so that all of it has a name and a count. What must go
//! on for as long as the gateway lives is supervised: a panic is counted, and it begins anew.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::JoinHandle;

use crate::base::clock;

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
    /// A write whose client has left.
    Unattended,
    /// Watching, probing, resolving: the control plane.
    Control,
}

const KINDS: usize = 7;
static ALIVE: [AtomicUsize; KINDS] = [const { AtomicUsize::new(0) }; KINDS];

impl Kind {
    pub(crate) const ALL: [Self; KINDS] = [
        Self::Connection,
        Self::Upstream,
        Self::Tunnel,
        Self::Stream,
        Self::Worker,
        Self::Unattended,
        Self::Control,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Upstream => "upstream",
            Self::Tunnel => "tunnel",
            Self::Stream => "stream",
            Self::Worker => "worker",
            Self::Unattended => "unattended",
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
            Self::Unattended => &ALIVE[5],
            Self::Control => &ALIVE[6],
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

/// Pause before a task that panicked begins anew, the first time and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

static RESTARTED: AtomicU64 = AtomicU64::new(0);

/// Tasks that panicked and were started anew, in this process.
pub(crate) fn restarted() -> u64 {
    RESTARTED.load(Ordering::Relaxed)
}

/// Runs `make`'s future to its end, and a new one whenever it panics.
pub(crate) async fn supervise<F: Future<Output = ()>>(
    what: &'static str,
    mut make: impl FnMut() -> F,
) {
    let mut pause = AGAIN.0;
    loop {
        let began = clock::now();
        // Whatever the future held is dropped with it; what it shares is kept whole by its own guards.
        if AssertUnwindSafe(make()).catch_unwind().await.is_ok() {
            return;
        }
        note_panic(what);
        if clock::now().saturating_since(began) > AGAIN.1 {
            pause = AGAIN.0;
        }
        tokio::time::sleep_until(clock::deadline(clock::now().after(pause))).await;
        pause = (pause * 2).min(AGAIN.1);
    }
}

/// Takes a step that must not end the loop it belongs to.
pub(crate) fn guarded(what: &'static str, step: impl FnOnce()) {
    if std::panic::catch_unwind(AssertUnwindSafe(step)).is_err() {
        note_panic(what);
    }
}

fn note_panic(what: &'static str) {
    RESTARTED.fetch_add(1, Ordering::Relaxed);
    tracing::error!(
        task = what,
        "a task of the gateway panicked and begins anew; please report it"
    );
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_begins_anew_and_is_counted() {
        let (before, runs) = (restarted(), Cell::new(0));
        supervise("test", || {
            runs.set(runs.get() + 1);
            let run = runs.get();
            async move { assert!(run >= 3, "run {run}") }
        })
        .await;
        guarded("test", || panic!("a step"));
        assert_eq!(runs.get(), 3);
        assert!(restarted() >= before + 3);
    }
}
