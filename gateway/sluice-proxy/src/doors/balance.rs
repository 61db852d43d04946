//! Which worker serves a connection, where a listener does not leave that to the kernel: the one with
//! the fewest connections in use, of equals the one with the fewest open. The kernel spreads by a hash
//! of addresses, which with few connections, or some that are busier than others, loads one worker and
//! leaves another idle.
//!
//! Every worker accepts and hands over, so none is in front of the others. It costs two system calls and
//! a wake-up for each connection that is handed over, and nothing for each request.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::shared::{Command, Shared};
use crate::base::cx::Seats;
use crate::lasting::telemetry::metrics::{Metrics, Worker};

/// A connection that another worker has accepted.
pub(crate) struct Handed {
    /// Name of the listener.
    pub(crate) listener: Arc<str>,
    pub(crate) stream: TcpStream,
    pub(crate) address: SocketAddr,
    /// Port of the listener.
    pub(crate) port: u16,
    /// Its places.
    pub(crate) place: Seats,
}

/// Connections that were handed to each worker and have not been taken yet.
#[derive(Debug)]
pub(crate) struct Underway(Box<[AtomicU64]>);

/// What a worker has to do; less is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Load {
    in_use: u64,
    open: u64,
}

impl Underway {
    pub(crate) fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| AtomicU64::new(0)).collect())
    }

    /// The worker has taken one.
    pub(crate) fn taken(&self, worker: usize) {
        if let Some(count) = self.0.get(worker) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The worker to hand a connection to that was accepted by worker `here`, if another has less to do.
pub(crate) fn elsewhere(shared: &Shared, here: usize) -> Option<usize> {
    let loads = loads(&shared.workshop.metrics, &shared.underway);
    let least = least(&loads, here);
    (least != here).then_some(least)
}

/// Hands a connection over. Its worker is gone only when the program ends.
pub(crate) fn hand_over(shared: &Shared, worker: usize, handed: Handed) {
    if let Some(count) = shared.underway.0.get(worker) {
        count.fetch_add(1, Ordering::Relaxed);
    }
    shared.command_one(worker, Command::Serve(handed));
}

fn loads(metrics: &Metrics, underway: &Underway) -> Vec<Load> {
    let load = |(worker, underway): (&Arc<Worker>, &AtomicU64)| {
        let underway = underway.load(Ordering::Relaxed);
        let open = worker.open_connections();
        let in_use = open.saturating_sub(worker.parked_connections());
        Load { in_use: in_use + underway, open: open + underway }
    };
    metrics.workers.iter().zip(&underway.0).map(load).collect()
}

/// The worker with the least load, `here` if no other has less.
fn least(loads: &[Load], here: usize) -> usize {
    let mut best = here;
    for (index, load) in loads.iter().enumerate() {
        if loads.get(best).is_none_or(|known| load < known) {
            best = index;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(in_use: u64, open: u64) -> Load {
        Load { in_use, open }
    }

    #[test]
    fn connections_in_use_count_before_those_that_rest() {
        assert_eq!(least(&[load(3, 3), load(2, 900), load(4, 4)], 0), 1);
        assert_eq!(least(&[load(2, 9), load(2, 8)], 0), 1);
    }

    #[test]
    fn nothing_is_handed_over_among_equals() {
        assert_eq!(least(&[load(1, 1), load(1, 1), load(1, 1)], 2), 2);
        assert_eq!(least(&[], 0), 0);
    }
}
