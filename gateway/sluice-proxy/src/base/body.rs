//! The two bodies a request has: [`Upload`] goes from the client to the service, [`Body`] from the
//! service (or the gateway itself) to the client. Both stream; both count; both give up when the
//! other side stalls. Whoever must know how a response ended hands in an [`Ending`]. Small uploads may
//! be kept until there is an answer, to be sent once more ([`Source`]).

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, HeaderName};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::clock;
use super::deadline::Deadline;
use super::fault::Fault;
use super::http1;

mod replay;
mod upload;

pub(crate) use replay::{Shelf, Source};
pub(crate) use upload::{Meter, Upload};

/// What a body read can fail with; hyper only needs to know that it failed.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// How a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The last byte was handed over.
    Complete,
    /// The service broke off, stalled, or sent something malformed.
    Failed,
    /// Dropped before the end: the client went away.
    Abandoned,
}

/// Told once how a response ended, and how many body bytes it had.
pub(crate) trait Ending {
    /// Called exactly once.
    fn ended(self: Box<Self>, end: End, bytes: u64);
}

// === Body ===

/// A response body.
pub(crate) struct Body {
    inner: Inner,
    bytes: u64,
    ending: Option<Box<dyn Ending>>,
    /// The answer has no body by its nature (HEAD, 304), so dropping it unread is its end.
    bodiless: bool,
}

enum Inner {
    Empty,
    Full(Bytes),
    Stream(Stalling),
    /// Made while it is sent.
    Made(Pin<Box<dyn Stream<Item = Bytes>>>),
}

/// The body of a service's answer, in the protocol it came in.
pub(crate) enum Answer {
    Http1(http1::Incoming),
    Http2(Incoming),
}

/// An answer's body that fails when nothing arrives for `idle`.
struct Stalling {
    incoming: Answer,
    idle: Duration,
    pause: Option<Deadline>,
    /// Told with the next poll.
    failure: Option<BodyError>,
}

impl Body {
    pub(crate) fn empty() -> Self {
        Self::of(Inner::Empty)
    }

    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        Self::of(Inner::Full(bytes.into()))
    }

    /// The body of an upstream answer; fails when it stalls for `idle`.
    pub(crate) fn stream(incoming: Answer, idle: Duration) -> Self {
        if http_body::Body::is_end_stream(&incoming) {
            return Self::empty();
        }
        Self::of(Inner::Stream(Stalling { incoming, idle, pause: None, failure: None }))
    }

    /// A body that the gateway makes while it is sent, in pieces that are not empty.
    pub(crate) fn made(pieces: impl Stream<Item = Bytes> + 'static) -> Self {
        Self::of(Inner::Made(Box::pin(pieces)))
    }

    fn of(inner: Inner) -> Self {
        Self { inner, bytes: 0, ending: None, bodiless: false }
    }

    /// Reports the end to `ending`, at once if there is nothing to send.
    pub(crate) fn ending(mut self, ending: Box<dyn Ending>, bodiless: bool) -> Self {
        self.ending = Some(ending);
        self.bodiless = bodiless;
        self
    }

    /// The next piece should have no more bytes than this. A hint for who reads large pieces; 16 KiB are
    /// always possible.
    pub(crate) fn at_most(&mut self, bytes: usize) {
        if let Inner::Stream(Stalling { incoming: Answer::Http1(incoming), .. }) = &mut self.inner {
            incoming.at_most(bytes);
        }
    }

    fn finish(&mut self, end: End) {
        if let Some(ending) = self.ending.take() {
            ending.ended(end, self.bytes);
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let polled = match &mut this.inner {
            Inner::Empty => Poll::Ready(None),
            Inner::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.inner = Inner::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Inner::Stream(stream) => stream.poll(cx),
            Inner::Made(pieces) => {
                pieces.as_mut().poll_next(cx).map(|piece| Some(Ok(Frame::data(piece?))))
            }
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    this.bytes = this.bytes.saturating_add(data.len() as u64);
                }
                if http_body::Body::is_end_stream(this) {
                    this.finish(End::Complete);
                }
            }
            Poll::Ready(None) => this.finish(End::Complete),
            Poll::Ready(Some(Err(_))) => this.finish(End::Failed),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Empty => true,
            Inner::Full(bytes) => bytes.is_empty(),
            Inner::Stream(stream) => http_body::Body::is_end_stream(&stream.incoming),
            Inner::Made(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Stream(stream) => http_body::Body::size_hint(&stream.incoming),
            Inner::Made(_) => SizeHint::default(),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let whole = self.bodiless || http_body::Body::is_end_stream(self);
        self.finish(if whole { End::Complete } else { End::Abandoned });
    }
}

impl Stalling {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Some(Err(failure)));
        }
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.pause = None;
                Poll::Ready(Some(Ok(match frame.into_trailers() {
                    Ok(trailers) => Frame::trailers(response_trailers(trailers)),
                    Err(data) => data,
                })))
            }
            // hyper drops what it has not written when a body fails; a pause lets it write first, so that
            // the client gets all that came before.
            Poll::Ready(Some(Err(failure))) => {
                self.failure = Some(failure);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending if stalled(&mut self.pause, self.idle, cx) => {
                Poll::Ready(Some(Err(Fault::UpstreamTimeout.into())))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Http1(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Http2(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => http_body::Body::size_hint(body),
            Self::Http2(body) => http_body::Body::size_hint(body),
        }
    }
}

use http_body::Body as _;

/// Sets the deadline on the first poll of a pause and tells whether it has passed.
fn stalled(pause: &mut Option<Deadline>, idle: Duration, cx: &mut Context<'_>) -> bool {
    pause.get_or_insert_with(|| Deadline::at(clock::now().after(idle))).poll(cx).is_ready()
}

/// Trailers that may travel to a client: all but those that frame, route or authenticate.
fn response_trailers(trailers: HeaderMap) -> HeaderMap {
    const NEVER: [HeaderName; 14] = [
        http::header::AUTHORIZATION,
        http::header::CONNECTION,
        http::header::CONTENT_ENCODING,
        http::header::CONTENT_LENGTH,
        http::header::CONTENT_RANGE,
        http::header::CONTENT_TYPE,
        http::header::COOKIE,
        http::header::HOST,
        http::header::LOCATION,
        http::header::SET_COOKIE,
        http::header::TE,
        http::header::TRAILER,
        http::header::TRANSFER_ENCODING,
        http::header::UPGRADE,
    ];
    keep(trailers, |name| !NEVER.contains(name))
}

fn keep(trailers: HeaderMap, wanted: impl Fn(&HeaderName) -> bool) -> HeaderMap {
    if trailers.keys().all(&wanted) {
        return trailers;
    }
    let mut kept = HeaderMap::new();
    for (name, value) in &trailers {
        if wanted(name) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}
