//! How an answer is written into the answer to its batch: a JSON body as it is, a text as a string, and
//! anything else in Base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, SET_COOKIE};
use http::{HeaderMap, HeaderName};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::item::Done;
use crate::base::hop;

/// `{"id": ..., "status": ..., "headers": {...}, "body": ...}`.
pub(super) fn object(id: &str, done: &Done) -> String {
    let headers = Value::Object(headers(&done.headers));
    let status = done.status.as_u16();
    let (body, encoding) = body(done);
    // An id has no characters that would have to be escaped.
    format!(r#"{{"id":"{id}","status":{status},"headers":{headers},"body":{body}{encoding}}}"#)
}

/// The same on one line. What breaks lines in JSON is blank, and never within a string.
pub(super) fn line(id: &str, done: &Done) -> String {
    let mut line = object(id, done).replace(['\n', '\r'], " ");
    line.push('\n');
    line
}

/// All but what is about a connection. A field that is there more than once is a list of its values.
fn headers(fields: &HeaderMap) -> Map<String, Value> {
    let mut out = Map::new();
    let about = |name: &HeaderName| {
        *name != CONTENT_LENGTH
            && *name != http::header::DATE
            && hop::index(name.as_str()).is_none()
    };
    for name in fields.keys().filter(|name| about(name)) {
        let texts = fields.get_all(name).iter();
        let mut texts: Vec<Value> =
            texts.map(|value| String::from_utf8_lossy(value.as_bytes()).into()).collect();
        let alone = texts.len() == 1 && *name != SET_COOKIE;
        let value = if alone { texts.pop().unwrap_or_default() } else { texts.into() };
        out.insert(name.as_str().to_owned(), value);
    }
    out
}

/// The body as JSON, and a further member that says how it is encoded.
fn body(done: &Done) -> (String, &'static str) {
    if done.body.is_empty() {
        return ("null".to_owned(), "");
    }
    let text = std::str::from_utf8(&done.body).ok();
    let Some(text) = text.filter(|_| !done.headers.contains_key(CONTENT_ENCODING)) else {
        return (Value::from(STANDARD.encode(&done.body)).to_string(), r#","encoding":"base64""#);
    };
    let kind = done.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is_json = kind.is_some_and(|kind| {
        let kind = kind.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/json") || kind.ends_with("+json")
    });
    if is_json && serde_json::from_str::<IgnoredAny>(text).is_ok() {
        return (text.trim().to_owned(), "");
    }
    (Value::from(text).to_string(), "")
}
