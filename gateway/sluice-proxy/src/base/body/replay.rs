//! Request bodies that may have to be sent again: what was sent is kept until there is an answer, or until
//! it is too much. What is too much is not kept at all, and loses nothing but the chance of another attempt.
//!
//! A [`Source`] belongs to a request and makes one [`Upload`] for each of its attempts. The one rule: only
//! the newest of them reads from the client; an older one, which a connection may still hold, ends in an
//! error, so that nobody takes its part for the whole.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::BodyError;
use super::upload::{Sending, Upload};

/// Pieces below this size are copied, bytes: one of them may hold a buffer of many times its size.
const COPIED: usize = 4 * 1024;
/// Bytes that all kept bodies of a worker may have together.
const SHELF: usize = 8 * 1024 * 1024;

/// The room that the kept bodies of one worker share.
#[derive(Debug, Default)]
pub(crate) struct Shelf(Cell<usize>);

/// Where the bodies of a request's attempts come from.
pub(crate) enum Source {
    /// The request has none.
    Empty,
    /// It is sent once, and here until then.
    Once(Option<Upload>),
    /// What was sent of it is kept.
    Kept(Replay<Sending>),
}

/// A body that is kept while it is sent.
pub(crate) struct Replay<S>(Rc<RefCell<Tape<S>>>);

/// One attempt's view of a kept body.
pub(super) struct Reader<S> {
    tape: Rc<RefCell<Tape<S>>>,
    turn: u32,
}

struct Tape<S> {
    body: S,
    /// The reader that counts.
    turn: u32,
    /// How many of the pieces it has sent; `None` once it has sent all and reads from the client.
    at: Option<usize>,
    /// What was sent, in order, without what is in `tail`.
    pieces: Vec<Bytes>,
    /// Small pieces, gathered.
    tail: BytesMut,
    trailers: Option<HeaderMap>,
    ended: bool,
    keeping: bool,
    /// Bytes kept, and how many there may be.
    bytes: usize,
    most: usize,
    shelf: Rc<Shelf>,
}

/// An older attempt's body.
#[derive(Debug)]
struct Superseded;

impl std::fmt::Display for Superseded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the body is being sent elsewhere")
    }
}

impl std::error::Error for Superseded {}

// === impl Source ===

impl Source {
    /// A body that is sent once.
    pub(crate) fn once(upload: Upload) -> Self {
        if upload.is_end_stream() { Self::Empty } else { Self::Once(Some(upload)) }
    }

    /// Keeps what is sent from now on, up to `most` bytes.
    pub(crate) fn keep(&mut self, most: usize, shelf: &Rc<Shelf>) {
        let Self::Once(upload) = self else { return };
        match upload.take().map(Upload::into_sending) {
            Some(Ok(body)) => *self = Self::Kept(Replay::new(body, most, shelf)),
            Some(Err(body)) => *upload = Some(body),
            None => {}
        }
    }

    /// The body from its beginning, for the next attempt; `None` if it cannot be sent again.
    pub(crate) fn take(&mut self) -> Option<Upload> {
        match self {
            Self::Empty => Some(Upload::empty()),
            Self::Once(upload) => upload.take(),
            Self::Kept(replay) => replay.again().map(Upload::kept),
        }
    }

    /// Whether the body can be sent from its beginning.
    pub(crate) fn is_whole(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Once(upload) => upload.is_some(),
            Self::Kept(replay) => replay.0.borrow().keeping,
        }
    }

    /// Takes back what was taken and of which nothing was sent.
    pub(crate) fn put_back(&mut self, unsent: Upload) {
        if let Self::Once(upload) = self {
            *upload = Some(unsent);
        }
    }

    /// No other attempt will follow: what is kept is let go.
    pub(crate) fn let_go(&mut self) {
        if let Self::Kept(replay) = self {
            replay.0.borrow_mut().let_go();
        }
    }
}

// === impl Replay ===

impl<S: Body<Data = Bytes, Error = BodyError> + Unpin> Replay<S> {
    fn new(body: S, most: usize, shelf: &Rc<Shelf>) -> Self {
        Self(Rc::new(RefCell::new(Tape {
            body,
            turn: 0,
            at: None,
            pieces: Vec::new(),
            tail: BytesMut::new(),
            trailers: None,
            ended: false,
            keeping: true,
            bytes: 0,
            most,
            shelf: Rc::clone(shelf),
        })))
    }

    fn again(&self) -> Option<Reader<S>> {
        let mut tape = self.0.borrow_mut();
        if !tape.keeping {
            return None;
        }
        tape.turn += 1;
        tape.gather();
        tape.at = Some(0);
        Some(Reader { tape: Rc::clone(&self.0), turn: tape.turn })
    }
}

