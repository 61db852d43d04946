//! Keys that the gateway signs its own tokens with. One signs, the others still verify what they have
//! signed before; services find the public ones at `builtin: jwks`.

use std::sync::Arc;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::base::units::Secret;
use crate::base::yaml::Place;
use crate::parts::env::Env;
use crate::parts::filters::KeyConfig;

/// A key that tokens of the gateway are signed with.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Its name, which tokens carry as `kid`.
    pub(crate) kid: String,
    /// The algorithm. With HS256 whoever verifies can sign; ES256 and EdDSA have a public half.
    pub(crate) alg: Alg,
    /// File with the HMAC secret, at least 32 bytes; a newline at its end does not count.
    #[serde(default)]
    pub(crate) secret_file: Option<String>,
    /// The HMAC secret itself; better a file, or `${NAME}`.
    #[serde(default)]
    pub(crate) secret: Option<Secret>,
    /// File with the private key in PEM form (PKCS #8), for ES256 and EdDSA.
    #[serde(default)]
    private_key_file: Option<String>,
    /// Whether this one signs, instead of the first.
    #[serde(default)]
    pub(crate) sign: bool,
    /// Until when its tokens are accepted, like `2027-01-31T00:00:00Z`; without it, as long as it stands
    /// here.
    #[serde(default)]
    verify_until: Option<String>,
}

/// Algorithms to sign with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(crate) enum Alg {
    HS256,
    ES256,
    EdDSA,
}

/// The keys as compiled.
pub(crate) struct Signing {
    keys: Vec<Key>,
    signer: usize,
}

pub(crate) struct Key {
    pub(crate) kid: String,
    pub(crate) alg: Alg,
    encoding: EncodingKey,
    pub(crate) decoding: DecodingKey,
    /// The public half as RFC 7517 writes it.
    public: Option<Value>,
    /// Seconds since 1970.
    pub(crate) until: Option<u64>,
}

/// Keys at most.
const MAX_KEYS: usize = 16;

impl std::fmt::Debug for Signing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.kid)).finish()
    }
}

impl Alg {
    fn algorithm(self) -> Algorithm {
        match self {
            Self::HS256 => Algorithm::HS256,
            Self::ES256 => Algorithm::ES256,
            Self::EdDSA => Algorithm::EdDSA,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::ES256 => "ES256",
            Self::EdDSA => "EdDSA",
        }
    }
}

/// Compiles the list.
pub(crate) fn build(configs: &[Config], at: &Place<'_>, env: &mut Env<'_>) -> Option<Arc<Signing>> {
    if configs.is_empty() || configs.len() > MAX_KEYS {
        env.problems
            .error(at, format!("a login signs its tokens: it needs 1 to {MAX_KEYS} keys"))
            .help("write `keys: [ { kid: main, alg: HS256, secret_file: certs/login.key } ]`");
        return None;
    }
    let mut whole = Some(Vec::new());
    for (index, config) in configs.iter().enumerate() {
        let at = at.index(index);
        if configs.iter().take(index).any(|other| other.kid == config.kid) {
            env.problems.error(&at.field("kid"), format!("two keys are named `{}`", config.kid));
            whole = None;
        }
        match (config.build(&at, env), &mut whole) {
            (Some(key), Some(keys)) => keys.push(key),
            (None, _) => whole = None,
            _ => {}
        }
    }
    let signers: Vec<usize> =
        configs.iter().enumerate().filter(|(_, key)| key.sign).map(|(at, _)| at).collect();
    if let [_, second, ..] = signers.as_slice() {
        env.problems.error(&at.index(*second).field("sign"), "another key signs already");
        return None;
    }
    let signer = signers.first().copied().unwrap_or(0);
    let keys = whole?;
    if keys.get(signer).is_some_and(|key| key.until.is_some()) {
        env.problems
            .error(&at.index(signer).field("verify_until"), "the key that signs has no end")
            .help("add a new key first, and let that one sign");
        return None;
    }
    Some(Arc::new(Signing { keys, signer }))
}

