//! gRPC as a client speaks it: frames of five bytes and a message, and a status in the trailers.
//!
//! Messages are bytes; what they encode is the test's business. The one rule: nothing is hidden, so
//! a head without trailers and trailers without a status show as such.

use std::{error::Error, fmt};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{Payload, Sender};
use crate::ground::{self, DEADLINE, within};

/// A gRPC client over one connection.
pub struct Grpc {
    sender: Sender,
    metadata: HeaderMap,
}

/// What came of a call.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The head's fields.
    pub headers: HeaderMap,
    /// The messages, without their frames.
    pub messages: Vec<Vec<u8>>,
    /// The trailers; none when the head was all.
    pub trailers: Option<HeaderMap>,
    /// `grpc-status` from the trailers, or from a head that was all.
    pub code: Option<u32>,
    /// `grpc-message` from the same place, as sent.
    pub message: Option<String>,
}

/// A call under way in both directions.
pub struct Bidi {
    sending: Option<mpsc::UnboundedSender<Result<Bytes, Cancelled>>>,
    head: Option<JoinHandle<Result<Response<Incoming>, String>>>,
    receiving: Option<Incoming>,
    buffer: Vec<u8>,
    reply: Reply,
}

/// A message in its frame, not compressed.
pub fn frame(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("a message of less than 4 GiB");
    let mut framed = Vec::with_capacity(message.len() + HEAD);
    framed.push(0);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(message);
    framed.into()
}

/// The whole messages in these bytes.
pub fn unframe(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = bytes.to_vec();
    std::iter::from_fn(|| take_message(&mut rest)).collect()
}

/// Bytes before each message: whether it is compressed, and its length.
const HEAD: usize = 5;

fn take_message(buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length =
        buffer.get(1..HEAD)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    let message = buffer.get(HEAD..HEAD + length)?.to_vec();
    buffer.drain(..HEAD + length);
    Some(message)
}

impl Grpc {
    /// Calls over a connection of HTTP/2.
    pub fn over(sender: Sender) -> Self {
        assert!(sender.is_h2(), "gRPC needs HTTP/2");
        Self { sender, metadata: HeaderMap::new() }
    }

    /// Sends this field with every call.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::try_from(name).expect("the name of a field");
        self.metadata.append(name, HeaderValue::try_from(value).expect("the value of a field"));
        self
    }

    /// Sends one message and reads what comes back.
    pub async fn unary(&mut self, path: &str, message: &[u8]) -> Reply {
        let reply = self.try_unary(path, message).await;
        reply.unwrap_or_else(|error| panic!("the call to {path} broke off: {error}"))
    }

    /// The same; an error tells how the stream or the connection broke off.
    pub async fn try_unary(&mut self, path: &str, message: &[u8]) -> Result<Reply, String> {
        let body = Full::new(frame(message)).map_err(|never| match never {}).boxed_unsync();
        let request = self.request(path, body);
        let (parts, body, trailers) = self.sender.try_send(request).await?;
        Ok(Reply::new(parts.status.as_u16(), parts.headers, unframe(&body), trailers))
    }

    /// Opens a call in both directions.
    pub async fn bidi(&mut self, path: &str) -> Bidi {
        let (sending, pieces) = mpsc::unbounded_channel();
        let pieces = stream::unfold(pieces, |mut pieces| async move {
            let piece: Result<Bytes, Cancelled> = pieces.recv().await?;
            Some((piece.map(Frame::data), pieces))
        });
        let body = StreamBody::new(pieces).map_err(Into::into).boxed_unsync();
        let request = self.request(path, body);
        let mut sender = self.sender.another();
        let head = ground::spawn(async move { sender.try_start(request).await });
        let reply = Reply::new(0, HeaderMap::new(), Vec::new(), None);
        Bidi {
            sending: Some(sending),
            head: Some(head),
            receiving: None,
            buffer: Vec::new(),
            reply,
        }
    }

    fn request(&self, path: &str, body: Payload) -> Request<Payload> {
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = path.parse().expect("a path");
        let headers = request.headers_mut();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(http::header::TE, HeaderValue::from_static("trailers"));
        headers.extend(self.metadata.clone());
        request
    }
}

impl Reply {
    fn new(
        status: u16,
        headers: HeaderMap,
        messages: Vec<Vec<u8>>,
        trailers: Option<HeaderMap>,
    ) -> Self {
        let last = trailers.as_ref().unwrap_or(&headers);
        let text = |name| last.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let code = text("grpc-status").and_then(|code| code.parse().ok());
        let message = text("grpc-message");
        Self { status, headers, messages, trailers, code, message }
    }
}

impl Bidi {
    /// Sends a message.
    pub async fn send(&mut self, message: &[u8]) {
        let sending = self.sending.as_ref().expect("sending was finished before");
        // A server that has ended the call takes no more; the test learns that by reading.
        sending.send(Ok(frame(message))).ok();
    }

    /// Ends this direction.
    pub fn finish_sending(&mut self) {
        self.sending = None;
    }

