//! Reads a set of keys as issuers publish it (JSON Web Key Set, RFC 7517 section 5), and judges each
//! key. Keys for something else are passed over, as the RFC wants it; keys that contradict themselves,
//! are weak or are private are flaws. The one rule: two usable keys of one name make the whole set
//! unusable, since nobody can tell which one is meant.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::key::{Alg, Family, Key};
use super::keys::Keys;
use crate::base::units::Secret;

/// Largest set: bytes, and keys. For each key its place in the text is looked up.
pub(super) const MAX_SET: usize = 256 * 1024;
const MAX_KEYS: usize = 1000;

/// What a set held.
#[derive(Debug)]
pub(super) struct Set {
    pub(super) keys: Keys,
    pub(super) flaws: Vec<Flaw>,
}

/// Why a key, or the whole set, cannot be used; and where, counted from 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) why: String,
}

/// A set that cannot be used as a whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// There is no key in it for tokens; flaws that may be the reason.
    Empty(Vec<Flaw>),
    Flawed(Flaw),
}

impl std::fmt::Display for Flaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.why)
    }
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty(flaws) => {
                f.write_str("it holds no key that can check tokens")?;
                flaws.iter().try_for_each(|flaw| write!(f, "; {flaw}"))
            }
            Self::Flawed(flaw) => write!(f, "{flaw}"),
        }
    }
}

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// The members that matter; a member that stands twice is an error.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default, rename = "use")]
    purpose: Option<String>,
    #[serde(default)]
    key_ops: Option<Vec<String>>,
    #[serde(default)]
    crv: Option<String>,
    #[serde(default)]
    x: Option<String>,
    #[serde(default)]
    y: Option<String>,
    #[serde(default)]
    n: Option<String>,
    #[serde(default)]
    e: Option<String>,
    /// A secret.
    #[serde(default)]
    k: Option<Secret>,
    /// Whether it is a private key.
    #[serde(default, rename = "d", deserialize_with = "present")]
    is_private: bool,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// What a key is good for.
enum Verdict {
    Usable(Box<Key>),
    /// It is not meant for signatures that are served here.
    Other,
    Flawed(String),
}

/// Reads a set. `wanted` are the algorithms that tokens may have; with none given all are, but those of
/// secrets only where secrets may stand.
pub(super) fn read(text: &[u8], wanted: &[Alg], secrets: bool) -> Result<Set, Unusable> {
    let at = |line, column, why| Unusable::Flawed(Flaw { line, column, why });
    if text.len() > MAX_SET {
        return Err(at(1, 1, format!("it is larger than {} KiB", MAX_SET / 1024)));
    }
    let text = std::str::from_utf8(text).map_err(|_| at(1, 1, "it is not UTF-8".to_owned()))?;
    // The parser would take lists for objects, their members in their order.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(at(1, 1, "it is not a JSON object".to_owned()));
    }
    let raw: Raw<'_> = serde_json::from_str(text)
        .map_err(|error| at(error.line(), error.column(), reason(&error)))?;
    if raw.keys.len() > MAX_KEYS {
        let why = format!("it holds {} keys; at most {MAX_KEYS}", raw.keys.len());
        return Err(at(1, 1, why));
    }
    let mut by_kid = HashMap::new();
    let (mut nameless, mut flaws) = (Vec::new(), Vec::new());
    let usable_algs = |alg: &Alg| match wanted {
        [] => secrets || !alg.is_hmac(),
        some => some.contains(alg),
    };
    for raw in raw.keys {
        let (line, column) = place(text, raw.get());
        let flaw = |why| Flaw { line, column, why };
        if !raw.get().starts_with('{') {
            flaws.push(flaw("it is not a JSON object".to_owned()));
            continue;
        }
        let jwk = match serde_json::from_str::<Jwk>(raw.get()) {
            Ok(jwk) => jwk,
            Err(error) => {
                flaws.push(flaw(reason(&error)));
                continue;
            }
        };
        match (jwk.judge(&usable_algs), jwk.kid) {
            (Verdict::Other, _) => {}
            (Verdict::Flawed(why), kid) => {
                flaws.push(flaw(format!("key `{}`: {why}", kid.as_deref().unwrap_or_default())));
            }
            (Verdict::Usable(key), None) => nameless.push((flaw(String::new()), key)),
            (Verdict::Usable(key), Some(kid)) => {
                if by_kid.contains_key(&kid) {
                    return Err(Unusable::Flawed(flaw(format!("two keys are named `{kid}`"))));
                }
                by_kid.insert(kid, key);
            }
        }
    }
    finish(by_kid, nameless, flaws)
}

/// A key without a name is usable where it is the only one.
fn finish(
    by_kid: HashMap<String, Box<Key>>,
    mut nameless: Vec<(Flaw, Box<Key>)>,
    mut flaws: Vec<Flaw>,
) -> Result<Set, Unusable> {
    let keys = match nameless.pop() {
        Some((_, key)) if by_kid.is_empty() && nameless.is_empty() => Keys::nameless(key),
        last => {
            let unnamed = nameless.into_iter().chain(last).map(|(flaw, _)| flaw);
            flaws.extend(unnamed.map(|flaw| Flaw {
                why: "a key without `kid` among others cannot be told from them".to_owned(),
                ..flaw
            }));
            Keys::new(by_kid)
        }
    };
    if keys.all().next().is_none() {
        return Err(Unusable::Empty(flaws));
    }
    Ok(Set { keys, flaws })
}

/// The parser's words without its place, which is told beside them.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

