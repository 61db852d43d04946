//! One connection in the hands of a script: reading requests, sending anything, leaving in every
//! way TCP knows.
//!
//! The one rule: sending never fails a script, because the gateway may be gone for good reasons;
//! reading what must come does.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use crate::{
    framing::{self, Body},
    ground::{DEADLINE, within},
    serve::Accepted,
    watched::Watched,
    wire::Pipe,
};

/// A request head as a script reads it.
#[derive(Clone, Debug)]
pub struct Head {
    /// The connection it came on, counted from 1.
    pub connection: u64,
    /// The raw head through the empty line.
    pub bytes: Vec<u8>,
    /// The method.
    pub method: String,
    /// The request target.
    pub target: String,
    /// `HTTP/1.1` and the like.
    pub version: String,
    /// Fields in order, names in the case they came in, values as Latin-1.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The first value of a field, by a name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// Every value of a field, by a name in any case.
    pub fn all(&self, name: &str) -> Vec<&str> {
        framing::values(&self.headers, name)
    }

    /// Whether a field that lists words has this one, in any case.
    pub fn lists(&self, name: &str, word: &str) -> bool {
        framing::lists(&self.headers, name, word)
    }
}

/// One accepted connection. Dropping it, as a script does by ending, sends FIN; on TLS that is
/// without the goodbye of [`Conversation::close`].
pub struct Conversation {
    number: u64,
    peer: SocketAddr,
    pipe: Pipe,
    heads: Arc<Watched<Vec<Head>>>,
}

impl Conversation {
    pub(super) fn new(accepted: Accepted, heads: Arc<Watched<Vec<Head>>>) -> Self {
        let Accepted { number, peer, wire } = accepted;
        Self { number, peer, pipe: Pipe::new(wire), heads }
    }

    /// The place of this connection among those accepted, counted from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Reads a request head that must come within the deadline.
    pub async fn read_head(&mut self) -> Head {
        let head = within(DEADLINE, "a request head", self.next_head()).await;
        head.expect("a request head, but the gateway closed the connection")
    }

    /// Waits for the next request head; nothing when the gateway closes or resets instead.
    pub async fn next_head(&mut self) -> Option<Head> {
        let raw = framing::read_head(&mut self.pipe).await.ok()??;
        let [method, target, version] = raw.start;
        let connection = self.number;
        let head =
            Head { connection, bytes: raw.bytes, method, target, version, headers: raw.fields };
        self.heads.push(head.clone());
        Some(head)
    }

    /// Reads the content that belongs to a head: all of it, or what came before it was cut.
    pub async fn read_body(&mut self, head: &Head) -> Vec<u8> {
        self.read_body_raw(head).await.data
    }

    /// The same with the bytes of the wire, trailers, and whether it was whole.
    pub async fn read_body_raw(&mut self, head: &Head) -> Body {
        let framing = framing::of_request(&head.headers);
        let mut body = Body::default();
        let read = framing::read_body(&mut self.pipe, framing, &mut body);
        within(DEADLINE, "the end of a request body", read).await;
        body
    }

    /// Reads what comes next; nothing when the gateway has closed or reset.
    pub async fn read_some(&mut self) -> Vec<u8> {
        within(DEADLINE, "bytes", self.pipe.some(usize::MAX)).await.unwrap_or_default()
    }

    /// Sends everything; false when the gateway is gone or stops reading for the deadline.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let sent = tokio::time::timeout(DEADLINE, self.pipe.send(bytes.as_ref())).await;
        matches!(sent, Ok(Ok(())))
    }

    /// Sends one byte after another; false when the gateway is gone.
    pub async fn drip(&mut self, bytes: impl AsRef<[u8]>, each: Duration) -> bool {
        self.pipe.drip(bytes.as_ref(), each).await.is_ok()
    }

    /// Waits; a script needs no timer of its own.
    pub async fn pause(&mut self, length: Duration) {
        tokio::time::sleep(length).await;
    }

    /// Whether the gateway closes or resets within the deadline. What it still sends is kept.
    pub async fn closed_by_peer(&mut self) -> bool {
        self.closed_by_peer_within(DEADLINE).await
    }

    /// Whether the gateway closes or resets within `limit`. What it still sends is kept.
    pub async fn closed_by_peer_within(&mut self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.pipe.closed()).await.is_ok()
    }

    /// Drops the connection with RST.
    pub fn reset(self) {
        self.pipe.reset();
    }

    /// Says TLS's goodbye, if any, and closes.
    pub async fn close(mut self) {
        // The gateway may have closed first.
        self.pipe.finish().await.ok();
    }

    pub(crate) fn into_pipe(self) -> Pipe {
        self.pipe
    }

    /// Holds the connection, reading nothing, for as long as the rogue lives.
    pub async fn hang(self) {
        let _held = self.pipe;
        std::future::pending().await
    }

    /// Closes this direction and reads until the gateway has closed the other.
    pub async fn drain(mut self) {
        self.pipe.finish().await.ok();
        while matches!(self.pipe.some(usize::MAX).await, Ok(piece) if !piece.is_empty()) {}
    }
}
