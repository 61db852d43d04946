//! Accepts connections on one socket. The loop awaits nothing but the next connection, so that the
//! kernel's queue never fills behind a slow handshake.

use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::connection;
use crate::base::clock;
use crate::base::clocks::Clocks;
use crate::base::cx::Peer;
use crate::lasting::tasks::{self, Kind};
use crate::parts::listener::Listener;
use crate::path::worker::Worker;

/// Pause after an error that will not go away at once (no descriptors, no memory).
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts until drained.
pub(crate) async fn run(
    worker: Rc<Worker>,
    name: Arc<str>,
    socket: TcpListener,
    mut draining: watch::Receiver<bool>,
) {
    let port = socket.local_addr().map_or(0, |address| address.port());
    let socket = match tokio::net::TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(listener = %name, %error, "cannot listen");
            return;
        }
    };
    let Some(listener) = find(&worker, &name) else { return };
    let mut granted = share(&worker, &listener);
    let places = Arc::new(Semaphore::new(granted));
    loop {
        // Without a free place connections wait in the kernel's queue.
        let place = tokio::select! {
            biased;
            place = Arc::clone(&places).acquire_owned() => place,
            _ = draining.wait_for(|drain| *drain) => return,
        };
        let Ok(place) = place else { return };
        let accepted = tokio::select! {
            biased;
            accepted = socket.accept() => accepted,
            _ = draining.wait_for(|drain| *drain) => return,
        };
        match accepted {
            Ok((stream, address)) => {
                let Some(listener) = find(&worker, &name) else { return };
                granted = resize(&places, granted, share(&worker, &listener));
                let peer = Rc::new(peer(&listener, address, port, place));
                let serve =
                    connection::serve(Rc::clone(&worker), listener, peer, stream, draining.clone());
                tasks::local(Kind::Connection, serve);
            }
            Err(error) => {
                worker.shard.accept_errors.add(1);
                if !is_passing(&error) {
                    tracing::warn!(listener = %name, %error, "cannot accept; pausing");
                    tokio::time::sleep_until(clock::deadline(clock::now().after(PAUSE))).await;
                }
            }
        }
    }
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
        secure: listener.tls.is_some(),
        clocks: Clocks::start(),
        _place: place,
    }
}

/// Errors of the connection that was to be accepted, not of the socket (accept(2)).
fn is_passing(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | WouldBlock)
}
