//! The clocks of a client connection. hyper has one timer for the head of a request and the idle time
//! before it; we tell them apart, and add one for a client that does not read. The stream wrapper
//! notes what happens, which costs nothing but a store; a watchdog looks at it now and then.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::clock::{self, Moment};

/// How long each may run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) head: Duration,
    pub(crate) write: Duration,
    pub(crate) keepalive: Duration,
}

/// What has happened on a connection. Shared with the stream, which may move to a tunnel.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    /// Requests between head and end of the answer.
    busy: AtomicU32,
    /// Since when nothing was asked; 0 while something is.
    idle_since: AtomicU64,
    /// Since when a head has been incomplete; 0 if none is.
    head_since: AtomicU64,
    /// Since when a write has been stuck; 0 if none is.
    stuck_since: AtomicU64,
    /// Whether bytes may come that belong to no request, as HTTP/2's control frames do.
    framed: AtomicBool,
}

/// Why a connection has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expired {
    /// Nothing was asked for too long: end in good order.
    Idle,
    /// The head takes too long, or the client does not read: cut.
    Stalled,
}

impl Clocks {
    pub(crate) fn start() -> Arc<Self> {
        let clocks = Self::default();
        clocks.idle_since.store(clock::now().nanos().max(1), Ordering::Relaxed);
        Arc::new(clocks)
    }

    /// HTTP/2 is spoken: an answered ping or an opened window is neither the start of a head nor a sign
    /// of use, so only the idle clock runs between requests.
    pub(crate) fn expect_frames(&self) {
        self.framed.store(true, Ordering::Relaxed);
    }

    /// A request's head is complete.
    pub(crate) fn begin(&self) {
        self.busy.fetch_add(1, Ordering::Relaxed);
        self.idle_since.store(0, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
    }

    /// Its answer is complete.
    pub(crate) fn end(&self, now: Moment) {
        if self.busy.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.idle_since.store(now.nanos().max(1), Ordering::Relaxed);
        }
    }

    /// Whether a clock has run out, else when to look again.
    pub(crate) fn look(&self, now: Moment, limits: &Limits) -> Result<Moment, Expired> {
        let running = [
            (&self.stuck_since, limits.write, Expired::Stalled),
            (&self.head_since, limits.head, Expired::Stalled),
            (&self.idle_since, limits.keepalive, Expired::Idle),
        ];
        // Any of the clocks may start right after this look.
        let soonest = running.iter().map(|limit| limit.1).min().unwrap_or(Duration::from_secs(1));
        let mut next = now.after(soonest);
        for (since, limit, expired) in running {
            let since = since.load(Ordering::Relaxed);
            if since == 0 {
                continue;
            }
            let end = Moment::from_nanos(since).after(limit);
            if end <= now {
                return Err(expired);
            }
            next = next.min(end);
        }
        Ok(next)
    }

    fn note_read(&self) {
        if self.idle_since.load(Ordering::Relaxed) != 0 && !self.framed.load(Ordering::Relaxed) {
            self.idle_since.store(0, Ordering::Relaxed);
            self.head_since.store(clock::now().nanos().max(1), Ordering::Relaxed);
        }
    }

    fn note_write(&self, stuck: bool) {
        let was = self.stuck_since.load(Ordering::Relaxed);
        if stuck && was == 0 {
            self.stuck_since.store(clock::now().nanos().max(1), Ordering::Relaxed);
        } else if !stuck && was != 0 {
            self.stuck_since.store(0, Ordering::Relaxed);
        }
    }
}

/// A stream that tells the clocks what happens on it.
pub(crate) struct Watched<S> {
    stream: S,
    clocks: Arc<Clocks>,
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S, clocks: Arc<Clocks>) -> Self {
        Self { stream, clocks }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if polled.is_ready() && buf.filled().len() > before {
            self.clocks.note_read();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.clocks.note_write(polled.is_pending());
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.clocks.note_write(polled.is_pending());
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Flushed after the last write only, so its success is the end of being stuck.
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.clocks.note_write(polled.is_pending());
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        head: Duration::from_secs(10),
        write: Duration::from_secs(30),
        keepalive: Duration::from_secs(75),
    };

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn idle_and_head_have_clocks_of_their_own() {
        let timeouts = LIMITS;
        let clocks = Clocks::default();
        clocks.idle_since.store(at(1).nanos(), Ordering::Relaxed);
        assert!(clocks.look(at(75), &timeouts).is_ok());
        assert_eq!(clocks.look(at(76), &timeouts), Err(Expired::Idle));
        clocks.idle_since.store(0, Ordering::Relaxed);
        clocks.head_since.store(at(70).nanos(), Ordering::Relaxed);
        assert!(clocks.look(at(79), &timeouts).is_ok());
        assert_eq!(clocks.look(at(80), &timeouts), Err(Expired::Stalled));
        clocks.begin();
        assert!(clocks.look(at(900), &timeouts).is_ok(), "a request in progress has other limits");
        clocks.end(at(900));
        assert_eq!(clocks.look(at(975), &timeouts), Err(Expired::Idle));
    }

    #[test]
    fn a_stuck_write_ends_the_connection_even_in_a_request() {
        let clocks = Clocks::default();
        clocks.begin();
        clocks.stuck_since.store(at(10).nanos(), Ordering::Relaxed);
        assert_eq!(clocks.look(at(40), &LIMITS), Err(Expired::Stalled));
        clocks.note_write(false);
        assert!(clocks.look(at(40), &LIMITS).is_ok());
    }

    /// Takes every byte, and gets rid of none before the second flush.
    #[derive(Default)]
    struct SlowFlush(u32);

    impl AsyncWrite for SlowFlush {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.0 += 1;
            if self.0 == 1 { Poll::Pending } else { Poll::Ready(Ok(())) }
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_flush_that_succeeds_late_leaves_no_clock_running() {
        let clocks = Arc::new(Clocks::default());
        let mut stream = Watched::new(SlowFlush::default(), Arc::clone(&clocks));
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut stream).poll_write(cx, b"tail").is_ready());
        assert!(Pin::new(&mut stream).poll_flush(cx).is_pending());
        let later = clock::now().after(LIMITS.write);
        assert_eq!(clocks.look(later, &LIMITS), Err(Expired::Stalled));
        assert!(Pin::new(&mut stream).poll_flush(cx).is_ready());
        assert!(clocks.look(later, &LIMITS).is_ok(), "cut although everything was written");
    }
}
