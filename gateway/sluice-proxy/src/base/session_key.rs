//! The key that the requests of a session are signed with. It is derived, not kept: whoever has the
//! master key and the name of the session has the key of the session, and it dies with the session.
//!
//! Login hands it out and the filter `signature` verifies with it; both ask here.

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use zeroize::Zeroizing;

/// Bytes of a key.
pub(crate) const LENGTH: usize = 32;
/// What the key is for (RFC 5869 section 3.2): the master key may be the root of others.
const PURPOSE: &[u8] = b"sluice-sign";

struct Length;

impl KeyType for Length {
    fn len(&self) -> usize {
        LENGTH
    }
}

/// HKDF-SHA256 with the master key as its input, the session's name as salt and `sluice-sign` as info.
/// `None` only if the library fails.
pub(crate) fn derive(master: &[u8], session: &str) -> Option<Zeroizing<[u8; LENGTH]>> {
    let mut key = Zeroizing::new([0; LENGTH]);
    let pseudorandom = Salt::new(HKDF_SHA256, session.as_bytes()).extract(master);
    pseudorandom.expand(&[PURPOSE], Length).ok()?.fill(key.as_mut_slice()).ok()?;
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with HMAC alone, by RFC 5869 section 2.
    #[test]
    fn keys_are_those_of_the_rfc_and_differ_by_session_and_master() {
        use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
        let mac = |key: &[u8], text: &[u8]| sign(&Key::new(HMAC_SHA256, key), text);
        let pseudorandom = mac(b"s-1", b"master-0123456789-0123456789-01234");
        let expected = mac(pseudorandom.as_ref(), b"sluice-sign\x01");
        let key = derive(b"master-0123456789-0123456789-01234", "s-1").unwrap();
        assert_eq!(key.as_slice(), expected.as_ref());
        assert_ne!(derive(b"master", "s-1"), derive(b"master", "s-2"));
        assert_ne!(derive(b"master", "s-1"), derive(b"another", "s-1"));
    }
}
