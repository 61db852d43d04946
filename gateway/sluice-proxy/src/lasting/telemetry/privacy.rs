//! The mask of the logs with the key that its fingerprints are made with. The one rule: a fingerprint
//! without a key could be undone by trying all identities, so there always is one.

use std::sync::OnceLock;

use aws_lc_rs::hmac;
use rustix::rand::{GetRandomFlags, getrandom};
use sluice_engine::mask::Mask;

/// A mask of the known fields and shapes, and of `more` fields. Without a `key` fingerprints are this
/// process's own.
pub(crate) fn mask<'n>(more: impl IntoIterator<Item = &'n str>, key: Option<&[u8]>) -> Mask {
    let key = key.map_or_else(own_key, |key| hmac::Key::new(hmac::HMAC_SHA256, key));
    Mask::new(
        more,
        Box::new(move |identity| {
            let tag = hmac::sign(&key, identity);
            tag.as_ref().iter().take(8).fold(0, |print, byte| print << 8 | u64::from(*byte))
        }),
    )
}

/// Made once, so that a reload does not change what stands for whom.
fn own_key() -> hmac::Key {
    static OWN: OnceLock<hmac::Key> = OnceLock::new();
    OWN.get_or_init(|| {
        let mut bytes = [0; 32];
        // From the kernel: the library's own generator tests its source first, which takes a tenth of a
        // second of every start.
        if getrandom(&mut bytes, GetRandomFlags::empty()) != Ok(bytes.len()) {
            // Nobody could know it beforehand all the same.
            bytes = std::array::from_fn(|_| fastrand::u8(..));
        }
        hmac::Key::new(hmac::HMAC_SHA256, &bytes)
    })
    .clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_depends_on_the_identity_and_on_the_key() {
        let identity = b"oGZUI0egBJY1zhBYw2KhdUfwVJJE";
        let shown = |key: Option<&[u8]>, identity: &[u8]| {
            mask([], key).apply(identity, 64).text.into_owned()
        };
        assert_eq!(shown(None, identity), shown(None, identity));
        assert_eq!(shown(Some(&[1; 32]), identity), shown(Some(&[1; 32]), identity));
        assert_ne!(shown(Some(&[1; 32]), identity), shown(Some(&[2; 32]), identity));
        assert_ne!(shown(None, identity), shown(None, b"oGZUI0egBJY1zhBYw2KhdUfwVJJF"));
    }
}