impl<S> Tape<S> {
    /// Closes the last piece.
    fn gather(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push(self.tail.split().freeze());
        }
    }

    /// Keeps a piece that is being sent, if there is room for it.
    fn keep(&mut self, data: &Bytes)
    where
        S: Body,
    {
        if !self.keeping || !self.reserve(data.len()) {
            return;
        }
        if data.len() >= COPIED {
            self.gather();
            self.pieces.push(data.clone());
            return;
        }
        if self.tail.capacity() == 0 {
            let more = self
                .body
                .size_hint()
                .exact()
                .and_then(|more| usize::try_from(more).ok())
                .unwrap_or(0);
            self.tail.reserve(data.len() + more.min(self.most - self.bytes));
        }
        self.tail.extend_from_slice(data);
    }

    fn keep_trailers(&mut self, trailers: &HeaderMap) {
        let bytes = trailers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if self.keeping && self.reserve(bytes) {
            self.trailers = Some(trailers.clone());
        }
    }

    /// Whether there is room for so many bytes more; if not, nothing is kept any longer.
    fn reserve(&mut self, bytes: usize) -> bool {
        let shelf = self.shelf.0.get();
        let fits = self.bytes + bytes <= self.most && shelf + bytes <= SHELF;
        if fits {
            self.bytes += bytes;
            self.shelf.0.set(shelf + bytes);
        } else {
            self.let_go();
        }
        fits
    }

    /// Keeps nothing more, and nothing that was sent.
    fn let_go(&mut self) {
        self.keeping = false;
        if self.at.is_none() {
            self.pieces = Vec::new();
            self.tail = BytesMut::new();
            self.trailers = None;
            self.give_room();
        }
    }

    fn give_room(&mut self) {
        let taken = std::mem::take(&mut self.bytes);
        self.shelf.0.set(self.shelf.0.get().saturating_sub(taken));
    }

    /// The next of what was sent before, if any is left.
    fn replay(&mut self) -> Option<Frame<Bytes>> {
        let at = self.at?;
        if let Some(piece) = self.pieces.get(at) {
            self.at = Some(at + 1);
            return Some(Frame::data(piece.clone()));
        }
        self.at = None;
        let trailers = self.trailers.clone().map(Frame::trailers);
        if !self.keeping {
            self.let_go();
        }
        trailers
    }

    /// Bytes that were sent before and are to be sent again.
    fn left(&self) -> u64 {
        let pieces = self.at.and_then(|at| self.pieces.get(at..)).unwrap_or_default();
        pieces.iter().map(|piece| piece.len() as u64).sum()
    }
}

impl<S> Drop for Tape<S> {
    fn drop(&mut self) {
        self.give_room();
    }
}

// === impl Reader ===

