//! An HTTP/1.1 client that sends any bytes, over TCP or TLS.
//!
//! It reads answers forgivingly and tells how they ended; judging them is left to the test. The one
//! rule: what cannot be answered within the client's deadline fails the test.

mod response;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rustls::ClientConfig;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

pub use response::Response;
pub(crate) use response::read as read_response;

use crate::{
    framing,
    ground::{DEADLINE, within},
    wire::{self, Pipe},
};

/// One connection to a server.
pub struct Client {
    pipe: Pipe,
    deadline: Duration,
}

/// A GET on a connection of its own.
pub async fn get(addr: SocketAddr, host: &str, path: &str) -> Response {
    Client::connect(addr).await.request("GET", path, host, &[], b"").await
}

/// Sends these bytes on a connection of their own and reads one response.
pub async fn exchange(addr: SocketAddr, bytes: impl AsRef<[u8]>) -> Response {
    let mut client = Client::connect(addr).await;
    client.send(bytes).await;
    client.response().await
}

impl Client {
    /// Connects, or fails the test.
    pub async fn connect(addr: SocketAddr) -> Self {
        Self::try_connect(addr).await.unwrap_or_else(|error| panic!("cannot reach {addr}: {error}"))
    }

    /// Connects, or tells why not; a deadline counts as `TimedOut`.
    pub async fn try_connect(addr: SocketAddr) -> io::Result<Self> {
        let connected = tokio::time::timeout(DEADLINE, wire::connect(addr)).await;
        Ok(Self::over(connected.map_err(|_| io::ErrorKind::TimedOut)??))
    }

