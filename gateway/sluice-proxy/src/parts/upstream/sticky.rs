//! Requests that belong together go to the same endpoint: by what the caller says or has proven, or by a
//! cookie that the gateway sets. What a route needs of its upstream's choice is compiled here
//! ([`Affinity`]), and what one request wants is a [`Want`].
//!
//! The one rule: a cookie names an endpoint by a keyed hash of its address, so nobody learns the address
//! from it, and nobody can make one for an endpoint that it was not given.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use http::HeaderName;
use http::header::HeaderValue;
use http::request::Parts;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_engine::trace::write_hex;

use super::balance::Rules;
use crate::base::cx::Cx;
use crate::base::units::{Secret, Span};
use crate::base::yaml::Place;
use crate::parts::env::Env;
use crate::parts::key::{self, Part, Use};

/// Shortest secret, bytes.
const MIN_SECRET: usize = 16;

/// What keeps a caller at its endpoint. Exactly one of these.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// A cookie that the gateway sets.
    #[serde(default)]
    cookie: Option<CookieConfig>,
    /// The value of a request header; requests without it are balanced.
    #[serde(default)]
    header: Option<String>,
    /// A claim of a verified token; callers without it are balanced.
    #[serde(default)]
    claim: Option<String>,
}

/// The cookie that keeps a caller at its endpoint.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CookieConfig {
    /// Its name.
    #[serde(default = "default_name")]
    name: String,
    /// At least 16 characters that only the gateways know, the same on every instance.
    secret: Secret,
    /// Where it is sent.
    #[serde(default = "default_path")]
    path: String,
    /// How long it is kept; until the browser closes if not given.
    #[serde(default)]
    max_age: Option<Span>,
    /// Whether it is sent over TLS only.
    #[serde(default)]
    secure: Secure,
    /// Whether it is kept from scripts.
    #[serde(default = "default_true")]
    http_only: bool,
    /// Whether it is sent with requests that other sites cause.
    #[serde(default)]
    same_site: SameSite,
}

fn default_name() -> String {
    "sluice_endpoint".to_owned()
}

fn default_path() -> String {
    "/".to_owned()
}

fn default_true() -> bool {
    true
}

/// Whether a cookie is sent over TLS only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Secure {
    /// If it was set over TLS, here or at a trusted proxy in front.
    #[default]
    Auto,
    /// In any case.
    Always,
    /// Over plain connections too.
    Never,
}

/// Whether a cookie is sent with requests that other sites cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SameSite {
    /// With links that are followed.
    #[default]
    Lax,
    /// Never.
    Strict,
    /// Always; it must be sent over TLS only then.
    None,
}

/// What names an endpoint in a cookie: hex digits.
pub(crate) type Token = [u8; 32];

/// The cookie, compiled.
pub(crate) struct Cookie {
    name: String,
    key: hmac::Key,
    secure: Secure,
    /// What stands behind the value, without and with `Secure`.
    attributes: [String; 2],
}

/// What an upstream says of its choice, before the routes' captures are known.
#[derive(Debug)]
pub(crate) enum Sticky {
    Nothing,
    Cookie(Arc<Cookie>),
    Value(Part),
}

/// What a route has to find out about a request for its upstream's choice.
#[derive(Debug, Default)]
pub(crate) struct Affinity {
    /// Parts of the key.
    parts: Vec<Part>,
    /// Whether a request that lacks a part has no key; else its address stands for the part.
    whole: bool,
    cookie: Option<Arc<Cookie>>,
}

/// What one request wants of the choice.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Want {
    pub(crate) key: Option<u64>,
    /// The endpoint that its cookie names.
    pub(crate) token: Option<Token>,
    /// Whether the cookie it is given is for TLS only.
    pub(crate) secure: bool,
}

impl Config {
    pub(super) fn build(&self, rules: &Rules, at: &Place<'_>, env: &mut Env<'_>) -> Option<Sticky> {
        let keyed = rules.key.is_some();
        match (&self.cookie, &self.header, &self.claim) {
            (Some(cookie), None, None) => {
                cookie.build(&at.field("cookie"), env).map(Arc::new).map(Sticky::Cookie)
            }
            (None, Some(_), None) | (None, None, Some(_)) if keyed => {
                env.problems
                    .error(at, "`balance: hash` keeps requests together already")
                    .help("write what is sticky as its key, or choose another `balance`");
                None
            }
            (None, Some(name), None) => match HeaderName::try_from(name.as_str()) {
                Ok(name) => Some(Sticky::Value(Part::Header(name))),
                Err(_) => {
                    env.problems.error(&at.field("header"), format!("`{name}` names no header"));
                    None
                }
            },
            (None, None, Some(name)) => Some(Sticky::Value(Part::Claim(name.clone()))),
            _ => {
                env.problems
                    .error(at, "`sticky` needs exactly one of `cookie`, `header` and `claim`")
                    .help("write `sticky: { header: x-device-id }`");
                None
            }
        }
    }
}

