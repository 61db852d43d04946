//! WebSocket by hand (RFC 6455): a client, and an upstream that echoes.
//!
//! Frames are in `frame`. Messages are not put together from fragments and extensions are never
//! agreed on. The one rule: a client masks and a server does not, and each side tells what it got.

mod echo;
mod frame;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::ClientConfig;

pub use echo::Echo;
pub use frame::{BINARY, CLOSE, Frame, PING, PONG, TEXT};

use crate::{
    framing,
    ground::{DEADLINE, within},
    raw,
    wire::{self, Pipe},
};

/// The client's side of an open WebSocket.
pub struct Client {
    pipe: Pipe,
    /// The response that opened it.
    pub response: raw::Response,
}

/// The `Sec-WebSocket-Accept` that answers a `Sec-WebSocket-Key` (RFC 6455 section 4.2.2).
pub fn accept_key(key: &str) -> String {
    const SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let text = format!("{key}{SUFFIX}");
    STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

impl Client {
    /// Opens a WebSocket, or fails the test.
    pub async fn connect(
        addr: SocketAddr,
        host: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Self {
        let opened = Self::try_connect(addr, host, path, headers).await;
        opened.unwrap_or_else(|refusal| panic!("{path} did not open: {refusal:?}"))
    }

    /// Opens a WebSocket, or gives back the response that refused it.
    pub async fn try_connect(
        addr: SocketAddr,
        host: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, raw::Response> {
        let stream = within(DEADLINE, "a connection", wire::connect(addr)).await;
        let stream = stream.unwrap_or_else(|error| panic!("cannot reach {addr}: {error}"));
        Self::open(Pipe::new(Box::new(stream)), host, path, headers).await
    }

    /// Opens a WebSocket inside TLS, or fails the test.
    pub async fn connect_tls(
        addr: SocketAddr,
        host: &str,
        config: Arc<ClientConfig>,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Self {
        let shaken = within(DEADLINE, "a handshake", wire::connect_tls(addr, host, config)).await;
        let stream = shaken.unwrap_or_else(|error| panic!("no TLS with {addr}: {error}"));
        let opened = Self::open(Pipe::new(Box::new(stream)), host, path, headers).await;
        opened.unwrap_or_else(|refusal| panic!("{path} did not open: {refusal:?}"))
    }

    async fn open(
        mut pipe: Pipe,
        host: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, raw::Response> {
        let key = STANDARD.encode(std::array::from_fn::<u8, 16, _>(|_| fastrand::u8(..)));
        let mut head = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        );
        headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        let sent = pipe.send(&framing::octets(&(head + "\r\n"))).await;
        sent.unwrap_or_else(|error| panic!("the server took no request: {error}"));
        let read = raw::read_response(&mut pipe, "GET");
        let response = within(DEADLINE, "an answer to the upgrade", read).await;
        let response = response.expect("an answer to the upgrade, but the server closed");
        if response.status != 101 {
            return Err(response);
        }
        let accept = response.header("sec-websocket-accept");
        assert_eq!(accept, Some(accept_key(&key).as_str()), "the accept key does not fit");
        Ok(Self { pipe, response })
    }

    /// Sends a text message.
    pub async fn send_text(&mut self, text: &str) {
        self.send(TEXT, text.as_bytes()).await;
    }

    /// Sends a binary message.
    pub async fn send_binary(&mut self, bytes: &[u8]) {
        self.send(BINARY, bytes).await;
    }

    /// Sends a ping.
    pub async fn ping(&mut self, payload: &[u8]) {
        self.send(PING, payload).await;
    }

    /// Sends a close frame; the server's own can then be read.
    pub async fn close(&mut self, code: u16) {
        self.send(CLOSE, &code.to_be_bytes()).await;
    }

    /// Sends a frame of any kind.
    pub async fn send(&mut self, opcode: u8, payload: &[u8]) {
        let mask = std::array::from_fn(|_| fastrand::u8(..));
        let bytes = frame::encode(opcode, payload, Some(mask));
        let sent = within(DEADLINE, "the server to read", self.pipe.send(&bytes)).await;
        sent.unwrap_or_else(|error| panic!("the server took no frame: {error}"));
    }

    /// The next frame, or the test fails.
    pub async fn next(&mut self) -> Frame {
        self.try_next().await.expect("a frame, but the server closed the connection")
    }

    /// The next frame; nothing when the server has closed the connection.
    pub async fn try_next(&mut self) -> Option<Frame> {
        within(DEADLINE, "a frame", frame::read(&mut self.pipe)).await
    }

    /// Whether the server closes the connection within `limit`. What it still sends is kept.
    pub async fn closed_by_peer_within(&mut self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.pipe.closed()).await.is_ok()
    }

    /// Drops the connection with RST.
    pub fn reset(self) {
        self.pipe.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{pki, recorder::Recorder};

    #[test]
    fn the_key_of_the_standard() {
        // The example of RFC 6455 section 1.3.
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[tokio::test]
    async fn messages_come_back_until_both_say_goodbye() {
        let echo = Echo::start();
        let headers = [("Sec-WebSocket-Protocol", "chat, other"), ("X-A", "1")];
        let mut client = Client::connect(echo.addr(), "h.test", "/ws?a", &headers).await;
        assert_eq!(client.response.header("sec-websocket-protocol"), Some("chat"));
        client.send_text("hi").await;
        let frame = client.next().await;
        assert_eq!((frame.opcode, frame.text().as_str(), frame.masked), (TEXT, "hi", false));
        for length in [0, 125, 126, 65_535, 65_536] {
            client.send_binary(&vec![7; length]).await;
            let frame = client.next().await;
            assert_eq!((frame.opcode, frame.payload.len(), frame.fin), (BINARY, length, true));
        }
        client.ping(b"there?").await;
        let pong = client.next().await;
        assert_eq!((pong.opcode, pong.payload.as_slice()), (PONG, &b"there?"[..]));
        client.close(1001).await;
        assert_eq!(client.next().await.close_code(), Some(1001));
        assert!(client.try_next().await.is_none());

        assert_eq!(echo.wait_for_closes(1).await, [Some(1001)]);
        let handshake = &echo.handshakes()[0];
        assert_eq!((handshake.target.as_str(), handshake.header("x-a")), ("/ws?a", Some("1")));
        echo.wait_for_open(0).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn cuts_refusals_and_tls() {
        let echo = Echo::start();
        let mut client = Client::connect(echo.addr(), "h", "/", &[]).await;
        client.send_text("x").await;
        echo.wait_for_open(1).await;
        client.reset();
        assert_eq!(echo.wait_for_closes(1).await, [None]);
        assert_eq!(raw::get(echo.addr(), "h", "/").await.status, 426);

        let recorder = Recorder::start();
        let refused = Client::try_connect(recorder.addr(), "h", "/", &[]).await;
        assert_eq!(refused.err().unwrap().text(), "ok");

        let authority = pki::Authority::new();
        let echo = Echo::start_tls(pki::server_config(&authority.issue(&["a.test"]), &[]));
        let trust = pki::client_config(&authority, &[]);
        let mut client = Client::connect_tls(echo.addr(), "a.test", trust, "/", &[]).await;
        client.send_text("safe").await;
        assert_eq!(client.next().await.text(), "safe");
        drop(echo);
        assert!(client.closed_by_peer_within(DEADLINE).await);
    }
}
