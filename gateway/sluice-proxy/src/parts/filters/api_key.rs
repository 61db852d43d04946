//! Knows callers by a key that they show. Only hashes of keys are kept, and a key is found by its hash: how
//! long that takes says nothing of keys that somebody else holds.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::{constant_time, digest, hmac};
use foldhash::fast::RandomState;
use http::request::Parts;
use schemars::JsonSchema;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::jwt::carrier::{self, Carriers};
use super::{Flow, Hooks};
use crate::base::clock;
use crate::base::cx::Cx;
use crate::base::fault::Fault;
use crate::base::yaml::Place;
use crate::parts::env::{Env, Owner};
use crate::parts::key_records::{self, Holder, Proof, Purpose, Record, Shared};

/// Bytes of a pepper.
const MIN_PEPPER: usize = 32;

/// Knows the caller by a key that it shows.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ApiKey")]
pub(crate) struct Config {
    /// Where requests carry the key.
    #[serde(default = "default_from")]
    from: Vec<carrier::Config>,
    /// The keys, by their hashes.
    #[serde(default)]
    keys: Vec<Record>,
    /// Look for keys that are not here in Redis, under `sluice:api_key:HASH`.
    #[serde(default)]
    redis_keys: bool,
    /// File with a secret of at least 32 bytes that hashes are made with: without it, whoever has the hashes
    /// cannot even try keys.
    #[serde(default)]
    pepper_file: Option<String>,
    /// Whether services see the key.
    #[serde(default)]
    forward_key: bool,
}

fn default_from() -> Vec<carrier::Config> {
    vec![carrier::Config::header("X-Api-Key")]
}

type Hash = [u8; 32];

impl Config {
    pub(crate) fn build(&self, at: &Place<'_>, _: &Owner, env: &mut Env<'_>) -> Option<ApiKey> {
        let carriers = carrier::build(&self.from, Some(self.forward_key), &at.field("from"), env);
        if self.keys.is_empty() && !self.redis_keys {
            env.problems
                .error(at, "nobody could call: there are no keys")
                .help("write `keys: [ { id: partner, hash: ... } ]` with what `sluice key` prints, or `redis_keys: true`");
            return None;
        }
        let pepper = match &self.pepper_file {
            None => None,
            Some(path) => {
                let place = at.field("pepper_file");
                let pepper = key_records::trimmed(env.secret_file(&place, path)?);
                if pepper.len() < MIN_PEPPER {
                    let length = pepper.len();
                    let message = format!("the pepper has {length} bytes; {MIN_PEPPER} are needed");
                    env.problems
                        .error(&place, message)
                        .help("make one with `openssl rand -base64 48`");
                    return None;
                }
                Some(pepper)
            }
        };
        let holders = key_records::build(&self.keys, Purpose::ApiKey, &at.field("keys"), env)?;
        let mut known = HashMap::with_hasher(RandomState::default());
        let mut in_order: Vec<_> = holders.values().collect();
        in_order.sort_by(|one, other| one.id.cmp(&other.id));
        for holder in in_order {
            for (which, hash) in hashes(holder) {
                let clash: Option<(Arc<Holder>, usize)> =
                    known.insert(*hash, (Arc::clone(holder), which));
                if let Some((other, _)) = clash {
                    let message = format!("`{}` and `{}` have the same key", other.id, holder.id);
                    env.problems.error(&at.field("keys"), message);
                    return None;
                }
            }
        }
        let purpose = Purpose::ApiKey;
        let shared = key_records::shared(self.redis_keys, "sluice:api_key:", purpose, at, env)?;
        Some(ApiKey { carriers: carriers?, known, shared, pepper })
    }

    /// Names of cookies and parameters that carry keys.
    pub(crate) fn names_of_tokens(&self) -> impl Iterator<Item = &str> {
        self.from.iter().filter_map(carrier::Config::name)
    }
}