    /// The next message; nothing when the call has ended, well or badly.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        within(DEADLINE, "a message or the end of a call", self.try_next()).await.ok()?
    }

    /// The next message; an error tells how the call broke off.
    pub async fn try_next(&mut self) -> Result<Option<Vec<u8>>, String> {
        self.read_head().await?;
        loop {
            if let Some(message) = take_message(&mut self.buffer) {
                self.reply.messages.push(message.clone());
                return Ok(Some(message));
            }
            let Some(receiving) = &mut self.receiving else { return Ok(None) };
            match receiving.frame().await {
                None => self.receiving = None,
                Some(Err(error)) => return Err(super::story(&error)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(frame) => self.reply.trailers = frame.into_trailers().ok(),
                },
            }
        }
    }

    async fn read_head(&mut self) -> Result<(), String> {
        let Some(head) = &mut self.head else { return Ok(()) };
        let response = head.await.map_err(|error| error.to_string());
        self.head = None;
        let (parts, body) = response??.into_parts();
        self.reply.status = parts.status.as_u16();
        self.reply.headers = parts.headers;
        self.receiving = Some(body);
        Ok(())
    }

    /// Ends this direction and reads the other to its end.
    pub async fn finish(mut self) -> Reply {
        self.finish_sending();
        loop {
            let next = within(DEADLINE, "the end of a call", self.try_next()).await;
            match next {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => panic!("the call broke off: {error}"),
            }
        }
        let Reply { status, headers, messages, trailers, .. } = self.reply;
        Reply::new(status, headers, messages, trailers)
    }

    /// Breaks the call off: the server sees RST_STREAM, with CANCEL before a response head and
    /// INTERNAL_ERROR after it.
    pub fn cancel(self) {
        if let Some(head) = &self.head {
            head.abort();
        }
        if let Some(sending) = &self.sending {
            sending.send(Err(Cancelled)).ok();
        }
    }
}

/// Why a request body ends that must not end well.
#[derive(Debug)]
struct Cancelled;

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the test cancelled the call")
    }
}

impl Error for Cancelled {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        client,
        h2up::{H2Upstream, Mode},
    };

    #[tokio::test]
    async fn unary_calls() {
        let upstream = H2Upstream::start(Mode::GrpcUnary);
        let mut grpc = client::grpc(upstream.addr()).await.with("x-who", "me");
        let reply = grpc.unary("/pkg.Echo/Say", b"hello").await;
        assert_eq!((reply.status, reply.code), (200, Some(0)));
        assert_eq!(reply.messages, [b"hello"]);
        let request = &upstream.wait_for(1).await[0];
        assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/pkg.Echo/Say"));
        assert_eq!((request.header("te"), request.header("x-who")), (Some("trailers"), Some("me")));
        assert_eq!(unframe(&request.body), [b"hello"]);

        upstream.set(Mode::GrpcError { code: 7, message: "not you".to_owned() });
        let reply = grpc.unary("/pkg.Echo/Say", b"").await;
        assert_eq!((reply.code, reply.message.as_deref()), (Some(7), Some("not you")));
        assert!(reply.trailers.is_none() && reply.messages.is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn calls_in_both_directions() {
        let upstream = H2Upstream::start(Mode::GrpcBidi);
        let mut grpc = client::grpc(upstream.addr()).await;
        let mut call = grpc.bidi("/pkg.Echo/Chat").await;
        for text in [&b"one"[..], b"two"] {
            call.send(text).await;
            assert_eq!(call.next().await.unwrap(), text);
        }
        call.send(b"three").await;
        let reply = call.finish().await;
        assert_eq!((reply.messages.len(), reply.code), (3, Some(0)));
        assert!(upstream.wait_for(1).await[0].complete);
    }

    #[tokio::test]
    async fn a_cancelled_call_is_reset() {
        let upstream = H2Upstream::start(Mode::Silent);
        let mut grpc = client::grpc(upstream.addr()).await;
        let mut call = grpc.bidi("/pkg.Echo/Chat").await;
        call.send(b"one").await;
        upstream.wait_for_begun(1).await;
        call.cancel();
        upstream.wait_for_resets(1).await;

        upstream.set(Mode::GrpcBidi);
        let mut call = grpc.bidi("/pkg.Echo/Chat").await;
        call.send(b"one").await;
        assert!(call.next().await.is_some());
        call.cancel();
        assert_eq!(upstream.wait_for_resets(2).await[1].stream, 3);
        assert!(upstream.wait_for(2).await.iter().all(|request| !request.complete));
    }

    #[test]
    fn frames_of_messages() {
        assert_eq!(&*frame(b"ab"), [0, 0, 0, 0, 2, b'a', b'b']);
        let two = [frame(b"ab"), frame(b"")].concat();
        assert_eq!(unframe(&two), [b"ab".to_vec(), Vec::new()]);
        assert!(unframe(&two[..6]).is_empty());
    }
}
