//! One client connection: what a proxy in front says of it, TLS where the listener says so, then HTTP/1 or HTTP/2, watched by its
//! clocks and ended in good order when the gateway stops. Below it what is spoken, and the gate that
//! sees HTTP/1 first.

mod calm;
mod gate;
mod handshake;
mod held;
mod http1;
mod http2;
pub(super) mod proxied;
mod sniff;

pub(super) use handshake::accept_tls;

use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::shared::Mood;
use crate::base::clock;
use crate::base::clocks::Limits;
use crate::base::cx::Peer;
use crate::lasting::telemetry::metrics;
use crate::parts::listener::Listener;
use crate::path::worker::Worker;

/// Serves one connection to its end. What goes on here is in the future that is returned, once: an
/// async block would hold it a second time.
pub(crate) fn serve(
    worker: Rc<Worker>,
    listener: Arc<Listener>,
    peer: Rc<Peer>,
    stream: TcpStream,
    mood: watch::Receiver<Mood>,
) -> impl Future<Output = ()> {
    let open = Open::count(&worker.shard);
    let _ = stream.set_nodelay(true);
    let session = Session { worker, listener, peer, mood };
    session.greet(stream).map(move |()| drop(open))
}

/// Counts a connection as open, however its code ends.
struct Open(Arc<metrics::Worker>);

impl Open {
    fn count(shard: &Arc<metrics::Worker>) -> Self {
        shard.connections_opened.add(1);
        Self(Arc::clone(shard))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections_closed.add(1);
    }
}

/// What a connection's code needs at hand.
struct Session {
    worker: Rc<Worker>,
    listener: Arc<Listener>,
    peer: Rc<Peer>,
    mood: watch::Receiver<Mood>,
}

impl Session {
    /// Finds out what is spoken, within the listener's handshake time. What is large is boxed, so that a
    /// connection holds the state of what it does and not of all it could.
    async fn greet(mut self, stream: TcpStream) {
        let (limit, mut stream) = (self.limit(), stream);
        if self.listener.proxy_protocol.is_some() {
            let listener = Arc::clone(&self.listener);
            let Some(proxies) = &listener.proxy_protocol else { return };
            if !Box::pin(proxied::read(&mut self, proxies, &mut stream, limit)).await {
                return;
            }
        }
        if let Some(certificates) = self.listener.tls.as_ref().map(Arc::clone) {
            let shaken = Box::pin(handshake::shake(&mut self, &certificates, stream, limit)).await;
            let Some(handshake::Shaken { stream, http2 }) = shaken else { return };
            drop(certificates);
            return if http2 {
                Box::pin(http2::serve(self, stream)).await
            } else {
                Box::pin(http1::serve(self, stream)).await
            };
        }
        let first = tokio::time::timeout_at(limit, sniff::speaks_http2(&stream));
        match Box::pin(first).await {
            Ok(Ok(true)) => Box::pin(http2::serve(self, stream)).await,
            Ok(Ok(false)) => Box::pin(http1::serve(self, stream)).await,
            Ok(Err(_)) | Err(_) => {}
        }
    }

    fn limit(&self) -> Instant {
        clock::deadline(clock::now().after(self.listener.timeouts.handshake.0))
    }

    fn limits(&self) -> Limits {
        let timeouts = &self.listener.timeouts;
        Limits { head: timeouts.head.0, write: timeouts.write.0, keepalive: timeouts.keepalive.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole<A, B, C, D, E, F>(_: fn(A, B, C, D, E) -> F) -> usize {
        size_of::<F>()
    }

    fn spoken<A, B, F>(_: fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_at_rest_stays_small() {
        let (all, http1) = (whole(serve), spoken(http1::serve::<TcpStream>));
        assert!(all <= 320, "what every connection holds has {all} bytes");
        assert!(http1 <= 768, "the future of an HTTP/1 connection has {http1} bytes");
    }
}
