//! Records of keys: who holds one, what it proves, and how long it is good for. The filters `signature`
//! and `api_key` share them. A record stands in the config, or in Redis in the same words as JSON.
//!
//! The one rule: what is wrong with a caller's secret is never told apart from there being no such key.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use sluice_engine::cidr::{Set, parse_net};
use zeroize::Zeroizing;

use super::env::Env;
use crate::base::cx::Principal;
use crate::base::fault::Fault;
use crate::base::units::Secret;
use crate::base::yaml::Place;

mod shared;

pub(crate) use shared::Shared;

/// Keys in one list.
const MOST_KEYS: usize = 10_000;
/// Bytes of a secret that signs.
const MIN_SECRET: usize = 16;
/// What stands before the 32 bytes of an Ed25519 key in its DER form (RFC 8410).
const ED25519_DER: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// A key and who holds it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "KeyRecord")]
pub(crate) struct Record {
    /// The name of the key, its AppID: up to 128 visible characters.
    id: String,
    /// `signature`: the secret, at least 16 bytes; better a file.
    #[serde(default)]
    secret: Option<Secret>,
    /// `signature`: a file with the secret, read again when it changes.
    #[serde(default)]
    secret_file: Option<String>,
    /// The secret before, accepted too while clients change over.
    #[serde(default)]
    previous_secret: Option<Secret>,
    /// A file with the secret before.
    #[serde(default)]
    previous_secret_file: Option<String>,
    /// `signature` with `rfc9421`: an Ed25519 key, as PEM or as the Base64 of its 32 bytes.
    #[serde(default)]
    public_key: Option<String>,
    /// The Ed25519 key before.
    #[serde(default)]
    previous_public_key: Option<String>,
    /// `api_key`: the hash of the key, as `sluice key` prints it.
    #[serde(default)]
    hash: Option<String>,
    /// The hash of the key before.
    #[serde(default)]
    previous_hash: Option<String>,
    /// Until when the one before is accepted, like `2027-01-31T00:00:00Z`; always if not given.
    #[serde(default)]
    previous_until: Option<String>,
    /// Until when the key is good at all.
    #[serde(default)]
    not_after: Option<String>,
    /// Addresses or networks it may be used from; empty means any.
    #[serde(default)]
    allow_cidrs: Vec<String>,
    /// The claim `tier` of whoever uses it.
    #[serde(default)]
    tier: Option<String>,
    /// The claim `roles`.
    #[serde(default)]
    roles: Vec<String>,
    /// The claim `scope`.
    #[serde(default)]
    scopes: Vec<String>,
}

/// What secrets of a list are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Signing with HMAC.
    Hmac,
    /// Signing with HMAC or Ed25519.
    Signature,
    /// Being shown.
    ApiKey,
}

/// A record, compiled.
pub(crate) struct Holder {
    pub(crate) id: Arc<str>,
    pub(crate) proofs: Vec<Proof>,
    /// Seconds since 1970.
    previous_until: Option<u64>,
    not_after: Option<u64>,
    allow: Option<Set>,
    /// What using it proves.
    pub(crate) principal: Arc<Principal>,
}

/// What a caller has to match.
pub(crate) enum Proof {
    Secret(Zeroizing<Vec<u8>>),
    /// An Ed25519 key.
    Public([u8; 32]),
    /// An SHA-256, or an HMAC-SHA256 with the pepper.
    Hash([u8; 32]),
}

impl std::fmt::Debug for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Holder").field(&self.id).finish()
    }
}

