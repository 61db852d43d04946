//! What an upstream notes down about the requests it was sent.
//!
//! How requests are read is left to the upstreams. The one rule: a request is noted when it has
//! ended, well or badly, so `complete` never changes afterwards.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use serde_json::{Value, json};

use crate::{
    framing::{self, Field},
    watched::Watched,
};

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The connection it came on, counted from 1.
    pub connection: u64,
    /// Its place among the requests of its connection, counted from 1.
    pub sequence: u64,
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// When its head had arrived.
    pub at: Instant,
    /// The raw head through the empty line; nothing for HTTP/2.
    pub head: Vec<u8>,
    /// The method.
    pub method: String,
    /// The request target as sent; for HTTP/2 the path and query.
    pub target: String,
    /// `HTTP/1.1` and the like.
    pub version: String,
    /// Fields in order, names in the case they came in, values as Latin-1. For HTTP/2 the
    /// pseudo-header `:authority` comes first when there was one.
    pub headers: Vec<(String, String)>,
    /// The content, chunks taken apart.
    pub body: Vec<u8>,
    /// Fields after the content.
    pub trailers: Vec<(String, String)>,
    /// Whether the body ended as announced; false when the peer left or broke the framing.
    pub complete: bool,
}

impl Recorded {
    /// The first value of a field, by a name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// Every value of a field, by a name in any case.
    pub fn all(&self, name: &str) -> Vec<&str> {
        framing::values(&self.headers, name)
    }

    /// The body as text, what is not UTF-8 replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The request as JSON: every field but the peer, the instant and the raw head.
    pub fn to_json(&self) -> Value {
        json!({
            "connection": self.connection,
            "sequence": self.sequence,
            "method": self.method,
            "target": self.target,
            "version": self.version,
            "headers": self.headers,
            "body": self.text(),
            "trailers": self.trailers,
            "complete": self.complete,
        })
    }
}

/// What a journal holds.
#[derive(Debug, Default)]
struct Pages {
    begun: u64,
    abandoned: u64,
    finished: Vec<Recorded>,
}

/// The notes of one upstream, shared by its connections.
#[derive(Clone, Debug)]
pub(crate) struct Journal(Arc<Watched<Pages>>);

impl Journal {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Watched::new(Pages::default())))
    }

    /// A head has arrived.
    pub(crate) fn begin(&self) {
        self.0.change(|pages| pages.begun += 1);
    }

    /// A body has ended.
    pub(crate) fn finish(&self, request: Recorded) {
        self.0.change(|pages| pages.finished.push(request));
    }

    /// The peer left before it had its answer.
    pub(crate) fn abandon(&self) {
        self.0.change(|pages| pages.abandoned += 1);
    }

    pub(crate) fn begun(&self) -> u64 {
        self.0.look(|pages| pages.begun)
    }

    pub(crate) fn abandoned(&self) -> u64 {
        self.0.look(|pages| pages.abandoned)
    }

    pub(crate) fn finished(&self) -> Vec<Recorded> {
        self.0.look(|pages| pages.finished.clone())
    }

    pub(crate) async fn wait_for_begun(&self, wanted: u64) {
        self.0.reaches(wanted, "request heads", |pages| pages.begun).await;
    }

    pub(crate) async fn wait_for_abandoned(&self, wanted: u64) {
        self.0.reaches(wanted, "abandoned requests", |pages| pages.abandoned).await;
    }

    pub(crate) async fn wait_for_finished(&self, wanted: usize) -> Vec<Recorded> {
        let count = |pages: &Pages| pages.finished.len() as u64;
        self.0.reaches(wanted as u64, "requests", count).await;
        self.finished()
    }
}

/// Fields of the `http` crate as an upstream notes them.
pub(crate) fn fields_of(map: &http::HeaderMap) -> Vec<Field> {
    let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (name.as_str().to_owned(), framing::latin1(value.as_bytes()))
    };
    map.iter().map(field).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_well() {
        let request = Recorded {
            connection: 1,
            sequence: 2,
            peer: SocketAddr::from(([127, 0, 0, 1], 9)),
            at: Instant::now(),
            head: Vec::new(),
            method: "POST".to_owned(),
            target: "/a?b".to_owned(),
            version: "HTTP/1.1".to_owned(),
            headers: vec![("X-a".to_owned(), "1".to_owned()), ("x-A".to_owned(), "2".to_owned())],
            body: b"hi".to_vec(),
            trailers: Vec::new(),
            complete: true,
        };
        assert_eq!(request.header("x-a"), Some("1"));
        assert_eq!(request.all("X-A"), ["1", "2"]);
        let json = request.to_json();
        assert_eq!(json["headers"][1], json!(["x-A", "2"]));
        assert_eq!((json["target"].as_str(), json["body"].as_str()), (Some("/a?b"), Some("hi")));
    }
}
