//! A stream that can be cut from outside.
//!
//! The one rule: once it is cut nothing passes any more, neither way, so that a protocol's own
//! farewells (RST_STREAM, GOAWAY, TLS's goodbye) cannot slip out while its tasks are taken down.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream with a place to cut it.
pub(super) struct Cable<S> {
    stream: S,
    cut: Arc<AtomicBool>,
}

impl<S> Cable<S> {
    pub(super) fn new(stream: S, cut: Arc<AtomicBool>) -> Self {
        Self { stream, cut }
    }

    fn check(&self) -> io::Result<()> {
        if self.cut.load(Ordering::Acquire) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Cable<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cable<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn nothing_passes_once_it_is_cut() {
        let (one, mut two) = duplex(64);
        let cut = Arc::new(AtomicBool::new(false));
        let mut cable = Cable::new(one, Arc::clone(&cut));
        cable.write_all(b"before").await.unwrap();
        two.write_all(b"answer").await.unwrap();
        cut.store(true, Ordering::Release);
        assert!(cable.write_all(b"after").await.is_err());
        assert!(cable.read_u8().await.is_err());
        drop(cable);
        let mut heard = Vec::new();
        two.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"before");
    }
}
