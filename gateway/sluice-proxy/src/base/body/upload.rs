//! A request's body on its way to a service: counted, capped, and failing when its client stalls. What
//! is known of it from outside is in its [`Meter`], since hyper or the exchange holds the body itself.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::replay::Reader;
use super::{BodyError, keep};
use crate::base::clock::{self, Moment};
use crate::base::deadline::Deadline;
use crate::base::fault::Fault;
use crate::base::inlet::Inlet;
use crate::base::pace;

/// A request body on its way to the service; many requests have none.
pub(crate) struct Upload(Inner);

enum Inner {
    Empty,
    Once(Sending),
    /// It is kept meanwhile, and what of it was sent before comes first.
    Kept(Reader<Sending>),
}

/// A body as it comes from the client.
pub(crate) struct Sending {
    incoming: Inlet,
    idle: Duration,
    /// Whether the client has to keep the least pace.
    paced: bool,
    limit: u64,
    meter: Rc<Meter>,
    pause: Option<Pause>,
    /// How long the client was waited for in all pauses that are over.
    waited: Duration,
}

struct Pause {
    since: Moment,
    end: Deadline,
}

/// What is known about a request body from outside, while hyper holds it.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// Bytes read from the client so far.
    pub(crate) bytes: Cell<u64>,
    /// When the last of them came.
    pub(crate) moved: Cell<Moment>,
    /// Whether all of it was read.
    pub(crate) whole: Cell<bool>,
    /// Whether it is the client who keeps everybody waiting.
    pub(crate) waiting: Cell<bool>,
    /// Why it failed, if it did.
    pub(crate) fault: Cell<Option<Fault>>,
}

impl Upload {
    /// No body.
    pub(crate) fn empty() -> Self {
        Self(Inner::Empty)
    }

    /// A body of at most `limit` bytes that may pause for `idle` at most, and in all for not much longer
    /// if it is `paced`.
    pub(crate) fn stream(
        incoming: Inlet,
        limit: u64,
        idle: Duration,
        paced: bool,
        meter: Rc<Meter>,
    ) -> Self {
        let (pause, waited) = (None, Duration::ZERO);
        Self(Inner::Once(Sending { incoming, idle, paced, limit, meter, pause, waited }))
    }

    pub(super) fn kept(reader: Reader<Sending>) -> Self {
        Self(Inner::Kept(reader))
    }

    /// The client's body itself, if nobody keeps it yet.
    pub(super) fn into_sending(self) -> Result<Sending, Self> {
        match self.0 {
            Inner::Once(sending) => Ok(sending),
            other => Err(Self(other)),
        }
    }
}

impl Sending {
    fn fail(&self, fault: Fault) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.meter.fault.set(Some(fault));
        Poll::Ready(Some(Err(fault.into())))
    }

    /// Notes that the client has moved.
    fn moved(&mut self) {
        let now = clock::now();
        self.meter.moved.set(now);
        if let Some(pause) = self.pause.take() {
            self.waited += now.saturating_since(pause.since);
        }
    }

    /// Whether the client keeps everybody waiting for too long.
    fn stalled(&mut self, cx: &mut Context<'_>) -> bool {
        let (idle, waited) = (self.idle, if self.paced { self.waited } else { Duration::ZERO });
        let bytes = self.meter.bytes.get();
        let pause = self.pause.get_or_insert_with(|| {
            let since = clock::now();
            Pause { since, end: Deadline::at(since.after(pace::left(idle, bytes, waited))) }
        });
        pause.end.poll(cx).is_ready()
    }

    fn admit(&self, frame: Frame<Bytes>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match frame.into_data() {
            Ok(data) => {
                let bytes = self.meter.bytes.get().saturating_add(data.len() as u64);
                self.meter.bytes.set(bytes);
                if bytes > self.limit {
                    return self.fail(Fault::BodyTooLarge);
                }
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => Poll::Ready(Some(Ok(Frame::trailers(request_trailers(trailers))))),
                Err(_) => self.fail(Fault::BodyBroken),
            },
        }
    }
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.incoming).poll_frame(cx);
        this.meter.waiting.set(polled.is_pending());
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                this.moved();
                this.meter.whole.set(this.incoming.is_end_stream());
                this.admit(frame)
            }
            Poll::Ready(Some(Err(error))) => {
                this.fail(if is_gone(&error) { Fault::ClientGone } else { Fault::BodyBroken })
            }
            Poll::Ready(None) => {
                this.meter.whole.set(true);
                Poll::Ready(None)
            }
            Poll::Pending if this.stalled(cx) => this.fail(Fault::BodyTimeout),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Inner::Empty => Poll::Ready(None),
            Inner::Once(body) => Pin::new(body).poll_frame(cx),
            Inner::Kept(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Empty => true,
            Inner::Once(body) => body.is_end_stream(),
            Inner::Kept(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Once(body) => body.size_hint(),
            Inner::Kept(body) => body.size_hint(),
        }
    }
}

/// Whether a body ends early because its sender left, rather than because it is malformed.
fn is_gone(error: &hyper::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    if error.is_canceled() || error.is_incomplete_message() || error.is_closed() {
        return true;
    }
    // Amid a chunk hyper only passes on what the stream said.
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return matches!(
                io.kind(),
                BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
            );
        }
        source = inner.source();
    }
    false
}

/// Trailers that may travel to a service: gRPC's own. Others could be taken for header fields by a
/// service that merges them (RFC 9110 section 6.5.1).
fn request_trailers(trailers: HeaderMap) -> HeaderMap {
    keep(trailers, |name| name.as_str().starts_with("grpc-"))
}
