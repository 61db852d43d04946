//! The cryptography of signatures. Every comparison of secrets is the library's, in constant time; all
//! keys of a caller are tried, whichever of them fits, and to refuse takes the same work for every caller,
//! one that nobody knows among them.

use aws_lc_rs::{constant_time, digest, hmac, signature};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use md5::Digest as _;
use sluice_engine::signature::{Algorithm, DigestKind, Encoding, Proof};
use zeroize::Zeroizing;

use crate::parts::key_records as keys;

/// Keys of one caller: the one in use, and the one before.
const KEYS: usize = 2;
/// A key that nobody signs with here: of the first test in RFC 8032 section 7.1.
const NOBODYS: [u8; 32] = [
    0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a,
    0x0e, 0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
];

/// What a caller may have signed with.
pub(super) enum Key {
    Secret(Zeroizing<Vec<u8>>),
    Public([u8; 32]),
}

impl Key {
    pub(super) fn of(proof: &keys::Proof) -> Option<Self> {
        match proof {
            keys::Proof::Secret(secret) => Some(Self::Secret(secret.clone())),
            keys::Proof::Public(key) => Some(Self::Public(*key)),
            keys::Proof::Hash(_) => None,
        }
    }

    /// What it signs with where no algorithm was named.
    fn algorithm(&self) -> Algorithm {
        match self {
            Self::Public(_) => Algorithm::Ed25519,
            Self::Secret(_) => Algorithm::HmacSha256,
        }
    }

    /// Whether it is tried where this algorithm was named, or none.
    fn suits(&self, named: Option<Algorithm>) -> bool {
        match self {
            Self::Public(_) => matches!(named, None | Some(Algorithm::Ed25519)),
            Self::Secret(_) => named != Some(Algorithm::Ed25519),
        }
    }

    /// Whether `bytes` is this key's signature. An algorithm that was not named is the key's own.
    fn has_signed(&self, named: Option<Algorithm>, text: &[u8], bytes: &[u8]) -> bool {
        match self {
            _ if !self.suits(named) => false,
            Self::Public(key) => {
                let key = signature::UnparsedPublicKey::new(&signature::ED25519, key);
                key.verify(text, bytes).is_ok()
            }
            Self::Secret(secret) => {
                let algorithm = match named.unwrap_or_else(|| self.algorithm()) {
                    Algorithm::HmacSha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
                    Algorithm::HmacSha384 => hmac::HMAC_SHA384,
                    Algorithm::HmacSha512 => hmac::HMAC_SHA512,
                    Algorithm::HmacSha256 | Algorithm::Ed25519 => hmac::HMAC_SHA256,
                };
                hmac::verify(&hmac::Key::new(algorithm, secret), text, bytes).is_ok()
            }
        }
    }
}

/// Which of the keys has signed `text`, the first or the second, with one of the algorithms that are `accepted`.
pub(super) fn matched(
    proof: &Proof<'_>,
    keys: &[Key],
    accepted: &[Algorithm],
    text: &[u8],
) -> Option<usize> {
    let bytes = match proof.encoding {
        Encoding::Base64 => STANDARD.decode(proof.signature),
        Encoding::Base64Url => URL_SAFE_NO_PAD.decode(proof.signature),
    };
    // Tried in vain too, so that it takes as long.
    let bytes = bytes.unwrap_or_default();
    let mut found = None;
    for (at, key) in keys.iter().enumerate() {
        let used = proof.algorithm.unwrap_or_else(|| key.algorithm());
        if key.has_signed(proof.algorithm, text, &bytes) && accepted.contains(&used) {
            found = found.or(Some(at));
        }
    }
    if found.is_none() {
        tire(proof.algorithm, keys, text, &bytes);
    }
    found
}

/// The work that a caller with all the keys one can have would have made.
fn tire(named: Option<Algorithm>, keys: &[Key], text: &[u8], bytes: &[u8]) {
    for nobodys in [Key::Secret(Zeroizing::new(NOBODYS.to_vec())), Key::Public(NOBODYS)] {
        let alike = |key: &&Key| std::mem::discriminant(*key) == std::mem::discriminant(&nobodys);
        let tried = keys.iter().filter(alike).count();
        for _ in tried..KEYS {
            let _ = nobodys.has_signed(named, text, bytes);
        }
    }
}

/// A date of HTTP in milliseconds since 1970.
pub(super) fn date(text: &str) -> Option<u64> {
    if !text.ends_with("GMT") {
        return None;
    }
    let parsed = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    u64::try_from(parsed.as_millisecond()).ok()
}

/// A digest under way.
pub(super) enum Hasher {
    Md5(md5::Md5),
    Sha(digest::Context),
}

