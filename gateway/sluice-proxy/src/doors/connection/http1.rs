//! HTTP/1 on one connection. hyper is built when there is a whole head to read and taken down again when
//! the connection has been at rest for a while: between requests there is nothing but the stream, its
//! gate and a clock. The one rule: hyper itself says that it is at rest before it is taken down, so no
//! byte of a message is ever left in it.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{poll_fn, ready};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::Either;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::Sleep;

use super::super::shared::Mood;
use super::Session;
use super::gate::Gate;
use crate::base::body::Body;
use crate::base::clock::{self, Moment};
use crate::base::clocks::{Clocks, Expired, Limits, Watched};
use crate::base::deadline::Deadline;
use crate::base::fault::Fault;
use crate::base::signals::Signals;
use crate::lasting::telemetry::metrics;
use crate::path::pipeline;

/// hyper's adaptive read buffer may grow this far, bytes.
const READ_BUFFER: usize = 64 * 1024;
/// A connection that has been at rest for so long gives its buffers back.
const PARK_AFTER: Duration = Duration::from_secs(1);
/// How long the client is listened to after the last answer, so that it can read that answer.
const LINGER: Duration = Duration::from_secs(1);
/// And how much it may send in this time, bytes.
const LINGER_BYTES: usize = 1024 * 1024;

/// Serves a stream to its end, or to the end of HTTP on it.
pub(super) async fn serve<S>(session: Session, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = session.limits();
    let Session { worker, listener, peer, mood } = session;
    let clocks = Arc::clone(&peer.clocks);
    let head = usize::try_from(listener.limits.head.0).unwrap_or(READ_BUFFER);
    let watched = Watched::new(stream, Arc::clone(&clocks));
    let mut gate = Box::new(Gate::new(watched, Arc::clone(&clocks), head));
    let shard = Arc::clone(&worker.shard);
    let left = Cell::new(listener.limits.requests_per_connection);
    let mut service = service_fn(move |request: Request<Incoming>| {
        let answer = match peer.clocks.signals.take() {
            Some(fault) => {
                let refused = pipeline::refuse(&worker, &peer, fault, request.method());
                Either::Left(ready(refused))
            }
            None => {
                left.set(left.get().saturating_sub(1));
                let (worker, peer) = (Rc::clone(&worker), Rc::clone(&peer));
                Either::Right(pipeline::handle(worker, peer, request, left.get() == 0))
            }
        };
        let peer = Rc::clone(&peer);
        answer.map(move |response| {
            let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
            peer.clocks.signals.answered(switches);
            Ok::<_, Infallible>(response)
        })
    });
    let mut watch = Watch { clocks, limits, mood, asked: false, ending: false };
    let sleep = tokio::time::sleep_until(clock::deadline(clock::now()));
    let mut sleep = std::pin::pin!(sleep);
    loop {
        let next = {
            let _parked = Parked::count(&shard);
            watch.wait(&mut gate, sleep.as_mut()).await
        };
        match next {
            Next::Request => watch.asked = true,
            Next::Farewell => return farewell(gate).await,
            Next::Nothing => return,
        }
        let mut connection = build(gate, service, head);
        let outcome = watch.drive(&mut *connection).await;
        // Nothing is left of a connection that has become a tunnel.
        let Some(parts) = take_down(*connection) else { return };
        (gate, service) = parts;
        match outcome {
            Outcome::AtRest => {}
            Outcome::Closed => return linger(gate).await,
            Outcome::Failed(error) => return note(&shard, error.as_ref()),
        }
    }
}

type Connection<S, V> = http1::UpgradeableConnection<TokioIo<Box<Gate<S>>>, V>;

/// Builds hyper upon a gate. Large, and so never held but in a box.
fn build<S, V>(gate: Box<Gate<S>>, service: V, head: usize) -> Box<Connection<S, V>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    V: HttpService<Incoming, ResBody = Body, Error = Infallible>,
{
    let connection = http1::Builder::new()
        .writev(true)
        .max_buf_size(READ_BUFFER.max(head))
        .max_header_size(head)
        // Ours tell a slow head from an idle connection.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(gate), service);
    Box::new(connection.with_upgrades())
}

/// The gate and the service again, unless the gate is a tunnel's now.
fn take_down<S, V>(connection: Connection<S, V>) -> Option<(Box<Gate<S>>, V)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    V: HttpService<Incoming, ResBody = Body, Error = Infallible>,
{
    let parts = connection.into_parts()?;
    let mut gate = parts.io.into_inner();
    gate.rest(&parts.read_buf);
    Some((gate, parts.service))
}

