//! Answers browsers' preflights and marks answers for them, refusals included, so that a page can
//! read why it was refused. Origins are compared whole; nothing is reflected that was not listed.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, COOKIE, ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Flow, Hooks};
use crate::base::body::Body;
use crate::base::cx::Cx;
use crate::base::fault::Fault;
use crate::base::units::Span;
use crate::base::yaml::Place;
use crate::parts::env::{Env, Owner};

/// Lets pages of other origins call this route (Fetch standard, CORS protocol).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Origins like `https://h5.example.com` or `https://*.example.com`, or `"*"` for all.
    origins: Vec<String>,
    /// Methods a page may use.
    #[serde(default = "default_methods")]
    methods: Vec<String>,
    /// Header fields a page may send.
    #[serde(default)]
    headers: Vec<String>,
    /// Header fields of the answer a page may read, beside those of the gateway itself.
    #[serde(default)]
    expose: Vec<String>,
    /// Whether cookies and authorisation may be sent; not together with `"*"`.
    #[serde(default)]
    credentials: bool,
    /// How long a browser may remember a preflight.
    #[serde(default = "default_max_age")]
    max_age: Span,
}

fn default_methods() -> Vec<String> {
    ["GET", "HEAD", "POST"].map(str::to_owned).to_vec()
}

fn default_max_age() -> Span {
    // Chromium caps it at two hours; ten minutes keep a mistake short-lived.
    Span(std::time::Duration::from_secs(600))
}

impl Config {
    pub(crate) fn build(&self, at: &Place<'_>, _: &Owner, env: &mut Env<'_>) -> Option<Cors> {
        let mut origins = Vec::new();
        let mut whole = !self.origins.is_empty();
        if !whole {
            env.problems.error(&at.field("origins"), "cors needs at least one origin");
        }
        for (index, text) in self.origins.iter().enumerate() {
            match Origin::parse(text) {
                Some(origin) => origins.push(origin),
                None => {
                    whole = false;
                    env.problems
                        .error(
                            &at.field("origins").index(index),
                            format!("`{text}` is not an origin"),
                        )
                        .help("write scheme and host, like https://h5.example.com, without a path");
                }
            }
        }
        if self.credentials && origins.iter().any(|origin| matches!(origin, Origin::Any)) {
            env.problems
                .error(
                    &at.field("credentials"),
                    "credentials for every origin would let any page act for the user",
                )
                .help("list the origins");
            whole = false;
        }
        for (key, words) in
            [("methods", &self.methods), ("headers", &self.headers), ("expose", &self.expose)]
        {
            // With credentials browsers take it for the name of a field.
            if let Some(index) = words.iter().position(|word| word == "*" && self.credentials) {
                env.problems
                    .error(&at.field(key).index(index), "`*` means nothing beside `credentials`")
                    .help("list the names");
                whole = false;
            }
        }
        let exposed = exposed(&self.expose);
        let lists = [("methods", &self.methods), ("headers", &self.headers), ("expose", &exposed)]
            .map(|(key, words)| list(words, &at.field(key), env));
        let [methods, headers, expose] = lists;
        whole.then_some(())?;
        Some(Cors {
            origins,
            methods: methods?,
            headers: headers?,
            expose: expose?,
            credentials: self.credentials,
            max_age: HeaderValue::from(self.max_age.0.as_secs()),
        })
    }
}

/// Fields that the gateway itself says, and pages may always read: when to come back, whether there is a
/// newer version, and by which id to ask about a request.
const OURS: [&str; 8] = [
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "RateLimit-Reset",
    "Retry-After",
    "X-MP-Upgrade",
    "X-Request-Id",
    "X-Sluice-Degraded",
    "X-Trace-Id",
];

/// What pages may read: the operator's words, then ours.
fn exposed(own: &[String]) -> Vec<String> {
    let new = |our: &&str| !own.iter().any(|word| our.eq_ignore_ascii_case(word));
    let ours = OURS.iter().copied().filter(new).map(str::to_owned);
    own.iter().cloned().chain(ours).collect()
}

/// Words joined for a header; `None` inside when there are none, outside when one is unusable.
#[expect(clippy::option_option, reason = "absent and unusable are different answers")]
fn list(words: &[String], at: &Place<'_>, env: &mut Env<'_>) -> Option<Option<HeaderValue>> {
    for (index, word) in words.iter().enumerate() {
        if http::HeaderName::try_from(word.as_str()).is_err() {
            env.problems.error(&at.index(index), format!("`{word}` is not a token"));
            return None;
        }
    }
    if words.is_empty() {
        return Some(None);
    }
    Some(HeaderValue::try_from(words.join(", ")).ok())
}

