//! One call of a batch: the request that is made of it, and its answer, as far as there is room for it.

use std::cell::Cell;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, SET_COOKIE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version};
use http_body_util::BodyExt as _;
use serde_json::Value;

use super::plan::{Call, Content};
use super::references::{self, Answers, Reference};
use crate::base::clock::{self, Moment};
use crate::base::cx::{Cx, Host, Peer, Trace};
use crate::base::fault::Fault;
use crate::base::inlet::Inlet;
use crate::base::respond;
use crate::lasting::telemetry::reasons::BatchItem;
use crate::path::pipeline;
use crate::path::record::Record;
use crate::path::worker::{View, Worker};

/// Fields of the batch that speak of the batch alone: its body, its cache, its signature, its connection.
const OF_THE_BATCH: [&str; 30] = [
    "accept",
    "accept-encoding",
    "content-digest",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "digest",
    "host",
    "idempotency-key",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "max-forwards",
    "range",
    "repr-digest",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "signature",
    "signature-input",
    "x-http-method",
    "x-http-method-override",
    "x-mp-sign",
];

/// What all calls of a batch share.
pub(super) struct Around {
    worker: Rc<Worker>,
    view: View,
    peer: Rc<Peer>,
    /// The fields of the batch that are every call's too.
    fields: HeaderMap,
    version: Version,
    trace: Trace,
    /// Who reads the answers.
    page: Page,
    /// When the batch ends.
    pub(super) until: Moment,
    /// Bytes of answers that there still is room for.
    left: Cell<usize>,
}

/// Whether a page in a browser has sent a batch. What its browser would keep from it, a batch keeps, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    No,
    /// Of this host, as far as one can see.
    Own,
    /// Of another origin, which the batch's own route lets in.
    Foreign,
}

/// A request that is ready.
pub(super) struct Made {
    head: Parts,
    body: Bytes,
}

/// A call that is over.
pub(super) struct Done {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    kind: BatchItem,
}

impl Around {
    /// `fields` are those that the client sent.
    pub(super) fn of(record: &mut Record, mut fields: HeaderMap, version: Version) -> Self {
        let names: Vec<HeaderName> = fields
            .keys()
            .filter(|name| {
                let name = name.as_str();
                OF_THE_BATCH.contains(&name) || name.starts_with("x-ca-")
            })
            .cloned()
            .collect();
        names.iter().for_each(|name| drop(fields.remove(name)));
        if let Some(host) = &record.cx.host {
            fields.insert(HOST, host.value().clone());
        }
        let rules = &record.view.batch;
        let ours = record.cx.started.after(rules.timeout);
        let until = record.cx.deadline.map_or(ours, |theirs| theirs.min(ours));
        let page = match &record.cx.origin {
            Some(origin) if !is_own(origin, record.cx.host.as_ref().map(Host::value)) => {
                Page::Foreign
            }
            // Browsers write it into every request; no script can.
            _ if fields.contains_key("sec-fetch-site") => Page::Own,
            _ => Page::No,
        };
        Self {
            worker: Rc::clone(&record.worker),
            peer: Rc::clone(&record.cx.peer),
            fields,
            version,
            trace: record.cx.trace(),
            page,
            until,
            left: Cell::new(rules.max_total),
            view: Rc::clone(&record.view),
        }
    }

    pub(super) fn parallel(&self) -> usize {
        self.view.batch.parallel
    }

    pub(super) fn max_answer(&self) -> usize {
        self.view.batch.max_answer
    }

    pub(super) fn count(&self, done: &Done) {
        self.worker.shard.batch_item(done.kind);
    }
}

/// Whether a page of this origin is one of this host. Its scheme is not looked at: who speaks TLS in front of
/// the gateway does not say so.
fn is_own(origin: &HeaderValue, host: Option<&HeaderValue>) -> bool {
    let Some((scheme, own)) = origin.to_str().ok().and_then(|origin| origin.split_once("://"))
    else {
        return false;
    };
    let port = if scheme == "https" { ":443" } else { ":80" };
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    own.eq_ignore_ascii_case(host.strip_suffix(port).unwrap_or(host))
}

