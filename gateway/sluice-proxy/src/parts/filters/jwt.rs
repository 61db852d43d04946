//! Verifies a JSON Web Token and turns its claims into the caller's identity. The algorithm comes
//! from the configured key, never from the token (RFC 8725 section 3.1). Who has no valid token gets
//! 401; who has one that does not permit the call gets 403.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Flow, Hooks};
use crate::base::clock;
use crate::base::cx::{Cx, Principal};
use crate::base::fault::Fault;
use crate::base::secured::tells_certificate;
use crate::base::units::Span;
use crate::base::yaml::Place;
use crate::parts::env::{Env, Owner};
use crate::parts::text::push_claim;

mod cache;
mod claims;
pub(crate) mod keys;

use cache::Cache;
use keys::{KeyConfig, Keys};

/// RFC 6750 section 2.1, with the blank behind it.
const BEARER: &[u8] = b"bearer ";
/// Longest token accepted, bytes.
const MAX_TOKEN: usize = 8 * 1024;

/// Verifies a bearer token (HS, RS, PS, ES, EdDSA) with keys given here.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Keys that may have signed the token; a token names its key by `kid`.
    pub(crate) keys: Vec<KeyConfig>,
    /// Accepted `iss` values; empty means any, and then none is required.
    #[serde(default)]
    issuers: Vec<String>,
    /// Accepted `aud` values; empty means any, and then none is required.
    #[serde(default)]
    audiences: Vec<String>,
    /// Claims that must be there besides `exp`.
    #[serde(default)]
    required_claims: Vec<String>,
    /// Roles of which the caller needs at least one; otherwise 403.
    #[serde(default)]
    any_role: Vec<String>,
    /// The claim that lists the caller's roles, as a list or as words separated by blanks.
    #[serde(default = "default_roles_claim")]
    roles_claim: String,
    /// Clock difference allowed for `exp` and `nbf`.
    #[serde(default = "default_leeway")]
    leeway: Span,
    /// The header that carries the token; `Authorization` expects `Bearer` before it.
    #[serde(default = "default_header")]
    header: String,
    /// Headers to set for the service from claims: `{ X-User-Id: sub }`. What a client sends under
    /// these names is removed first, on this route and everywhere else.
    #[serde(default)]
    claims_to_headers: std::collections::BTreeMap<String, String>,
    /// Whether the token itself is passed on to the service.
    #[serde(default = "default_forward")]
    forward_token: bool,
    /// Verified tokens remembered by each worker until they expire; 0 turns this off.
    #[serde(default = "default_cache")]
    cache: usize,
}

fn default_roles_claim() -> String {
    "roles".to_owned()
}

fn default_leeway() -> Span {
    // The habit of the field; more would keep stolen tokens alive, less breaks on drifting clocks.
    Span(std::time::Duration::from_secs(60))
}

fn default_header() -> String {
    "Authorization".to_owned()
}

fn default_forward() -> bool {
    true
}

fn default_cache() -> usize {
    10_000
}

impl Config {
    pub(crate) fn build(&self, at: &Place<'_>, _: &Owner, env: &mut Env<'_>) -> Option<Jwt> {
        let keys = keys::build(&self.keys, &at.field("keys"), env);
        let header = header_name(&self.header, &at.field("header"), env);
        let mut copies = Some(Vec::new());
        for (name, claim) in &self.claims_to_headers {
            let place = at.field("claims_to_headers");
            match identity_header(name, &place.key(name), env) {
                Some(name) => copies.as_mut().map(|all| all.push((name, claim.clone()))),
                None => copies.take().map(|_| ()),
            };
        }
        let leeway = self.leeway.0;
        if leeway > std::time::Duration::from_secs(300) {
            env.problems
                .error(&at.field("leeway"), "more than 5m of leeway keeps expired tokens alive");
            return None;
        }
        let checks = claims::Checks {
            issuers: self.issuers.clone(),
            audiences: self.audiences.clone(),
            required: self.required_claims.clone(),
            leeway: leeway.as_secs(),
        };
        Some(Jwt {
            keys: keys?,
            checks,
            any_role: self.any_role.clone(),
            roles_claim: self.roles_claim.clone(),
            header: header?,
            copies: copies?,
            forward_token: self.forward_token,
            cache: Cache::new(self.cache),
        })
    }
}