impl Hasher {
    pub(super) fn new(kind: DigestKind) -> Self {
        match kind {
            DigestKind::Md5 => Self::Md5(md5::Md5::new()),
            DigestKind::Sha256 => Self::Sha(digest::Context::new(&digest::SHA256)),
            DigestKind::Sha512 => Self::Sha(digest::Context::new(&digest::SHA512)),
        }
    }

    pub(super) fn update(&mut self, piece: &[u8]) {
        match self {
            Self::Md5(context) => context.update(piece),
            Self::Sha(context) => context.update(piece),
        }
    }

    /// The sum, if it is one of 32 bytes.
    pub(super) fn sum(self) -> Option<[u8; 32]> {
        match self {
            Self::Md5(_) => None,
            Self::Sha(context) => context.finish().as_ref().try_into().ok(),
        }
    }

    /// Whether `text` is this digest in Base64.
    pub(super) fn agrees(self, text: &str) -> bool {
        let Ok(told) = STANDARD.decode(text) else { return false };
        let same =
            |one: &[u8], other: &[u8]| constant_time::verify_slices_are_equal(one, other).is_ok();
        match self {
            Self::Sha(context) => same(context.finish().as_ref(), &told),
            Self::Md5(context) => {
                let sum = context.finalize();
                // Tencent's clients encode the digits and not the bytes.
                let digits: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
                same(&sum, &told) || same(digits.as_bytes(), &told)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Two([(&'static str, String); 2]);

    impl sluice_engine::signature::Fields for Two {
        fn each<'a>(&'a self, name: &str, f: &mut dyn FnMut(&'a [u8])) {
            self.0.iter().filter(|(known, _)| *known == name).for_each(|(_, v)| f(v.as_bytes()));
        }
    }

    #[test]
    fn an_algorithm_that_is_not_named_has_to_be_accepted_too() {
        use sluice_engine::signature::rfc9421;
        let secret = b"0123456789abcdef";
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), b"text");
        for alg in ["", r#";alg="hmac-sha256""#] {
            let fields = Two([
                ("signature-input", format!(r#"s=("@method");created=1;keyid="k"{alg}"#)),
                ("signature", format!("s=:{}:", STANDARD.encode(mac.as_ref()))),
            ]);
            let rules = rfc9421::Rules { required: &[], nonce: false };
            let proof = rfc9421::read(&fields, &rules).unwrap().unwrap();
            let keys = [Key::Secret(secret.to_vec().into())];
            let with = |accepted: &[Algorithm]| matched(&proof, &keys, accepted, b"text");
            assert_eq!(with(&[Algorithm::HmacSha256, Algorithm::Ed25519]), Some(0));
            assert_eq!(with(&[Algorithm::Ed25519]), None, "{alg}");
        }
    }

    #[test]
    fn dates_are_those_of_http() {
        assert_eq!(date("Thu, 22 Jun 2017 17:15:21 GMT"), Some(1_498_151_721_000));
        for bad in ["", "Thu, 22 Jun 2017 17:15:21", "1498151721", "2017-06-22T17:15:21Z", "GMT"] {
            assert_eq!(date(bad), None, "{bad}");
        }
    }

    #[test]
    fn digests_agree_with_published_ones() {
        let sum = |kind, text| {
            let mut hasher = Hasher::new(kind);
            hasher.update(b"{\"a\"");
            hasher.update(b":1}");
            hasher.agrees(text)
        };
        assert!(sum(DigestKind::Md5, "u2y1xo30ZSlByvZSo2by2A=="));
        assert!(!sum(DigestKind::Md5, "u2y1xo30ZSlByvZSo2by2B=="));
        assert!(!sum(DigestKind::Sha256, "u2y1xo30ZSlByvZSo2by2A=="));
        assert!(!sum(DigestKind::Sha256, ""));
        assert!(!sum(DigestKind::Sha256, "not base64"));
    }

    #[test]
    fn k_06_a_signature_that_is_off_by_one_byte_anywhere_matches_nothing() {
        let text = b"text";
        let keys = [Key::Secret(b"0123456789abcdef".to_vec().into()), Key::Public(NOBODYS)];
        let own = hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef");
        let right = hmac::sign(&own, text).as_ref().to_vec();
        let fits = |bytes: &[u8]| {
            keys.iter().any(|key| key.has_signed(Some(Algorithm::HmacSha256), text, bytes))
        };
        assert!(fits(&right));
        for at in 0..right.len() {
            let mut wrong = right.clone();
            wrong[at] ^= 1;
            assert!(!fits(&wrong), "byte {at}");
        }
        assert!(!fits(&[]) && !fits(&right[..31]) && !fits(&[right.as_slice(), &[0]].concat()));
        assert!(!keys[0].has_signed(Some(Algorithm::HmacSha512), text, &right));
        assert!(!keys[0].has_signed(Some(Algorithm::Ed25519), text, &right));
    }
}
