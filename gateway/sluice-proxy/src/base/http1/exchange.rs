//! One connection and what is going on over it: a request being written, an answer being read, both
//! at once if the service answers early. Everything is polled by the task of the request.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http_body::Frame;
use sluice_engine::http1::chunked::Kind;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, ReadBuf};

use super::answer::{self, Answer, Framing};
use super::incoming::Incoming;
use super::outgoing::Head;
use super::sending::Sending;
use super::stream::Stream;
use crate::base::body::Upload;

/// Largest head of an answer, interim answers with it, bytes.
const MAX_HEAD: usize = 64 * 1024;
/// Interim answers (1xx) before the final one.
const MAX_INTERIM: u32 = 16;
/// Bytes of the buffer that all connections of a thread read into when little is expected.
const SCRATCH: usize = 16 * 1024;
/// Bytes read at once at most, when that much is expected. An answer whose client does not read holds so
/// much.
const BULK: usize = 256 * 1024;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// A connection to a service; clones are handles on the same one.
#[derive(Clone)]
pub(crate) struct Exchange(Rc<RefCell<Wire>>);

struct Wire {
    /// `None` once it was closed.
    stream: Option<Stream>,
    sending: Sending,
    /// Read but not yet understood.
    inbox: Bytes,
    /// What is left of the answer's body; `None` before its head was read.
    body: Option<Framing>,
    trailers: Vec<u8>,
    /// Bytes to read next at most: twice as many after each read that took all it could, so that nobody
    /// holds a large buffer who has not read as much before.
    reach: usize,
    /// What it may grow to.
    most: usize,
    keep: bool,
    idle: Option<Duration>,
    to_head: bool,
    /// Whether a byte of an answer came.
    seen: bool,
    interim: u32,
    /// Bytes of heads since the request was sent.
    heard: usize,
    /// Bytes of the inbox that are known to hold no whole head.
    headless: usize,
}

/// Why an exchange failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The connection ended.
    Died,
    /// TLS failed, which after the handshake means that the service objects to our certificate.
    Tls,
    /// What came is no answer, or could be read in two ways.
    Malformed,
    /// The request's own body failed; its meter says why.
    Upload,
}

/// A request that got no answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lost {
    pub(crate) failure: Failure,
    /// Whether any byte of an answer came.
    pub(crate) seen: bool,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Died => "the connection to the service ended early",
            Self::Tls => "TLS to the service failed",
            Self::Malformed => "the service's answer is malformed",
            Self::Upload => "the request's body failed",
        })
    }
}

impl std::error::Error for Failure {}

// === impl Exchange ===

impl Exchange {
    pub(crate) fn new(stream: Stream) -> Self {
        Self(Rc::new(RefCell::new(Wire::new(stream))))
    }

    /// Takes a request down; [`Exchange::answer`] sends it.
    pub(crate) fn begin(&self, head: Head<'_>, body: Upload) {
        self.0.borrow_mut().begin(head, body);
    }

    /// Sends what was begun and waits for the head of the final answer.
    pub(crate) async fn answer(&self) -> Result<http::Response<Incoming>, Lost> {
        let head = std::future::poll_fn(|cx| self.0.borrow_mut().poll_answer(cx)).await?;
        Ok(http::Response::from_parts(head, Incoming::new(self.clone())))
    }

    /// Whether the request is still being written, as it is when the service answers early.
    pub(crate) fn is_uploading(&self) -> bool {
        !self.0.borrow().sending.is_done()
    }