/// What is wrong with a record: which of its fields, and why.
pub(crate) struct Wrong(&'static str, String);

/// The contents of a record's files: of the current secret, and of the one before.
#[derive(Default)]
struct Files(Option<Zeroizing<Vec<u8>>>, Option<Zeroizing<Vec<u8>>>);

impl Record {
    /// The compiled record.
    fn holder(&self, purpose: Purpose, files: Files) -> Result<Holder, Wrong> {
        let wrong = |field, why: &str| Err(Wrong(field, why.to_owned()));
        if !(1..=128).contains(&self.id.len()) || !self.id.bytes().all(|b| b.is_ascii_graphic()) {
            return wrong("id", "an id has 1 to 128 visible ASCII characters");
        }
        let current = self.current(purpose, files.0)?;
        let previous = self.previous(purpose, files.1)?;
        let Some(current) = current else {
            return wrong("id", "a key needs something to be recognised by");
        };
        if previous.is_none() && self.previous_until.is_some() {
            return wrong("previous_until", "there is no secret before");
        }
        let mut allow = Vec::with_capacity(self.allow_cidrs.len());
        for text in &self.allow_cidrs {
            allow.push(parse_net(text).map_err(|why| Wrong("allow_cidrs", why))?);
        }
        Ok(Holder {
            id: self.id.as_str().into(),
            proofs: [Some(current), previous].into_iter().flatten().collect(),
            previous_until: moment("previous_until", self.previous_until.as_deref())?,
            not_after: moment("not_after", self.not_after.as_deref())?,
            allow: (!allow.is_empty()).then(|| Set::new(allow)),
            principal: Arc::new(Principal { claims: self.claims() }),
        })
    }

    fn current(
        &self,
        purpose: Purpose,
        file: Option<Zeroizing<Vec<u8>>>,
    ) -> Result<Option<Proof>, Wrong> {
        let given = [
            secret("secret", self.secret.as_ref())?,
            secret("secret_file", file)?,
            public("public_key", self.public_key.as_deref())?,
            hash("hash", self.hash.as_deref())?,
        ];
        one(given, purpose)
    }

    fn previous(
        &self,
        purpose: Purpose,
        file: Option<Zeroizing<Vec<u8>>>,
    ) -> Result<Option<Proof>, Wrong> {
        let given = [
            secret("previous_secret", self.previous_secret.as_ref())?,
            secret("previous_secret_file", file)?,
            public("previous_public_key", self.previous_public_key.as_deref())?,
            hash("previous_hash", self.previous_hash.as_deref())?,
        ];
        one(given, purpose)
    }

    fn claims(&self) -> Map<String, Value> {
        let mut claims = Map::new();
        claims.insert("key".to_owned(), self.id.as_str().into());
        if let Some(tier) = &self.tier {
            claims.insert("tier".to_owned(), tier.as_str().into());
        }
        for (name, words) in [("roles", &self.roles), ("scope", &self.scopes)] {
            if !words.is_empty() {
                claims.insert(name.to_owned(), words.clone().into());
            }
        }
        claims
    }
}

impl Holder {
    /// Whether what the caller matched, the first or the second, is good now and from here.
    pub(crate) fn judge(&self, matched: usize, now: u64, client: IpAddr) -> Result<(), Fault> {
        let over = |until: Option<u64>| until.is_some_and(|until| until <= now);
        if over(self.not_after) || matched > 0 && over(self.previous_until) {
            return Err(Fault::KeyExpired);
        }
        match &self.allow {
            Some(allow) if !allow.contains(client) => Err(Fault::AddressRefused),
            _ => Ok(()),
        }
    }
}

/// Compiles a list, or records what is wrong with it.
pub(crate) fn build(
    records: &[Record],
    purpose: Purpose,
    at: &Place<'_>,
    env: &mut Env<'_>,
) -> Option<HashMap<String, Arc<Holder>>> {
    if records.len() > MOST_KEYS {
        let message = format!("{} keys; at most {MOST_KEYS}", records.len());
        env.problems.error(at, message).help("keep them in Redis, with `redis_keys: true`");
        return None;
    }
    let mut holders = HashMap::with_capacity(records.len());
    let mut whole = true;
    for (index, record) in records.iter().enumerate() {
        let at = at.index(index);
        let mut file = |field: &str, path: &Option<String>| match path {
            None => Some(None),
            Some(path) => Some(Some(trimmed(env.secret_file(&at.field(field), path)?))),
        };
        let current = file("secret_file", &record.secret_file);
        let previous = file("previous_secret_file", &record.previous_secret_file);
        let (Some(current), Some(previous)) = (current, previous) else {
            whole = false;
            continue;
        };
        match record.holder(purpose, Files(current, previous)) {
            Ok(holder) if holders.contains_key(&record.id) => {
                drop(holder);
                env.problems.error(&at.field("id"), format!("two keys are named `{}`", record.id));
                whole = false;
            }
            Ok(holder) => {
                holders.insert(record.id.clone(), Arc::new(holder));
            }
            Err(Wrong(field, why)) => {
                let place = at.field(field);
                let place = if place.node().is_some() { place } else { at };
                let problem = env.problems.error(&place, why);
                if purpose == Purpose::ApiKey && field.ends_with("hash") {
                    problem.help("make a key with `sluice key`, and write its hash here");
                } else if field.contains("secret") {
                    problem.help("make a secret with `openssl rand -base64 32`");
                }
                whole = false;
            }
        }
    }
    whole.then_some(holders)
}

/// The records in Redis, if they are wanted.
#[expect(clippy::option_option, reason = "the outer one tells of a problem")]
pub(crate) fn shared(
    wanted: bool,
    prefix: &'static str,
    purpose: Purpose,
    at: &Place<'_>,
    env: &mut Env<'_>,
) -> Option<Option<Shared>> {
    match (wanted, &env.redis) {
        (false, _) => Some(None),
        (true, Some(redis)) => Some(Some(Shared::new(Arc::clone(redis), prefix, purpose))),
        (true, None) => {
            env.problems
                .error(&at.field("redis_keys"), "there is no Redis to look in")
                .help("set `redis: { url: redis://host:6379 }`, or leave `redis_keys` out");
            None
        }
    }
}

/// Without the line end that editors leave.
pub(crate) fn trimmed(mut bytes: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    while bytes.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
        bytes.pop();
    }
    bytes
}

