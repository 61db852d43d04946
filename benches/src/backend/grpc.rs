//! The gRPC service behind proxies: HTTP/2 without TLS, one thread; a unary call's message comes
//! back as it is, with `grpc-status: 0` in the trailers.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use crate::failure::Outcome;

/// Streams at a time on one connection: all that a proxy may bundle.
const STREAMS: u32 = 1000;

/// Serves for ever; the harness ends the process.
pub(crate) fn serve(address: SocketAddr) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(async move {
                let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let server = server.max_concurrent_streams(STREAMS);
                // A proxy that goes away ends its connection in its own way.
                let _ = server.serve_connection(TokioIo::new(stream), service_fn(echo)).await;
            });
        }
    })
}

async fn echo(
    request: Request<Incoming>,
) -> Result<Response<impl Body<Data = Bytes, Error = Infallible>>, hyper::Error> {
    super::count::one();
    let message = request.into_body().collect().await?.to_bytes();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(message).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(body);
    let fields = response.headers_mut();
    fields.insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}
