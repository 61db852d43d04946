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
pub(super) mod carrier;
mod claims;
mod follow;
mod form;
mod jwk;
mod kept;
mod key;
pub(crate) mod keys;
mod keyset;
mod own;
mod source;

use cache::{Cache, Proof};
use carrier::{Carriers, Found};
pub(crate) use follow::follow;
use form::Form;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use jwk::{are_same, reading};
use keys::KeyConfig;
use keyset::Looked;
pub(crate) use keyset::{KeySet, Outcome};
use own::{Own, Standing};
pub(crate) use source::Source;
use source::Trust;

/// What a caller is told to wait for keys, when they are not there.
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

/// Verifies a token (HS, RS, PS, ES, EdDSA) with keys given here, or with those of an issuer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Keys that may have signed the token; a token names its key by `kid`.
    #[serde(default)]
    pub(crate) keys: Vec<KeyConfig>,
    /// The same as a set from a file or from an issuer, instead of `keys`.
    #[serde(default)]
    jwks: Option<Box<source::Config>>,
    /// `login`: the gateway's own tokens, with the keys of `login` and as long as they are not revoked.
    #[serde(default)]
    issuer: Option<Issuer>,
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
    /// Where the token may stand; a request with two is refused. `Authorization: Bearer` if not given.
    #[serde(default = "default_from")]
    from: Vec<carrier::Config>,
    /// Headers to set for the service from claims: `{ X-User-Id: sub }`. What a client sends under
    /// these names is removed first, on this route and everywhere else.
    #[serde(default)]
    claims_to_headers: std::collections::BTreeMap<String, String>,
    /// Whether the token itself is passed on to the service. If not given, it is, but not from a query.
    #[serde(default)]
    forward_token: Option<bool>,
    /// Verified tokens remembered by each worker until they expire; 0 turns this off.
    #[serde(default = "default_cache")]
    cache: usize,
}

/// Who makes tokens, beside issuers elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Issuer {
    /// This gateway, or others with the same `login`.
    Login,
}

fn default_roles_claim() -> String {
    "roles".to_owned()
}

fn default_leeway() -> Span {
    // The habit of the field; more would keep stolen tokens alive, less breaks on drifting clocks.
    Span(std::time::Duration::from_secs(60))
}

fn default_from() -> Vec<carrier::Config> {
    vec![carrier::Config::usual()]
}

fn default_cache() -> usize {
    10_000
}

impl Config {
    pub(crate) fn build(&self, at: &Place<'_>, _: &Owner, env: &mut Env<'_>) -> Option<Jwt> {
        let own = match self.issuer {
            None => None,
            Some(Issuer::Login) => Some(self.own(at, env)?),
        };
        let trust = match &own {
            None => self.trust(at, env),
            Some(own) => match own.keys() {
                Ok(keys) => Some(Trust::Fixed(Box::new(keys))),
                Err(why) => {
                    env.problems.error(&at.field("issuer"), format!("a key of `login`: {why}"));
                    None
                }
            },
        };
        let carriers = carrier::build(&self.from, self.forward_token, &at.field("from"), env);
        let mut copies = Some(Vec::new());
        for (name, claim) in &self.claims_to_headers {
            let place = at.field("claims_to_headers");
            match identity_header(name, carriers.as_ref(), &place.key(name), env) {
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
            issuers: match &env.login {
                Some(login) if own.is_some() && self.issuers.is_empty() => {
                    vec![login.token.issuer.clone()]
                }
                _ => self.issuers.clone(),
            },
            audiences: self.audiences.clone(),
            required: self.required_claims.clone(),
            leeway: leeway.as_secs(),
        };
        Some(Jwt {
            trust: trust?,
            own: own.map(Box::new),
            checks,
            any_role: self.any_role.clone(),
            roles_claim: self.roles_claim.clone(),
            carriers: carriers?,
            copies: copies?,
            cache: Cache::new(self.cache),
        })
    }
}

impl Config {
    fn trust(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Trust> {
        match &self.jwks {
            None => keys::build(&self.keys, &at.field("keys"), env)
                .map(|keys| Trust::Fixed(Box::new(keys))),
            Some(jwks) => {
                let place = at.field("jwks");
                if !self.keys.is_empty() {
                    env.problems.error(&place, "write either `keys` or `jwks`");
                    return None;
                }
                jwks.build(&place, env)
            }
        }
    }

    fn own(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Own> {
        let place = at.field("issuer");
        if !self.keys.is_empty() || self.jwks.is_some() {
            env.problems.error(&place, "write one of `issuer`, `keys` and `jwks`");
            return None;
        }
        if !env.has_login {
            env.problems
                .error(&place, "there is no `login` section that makes tokens")
                .help("write `login: { keys: [...] }` and `apps: [...]`; see docs/login.md");
        }
        // Where there is one that could not be compiled, that was told.
        env.login.as_ref().map(|login| Own::new(Arc::clone(login)))
    }

    /// Names of cookies and parameters that carry tokens.
    pub(crate) fn names_of_tokens(&self) -> impl Iterator<Item = &str> {
        self.from.iter().filter_map(carrier::Config::name)
    }
}

/// A header that may carry a claim: none that frames or routes the request, or carries the token.
fn identity_header(
    name: &str,
    carriers: Option<&Carriers>,
    at: &Place<'_>,
    env: &mut Env<'_>,
) -> Option<HeaderName> {
    let parsed = header_name(name, at, env)?;
    let carries = carriers.is_some_and(|carriers| carriers.reads(&parsed));
    let taken = super::headers::OURS.contains(&parsed.as_str()) || parsed == AUTHORIZATION;
    if taken || carries || tells_certificate(parsed.as_str()) {
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
    trust: Trust,
    /// For tokens of the gateway's own.
    own: Option<Box<Own>>,
    checks: claims::Checks,
    any_role: Vec<String>,
    roles_claim: String,
    carriers: Carriers,
    copies: Vec<(HeaderName, String)>,
    cache: Cache,
}

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy)]
enum Refused {
    For(Fault),
    /// Its key is not known, or no key is. An issuer may have it by now.
    Key(Fault),
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self::For(fault)
    }
}

impl Hooks for Jwt {
    async fn on_request(&self, cx: &mut Cx, head: &mut Parts) -> Result<Flow, Fault> {
        let (token, found) = self.carriers.find(head)?;
        let now = clock::unix_seconds();
        let generation = self.trust.generation();
        let has = |key| self.trust.has(key);
        let principal = match self.cache.get(token, now, generation, has) {
            Some(principal) => principal,
            None => match self.verify(token, now) {
                Ok(principal) => principal,
                Err(Refused::For(fault)) => return Err(fault),
                // Rare, and much larger than the rest.
                Err(Refused::Key(fault)) => {
                    let asked = self.ask_issuer(token, generation, fault);
                    Box::pin(asked).await.inspect_err(|fault| {
                        if *fault == Fault::KeysUnavailable {
                            cx.retry_after = Some(RETRY_AFTER);
                        }
                    })?
                }
            },
        };
        if let Some(own) = &self.own
            && let Standing::Unclear = own.judge(cx, &head.method, &principal)?
        {
            Box::pin(own.ask(cx, &head.method, &principal)).await?;
        }
        self.admit(cx, head, found, principal)
    }
}

impl Jwt {
    /// Headers this filter sets for services; clients may never send them.
    pub(crate) fn identity_headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.copies.iter().map(|(name, _)| name)
    }

