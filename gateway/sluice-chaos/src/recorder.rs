//! An honest HTTP/1.1 upstream that keeps every request it was sent.
//!
//! What it says is an [`Answer`], fixed, exchanged while it runs, or decided for each request.
//! Upstreams that break the protocol are left to [`crate::rogue`]. The one rule: every request gets
//! an answer that agrees with its method and its own framing.

mod answer;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustls::ServerConfig;

pub use answer::Answer;

use crate::{
    framing::{self, Body, RawHead},
    record::{Journal, Recorded},
    serve::{Accepted, Server},
    watched::Watched,
    wire::Pipe,
};

/// A running upstream; dropping it stops it.
pub struct Recorder {
    server: Server,
    journal: Journal,
    decide: Arc<Watched<Decide>>,
    retired: Arc<AtomicBool>,
}

/// What a recorder is before it starts.
pub struct Setup {
    at: Option<SocketAddr>,
    tls: Option<Arc<ServerConfig>>,
    decide: Decide,
    patience: Option<Duration>,
}

type Decide = Arc<dyn Fn(&Recorded) -> Answer + Send + Sync>;

impl Recorder {
    /// Answers every request with 200 and the body `ok`.
    pub fn start() -> Self {
        Self::setup().start()
    }

    /// Answers every request alike.
    pub fn answering(answer: Answer) -> Self {
        Self::setup().answer(answer).start()
    }

    /// Asks `decide` for the answer to each request, once the request has ended.
    pub fn deciding(decide: impl Fn(&Recorded) -> Answer + Send + Sync + 'static) -> Self {
        Self::setup().decide(decide).start()
    }

