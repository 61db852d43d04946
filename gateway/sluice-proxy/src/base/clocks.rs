//! The clocks of a client connection. hyper has one timer for the head of a request and the idle time
//! before it; we tell them apart, and add one for a client that does not read. Whoever sees something
//! happen notes it, which costs nothing but a store; a watchdog looks at it now and then.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::clock::{self, Moment};
use super::pace;
use super::signals::Signals;

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
    /// Since when a head has been incomplete; 0 if none is, or if it waits for its turn.
    head_since: AtomicU64,
    /// Whether a head has come in part.
    head_begun: AtomicBool,
    /// Since when a frame of HTTP/2 has been incomplete; 0 if none is.
    frame_since: AtomicU64,
    /// Since when a write has been stuck; 0 if none is.
    stuck_since: AtomicU64,
    /// How long writes were stuck since the connection was last idle, nanoseconds.
    stuck: AtomicU64,
    /// What was written since the first of them, bytes.
    taken: AtomicU64,
    /// Whether the connection is being cut because memory is short.
    shed: AtomicBool,
    pub(crate) signals: Signals,
}

/// Why a connection has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expired {
    /// Nothing was asked for too long: end in good order.
    Idle,
    /// The head takes too long: refuse it.
    SlowHead,
    /// The client does not read: cut.
    Stuck,
}

impl Clocks {
    pub(crate) fn start() -> Arc<Self> {
        let clocks = Self::default();
        clocks.idle_since.store(clock::now().nanos().max(1), Ordering::Relaxed);
        Arc::new(clocks)
    }

    /// The first bytes of a head have come, but not all. Its time begins to run when nothing else is in
    /// progress.
    pub(crate) fn head_begins(&self) {
        self.head_begun.store(true, Ordering::Relaxed);
        if self.idle_since.load(Ordering::Relaxed) != 0 {
            self.idle_since.store(0, Ordering::Relaxed);
            self.head_since.store(clock::now().nanos().max(1), Ordering::Relaxed);
        }
    }

    /// The head that was being read is whole, or was given up.
    pub(crate) fn head_ends(&self) {
        self.head_begun.store(false, Ordering::Relaxed);
    }

    /// Whether the client owes the rest of a frame of HTTP/2.
    pub(crate) fn owes_frame(&self, owes: bool) {
        let was = self.frame_since.load(Ordering::Relaxed);
        if owes && was == 0 {
            self.frame_since.store(clock::now().nanos().max(1), Ordering::Relaxed);
        } else if !owes && was != 0 {
            self.frame_since.store(0, Ordering::Relaxed);
        }
    }

    /// Whether a client has begun to ask for something.
    pub(crate) fn is_amid_head(&self) -> bool {
        self.head_begun.load(Ordering::Relaxed)
    }