    /// What this filter says to a token that stands alone: no issuer is asked, and whether it was revoked
    /// is not looked up.
    pub(crate) fn try_token(&self, token: &[u8]) -> Result<(), Fault> {
        let principal = self.verify(token, clock::unix_seconds()).map_err(|refused| {
            let (Refused::For(fault) | Refused::Key(fault)) = refused;
            fault
        })?;
        self.permit(&principal)
    }

    fn verify(&self, token: &[u8], now: u64) -> Result<Arc<Principal>, Refused> {
        let form = Form::read(token)?;
        // What no key could be for needs no other key.
        if form.alg.is_none() {
            return Err(Fault::TokenInvalid.into());
        }
        self.trust.look(|keys, generation| {
            let keys = keys.ok_or(Refused::Key(Fault::KeysUnavailable))?;
            let key = keys.find(&form).ok_or(match form.kid {
                Some(_) => Refused::Key(Fault::TokenInvalid),
                None => Refused::For(Fault::TokenInvalid),
            })?;
            let claims = key.verify(&form)?;
            let mut expires = self.checks.check(&claims, now)?;
            if let Some(own) = &self.own {
                expires = expires.min(own.until(form.kid.as_deref()));
                if expires <= now {
                    return Err(Fault::TokenInvalid.into());
                }
            }
            let principal = Arc::new(Principal { claims });
            let proof = Proof { expires, generation, key: key.id };
            self.cache.put(token, &principal, proof);
            Ok(principal)
        })
    }

    /// Has the issuer asked for a key that is not known in this generation of keys, if that may be done
    /// now, and tries once more.
    async fn ask_issuer(
        &self,
        token: &[u8],
        generation: u64,
        fault: Fault,
    ) -> Result<Arc<Principal>, Fault> {
        let looked = match &self.trust {
            Trust::Fixed(_) => return Err(fault),
            Trust::Issuer(source) => source.look_again().await,
        };
        // Other keys may have come between the first try and the question.
        let is_news = looked == Looked::Again || self.trust.generation() != generation;
        match looked {
            _ if is_news => self.verify(token, clock::unix_seconds()).map_err(|refused| {
                let (Refused::For(fault) | Refused::Key(fault)) = refused;
                fault
            }),
            // Nobody can tell whether the key is the issuer's.
            Looked::InVain => Err(Fault::KeysUnavailable),
            Looked::Again | Looked::Recently => Err(fault),
        }
    }

    fn admit(
        &self,
        cx: &mut Cx,
        head: &mut Parts,
        found: Found,
        principal: Arc<Principal>,
    ) -> Result<Flow, Fault> {
        self.permit(&principal)?;
        self.copy_claims(&principal, &mut head.headers)?;
        self.carriers.conceal(found, head)?;
        cx.identify(principal);
        Ok(Flow::Next)
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
