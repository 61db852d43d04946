//! Accepts connections on one socket. The loop awaits nothing but the next connection, so that the
//! kernel's queue never fills behind a slow handshake.

use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::balance::{self, Handed};
use super::connection;
use super::shared::Shared;
use crate::base::clock;
use crate::base::clocks::Clocks;
use crate::base::cx::Peer;
use crate::lasting::tasks::{self, Kind};
use crate::parts::listener::{ConnectionBalance, Listener};
use crate::path::worker::Worker;

/// Pause after an error that will not go away at once (no descriptors, no memory).
const PAUSE: Duration = Duration::from_millis(50);

/// A worker's end of a listener.
pub(crate) struct Door {
    pub(crate) worker: Rc<Worker>,
    pub(crate) shared: Arc<Shared>,
    /// Name of the listener.
    pub(crate) name: Arc<str>,
    pub(crate) draining: watch::Receiver<bool>,
}

impl Door {
    /// Accepts until drained.
    pub(crate) async fn accept(mut self, socket: TcpListener) {
        let port = socket.local_addr().map_or(0, |address| address.port());
        let socket = match tokio::net::TcpListener::from_std(socket) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::error!(listener = %self.name, %error, "cannot listen");
                return;
            }
        };
        let Some(listener) = find(&self.worker, &self.name) else { return };
        let mut granted = share(&self.worker, &listener);
        let places = Arc::new(Semaphore::new(granted));
        loop {
            // Without a free place connections wait in the kernel's queue.
            let place = tokio::select! {
                biased;
                place = Arc::clone(&places).acquire_owned() => place,
                _ = self.draining.wait_for(|drain| *drain) => return,
            };
            let Ok(place) = place else { return };
            let accepted = tokio::select! {
                biased;
                accepted = socket.accept() => accepted,
                _ = self.draining.wait_for(|drain| *drain) => return,
            };
            match accepted {
                Ok((stream, address)) => {
                    let Some(listener) = find(&self.worker, &self.name) else { return };
                    granted = resize(&places, granted, share(&self.worker, &listener));
                    self.usher(listener, stream, address, port, place);
                }
                Err(error) => {
                    self.worker.shard.accept_errors.add(1);
                    if !is_passing(&error) {
                        tracing::warn!(listener = %self.name, %error, "cannot accept; pausing");
                        tokio::time::sleep_until(clock::deadline(clock::now().after(PAUSE))).await;
                    }
                }
            }
        }
    }

    /// Serves a connection here, or has another worker do it.
    fn usher(
        &self,
        listener: Arc<Listener>,
        stream: TcpStream,
        address: SocketAddr,
        port: u16,
        place: OwnedSemaphorePermit,
    ) {
        let other = match listener.connection_balance {
            ConnectionBalance::ReusePort => None,
            ConnectionBalance::LeastConnections => {
                balance::elsewhere(&self.shared, self.worker.index)
            }
        };
        let Some(other) = other else {
            let peer = peer(&listener, address, port, place);
            return serve(&self.worker, listener, peer, stream, self.draining.clone());
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
pub(crate) fn take(worker: &Rc<Worker>, handed: Handed, draining: watch::Receiver<bool>) {
    let Handed { listener, stream, address, port, place } = handed;
    // A listener that was removed meanwhile serves no more.
    let Some(listener) = find(worker, &listener) else { return };
    if let Ok(stream) = TcpStream::from_std(stream) {
        let peer = peer(&listener, address, port, place);
        serve(worker, listener, peer, stream, draining);
    }
}

fn serve(
    worker: &Rc<Worker>,
    listener: Arc<Listener>,
    peer: Peer,
    stream: TcpStream,
    draining: watch::Receiver<bool>,
) {
    let serve = connection::serve(Rc::clone(worker), listener, Rc::new(peer), stream, draining);
    tasks::local(Kind::Connection, serve);
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

/// Follows a changed limit; places in use are taken away when they become free, at the next
/// connections.
fn resize(places: &Semaphore, granted: usize, wanted: usize) -> usize {
    if wanted >= granted {
        places.add_permits(wanted - granted);
        wanted
    } else {
        granted - places.forget_permits(granted - wanted)
    }
}

fn peer(listener: &Listener, address: SocketAddr, port: u16, place: OwnedSemaphorePermit) -> Peer {
    let ip = address.ip().to_canonical();
    Peer {
        address,
        address_value: HeaderValue::try_from(ip.to_string())
            .unwrap_or_else(|_| HeaderValue::from_static("unknown")),
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
