//! What a recorder says: status, fields, body, and how slowly.
//!
//! The one rule: an answer is framed to suit the request, so a HEAD gets no body and a 204 no length.

use std::time::Duration;

use crate::{
    framing::{self, Field},
    record::Recorded,
    wire::Pipe,
};

/// A response to come.
#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    reason: String,
    headers: Vec<Field>,
    body: Vec<u8>,
    echo: bool,
    chunked: bool,
    trailers: Vec<Field>,
    delay: Duration,
    close: bool,
}

impl Answer {
    /// A response without a body.
    pub fn new(status: u16) -> Self {
        Self {
            status,
            reason: "Said".to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            echo: false,
            chunked: false,
            trailers: Vec::new(),
            delay: Duration::ZERO,
            close: false,
        }
    }

    /// 200 with this body.
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::new(200).body(body)
    }

    /// 200 with the request as JSON ([`Recorded::to_json`]).
    pub fn echo() -> Self {
        let answer = Self { echo: true, ..Self::new(200) };
        answer.header("Content-Type", "application/json")
    }

    /// Sends one more field.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends this content.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Says so after the status.
    pub fn reason(mut self, reason: &str) -> Self {
        self.reason = reason.to_owned();
        self
    }

    /// Waits between the request's end and the answer's beginning.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Frames the content by chunks instead of by length.
    pub fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }

    /// Sends a field after the content, which is then chunked.
    pub fn trailer(mut self, name: &str, value: &str) -> Self {
        self.trailers.push((name.to_owned(), value.to_owned()));
        self.chunked()
    }

    /// Says `Connection: close` and does so.
    pub fn close(mut self) -> Self {
        self.close = true;
        self
    }

    pub(super) fn closes(&self) -> bool {
        self.close
    }

    /// Waits and sends; false when the client has left.
    pub(super) async fn send(&self, pipe: &mut Pipe, request: &Recorded) -> bool {
        if !self.delay.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(self.delay) => {}
                // A gateway has no cause to close one direction only, so this is taken for leaving.
                () = pipe.closed() => return false,
            }
        }
        pipe.send(&self.bytes(request)).await.is_ok()
    }

    fn bytes(&self, request: &Recorded) -> Vec<u8> {
        let body =
            if self.echo { request.to_json().to_string().into_bytes() } else { self.body.clone() };
        let mut out = format!("HTTP/1.1 {} {}\r\n", self.status, self.reason).into_bytes();
        for (name, value) in &self.headers {
            out.extend_from_slice(&framing::octets(&format!("{name}: {value}\r\n")));
        }
        if self.close {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        let bare = self.status < 200 || self.status == 204;
        if self.chunked {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        } else if bare {
            out.extend_from_slice(b"\r\n");
        } else {
            out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        }
        if bare || self.status == 304 || request.method == "HEAD" {
            return out;
        }
        if self.chunked {
            framing::write_chunks(&mut out, &body, &self.trailers);
        } else {
            out.extend_from_slice(&body);
        }
        out
    }
}
