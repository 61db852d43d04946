//! Stopping in good order: readiness fails first, answers ask clients to leave, listeners close,
//! requests in flight finish, and what is left when the time is up is cut.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::shared::{Command, Shared};
use crate::base::clock;

/// How often open connections are counted while draining.
const LOOK: Duration = Duration::from_millis(20);

/// Signals the gateway listens to.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    reopen: Signal,
}

impl Signals {
    pub(crate) fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
        })
    }

    /// Serves signals until one asks to stop.
    pub(crate) async fn until_stop(&mut self, shared: &Shared, reload: &mpsc::Sender<()>) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => {
                    // Full means that a reload is due already.
                    let _ = reload.try_send(());
                }
                _ = self.reopen.recv() => {
                    if let Ok(log) = shared.log.lock()
                        && let Some(log) = log.as_ref()
                    {
                        log.reopen();
                    }
                }
            }
        }
    }

    /// A second wish to stop is not to be kept waiting.
    async fn again(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Drains; returns the connections, tunnels and writes without clients that had to be cut.
pub(crate) async fn drain(shared: &Arc<Shared>, signals: &mut Signals) -> u64 {
    let shutdown = shared.live.snapshot().settings.shutdown;
    shared.status.draining.store(true, Ordering::Release);
    tracing::info!(delay = ?shutdown.delay.0, grace = ?shutdown.grace.0, "draining");
    let orderly = async {
        shared.command(|_| Command::Farewell);
        pause(shutdown.delay.0).await;
        shared.command(|_| Command::Drain);
        let end = clock::now().after(shutdown.grace.0);
        while open(shared) > 0 && clock::now() < end {
            pause(LOOK).await;
        }
    };
    tokio::select! {
        () = orderly => {}
        () = signals.again() => tracing::warn!("asked again; stopping at once"),
    }
    // One more round of housekeeping hands the last log lines over.
    shared.command(|_| Command::Log(None));
    pause(LOOK * 5).await;
    open(shared)
}

/// Client connections and tunnels that are open, and writes that go on without their clients.
fn open(shared: &Shared) -> u64 {
    let metrics = &shared.workshop.metrics;
    let connections: u64 = metrics.workers.iter().map(|worker| worker.open_connections()).sum();
    let tunnels = metrics
        .sum(|worker| &worker.tunnels_opened)
        .saturating_sub(metrics.sum(|worker| &worker.tunnels_closed));
    connections + tunnels + metrics.open_unattended()
}

async fn pause(time: Duration) {
    tokio::time::sleep_until(clock::deadline(clock::now().after(time))).await;
}
