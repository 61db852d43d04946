//! One client connection: TLS where the listener says so, then HTTP/1 or HTTP/2, watched by its
//! clocks and ended in good order when the gateway stops.

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Sleep;

use crate::base::clock;
use crate::base::clocks::{Clocks, Expired, Limits, Watched};
use crate::base::cx::Peer;
use crate::lasting::tasks::{Kind, Local};
use crate::lasting::telemetry::metrics;
use crate::parts::listener::Listener;
use crate::path::pipeline;
use crate::path::worker::Worker;

const PREFACE: &[u8] = b"PRI * HTTP/2.0";
/// How often a client that sends a byte at a time is looked at while its protocol is unclear.
const PEEK_AGAIN: Duration = Duration::from_millis(10);
/// hyper's adaptive read buffer may grow this far, bytes.
const READ_BUFFER: usize = 64 * 1024;

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
            let Ok(Ok(http2)) = tokio::time::timeout_at(limit, speaks_http2(&stream)).await else {
                return;
            };
            // Boxed, so that a connection holds the state of what it speaks and not of all it could.
            return if http2 {
                Box::pin(self.http2(stream)).await
            } else {
                Box::pin(self.http1(stream)).await
            };
        };
        let Ok(config) = tls.server.as_ref() else { return };
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(config));
        match tokio::time::timeout_at(limit, Box::pin(acceptor.accept(stream))).await {
            Ok(Ok(stream)) => {
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                if http2 {
                    Box::pin(self.http2(stream)).await;
                } else {
                    Box::pin(self.http1(stream)).await;
                }
            }
            Ok(Err(error)) => {
                self.worker.shard.handshakes_failed.add(1);
                tracing::debug!(listener = %self.listener.name, %error, "TLS handshake failed");
            }
            Err(_) => self.worker.shard.handshakes_failed.add(1),
        }
    }

    async fn http1<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(Watched::new(stream, Arc::clone(&self.peer.clocks)));
        let (worker, peer) = (Rc::clone(&self.worker), Rc::clone(&self.peer));
        let left = Cell::new(self.listener.limits.requests_per_connection);
        let service = service_fn(move |request: Request<Incoming>| {
            left.set(left.get().saturating_sub(1));
            let handled =
                pipeline::handle(Rc::clone(&worker), Rc::clone(&peer), request, left.get() == 0);
            handled.map(Ok::<_, Infallible>)
        });
        let head = usize::try_from(self.listener.limits.head.0).unwrap_or(READ_BUFFER);
        let connection = http1::Builder::new()
            .writev(false)
            .max_buf_size(READ_BUFFER.max(head))
            .max_header_size(head)
            // Ours tell a slow head from an idle connection.
            .header_read_timeout(None)
            .serve_connection(io, service)
            .with_upgrades();
        let connection = std::pin::pin!(connection);
        watch_over(connection, self.limits(), &self.peer.clocks, self.draining).await;
    }

    async fn http2<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        self.peer.clocks.expect_frames();
        let io = TokioIo::new(Watched::new(stream, Arc::clone(&self.peer.clocks)));
        let (worker, peer) = (Rc::clone(&self.worker), Rc::clone(&self.peer));
        let service = service_fn(move |request: Request<Incoming>| {
            let handled = pipeline::handle(Rc::clone(&worker), Rc::clone(&peer), request, false);
            handled.map(Ok::<_, Infallible>)
        });
        let connection = http2::Builder::new(Local(Kind::Stream))
            .timer(TokioTimer::new())
            .initial_stream_window_size(64 * 1024)
            .initial_connection_window_size(1024 * 1024)
            .max_concurrent_streams(self.listener.limits.streams)
            .max_send_buf_size(64 * 1024)
            .max_header_list_size(u32::try_from(self.listener.limits.head.0).unwrap_or(32 * 1024))
            .max_local_error_reset_streams(256)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10))
            .serve_connection(io, service);
        let connection = std::pin::pin!(connection);
        watch_over(connection, self.limits(), &self.peer.clocks, self.draining).await;
    }

    fn limits(&self) -> Limits {
        let timeouts = &self.listener.timeouts;
        Limits { head: timeouts.head.0, write: timeouts.write.0, keepalive: timeouts.keepalive.0 }
    }
}

/// Whether the first bytes are HTTP/2's preface, sent with prior knowledge (RFC 9113 section 3.3).
async fn speaks_http2(stream: &TcpStream) -> std::io::Result<bool> {
    let mut bytes = [0_u8; PREFACE.len()];
    loop {
        let read = stream.peek(&mut bytes).await?;
        let seen = bytes.get(..read).unwrap_or(&[]);
        if read == 0 || !PREFACE.starts_with(seen) {
            return Ok(false);
        }
        if read == PREFACE.len() {
            return Ok(true);
        }
        tokio::time::sleep_until(clock::deadline(clock::now().after(PEEK_AGAIN))).await;
    }
}

/// A hyper connection that can be asked to end.
trait Graceful: Future {
    fn shut_down(self: Pin<&mut Self>);
}

impl<I, B, S> Graceful for http1::UpgradeableConnection<I, S>
where
    S: hyper::service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    B: hyper::body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn shut_down(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, B, S> Graceful for http2::Connection<I, S, Local>
where
    S: hyper::service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    B: hyper::body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    Local: hyper::rt::bounds::Http2ServerConnExec<S::Future, B>,
{
    fn shut_down(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Drives a connection to its end, unless one of its clocks runs out first.
async fn watch_over<C: Graceful>(
    mut connection: Pin<&mut C>,
    limits: Limits,
    clocks: &Clocks,
    mut draining: watch::Receiver<bool>,
) {
    let mut ending = false;
    let next = clocks.look(clock::now(), &limits).unwrap_or_else(|_| clock::now());
    let watchdog: Sleep = tokio::time::sleep_until(clock::deadline(next));
    tokio::pin!(watchdog);
    loop {
        tokio::select! {
            biased;
            // Errors of a client's connection are its own; requests on it have been recorded.
            _ = connection.as_mut() => return,
            _ = draining.wait_for(|drain| *drain), if !ending => {
                ending = true;
                connection.as_mut().shut_down();
            }
            () = watchdog.as_mut() => match clocks.look(clock::now(), &limits) {
                Ok(next) => watchdog.as_mut().reset(clock::deadline(next)),
                Err(Expired::Idle) if !ending => {
                    ending = true;
                    connection.as_mut().shut_down();
                    // A client that ignores the farewell is cut at the next look.
                    watchdog.as_mut().reset(clock::deadline(clock::now().after(limits.head)));
                }
                Err(_) => return,
            },
        }
    }
}
