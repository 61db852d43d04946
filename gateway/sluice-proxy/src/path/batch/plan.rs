//! What a batch asks for, read and checked as a whole before any call is made: a batch that is wrong
//! somewhere does nothing.

use std::collections::{BTreeMap, HashMap};

use http::{HeaderName, HeaderValue, Method};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::references::{self, MEMBER, Path, Reference};
use super::weight;
use crate::parts::batch::Rules;

/// Longest name of a call.
const MAX_ID: usize = 64;
/// Fields that a call has of its own, and bytes of one.
const MAX_FIELDS: usize = 16;
const MAX_FIELD: usize = 4 * 1024;
/// How many times its own largest length a text may weigh that is kept as a value.
pub(super) const WEIGHT: usize = 16;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    requests: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    id: String,
    #[serde(default)]
    method: Option<String>,
    path: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Option<Box<RawValue>>,
}

/// The calls, which refer to each other by their places.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) calls: Vec<Call>,
    pub(super) places: HashMap<String, usize>,
}

/// A call.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) id: String,
    pub(super) method: Method,
    pub(super) path: Path,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Option<Content>,
    /// Calls whose answers it needs.
    pub(super) needs: Vec<usize>,
    /// Whether another call needs its answer.
    pub(super) needed: bool,
}

/// The body of a call.
#[derive(Debug)]
pub(super) enum Content {
    /// Sent byte by byte as it is written.
    Plain(Box<RawValue>),
    /// Has references.
    Of(Value),
}

/// What is wrong, and with which call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    why: &'static str,
    id: Option<String>,
}

impl Wrong {
    /// For `data` of the refusal.
    pub(super) fn told(&self) -> String {
        serde_json::json!({ "why": self.why, "id": self.id }).to_string()
    }
}

const fn wrong(why: &'static str) -> Wrong {
    Wrong { why, id: None }
}

/// What is no JSON by its own word.
pub(super) const NO_JSON: Wrong = wrong("content_type");

/// Reads a batch.
pub(super) fn read(text: &[u8], rules: &Rules) -> Result<Plan, Wrong> {
    let asked: Asked = serde_json::from_slice(text).map_err(|_| wrong("not_understood"))?;
    let count = asked.requests.len();
    if !(1..=rules.max_items).contains(&count) {
        return Err(wrong(if count == 0 { "no_requests" } else { "too_many_requests" }));
    }
    let mut places = HashMap::with_capacity(count);
    for (at, written) in asked.requests.iter().enumerate() {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let id = &written.id;
        if !(1..=MAX_ID).contains(&id.len()) || !id.bytes().all(fits) {
            return Err(wrong("id_invalid"));
        }
        if places.insert(id.clone(), at).is_some() {
            return Err(Wrong { why: "id_twice", id: Some(id.clone()) });
        }
    }
    let mut calls = Vec::with_capacity(count);
    let mut room = rules.max_body.saturating_mul(WEIGHT);
    for written in asked.requests {
        let id = written.id.clone();
        let call = call(written, &places, rules, &mut room);
        calls.push(call.map_err(|why| Wrong { why, id: Some(id) })?);
    }
    let needed: Vec<usize> = calls.iter().flat_map(|call| call.needs.iter().copied()).collect();
    for at in needed {
        calls.get_mut(at).into_iter().for_each(|call| call.needed = true);
    }
    match in_circle(&calls) {
        Some(call) => Err(Wrong { why: "reference_circle", id: Some(call.id.clone()) }),
        None => Ok(Plan { calls, places }),
    }
}

fn call(
    written: Written,
    places: &HashMap<String, usize>,
    rules: &Rules,
    room: &mut usize,
) -> Result<Call, &'static str> {
    let method = match written.method.as_deref() {
        None => Method::GET,
        Some(name) => Method::from_bytes(name.as_bytes()).map_err(|_| "method_invalid")?,
    };
    let path = Path::parse(&written.path)?;
    if written.headers.len() > MAX_FIELDS {
        return Err("header_refused");
    }
    let mut headers = Vec::with_capacity(written.headers.len());
    for (name, value) in &written.headers {
        let name = HeaderName::try_from(name.as_str()).map_err(|_| "header_refused")?;
        let value = HeaderValue::try_from(value.as_str()).map_err(|_| "header_refused")?;
        let again = headers.iter().any(|(known, _)| *known == name);
        if again || value.len() > MAX_FIELD || !rules.is_own(&name) {
            return Err("header_refused");
        }
        headers.push((name, value));
    }
    let body = match written.body {
        None => None,
        // A body that does not even hold the word has no references, and stays as it is.
        Some(raw) if !raw.get().contains(MEMBER) => Some(Content::Plain(raw)),
        Some(raw) => {
            let left = room.checked_sub(weight::of(raw.get().as_bytes()));
            *room = left.ok_or("body_too_heavy")?;
            Some(Content::Of(serde_json::from_str(raw.get()).map_err(|_| "not_understood")?))
        }
    };
    let mut all: Vec<Reference> = path.references().cloned().collect();
    if let Some(Content::Of(value)) = &body {
        references::in_body(value, &mut all)?;
    }
    let mut needs = Vec::new();
    for reference in &all {
        let at = *places.get(&reference.id).ok_or("reference_unknown")?;
        if !needs.contains(&at) {
            needs.push(at);
        }
    }
    Ok(Call { id: written.id, method, path, headers, body, needs, needed: false })
}

