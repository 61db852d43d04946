//! What a limit counts: the key of a call, made of parts that the caller has proven, says of itself, or
//! cannot choose.

use http::HeaderName;
use http::request::Parts;

use crate::base::cx::Cx;
use crate::base::yaml::Place;
use crate::parts::env::{Env, Owner};
use crate::parts::text::push_claim;

/// One part of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Address,
    Route,
    Claim(String),
    Header(HeaderName),
    Capture(usize),
}

/// Reads `address`, `claim:sub + route` and the like, or records what is wrong.
pub(super) fn parts(
    text: &str,
    at: &Place<'_>,
    owner: &Owner,
    env: &mut Env<'_>,
) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    for word in text.split('+').map(str::trim) {
        let part = match word.split_once(':') {
            None if word == "address" => Some(Part::Address),
            None if word == "route" => Some(Part::Route),
            Some(("claim", name)) if !name.is_empty() => Some(Part::Claim(name.to_owned())),
            Some(("header", name)) => HeaderName::try_from(name).ok().map(Part::Header),
            Some(("capture", name)) => match owner.captures.iter().position(|c| c == name) {
                Some(at) => Some(Part::Capture(at)),
                None => {
                    env.problems.error(at, format!("the path of this route captures no `{name}`"));
                    return None;
                }
            },
            _ => None,
        };
        let Some(part) = part else {
            env.problems
                .error(at, format!("`{word}` is not a limit key"))
                .help("write address, route, claim:NAME, header:NAME or capture:NAME, joined by +");
            return None;
        };
        parts.push(part);
    }
    Some(parts)
}

/// The key of a call.
pub(super) fn key(parts: &[Part], cx: &Cx, head: &Parts) -> Key {
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
        }
    }
    key
}

/// The key of a call's address alone, apart from those of [`key`].
pub(super) fn address(cx: &Cx) -> Key {
    let mut key = Key::default();
    key.0.push(b'#');
    key.address(cx.client);
    key
}

/// A limit key under construction: length-prefixed parts, so that no two tuples are alike.
#[derive(Default)]
pub(super) struct Key(smallvec::SmallVec<[u8; 64]>);

impl Key {
    pub(super) fn as_slice(&self) -> &[u8] {
        self.0.as_slice()
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
