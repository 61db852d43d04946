//! Keys that seal: AES-256-GCM, with the name of the value as associated data. The first key seals, all of
//! them open, so that a key can be replaced while values live. A sealed value begins with the length and
//! the name of its key, then come nonce, text and tag.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use zeroize::Zeroizing;

/// The first key seals.
pub(crate) struct Ring {
    keys: Vec<(String, RandomizedNonceKey)>,
}

/// Why a key is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyError {
    /// Its name is empty or longer than 64 bytes.
    Name,
    /// Fewer than 32 bytes.
    Short,
    /// The library would not take it.
    Unusable,
}

/// Bytes a secret needs.
const MIN_SECRET: usize = 32;
/// Bytes of a nonce.
const NONCE: usize = 12;
/// Longest name of a key.
const MAX_NAME: usize = 64;

impl Ring {
    /// From names and secrets; each secret is stretched into a key of its own.
    pub(crate) fn new<'a>(
        secrets: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Self, KeyError> {
        let mut keys = Vec::new();
        for (name, secret) in secrets {
            if name.is_empty() || name.len() > MAX_NAME {
                return Err(KeyError::Name);
            }
            if secret.len() < MIN_SECRET {
                return Err(KeyError::Short);
            }
            let key = stretch(secret, b"sluice-vault").ok_or(KeyError::Unusable)?;
            let key =
                RandomizedNonceKey::new(&AES_256_GCM, &*key).map_err(|_| KeyError::Unusable)?;
            keys.push((name.to_owned(), key));
        }
        Ok(Self { keys })
    }

    /// With a key that nobody else has, for values that do not outlive this process.
    pub(crate) fn random() -> Result<Self, KeyError> {
        let mut secret = Zeroizing::new([0_u8; 32]);
        aws_lc_rs::rand::fill(&mut *secret).map_err(|_| KeyError::Unusable)?;
        Self::new([("here", &secret[..])])
    }

    pub(super) fn seal(&self, name: &str, plain: &[u8]) -> Option<Vec<u8>> {
        let (kid, key) = self.keys.first()?;
        let mut text = Zeroizing::new(Vec::with_capacity(plain.len() + 16));
        text.extend_from_slice(plain);
        let aad = Aad::from(name.as_bytes());
        let nonce = key.seal_in_place_append_tag(aad, &mut *text).ok()?;
        let mut sealed = Vec::with_capacity(1 + kid.len() + NONCE + text.len());
        sealed.push(u8::try_from(kid.len()).ok()?);
        sealed.extend_from_slice(kid.as_bytes());
        sealed.extend_from_slice(nonce.as_ref());
        sealed.extend_from_slice(&text);
        Some(sealed)
    }

    pub(super) fn open(&self, name: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (length, rest) = sealed.split_first()?;
        let (kid, rest) = rest.split_at_checked(usize::from(*length))?;
        let (nonce, text) = rest.split_at_checked(NONCE)?;
        let (_, key) = self.keys.iter().find(|(known, _)| known.as_bytes() == kid)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = Zeroizing::new(text.to_vec());
        let length = key.open_in_place(nonce, Aad::from(name.as_bytes()), &mut text).ok()?.len();
        text.truncate(length);
        Some(text)
    }
}

/// HKDF with SHA-256 (RFC 5869), without salt.
fn stretch(secret: &[u8], purpose: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    struct Bytes32;
    impl KeyType for Bytes32 {
        fn len(&self) -> usize {
            32
        }
    }
    let mut key = Zeroizing::new([0; 32]);
    let pseudorandom = Salt::new(HKDF_SHA256, &[]).extract(secret);
    pseudorandom.expand(&[purpose], Bytes32).ok()?.fill(&mut *key).ok()?;
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &[u8] = b"old-0123456789-0123456789-0123456789";
    const NEW: &[u8] = b"new-0123456789-0123456789-0123456789";

    #[test]
    fn what_is_sealed_for_one_name_opens_under_no_other() {
        let ring = Ring::new([("a", NEW)]).unwrap();
        let sealed = ring.seal("session:1", b"secret text").unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        assert_eq!(&ring.open("session:1", &sealed).unwrap()[..], b"secret text");
        assert!(ring.open("session:2", &sealed).is_none());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(ring.open("session:1", &changed).is_none(), "byte {at}");
            assert!(ring.open("session:1", &sealed[..at]).is_none(), "the first {at} bytes");
        }
        assert_ne!(sealed, ring.seal("session:1", b"secret text").unwrap());
    }

    #[test]
    fn old_keys_open_and_the_first_one_seals() {
        let before = Ring::new([("old", OLD)]).unwrap();
        let sealed = before.seal("n", b"x").unwrap();
        let both = Ring::new([("new", NEW), ("old", OLD)]).unwrap();
        assert_eq!(&both.open("n", &sealed).unwrap()[..], b"x");
        assert!(before.open("n", &both.seal("n", b"y").unwrap()).is_none());
        assert!(Ring::new([("new", NEW)]).unwrap().open("n", &sealed).is_none());
    }

    #[test]
    fn weak_keys_are_refused() {
        assert_eq!(Ring::new([("a", &[0_u8; 31][..])]).err(), Some(KeyError::Short));
        assert_eq!(Ring::new([("", NEW)]).err(), Some(KeyError::Name));
    }
}
