//! What tells one caller from another: the key of a call, made of parts that the caller has proven, says
//! of itself, or cannot choose. Limits count by it, and upstreams keep calls together by it.
//!
//! The one rule: two different tuples of parts never make the same key.

use std::borrow::Cow;
use std::sync::Arc;

use http::HeaderName;
use http::request::Parts;
use sluice_engine::matcher;
use sluice_engine::mini::Client;

use crate::base::cx::Cx;
use crate::base::yaml::Place;
use crate::parts::env::Env;
use crate::parts::text::push_claim;

/// One part of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    Address,
    Route,
    Claim(String),
    Header(HeaderName),
    Cookie(String),
    Capture(usize),
    Mini(Mini),
}

/// What a mini-program says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mini {
    /// With the ids of all apps: their order may change.
    App(Arc<[Arc<str>]>),
    Platform,
    Env,
    Version,
}

/// What a key is for, which says what may be part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use<'a> {
    /// A limit, on a path with these captures.
    Limit(&'a [String]),
    /// An upstream, on the path of one of its routes with these captures; whatever they are if they are
    /// not known yet.
    Upstream(Option<&'a [String]>),
}

impl Part {
    /// Whether callers can make it what they like.
    pub(crate) fn is_claimed(&self) -> bool {
        matches!(self, Self::Header(_) | Self::Cookie(_) | Self::Mini(_))
    }

    /// Whether a request has it, so that its address need not stand for it.
    pub(crate) fn is_in(&self, cx: &Cx, head: &Parts) -> bool {
        match self {
            Self::Address | Self::Route | Self::Capture(_) => true,
            Self::Claim(name) => cx.claim(name).is_some(),
            Self::Header(name) => head.headers.contains_key(name),
            Self::Cookie(name) => cookie(head, name).is_some(),
            Self::Mini(word) => cx.mini.as_ref().is_some_and(|client| word.of(client).is_some()),
        }
    }
}

/// Reads `address`, `claim:sub + route` and the like, or records what is wrong.
pub(crate) fn parts(
    text: &str,
    at: &Place<'_>,
    used: Use<'_>,
    env: &mut Env<'_>,
) -> Option<Vec<Part>> {
    let (captures, what, words) = match used {
        Use::Limit(captures) => (Some(captures), "limit", "address, route, "),
        Use::Upstream(captures) => (captures, "hash", "address, "),
    };
    let mut parts = Vec::new();
    for word in text.split('+').map(str::trim) {
        let part = match word.split_once(':') {
            None if word == "address" => Some(Part::Address),
            None if word == "route" && matches!(used, Use::Limit(_)) => Some(Part::Route),
            None => Mini::parse(word, env).map(Part::Mini),
            Some(("claim", name)) if !name.is_empty() => Some(Part::Claim(name.to_owned())),
            // A key that nobody has looked up proves nothing.
            Some(("header" | "api_key", name)) => HeaderName::try_from(name).ok().map(Part::Header),
            Some(("cookie", name)) if is_token(name) => Some(Part::Cookie(name.to_owned())),
            Some(("capture", name)) => match position(captures, name) {
                Some(at) => Some(Part::Capture(at)),
                None => {
                    env.problems.error(at, format!("the path of this route captures no `{name}`"));
                    return None;
                }
            },
            _ => None,
        };
        let Some(part) = part else {
            env.problems.error(at, format!("`{word}` is not a {what} key")).help(format!(
                "write {words}app, platform, env, version, claim:NAME, api_key:HEADER, header:NAME, cookie:NAME or \
                 capture:NAME, joined by +"
            ));
            return None;
        };
        parts.push(part);
    }
    Some(parts)
}

fn position(captures: Option<&[String]>, name: &str) -> Option<usize> {
    match captures {
        None => Some(0),
        Some(captures) => captures.iter().position(|capture| capture == name),
    }
}

/// The key of a call.
pub(crate) fn key(parts: &[Part], cx: &Cx, head: &Parts) -> Key {
    let mut key = Key::default();
    for part in parts {
        match part {
            Part::Address => key.address(cx.client),
            // The table belongs to one owner already; a constant keeps the tuple well-formed.
            Part::Route => key.push(b"*"),
            Part::Capture(at) => key.push(cx.capture(*at).as_bytes()),
            Part::Claim(name) => match cx.claim(name) {
                Some(claim) => {
                    let mut text = String::new();
                    push_claim(claim, &mut text);
                    key.push(text.as_bytes());
                }
                None => key.address(cx.client),
            },
            Part::Header(name) => match head.headers.get(name) {
                Some(value) => key.push(value.as_bytes()),
                None => key.address(cx.client),
            },
            Part::Mini(word) => match cx.mini.as_ref().and_then(|client| word.of(client)) {
                Some(text) => key.push(text.as_bytes()),
                None => key.address(cx.client),
            },
            Part::Cookie(name) => match cookie(head, name) {
                Some(value) => key.push(value),
                None => key.address(cx.client),
            },
        }
    }
    key
}

impl Mini {
    fn parse(word: &str, env: &Env<'_>) -> Option<Self> {
        Some(match word {
            "app" => Self::App(env.apps.iter().map(|app| Arc::clone(&app.id)).collect()),
            "platform" => Self::Platform,
            "env" => Self::Env,
            "version" => Self::Version,
            _ => return None,
        })
    }

    /// What a client says, if it says that.
    fn of<'a>(&'a self, client: &Client) -> Option<Cow<'a, str>> {
        Some(match self {
            Self::App(ids) => ids.get(usize::from(client.app?))?.as_ref().into(),
            Self::Platform => client.platform?.as_str().into(),
            Self::Env => client.env?.as_str().into(),
            Self::Version => client.version.as_ref()?.to_string().into(),
        })
    }
}

/// The first cookie of this name, as it stands.
pub(crate) fn cookie<'h>(head: &'h Parts, name: &str) -> Option<&'h [u8]> {
    // Admission has joined the lines into one.
    matcher::cookie(head.headers.get(http::header::COOKIE)?.as_bytes(), name)
}

/// Whether a cookie can be named so (RFC 6265 section 4.1.1).
pub(crate) fn is_token(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_part)
}

/// The key of a call's address alone, apart from those of [`key`].
pub(crate) fn address(cx: &Cx) -> Key {
    let mut key = Key::default();
    key.0.push(b'#');
    key.address(cx.client);
    key
}

/// A limit key under construction: length-prefixed parts, so that no two tuples are alike.
#[derive(Default)]
pub(crate) struct Key(smallvec::SmallVec<[u8; 64]>);

impl Key {
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// The same as one of several, apart from the others.
    pub(crate) fn of(mut self, choice: usize) -> Self {
        self.0.extend_from_slice(b"|");
        self.0.extend_from_slice(&choice.to_be_bytes());
        self
    }

    /// The same on every instance and after every restart.
    pub(crate) fn hash(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&self.0)
    }

    fn push(&mut self, part: &[u8]) {
        self.0.push(b'=');
        self.part(part);
    }

    fn part(&mut self, part: &[u8]) {
        self.0.extend_from_slice(&part.len().to_be_bytes());
        self.0.extend_from_slice(part);
    }

    /// IPv6 callers are counted by /64, which one of them has whole.
    fn address(&mut self, address: std::net::IpAddr) {
        // Told apart from a value, or a caller could name another's address as its own key.
        self.0.push(b'@');
        match address {
            std::net::IpAddr::V4(v4) => self.part(&v4.octets()),
            std::net::IpAddr::V6(v6) => self.part(v6.octets().get(..8).unwrap_or(&[])),
        }
    }
}