    /// A recorder with more to say about itself.
    pub fn setup() -> Setup {
        let decide: Decide = Arc::new(|_| Answer::ok("ok"));
        Setup { at: None, tls: None, decide, patience: None }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// Exchanges the answer for requests that end from now on.
    pub fn set(&self, answer: Answer) {
        self.decide.change(|decide| *decide = Arc::new(move |_| answer.clone()));
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

    /// How many requests lost their client between their end and the answer's last byte.
    pub fn abandoned(&self) -> u64 {
        self.journal.abandoned()
    }

    /// Waits for requests to lose their client.
    pub async fn wait_for_abandoned(&self, wanted: u64) {
        self.journal.wait_for_abandoned(wanted).await;
    }

    /// How many connections were ever accepted.
    pub fn connections(&self) -> u64 {
        self.server.accepted()
    }

    /// How many connections are open now.
    pub fn open(&self) -> u64 {
        self.server.traffic().look(|traffic| traffic.open)
    }

    /// Waits until exactly `wanted` connections are open.
    pub async fn wait_for_open(&self, wanted: u64) {
        self.server.traffic().settles(wanted, "open connections", |traffic| traffic.open).await;
    }

    /// Stops as good services do: takes no new connections, and says `Connection: close` with its answers
    /// on those that are open. An idle one stays until it is used or its client closes it.
    pub async fn retire(mut self) {
        self.retired.store(true, Ordering::Relaxed);
        self.server.close_port();
        self.wait_for_open(0).await;
        self.server.stop().await;
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

    /// Speaks TLS.
    pub fn tls(mut self, config: Arc<ServerConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// Answers every request alike.
    pub fn answer(self, answer: Answer) -> Self {
        self.decide(move |_| answer.clone())
    }

    /// Asks for the answer to each request.
    pub fn decide(mut self, decide: impl Fn(&Recorded) -> Answer + Send + Sync + 'static) -> Self {
        self.decide = Arc::new(decide);
        self
    }

    /// Closes a connection, without a word, that has been idle for so long.
    pub fn close_idle_after(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// Begins to listen.
    pub fn start(self) -> Recorder {
        let journal = Journal::new();
        let decide = Arc::new(Watched::new(self.decide));
        let retired = Arc::new(AtomicBool::new(false));
        let desk = Arc::new(Desk {
            journal: journal.clone(),
            decide: Arc::clone(&decide),
            patience: self.patience,
            retired: Arc::clone(&retired),
        });
        let server = Server::start(self.at, self.tls, move |accepted| {
            let desk = Arc::clone(&desk);
            async move { desk.serve(accepted).await }
        });
        Recorder { server, journal, decide, retired }
    }
}

struct Desk {
    journal: Journal,
    decide: Arc<Watched<Decide>>,
    patience: Option<Duration>,
    retired: Arc<AtomicBool>,
}

impl Desk {
    async fn serve(&self, accepted: Accepted) {
        let Accepted { number, peer, wire } = accepted;
        let mut pipe = Pipe::new(wire);
        for sequence in 1.. {
            let Some(head) = self.next_head(&mut pipe).await else { break };
            let request = Recorded {
                connection: number,
                sequence,
                peer,
                at: Instant::now(),
                head: head.bytes,
                method: head.start[0].clone(),
                target: head.start[1].clone(),
                version: head.start[2].clone(),
                headers: head.fields,
                body: Vec::new(),
                trailers: Vec::new(),
                complete: false,
            };
            if !self.answer(&mut pipe, request).await {
                break;
            }
        }
        // The peer may be gone already; then there is nobody to say goodbye to.
        pipe.finish().await.ok();
    }

    async fn next_head(&self, pipe: &mut Pipe) -> Option<RawHead> {
        let head = framing::read_head(pipe);
        match self.patience {
            None => head.await.ok()?,
            Some(patience) => tokio::time::timeout(patience, head).await.ok()?.ok()?,
        }
    }

    /// Reads the body and answers; false when the connection is of no further use.
    async fn answer(&self, pipe: &mut Pipe, mut request: Recorded) -> bool {
        self.journal.begin();
        let note = Note { journal: &self.journal, request: Some(request.clone()) };
        if framing::lists(&request.headers, "expect", "100-continue")
            && pipe.send(b"HTTP/1.1 100 Continue\r\n\r\n").await.is_err()
        {
            return false;
        }
        let mut body = Body::default();
        framing::read_body(pipe, framing::of_request(&request.headers), &mut body).await;
        (request.body, request.trailers) = (body.data, body.trailers);
        request.complete = body.complete;
        note.finish(request.clone());
        if !request.complete {
            return false;
        }
        let decide = self.decide.look(Arc::clone);
        let answer = decide(&request);
        let answer = if self.retired.load(Ordering::Relaxed) { answer.close() } else { answer };
        let stay = !answer.closes() && !framing::lists(&request.headers, "connection", "close");
        let sent = answer.send(pipe, &request).await;
        if !sent {
            self.journal.abandon();
        }
        sent && stay
    }
}

/// Makes sure that a request whose connection is torn down by `stop` is noted as cut.
struct Note<'a> {
    journal: &'a Journal,
    request: Option<Recorded>,
}

impl Note<'_> {
    fn finish(mut self, request: Recorded) {
        self.request = None;
        self.journal.finish(request);
    }
}

impl Drop for Note<'_> {
    fn drop(&mut self) {
        if let Some(request) = self.request.take() {
            self.journal.finish(request);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{pki, raw};

    #[tokio::test]
    async fn requests_are_kept_as_they_came() {
        let recorder = Recorder::start();
        let mut client = raw::Client::connect(recorder.addr()).await;
        client.send("POST /a?b=c HTTP/1.1\r\nHost: x\r\nX-Odd:\t1\r\n").await;
        client.send("Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-End: 2\r\n\r\n").await;
        let response = client.response().await;
        assert_eq!((response.status, response.text().as_str()), (200, "ok"));
        assert_eq!(client.request("GET", "/next", "x", &[], b"").await.status, 200);

        let requests = recorder.wait_for(2).await;
        let first = &requests[0];
        assert!(first.head.starts_with(b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nX-Odd:\t1\r\n"));
        assert_eq!((first.method.as_str(), first.target.as_str()), ("POST", "/a?b=c"));
        assert_eq!((first.header("x-odd"), first.text().as_str()), (Some("1"), "hi"));
        assert_eq!(first.trailers, [("X-End".to_owned(), "2".to_owned())]);
        assert!(first.complete);
        assert_eq!((requests[1].connection, requests[1].sequence), (1, 2));
        assert_eq!((recorder.connections(), recorder.begun()), (1, 2));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_cut_body_is_noted_as_such() {
        let recorder = Recorder::start();
        let mut client = raw::Client::connect(recorder.addr()).await;
        client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nfour").await;
        recorder.wait_for_begun(1).await;
        assert_eq!(recorder.requests().len(), 0);
        client.reset();
        let requests = recorder.wait_for(1).await;
        assert_eq!((requests[0].text().as_str(), requests[0].complete), ("four", false));
        recorder.wait_for_open(0).await;
    }

    #[tokio::test]
    async fn answers_follow_the_request() {
        let recorder = Recorder::deciding(|request| match request.target.as_str() {
            "/echo" => Answer::echo(),
            "/chunks" => Answer::ok("parts").trailer("X-Sum", "5").header("X-Latin", "\u{e9}"),
            "/bye" => Answer::new(503).reason("Out").close(),
            _ => Answer::new(204),
        });
        let mut client = raw::Client::connect(recorder.addr()).await;
        let echo = client.request("PUT", "/echo", "h", &[("X-A", "1")], b"in").await.json();
        assert_eq!((echo["body"].as_str(), echo["method"].as_str()), (Some("in"), Some("PUT")));
        let chunks = client.request("GET", "/chunks", "h", &[], b"").await;
        assert_eq!(chunks.text(), "parts");
        assert_eq!(chunks.trailers, [("X-Sum".to_owned(), "5".to_owned())]);
        assert_eq!(chunks.header("x-latin"), Some("\u{e9}"));
        assert!(client.request("HEAD", "/chunks", "h", &[], b"").await.body.is_empty());
        assert_eq!(client.request("GET", "/", "h", &[], b"").await.status, 204);
        let bye = client.request("GET", "/bye", "h", &[], b"").await;
        assert_eq!((bye.status, bye.reason.as_str(), bye.closed), (503, "Out", true));

        recorder.set(Answer::ok("new"));
        assert_eq!(raw::get(recorder.addr(), "h", "/").await.text(), "new");
    }

    #[tokio::test]
    async fn expectations_idleness_and_lost_clients() {
        let slow = Answer::ok("late").delay(crate::DEADLINE);
        let recorder = Recorder::setup()
            .decide(
                move |request| {
                    if request.target == "/slow" { slow.clone() } else { Answer::ok("") }
                },
            )
            .close_idle_after(Duration::from_millis(100))
            .start();
        let mut client = raw::Client::connect(recorder.addr()).await;
        let expect = [("Expect", "100-continue")];
        assert_eq!(client.request("POST", "/", "h", &expect, b"x").await.interims, [100]);
        assert!(client.closed_by_peer().await);

        let mut client = raw::Client::connect(recorder.addr()).await;
        client.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n").await;
        recorder.wait_for(2).await;
        drop(client);
        recorder.wait_for_abandoned(1).await;
        assert_eq!(recorder.abandoned(), 1);
    }

    #[tokio::test]
    async fn tls_and_a_restart_on_the_same_port() {
        let authority = pki::Authority::new();
        let config = pki::server_config(&authority.issue(&["localhost"]), &["http/1.1"]);
        let recorder = Recorder::setup().tls(Arc::clone(&config)).start();
        let addr = recorder.addr();
        let trust = pki::client_config(&authority, &["http/1.1"]);
        let mut client = raw::Client::connect_tls(addr, "localhost", Arc::clone(&trust)).await;
        assert_eq!(client.request("GET", "/", "localhost", &[], b"").await.text(), "ok");
        assert_eq!(client.alpn().unwrap(), b"http/1.1");
        recorder.stop().await;
        assert!(raw::Client::try_connect(addr).await.is_err());

        let _recorder = Recorder::setup().at(addr).tls(config).start();
        let mut client = raw::Client::connect_tls(addr, "localhost", trust).await;
        assert_eq!(client.request("GET", "/", "localhost", &[], b"").await.status, 200);
    }

    #[tokio::test]
    async fn who_retires_finishes_what_was_begun() {
        let recorder = Recorder::start();
        let addr = recorder.addr();
        let mut client = raw::Client::connect(addr).await;
        assert_eq!(client.request("GET", "/", "h", &[], b"").await.status, 200);
        let retiring = tokio::spawn(recorder.retire());
        while raw::Client::try_connect(addr).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(!retiring.is_finished(), "a connection is open");
        let last = client.request("GET", "/", "h", &[], b"").await;
        assert_eq!((last.status, last.closed), (200, true));
        retiring.await.unwrap();
    }
}
