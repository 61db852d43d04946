//! An HTTP/2 upstream, plain or gRPC, that keeps its requests and sees the frames it is sent.
//!
//! It speaks HTTP/2 with prior knowledge, or inside TLS. How bodies are echoed is in `replies`, how
//! frames are seen in `tap`. The one rule: a reset is counted from the frame itself, because a
//! handler that is dropped cannot tell a reset from a lost connection.

mod replies;
mod tap;

use std::{convert::Infallible, net::SocketAddr, pin::pin, sync::Arc, time::Instant};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use tokio::sync::watch;

use replies::Payload;
use tap::{Frames, Tap};

use crate::{
    record::{Journal, Recorded, fields_of},
    serve::{Accepted, Server},
    watched::Watched,
};

/// What the upstream does with a request.
#[derive(Clone, Debug)]
pub enum Mode {
    /// Answers with this status and body, once the request has ended.
    Answer(u16, Vec<u8>),
    /// Answers 200 and sends the request's content and trailers back as they come.
    Echo,
    /// Sends the whole content back once the request has ended, with `grpc-status: 0`.
    GrpcUnary,
    /// Answers with this content and `grpc-status: 0`, once the request has ended.
    GrpcAnswer(Vec<u8>),
    /// Sends each piece back at once, and `grpc-status: 0` when the request has ended.
    GrpcBidi,
    /// Answers with a head alone that carries the failure, once the request has ended.
    GrpcError {
        /// The `grpc-status`.
        code: u32,
        /// The `grpc-message`; must be fit for a header.
        message: String,
    },
    /// Reads the request and never answers.
    Silent,
    /// Reads the request, sends a head and this content, and never ends.
    Stall(Vec<u8>),
}

/// A stream that the gateway broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// The connection, counted from 1.
    pub connection: u64,
    /// The stream's number.
    pub stream: u32,
    /// The error code (RFC 9113 section 7): 8 is CANCEL, 5 is STREAM_CLOSED, 2 is INTERNAL_ERROR.
    pub code: u32,
}

/// A running upstream; dropping it stops it.
pub struct H2Upstream {
    server: Server,
    journal: Journal,
    frames: Arc<Watched<Frames>>,
    decide: Arc<Watched<Decide>>,
    farewell: watch::Sender<bool>,
}

/// What an upstream is before it starts.
pub struct Setup {
    at: Option<SocketAddr>,
    tls: Option<Arc<ServerConfig>>,
    decide: Decide,
    streams: u32,
}

type Decide = Arc<dyn Fn(&Recorded) -> Mode + Send + Sync>;

/// Streams at once on one connection, unless a test says otherwise.
const STREAMS: u32 = 200;

impl H2Upstream {
    /// Speaks HTTP/2 in the clear.
    pub fn start(mode: Mode) -> Self {
        Self::setup().mode(mode).start()
    }

    /// Speaks HTTP/2 inside TLS; the settings must offer `h2`.
    pub fn start_tls(config: Arc<ServerConfig>, mode: Mode) -> Self {
        Self::setup().tls(config).mode(mode).start()
    }

    /// Asks `decide` what to do with each request when its head has come: the body is still empty.
    pub fn deciding(decide: impl Fn(&Recorded) -> Mode + Send + Sync + 'static) -> Self {
        Self::setup().decide(decide).start()
    }

