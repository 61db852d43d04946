//! Sets, adds and removes header fields, towards the service and towards the client. Fields that
//! frame or route a message cannot be touched: they are the gateway's own.

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

use super::{Flow, Hooks};
use crate::base::body::Body;
use crate::base::cx::Cx;
use crate::base::fault::Fault;
use crate::base::secured::tells_certificate;
use crate::base::yaml::Place;
use crate::parts::env::{Env, Owner};
use crate::parts::text::Text;

/// Changes header fields of requests and answers. Values may hold `{captures}` and the like in
/// requests; in answers they are fixed texts.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Towards the service.
    #[serde(default)]
    request: Changes,
    /// Towards the client.
    #[serde(default)]
    response: Changes,
}

/// Changes in one direction, done in this order: remove, set, add.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Changes {
    /// Names to remove.
    #[serde(default)]
    remove: Vec<String>,
    /// Fields to set, replacing what is there.
    #[serde(default)]
    set: BTreeMap<String, String>,
    /// Fields to add beside what is there.
    #[serde(default)]
    add: BTreeMap<String, String>,
}

/// Fields no operator may change by hand.
pub(super) const OURS: [&str; 10] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
];

impl Config {
    pub(crate) fn build(
        &self,
        at: &Place<'_>,
        owner: &Owner,
        env: &mut Env<'_>,
    ) -> Option<Headers> {
        let request = self.request.build(&at.field("request"), owner, env);
        let response = self.response.build(&at.field("response"), owner, env);
        let (request, response) = (request?, response?);
        let place = at.field("response");
        let fixed = response.into_fixed();
        if fixed.is_none() {
            env.problems
                .error(&place, "answers can be given fixed texts only")
                .help("write a literal brace twice: {{ and }}");
        }
        Some(Headers { request, response: fixed? })
    }
}

impl Changes {
    fn build(&self, at: &Place<'_>, owner: &Owner, env: &mut Env<'_>) -> Option<Edits<Text>> {
        let mut edits = Edits { remove: Vec::new(), set: Vec::new(), add: Vec::new() };
        let mut whole = true;
        for (index, text) in self.remove.iter().enumerate() {
            match name(text, &at.field("remove").index(index), env) {
                Some(name) => edits.remove.push(name),
                None => whole = false,
            }
        }
        for (key, from, to) in
            [("set", &self.set, &mut edits.set), ("add", &self.add, &mut edits.add)]
        {
            for (header, text) in from {
                let at = at.field(key);
                let compiled = value(text, &at.field(header), owner, env);
                if tells_certificate(&header.to_ascii_lowercase()) {
                    let message =
                        format!("`{header}` tells of a client's certificate; only TLS knows that");
                    env.problems.error(&at.key(header), message);
                    whole = false;
                    continue;
                }
                match (name(header, &at.key(header), env), compiled) {
                    (Some(name), Some(text)) => to.push((name, text)),
                    _ => whole = false,
                }
            }
        }
        whole.then_some(edits)
    }
}

fn name(text: &str, at: &Place<'_>, env: &mut Env<'_>) -> Option<HeaderName> {
    match HeaderName::try_from(text) {
        Ok(name) if OURS.contains(&name.as_str()) => {
            env.problems.error(at, format!("`{text}` is set by the gateway and cannot be changed"));
            None
        }
        Ok(name) => Some(name),
        Err(_) => {
            env.problems.error(at, format!("`{text}` is not a header name"));
            None
        }
    }
}

fn value(text: &str, at: &Place<'_>, owner: &Owner, env: &mut Env<'_>) -> Option<Text> {
    if HeaderValue::try_from(text).is_err() {
        env.problems.error(at, "a header value cannot hold line breaks or control characters");
        return None;
    }
    Text::build(text, at, owner, env)
}

#[derive(Debug)]
pub(crate) struct Headers {
    request: Edits<Text>,
    response: Edits<HeaderValue>,
}

#[derive(Debug)]
struct Edits<V> {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, V)>,
    add: Vec<(HeaderName, V)>,
}

impl Edits<Text> {
    fn into_fixed(self) -> Option<Edits<HeaderValue>> {
        let fix = |list: Vec<(HeaderName, Text)>| {
            list.into_iter()
                .map(|(name, text)| Some((name, HeaderValue::try_from(text.literal()?).ok()?)))
                .collect::<Option<Vec<_>>>()
        };
        Some(Edits { remove: self.remove, set: fix(self.set)?, add: fix(self.add)? })
    }
}

impl Hooks for Headers {
    async fn on_request(&self, cx: &mut Cx, head: &mut Parts) -> Result<Flow, Fault> {
        for name in &self.request.remove {
            head.headers.remove(name);
        }
        for (name, text) in &self.request.set {
            match rendered(text, cx, head) {
                Some(value) => head.headers.insert(name.clone(), value),
                // A value that no field can hold came from the caller; without the field the
                // service sees less, with a repaired one it would see something never said.
                None => head.headers.remove(name),
            };
        }
        for (name, text) in &self.request.add {
            if let Some(value) = rendered(text, cx, head) {
                head.headers.append(name.clone(), value);
            }
        }
        Ok(Flow::Next)
    }

    fn on_response(&self, _: &mut Cx, response: &mut Response<Body>) {
        self.response.apply(response.headers_mut());
    }
}

impl Edits<HeaderValue> {
    fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name.clone(), value.clone());
        }
    }
}

fn rendered(text: &Text, cx: &mut Cx, head: &Parts) -> Option<HeaderValue> {
    HeaderValue::from_bytes(text.render(cx, head).as_bytes()).ok()
}
