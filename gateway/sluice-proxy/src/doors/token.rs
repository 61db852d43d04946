//! Makes tokens that this config's `jwt` filters accept, for trying a gateway out. Works only where
//! the config holds the secret (HS256 and its kin); other keys are public here.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Map, Value};

use super::app::{Environment, Origin, Rejected};
use super::input::Values;
use zeroize::Zeroizing;

use crate::base::clock;
use crate::base::problem::{Problems, render};
use crate::base::yaml::{Place, parse};
use crate::lasting::retained::Retained;
use crate::lasting::telemetry::metrics::Metrics;
use crate::parts::env::Env;
use crate::parts::filters::{Declared, KeyConfig};
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
    let Some((key, at)) = find(&config, &at, request.kid.as_deref()) else {
        return Err(Rejected(format!(
            "{}: error: no jwt filter has an HS256, HS384 or HS512 key{}",
            origin.name(),
            request.kid.as_ref().map(|kid| format!(" named `{kid}`")).unwrap_or_default()
        )));
    };
    match secret(key, &at, &base, config.development, &mut problems) {
        Some(secret) => sign(key, &secret, request),
        None => Err(refuse(&problems)),
    }
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

fn secret(
    key: &KeyConfig,
    at: &Place<'_>,
    base: &Path,
    development: bool,
    problems: &mut Problems,
) -> Option<Zeroizing<Vec<u8>>> {
    let mut env = Env {
        apps: Arc::default(),
        retained: &Retained::default(),
        metrics: &Arc::new(Metrics::new(1)),
        problems,
        redis: None,
        names: Arc::default(),
        key_sets: Vec::new(),
        base,
        development,
        // A secret that does not exist yet is made, so that the gateway finds it at its start.
        may_write: true,
        limits: HashSet::new(),
        files: Vec::new(),
    };
    key.secret_bytes(at, &mut env)
}

fn sign(key: &KeyConfig, secret: &[u8], request: &TokenRequest) -> Result<String, Rejected> {
    let mut header = Header::new(key.alg.algorithm());
    header.kid = Some(key.kid.clone());
    let now = clock::unix_seconds();
    let mut claims = request.claims.clone();
    claims.entry("iat").or_insert_with(|| now.into());
    claims.entry("exp").or_insert_with(|| now.saturating_add_signed(request.lifetime).into());
    jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret))
        .map_err(|error| Rejected(format!("cannot sign: {error}")))
}
