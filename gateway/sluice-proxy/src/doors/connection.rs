//! One client connection: TLS where the listener says so, then HTTP/1 or HTTP/2, watched by its
//! clocks and ended in good order when the gateway stops. Below it what is spoken, and the gate that
//! sees HTTP/1 first.

mod gate;
mod http1;
mod http2;
mod sniff;

use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::base::clock;
use crate::base::clocks::Limits;
use crate::base::cx::Peer;
use crate::lasting::telemetry::metrics;
use crate::parts::listener::Listener;
use crate::path::worker::Worker;

/// Serves one connection to its end.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    listener: Arc<Listener>,
    peer: Peer,
    stream: TcpStream,
    draining: watch::Receiver<bool>,
) {
    let _open = Open::count(&worker.shard);
    let _ = stream.set_nodelay(true);
    let session = Session { worker, listener, peer: Rc::new(peer), draining };
    session.greet(stream).await;
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
    draining: watch::Receiver<bool>,
}

impl Session {
    /// Finds out what is spoken, within the listener's handshake time.
    async fn greet(self, stream: TcpStream) {
        let limit = clock::deadline(clock::now().after(self.listener.timeouts.handshake.0));
        let Some(tls) = &self.listener.tls else {
            let Ok(Ok(http2)) = tokio::time::timeout_at(limit, sniff::speaks_http2(&stream)).await
            else {
                return;
            };
            // Boxed, so that a connection holds the state of what it speaks and not of all it could.
            return if http2 {
                Box::pin(http2::serve(self, stream)).await
            } else {
                Box::pin(http1::serve(self, stream)).await
            };
        };
        let Ok(config) = tls.server.as_ref() else { return };
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(config));
        match tokio::time::timeout_at(limit, Box::pin(acceptor.accept(stream))).await {
            Ok(Ok(stream)) => {
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                // Large, and moved whenever hyper comes or goes.
                let stream = Box::new(stream);
                if http2 {
                    Box::pin(http2::serve(self, stream)).await;
                } else {
                    Box::pin(http1::serve(self, stream)).await;
                }
            }
            Ok(Err(error)) => {
                self.worker.shard.handshakes_failed.add(1);
                tracing::debug!(listener = %self.listener.name, %error, "TLS handshake failed");
            }
            Err(_) => self.worker.shard.handshakes_failed.add(1),
        }
    }

    fn limits(&self) -> Limits {
        let timeouts = &self.listener.timeouts;
        Limits { head: timeouts.head.0, write: timeouts.write.0, keepalive: timeouts.keepalive.0 }
    }
}