    /// Goes on writing the request. Somebody must, when [`Exchange::is_uploading`] after the answer's
    /// head has come: the answer's reader may pause for as long as its client does not read.
    pub(crate) async fn upload(&self) {
        let poll = |cx: &mut Context<'_>| {
            let mut wire = self.0.borrow_mut();
            // Its failure is told to whoever reads the answer.
            let done = wire.poll_upload(cx).map(drop);
            if done.is_pending() {
                // Closing drops what would wake this task otherwise.
                wire.sending.wake_when_done(cx.waker());
            }
            done
        };
        std::future::poll_fn(poll).await;
    }

    /// Waits until nothing is being written any more, whoever writes it.
    pub(crate) async fn uploaded(&self) {
        let poll = |cx: &mut Context<'_>| {
            let mut wire = self.0.borrow_mut();
            if wire.sending.is_done() || wire.stream.is_none() {
                return Poll::Ready(());
            }
            wire.sending.wake_when_done(cx.waker());
            Poll::Pending
        };
        std::future::poll_fn(poll).await;
    }

    /// Interim answers that were dropped since the request was sent.
    pub(crate) fn interim(&self) -> u32 {
        self.0.borrow().interim
    }

    /// How long the service says, with its answer, that it keeps idle connections.
    pub(crate) fn announced_idle(&self) -> Option<Duration> {
        self.0.borrow().idle
    }

    /// Whether the last exchange ended well and another may follow.
    pub(crate) fn is_clean(&self) -> bool {
        let wire = self.0.borrow();
        wire.keep
            && matches!(wire.body, Some(Framing::Done))
            && wire.inbox.is_empty()
            && wire.sending.is_whole()
    }

    /// Whether an idle connection can still be used: open, and nothing has come unasked.
    pub(crate) fn is_quiet(&self) -> bool {
        self.0.borrow_mut().stream.as_mut().is_some_and(Stream::is_quiet)
    }

    /// Closes the connection, whoever still holds a handle.
    pub(crate) fn close(&self) {
        self.0.borrow_mut().close();
    }

    /// After a switch of protocols: the stream, and what was read beyond the answer's head.
    pub(crate) fn into_stream(self) -> Option<(Stream, Bytes)> {
        let mut wire = self.0.borrow_mut();
        let stream = wire.stream.take()?;
        Some((stream, std::mem::take(&mut wire.inbox)))
    }

    pub(super) fn poll_body(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        self.0.borrow_mut().poll_body(cx)
    }

    /// Reads no more at once than this from now on, or than the least that is ever read.
    pub(super) fn at_most(&self, bytes: usize) {
        self.0.borrow_mut().most = bytes.max(SCRATCH);
    }

    /// Bytes of the body that are still to come, if that is known.
    pub(super) fn left(&self) -> Option<u64> {
        match self.0.borrow().body {
            Some(Framing::Done) => Some(0),
            Some(Framing::Length(left)) => Some(left),
            _ => None,
        }
    }
}

// === impl Wire ===

impl Wire {
    fn new(stream: Stream) -> Self {
        Self {
            stream: Some(stream),
            sending: Sending::new(),
            inbox: Bytes::new(),
            body: None,
            trailers: Vec::new(),
            reach: SCRATCH,
            most: BULK,
            keep: false,
            idle: None,
            to_head: false,
            seen: false,
            interim: 0,
            heard: 0,
            headless: 0,
        }
    }

    fn begin(&mut self, head: Head<'_>, body: Upload) {
        self.body = None;
        self.keep = false;
        self.reach = SCRATCH;
        self.most = BULK;
        self.seen = false;
        self.interim = 0;
        self.heard = 0;
        self.headless = 0;
        self.to_head = head.method == http::Method::HEAD;
        self.sending.begin(head, body);
    }

