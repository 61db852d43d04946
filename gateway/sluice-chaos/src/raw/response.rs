//! A response as a client of bytes sees it.
//!
//! The one rule: whatever the server did after a complete head is told in the fields, not by a
//! panic, because cut and contradictory answers are what tests look for.

use serde_json::Value;

use crate::{
    framing::{self, Body},
    wire::Pipe,
};

/// One final response, and the interim ones before it.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code; 0 when the status line makes no sense.
    pub status: u16,
    /// The words after the status code.
    pub reason: String,
    /// `HTTP/1.1` and the like.
    pub version: String,
    /// Fields in order, names in the case they came in, values as Latin-1.
    pub headers: Vec<(String, String)>,
    /// The content, chunks taken apart.
    pub body: Vec<u8>,
    /// The bytes of the body on the wire.
    pub raw_body: Vec<u8>,
    /// Fields after the content.
    pub trailers: Vec<(String, String)>,
    /// Status codes of the interim responses (1xx) before this one.
    pub interims: Vec<u16>,
    /// The raw head through the empty line.
    pub head: Vec<u8>,
    /// Whether the body ended as announced.
    pub complete: bool,
    /// Whether the server has closed: because the body ended there or was cut, or because the head
    /// announced it and it happened within the deadline.
    pub closed: bool,
}

impl Response {
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

    /// The body as JSON, or the test fails and shows it.
    pub fn json(&self) -> Value {
        let parsed = serde_json::from_slice(&self.body);
        parsed.unwrap_or_else(|error| panic!("not JSON ({error}): {:?}", self.text()))
    }

    /// Whether the head says that the connection ends here (RFC 9112 section 9.3).
    pub(crate) fn announces_close(&self) -> bool {
        let says = |word| framing::lists(&self.headers, "connection", word);
        self.status != 101 && (says("close") || (self.version == "HTTP/1.0" && !says("keep-alive")))
    }
}

/// Reads interim responses and one final one; nothing when the end comes before a whole head.
pub(crate) async fn read(pipe: &mut Pipe, method: &str) -> Option<Response> {
    let mut interims = Vec::new();
    loop {
        let head = framing::read_head(pipe).await.ok()??;
        let status = head.start[1].parse().unwrap_or(0);
        if (100..200).contains(&status) && status != 101 {
            interims.push(status);
            continue;
        }
        let how = framing::of_response(method, status, &head.fields);
        let mut body = Body::default();
        framing::read_body(pipe, how, &mut body).await;
        let [version, _, reason] = head.start;
        return Some(Response {
            status,
            reason,
            version,
            headers: head.fields,
            body: body.data,
            raw_body: body.raw,
            trailers: body.trailers,
            interims,
            head: head.bytes,
            complete: body.complete,
            closed: pipe.ended(),
        });
    }
}