impl Config {
    fn build(&self, at: &Place<'_>, env: &mut Env<'_>) -> Option<Key> {
        if self.kid.is_empty() || self.kid.len() > 64 {
            env.problems.error(&at.field("kid"), "the name of a key has 1 to 64 characters");
            return None;
        }
        let until = match self.verify_until.as_deref().map(str::parse::<jiff::Timestamp>) {
            None => None,
            Some(Ok(time)) => Some(u64::try_from(time.as_second()).unwrap_or(0)),
            Some(Err(_)) => {
                env.problems
                    .error(&at.field("verify_until"), "this is not a moment")
                    .help("write it like 2027-01-31T00:00:00Z");
                return None;
            }
        };
        let (encoding, decoding, public) = match self.alg {
            Alg::HS256 => {
                if self.private_key_file.is_some() {
                    env.problems.error(
                        &at.field("private_key_file"),
                        "HS256 has a secret and no private key",
                    );
                    return None;
                }
                let secret = self.hmac().secret_bytes(at, env)?;
                (EncodingKey::from_secret(&secret), DecodingKey::from_secret(&secret), None)
            }
            Alg::ES256 | Alg::EdDSA => self.pair(at, env)?,
        };
        let (kid, alg) = (self.kid.clone(), self.alg);
        Some(Key { kid, alg, encoding, decoding, public, until })
    }

    /// The same as a key of a `jwt` filter.
    pub(crate) fn hmac(&self) -> KeyConfig {
        KeyConfig::hmac(&self.kid, self.secret_file.as_ref(), self.secret.as_ref())
    }

    fn pair(
        &self,
        at: &Place<'_>,
        env: &mut Env<'_>,
    ) -> Option<(EncodingKey, DecodingKey, Option<Value>)> {
        let (Some(path), None, None) = (&self.private_key_file, &self.secret_file, &self.secret)
        else {
            env.problems
                .error(at, format!("{} needs private_key_file and no secret", self.alg.as_str()));
            return None;
        };
        let at = at.field("private_key_file");
        let pem = env.secret_file(&at, path)?;
        let made = pair(self.alg, &self.kid, &pem);
        if made.is_none() {
            let how = match self.alg {
                Alg::EdDSA => "openssl genpkey -algorithm ed25519",
                _ => "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256",
            };
            env.problems
                .error(&at, format!("not a private key for {}", self.alg.as_str()))
                .help(format!("make one with `{how}`"));
        }
        made
    }
}

fn pair(alg: Alg, kid: &str, pem: &[u8]) -> Option<(EncodingKey, DecodingKey, Option<Value>)> {
    let der = PrivateKeyDer::from_pem_slice(pem).ok()?;
    let der = der.secret_der();
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    if alg == Alg::EdDSA {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok()?;
        let x = text(pair.public_key().as_ref());
        let public = json!({
            "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": kid, "x": x,
        });
        let keys = (EncodingKey::from_ed_pem(pem).ok()?, DecodingKey::from_ed_components(&x).ok()?);
        return Some((keys.0, keys.1, Some(public)));
    }
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).ok()?;
    // An uncompressed point: 4, then both coordinates.
    let point = pair.public_key().as_ref();
    let (x, y) = (text(point.get(1..33)?), text(point.get(33..65)?));
    let public = json!({
        "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": kid, "x": x, "y": y,
    });
    let decoding = DecodingKey::from_ec_components(&x, &y).ok()?;
    Some((EncodingKey::from_ec_pem(pem).ok()?, decoding, Some(public)))
}

impl Signing {
    /// A token with these claims.
    pub(crate) fn sign(&self, claims: &Map<String, Value>) -> Option<String> {
        Self::sign_with(self.keys.get(self.signer)?, claims)
    }

    /// The same with the key of this name, even if it does not sign any more.
    pub(crate) fn sign_as(&self, kid: &str, claims: &Map<String, Value>) -> Option<String> {
        Self::sign_with(self.keys.iter().find(|key| key.kid == kid)?, claims)
    }

    fn sign_with(key: &Key, claims: &Map<String, Value>) -> Option<String> {
        let mut header = Header::new(key.alg.algorithm());
        header.kid = Some(key.kid.clone());
        jsonwebtoken::encode(&header, claims, &key.encoding).ok()
    }

    /// The keys whose tokens are accepted now.
    pub(crate) fn accepted(&self, now: u64) -> impl Iterator<Item = &Key> {
        self.keys.iter().filter(move |key| key.until.is_none_or(|until| until > now))
    }

    /// Until when tokens of this key are accepted, if that has an end.
    pub(crate) fn until(&self, kid: Option<&str>) -> Option<u64> {
        let named = |key: &&Key| kid.is_none_or(|kid| kid == key.kid);
        self.keys.iter().find(named)?.until
    }

    /// The public keys as a set (RFC 7517 section 5).
    pub(crate) fn public(&self, now: u64) -> String {
        let keys: Vec<&Value> = self.accepted(now).filter_map(|key| key.public.as_ref()).collect();
        json!({ "keys": keys }).to_string()
    }
}
