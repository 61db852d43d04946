//! Well-behaved clients over one connection: HTTP/1.1, HTTP/2 in the clear or by TLS, and gRPC.
//!
//! For requests that a proper client would not send there is [`crate::raw`]. The one rule: a request
//! goes out as the test wrote it; only what no request can lack (host, scheme) is filled in.

mod cable;
mod grpc;

use std::{
    error::Error,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, Response, Uri,
    header::HOST,
    response::Parts,
    uri::{PathAndQuery, Scheme},
};
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use hyper::{
    body::{Body, Incoming},
    client::conn::{http1, http2},
    rt::Executor,
};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::watch,
};

use cable::Cable;
pub use grpc::{Bidi, Grpc, Reply, frame, unframe};

use crate::{
    ground::{self, DEADLINE, within},
    wire::{self, Wire},
};

/// The body of a request.
pub type Payload = UnsyncBoxBody<Bytes, BoxError>;

type BoxError = Box<dyn Error + Send + Sync>;

/// A whole response: head, content, trailers.
pub type Whole = (Parts, Vec<u8>, Option<HeaderMap>);

/// One connection to a server.
pub struct Sender {
    kind: Kind,
    /// What a request without a host is sent to.
    authority: String,
    scheme: Scheme,
    crew: Crew,
}

enum Kind {
    H1(http1::SendRequest<Payload>),
    H2(http2::SendRequest<Payload>),
}

/// Connects for HTTP/1.1.
pub async fn h1(addr: SocketAddr) -> Sender {
    Sender::h1(connected(addr).await, addr.to_string(), Scheme::HTTP).await
}

/// Connects for HTTP/2 with prior knowledge.
pub async fn h2c(addr: SocketAddr) -> Sender {
    Sender::h2(connected(addr).await, addr.to_string(), Scheme::HTTP).await
}

/// Connects inside TLS under this name; speaks HTTP/2 when that was agreed on, or HTTP/1.1.
pub async fn tls(addr: SocketAddr, name: &str, config: Arc<ClientConfig>) -> Sender {
    let host = name.to_owned();
    let connect = ground::spawn(async move { wire::connect_tls(addr, &host, config).await });
    let stream =
        within(DEADLINE, "a TLS handshake", connect).await.expect("no panic while connecting");
    let stream = stream.unwrap_or_else(|error| panic!("no TLS with {addr} as {name}: {error}"));
    if stream.alpn().is_some_and(|protocol| protocol == b"h2") {
        Sender::h2(stream, name.to_owned(), Scheme::HTTPS).await
    } else {
        Sender::h1(stream, name.to_owned(), Scheme::HTTPS).await
    }
}

/// A socket of the crate's runtime, where its driver will run.
async fn connected(addr: SocketAddr) -> TcpStream {
    let connect = ground::spawn(wire::connect(addr));
    let stream =
        within(DEADLINE, "a connection", connect).await.expect("no panic while connecting");
    stream.unwrap_or_else(|error| panic!("cannot reach {addr}: {error}"))
}

/// Connects for gRPC in the clear.
pub async fn grpc(addr: SocketAddr) -> Grpc {
    Grpc::over(h2c(addr).await)
}

/// A GET request.
pub fn get(path: &str) -> Request<Payload> {
    let empty = Empty::new().map_err(|never| match never {}).boxed_unsync();
    Request::get(path).body(empty).expect("a path")
}

/// A POST request.
pub fn post(path: &str, body: impl Into<Bytes>) -> Request<Payload> {
    let full = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
    Request::post(path).body(full).expect("a path")
}