/// The gate should have refused whatever hyper cannot parse; where it did not, this tells.
fn note(shard: &metrics::Worker, error: Option<&hyper::Error>) {
    if let Some(error) = error.filter(|error| error.is_parse()) {
        shard.http1_broken.add(1);
        tracing::debug!(%error, "hyper refused what the gate let through");
    }
}

/// Counts a connection as parked.
struct Parked<'a>(&'a metrics::Worker);

impl<'a> Parked<'a> {
    fn count(shard: &'a metrics::Worker) -> Self {
        shard.connections_parked.add(1);
        Self(shard)
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.0.connections_unparked.add(1);
    }
}

// === Clocks and the end of the program ===

/// What can end a connection beside its client.
struct Watch {
    clocks: Arc<Clocks>,
    limits: Limits,
    mood: watch::Receiver<Mood>,
    /// It has had a request: when memory is short, only who has not may stay to make one.
    asked: bool,
    /// The connection takes no more requests.
    ending: bool,
}

/// What a wait between requests ends with.
enum Next {
    /// A head, or its refusal.
    Request,
    /// The connection should be closed in good order.
    Farewell,
    /// The client has left.
    Nothing,
}

/// Why hyper's work is over.
enum Outcome {
    /// For now: the connection is at rest.
    AtRest,
    /// It has closed the connection in good order.
    Closed,
    /// The connection is broken, or was cut.
    Failed(Option<hyper::Error>),
}

/// hyper's connection, which can be asked to end.
trait Graceful: Future<Output = hyper::Result<()>> + Unpin {
    fn shut_down(&mut self);
}

impl<S, V> Graceful for Connection<S, V>
where
    Self: Future<Output = hyper::Result<()>> + Unpin,
    S: AsyncRead + AsyncWrite + Unpin + Send,
    V: HttpService<Incoming, ResBody = Body, Error = Infallible>,
{
    fn shut_down(&mut self) {
        Pin::new(self).graceful_shutdown();
    }
}

impl Watch {
    /// Waits for the next head with hardly anything in hand.
    async fn wait<S>(&mut self, gate: &mut Gate<S>, mut sleep: Pin<&mut Sleep>) -> Next
    where
        S: AsyncRead + Unpin,
    {
        loop {
            let now = clock::now();
            let end = match self.clocks.first_end(now, &self.limits) {
                Ok(end) => end.unwrap_or_else(|| now.after(self.limits.keepalive)),
                Err(Expired::SlowHead) => {
                    gate.refuse(Fault::HeadTimeout);
                    return Next::Request;
                }
                Err(Expired::Idle) => return Next::Farewell,
                Err(Expired::Stuck) => return Next::Nothing,
            };
            sleep.as_mut().reset(clock::deadline(end));
            let amid = gate.is_amid_head();
            tokio::select! {
                biased;
                head = poll_fn(|cx| begun_or_whole(gate, amid, cx)) => match head {
                    Ok(Some(true)) => return Next::Request,
                    Ok(Some(false)) | Err(_) => return Next::Nothing,
                    // Another clock runs now.
                    Ok(None) => {}
                },
                // Whoever has begun to ask is answered.
                () = ends(&mut self.mood, self.asked), if !amid => return Next::Farewell,
                () = sleep.as_mut() => {}
            }
        }
    }

    /// Lets hyper work until it is at rest, or done. This is polled whenever anything happens on the
    /// connection, so what is looked at beside hyper costs next to nothing: the end of the program is
    /// noticed with the next event, or look.
    async fn drive<C: Graceful>(&mut self, connection: &mut C) -> Outcome {
        let mut alarm = Deadline::at(clock::now().after(PARK_AFTER));
        loop {
            let event = poll_fn(|cx| {
                if let Poll::Ready(done) = advance(connection, &self.clocks.signals, cx) {
                    return Poll::Ready(Event::Done(done.err()));
                }
                if !self.ending && self.mood.has_changed().unwrap_or(true) {
                    return Poll::Ready(Event::Mood);
                }
                alarm.poll(cx).map(|()| Event::Look)
            });
            match event.await {
                Event::Done(None) => return Outcome::Closed,
                Event::Done(error) => return Outcome::Failed(error),
                // Answers say for themselves that they are the last while memory is short.
                Event::Mood if !is_draining(&mut self.mood) => {}
                Event::Mood => {
                    self.ending = true;
                    // Whoever has begun to ask is answered, and told that it was the last time.
                    if !self.clocks.is_amid_head() {
                        connection.shut_down();
                    }
                }
                Event::Look => match self.look(connection).await {
                    Ok(next) => alarm = Deadline::at(next),
                    Err(outcome) => return outcome,
                },
            }
        }
    }

