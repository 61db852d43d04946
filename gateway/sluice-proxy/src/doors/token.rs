//! Makes tokens that this config's `jwt` filters accept, for trying a gateway out. Works only where
//! the config holds the secret: HS256 and its kin in filters, any key of `login`.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Map, Value};

use super::app::{Environment, Origin, Rejected};
use super::input::Values;

use crate::base::clock;
use crate::base::problem::{Problems, render};
use crate::base::yaml::{Place, parse};
use crate::lasting::retained::Retained;
use crate::lasting::telemetry::metrics::Metrics;
use crate::parts::env::Env;
use crate::parts::filters::{Declared, KeyConfig};
use crate::parts::login;
use crate::snapshot::config::Config;

/// What a token should say.
#[derive(Debug, Default)]
pub struct TokenRequest {
    /// The key to sign with; the first usable one if not given.
    pub kid: Option<String>,
    /// Claims beside `iat` and `exp`.
    pub claims: Map<String, Value>,
    /// Seconds until it expires; may be negative, to see how an expired one is refused.
    pub lifetime: i64,
}

/// Signs a token with a secret of the config.
///
/// # Errors
///
/// Problems of the config, or that it holds no usable secret.
pub fn mint(
    origin: &Origin,
    environment: &Environment,
    request: &TokenRequest,
) -> Result<String, Rejected> {
    let source = origin
        .read()
        .map_err(|error| Rejected(format!("{}: error: cannot be read: {error}", origin.name())))?;
    let base = origin.base();
    let refuse = |problems: &Problems| Rejected(render(problems, Some(&source)));
    let root = parse(&source, &Values { environment, base: &base }).map_err(|p| refuse(&p))?;
    let mut problems = Problems::new(source.name.as_str());
    let config = Config::read(&root, &mut problems).filter(|_| !problems.has_errors());
    let Some(config) = config else { return Err(refuse(&problems)) };
    let at = Place::root(&root);
    let place = Work { base: &base, development: config.development };
    if let Some((key, at)) = find(&config, &at, request.kid.as_deref()) {
        let secret = place.with(&mut problems, |env| key.secret_bytes(&at, env));
        return match secret {
            Some(secret) => sign(key, &secret, request),
            None => Err(refuse(&problems)),
        };
    }
    let named = |login: &&login::Config| {
        request.kid.as_ref().is_none_or(|kid| login.keys.iter().any(|key| key.kid == *kid))
    };
    let Some(login) = config.login.as_ref().filter(named) else {
        return Err(Rejected(format!(
            "{}: error: neither `login` nor a jwt filter has a key to sign with{}",
            origin.name(),
            request.kid.as_ref().map(|kid| format!(" named `{kid}`")).unwrap_or_default()
        )));
    };
    let at = at.field("login").field("keys");
    let signing = place.with(&mut problems, |env| login::keys::build(&login.keys, &at, env));
    let Some(signing) = signing else { return Err(refuse(&problems)) };
    let mut claims = claims(request);
    claims.entry("iss").or_insert_with(|| login.token.issuer().into());
    let signed = match &request.kid {
        None => signing.sign(&claims),
        Some(kid) => signing.sign_as(kid, &claims),
    };
    signed.ok_or_else(|| Rejected("cannot sign with this key".to_owned()))
}

/// The key and its place: of all filters, the first that fits.
fn find<'c, 'n>(
    config: &'c Config,
    at: &Place<'n>,
    kid: Option<&str>,
) -> Option<(&'c KeyConfig, Place<'n>)> {
    let global = at.field("filters");
    let groups = at.field("groups");
    let routes = at.field("routes");
    let mut chains = vec![(config.filters.as_slice(), global)];
    for (index, group) in config.groups.iter().enumerate() {
        chains.push((group.filters.as_slice(), groups.index(index).field("filters")));
    }
    for (index, route) in config.routes.iter().enumerate() {
        chains.push((route.filters.as_slice(), routes.index(index).field("filters")));
    }
    for (chain, at) in chains {
        for (index, filter) in chain.iter().enumerate() {
            let Declared::Jwt(jwt) = filter else { continue };
            let at = at.index(index).field("jwt").field("keys");
            for (index, key) in jwt.keys.iter().enumerate() {
                if key.alg.is_hmac() && kid.is_none_or(|kid| kid == key.kid) {
                    return Some((key, at.index(index)));
                }
            }
        }
    }
    None
}

/// What building a key needs.
struct Work<'a> {
    base: &'a Path,
    development: bool,
}

impl Work<'_> {
    fn with<T>(&self, problems: &mut Problems, build: impl FnOnce(&mut Env<'_>) -> T) -> T {
        build(&mut Env {
            apps: Arc::default(),
            retained: &Retained::default(),
            metrics: &Arc::new(Metrics::new(1)),
            problems,
            redis: None,
            has_login: false,
            login: None,
            has_broker: false,
            names: Arc::default(),
            key_sets: Vec::new(),
            lists: Vec::new(),
            base: self.base,
            development: self.development,
            // A secret that does not exist yet is made, so that the gateway finds it at its start.
            may_write: true,
            limits: HashSet::new(),
            files: Vec::new(),
        })
    }
}

fn claims(request: &TokenRequest) -> Map<String, Value> {
    let now = clock::unix_seconds();
    let mut claims = request.claims.clone();
    claims.entry("iat").or_insert_with(|| now.into());
    claims.entry("exp").or_insert_with(|| now.saturating_add_signed(request.lifetime).into());
    claims
}

fn sign(key: &KeyConfig, secret: &[u8], request: &TokenRequest) -> Result<String, Rejected> {
    let mut header = Header::new(key.alg.algorithm());
    header.kid = Some(key.kid.clone());
    jsonwebtoken::encode(&header, &claims(request), &EncodingKey::from_secret(secret))
        .map_err(|error| Rejected(format!("cannot sign: {error}")))
}