/// Line and column at which `part`, a piece of `text`, begins.
fn place(text: &str, part: &str) -> (usize, usize) {
    let offset = (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    let before = text.get(..offset).unwrap_or_default();
    let last = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, last.chars().count() + 1)
}

impl Jwk {
    fn judge(&self, usable: &dyn Fn(&Alg) -> bool) -> Verdict {
        let other = matches!(&self.purpose, Some(purpose) if purpose != "sig");
        let verifies = self.key_ops.as_ref().map(|ops| ops.iter().any(|op| op == "verify"));
        match (&self.purpose, verifies) {
            (Some(_), Some(true)) if other => {
                return Verdict::Flawed("`use` and `key_ops` contradict each other".to_owned());
            }
            (Some(_), Some(false)) if !other && !self.signs() => {
                return Verdict::Flawed("`use` and `key_ops` contradict each other".to_owned());
            }
            (_, Some(false)) => return Verdict::Other,
            _ if other => return Verdict::Other,
            _ => {}
        }
        let Some(family) = self.family() else { return Verdict::Other };
        let algs = match self.algs(family) {
            Ok(algs) => algs.into_iter().filter(|alg| usable(alg)).collect::<Vec<_>>(),
            Err(why) => return Verdict::Flawed(why),
        };
        if algs.is_empty() {
            return Verdict::Other;
        }
        if self.is_private {
            return Verdict::Flawed(
                "it is a private key; only the public part may be here".to_owned(),
            );
        }
        let Some(key) = self.material(family) else {
            return Verdict::Flawed(format!("it is no complete key of type {}", self.kty));
        };
        match Key::new(self.kid.as_deref().unwrap_or_default(), algs, key) {
            Ok(key) => Verdict::Usable(Box::new(key)),
            Err(why) => Verdict::Flawed(why),
        }
    }

    /// Whether it is the signer's half, which says `sign` alone.
    fn signs(&self) -> bool {
        self.key_ops.as_ref().is_some_and(|ops| ops.iter().all(|op| op == "sign"))
    }

    /// `None` for types and curves that are not served.
    fn family(&self) -> Option<Family> {
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => Some(Family::Rsa),
            ("oct", _) => Some(Family::Hmac),
            ("EC", Some("P-256")) => Some(Family::P256),
            ("EC", Some("P-384")) => Some(Family::P384),
            ("OKP", Some("Ed25519")) => Some(Family::Ed25519),
            _ => None,
        }
    }

    /// What tokens of this key may be signed with: what it says, or what follows from its type. An RSA
    /// key that says nothing is for RS256, as OpenID Connect has it.
    fn algs(&self, family: Family) -> Result<Vec<Alg>, String> {
        let Some(name) = &self.alg else {
            return Ok(match family {
                Family::P256 => vec![Alg::ES256],
                Family::P384 => vec![Alg::ES384],
                Family::Ed25519 => vec![Alg::EdDSA],
                Family::Rsa => vec![Alg::RS256],
                Family::Hmac => return Err("a secret has to name its `alg`".to_owned()),
            });
        };
        match Alg::named(name) {
            Some(alg) if alg.family() == family => Ok(vec![alg]),
            // RFC 9864 names the curve instead of the family of curves.
            None if name == "Ed25519" && family == Family::Ed25519 => Ok(vec![Alg::EdDSA]),
            None => Ok(Vec::new()),
            Some(_) => Err(format!("`{name}` is not an algorithm of a key of type {}", self.kty)),
        }
    }

    fn material(&self, family: Family) -> Option<DecodingKey> {
        let part = |part: &Option<String>| URL_SAFE_NO_PAD.decode(part.as_deref()?).ok();
        match family {
            Family::Hmac => {
                let secret =
                    Zeroizing::new(URL_SAFE_NO_PAD.decode(self.k.as_ref()?.expose()).ok()?);
                Some(DecodingKey::from_secret(&secret))
            }
            Family::Rsa => {
                Some(DecodingKey::from_rsa_raw_components(&part(&self.n)?, &part(&self.e)?))
            }
            Family::P256 | Family::P384 => {
                let size = if family == Family::P256 { 32 } else { 48 };
                let (x, y) = (part(&self.x)?, part(&self.y)?);
                let whole = x.len() == size && y.len() == size;
                whole
                    .then(|| DecodingKey::from_ec_der(&[&[4], x.as_slice(), y.as_slice()].concat()))
            }
            Family::Ed25519 => {
                let x = part(&self.x)?;
                (x.len() == 32).then(|| DecodingKey::from_ed_der(&x))
            }
        }
    }
}

/// What was taken of a set, for who checks how sets are read.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) struct Reading {
    /// Names and algorithms.
    pub(crate) keys: Vec<(Option<String>, String)>,
    pub(crate) flaws: usize,
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn reading(text: &[u8], secrets: bool) -> Option<Reading> {
    let set = read(text, &[], secrets).ok()?;
    let named = |(kid, key): (Option<&str>, &Key)| {
        let kid = kid.map(str::to_owned);
        key.algs().iter().map(|alg| (kid.clone(), format!("{alg:?}"))).collect::<Vec<_>>()
    };
    Some(Reading { keys: set.keys.all().flat_map(named).collect(), flaws: set.flaws.len() })
}

/// Whether two sets hold the same keys.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn are_same(one: &[u8], other: &[u8], secrets: bool) -> bool {
    let keys = |text| read(text, &[], secrets).ok().map(|set| set.keys);
    keys(one).zip(keys(other)).is_some_and(|(one, other)| one.same_as(&other))
}

#[cfg(test)]
mod tests;