/// A header that may carry a claim: none that frames or routes the request.
fn identity_header(name: &str, at: &Place<'_>, env: &mut Env<'_>) -> Option<HeaderName> {
    let parsed = header_name(name, at, env)?;
    let taken = super::headers::OURS.contains(&parsed.as_str()) || parsed == AUTHORIZATION;
    if taken || tells_certificate(parsed.as_str()) {
        env.problems.error(at, format!("`{name}` cannot carry a claim"));
        return None;
    }
    Some(parsed)
}

fn header_name(name: &str, at: &Place<'_>, env: &mut Env<'_>) -> Option<HeaderName> {
    let parsed = HeaderName::try_from(name);
    if parsed.is_err() {
        env.problems.error(at, format!("`{name}` is not a header name"));
    }
    parsed.ok()
}

#[derive(Debug)]
pub(crate) struct Jwt {
    keys: Keys,
    checks: claims::Checks,
    any_role: Vec<String>,
    roles_claim: String,
    header: HeaderName,
    copies: Vec<(HeaderName, String)>,
    forward_token: bool,
    cache: Cache,
}

impl Hooks for Jwt {
    async fn on_request(&self, cx: &mut Cx, head: &mut Parts) -> Result<Flow, Fault> {
        let token = self.token(&head.headers)?;
        let now = clock::unix_seconds();
        let principal = match self.cache.get(token, now) {
            Some(principal) => principal,
            None => self.verify(token, now)?,
        };
        self.permit(&principal)?;
        self.copy_claims(&principal, &mut head.headers)?;
        if !self.forward_token {
            head.headers.remove(&self.header);
        }
        cx.principal = Some(principal);
        Ok(Flow::Next)
    }
}

impl Jwt {
    /// Headers this filter sets for services; clients may never send them.
    pub(crate) fn identity_headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.copies.iter().map(|(name, _)| name)
    }

    fn token<'h>(&self, headers: &'h HeaderMap) -> Result<&'h [u8], Fault> {
        let mut values = headers.get_all(&self.header).iter();
        let value = values.next().ok_or(Fault::TokenMissing)?;
        if values.next().is_some() {
            return Err(Fault::TokenAmbiguous);
        }
        let mut token = value.as_bytes();
        if self.header == AUTHORIZATION {
            let scheme = token.split_off(..BEARER.len()).ok_or(Fault::TokenInvalid)?;
            if !scheme.eq_ignore_ascii_case(BEARER) {
                return Err(Fault::TokenInvalid);
            }
            token = token.trim_ascii_start();
        }
        if token.is_empty() || token.len() > MAX_TOKEN {
            return Err(Fault::TokenInvalid);
        }
        Ok(token)
    }

    fn verify(&self, token: &[u8], now: u64) -> Result<Arc<Principal>, Fault> {
        let text = std::str::from_utf8(token).map_err(|_| Fault::TokenInvalid)?;
        let claims = self.keys.verify(text)?;
        let expires = self.checks.check(&claims, now)?;
        let principal = Arc::new(Principal { claims });
        self.cache.put(token, &principal, expires);
        Ok(principal)
    }

    fn permit(&self, principal: &Principal) -> Result<(), Fault> {
        if self.any_role.is_empty() {
            return Ok(());
        }
        let held = principal.claims.get(&self.roles_claim);
        let permitted = self.any_role.iter().any(|role| match held {
            Some(serde_json::Value::String(words)) => words.split(' ').any(|word| word == role),
            Some(serde_json::Value::Array(list)) => list.iter().any(|item| item == role.as_str()),
            _ => false,
        });
        permitted.then_some(()).ok_or(Fault::ClaimRefused)
    }

    fn copy_claims(&self, principal: &Principal, headers: &mut HeaderMap) -> Result<(), Fault> {
        for (name, claim) in &self.copies {
            let Some(claim) = principal.claims.get(claim) else { continue };
            let mut text = String::new();
            push_claim(claim, &mut text);
            // Text that no header may hold (CR, LF, controls) is refused, not repaired; other
            // non-ASCII text travels as UTF-8 bytes.
            let value =
                HeaderValue::from_bytes(text.as_bytes()).map_err(|_| Fault::TokenInvalid)?;
            headers.insert(name.clone(), value);
        }
        Ok(())
    }
}