impl CookieConfig {
    fn build(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Cookie> {
        let mut whole = true;
        let mut wrong = |field: &str, message: &str| {
            whole = false;
            env.problems.error(&at.field(field), message);
        };
        if !key::is_token(&self.name) {
            wrong("name", "a cookie's name has letters, digits and !#$%&'*+-.^_`|~ only");
        }
        if self.secret.expose().len() < MIN_SECRET {
            wrong("secret", "the secret has at least 16 characters");
        }
        let is_plain = |byte: u8| matches!(byte, b'!'..=b'~') && byte != b';';
        if !self.path.starts_with('/') || !self.path.bytes().all(is_plain) {
            wrong("path", "a cookie's path begins with / and has no `;`");
        }
        let fine = Duration::from_secs(1)..=Duration::from_secs(400 * 86_400);
        if self.max_age.is_some_and(|age| !fine.contains(&age.0)) {
            wrong("max_age", "`max_age` must lie between 1s and 400d");
        }
        if self.same_site == SameSite::None && self.secure != Secure::Always {
            wrong("same_site", "browsers refuse `same_site: none` without `secure: always`");
        }
        whole.then_some(())?;
        let mut attributes = format!("; Path={}", self.path);
        if let Some(age) = self.max_age {
            attributes.push_str(&format!("; Max-Age={}", age.0.as_secs()));
        }
        if self.http_only {
            attributes.push_str("; HttpOnly");
        }
        attributes.push_str(match self.same_site {
            SameSite::Lax => "; SameSite=Lax",
            SameSite::Strict => "; SameSite=Strict",
            SameSite::None => "; SameSite=None",
        });
        let secure = format!("{attributes}; Secure");
        Some(Cookie {
            name: self.name.clone(),
            key: hmac::Key::new(hmac::HMAC_SHA256, self.secret.expose().as_bytes()),
            secure: self.secure,
            attributes: [attributes, secure],
        })
    }
}

impl Cookie {
    /// What names the endpoint of this upstream at this address.
    pub(crate) fn token(&self, upstream: &str, address: std::net::SocketAddr) -> Token {
        let tag = hmac::sign(&self.key, format!("endpoint\0{upstream}\0{address}").as_bytes());
        let mut token = [b'0'; 32];
        write_hex(tag.as_ref().get(..16).unwrap_or(&[]), &mut token);
        token
    }

    /// `Set-Cookie` for that, without and with `Secure`.
    pub(crate) fn fields(&self, token: &Token) -> Option<[HeaderValue; 2]> {
        let value = std::str::from_utf8(token).ok()?;
        let [open, secure] = &self.attributes;
        let field = |attributes: &String| {
            HeaderValue::try_from(format!("{}={value}{attributes}", self.name)).ok()
        };
        Some([field(open)?, field(secure)?])
    }
}

impl std::fmt::Debug for Cookie {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cookie").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Affinity {
    /// What the requests of a route with these captures have to be asked; `None` if nothing.
    pub(super) fn build(
        rules: &Rules,
        sticky: &Sticky,
        captures: &[String],
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> Option<Self> {
        let parts = match &rules.key {
            Some(text) => key::parts(text, at, Use::Upstream(Some(captures)), env)?,
            None => Vec::new(),
        };
        match sticky {
            Sticky::Nothing if parts.is_empty() => None,
            Sticky::Nothing => Some(Self { parts, whole: false, cookie: None }),
            Sticky::Cookie(cookie) => {
                Some(Self { parts, whole: false, cookie: Some(Arc::clone(cookie)) })
            }
            Sticky::Value(part) => {
                Some(Self { parts: vec![part.clone()], whole: true, cookie: None })
            }
        }
    }

    pub(crate) fn want(&self, cx: &Cx, head: &Parts) -> Want {
        let keyed = !self.parts.is_empty()
            && (!self.whole || self.parts.iter().all(|part| part.is_in(cx, head)));
        let key = keyed.then(|| key::key(&self.parts, cx, head).hash());
        let Some(cookie) = &self.cookie else { return Want { key, ..Want::default() } };
        let token = key::cookie(head, &cookie.name).and_then(|value| value.try_into().ok());
        let secure = match cookie.secure {
            Secure::Always => true,
            Secure::Never => false,
            Secure::Auto => {
                let said = || head.headers.get("x-forwarded-proto");
                cx.peer.secure || cx.peer_trusted && said().is_some_and(|proto| proto == "https")
            }
        };
        Want { key, token, secure }
    }
}