    /// Looks at the clocks; tells when to look again.
    async fn look<C: Graceful>(&mut self, connection: &mut C) -> Result<Moment, Outcome> {
        let now = clock::now();
        let next = match self.clocks.look(now, &self.limits) {
            Ok(next) => next,
            Err(Expired::Idle) if !self.ending => {
                self.ending = true;
                connection.shut_down();
                // A client that ignores the farewell is cut at the next look.
                now.after(self.limits.head)
            }
            Err(Expired::SlowHead) if !self.clocks.signals.is_overdue() => {
                self.clocks.signals.set_overdue();
                now.after(self.limits.head)
            }
            Err(_) => return Err(Outcome::Failed(None)),
        };
        if self.ending {
            return Ok(next);
        }
        match self.clocks.resting_since().map(|since| since.after(PARK_AFTER)) {
            Some(park) if park <= now => self.park(connection).await.map_or(Ok(next), Err),
            Some(park) => Ok(next.min(park)),
            None => Ok(next.min(now.after(PARK_AFTER))),
        }
    }

    /// Asks hyper to end without touching the stream. It does so at once if it is at rest; else it will
    /// end, stream and all, when it has finished what we did not know of.
    async fn park<C: Graceful>(&mut self, connection: &mut C) -> Option<Outcome> {
        let signals = &self.clocks.signals;
        signals.set_parking(true);
        connection.shut_down();
        let done = poll_fn(|cx| Poll::Ready(connection.poll_unpin(cx))).await;
        signals.set_parking(false);
        match done {
            Poll::Ready(Ok(())) => Some(Outcome::AtRest),
            Poll::Ready(Err(error)) => Some(Outcome::Failed(Some(error))),
            Poll::Pending => {
                self.ending = true;
                None
            }
        }
    }
}

/// Waits until a connection at rest has to go.
async fn ends(mood: &mut watch::Receiver<Mood>, asked: bool) {
    // An error says that the worker is gone.
    let _ = mood.wait_for(|mood| *mood == Mood::Draining || asked && *mood == Mood::Lean).await;
}

/// Whether a change of mood was that to draining.
fn is_draining(mood: &mut watch::Receiver<Mood>) -> bool {
    let gone = mood.has_changed().is_err();
    gone || *mood.borrow_and_update() == Mood::Draining
}

/// What happens while hyper works.
enum Event {
    Done(Option<hyper::Error>),
    Mood,
    Look,
}

/// Lets hyper work, and once more when held bytes have turned out to be HTTP: no stream wakes anybody
/// for those.
fn advance<C: Graceful>(
    connection: &mut C,
    signals: &Signals,
    cx: &mut Context<'_>,
) -> Poll<hyper::Result<()>> {
    loop {
        let polled = connection.poll_unpin(cx);
        if polled.is_ready() || !signals.take_stay() {
            return polled;
        }
    }
}

/// What [`Gate::poll_head`] says, or nothing when a head has begun, or been given up, meanwhile.
fn begun_or_whole<S>(
    gate: &mut Gate<S>,
    amid: bool,
    cx: &mut Context<'_>,
) -> Poll<std::io::Result<Option<bool>>>
where
    S: AsyncRead + Unpin,
{
    match gate.poll_head(cx) {
        Poll::Ready(head) => Poll::Ready(head.map(Some)),
        Poll::Pending if gate.is_amid_head() != amid => Poll::Ready(Ok(None)),
        Poll::Pending => Poll::Pending,
    }
}

// === Ends ===

/// Closes the writing side; TLS says goodbye.
async fn farewell<S: AsyncWrite + Unpin>(mut gate: Box<Gate<S>>) {
    let limit = clock::deadline(clock::now().after(LINGER));
    // Nobody waits for it, and an error says that the client was quicker.
    let _ = tokio::time::timeout_at(limit, gate.shutdown()).await;
}

/// Reads on for a while where the client may still be sending: closing a socket with unread bytes in it
/// makes the system tell the client so, and the client forget the answer it has not read yet.
async fn linger<S: AsyncRead + Unpin>(mut gate: Box<Gate<S>>) {
    if !gate.is_unfinished() {
        return;
    }
    let limit = clock::deadline(clock::now().after(LINGER));
    let mut left = LINGER_BYTES;
    while left > 0 {
        let read = tokio::time::timeout_at(limit, poll_fn(|cx| gate.poll_discard(cx))).await;
        match read {
            Ok(Ok(read)) if read > 0 => left = left.saturating_sub(read),
            _ => return,
        }
    }
}
