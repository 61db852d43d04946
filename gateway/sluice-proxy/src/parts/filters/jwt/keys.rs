//! Keys that tokens may be signed with. Each key has one algorithm, fixed in the config; weak and
//! mismatched keys are refused when the config is compiled, since the library does not do it.

use std::collections::HashMap;
use std::path::Path;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use schemars::JsonSchema;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::claims::Claims;
use crate::base::fault::Fault;
use crate::base::units::Secret;
use crate::base::yaml::Place;
use crate::parts::env::{Env, digest};

/// Bytes an HMAC secret needs at least (RFC 7518 section 3.2).
const MIN_SECRET: usize = 32;

/// One key: an HMAC secret, or a public key in PEM form.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyConfig {
    /// The name tokens use in `kid`. A single key also serves tokens without `kid`.
    pub(crate) kid: String,
    /// The one algorithm this key is for.
    pub(crate) alg: Alg,
    /// File with the HMAC secret, at least 32 bytes; a newline at its end does not count.
    #[serde(default)]
    pub(crate) secret_file: Option<String>,
    /// The HMAC secret itself; better a file, or `${NAME}`.
    #[serde(default)]
    pub(crate) secret: Option<Secret>,
    /// File with the public key in PEM form, for RS, PS, ES and EdDSA.
    #[serde(default)]
    pub(crate) public_key_file: Option<String>,
}

/// Algorithms of RFC 7518 and RFC 8037 that are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(crate) enum Alg {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl Alg {
    pub(crate) fn algorithm(self) -> Algorithm {
        match self {
            Self::HS256 => Algorithm::HS256,
            Self::HS384 => Algorithm::HS384,
            Self::HS512 => Algorithm::HS512,
            Self::RS256 => Algorithm::RS256,
            Self::RS384 => Algorithm::RS384,
            Self::RS512 => Algorithm::RS512,
            Self::PS256 => Algorithm::PS256,
            Self::PS384 => Algorithm::PS384,
            Self::PS512 => Algorithm::PS512,
            Self::ES256 => Algorithm::ES256,
            Self::ES384 => Algorithm::ES384,
            Self::EdDSA => Algorithm::EdDSA,
        }
    }

    pub(crate) fn is_hmac(self) -> bool {
        matches!(self, Self::HS256 | Self::HS384 | Self::HS512)
    }
}

/// Compiled keys by name.
pub(crate) struct Keys {
    by_kid: HashMap<String, Key>,
    /// The key of tokens that name none: only when there is just one.
    only: Option<String>,
}

struct Key {
    key: DecodingKey,
    validation: Validation,
    algorithm: Algorithm,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.by_kid.keys()).finish()
    }
}

// === Building ===

pub(super) fn build(configs: &[KeyConfig], at: &Place<'_>, env: &mut Env<'_>) -> Option<Keys> {
    if configs.is_empty() {
        env.problems
            .error(at, "a jwt filter needs at least one key")
            .help("write `keys: [ { kid: main, alg: HS256, secret_file: certs/jwt.key } ]`");
        return None;
    }
    let mut by_kid = HashMap::new();
    let mut whole = true;
    for (index, config) in configs.iter().enumerate() {
        let at = at.index(index);
        if by_kid.contains_key(&config.kid) {
            env.problems.error(&at.field("kid"), format!("two keys are named `{}`", config.kid));
            whole = false;
            continue;
        }
        match config.build(&at, env) {
            Some(key) => {
                by_kid.insert(config.kid.clone(), key);
            }
            None => whole = false,
        }
    }
    let only = (configs.len() == 1).then(|| configs.first().map(|c| c.kid.clone())).flatten();
    whole.then_some(Keys { by_kid, only })
}

