//! The body of an answer, as it is read from its connection.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::exchange::{Exchange, Failure};

/// What is still to come of an answer's body.
pub(crate) struct Incoming {
    /// Let go of at the body's end, since the connection may serve another request then.
    exchange: Option<Exchange>,
}

impl Incoming {
    pub(super) fn new(exchange: Exchange) -> Self {
        let mut incoming = Self { exchange: Some(exchange) };
        incoming.let_go();
        incoming
    }

    /// Reads no more at once than this, or than the least that is ever read.
    pub(crate) fn at_most(&mut self, bytes: usize) {
        if let Some(exchange) = &self.exchange {
            exchange.at_most(bytes);
        }
    }

    fn let_go(&mut self) {
        if self.exchange.as_ref().is_some_and(|exchange| exchange.left() == Some(0)) {
            self.exchange = None;
        }
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let Some(exchange) = &self.exchange else { return Poll::Ready(None) };
        let polled = exchange.poll_body(cx);
        if polled.is_ready() {
            self.let_go();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.exchange.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.exchange {
            None => SizeHint::with_exact(0),
            Some(exchange) => exchange.left().map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}
