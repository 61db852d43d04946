//! `cache_control:` of a route: what is said of keeping an answer that says nothing of it by itself.
//!
//! Caches may keep such an answer for as long as they see fit (RFC 9111 section 4.2.2), and clients do: that
//! of WeChat serves requests again that look alike (`enableCache`). Only shared caches, and only for requests
//! with `Authorization`, are told not to (section 3.5): an API key in a field of its own, a cookie or a token in
//! the query mean nothing to them, and nothing binds the cache of a client that two people use. So where the
//! gateway has found out who is calling, silence means `no-store`.
//!
//! The one rule: whoever has said something of it, a service or a filter, is not corrected.

use http::header::{CACHE_CONTROL, EXPIRES};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::body::Body;
use crate::base::cx::Cx;

/// What is said of keeping an answer that has neither `Cache-Control` nor `Expires`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CacheControl {
    /// `no-store`, if a filter has found out who is calling; else nothing.
    #[default]
    Auto,
    /// `no-store`, whoever calls: for services that find it out themselves.
    NoStore,
    /// Nothing.
    Pass,
}

/// Whose answers are not to be kept, if they say nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unkept {
    Nobodys,
    /// Those of callers whom a filter has identified.
    Known,
    Everybodys,
}

impl CacheControl {
    /// `identifies` says whether any filter of the route finds out who is calling.
    pub(crate) fn build(self, identifies: bool) -> Unkept {
        match self {
            Self::Auto if identifies => Unkept::Known,
            Self::Auto | Self::Pass => Unkept::Nobodys,
            Self::NoStore => Unkept::Everybodys,
        }
    }
}

impl Unkept {
    /// Says so to whoever may keep the answer.
    pub(crate) fn tell(self, cx: &Cx, answer: &mut Response<Body>) {
        let told = match self {
            Self::Nobodys => false,
            Self::Known => cx.principal.is_some(),
            Self::Everybodys => true,
        };
        if told && !cx.grpc && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            forbid(answer.headers_mut());
        }
    }
}

/// An answer that says nothing of being kept is not to be.
pub(crate) fn forbid(fields: &mut HeaderMap) {
    if !fields.contains_key(CACHE_CONTROL) && !fields.contains_key(EXPIRES) {
        fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}