/// The request of a call, with what it takes from other answers, or its refusal.
pub(super) fn prepare(
    call: &Call,
    answers: &dyn Answers,
    around: &Around,
) -> Result<Made, Box<Done>> {
    let nothing = |reference: Reference| {
        let told = serde_json::json!({ "ref": reference.to_string() }).to_string();
        Box::new(Done::refused(around, Fault::BatchSkipped, Some(told)))
    };
    let path = call.path.fill(answers).map_err(nothing)?;
    let body = match &call.body {
        None => Bytes::new(),
        Some(Content::Plain(raw)) => Bytes::copy_from_slice(raw.get().as_bytes()),
        Some(Content::Of(value)) => {
            let mut left = around.view.batch.max_body;
            let filled = references::fill_body(value, answers, &mut left).map_err(nothing)?;
            Bytes::from(filled.to_string())
        }
    };
    let mut head = Request::new(()).into_parts().0;
    head.method = call.method.clone();
    head.version = around.version;
    head.uri = match PathAndQuery::try_from(path) {
        Ok(target) => Uri::from(target),
        Err(_) => return Err(Box::new(Done::refused(around, Fault::TargetInvalid, None))),
    };
    head.headers.clone_from(&around.fields);
    if call.body.is_some() {
        head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    for (name, value) in &call.headers {
        head.headers.insert(name.clone(), value.clone());
    }
    Ok(Made { head, body })
}

/// Makes a call.
pub(super) async fn make(around: &Around, made: Made) -> Done {
    let inlet = match Inlet::holding(made.body) {
        Ok(inlet) => inlet,
        Err(fault) => return Done::refused(around, fault, None),
    };
    // A span of its own in the trace of the batch.
    let span_id = fastrand::u64(1..).to_be_bytes();
    let call = pipeline::Call {
        head: made.head,
        body: inlet,
        trace: Trace { span_id, ..around.trace },
        foreign: around.page == Page::Foreign,
        until: around.until,
    };
    let bodiless = call.head.method == Method::HEAD;
    let (worker, view) = (Rc::clone(&around.worker), Rc::clone(&around.view));
    let answer = pipeline::call(worker, view, Rc::clone(&around.peer), call).await;
    let (mut head, mut body) = answer.into_parts();
    if around.page != Page::No {
        // No script may read it (Fetch standard, section 2.2.6).
        head.headers.remove(SET_COOKIE);
    }
    let mut bytes = BytesMut::new();
    while let Some(frame) = if bodiless { None } else { body.frame().await } {
        let Ok(frame) = frame else {
            return Done::refused(around, Fault::UpstreamReset, None);
        };
        let Ok(data) = frame.into_data() else { continue };
        let left = around.left.get().checked_sub(data.len());
        match left.filter(|_| bytes.len() + data.len() <= around.view.batch.max_answer) {
            Some(left) => around.left.set(left),
            None => {
                around.left.set(around.left.get() + bytes.len());
                return Done::refused(around, Fault::AnswerTooLarge, None);
            }
        }
        bytes.extend_from_slice(&data);
    }
    let kind = match head.status.as_u16() {
        ..400 => BatchItem::Ok,
        400..500 => BatchItem::ClientError,
        _ => BatchItem::ServerError,
    };
    Done { status: head.status, headers: head.headers, body: bytes.freeze(), kind }
}

impl Done {
    /// An answer of the batch itself, in the shape of all refusals.
    pub(super) fn refused(around: &Around, fault: Fault, told: Option<String>) -> Self {
        let mut cx =
            Cx::begin(Rc::clone(&around.peer), clock::now(), around.view.settings.envelope);
        cx.trace = Some(around.trace);
        cx.detail = told.map(Into::into);
        let (head, mut body) = respond::render(fault, &mut cx).into_parts();
        // It is in memory whole.
        let frame = body.frame().now_or_never().flatten();
        let bytes = frame.and_then(Result::ok).and_then(|frame| frame.into_data().ok());
        let kind = match fault {
            Fault::BatchSkipped => BatchItem::Skipped,
            Fault::DeadlineExceeded => BatchItem::Timeout,
            Fault::AnswerTooLarge => BatchItem::TooLarge,
            _ => BatchItem::ServerError,
        };
        Self { status: head.status, headers: head.headers, body: bytes.unwrap_or_default(), kind }
    }

    /// What others may refer to: the body of a good answer, if it is JSON.
    pub(super) fn value(&self) -> Option<Value> {
        let good = self.status.is_success() && !self.headers.contains_key(CONTENT_ENCODING);
        good.then(|| serde_json::from_slice(&self.body).ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_this_host_is_told_from_others() {
        let own = |origin: &'static str, host: &'static str| {
            let host = HeaderValue::from_static(host);
            is_own(&HeaderValue::from_static(origin), Some(&host))
        };
        assert!(own("https://a.example", "a.example") && own("https://A.example", "a.example:443"));
        assert!(own("http://a.example:8080", "a.example:8080"));
        for (origin, host) in [
            ("https://b.example", "a.example"),
            ("https://a.example:8443", "a.example"),
            ("https://a.example", "a.example:80"),
            ("https://evila.example", "a.example"),
            ("null", "null"),
            ("", ""),
        ] {
            assert!(!own(origin, host), "{origin} {host}");
        }
        assert!(!is_own(&HeaderValue::from_static("https://a.example"), None));
    }
}
