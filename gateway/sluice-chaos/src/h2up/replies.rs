//! What the HTTP/2 upstream says in each mode, and the note it takes of a body while reading it.
//!
//! The one rule: a request is noted exactly once, when its body ends or when nobody reads it any
//! more.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};

use super::Mode;
use crate::record::{Journal, Recorded, fields_of};

pub(super) type Payload = UnsyncBoxBody<Bytes, hyper::Error>;

type Piece = Result<Frame<Bytes>, hyper::Error>;

/// A body that is written down as it is read.
pub(super) struct Noted {
    body: Incoming,
    recorded: Option<Recorded>,
    journal: Journal,
}

impl Noted {
    pub(super) fn new(body: Incoming, recorded: Recorded, journal: Journal) -> Self {
        Self { body, recorded: Some(recorded), journal }
    }

    async fn next(&mut self) -> Option<Piece> {
        let piece = self.body.frame().await;
        match (&piece, &mut self.recorded) {
            (Some(Ok(frame)), Some(recorded)) => {
                if let Some(data) = frame.data_ref() {
                    recorded.body.extend_from_slice(data);
                } else if let Some(trailers) = frame.trailers_ref() {
                    recorded.trailers = fields_of(trailers);
                }
            }
            (Some(Err(_)), _) => self.end(false),
            (None, _) => self.end(true),
            (Some(Ok(_)), None) => {}
        }
        piece
    }

    /// The whole content, or what had come before the request was cut.
    async fn whole(mut self) -> Vec<u8> {
        let mut content = Vec::new();
        while let Some(Ok(frame)) = self.next().await {
            if let Ok(data) = frame.into_data() {
                content.extend_from_slice(&data);
            }
        }
        content
    }

    fn end(&mut self, complete: bool) {
        if let Some(recorded) = self.recorded.take() {
            self.journal.finish(Recorded { complete, ..recorded });
        }
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.end(false);
    }
}

pub(super) async fn reply(mode: Mode, request: Noted) -> Response<Payload> {
    match mode {
        Mode::Answer(status, body) => {
            request.whole().await;
            with_status(status, full(body))
        }
        Mode::Echo => with_status(200, payload(copy(request))),
        Mode::GrpcUnary => {
            let content = request.whole().await;
            let pieces = [Ok(Frame::data(content.into())), Ok(Frame::trailers(grpc_status(0)))];
            grpc(payload(stream::iter(pieces)))
        }
        Mode::GrpcAnswer(content) => {
            request.whole().await;
            let pieces = [Ok(Frame::data(content.into())), Ok(Frame::trailers(grpc_status(0)))];
            grpc(payload(stream::iter(pieces)))
        }
        Mode::GrpcBidi => {
            let data = copy(request).filter(|piece| {
                let passes = piece.as_ref().map_or(true, Frame::is_data);
                async move { passes }
            });
            let end = stream::iter([Ok(Frame::trailers(grpc_status(0)))]);
            grpc(payload(data.chain(end)))
        }
        Mode::GrpcError { code, message } => {
            request.whole().await;
            let mut response = grpc(full(Vec::new()));
            response.headers_mut().extend(grpc_status(code));
            let message = HeaderValue::try_from(message).expect("a message fit for a header");
            response.headers_mut().insert(HeaderName::from_static("grpc-message"), message);
            response
        }
        Mode::Silent => {
            request.whole().await;
            std::future::pending().await
        }
        Mode::Stall(body) => {
            request.whole().await;
            let first = stream::iter([Ok(Frame::data(body.into()))]);
            with_status(200, payload(first.chain(stream::pending())))
        }
    }
}

/// Each piece as it comes; after an error nothing more.
fn copy(request: Noted) -> impl Stream<Item = Piece> + Send + 'static {
    stream::unfold(Some(request), |request| async move {
        let mut request = request?;
        let piece = request.next().await?;
        let more = piece.is_ok();
        Some((piece, more.then_some(request)))
    })
}

fn with_status(status: u16, payload: Payload) -> Response<Payload> {
    Response::builder().status(status).body(payload).expect("a status code")
}

fn grpc(payload: Payload) -> Response<Payload> {
    let mut response = Response::new(payload);
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

fn grpc_status(code: u32) -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from(code))])
}

fn payload(pieces: impl Stream<Item = Piece> + Send + 'static) -> Payload {
    StreamBody::new(pieces).boxed_unsync()
}

fn full(body: Vec<u8>) -> Payload {
    let never = |never: Infallible| match never {};
    Full::new(Bytes::from(body)).map_err(never).boxed_unsync()
}