impl KeyConfig {
    fn build(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Key> {
        let key = if self.alg.is_hmac() {
            let secret = self.secret_bytes(at, env)?;
            DecodingKey::from_secret(&secret)
        } else {
            self.public_key(at, env)?
        };
        let algorithm = self.alg.algorithm();
        let mut validation = Validation::new(algorithm);
        // Times, issuer and audience are checked on our own reading of the claims, which refuses
        // duplicate members; the library checks the signature.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        Some(Key { key, validation, algorithm })
    }

    /// The HMAC secret, made if this is a development config and the file is not there.
    pub(crate) fn secret_bytes(
        &self,
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> Option<Zeroizing<Vec<u8>>> {
        let (secret, place) = match (&self.secret_file, &self.secret, &self.public_key_file) {
            (Some(path), None, None) => {
                let place = at.field("secret_file");
                let full = env.path(path);
                if env.development && !full.exists() {
                    let secret = development_secret(&full, env.may_write);
                    let made = Zeroizing::new(std::fs::read(&full).unwrap_or_default());
                    env.files.push((full, digest(&made)));
                    return Some(secret);
                }
                (trim_newline(env.secret_file(&place, path)?), place)
            }
            (None, Some(secret), None) => {
                (secret.expose().as_bytes().to_vec().into(), at.field("secret"))
            }
            _ => {
                env.problems.error(
                    at,
                    format!("{:?} needs exactly one of secret_file and secret", self.alg),
                );
                return None;
            }
        };
        if secret.len() < MIN_SECRET {
            env.problems
                .error(
                    &place,
                    format!("the secret has {} bytes; {MIN_SECRET} are needed", secret.len()),
                )
                .help("make one with `openssl rand -base64 48`");
            return None;
        }
        Some(secret)
    }

    fn public_key(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<DecodingKey> {
        let (Some(path), None, None) = (&self.public_key_file, &self.secret_file, &self.secret)
        else {
            env.problems.error(at, format!("{:?} needs public_key_file and no secret", self.alg));
            return None;
        };
        let at = at.field("public_key_file");
        let pem = env.file(&at, path)?;
        if pem.windows(11).any(|w| w == b"PRIVATE KEY") {
            env.problems
                .error(&at, "this file holds a private key; the gateway needs the public one only")
                .help("make it with `openssl pkey -in private.pem -pubout -out public.pem`");
            return None;
        }
        let parsed = match self.alg {
            Alg::ES256 | Alg::ES384 => DecodingKey::from_ec_pem(&pem),
            Alg::EdDSA => DecodingKey::from_ed_pem(&pem),
            _ => DecodingKey::from_rsa_pem(&pem),
        };
        match parsed {
            Ok(key) => Some(key),
            Err(error) => {
                env.problems.error(&at, format!("not a public key for {:?}: {error}", self.alg));
                None
            }
        }
    }
}

fn trim_newline(mut bytes: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    while bytes.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
        bytes.pop();
    }
    bytes
}

/// A random secret, written where `sluice token` will find it; kept in memory if that fails.
fn development_secret(path: &Path, may_write: bool) -> Zeroizing<Vec<u8>> {
    use base64::Engine as _;
    let mut random = [0_u8; 48];
    if aws_lc_rs::rand::fill(&mut random).is_err() {
        tracing::error!("the system has no randomness; the development secret is not usable");
    }
    let text = base64::engine::general_purpose::STANDARD.encode(random);
    if may_write && let Err(error) = crate::parts::tls::write_private(path, text.as_bytes()) {
        tracing::warn!(path = %path.display(), %error,
            "cannot keep the development JWT secret; it lives in memory, so `sluice token` cannot use it");
    }
    text.into_bytes().into()
}

// === Verifying ===

impl Keys {
    /// Checks header and signature; the claims still have to be judged.
    pub(super) fn verify(
        &self,
        token: &str,
    ) -> Result<serde_json::Map<String, serde_json::Value>, Fault> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| Fault::TokenInvalid)?;
        let kid = header.kid.as_ref().or(self.only.as_ref()).ok_or(Fault::TokenInvalid)?;
        let key = self.by_kid.get(kid).ok_or(Fault::TokenInvalid)?;
        // RFC 7515 section 4.1.11: extensions that are not understood must be refused.
        if header.alg != key.algorithm || has_critical(token) {
            return Err(Fault::TokenInvalid);
        }
        let token = jsonwebtoken::decode::<Claims>(token, &key.key, &key.validation)
            .map_err(|_| Fault::TokenInvalid)?;
        Ok(token.claims.0)
    }
}

fn has_critical(token: &str) -> bool {
    use base64::Engine as _;
    let head = token.split('.').next().unwrap_or("");
    let decoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(head).unwrap_or_default();
    serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&decoded)
        .map_or(true, |header| header.contains_key("crit"))
}