/// RFC 3339, in seconds since 1970.
fn moment(field: &'static str, text: Option<&str>) -> Result<Option<u64>, Wrong> {
    let Some(text) = text else { return Ok(None) };
    let parsed = text.parse::<jiff::Timestamp>().ok();
    let seconds = parsed.and_then(|at| u64::try_from(at.as_second()).ok());
    let why = || Wrong(field, format!("`{text}` is no moment: write it like 2027-01-31T00:00:00Z"));
    seconds.ok_or_else(why).map(Some)
}

/// The one that is given, if it fits.
fn one(
    given: [Option<(&'static str, Proof)>; 4],
    purpose: Purpose,
) -> Result<Option<Proof>, Wrong> {
    let mut given = given.into_iter().flatten();
    let Some((field, proof)) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(Wrong(field, "only one of secret, file, public key and hash".to_owned()));
    }
    let why = match (&proof, purpose) {
        (Proof::Hash(_), Purpose::ApiKey)
        | (Proof::Secret(_), Purpose::Hmac | Purpose::Signature)
        | (Proof::Public(_), Purpose::Signature) => return Ok(Some(proof)),
        (Proof::Hash(_), _) => "a hash cannot verify a signature: write `secret_file`",
        (_, Purpose::ApiKey) => "an API key is kept as its `hash` only",
        _ => "only `scheme: rfc9421` verifies with public keys",
    };
    Err(Wrong(field, why.to_owned()))
}

fn secret<S: Bytes>(
    field: &'static str,
    secret: Option<S>,
) -> Result<Option<(&'static str, Proof)>, Wrong> {
    let Some(secret) = secret.map(Bytes::bytes) else { return Ok(None) };
    if secret.len() < MIN_SECRET {
        let why = format!("the secret has {} bytes; {MIN_SECRET} are needed", secret.len());
        return Err(Wrong(field, why));
    }
    Ok(Some((field, Proof::Secret(secret))))
}

/// What holds the bytes of a secret.
trait Bytes {
    fn bytes(self) -> Zeroizing<Vec<u8>>;
}

impl Bytes for &Secret {
    fn bytes(self) -> Zeroizing<Vec<u8>> {
        self.expose().as_bytes().to_vec().into()
    }
}

impl Bytes for Zeroizing<Vec<u8>> {
    fn bytes(self) -> Self {
        self
    }
}

/// 64 hex digits.
fn hash(field: &'static str, text: Option<&str>) -> Result<Option<(&'static str, Proof)>, Wrong> {
    let Some(text) = text else { return Ok(None) };
    let wrong = || Wrong(field, "a hash has 64 hex digits".to_owned());
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let mut out = [0; 32];
    if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    for (at, byte) in out.iter_mut().enumerate() {
        let pair = digits.get(at * 2..at * 2 + 2).ok_or_else(wrong)?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
    }
    Ok(Some((field, Proof::Hash(out))))
}

/// An Ed25519 key as PEM or as Base64.
fn public(field: &'static str, text: Option<&str>) -> Result<Option<(&'static str, Proof)>, Wrong> {
    let Some(text) = text else { return Ok(None) };
    let wrong = || Wrong(field, "this is no Ed25519 public key".to_owned());
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with("-----"));
    let bytes = STANDARD.decode(lines.collect::<String>()).map_err(|_| wrong())?;
    let bare = bytes.strip_prefix(&ED25519_DER).unwrap_or(&bytes);
    Ok(Some((field, Proof::Public(bare.try_into().map_err(|_| wrong())?))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str) -> Record {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn k_10_of_two_secrets_the_second_ends_first() {
        let two = r#"{"id":"a","secret":"0123456789abcdef","previous_secret":"fedcba9876543210",
            "previous_until":"1970-01-01T00:01:40Z","not_after":"1970-01-01T00:03:20Z",
            "allow_cidrs":["10.0.0.0/8"]}"#;
        let holder = record(two).holder(Purpose::Hmac, Files::default()).ok().unwrap();
        let (here, there) = (IpAddr::from([10, 1, 2, 3]), IpAddr::from([11, 1, 2, 3]));
        assert_eq!(holder.judge(0, 99, here), Ok(()));
        assert_eq!(holder.judge(1, 99, here), Ok(()));
        assert_eq!(holder.judge(1, 100, here), Err(Fault::KeyExpired));
        assert_eq!(holder.judge(0, 100, here), Ok(()));
        assert_eq!(holder.judge(0, 200, here), Err(Fault::KeyExpired));
        assert_eq!(holder.judge(0, 99, there), Err(Fault::AddressRefused));
    }

    #[test]
    fn what_is_wrong_is_told_by_field() {
        let field = |text: &str, purpose| match record(text).holder(purpose, Files::default()) {
            Ok(_) => "",
            Err(Wrong(field, _)) => field,
        };
        let secret = r#"{"id":"a","secret":"0123456789abcdef"}"#;
        assert_eq!(field(secret, Purpose::Hmac), "");
        assert_eq!(field(secret, Purpose::ApiKey), "secret");
        let hashed = format!(r#"{{"id":"a","hash":"{}"}}"#, "0a".repeat(32));
        assert_eq!(field(&hashed, Purpose::ApiKey), "");
        assert_eq!(field(&hashed, Purpose::Hmac), "hash");
        let public = format!(r#"{{"id":"a","public_key":"{}"}}"#, STANDARD.encode([7; 32]));
        assert_eq!(field(&public, Purpose::Signature), "");
        assert_eq!(field(&public, Purpose::Hmac), "public_key");
        for (text, wrong) in [
            (r#"{"id":"","secret":"0123456789abcdef"}"#, "id"),
            (r#"{"id":"a b","secret":"0123456789abcdef"}"#, "id"),
            (r#"{"id":"a"}"#, "id"),
            (r#"{"id":"a","secret":"short"}"#, "secret"),
            (r#"{"id":"a","secret":"0123456789abcdef","not_after":"soon"}"#, "not_after"),
            (r#"{"id":"a","secret":"0123456789abcdef","public_key":"AAAA"}"#, "public_key"),
            (r#"{"id":"a","previous_secret":"0123456789abcdef"}"#, "id"),
            (
                r#"{"id":"a","secret":"0123456789abcdef","previous_until":"2020-01-01T00:00:00Z"}"#,
                "previous_until",
            ),
            (r#"{"id":"a","secret":"0123456789abcdef","allow_cidrs":["x"]}"#, "allow_cidrs"),
            (r#"{"id":"a","public_key":"AAAA"}"#, "public_key"),
        ] {
            assert_eq!(field(text, Purpose::Signature), wrong, "{text}");
        }
    }
}