/// A page's origin, or several.
#[derive(Debug)]
pub(crate) enum Origin {
    Any,
    Exact(String),
    /// `scheme://` and `.example.com`.
    Below(String, String),
}

impl Origin {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        let (scheme, host) = text.split_once("://")?;
        if !matches!(scheme, "http" | "https")
            || host.is_empty()
            || host.contains(['/', '?', '#', '@'])
        {
            return None;
        }
        let lower = host.to_ascii_lowercase();
        match lower.strip_prefix('*') {
            Some(rest) if rest.starts_with('.') && rest.len() > 1 && !rest.contains('*') => {
                Some(Self::Below(format!("{scheme}://"), rest.to_owned()))
            }
            Some(_) => None,
            None if lower.contains('*') => None,
            None => Some(Self::Exact(format!("{scheme}://{lower}"))),
        }
    }

    pub(crate) fn admits(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(known) => known == origin,
            Self::Below(scheme, suffix) => origin
                .strip_prefix(scheme.as_str())
                .and_then(|host| host.strip_suffix(suffix.as_str()))
                .is_some_and(|label| {
                    !label.is_empty()
                        && label
                            .bytes()
                            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
                }),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Cors {
    origins: Vec<Origin>,
    methods: Option<HeaderValue>,
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    credentials: bool,
    max_age: HeaderValue,
}

/// The method a preflight asks for, if this is one.
pub(crate) fn preflight(head: &Parts) -> Option<&str> {
    if head.method != Method::OPTIONS || !head.headers.contains_key(ORIGIN) {
        return None;
    }
    head.headers.get(ACCESS_CONTROL_REQUEST_METHOD)?.to_str().ok()
}

impl Cors {
    /// The answer to a preflight; without the headers if the origin is not welcome.
    pub(crate) fn answer(&self, head: &Parts) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = self.admitted(&head.headers) {
            self.mark(headers, origin);
            if let Some(methods) = &self.methods {
                headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods.clone());
            }
            if let Some(allowed) = &self.headers {
                headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed.clone());
            }
            headers.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        }
        response
    }

    /// Whether a browser would let a page make this call, and read its answer. The fields that the page sends
    /// are not looked at: they came with the batch that the call is part of.
    pub(crate) fn lets(&self, head: &Parts) -> bool {
        let simple = matches!(head.method, Method::GET | Method::HEAD | Method::POST);
        let listed = self.methods.as_ref().and_then(|methods| methods.to_str().ok());
        let mut listed = listed.unwrap_or_default().split(", ");
        let method = simple || listed.any(|method| method == head.method.as_str() || method == "*");
        let cookies = head.headers.contains_key(COOKIE);
        method && (self.credentials || !cookies) && self.admitted(&head.headers).is_some()
    }

    fn admitted(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let mut values = headers.get_all(ORIGIN).iter();
        let origin = values.next()?;
        if values.next().is_some() {
            return None;
        }
        let text = origin.to_str().ok()?;
        self.origins.iter().any(|known| known.admits(text)).then(|| origin.clone())
    }

    fn mark(&self, headers: &mut HeaderMap, origin: HeaderValue) {
        let any = matches!(self.origins.as_slice(), [Origin::Any]);
        let value = if any { HeaderValue::from_static("*") } else { origin };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, value);
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }
}

impl Hooks for Cors {
    async fn on_request(&self, cx: &mut Cx, head: &mut Parts) -> Result<Flow, Fault> {
        cx.origin = self.admitted(&head.headers);
        Ok(Flow::Next)
    }

    fn on_response(&self, cx: &mut Cx, response: &mut Response<Body>) {
        let headers = response.headers_mut();
        // What the service said about CORS would contradict what is configured here.
        headers.remove(ACCESS_CONTROL_ALLOW_ORIGIN);
        headers.remove(ACCESS_CONTROL_ALLOW_CREDENTIALS);
        headers.append(VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = cx.origin.take() {
            self.mark(headers, origin);
            if let Some(expose) = &self.expose {
                headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_compared_at_label_borders() {
        let below = Origin::parse("https://*.example.com").unwrap();
        assert!(below.admits("https://a.example.com"));
        assert!(!below.admits("https://example.com"));
        assert!(!below.admits("https://evilexample.com"));
        assert!(!below.admits("https://a.example.com.evil.io"));
        assert!(!below.admits("http://a.example.com"));
        assert!(!below.admits("https://evil.io/.example.com"));
        let exact = Origin::parse("https://h5.example.com").unwrap();
        assert!(exact.admits("https://h5.example.com"));
        assert!(!exact.admits("https://h5.example.com:8443"));
        assert!(!exact.admits("null"));
        for bad in ["example.com", "https://a/b", "https://*", "https://a.*.com", "ftp://a"] {
            assert!(Origin::parse(bad).is_none(), "{bad}");
        }
    }
}