/// A call that could never be made, because it needs an answer that needs its own.
fn in_circle(calls: &[Call]) -> Option<&Call> {
    let mut made = vec![false; calls.len()];
    loop {
        let mut more = false;
        for (at, call) in calls.iter().enumerate() {
            let is_made = |at: &usize| made.get(*at).copied().unwrap_or(false);
            if !is_made(&at) && call.needs.iter().all(is_made) {
                made.get_mut(at).into_iter().for_each(|made| *made = true);
                more = true;
            }
        }
        if !more {
            return calls.iter().zip(made).find(|(_, made)| !made).map(|(call, _)| call);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::yaml::Place;
    use crate::parts::batch::Config;
    use crate::parts::env::tests::{nothing, with_env};

    fn rules() -> Rules {
        let node = nothing();
        with_env(|env| Config::default().build(&Place::root(&node), env).unwrap())
    }

    fn why(text: &str) -> &'static str {
        read(text.as_bytes(), &rules()).err().map_or("", |wrong| wrong.why)
    }

    #[test]
    fn a_batch_is_checked_as_a_whole() {
        let one = |call: &str| why(&format!(r#"{{"requests":[{call}]}}"#));
        assert_eq!(one(r#"{"id":"a","path":"/"}"#), "");
        assert_eq!(one(r#"{"id":"a","path":"/","headers":{"Accept":"x"},"body":{"b":1}}"#), "");
        for (call, expected) in [
            ("", "no_requests"),
            ("1", "not_understood"),
            (r#"{"id":"a","path":"/","extra":1}"#, "not_understood"),
            (r#"{"id":"","path":"/"}"#, "id_invalid"),
            (r#"{"id":"a b","path":"/"}"#, "id_invalid"),
            (r#"{"id":"a","path":"/"},{"id":"a","path":"/"}"#, "id_twice"),
            (r#"{"id":"a","path":"b"}"#, "path_invalid"),
            (r#"{"id":"a","path":"http://x/"}"#, "path_invalid"),
            (r#"{"id":"a","method":"G T","path":"/"}"#, "method_invalid"),
            (r#"{"id":"a","path":"/","headers":{"Authorization":"x"}}"#, "header_refused"),
            (r#"{"id":"a","path":"/","headers":{"X-Forwarded-For":"x"}}"#, "header_refused"),
            (r#"{"id":"a","path":"/","headers":{"Accept":"a\nb"}}"#, "header_refused"),
            (r#"{"id":"a","path":"/","headers":{"Accept":"a","accept":"b"}}"#, "header_refused"),
            (r#"{"id":"a","path":"/{b#/x}"}"#, "reference_unknown"),
            (r#"{"id":"a","path":"/","body":{"$ref":"b#/x"}}"#, "reference_unknown"),
            (r#"{"id":"a","path":"/","body":{"$ref":1}}"#, "reference_invalid"),
            (r#"{"id":"a","path":"/{a#/x}"}"#, "reference_circle"),
            (
                r#"{"id":"a","path":"/{b#}"},{"id":"b","path":"/{c#}"},{"id":"c","path":"/{a#}"}"#,
                "reference_circle",
            ),
        ] {
            assert_eq!(one(call), expected, "{call}");
        }
        let many = vec![r#"{"id":"a","path":"/"}"#; 21].join(",");
        assert_eq!(one(&many), "too_many_requests");
        assert_eq!(why("[]"), "not_understood");
        assert_eq!(why(&"[".repeat(100_000)), "not_understood");
    }

    /// 240 KiB of `{"a":1}` took 20 MiB for as long as the batch went on.
    #[test]
    fn a_body_of_many_small_values_that_has_references_is_refused() {
        let body = |count: usize| {
            let many = vec![r#"{"a":1}"#; count].join(",");
            why(&format!(r#"{{"requests":[{{"id":"a","path":"/","body":[{many},"$ref"]}}]}}"#))
        };
        assert_eq!((body(30_000), body(2000)), ("body_too_heavy", ""));
        let halves = vec![r#"{"a":1}"#; 4000].join(",");
        let two =
            ["a", "b"].map(|id| format!(r#"{{"id":"{id}","path":"/","body":["$ref",{halves}]}}"#));
        assert_eq!(why(&format!(r#"{{"requests":[{}]}}"#, two.join(","))), "body_too_heavy");
        // What has no references stays a text, and is as heavy as that.
        let plain = vec![r#"{"a":1}"#; 30_000].join(",");
        assert_eq!(
            why(&format!(r#"{{"requests":[{{"id":"a","path":"/","body":[{plain}]}}]}}"#)),
            ""
        );
    }

    #[test]
    fn calls_know_whom_they_need() {
        let text = r#"{"requests":[{"id":"a","path":"/{b#/x}/{b#/y}"},{"id":"b","path":"/"}]}"#;
        let plan = read(text.as_bytes(), &rules()).unwrap();
        assert_eq!(plan.calls[0].needs, [1]);
        assert!(plan.calls[1].needed && !plan.calls[0].needed);
    }
}
