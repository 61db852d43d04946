//! Looks at the first bytes of a stream without taking one: what a client without TLS speaks.

use std::io;

use tokio::io::Interest;
use tokio::net::TcpStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// Whether the first bytes are HTTP/2's preface, sent with prior knowledge (RFC 9113 section 3.3).
pub(super) async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut bytes = [0_u8; PREFACE.len()];
    loop {
        let read = stream.peek(&mut bytes).await?;
        let seen = bytes.get(..read).unwrap_or(&[]);
        if read == 0 || !PREFACE.starts_with(seen) {
            return Ok(false);
        }
        if read == PREFACE.len() {
            return Ok(true);
        }
        if news(stream).await.is_err() {
            return Ok(false);
        }
    }
}

/// Waits until more has come than what was looked at; an error says that nothing more will.
pub(super) async fn news(stream: &TcpStream) -> io::Result<()> {
    // The bytes stay where they are, so the stream would be ready for ever.
    let _ = stream.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    if stream.ready(Interest::READABLE).await?.is_read_closed() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}