    /// A request's head is complete.
    pub(crate) fn begin(&self) {
        let others = self.busy.load(Ordering::Relaxed);
        self.busy.store(others.wrapping_add(1), Ordering::Relaxed);
        if others == 0 && self.stuck.load(Ordering::Relaxed) != 0 {
            self.stuck.store(0, Ordering::Relaxed);
            self.taken.store(0, Ordering::Relaxed);
        }
        self.idle_since.store(0, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
    }

    /// Its answer is complete.
    pub(crate) fn end(&self, now: Moment) {
        let left = self.busy.load(Ordering::Relaxed).wrapping_sub(1);
        self.busy.store(left, Ordering::Relaxed);
        if left == 0 {
            let next = if self.head_begun.load(Ordering::Relaxed) {
                &self.head_since
            } else {
                &self.idle_since
            };
            next.store(now.nanos().max(1), Ordering::Relaxed);
        }
    }

    /// Whether a clock has run out, else when the first of those that run will have.
    pub(crate) fn first_end(
        &self,
        now: Moment,
        limits: &Limits,
    ) -> Result<Option<Moment>, Expired> {
        let mut first: Option<Moment> = None;
        let stuck = Duration::from_nanos(self.stuck.load(Ordering::Relaxed));
        let write = pace::left(limits.write, self.taken.load(Ordering::Relaxed), stuck);
        for (since, limit, expired) in [
            (&self.stuck_since, write, Expired::Stuck),
            (&self.head_since, limits.head, Expired::SlowHead),
            (&self.frame_since, limits.head, Expired::SlowHead),
            (&self.idle_since, limits.keepalive, Expired::Idle),
        ] {
            let since = since.load(Ordering::Relaxed);
            if since == 0 {
                continue;
            }
            let end = Moment::from_nanos(since).after(limit);
            if end <= now {
                return Err(expired);
            }
            first = Some(first.map_or(end, |first| first.min(end)));
        }
        Ok(first)
    }

    /// Whether a clock has run out, else when to look again: any of them may start right after this look.
    pub(crate) fn look(&self, now: Moment, limits: &Limits) -> Result<Moment, Expired> {
        let soonest = now.after(limits.head.min(limits.write).min(limits.keepalive));
        Ok(self.first_end(now, limits)?.map_or(soonest, |end| end.min(soonest)))
    }

    /// Since when the connection has been at rest: nothing is in progress or on its way out, and what is
    /// there of the next head can wait in the gate. None while it is not.
    pub(crate) fn resting_since(&self) -> Option<Moment> {
        let at_rest = self.busy.load(Ordering::Relaxed) == 0
            && self.stuck_since.load(Ordering::Relaxed) == 0
            && self.signals.is_between_requests()
            && !self.signals.is_closed();
        let since =
            self.idle_since.load(Ordering::Relaxed).max(self.head_since.load(Ordering::Relaxed));
        (at_rest && since != 0).then(|| Moment::from_nanos(since))
    }

    /// How much the connection holds, roughly: requests in progress count most, then an answer that is not
    /// read, then a head that has come in part. 0 at rest.
    pub(crate) fn weight(&self) -> u64 {
        let busy = u64::from(self.busy.load(Ordering::Relaxed));
        let stuck = u64::from(self.stuck_since.load(Ordering::Relaxed) != 0);
        busy * 4 + stuck * 2 + u64::from(self.is_amid_head())
    }

    /// The connection is given up because memory is short.
    pub(crate) fn set_shed(&self) {
        self.shed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_shed(&self) -> bool {
        self.shed.load(Ordering::Relaxed)
    }

    fn note_write(&self, polled: &Poll<io::Result<usize>>) {
        let was = self.stuck_since.load(Ordering::Relaxed);
        if polled.is_pending() {
            if was == 0 {
                self.stuck_since.store(clock::now().nanos().max(1), Ordering::Relaxed);
            }
            return;
        }
        if was != 0 {
            let stuck = clock::now().nanos().saturating_sub(was);
            let before = self.stuck.load(Ordering::Relaxed);
            self.stuck.store(before.saturating_add(stuck).max(1), Ordering::Relaxed);
            self.stuck_since.store(0, Ordering::Relaxed);
        }
        if let Poll::Ready(Ok(written)) = polled
            && self.stuck.load(Ordering::Relaxed) != 0
        {
            let taken = self.taken.load(Ordering::Relaxed).saturating_add(*written as u64);
            self.taken.store(taken, Ordering::Relaxed);
        }
    }
}

/// A stream that tells the clocks when it is stuck. While its connection is being parked, a wish to close
/// it is granted and does nothing.
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
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.clocks.note_write(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.clocks.note_write(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Flushed after the last write only, so its success is the end of being stuck.
        let polled = Pin::new(&mut self.stream).poll_flush(cx).map_ok(|()| 0);
        self.clocks.note_write(&polled);
        polled.map_ok(drop)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.clocks.signals.is_parking() {
            return Poll::Ready(Ok(()));
        }
        self.clocks.signals.close();
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
        assert_eq!(clocks.look(at(80), &timeouts), Err(Expired::SlowHead));
        clocks.begin();
        assert!(clocks.look(at(900), &timeouts).is_ok(), "a request in progress has other limits");
        clocks.end(at(900));
        assert_eq!(clocks.look(at(975), &timeouts), Err(Expired::Idle));
    }

    #[test]
    fn a_head_that_waits_for_its_turn_has_its_time_from_then_on() {
        let clocks = Clocks::start();
        clocks.head_begins();
        clocks.begin();
        assert!(clocks.look(at(900), &LIMITS).is_ok());
        clocks.end(at(900));
        assert!(clocks.is_amid_head());
        assert_eq!(clocks.look(at(910), &LIMITS), Err(Expired::SlowHead));
        clocks.head_ends();
        clocks.begin();
        clocks.end(at(920));
        assert_eq!(clocks.look(at(995), &LIMITS), Err(Expired::Idle));
    }

    #[test]
    fn a_connection_rests_only_when_nothing_is_under_way() {
        let clocks = Clocks::start();
        assert!(clocks.resting_since().is_some());
        clocks.signals.pass(None);
        assert_eq!(clocks.resting_since(), None, "a head that was not taken");
        clocks.signals.take();
        clocks.begin();
        assert_eq!(clocks.resting_since(), None, "a request");
        clocks.end(at(9));
        assert_eq!(clocks.resting_since(), Some(at(9)));
        clocks.signals.set_body(true);
        assert_eq!(clocks.resting_since(), None, "a body that outlasts its answer");
        clocks.signals.set_body(false);
        clocks.note_write(&Poll::Pending);
        assert_eq!(clocks.resting_since(), None, "an answer on its way out");
        clocks.note_write(&Poll::Ready(Ok(0)));
        clocks.signals.close();
        assert_eq!(clocks.resting_since(), None, "a stream that was closed");
    }

    #[test]
    fn a_stuck_write_ends_the_connection_even_in_a_request() {
        let clocks = Clocks::default();
        clocks.begin();
        clocks.stuck_since.store(at(10).nanos(), Ordering::Relaxed);
        assert_eq!(clocks.look(at(40), &LIMITS), Err(Expired::Stuck));
        clocks.note_write(&Poll::Ready(Ok(0)));
        assert!(clocks.look(at(40), &LIMITS).is_ok());
    }

    #[test]
    fn a_reader_that_takes_a_little_now_and_then_does_not_last() {
        let clocks = Clocks::default();
        clocks.begin();
        clocks.stuck.store(at(25).nanos(), Ordering::Relaxed);
        clocks.taken.store(128, Ordering::Relaxed);
        clocks.stuck_since.store(at(100).nanos(), Ordering::Relaxed);
        assert!(clocks.look(at(105), &LIMITS).is_ok(), "five seconds are left, and one was earned");
        assert_eq!(clocks.look(at(107), &LIMITS), Err(Expired::Stuck));
        clocks.end(at(107));
        clocks.begin();
        assert!(clocks.look(at(107), &LIMITS).is_ok(), "the next answer begins anew");
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
        assert_eq!(clocks.look(later, &LIMITS), Err(Expired::Stuck));
        assert!(Pin::new(&mut stream).poll_flush(cx).is_ready());
        assert!(clocks.look(later, &LIMITS).is_ok(), "cut although everything was written");
    }
}
