//! Accepts connections on one socket. The loop awaits nothing but the next connection, so that the
//! kernel's queue never fills behind a slow handshake.

use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use http::HeaderValue;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::balance::{self, Handed};
use super::connection;
use super::crowd::Crowd;
use super::shared::{Command, Mood, Shared, resize};
use crate::base::clock;
use crate::base::clocks::Clocks;
use crate::base::cx::{Peer, Seats};
use crate::lasting::tasks::{self, Kind};
use crate::parts::listener::{ConnectionBalance, Listener};
use crate::path::worker::Worker;

/// Pause after an error that will not go away at once (no descriptors, no memory).
const PAUSE: Duration = Duration::from_millis(50);
/// Time between two wishes for room, while there is none.
const ROOM: Duration = Duration::from_millis(250);

/// A worker's end of a listener.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) worker: Rc<Worker>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) crowd: Rc<Crowd>,
    /// Name of the listener.
    pub(crate) name: Arc<str>,
    pub(crate) mood: watch::Receiver<Mood>,
}

impl Door {
    /// Accepts on this socket until drained.
    pub(crate) async fn open(self, socket: std::io::Result<TcpListener>) {
        match socket.and_then(tokio::net::TcpListener::from_std) {
            Ok(socket) => self.accept(socket).await,
            Err(error) => tracing::error!(listener = %self.name, %error, "cannot listen"),
        }
    }

    async fn accept(mut self, socket: tokio::net::TcpListener) {
        let port = socket.local_addr().map_or(0, |address| address.port());
        let Some(listener) = find(&self.worker, &self.name) else { return };
        let mut granted = share(&self.worker, &listener);
        let places = Arc::new(Semaphore::new(granted));
        loop {
            // Without a free place connections wait in the kernel's queue.
            let own = |door: &Self| make_room(&door.worker, &door.crowd, Some(&door.name));
            let Some(place) = self.place(&places, own).await else { return };
            let accepted = tokio::select! {
                biased;
                accepted = socket.accept() => accepted,
                () = drains(&mut self.mood) => return,
            };
            match accepted {
                Ok((stream, address)) => {
                    // Taken only now: doors where nobody comes must not hold places of the others.
                    let all = Arc::clone(&self.shared.places.free);
                    let Some(common) = self.place(&all, Self::ask_for_room).await else { return };
                    let Some(listener) = find(&self.worker, &self.name) else { return };
                    granted = resize(&places, granted, share(&self.worker, &listener));
                    self.usher(listener, stream, address, port, Seats { own: place, common });
                }
                Err(error) => {
                    self.worker.shard.accept_errors.add(1);
                    if !is_passing(&error) {
                        self.ask_for_room();
                        tracing::warn!(listener = %self.name, %error, "cannot accept; pausing");
                        tokio::time::sleep_until(clock::deadline(clock::now().after(PAUSE))).await;
                    }
                }
            }
        }
    }

    /// A place among `places`. While there is none, those who can be done without are asked to go.
    async fn place(
        &mut self,
        places: &Arc<Semaphore>,
        make_room: impl Fn(&Self),
    ) -> Option<OwnedSemaphorePermit> {
        loop {
            if let Ok(place) = Arc::clone(places).try_acquire_owned() {
                return Some(place);
            }
            make_room(self);
            let again = clock::deadline(clock::now().after(ROOM));
            let free = tokio::time::timeout_at(again, Arc::clone(places).acquire_owned());
            tokio::select! {
                biased;
                place = free => if let Ok(place) = place { return place.ok() },
                () = drains(&mut self.mood) => return None,
            }
        }
    }

    /// Has all workers close connections at rest.
    fn ask_for_room(&self) {
        self.shared.command(|_| Command::MakeRoom);
    }

    /// Serves a connection here, or has another worker do it.
    fn usher(
        &self,
        listener: Arc<Listener>,
        stream: TcpStream,
        address: SocketAddr,
        port: u16,
        place: Seats,
    ) {
        let other = match listener.connection_balance {
            ConnectionBalance::ReusePort => None,
            ConnectionBalance::LeastConnections => {
                balance::elsewhere(&self.shared, self.worker.index)
            }
        };
        let Some(other) = other else {
            let peer = peer(&listener, address, port, place);
            return serve(&self.worker, &self.crowd, listener, peer, stream, self.mood.clone());
        };
        // An error says that the stream is of no use to anybody.
        if let Ok(stream) = stream.into_std() {
            self.worker.shard.connections_handed.add(1);
            let listener = Arc::clone(&listener.name);
            let handed = Handed { listener, stream, address, port, place };
            balance::hand_over(&self.shared, other, handed);
        }
    }
}

/// Serves what another worker has accepted.
pub(crate) fn take(
    worker: &Rc<Worker>,
    crowd: &Rc<Crowd>,
    handed: Handed,
    mood: watch::Receiver<Mood>,
) {
    let Handed { listener, stream, address, port, place } = handed;
    // A listener that was removed meanwhile serves no more.
    let Some(listener) = find(worker, &listener) else { return };
    if let Ok(stream) = TcpStream::from_std(stream) {
        let peer = peer(&listener, address, port, place);
        serve(worker, crowd, listener, peer, stream, mood);
    }
}

fn serve(
    worker: &Rc<Worker>,
    crowd: &Rc<Crowd>,
    listener: Arc<Listener>,
    peer: Peer,
    stream: TcpStream,
    mood: watch::Receiver<Mood>,
) {
    let seat = crowd.join(&peer.listener, &peer.clocks);
    let index = seat.index();
    let serve = connection::serve(Rc::clone(worker), listener, Rc::new(peer), stream, mood);
    let task = tasks::local(Kind::Connection, serve.map(move |()| drop(seat)));
    crowd.started(index, task.abort_handle());
}

/// Closes connections at rest, of one listener or of all.
pub(crate) fn make_room(worker: &Worker, crowd: &Crowd, listener: Option<&str>) {
    let closed = crowd.make_room(listener, clock::now());
    worker.shard.connections_made_room.add(closed as u64);
}

async fn drains(mood: &mut watch::Receiver<Mood>) {
    // An error says that the worker is gone.
    let _ = mood.wait_for(|mood| *mood == Mood::Draining).await;
}

/// The listener as the current snapshot declares it.
fn find(worker: &Worker, name: &str) -> Option<Arc<Listener>> {
    worker.view().listeners.iter().find(|listener| *listener.name == *name).map(Arc::clone)
}

/// This worker's part of the listener's connections.
fn share(worker: &Worker, listener: &Listener) -> usize {
    let all = usize::try_from(listener.limits.connections).unwrap_or(usize::MAX);
    all.div_ceil(worker.siblings).clamp(1, Semaphore::MAX_PERMITS)
}

/// What is known of a connection when it is accepted.
pub(crate) fn peer(listener: &Listener, address: SocketAddr, port: u16, place: Seats) -> Peer {
    Peer {
        address,
        address_value: connection::proxied::text(address.ip()),
        listener: Arc::clone(&listener.name),
        port_value: HeaderValue::from(port),
        body_idle: listener.timeouts.body.0,
        ends: clock::now().after(lifetime(listener.timeouts.max_age.0)),
        secure: listener.tls.is_some(),
        tls: None,
        clocks: Clocks::start(),
        _place: place,
    }
}

/// A tenth more or less than `age`: what began together does not end together.
fn lifetime(age: Duration) -> Duration {
    age.mul_f64(0.9 + 0.2 * fastrand::f64())
}

/// Errors of the connection that was to be accepted, not of the socket (accept(2)).
fn is_passing(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | WouldBlock)
}
