//! A stream of HTTP/2 whose frames are watched as they are read: one that stays incomplete runs against
//! the clock of heads, and a client that keeps the gateway busy with frames that serve no request is cut.
//! hyper answers those for ever.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use sluice_engine::http2::frames::Frames;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::base::clock::{self, Moment};
use crate::base::clocks::Clocks;
use crate::lasting::telemetry::metrics;

/// Frames without use that a client may send within [`WINDOW`].
const IDLE_FRAMES: u32 = 1_000;
const WINDOW: Duration = Duration::from_secs(10);
/// More bytes than this to the client for each such frame, and they are part of a transfer: some clients
/// measure their bandwidth by PING while they download. What answers such a frame is smaller.
const BYTES_PER_FRAME: u64 = 64;

/// A stream whose client has to be calm.
pub(super) struct Calm<S> {
    stream: S,
    clocks: Arc<Clocks>,
    shard: Arc<metrics::Worker>,
    frames: Frames,
    window: Window,
}

/// What was counted since a moment.
#[derive(Default)]
struct Window {
    since: Moment,
    idle: u32,
    written: u64,
}

impl<S> Calm<S> {
    pub(super) fn new(stream: S, clocks: Arc<Clocks>, shard: Arc<metrics::Worker>) -> Self {
        // A preface is owed from the first moment on.
        clocks.owes_frame(true);
        Self { stream, clocks, shard, frames: Frames::default(), window: Window::default() }
    }

    /// Looks at what was read; an error if that was too much of nothing.
    fn see(&mut self, bytes: &[u8]) -> io::Result<()> {
        let idle = self.frames.read(bytes);
        self.clocks.owes_frame(self.frames.is_amid());
        if idle > 0 && self.window.is_flood(idle, clock::now()) {
            // hyper takes the error for one of the stream, and does not count it.
            self.shard.http2_broken.add(1);
            return Err(io::Error::new(io::ErrorKind::InvalidData, "frames without use"));
        }
        Ok(())
    }
}

impl Window {
    fn is_flood(&mut self, idle: u32, now: Moment) -> bool {
        if now.saturating_since(self.since) > WINDOW {
            *self = Self { since: now, ..Self::default() };
        }
        self.idle = self.idle.saturating_add(idle);
        let transfer = u64::from(self.idle).saturating_mul(BYTES_PER_FRAME);
        self.idle > IDLE_FRAMES && self.written < transfer
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Calm<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        this.see(buf.filled().get(before..).unwrap_or_default())?;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Calm<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes))?;
        this.window.written = this.window.written.saturating_add(written as u64);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, slices))?;
        this.window.written = this.window.written.saturating_add(written as u64);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn a_thousand_frames_without_use_are_a_flood() {
        let mut window = Window::default();
        assert!(!window.is_flood(1_000, at(1)));
        assert!(window.is_flood(1, at(2)));
    }

    #[test]
    fn pings_now_and_then_are_none() {
        let mut window = Window::default();
        assert!((1..100).all(|turn| !window.is_flood(900, at(turn * 11))));
    }

    #[test]
    fn pings_beside_a_download_are_none() {
        let mut window = Window::default();
        for turn in 0..5_000 {
            window.written += 4_096;
            assert!(!window.is_flood(1, at(1)), "{turn}");
        }
    }
}