impl<S: Body<Data = Bytes, Error = BodyError> + Unpin> Body for Reader<S> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let tape = &mut *self.tape.borrow_mut();
        if tape.turn != self.turn {
            return Poll::Ready(Some(Err(Superseded.into())));
        }
        if let Some(frame) = tape.replay() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if tape.ended {
            return Poll::Ready(None);
        }
        let polled = ready!(Pin::new(&mut tape.body).poll_frame(cx));
        match &polled {
            None => tape.ended = true,
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    tape.keep(data);
                } else if let Some(trailers) = frame.trailers_ref() {
                    tape.keep_trailers(trailers);
                    tape.ended = true;
                }
            }
            // What a client has broken off is not sent again.
            Some(Err(_)) => tape.let_go(),
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        let tape = self.tape.borrow();
        let replays = tape.at.is_some() && (tape.trailers.is_some() || tape.left() > 0);
        tape.turn == self.turn && !replays && (tape.ended || tape.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let tape = self.tape.borrow();
        let (rest, left) = (tape.body.size_hint(), tape.left());
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(left));
        }
        hint.set_lower(rest.lower().saturating_add(left));
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::task::Waker;

    use proptest::prelude::*;

    use super::*;

    /// A client's body, piece by piece.
    struct Said(VecDeque<Frame<Bytes>>);

    impl Body for Said {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            Poll::Ready(self.0.pop_front().map(Ok))
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }

        fn size_hint(&self) -> SizeHint {
            let left = self.0.iter().filter_map(|frame| frame.data_ref()).map(|data| data.len());
            SizeHint::with_exact(left.sum::<usize>() as u64)
        }
    }

    fn piece(byte: u8, len: usize) -> Frame<Bytes> {
        Frame::data(vec![byte; len].into())
    }

    fn replay(pieces: Vec<Frame<Bytes>>, most: usize) -> (Replay<Said>, Rc<Shelf>) {
        let shelf = Rc::new(Shelf::default());
        (Replay::new(Said(pieces.into()), most, &shelf), shelf)
    }

    fn next(reader: &mut Reader<Said>) -> Option<Result<Frame<Bytes>, String>> {
        let polled = Pin::new(reader).poll_frame(&mut Context::from_waker(Waker::noop()));
        match polled {
            Poll::Ready(frame) => frame.map(|frame| frame.map_err(|error| error.to_string())),
            Poll::Pending => panic!("nothing here waits"),
        }
    }

    fn read(reader: &mut Reader<Said>, frames: usize) -> Vec<u8> {
        let frames = (0..frames).map_while(|_| next(reader)).map(Result::unwrap);
        frames.filter_map(|frame| frame.into_data().ok()).flatten().collect()
    }

    #[test]
    fn each_attempt_gets_the_whole() {
        let pieces = vec![piece(b'a', 10), piece(b'b', 5_000), piece(b'c', 10), piece(b'd', 10)];
        let whole: Vec<u8> =
            pieces.iter().flat_map(|piece| piece.data_ref().unwrap().to_vec()).collect();
        let (replay, shelf) = replay(pieces, 64 * 1024);
        for frames in [0, 1, 2, 3, 4] {
            let mut reader = replay.again().unwrap();
            assert_eq!(reader.size_hint().exact(), Some(whole.len() as u64));
            let read = read(&mut reader, frames);
            assert_eq!(read, whole[..read.len()], "{frames}");
        }
        let mut last = replay.again().unwrap();
        assert_eq!(read(&mut last, 100), whole);
        assert!(last.is_end_stream() && next(&mut last).is_none());
        assert_eq!(shelf.0.get(), whole.len());
        drop((last, replay));
        assert_eq!(shelf.0.get(), 0);
    }

    #[test]
    fn only_the_newest_attempt_reads() {
        let (replay, _) = replay(vec![piece(b'a', 10), piece(b'b', 10)], 100);
        let mut first = replay.again().unwrap();
        read(&mut first, 1);
        let mut second = replay.again().unwrap();
        assert_eq!(next(&mut first).unwrap().unwrap_err(), "the body is being sent elsewhere");
        assert!(!first.is_end_stream(), "nobody takes its part for the whole");
        assert_eq!(read(&mut second, 9).len(), 20);
    }

    #[test]
    fn what_is_too_much_is_sent_and_not_kept() {
        let (replay, shelf) = replay(vec![piece(b'a', 60), piece(b'b', 60)], 100);
        let mut reader = replay.again().unwrap();
        assert_eq!(read(&mut reader, 1).len(), 60);
        assert_eq!(shelf.0.get(), 60);
        assert_eq!(read(&mut reader, 1).len(), 60);
        assert_eq!(shelf.0.get(), 0);
        assert!(replay.again().is_none());
        assert!(next(&mut reader).is_none(), "the one that had begun is whole");
    }

    #[test]
    fn a_full_shelf_keeps_no_more() {
        let (replay, shelf) = replay(vec![piece(b'a', 60)], 100);
        shelf.0.set(SHELF - 50);
        let mut reader = replay.again().unwrap();
        assert_eq!(read(&mut reader, 9).len(), 60);
        assert!(replay.again().is_none());
        assert_eq!(shelf.0.get(), SHELF - 50);
    }

    #[test]
    fn an_attempt_that_is_the_last_still_gets_all() {
        let (replay, shelf) = replay(vec![piece(b'a', 10), piece(b'b', 10)], 100);
        read(&mut replay.again().unwrap(), 1);
        let mut last = replay.again().unwrap();
        replay.0.borrow_mut().let_go();
        assert_eq!(read(&mut last, 9).len(), 20);
        assert!(replay.again().is_none());
        assert_eq!(shelf.0.get(), 0);
    }

    #[test]
    fn trailers_come_again_too() {
        let mut fields = HeaderMap::new();
        fields.insert("grpc-x", http::HeaderValue::from_static("1"));
        let (replay, _) = replay(vec![piece(b'a', 1), Frame::trailers(fields.clone())], 100);
        for _ in 0..3 {
            let mut reader = replay.again().unwrap();
            assert_eq!(read(&mut reader, 1), b"a");
            assert!(!reader.is_end_stream());
            let trailers = next(&mut reader).unwrap().unwrap().into_trailers().unwrap();
            assert_eq!(trailers, fields);
            assert!(next(&mut reader).is_none() && reader.is_end_stream());
        }
    }

    proptest! {
        /// Wherever attempts end, each gets a beginning of the whole, and the last one all of it.
        #[test]
        fn attempts_that_end_anywhere(
            sizes in proptest::collection::vec(1_usize..9_000, 0..12),
            ends in proptest::collection::vec(0_usize..14, 0..4),
        ) {
            let pieces: Vec<_> =
                sizes.iter().zip(0_u8..).map(|(size, byte)| piece(byte, *size)).collect();
            let whole: Vec<u8> =
                sizes.iter().zip(0_u8..).flat_map(|(size, byte)| vec![byte; *size]).collect();
            let (replay, shelf) = replay(pieces, 1024 * 1024);
            for frames in ends {
                let read = read(&mut replay.again().unwrap(), frames);
                prop_assert_eq!(&read[..], &whole[..read.len()]);
            }
            prop_assert_eq!(read(&mut replay.again().unwrap(), 99), whole);
            drop(replay);
            prop_assert_eq!(shelf.0.get(), 0);
        }
    }
}