    /// An upstream with more to say about itself.
    pub fn setup() -> Setup {
        Setup { at: None, tls: None, decide: Arc::new(|_| Mode::Echo), streams: STREAMS }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// Exchanges what is done with requests from now on.
    pub fn set(&self, mode: Mode) {
        self.decide.change(|decide| *decide = Arc::new(move |_| mode.clone()));
    }

    /// Requests that have ended, well or badly, in that order.
    pub fn requests(&self) -> Vec<Recorded> {
        self.journal.finished()
    }

    /// The same, once there are at least `wanted`.
    pub async fn wait_for(&self, wanted: usize) -> Vec<Recorded> {
        self.journal.wait_for_finished(wanted).await
    }

    /// How many request heads have arrived.
    pub fn begun(&self) -> u64 {
        self.journal.begun()
    }

    /// Waits for request heads.
    pub async fn wait_for_begun(&self, wanted: u64) {
        self.journal.wait_for_begun(wanted).await;
    }

    /// How many connections were ever accepted.
    pub fn connections(&self) -> u64 {
        self.server.accepted()
    }

    /// Waits until exactly `wanted` connections are open.
    pub async fn wait_for_open(&self, wanted: u64) {
        self.server.traffic().settles(wanted, "open connections", |traffic| traffic.open).await;
    }

    /// Streams that were reset by the gateway.
    pub fn resets(&self) -> Vec<Reset> {
        self.frames.look(|frames| frames.resets.clone())
    }

    /// The same, once there are at least `wanted`.
    pub async fn wait_for_resets(&self, wanted: usize) -> Vec<Reset> {
        let count = |frames: &Frames| frames.resets.len() as u64;
        self.frames.reaches(wanted as u64, "stream resets", count).await;
        self.resets()
    }

    /// How many GOAWAY frames the gateway has sent.
    pub fn goaways(&self) -> u64 {
        self.frames.look(|frames| frames.goaways)
    }

    /// Sends GOAWAY on every connection and on those to come: streams under way are finished.
    pub fn go_away(&self) {
        self.farewell.send_replace(true);
    }

    /// Closes the port and every connection.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}

impl Setup {
    /// Listens at this loopback address.
    pub fn at(mut self, addr: SocketAddr) -> Self {
        self.at = Some(addr);
        self
    }

    /// Speaks inside TLS; the settings must offer `h2`.
    pub fn tls(mut self, config: Arc<ServerConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// Does the same with every request.
    pub fn mode(self, mode: Mode) -> Self {
        self.decide(move |_| mode.clone())
    }

    /// Asks what to do with each request when its head has come.
    pub fn decide(mut self, decide: impl Fn(&Recorded) -> Mode + Send + Sync + 'static) -> Self {
        self.decide = Arc::new(decide);
        self
    }

    /// Allows so many streams at once on one connection.
    pub fn max_streams(mut self, streams: u32) -> Self {
        self.streams = streams;
        self
    }

    /// Begins to listen.
    pub fn start(self) -> H2Upstream {
        let desk = Arc::new(Desk {
            journal: Journal::new(),
            frames: Arc::new(Watched::new(Frames::default())),
            decide: Arc::new(Watched::new(self.decide)),
            farewell: watch::Sender::new(false),
            streams: self.streams,
        });
        let (journal, frames) = (desk.journal.clone(), Arc::clone(&desk.frames));
        let (decide, farewell) = (Arc::clone(&desk.decide), desk.farewell.clone());
        let server = Server::start(self.at, self.tls, move |accepted| {
            let desk = Arc::clone(&desk);
            async move { desk.serve(accepted).await }
        });
        H2Upstream { server, journal, frames, decide, farewell }
    }
}

struct Desk {
    journal: Journal,
    frames: Arc<Watched<Frames>>,
    decide: Arc<Watched<Decide>>,
    farewell: watch::Sender<bool>,
    streams: u32,
}

impl Desk {
    async fn serve(self: Arc<Self>, accepted: Accepted) {
        let Accepted { number, peer, wire } = accepted;
        let tap = Tap::new(wire, number, Arc::clone(&self.frames));
        let mut farewell = self.farewell.subscribe();
        let streams = self.streams;
        let service = service_fn(move |request| Arc::clone(&self).answer(number, peer, request));
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.max_concurrent_streams(streams);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(tap), service));
        tokio::select! {
            // What went wrong on a connection is the gateway's story, told by the test.
            _ = &mut connection => return,
            _ = farewell.wait_for(|said| *said) => connection.as_mut().graceful_shutdown(),
        }
        connection.await.ok();
    }

    async fn answer(
        self: Arc<Self>,
        connection: u64,
        peer: SocketAddr,
        request: Request<Incoming>,
    ) -> Result<Response<Payload>, Infallible> {
        let (head, body) = request.into_parts();
        let mut headers = Vec::new();
        if let Some(authority) = head.uri.authority() {
            headers.push((":authority".to_owned(), authority.to_string()));
        }
        headers.extend(fields_of(&head.headers));
        let target = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
        self.journal.begin();
        let recorded = Recorded {
            connection,
            sequence: self.journal.begun(),
            peer,
            at: Instant::now(),
            head: Vec::new(),
            method: head.method.to_string(),
            target,
            version: "HTTP/2".to_owned(),
            headers,
            body: Vec::new(),
            trailers: Vec::new(),
            complete: false,
        };
        let decide = self.decide.look(Arc::clone);
        let mode = decide(&recorded);
        Ok(replies::reply(mode, replies::Noted::new(body, recorded, self.journal.clone())).await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{client, pki};

    #[tokio::test]
    async fn answers_and_echoes() {
        let upstream = H2Upstream::start(Mode::Answer(201, b"made".to_vec()));
        let mut client = client::h2c(upstream.addr()).await;
        let (parts, body, trailers) = client.send(client::post("/a?b", "hello")).await;
        assert_eq!((parts.status.as_u16(), body.as_slice()), (201, &b"made"[..]));
        assert!(trailers.is_none());

        upstream.set(Mode::Echo);
        assert_eq!(client.send(client::post("/", "again")).await.1, b"again");
        let requests = upstream.wait_for(2).await;
        assert_eq!((requests[0].target.as_str(), requests[0].text().as_str()), ("/a?b", "hello"));
        assert_eq!(requests[0].header(":authority"), Some(&*upstream.addr().to_string()));
        assert!(requests[1].complete);
        assert_eq!((upstream.connections(), upstream.resets().len()), (1, 0));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn tls_by_alpn() {
        let authority = pki::Authority::new();
        let config = pki::server_config(&authority.issue(&["localhost"]), &["h2"]);
        let upstream = H2Upstream::start_tls(config, Mode::Echo);
        let trust = pki::client_config(&authority, &["h2", "http/1.1"]);
        let mut client = client::tls(upstream.addr(), "localhost", trust).await;
        assert!(client.is_h2());
        assert_eq!(client.send(client::post("/", "x")).await.1, b"x");
        assert_eq!(upstream.requests()[0].header(":authority"), Some("localhost"));
    }

    #[tokio::test]
    async fn broken_off_requests_are_resets() {
        let upstream = H2Upstream::start(Mode::Silent);
        let mut client = client::h2c(upstream.addr()).await;
        let sent = tokio::time::timeout(
            std::time::Duration::from_millis(200),
            client.try_send(client::get("/")),
        );
        assert!(sent.await.is_err());
        let resets = upstream.wait_for_resets(1).await;
        assert_eq!(resets, [Reset { connection: 1, stream: 1, code: 8 }]);

        upstream.set(Mode::Stall(b"first".to_vec()));
        let response = client.start(client::get("/")).await;
        drop(response);
        assert_eq!(upstream.wait_for_resets(2).await[1].stream, 3);
    }

    #[tokio::test]
    async fn going_away_lets_streams_finish() {
        let upstream = H2Upstream::deciding(|request| match request.target.as_str() {
            "/bidi" => Mode::GrpcBidi,
            _ => Mode::Echo,
        });
        let mut grpc = client::grpc(upstream.addr()).await;
        let mut stream = grpc.bidi("/bidi").await;
        stream.send(b"one").await;
        assert_eq!(stream.next().await.unwrap(), b"one");
        upstream.go_away();
        stream.send(b"two").await;
        assert_eq!(stream.next().await.unwrap(), b"two");
        assert_eq!(stream.finish().await.code, Some(0));
        upstream.wait_for_open(0).await;
    }

    #[tokio::test]
    async fn one_stream_at_a_time() {
        let upstream = H2Upstream::setup().max_streams(1).mode(Mode::Silent).start();
        let mut one = client::h2c(upstream.addr()).await;
        let mut two = one.another();
        // The limit is known to the client once its settings have arrived with an answer.
        upstream.set(Mode::Echo);
        one.send(client::get("/")).await;
        upstream.set(Mode::Silent);
        let both =
            async { tokio::join!(one.try_send(client::get("/")), two.try_send(client::get("/"))) };
        // Still held when the upstream is asked: a dropped request makes room for the next.
        let mut both = pin!(both);
        let limit = std::time::Duration::from_millis(200);
        assert!(tokio::time::timeout(limit, &mut both).await.is_err());
        assert_eq!(upstream.begun(), 2);
    }
}