/// The hashes of a record, with the place of each.
fn hashes(holder: &Holder) -> impl Iterator<Item = (usize, &Hash)> {
    holder.proofs.iter().enumerate().filter_map(|(which, proof)| match proof {
        Proof::Hash(hash) => Some((which, hash)),
        Proof::Secret(_) | Proof::Public(_) => None,
    })
}

pub(crate) struct ApiKey {
    carriers: Carriers,
    known: HashMap<Hash, (Arc<Holder>, usize), RandomState>,
    shared: Option<Shared>,
    pepper: Option<Zeroizing<Vec<u8>>>,
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiKey").field("keys", &self.known.len()).finish_non_exhaustive()
    }
}

impl Hooks for ApiKey {
    async fn on_request(&self, cx: &mut Cx, head: &mut Parts) -> Result<Flow, Fault> {
        let (key, found) = self.carriers.find(head).map_err(|fault| match fault {
            Fault::TokenMissing => Fault::ApiKeyMissing,
            Fault::TokenInvalid => Fault::ApiKeyInvalid,
            other => other,
        })?;
        let hash = hash(key, self.pepper.as_ref().map(|pepper| pepper.as_slice()));
        let (holder, which) = match self.known.get(&hash) {
            Some((holder, which)) => (Arc::clone(holder), *which),
            None => self.look_up(&hash).await?.ok_or(Fault::ApiKeyInvalid)?,
        };
        holder.judge(which, clock::unix_seconds(), cx.client)?;
        self.carriers.conceal(found, head)?;
        cx.join(&holder.principal);
        cx.key_name = Some(Arc::clone(&holder.id));
        Ok(Flow::Next)
    }
}

impl ApiKey {
    async fn look_up(&self, hash: &Hash) -> Result<Option<(Arc<Holder>, usize)>, Fault> {
        let Some(shared) = &self.shared else { return Ok(None) };
        let Some(holder) = shared.find(&hex(hash)).await? else { return Ok(None) };
        // What is kept under the hash has to be about it.
        let same = |own: &Hash| constant_time::verify_slices_are_equal(own, hash).is_ok();
        let which = hashes(&holder).find(|(_, own)| same(own)).map(|(which, _)| which);
        Ok(which.map(|which| (holder, which)))
    }
}

/// What is kept of a key: its SHA-256, or with a pepper its HMAC-SHA256.
fn hash(key: &[u8], pepper: Option<&[u8]>) -> Hash {
    let mut out = [0; 32];
    match pepper {
        Some(pepper) => {
            let pepper = hmac::Key::new(hmac::HMAC_SHA256, pepper);
            out.copy_from_slice(hmac::sign(&pepper, key).as_ref());
        }
        None => out.copy_from_slice(digest::digest(&digest::SHA256, key).as_ref()),
    }
    out
}

fn hex(hash: &Hash) -> String {
    let mut out = [0; 64];
    sluice_engine::trace::write_hex(hash, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// A new key of 256 bits, or `None` if the system has no randomness.
pub(crate) fn mint() -> Option<String> {
    use base64::Engine as _;
    let mut random = Zeroizing::new([0_u8; 32]);
    aws_lc_rs::rand::fill(random.as_mut_slice()).ok()?;
    Some(format!(
        "slk_{}",
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random.as_slice())
    ))
}

/// The hash of a key as a record has it.
pub(crate) fn hash_text(key: &str, pepper: Option<&[u8]>) -> String {
    format!("sha256:{}", hex(&hash(key.as_bytes(), pepper)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_that_any_program_makes() {
        // `printf abc | sha256sum`, and RFC 4231's second test case.
        assert_eq!(
            hash_text("abc", None),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            hash_text("what do ya want for nothing?", Some(b"Jefe")),
            "sha256:5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn keys_are_long_and_never_the_same() {
        let (one, two) = (mint().unwrap(), mint().unwrap());
        assert!(one.starts_with("slk_") && one.len() == 47 && one != two, "{one} {two}");
    }
}