    fn close(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            stream.farewell();
        }
        self.keep = false;
        self.sending.give_up();
    }

    fn lost(&self, failure: Failure) -> Lost {
        Lost { failure, seen: self.seen }
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<http::response::Parts, Lost>> {
        if self.poll_upload(cx) == Poll::Ready(Err(Failure::Upload)) {
            return Poll::Ready(Err(self.lost(Failure::Upload)));
        }
        loop {
            if self.may_hold_head() {
                match self.read_head() {
                    Ok(Some(head)) => return Poll::Ready(Ok(head)),
                    Ok(None) => {}
                    Err(failure) => return Poll::Ready(Err(self.lost(failure))),
                }
            }
            self.headless = self.inbox.len();
            if self.heard + self.headless >= MAX_HEAD {
                return Poll::Ready(Err(self.lost(Failure::Malformed)));
            }
            match ready!(self.poll_fill(cx)) {
                Ok(true) => self.seen = true,
                Ok(false) => return Poll::Ready(Err(self.lost(Failure::Died))),
                Err(failure) => return Poll::Ready(Err(self.lost(failure))),
            }
        }
    }

    /// Whether there is reason to parse: a head that comes byte by byte is parsed when it begins, so
    /// that what is no answer is known at once, and when it may have ended.
    fn may_hold_head(&self) -> bool {
        let new = self.inbox.get(self.headless.saturating_sub(2)..).unwrap_or_default();
        if self.headless == 0 {
            return !new.is_empty();
        }
        memchr::memmem::find(new, b"\n\n").is_some()
            || memchr::memmem::find(new, b"\n\r\n").is_some()
    }

    /// Reads heads from the inbox up to the final one; drops and counts interim ones (RFC 9110
    /// section 15.2), which hyper's server could not pass on.
    fn read_head(&mut self) -> Result<Option<http::response::Parts>, Failure> {
        loop {
            let parsed = Answer::parse(&self.inbox, self.to_head);
            let Some(answer) = parsed.map_err(|_| Failure::Malformed)? else { return Ok(None) };
            self.inbox.advance(answer.len);
            self.heard += answer.len;
            if self.heard > MAX_HEAD {
                return Err(Failure::Malformed);
            }
            if answer.head.status.is_informational() && answer.head.status.as_u16() != 101 {
                self.interim += 1;
                if self.interim > MAX_INTERIM {
                    return Err(Failure::Malformed);
                }
                continue;
            }
            self.keep = answer.keep;
            self.idle = answer.idle;
            self.body = Some(answer.body);
            return Ok(Some(answer.head));
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        loop {
            if matches!(self.body, None | Some(Framing::Done)) {
                return Poll::Ready(None);
            }
            if !self.inbox.is_empty() {
                match self.next_frame() {
                    Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                    Ok(None) => continue,
                    Err(failure) => return Poll::Ready(Some(Err(failure))),
                }
            }
            match ready!(self.poll_fill(cx)) {
                Ok(true) => {}
                Ok(false) if matches!(self.body, Some(Framing::UntilClose)) => {
                    self.body = Some(Framing::Done);
                }
                Ok(false) => return Poll::Ready(Some(Err(Failure::Died))),
                Err(failure) => return Poll::Ready(Some(Err(failure))),
            }
        }
    }

    /// What the inbox holds of the body; `None` if that was framing only.
    fn next_frame(&mut self) -> Result<Option<Frame<Bytes>>, Failure> {
        match &mut self.body {
            Some(Framing::UntilClose) => Ok(Some(Frame::data(std::mem::take(&mut self.inbox)))),
            Some(Framing::Length(left)) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(self.inbox.len());
                *left -= take as u64;
                if *left == 0 {
                    self.body = Some(Framing::Done);
                }
                Ok(Some(Frame::data(self.inbox.split_to(take))))
            }
            Some(Framing::Chunked(_)) => self.next_chunk(),
            Some(Framing::Done) | None => Ok(None),
        }
    }

    fn next_chunk(&mut self) -> Result<Option<Frame<Bytes>>, Failure> {
        while let Some(Framing::Chunked(reader)) = &mut self.body {
            let piece = reader.read(&self.inbox).map_err(|_| Failure::Malformed)?;
            let done = reader.is_done();
            let Some(piece) = piece else { return Ok(None) };
            let bytes = self.inbox.split_to(piece.len);
            if done {
                self.body = Some(Framing::Done);
            }
            match piece.kind {
                Kind::Data => return Ok(Some(Frame::data(bytes))),
                Kind::Trailer => self.trailers.extend_from_slice(&bytes),
                Kind::Framing => {}
            }
        }
        if self.trailers.is_empty() {
            return Ok(None);
        }
        let section = std::mem::take(&mut self.trailers);
        let fields = answer::trailers(&section).map_err(|_| Failure::Malformed)?;
        Ok(Some(Frame::trailers(fields)))
    }

    /// Reads once; `false` at the end of the stream. The inbox grows while a head is incomplete, and
    /// is empty otherwise.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Failure>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(Failure::Died)) };
        self.reach = self.reach.min(self.most);
        let read = match self.reach {
            SCRATCH => read_little(stream, cx),
            reach => read_much(stream, reach, cx),
        };
        let bytes = match ready!(read) {
            Ok(bytes) => bytes,
            Err(error) => return Poll::Ready(Err(Failure::of(&error))),
        };
        self.reach = match bytes.len() {
            read if read >= self.reach => (self.reach * 2).min(self.most),
            read => read.next_power_of_two().max(SCRATCH),
        };
        let some = !bytes.is_empty();
        if self.inbox.is_empty() {
            self.inbox = bytes;
        } else {
            // Nobody else holds a part of an incomplete head: it grows where it is.
            let mut grown = BytesMut::from(std::mem::take(&mut self.inbox));
            grown.extend_from_slice(&bytes);
            self.inbox = grown.freeze();
        }
        Poll::Ready(Ok(some))
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        match &mut self.stream {
            Some(stream) => self.sending.poll(stream, cx),
            None => Poll::Ready(Err(Failure::Died)),
        }
    }
}

/// Reads into the thread's buffer and copies what came: nobody holds a buffer while nothing comes.
fn read_little(stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
    BUFFER.with_borrow_mut(|buffer| {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(Bytes::copy_from_slice(buffer.filled())))
    })
}

/// Reads into a buffer that is passed on as it is, unless most of it stayed empty.
fn read_much(stream: &mut Stream, reach: usize, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
    let mut bytes = BytesMut::with_capacity(reach);
    ready!(std::pin::pin!(stream.read_buf(&mut bytes)).poll(cx))?;
    let sparse = bytes.len() < reach / 4;
    Poll::Ready(Ok(if sparse { Bytes::copy_from_slice(&bytes) } else { bytes.freeze() }))
}

impl Failure {
    /// With TLS 1.3 a service objects to our certificate only after the handshake, to the first read.
    fn of(error: &io::Error) -> Self {
        let tls = error.get_ref().is_some_and(|cause| cause.is::<rustls::Error>());
        if tls { Self::Tls } else { Self::Died }
    }
}

#[cfg(test)]
mod differential;

/// A request to which nothing is added.
#[cfg(test)]
struct Nothing;

#[cfg(test)]
impl super::outgoing::Added for Nothing {
    fn each(&self, _: &mut dyn FnMut(&http::HeaderName, &http::HeaderValue)) {}
}

#[cfg(test)]
mod tests;
