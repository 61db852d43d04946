//! Where codes and sessions are kept, and the keys they are sealed with.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::units::Secret;
use crate::base::yaml::Place;
use crate::lasting::vault::{KeyError, Ring, Shelf, Vault};
use crate::parts::env::Env;

/// Where codes and sessions are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Choice {
    /// In Redis where one is configured; else codes are kept in this process, and there are no sessions.
    #[default]
    Auto,
    /// In Redis.
    Redis,
    /// In this process: for a single gateway, whose restart ends all sessions.
    Memory,
}

/// A key that values are sealed with (AES-256-GCM).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyConfig {
    /// Its name, which stands beside what it has sealed.
    kid: String,
    /// At least 32 bytes that nobody can guess.
    secret: Secret,
}

/// Where a login keeps what.
pub(crate) struct Stores {
    /// What need not last, and is lost with the process.
    pub(crate) here: Vault,
    /// What gateways share.
    pub(crate) shared: Option<Vault>,
    /// What outlives a request: sessions.
    pub(crate) lasting: Option<Vault>,
}

/// Compiles the choice.
pub(crate) fn build(
    choice: Choice,
    keys: &[KeyConfig],
    at: &Place<'_>,
    env: &mut Env<'_>,
) -> Option<Stores> {
    let Ok(ring) = Ring::random() else {
        env.problems.error(at, "the system has no randomness for keys");
        return None;
    };
    // Kept over reloads, or what was sealed before could not be opened after.
    let ring = env.retained.cell("ring of login", || ring);
    let shelf = env.retained.cell("shelf of login", Shelf::default);
    let here = Vault::here(shelf, ring);
    let redis = env.redis.clone();
    match (choice, redis) {
        (Choice::Redis, None) => {
            env.problems
                .error(&at.field("store"), "there is no Redis to keep sessions in")
                .help("write `redis: { url: redis://host:6379 }`, or `store: memory`");
            None
        }
        (Choice::Memory, _) => {
            env.problems
                .warn(
                    &at.field("store"),
                    "sessions are kept in this process: a restart ends them all",
                )
                .help("with several gateways, or to let sessions outlive a restart, use Redis");
            Some(Stores { lasting: Some(here.clone()), here, shared: None })
        }
        (Choice::Auto, None) => {
            env.problems
                .warn(
                    at,
                    "without Redis a login gives no refresh token, and a logout is known here only",
                )
                .help("write `redis: { url: ... }`; `store: memory` serves a single gateway");
            Some(Stores { here, shared: None, lasting: None })
        }
        (Choice::Auto | Choice::Redis, Some(redis)) => {
            let ring = ring_of(keys, &at.field("store_keys"), env)?;
            let shared = Vault::shared(redis, Arc::new(ring));
            Some(Stores { here, lasting: Some(shared.clone()), shared: Some(shared) })
        }
    }
}

/// The keys that seal and open.
pub(crate) fn ring_of(keys: &[KeyConfig], at: &Place<'_>, env: &mut Env<'_>) -> Option<Ring> {
    if keys.is_empty() {
        env.problems
            .error(at, "what is kept in Redis is sealed, and needs a key")
            .help("write `store_keys: [ { kid: s1, secret: \"${file:/run/secrets/store}\" } ]`");
        return None;
    }
    for (index, key) in keys.iter().enumerate() {
        let at = at.index(index);
        if keys.iter().take(index).any(|other| other.kid == key.kid) {
            env.problems.error(&at.field("kid"), format!("two keys are named `{}`", key.kid));
            return None;
        }
        let secret = key.secret.expose().trim_end_matches(['\n', '\r']);
        match Ring::new([(key.kid.as_str(), secret.as_bytes())]) {
            Ok(_) => {}
            Err(KeyError::Name) => {
                env.problems.error(&at.field("kid"), "the name of a key has 1 to 64 characters");
                return None;
            }
            Err(KeyError::Short) => {
                env.problems
                    .error(&at.field("secret"), "the secret is too short; 32 bytes are needed")
                    .help("make one with `openssl rand -base64 48`");
                return None;
            }
            Err(KeyError::Unusable) => {
                env.problems.error(&at, "this key cannot be used");
                return None;
            }
        }
    }
    let all = keys.iter().map(|key| {
        (key.kid.as_str(), key.secret.expose().trim_end_matches(['\n', '\r']).as_bytes())
    });
    Ring::new(all).ok()
}
