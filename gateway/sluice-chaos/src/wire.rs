//! A byte stream with a memory: TCP or TLS, and what was read from it but not yet wanted.
//!
//! What the bytes mean is left to `framing`. The one rule: bytes once read are either handed out or
//! kept; a wait that is given up loses none.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::{ClientConfig, ServerConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A connection of either kind, with the socket beneath it in reach.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {
    fn tcp(&self) -> &TcpStream;

    /// The socket itself, where there is no TLS over it.
    fn into_tcp(self: Box<Self>) -> Option<TcpStream> {
        None
    }

    /// The protocol agreed on in the TLS handshake.
    fn alpn(&self) -> Option<Vec<u8>> {
        None
    }
}

impl Wire for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }

    fn into_tcp(self: Box<Self>) -> Option<TcpStream> {
        Some(*self)
    }
}

impl Wire for tokio_rustls::server::TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }

    fn alpn(&self) -> Option<Vec<u8>> {
        self.get_ref().1.alpn_protocol().map(<[u8]>::to_vec)
    }
}

impl Wire for tokio_rustls::client::TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }

    fn alpn(&self) -> Option<Vec<u8>> {
        self.get_ref().1.alpn_protocol().map(<[u8]>::to_vec)
    }
}

pub(crate) type AnyWire = Box<dyn Wire>;

pub(crate) async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub(crate) async fn connect_tls(
    addr: SocketAddr,
    name: &str,
    config: Arc<ClientConfig>,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    connect_tls_after(addr, b"", name, config).await
}

/// The same, with some bytes in the clear before it.
pub(crate) async fn connect_tls_after(
    addr: SocketAddr,
    first: &[u8],
    name: &str,
    config: Arc<ClientConfig>,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let mut stream = connect(addr).await?;
    stream.write_all(first).await?;
    TlsConnector::from(config).connect(name, stream).await
}

/// The server's side of a fresh connection: a handshake when there is something to shake.
pub(crate) async fn accept(
    stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
) -> io::Result<AnyWire> {
    stream.set_nodelay(true)?;
    match tls {
        None => Ok(Box::new(stream)),
        Some(config) => Ok(Box::new(TlsAcceptor::from(config).accept(stream).await?)),
    }
}

/// How much is asked for in one read.
const GULP: usize = 16 * 1024;

/// A wire and the bytes that were read ahead.
pub(crate) struct Pipe {
    wire: AnyWire,
    ahead: Vec<u8>,
    ended: bool,
}

impl Pipe {
    pub(crate) fn new(wire: AnyWire) -> Self {
        Self { wire, ahead: Vec::new(), ended: false }
    }

    pub(crate) fn wire(&self) -> &dyn Wire {
        &*self.wire
    }

    /// Reads once and keeps what came. `Ok(0)` is a proper end.
    pub(crate) async fn fill(&mut self) -> io::Result<usize> {
        self.ahead.reserve(GULP);
        let read = self.wire.read_buf(&mut self.ahead).await;
        self.ended |= !matches!(read, Ok(1..));
        read
    }

    /// Whether a read has met the end, proper or not.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// Everything through the first `mark`; `None` when the end came before it. What preceded the
    /// end stays kept.
    pub(crate) async fn through(&mut self, mark: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut searched: usize = 0;
        loop {
            let from = searched.saturating_sub(mark.len());
            if let Some(at) = find(&self.ahead[from..], mark) {
                let rest = self.ahead.split_off(from + at + mark.len());
                return Ok(Some(std::mem::replace(&mut self.ahead, rest)));
            }
            searched = self.ahead.len();
            if self.fill().await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Between 1 and `most` bytes; none at the end.
    pub(crate) async fn some(&mut self, most: usize) -> io::Result<Vec<u8>> {
        if self.ahead.is_empty() {
            self.fill().await?;
        }
        let rest = self.ahead.split_off(self.ahead.len().min(most));
        Ok(std::mem::replace(&mut self.ahead, rest))
    }

    /// Exactly so many bytes; `None` when the end came before that.
    pub(crate) async fn exactly(&mut self, wanted: usize) -> io::Result<Option<Vec<u8>>> {
        while self.ahead.len() < wanted {
            if self.fill().await? == 0 {
                return Ok(None);
            }
        }
        let rest = self.ahead.split_off(wanted);
        Ok(Some(std::mem::replace(&mut self.ahead, rest)))
    }

    /// Whether nothing was read that is not yet handed out.
    pub(crate) fn is_drained(&self) -> bool {
        self.ahead.is_empty()
    }

    /// Reads on, keeping what comes, until the peer has closed or reset.
    pub(crate) async fn closed(&mut self) {
        while matches!(self.fill().await, Ok(read) if read > 0) {}
    }

    /// Sends everything; an error says that the peer is gone.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.write_all(bytes).await?;
        self.wire.flush().await
    }

    /// Sends one byte at a time, each in a segment of its own.
    pub(crate) async fn drip(&mut self, bytes: &[u8], each: Duration) -> io::Result<()> {
        for byte in bytes {
            self.send(&[*byte]).await?;
            tokio::time::sleep(each).await;
        }
        Ok(())
    }

    /// Says goodbye properly and sends FIN; the other direction stays open.
    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        self.wire.shutdown().await
    }

    /// Drops the connection with RST.
    pub(crate) fn reset(self) {
        // On failure the socket is closed in any case, and the test sees a FIN where it wants RST.
        self.wire.tcp().set_zero_linger().ok();
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (Pipe, Pipe) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (one, two) = tokio::join!(connect(listener.local_addr().unwrap()), listener.accept());
        (Pipe::new(Box::new(one.unwrap())), Pipe::new(Box::new(two.unwrap().0)))
    }

    #[tokio::test]
    async fn bytes_read_ahead_are_kept() {
        let (mut here, mut there) = pair().await;
        here.send(b"one\r\ntwo\r\nrest").await.unwrap();
        assert_eq!(there.through(b"\r\n").await.unwrap().unwrap(), b"one\r\n");
        assert_eq!(there.some(2).await.unwrap(), b"tw");
        assert_eq!(there.through(b"\n").await.unwrap().unwrap(), b"o\r\n");
        here.finish().await.unwrap();
        assert_eq!(there.through(b"\n").await.unwrap(), None);
        assert_eq!(there.some(99).await.unwrap(), b"rest");
        assert_eq!(there.some(99).await.unwrap(), b"");
    }

    #[tokio::test]
    async fn a_mark_may_arrive_in_pieces() {
        let (mut here, mut there) = pair().await;
        let dripping = async { here.drip(b"ab\r\n\r\n", Duration::from_millis(1)).await };
        let (dripped, read) = tokio::join!(dripping, there.through(b"\r\n\r\n"));
        dripped.unwrap();
        assert_eq!(read.unwrap().unwrap(), b"ab\r\n\r\n");
    }

    #[tokio::test]
    async fn a_reset_is_not_an_end() {
        let (here, mut there) = pair().await;
        here.reset();
        assert_eq!(there.fill().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
