//! Gives each request a trace and an id, or continues those a trusted peer sent. Writes `traceparent`,
//! `X-Trace-Id`, `X-Span-Id` and the request id for the service, and the trace id and request id for
//! the client.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_engine::trace::{LENGTH, PARENT_ID, TRACE_ID, TraceParent};

use super::{Flow, Hooks};
use crate::base::body::Body;
use crate::base::cx::{Cx, Trace};
use crate::base::fault::Fault;
use crate::base::yaml::Place;
use crate::parts::env::{Env, Owner};

mod snowflake;

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
static X_TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");
static X_SPAN_ID: HeaderName = HeaderName::from_static("x-span-id");
/// Longest id taken over from a peer.
const MAX_ID: usize = 64;

/// Names every request: a trace (W3C Trace Context) and a request id.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The header of the request id.
    #[serde(default = "default_header")]
    header: String,
    /// What new ids look like.
    #[serde(default)]
    form: Form,
    /// Whether ids and traces that clients send are continued. Off, only trusted proxies' are.
    #[serde(default)]
    trust_clients: bool,
}

fn default_header() -> String {
    "X-Request-Id".to_owned()
}

/// Forms of request ids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Form {
    /// The trace id: 32 hex digits.
    #[default]
    W3c,
    /// UUID version 7 (RFC 9562), ordered by time.
    Uuidv7,
    /// A 63-bit number ordered by time: 41 bits of milliseconds, 10 of node, 12 of sequence.
    Snowflake,
}

impl Config {
    pub(crate) fn build(&self, at: &Place<'_>, _: &Owner, env: &mut Env<'_>) -> Option<RequestId> {
        let Ok(header) = HeaderName::try_from(self.header.as_str()) else {
            env.problems
                .error(&at.field("header"), format!("`{}` is not a header name", self.header));
            return None;
        };
        let node = env.retained.cell("snowflake", snowflake::Node::new);
        Some(RequestId { header, form: self.form, trust_clients: self.trust_clients, node })
    }
}

#[derive(Debug)]
pub(crate) struct RequestId {
    header: HeaderName,
    form: Form,
    trust_clients: bool,
    node: std::sync::Arc<snowflake::Node>,
}

impl Hooks for RequestId {
    async fn on_request(&self, cx: &mut Cx, head: &mut Parts) -> Result<Flow, Fault> {
        let trusted = self.trust_clients || cx.peer_trusted;
        let (headers, within) = (&mut head.headers, cx.trace);
        let continued = trusted.then(|| continued(headers)).flatten();
        let trace = continued.unwrap_or_else(|| {
            // What others noted about a trace does not belong to a new one (Trace Context, 3.3.1).
            headers.remove(&TRACESTATE);
            // A call of a batch belongs to the batch's trace.
            within.unwrap_or_else(Trace::random)
        });
        cx.trace = Some(trace);
        let taken = trusted.then(|| usable(headers.get(&self.header))).flatten();
        let texts = Texts::of(trace);
        let id = match taken {
            Some(id) => Some(id),
            None => self.new_id(texts.as_ref()),
        };
        if let Some(id) = &id {
            headers.insert(self.header.clone(), id.clone());
        }
        cx.request_id = id;
        if let Some(texts) = texts {
            headers.insert(&TRACEPARENT, texts.parent);
            headers.insert(&X_SPAN_ID, texts.span);
            headers.insert(&X_TRACE_ID, texts.trace.clone());
            cx.trace_text = Some(texts.trace);
        }
        Ok(Flow::Next)
    }

    fn on_response(&self, cx: &mut Cx, response: &mut Response<Body>) {
        let headers = response.headers_mut();
        if let Some(trace) = cx.trace_text.take() {
            headers.insert(&X_TRACE_ID, trace);
        }
        if let Some(id) = cx.request_id.take() {
            headers.insert(self.header.clone(), id);
        }
    }
}

impl RequestId {
    fn new_id(&self, texts: Option<&Texts>) -> Option<HeaderValue> {
        match self.form {
            Form::W3c => texts.map(|texts| texts.trace.clone()),
            Form::Uuidv7 => {
                let mut buffer = uuid::Uuid::encode_buffer();
                let text = uuid::Uuid::now_v7().hyphenated().encode_lower(&mut buffer);
                HeaderValue::from_str(text).ok()
            }
            Form::Snowflake => Some(HeaderValue::from(self.node.next())),
        }
    }
}

/// The trace a peer sent: `traceparent`, else `X-Trace-Id` of 32 hex digits. The gateway is a new
/// span in it.
fn continued(headers: &HeaderMap) -> Option<Trace> {
    let span_id = fastrand::u64(1..).to_be_bytes();
    let mut parents = headers.get_all(&TRACEPARENT).iter();
    if let (Some(parent), None) = (parents.next(), parents.next())
        && let Some(parent) = parent.to_str().ok().and_then(TraceParent::parse)
    {
        return Some(Trace { trace_id: parent.trace_id, span_id, flags: parent.flags });
    }
    let text = headers.get(&X_TRACE_ID)?.to_str().ok()?;
    let parsed = (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok()).flatten()?;
    (parsed != 0).then(|| Trace { trace_id: parsed.to_be_bytes(), span_id, flags: 1 })
}

/// An id that is short and plain enough to be logged and passed on as it is.
fn usable(value: Option<&HeaderValue>) -> Option<HeaderValue> {
    let value = value?;
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    ((1..=MAX_ID).contains(&value.len()) && value.as_bytes().iter().all(plain))
        .then(|| value.clone())
}

/// A trace's fields, all cut from one text.
struct Texts {
    parent: HeaderValue,
    trace: HeaderValue,
    span: HeaderValue,
}

impl Texts {
    fn of(trace: Trace) -> Option<Self> {
        let parent =
            TraceParent { trace_id: trace.trace_id, parent_id: trace.span_id, flags: trace.flags };
        let mut buffer = [0_u8; LENGTH];
        parent.write(&mut buffer);
        let text = Bytes::copy_from_slice(&buffer);
        let part = |range| HeaderValue::from_maybe_shared(text.slice(range)).ok();
        Some(Self { parent: part(0..LENGTH)?, trace: part(TRACE_ID)?, span: part(PARENT_ID)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_ids_are_taken_over() {
        let value = |text: &[u8]| HeaderValue::from_bytes(text).unwrap();
        assert!(usable(Some(&value(b"abc-1.2_3"))).is_some());
        for bad in [&b"a b"[..], b"a\"b", b"", &[b'a'; 65], b"\xff"] {
            assert!(usable(Some(&value(bad))).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn the_texts_of_a_trace_are_parts_of_one() {
        let trace = Trace::random();
        let texts = Texts::of(trace).unwrap();
        assert_eq!(texts.trace, trace.trace_hex().as_str());
        assert_eq!(texts.span, trace.span_hex().as_str());
        let read = TraceParent::parse(texts.parent.to_str().unwrap()).unwrap();
        assert_eq!((read.trace_id, read.parent_id), (trace.trace_id, trace.span_id));
    }

    #[test]
    fn a_bad_traceparent_starts_a_new_trace() {
        let mut headers = HeaderMap::new();
        headers.insert(&TRACEPARENT, HeaderValue::from_static("00-zz-1-01"));
        assert!(continued(&headers).is_none());
        headers.insert(
            &TRACEPARENT,
            HeaderValue::from_static("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"),
        );
        let trace = continued(&headers).unwrap();
        assert_eq!(trace.trace_hex().as_str(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(trace.flags, 0);
        assert_ne!(trace.span_hex().as_str(), "00f067aa0ba902b7");
    }
}
