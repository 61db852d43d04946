//! One key that tokens may be signed with, and the algorithms it is for. What the library does not look
//! at is looked at here, before a key is used: how strong it is, whether it is a point of its curve, and
//! how long its signatures are. The one rule: the algorithm of a token comes from its key.

use aws_lc_rs::digest;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RsaParameters,
    VerificationAlgorithm,
};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, Validation};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::claims::Claims;
use super::form::Form;
use crate::base::fault::Fault;

/// Bytes an HMAC secret needs at least (RFC 7518 section 3.2).
pub(super) const MIN_SECRET: usize = 32;
/// Bits of an RSA key: fewer are weak (RFC 7518 section 3.3), with more a check takes too long.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Algorithms of RFC 7518 and RFC 8037 that are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
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

/// What kind of key an algorithm takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Hmac,
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl Alg {
    pub(super) const ALL: [Self; 12] = [
        Self::HS256,
        Self::HS384,
        Self::HS512,
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
    ];

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

    pub(super) fn family(self) -> Family {
        match self {
            Self::HS256 | Self::HS384 | Self::HS512 => Family::Hmac,
            Self::ES256 => Family::P256,
            Self::ES384 => Family::P384,
            Self::EdDSA => Family::Ed25519,
            _ => Family::Rsa,
        }
    }

    pub(crate) fn is_hmac(self) -> bool {
        self.family() == Family::Hmac
    }

    /// The algorithm of this name, if it is served.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|alg| format!("{alg:?}") == name)
    }
}

/// A key that was found fit.
pub(super) struct Key {
    key: DecodingKey,
    validation: Validation,
    /// Of one family.
    algs: Vec<Alg>,
    /// Bytes of a signature.
    signature: usize,
    /// Names the key by what it is: the same in every set that holds it.
    pub(super) id: u64,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Key").field(&self.algs).finish()
    }
}

impl Key {
    /// Checks a key for these algorithms, which are of one family.
    ///
    /// # Errors
    ///
    /// What is wrong with it, without anything of it.
    pub(super) fn new(kid: &str, algs: Vec<Alg>, key: DecodingKey) -> Result<Self, String> {
        let Some(first) = algs.first().copied() else {
            return Err("it has no algorithm".to_owned());
        };
        let signature = strength(first, &key)?;
        let mut validation = Validation::new(first.algorithm());
        validation.algorithms = algs.iter().map(|alg| alg.algorithm()).collect();
        // Times, issuer and audience are checked on our own reading of the claims, which refuses
        // duplicate members; the library checks the signature.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        let id = identity(kid, &algs, &key);
        Ok(Self { key, validation, algs, signature, id })
    }

    pub(super) fn algs(&self) -> &[Alg] {
        &self.algs
    }

    /// Checks algorithm and signature; the claims still have to be judged.
    pub(super) fn verify(&self, form: &Form<'_>) -> Result<Map<String, Value>, Fault> {
        let fits = form.alg.is_some_and(|alg| self.algs.contains(&alg));
        if !fits || form.signature_bytes() != self.signature {
            return Err(Fault::TokenInvalid);
        }
        let token = jsonwebtoken::decode::<Claims>(form.token, &self.key, &self.validation)
            .map_err(|_| Fault::TokenInvalid)?;
        Ok(token.claims.0)
    }
}

/// The length of this key's signatures, if it is as strong as it has to be.
fn strength(alg: Alg, key: &DecodingKey) -> Result<usize, String> {
    let bytes = || key.try_get_as_bytes().map_err(|_| "it is of another kind".to_owned());
    match alg {
        Alg::HS256 => hmac(bytes()?.len(), 32),
        Alg::HS384 => hmac(bytes()?.len(), 48),
        Alg::HS512 => hmac(bytes()?.len(), 64),
        Alg::ES256 => point(&ECDSA_P256_SHA256_FIXED, bytes()?, 64),
        Alg::ES384 => point(&ECDSA_P384_SHA384_FIXED, bytes()?, 96),
        Alg::EdDSA => point(&ED25519, bytes()?, 64),
        _ => rsa(key),
    }
}

fn hmac(secret: usize, signature: usize) -> Result<usize, String> {
    if secret < MIN_SECRET {
        return Err(format!("the secret has {secret} bytes; {MIN_SECRET} are needed"));
    }
    Ok(signature)
}

fn point(
    curve: &'static dyn VerificationAlgorithm,
    key: &[u8],
    signature: usize,
) -> Result<usize, String> {
    ParsedPublicKey::new(curve, key).map_err(|_| "it is no point of its curve".to_owned())?;
    Ok(signature)
}

fn rsa(key: &DecodingKey) -> Result<usize, String> {
    let bits = match key.kind() {
        DecodingKeyKind::SecretOrDer(der) => RsaParameters::public_modulus_len(der)
            .map_err(|_| "it is no RSA key".to_owned())
            .map(|bits| usize::try_from(bits).unwrap_or(usize::MAX))?,
        DecodingKeyKind::RsaModulusExponent { n, e } => {
            let odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
            // aws-lc takes exponents of 33 bits at most; 1 would verify anything.
            if !odd(n) || !odd(e) || !(2..=33).contains(&bits(e)) {
                return Err("its modulus or exponent is not that of an RSA key".to_owned());
            }
            bits(n)
        }
    };
    if !RSA_BITS.contains(&bits) {
        let (least, most) = (RSA_BITS.start(), RSA_BITS.end());
        return Err(format!("the RSA key has {bits} bits; {least} to {most} are accepted"));
    }
    Ok(bits.div_ceil(8))
}

/// Bits of a number, most significant byte first.
fn bits(number: &[u8]) -> usize {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let rest = number.len() - zeros;
    let unused = number.get(zeros).map_or(0, |byte| byte.leading_zeros());
    (rest * 8).saturating_sub(usize::try_from(unused).unwrap_or(0))
}

fn identity(kid: &str, algs: &[Alg], key: &DecodingKey) -> u64 {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut add = |part: &[u8]| {
        context.update(&part.len().to_be_bytes());
        context.update(part);
    };
    add(kid.as_bytes());
    add(format!("{algs:?}").as_bytes());
    match key.kind() {
        DecodingKeyKind::SecretOrDer(bytes) => add(bytes),
        DecodingKeyKind::RsaModulusExponent { n, e } => {
            add(n);
            add(e);
        }
    }
    context.finish().as_ref().iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte))
}
