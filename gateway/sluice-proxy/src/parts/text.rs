//! Texts with `{…}` in them: header values, path templates, locations. What a name stands for is
//! decided when the config is compiled; at run time only the pieces are joined.

use http::HeaderName;
use http::request::Parts;
use sluice_engine::template::{Part, Template};

use super::env::{Env, Owner};
use crate::base::cx::Cx;
use crate::base::yaml::Place;

/// What a `{name}` stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Capture(usize),
    ClientIp,
    Host,
    Method,
    Path,
    TraceId,
    Scheme,
    Claim(String),
    Header(HeaderName),
}

/// A compiled text.
#[derive(Debug)]
pub(crate) struct Text(Template<Value>);

impl Text {
    /// Compiles `text` for `owner`, or records what it does not know.
    pub(crate) fn build(
        text: &str,
        at: &Place<'_>,
        owner: &Owner,
        env: &mut Env<'_>,
    ) -> Option<Self> {
        match Template::parse(text, |name| Value::resolve(name, owner)) {
            Ok(template) => Some(Self(template)),
            Err(error) => {
                let captures = owner.captures.iter().map(|c| format!("{{{c}}}, "));
                env.problems.error(at, format!("{} (at character {})", error.message, error.offset + 1)).help(
                    format!(
                        "known here: {}{{client_ip}}, {{host}}, {{method}}, {{path}}, {{scheme}}, {{trace_id}}, \
                         {{claim.NAME}}, {{header.NAME}}; a brace itself is written twice",
                        captures.collect::<String>()
                    ),
                );
                None
            }
        }
    }

    /// The text for this request.
    pub(crate) fn render(&self, cx: &mut Cx, head: &Parts) -> String {
        let mut out = String::with_capacity(64);
        self.0.render(&mut out, |value, out| value.write(cx, head, out));
        out
    }

    /// The text itself, if it is the same for every request.
    pub(crate) fn literal(&self) -> Option<&str> {
        match self.0.parts() {
            [] => Some(""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }
}

impl Value {
    fn resolve(name: &str, owner: &Owner) -> Option<Self> {
        if let Some(at) = owner.captures.iter().position(|capture| capture == name) {
            return Some(Self::Capture(at));
        }
        if let Some(claim) = name.strip_prefix("claim.") {
            return Some(Self::Claim(claim.to_owned()));
        }
        if let Some(header) = name.strip_prefix("header.") {
            return HeaderName::try_from(header).ok().map(Self::Header);
        }
        Some(match name {
            "client_ip" => Self::ClientIp,
            "host" => Self::Host,
            "method" => Self::Method,
            "path" => Self::Path,
            "scheme" => Self::Scheme,
            "trace_id" => Self::TraceId,
            _ => return None,
        })
    }

    fn write(&self, cx: &mut Cx, head: &Parts, out: &mut String) {
        use std::fmt::Write as _;
        match self {
            Self::Capture(at) => out.push_str(cx.capture(*at)),
            Self::ClientIp => {
                let _ = write!(out, "{}", cx.client);
            }
            Self::Host => out.push_str(cx.host_name()),
            Self::Method => out.push_str(head.method.as_str()),
            Self::Path => out.push_str(head.uri.path()),
            Self::Scheme => out.push_str(if cx.peer.secure { "https" } else { "http" }),
            Self::TraceId => out.push_str(cx.trace().trace_hex().as_str()),
            Self::Claim(name) => {
                if let Some(claim) = cx.claim(name) {
                    push_claim(claim, out);
                }
            }
            Self::Header(name) => {
                if let Some(value) = head.headers.get(name).and_then(|value| value.to_str().ok()) {
                    out.push_str(value);
                }
            }
        }
    }
}

/// A claim as text: strings as they are, everything else as JSON.
pub(crate) fn push_claim(claim: &serde_json::Value, out: &mut String) {
    match claim {
        serde_json::Value::String(text) => out.push_str(text),
        other => out.push_str(&other.to_string()),
    }
}