    /// Connects from a chosen address, such as 127.0.0.2.
    pub async fn connect_from(source: IpAddr, addr: SocketAddr) -> Self {
        let connect = async {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::new(source, 0))?;
            socket.connect(addr).await
        };
        let connected = within(DEADLINE, &format!("a connection to {addr}"), connect).await;
        Self::over(connected.unwrap_or_else(|error| panic!("{source} to {addr}: {error}")))
    }

    /// Connects with a receive buffer of so many bytes (the system rounds up), to be a client that
    /// soon stops taking what it is sent.
    pub async fn connect_narrow(addr: SocketAddr, buffer: usize) -> Self {
        let connect = async {
            let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
            socket.set_recv_buffer_size(buffer)?;
            socket.set_nonblocking(true)?;
            TcpSocket::from_std_stream(socket.into()).connect(addr).await
        };
        let connected = within(DEADLINE, &format!("a connection to {addr}"), connect).await;
        Self::over(connected.unwrap_or_else(|error| panic!("cannot reach {addr}: {error}")))
    }

    /// Connects and shakes hands, or fails the test.
    pub async fn connect_tls(addr: SocketAddr, name: &str, config: Arc<ClientConfig>) -> Self {
        let connected = Self::try_connect_tls(addr, name, config).await;
        connected.unwrap_or_else(|error| panic!("no TLS with {addr} as {name}: {error}"))
    }

    /// Connects and shakes hands, or tells why not. With TLS 1.3 a server's objection to the
    /// client's certificate arrives only with the first read.
    pub async fn try_connect_tls(
        addr: SocketAddr,
        name: &str,
        config: Arc<ClientConfig>,
    ) -> io::Result<Self> {
        let connect = tokio::time::timeout(DEADLINE, wire::connect_tls(addr, name, config));
        let wire = connect.await.map_err(|_| io::ErrorKind::TimedOut)??;
        Ok(Self { pipe: Pipe::new(Box::new(wire)), deadline: DEADLINE })
    }

    /// Sends some bytes in the clear, as a proxy in front does, and shakes hands behind them.
    pub async fn try_connect_tls_after(
        addr: SocketAddr,
        first: &[u8],
        name: &str,
        config: Arc<ClientConfig>,
    ) -> io::Result<Self> {
        let connect = wire::connect_tls_after(addr, first, name, config);
        let wire = tokio::time::timeout(DEADLINE, connect)
            .await
            .map_err(|_| io::ErrorKind::TimedOut)??;
        Ok(Self { pipe: Pipe::new(Box::new(wire)), deadline: DEADLINE })
    }

    fn over(stream: TcpStream) -> Self {
        Self { pipe: Pipe::new(Box::new(stream)), deadline: DEADLINE }
    }

    /// Waits so long, instead of [`DEADLINE`], before the test fails.
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The protocol agreed on in the TLS handshake.
    pub fn alpn(&self) -> Option<Vec<u8>> {
        self.pipe.wire().alpn()
    }

    /// This end of the connection.
    pub fn local_addr(&self) -> SocketAddr {
        self.pipe.wire().tcp().local_addr().expect("a connected socket has an address")
    }

    /// Sends everything, or fails the test.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes)
            .await
            .unwrap_or_else(|error| panic!("the server took no more: {error}"));
    }

    /// Sends everything; an error says that the server has left.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        within(self.deadline, "the server to read", self.pipe.send(bytes.as_ref())).await
    }

    /// Sends one byte after another, until the server has left; tells whether it stayed.
    pub async fn drip(&mut self, bytes: impl AsRef<[u8]>, each: Duration) -> bool {
        self.pipe.drip(bytes.as_ref(), each).await.is_ok()
    }

    /// Sends a request and reads its response. A body gets a `Content-Length`.
    pub async fn request(
        &mut self,
        method: &str,
        path: &str,
        host: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n").into_bytes();
        for (name, value) in headers {
            bytes.extend_from_slice(&framing::octets(&format!("{name}: {value}\r\n")));
        }
        if !body.is_empty() {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(body);
        self.send(bytes).await;
        self.response_to(method).await
    }

    /// Reads the response to a request that was not HEAD or CONNECT.
    pub async fn response(&mut self) -> Response {
        self.response_to("GET").await
    }

    /// Reads the response to a request with this method.
    pub async fn response_to(&mut self, method: &str) -> Response {
        let response = self.try_response_to(method).await;
        response.unwrap_or_else(|| panic!("the server closed before it had answered the {method}"))
    }

    /// The same; nothing when the server closed or reset before a final head was complete.
    pub async fn try_response_to(&mut self, method: &str) -> Option<Response> {
        let read = read_response(&mut self.pipe, method);
        let mut response = within(self.deadline, "a response", read).await?;
        if response.complete && response.announces_close() {
            response.closed = self.closed_by_peer().await;
        }
        Some(response)
    }

    /// Reads what comes next; nothing when the server has closed or reset.
    pub async fn read_some(&mut self) -> Vec<u8> {
        within(self.deadline, "bytes", self.pipe.some(usize::MAX)).await.unwrap_or_default()
    }

    /// Reads exactly so many bytes, or fewer when the server closes.
    pub async fn read_exactly(&mut self, wanted: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < wanted {
            let read = self.pipe.some(wanted - all.len());
            match within(self.deadline, &format!("{wanted} bytes"), read).await {
                Ok(piece) if !piece.is_empty() => all.extend(piece),
                _ => break,
            }
        }
        all
    }

    /// Reads until the server has closed or reset.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let piece = self.read_some().await;
            if piece.is_empty() {
                return all;
            }
            all.extend(piece);
        }
    }

    /// Whether the server closes or resets within the deadline. What it still sends is kept.
    pub async fn closed_by_peer(&mut self) -> bool {
        self.closed_by_peer_within(self.deadline).await
    }

    /// Whether the server closes or resets within `limit`. What it still sends is kept.
    pub async fn closed_by_peer_within(&mut self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.pipe.closed()).await.is_ok()
    }

    /// Sends FIN (and TLS's goodbye) and goes on reading.
    pub async fn half_close(&mut self) {
        self.pipe.finish().await.unwrap_or_else(|error| panic!("cannot half-close: {error}"));
    }

    /// The same for a server that may have left already.
    pub async fn try_half_close(&mut self) {
        self.pipe.finish().await.ok();
    }

    /// Drops the connection with RST.
    pub fn reset(self) {
        self.pipe.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rogue::{self, Rogue};

    #[tokio::test]
    async fn responses_are_told_apart_on_one_connection() {
        let answers = "HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 Fine\r\nContent-Length: 2\r\n\r\nhi\
            HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nT: 1\r\n\r\n\
            HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nHTTP/1.0 200 OK\r\n\r\nto the end";
        let rogue = Rogue::start(move |mut talk| async move {
            talk.read_head().await;
            talk.send(answers).await;
            talk.close().await;
        });
        let mut client = Client::connect(rogue.addr()).await;
        let first = client.request("GET", "/", "h", &[], b"").await;
        assert_eq!((first.status, first.reason.as_str()), (200, "Fine"));
        assert_eq!((first.interims, first.body), (vec![103], b"hi".to_vec()));
        let second = client.response().await;
        assert_eq!((second.status, second.text().as_str()), (404, "x"));
        assert_eq!(second.trailers.len(), 1);
        assert_eq!(client.response_to("HEAD").await.header("content-length"), Some("99"));
        let last = client.response().await;
        assert_eq!(last.text(), "to the end");
        assert!(last.closed && last.complete);
        assert!(client.try_response_to("GET").await.is_none());
    }

    #[tokio::test]
    async fn a_cut_response_is_incomplete() {
        let rogue = Rogue::start(rogue::lying_length(rogue::Lie::Short));
        let response = get(rogue.addr(), "h", "/").await;
        assert!(!response.complete && response.closed);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn half_close_source_address_and_narrow_buffer() {
        let rogue = Rogue::start(|mut talk| async move {
            let said = talk.read_some().await;
            assert!(talk.closed_by_peer().await);
            talk.send(said).await;
            talk.send(talk.peer().ip().to_string()).await;
        });
        let mut client = Client::connect_from([127, 0, 0, 2].into(), rogue.addr()).await;
        client.send("hello ").await;
        client.half_close().await;
        assert_eq!(client.read_to_end().await, b"hello 127.0.0.2");
        let mut client = Client::connect_narrow(rogue.addr(), 1).await;
        client.send("x").await;
        client.half_close().await;
        assert_eq!(client.read_exactly(2).await, b"x1");
    }
}