impl Sender {
    async fn h1<S>(stream: S, authority: String, scheme: Scheme) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let crew = Crew::default();
        let shaken = http1::handshake(TokioIo::new(crew.cable(stream))).await;
        let (sender, connection) = shaken.expect("HTTP/1 begins without a word");
        crew.execute(connection.with_upgrades());
        Self { kind: Kind::H1(sender), authority, scheme, crew }
    }

    async fn h2<S>(stream: S, authority: String, scheme: Scheme) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let crew = Crew::default();
        let shaking = http2::handshake(crew.clone(), TokioIo::new(crew.cable(stream)));
        let shaken = within(DEADLINE, "an HTTP/2 preface to be sent", shaking).await;
        let (sender, connection) = shaken.unwrap_or_else(|error| panic!("no HTTP/2: {error}"));
        crew.execute(connection);
        Self { kind: Kind::H2(sender), authority, scheme, crew }
    }

    /// Whether this is HTTP/2.
    pub fn is_h2(&self) -> bool {
        matches!(self.kind, Kind::H2(_))
    }

    /// A second sender on the same HTTP/2 connection.
    pub fn another(&self) -> Self {
        let Kind::H2(sender) = &self.kind else { panic!("HTTP/1 has one request at a time") };
        Self {
            kind: Kind::H2(sender.clone()),
            authority: self.authority.clone(),
            scheme: self.scheme.clone(),
            crew: self.crew.clone(),
        }
    }

    /// Sends a request and reads the whole response, or fails the test.
    pub async fn send<B>(&mut self, request: Request<B>) -> Whole
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.try_send(request).await.unwrap_or_else(|error| panic!("no whole response: {error}"))
    }

    /// Sends a request and reads the whole response, or tells what went wrong.
    pub async fn try_send<B>(&mut self, request: Request<B>) -> Result<Whole, String>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let response = self.try_start(request).await?;
        let (parts, body) = response.into_parts();
        let body = within(DEADLINE, "the end of a response", body.collect()).await;
        let body = body.map_err(|error| story(&error))?;
        let trailers = body.trailers().cloned();
        Ok((parts, body.to_bytes().to_vec(), trailers))
    }

    /// Sends a request and gives back the response as soon as its head is there.
    pub async fn start<B>(&mut self, request: Request<B>) -> Response<Incoming>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.try_start(request).await.unwrap_or_else(|error| panic!("no response: {error}"))
    }

    /// The same, or tells what went wrong.
    pub async fn try_start<B>(&mut self, request: Request<B>) -> Result<Response<Incoming>, String>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let request = self.prepare(request.map(|body| body.map_err(Into::into).boxed_unsync()));
        let answered = async {
            match &mut self.kind {
                Kind::H1(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
                Kind::H2(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
            }
        };
        within(DEADLINE, "a response head", answered).await.map_err(|error| story(&error))
    }

    /// Drops the connection with everything on it, without any farewell.
    pub fn cut(self) {
        self.crew.cut();
    }

    fn prepare(&self, mut request: Request<Payload>) -> Request<Payload> {
        if request.uri().authority().is_some() {
            return request;
        }
        if self.is_h2() {
            let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
            let authority = host.unwrap_or(&self.authority).to_owned();
            request.headers_mut().remove(HOST);
            let path = request.uri().path_and_query().cloned();
            let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
            let uri = Uri::builder().scheme(self.scheme.clone()).authority(authority);
            *request.uri_mut() = uri.path_and_query(path).build().expect("parts of a URI");
        } else if !request.headers().contains_key(HOST) {
            let host = HeaderValue::try_from(&self.authority).expect("a host");
            request.headers_mut().insert(HOST, host);
        }
        request
    }
}

/// The tasks of one connection, which can be dropped together.
#[derive(Clone, Default)]
struct Crew {
    dropped: watch::Sender<bool>,
    cut: Arc<AtomicBool>,
}

impl Crew {
    fn cable<S>(&self, stream: S) -> Cable<S> {
        Cable::new(stream, Arc::clone(&self.cut))
    }

    fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.dropped.send_replace(true);
    }
}

impl<F> Executor<F> for Crew
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        let mut dropped = self.dropped.subscribe();
        ground::spawn(async move {
            tokio::select! {
                // An error would mean that every sender is gone, which is no reason to stop: a
                // response may still be under way.
                Ok(_) = dropped.wait_for(|dropped| *dropped) => {}
                _ = task => {}
            }
        });
    }
}

/// An error with its causes, in one line.
fn story(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        h2up::{H2Upstream, Mode},
        pki,
        recorder::{Answer, Recorder},
        rogue::{self, Rogue},
    };

    #[tokio::test]
    async fn http1_with_trailers() {
        let recorder = Recorder::answering(Answer::ok("x").trailer("x-end", "1"));
        let mut client = h1(recorder.addr()).await;
        for path in ["/a", "/b"] {
            let (parts, body, trailers) = client.send(post(path, "in")).await;
            assert_eq!((parts.status.as_u16(), body.as_slice()), (200, &b"x"[..]));
            assert_eq!(trailers.unwrap()["x-end"], "1");
        }
        let requests = recorder.wait_for(2).await;
        assert_eq!(requests[0].header("host"), Some(&*recorder.addr().to_string()));
        assert_eq!((requests[1].connection, requests[1].text().as_str()), (1, "in"));
        assert!(!client.is_h2());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn http1_by_tls_when_that_is_agreed_on() {
        let authority = pki::Authority::new();
        let config = pki::server_config(&authority.issue(&["a.test"]), &["http/1.1"]);
        let recorder = Recorder::setup().tls(config).start();
        let trust = pki::client_config(&authority, &["h2", "http/1.1"]);
        let mut client = tls(recorder.addr(), "a.test", trust).await;
        assert!(!client.is_h2());
        client.send(get("/")).await;
        assert_eq!(recorder.requests()[0].header("host"), Some("a.test"));
    }

    #[tokio::test]
    async fn failures_are_told_with_their_causes() {
        let rogue = Rogue::start(rogue::reset_mid_body());
        let mut client = h1(rogue.addr()).await;
        let failure = client.try_send(get("/")).await.unwrap_err();
        assert!(failure.contains("reset"), "{failure}");
    }

    #[tokio::test]
    async fn streams_share_a_connection_until_it_is_cut() {
        let upstream = H2Upstream::start(Mode::Silent);
        let one = h2c(upstream.addr()).await;
        let mut two = one.another();
        let waiting = tokio::spawn(async move { two.try_send(get("/")).await });
        upstream.wait_for_begun(1).await;
        one.cut();
        assert!(waiting.await.unwrap().is_err());
        assert_eq!((upstream.connections(), upstream.resets().len()), (1, 0));
    }

    #[tokio::test]
    async fn a_host_names_the_authority() {
        let upstream = H2Upstream::start(Mode::Echo);
        let mut client = h2c(upstream.addr()).await;
        let mut request = get("/");
        request.headers_mut().insert(HOST, HeaderValue::from_static("b.test"));
        client.send(request).await;
        assert_eq!(upstream.requests()[0].header(":authority"), Some("b.test"));
    }
}
