//! What hyper holds of the answers on an HTTP/2 connection until the client takes it. A client opens
//! the windows of its streams as it likes, so a body hands over a little at a time and waits until that
//! is taken; who takes nothing for too long loses the stream. hyper would hold all that the windows
//! allow and wait for ever.
//!
//! The one rule: bytes count from the moment the body hands them over until they are written or dropped,
//! and [`Piece`] is what sees both.

use std::cell::{Cell, RefCell};
use std::io::IoSlice;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::FutureExt as _;
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::base::body::{Body, BodyError};
use crate::base::clock::{self, Moment};
use crate::base::deadline::Deadline;
use crate::base::pace;
use crate::lasting::tasks::{self, Kind};

/// Bytes held for all streams of a worker from which on it is short of room.
const PLENTY: usize = 8 * 1024 * 1024;
/// What a stream may hold before it waits, and how much it may then be given at once: together 64 KiB.
const USUAL: Room = Room { held: 16 * 1024, more: 48 * 1024 };
/// The same while the worker is short of room.
const SHORT: Room = Room { held: 8 * 1024, more: 16 * 1024 };

#[derive(Debug, Clone, Copy)]
struct Room {
    held: usize,
    more: usize,
}

/// What is held of one stream's answer.
pub(super) struct Held {
    /// Bytes, of this stream.
    bytes: Cell<usize>,
    /// Bytes, of all streams of the worker.
    all: Rc<Cell<usize>>,
    /// Bytes that were written or dropped.
    taken: Cell<u64>,
    /// The body that waits until so little is held.
    waiting: Cell<Option<(usize, Waker)>>,
}

impl Held {
    fn new(all: Rc<Cell<usize>>) -> Rc<Self> {
        let (bytes, taken, waiting) = (Cell::default(), Cell::default(), Cell::default());
        Rc::new(Self { bytes, all, taken, waiting })
    }

    fn is_short(&self) -> bool {
        self.all.get() > PLENTY
    }

    fn give(&self, bytes: usize) {
        self.bytes.set(self.bytes.get().saturating_add(bytes));
        self.all.set(self.all.get().saturating_add(bytes));
    }

    fn take(&self, bytes: usize) {
        let left = self.bytes.get().saturating_sub(bytes);
        self.bytes.set(left);
        self.all.set(self.all.get().saturating_sub(bytes));
        self.taken.set(self.taken.get().saturating_add(bytes as u64));
        match self.waiting.take() {
            Some((until, waker)) if left <= until => waker.wake(),
            waiting => self.waiting.set(waiting),
        }
    }

    /// Ready when no more than `until` bytes are held.
    fn poll_down(&self, until: usize, cx: &mut Context<'_>) -> Poll<()> {
        if self.bytes.get() <= until {
            return Poll::Ready(());
        }
        self.waiting.set(Some((until, cx.waker().clone())));
        Poll::Pending
    }
}

/// A piece of an answer that counts as held while it exists.
pub(super) struct Piece {
    bytes: Bytes,
    held: Rc<Held>,
}

impl Piece {
    fn new(bytes: Bytes, held: Rc<Held>) -> Self {
        held.give(bytes.len());
        Self { bytes, held }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.bytes.chunks_vectored(slices)
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.held.take(count);
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            self.held.take(self.bytes.len());
        }
    }
}

/// A body that hands over no more than there is room for.
pub(super) struct Metered {
    body: Body,
    held: Rc<Held>,
}

impl http_body::Body for Metered {
    type Data = Piece;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, BodyError>>> {
        let Self { body, held } = self.get_mut();
        let room = if held.is_short() { SHORT } else { USUAL };
        let until = if body.is_end_stream() { 0 } else { room.held };
        ready!(held.poll_down(until, cx));
        body.at_most(room.more);
        let frame = ready!(Pin::new(body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| frame.map_data(|bytes| Piece::new(bytes, Rc::clone(held))))
        }))
    }

    /// hyper forgets a stream whose end it was given, and nobody would watch over what is held of it.
    /// Where room is short, the end is told when all before it was taken.
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && (self.held.bytes.get() == 0 || !self.held.is_short())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Starts the streams of a connection, each under watch.
#[derive(Clone)]
pub(super) struct Streams {
    limit: Duration,
    all: Rc<Cell<usize>>,
    /// What belongs to the stream that hyper starts next, which it does as soon as it was answered how.
    next: Rc<RefCell<Option<Rc<Held>>>>,
}

