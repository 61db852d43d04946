//! Keys that tokens may be signed with, as the config lists them: each has one algorithm. Weak and
//! mismatched keys are refused when the config is compiled.

use std::collections::HashMap;
use std::path::Path;

use jsonwebtoken::DecodingKey;
use schemars::JsonSchema;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::form::Form;
use super::key::{Alg, Family, Key, MIN_SECRET};
use crate::base::units::Secret;
use crate::base::yaml::Place;
use crate::parts::env::{Env, digest};

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

/// Checked keys by name.
#[derive(Default)]
pub(super) struct Keys {
    by_kid: HashMap<String, Box<Key>>,
    /// The key of tokens that name none: only when there is just one.
    only: Option<String>,
    /// The one key of a set, which has no name.
    nameless: Option<Box<Key>>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.by_kid.keys()).finish()
    }
}

impl Keys {
    /// Keys that have different names.
    pub(super) fn new(by_kid: HashMap<String, Box<Key>>) -> Self {
        let only = (by_kid.len() == 1).then(|| by_kid.keys().next().cloned()).flatten();
        Self { by_kid, only, nameless: None }
    }

    /// A single key that has no name; it is for tokens that name none.
    pub(super) fn nameless(key: Box<Key>) -> Self {
        Self { nameless: Some(key), ..Self::default() }
    }

    /// The key a token asks for.
    pub(super) fn find(&self, form: &Form<'_>) -> Option<&Key> {
        match form.kid.as_ref().or(self.only.as_ref()) {
            Some(kid) => self.by_kid.get(kid).map(|key| &**key),
            None => self.nameless.as_deref(),
        }
    }

    /// Whether a key that was used before is still here.
    pub(super) fn has(&self, id: u64) -> bool {
        self.all().any(|(_, key)| key.id == id)
    }

    /// Whether both hold the same keys.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        let count = |keys: &Self| keys.all().count();
        count(self) == count(other) && self.all().all(|(_, key)| other.has(key.id))
    }

    /// Names and keys.
    pub(super) fn all(&self) -> impl Iterator<Item = (Option<&str>, &Key)> {
        let named = self.by_kid.iter().map(|(kid, key)| (Some(kid.as_str()), &**key));
        named.chain(self.nameless.as_deref().map(|key| (None, key)))
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
                by_kid.insert(config.kid.clone(), Box::new(key));
            }
            None => whole = false,
        }
    }
    whole.then(|| Keys::new(by_kid))
}

impl KeyConfig {
    fn build(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Key> {
        let (key, place) = if self.alg.is_hmac() {
            let secret = self.secret_bytes(at, env)?;
            (DecodingKey::from_secret(&secret), at.clone())
        } else {
            (self.public_key(at, env)?, at.field("public_key_file"))
        };
        let key = Key::new(&self.kid, vec![self.alg], key);
        key.map_err(|why| {
            env.problems.error(&place, format!("not a key for {:?}: {why}", self.alg))
        })
        .ok()
    }

    /// A secret for HMAC-SHA256, as another section names it.
    pub(crate) fn hmac(kid: &str, secret_file: Option<&String>, secret: Option<&Secret>) -> Self {
        Self {
            kid: kid.to_owned(),
            alg: Alg::HS256,
            secret_file: secret_file.cloned(),
            secret: secret.cloned(),
            public_key_file: None,
        }
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
        let parsed = match self.alg.family() {
            Family::P256 | Family::P384 => DecodingKey::from_ec_pem(&pem),
            Family::Ed25519 => DecodingKey::from_ed_pem(&pem),
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
