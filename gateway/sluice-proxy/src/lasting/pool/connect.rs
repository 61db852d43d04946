//! Opens a connection to a service: TCP, TLS where the shape says so, and for HTTP/2 hyper's client on
//! top. Each step has the shape's connect timeout. The task that drives an HTTP/2 connection holds its
//! permit, so that one counts until its socket is closed, whoever let go of it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::super::link::{Link, Tls};
use super::super::tasks::{self, Kind, Local};
use super::Permit;
use crate::base::body::Upload;
use crate::base::clock;
use crate::base::fault::Fault;
use crate::base::http1::Stream;

const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
const SEND_BUFFER: usize = 64 * 1024;
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn http1(link: &Arc<Link>) -> Result<Stream, Fault> {
    let stream = tcp(link).await?;
    Ok(match &link.shape.tls {
        None => Stream::Plain(stream),
        Some(tls) => Stream::Tls(Box::new(secure(link, tls, stream).await?)),
    })
}

pub(super) async fn http2(
    link: &Arc<Link>,
    permit: Rc<Permit>,
) -> Result<http2::SendRequest<Upload>, Fault> {
    let stream = tcp(link).await?;
    match &link.shape.tls {
        None => handshake2(stream, permit).await,
        Some(tls) => handshake2(secure(link, tls, stream).await?, permit).await,
    }
}

async fn tcp(link: &Link) -> Result<TcpStream, Fault> {
    let stream =
        within(link, TcpStream::connect(link.address)).await?.map_err(|error| {
            match error.kind() {
                std::io::ErrorKind::ConnectionRefused => Fault::ConnectRefused,
                std::io::ErrorKind::TimedOut => Fault::ConnectTimeout,
                _ => Fault::ConnectFailed,
            }
        })?;
    let socket = socket2::SockRef::from(&stream);
    // A socket that refuses an option still carries requests, only less well guarded.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(TCP_KEEPALIVE));
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT));
    Ok(stream)
}

async fn secure(
    link: &Link,
    tls: &Tls,
    stream: TcpStream,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Fault> {
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(&tls.config));
    within(link, connector.connect(tls.server_name.clone(), stream)).await?.map_err(|error| {
        tracing::warn!(upstream = %link.upstream, address = %link.address, %error, "TLS to the upstream failed");
        Fault::UpstreamTls
    })
}

async fn within<F: Future>(link: &Link, step: F) -> Result<F::Output, Fault> {
    let limit = clock::deadline(clock::now().after(link.shape.connect));
    tokio::time::timeout_at(limit, step).await.map_err(|_| Fault::ConnectTimeout)
}

async fn handshake2<I>(io: I, permit: Rc<Permit>) -> Result<http2::SendRequest<Upload>, Fault>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (sender, connection) = http2::Builder::new(Local(Kind::Upstream))
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|_| Fault::ConnectFailed)?;
    tasks::local(Kind::Upstream, async move {
        let _ = connection.await;
        drop(permit);
    });
    Ok(sender)
}