impl Streams {
    /// `all` counts for the worker; a client may keep a stream waiting for `limit`.
    pub(super) fn new(all: Rc<Cell<usize>>, limit: Duration) -> Self {
        Self { limit, all, next: Rc::default() }
    }

    /// What the stream that hyper starts next makes of its answer's body.
    pub(super) fn metered(&self) -> impl FnOnce(Body) -> Metered + use<> {
        let held = Held::new(Rc::clone(&self.all));
        *self.next.borrow_mut() = Some(Rc::clone(&held));
        move |body| Metered { body, held }
    }
}

impl<F: Future + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, future: F) {
        let held = self.next.borrow_mut().take();
        let Some(held) = held else { return drop(tasks::local(Kind::Stream, future.map(drop))) };
        let (limit, pause, waited) = (self.limit, None, Duration::ZERO);
        drop(tasks::local(Kind::Stream, Watch { future, held, limit, pause, waited }));
    }
}

pin_project! {
    /// A stream that is given up when its client takes nothing for too long, or next to nothing. Its
    /// future is dropped then, and hyper resets the stream.
    struct Watch<F> {
        #[pin]
        future: F,
        held: Rc<Held>,
        limit: Duration,
        pause: Option<Pause>,
        // How long the client was waited for in all pauses that are over.
        waited: Duration,
    }
}

struct Pause {
    since: Moment,
    /// What the client had taken by then.
    taken: u64,
    end: Deadline,
}

impl<F: Future> Future for Watch<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.future.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let (held, taken) = (this.held.bytes.get(), this.held.taken.get());
        if this.pause.as_ref().is_some_and(|pause| held == 0 || pause.taken != taken)
            && let Some(pause) = this.pause.take()
        {
            *this.waited += clock::now().saturating_since(pause.since);
        }
        if held == 0 {
            return Poll::Pending;
        }
        let pause = this.pause.get_or_insert_with(|| {
            let since = clock::now();
            let left = pace::left(*this.limit, taken, *this.waited);
            Pause { since, taken, end: Deadline::at(since.after(left)) }
        });
        pause.end.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body::Body as _;

    fn all(bytes: usize) -> Rc<Cell<usize>> {
        Rc::new(Cell::new(bytes))
    }

    fn metered(all: &Rc<Cell<usize>>) -> Metered {
        let held = Held::new(Rc::clone(all));
        Metered { body: Body::full("an answer"), held }
    }

    fn data(polled: Poll<Option<Result<Frame<Piece>, BodyError>>>) -> Piece {
        match polled {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().ok().unwrap(),
            _ => panic!("no data"),
        }
    }

    #[test]
    fn bytes_are_held_until_they_are_written_or_dropped() {
        let (all, cx) = (all(0), &mut Context::from_waker(Waker::noop()));
        let mut body = metered(&all);
        let mut piece = data(Pin::new(&mut body).poll_frame(cx));
        assert!(body.is_end_stream(), "there is plenty of room");
        assert_eq!((all.get(), body.held.bytes.get()), (9, 9));
        piece.advance(3);
        assert_eq!((all.get(), body.held.taken.get()), (6, 3));
        drop(piece);
        assert_eq!((all.get(), body.held.bytes.get()), (0, 0));
    }

    #[test]
    fn where_room_is_short_the_end_waits_until_all_was_taken() {
        let (all, cx) = (all(PLENTY + 1), &mut Context::from_waker(Waker::noop()));
        let mut body = metered(&all);
        let mut piece = data(Pin::new(&mut body).poll_frame(cx));
        assert!(!body.is_end_stream());
        piece.advance(8);
        assert!(Pin::new(&mut body).poll_frame(cx).is_pending());
        piece.advance(1);
        assert!(matches!(Pin::new(&mut body).poll_frame(cx), Poll::Ready(None)));
        assert_eq!(all.get(), PLENTY + 1);
    }

    #[tokio::test]
    async fn a_stream_ends_when_nothing_of_it_is_taken() {
        let stall = async |bytes: usize| {
            let held = Held::new(all(0));
            let piece = Piece::new(Bytes::from(vec![0; bytes]), Rc::clone(&held));
            let (limit, pause, waited) = (Duration::from_millis(50), None, Duration::ZERO);
            let future = async move {
                let _piece = piece;
                std::future::pending::<()>().await;
            };
            let watch = Watch { future, held, limit, pause, waited };
            let ended = tokio::time::timeout(Duration::from_millis(500), watch);
            tokio::select! {
                () = crate::base::deadline::keep() => false,
                ended = ended => ended.is_ok(),
            }
        };
        assert!(stall(1).await);
        assert!(!stall(0).await, "nobody waits for the client");
    }
}
