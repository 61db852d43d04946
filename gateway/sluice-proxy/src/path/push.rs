//! A message that the platform has pushed, on its way to the service: read, opened, let through once, and
//! what the platform is told of it.
//!
//! The one rule: a message counts as handled when the service has said so. The platform comes again with what
//! was not, and must find nobody who says that it came before.

use std::time::Duration;

use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING,
};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Response, Uri};
use http_body_util::{BodyExt as _, Limited};

use super::builtin::read_body;
use super::record::{Inbound, Record};
use crate::base::body::Body;
use crate::base::clock;
use crate::base::fault::Fault;
use crate::base::inlet::Inlet;
use crate::parts::filters::message_push::{Claim, Message, MessagePush};

/// Of a service's answer so much is read, so that its connection can be kept, for so long.
const ANSWER: usize = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(1);

/// What a pushed message leads to.
pub(super) enum Pushed {
    /// The service gets it.
    New(Message),
    /// The platform is answered.
    Answer(Response<Body>),
}

/// Reads and opens a message, and puts what it says in its place.
pub(super) async fn open(
    push: &MessagePush,
    record: &mut Record,
    inbound: &mut Inbound,
) -> Result<Pushed, Fault> {
    let body = read_body(record, inbound, push.most).await?;
    let message = push.open(inbound.head.uri.query(), body)?;
    match push.claim(&message).await {
        Claim::Ours => {}
        Claim::Done => return Ok(Pushed::Answer(success())),
        Claim::UnderWay => {
            record.cx.retry_after = Some(Duration::from_secs(5));
            return Err(Fault::PushUnderWay);
        }
    }
    let head = &mut inbound.head;
    // Trailers and codings belonged to the bytes that came.
    for name in [CONTENT_ENCODING, TRANSFER_ENCODING] {
        head.headers.remove(name);
    }
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(message.body.len()));
    without_signature(head)?;
    inbound.body = Some(Inlet::holding(message.body.clone())?);
    Ok(Pushed::New(message))
}

/// Notes what the service made of it, and tells the platform.
pub(super) async fn close(
    push: &MessagePush,
    message: &Message,
    record: &mut Record,
    answer: Result<Response<Body>, Fault>,
) -> Result<Response<Body>, Fault> {
    let taken = answer.as_ref().is_ok_and(|answer| answer.status().is_success());
    push.settle(message, taken).await;
    match answer {
        Ok(answer) if taken && push.replies() => {
            let rest = Limited::new(answer.into_body(), ANSWER).collect();
            let limit = clock::deadline(clock::now().after(PATIENCE));
            let read = tokio::time::timeout_at(limit, rest).await;
            // What was not read to its end stands in the way of the next answer.
            record.unusable |= !matches!(read, Ok(Ok(_)));
            Ok(success())
        }
        answer => answer,
    }
}

/// The service need not verify again, and could not decrypt.
fn without_signature(head: &mut Parts) -> Result<(), Fault> {
    const OURS: [&str; 5] = ["signature", "msg_signature", "timestamp", "nonce", "encrypt_type"];
    let Some(query) = head.uri.query() else { return Ok(()) };
    let name = |pair: &&str| !OURS.contains(&pair.split('=').next().unwrap_or_default());
    let rest = query.split('&').filter(name).collect::<Vec<_>>().join("&");
    let path = head.uri.path();
    let target = if rest.is_empty() { path.to_owned() } else { format!("{path}?{rest}") };
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(target).map_err(|_| Fault::PathInvalid)?);
    head.uri = Uri::from_parts(parts).map_err(|_| Fault::PathInvalid)?;
    Ok(())
}

fn success() -> Response<Body> {
    let mut answer = Response::new(Body::full("success"));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_verified_is_taken_out_of_the_query() {
        let query =
            "signature=a&timestamp=1&nonce=2&openid=o&encrypt_type=aes&msg_signature=b&x=%20";
        let request = http::Request::post(format!("/push?{query}")).body(()).unwrap();
        let (mut head, ()) = request.into_parts();
        without_signature(&mut head).unwrap();
        assert_eq!(head.uri, "/push?openid=o&x=%20");
        let (mut head, ()) = http::Request::post("/push?nonce=2").body(()).unwrap().into_parts();
        without_signature(&mut head).unwrap();
        assert_eq!(head.uri, "/push");
    }
}
