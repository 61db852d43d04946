//! The bytes below: a socket, with TLS or without.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A connection's byte stream.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    #[cfg(any(test, feature = "fuzzing"))]
    Memory(tokio::io::DuplexStream),
}

impl Stream {
    /// Whether nothing has arrived: neither bytes, which nobody asked for, nor the end. Asks what the
    /// runtime has noticed already, so for a quiet socket this is no system call.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        match self {
            Self::Plain(stream) => {
                stream.try_read(&mut byte).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
            }
            // Session tickets come unasked and are no answer: only TLS itself can tell.
            Self::Tls(_) => self.is_pending(&mut byte),
            #[cfg(any(test, feature = "fuzzing"))]
            Self::Memory(_) => self.is_pending(&mut byte),
        }
    }

    fn is_pending(&mut self, bytes: &mut [u8]) -> bool {
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        Pin::new(self).poll_read(cx, &mut ReadBuf::new(bytes)).is_pending()
    }

    /// Says goodbye as far as that takes no waiting; TLS wants a word before the end.
    pub(crate) fn farewell(&mut self) {
        if let Self::Tls(stream) = self {
            let cx = &mut Context::from_waker(std::task::Waker::noop());
            let _ = Pin::new(stream).poll_shutdown(cx);
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            #[cfg(any(test, feature = "fuzzing"))]
            Self::Memory(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            #[cfg(any(test, feature = "fuzzing"))]
            Self::Memory(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            #[cfg(any(test, feature = "fuzzing"))]
            Self::Memory(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(any(test, feature = "fuzzing"))]
            Self::Memory(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(any(test, feature = "fuzzing"))]
            Self::Memory(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
