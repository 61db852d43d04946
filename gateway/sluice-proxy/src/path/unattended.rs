//! Writes whose client has left. Where the service has all of the request by then, its answer is waited for
//! all the same: the service sees no broken connection, and what came of the write is known to breakers,
//! metrics and the log. Everything else ends with its client.
//!
//! The one rule: nothing begins without a client, no further attempt and nobody who stands in; and what goes
//! on is bounded, in its time, in what is read, and in how many there are.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Response;
use http_body_util::BodyExt as _;

use super::worker::Worker;
use crate::base::body::Body;
use crate::base::clock::{self, Moment};
use crate::base::cx::Peer;
use crate::base::deadline::until;
use crate::base::tie::Tie;
use crate::lasting::tasks::{self, Kind};
use crate::lasting::telemetry::reasons::Unattended;

/// How long the rest of an answer may take from the moment on at which its head had to be there.
const WAY: Duration = Duration::from_secs(1);
/// Bytes of an answer that are read, so that its connection can serve again.
const MOST_READ: usize = 256 * 1024;

/// A worker's requests without clients.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    taken: Cell<usize>,
    /// The worker is ending: nothing may begin any more.
    closed: Cell<bool>,
}

/// A request that may go on when its holder drops it.
pub(super) struct Attended<F: Future<Output = Response<Body>> + 'static> {
    /// Until it is answered.
    request: Option<Pin<Box<F>>>,
    tie: Rc<Tie>,
    worker: Rc<Worker>,
    peer: Rc<Peer>,
}

/// A place among a worker's requests without clients.
struct Place(Rc<Worker>);

impl Crowd {
    /// Nothing goes on from now on that its client leaves.
    pub(crate) fn close(&self) {
        self.closed.set(true);
    }

    /// Whether there is room for another one beside those there are.
    fn has_room(&self, most: usize) -> bool {
        !self.closed.get() && self.taken.get() < most
    }
}

impl<F: Future<Output = Response<Body>> + 'static> Attended<F> {
    /// The request knows the same `tie`.
    pub(super) fn new(request: F, tie: Rc<Tie>, worker: Rc<Worker>, peer: Rc<Peer>) -> Self {
        Self { request: Some(Box::pin(request)), tie, worker, peer }
    }
}

impl<F: Future<Output = Response<Body>> + 'static> Future for Attended<F> {
    type Output = Response<Body>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response<Body>> {
        let Some(request) = &mut self.request else { return Poll::Pending };
        let polled = request.as_mut().poll(cx);
        if polled.is_ready() {
            self.request = None;
        }
        polled
    }
}

impl<F: Future<Output = Response<Body>> + 'static> Drop for Attended<F> {
    fn drop(&mut self) {
        let Some(request) = self.request.take() else { return };
        let Some(end) = self.tie.answered_until() else { return };
        let Some(place) = Place::take(&self.worker, &self.peer) else { return };
        let now = clock::now();
        self.tie.leave(now);
        // The connection, if it is still there, has one request less.
        self.peer.clocks.end(now);
        drop(tasks::local(Kind::Unattended, async move {
            finish(request, end.after(WAY)).await;
            drop(place);
        }));
    }
}

/// Waits for an answer that nobody gets, and reads it as far as that is worth it.
async fn finish(request: Pin<Box<impl Future<Output = Response<Body>>>>, end: Moment) {
    let Some(answer) = until(end, request).await else { return };
    let mut body = answer.into_body();
    let mut left = MOST_READ;
    while let Some(Some(Ok(frame))) = until(end, body.frame()).await {
        let bytes = frame.data_ref().map_or(0, |data| data.len());
        match left.checked_sub(bytes) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

impl Place {
    /// None where there are too many, where the worker is ending, and for a client that was cut because
    /// memory is short.
    fn take(worker: &Rc<Worker>, peer: &Peer) -> Option<Self> {
        let most = worker.view().settings.overload.unattended.share(worker.siblings);
        if peer.clocks.is_shed() || !worker.unattended.has_room(most) {
            worker.shard.unattended(Unattended::Refused);
            return None;
        }
        let Crowd { taken, .. } = &worker.unattended;
        taken.set(taken.get() + 1);
        worker.shard.unattended_begun.add(1);
        Some(Self(Rc::clone(worker)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Crowd { taken, .. } = &self.0.unattended;
        taken.set(taken.get().saturating_sub(1));
        self.0.shard.unattended_over.add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_so_many_until_the_worker_ends() {
        let crowd = Crowd::default();
        assert!(crowd.has_room(1) && !crowd.has_room(0));
        crowd.taken.set(1);
        assert!(!crowd.has_room(1) && crowd.has_room(2));
        crowd.close();
        assert!(!crowd.has_room(2));
    }
}
