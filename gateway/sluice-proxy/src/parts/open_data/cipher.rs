//! AES in CBC mode as platforms use it, and the end of its padding (PKCS#7). The one rule: nobody learns why
//! a text could not be opened. A wrong length, wrong padding and a wrong key are one answer, and padding is
//! looked at in the same steps whatever it is.

use aws_lc_rs::cipher::{AES_128, AES_256, DecryptingKey, DecryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Bytes of a block, and of an initialisation vector.
pub(crate) const BLOCK: usize = 16;

/// Opens a text with a key of 16 or 32 bytes. Padding has 1 to `most` bytes, whatever the block's size.
pub(crate) fn open(key: &[u8], iv: &[u8], sealed: &[u8], most: u8) -> Option<Zeroizing<Vec<u8>>> {
    let algorithm = match key.len() {
        16 => &AES_128,
        32 => &AES_256,
        _ => return None,
    };
    if sealed.is_empty() || !sealed.len().is_multiple_of(BLOCK) {
        return None;
    }
    let iv: [u8; BLOCK] = iv.try_into().ok()?;
    let key = DecryptingKey::cbc(UnboundCipherKey::new(algorithm, key).ok()?).ok()?;
    let mut text = Zeroizing::new(sealed.to_vec());
    key.decrypt(&mut text, DecryptionContext::Iv128(FixedLength::from(iv))).ok()?;
    let length = unpadded(&text, most)?;
    text.truncate(length);
    Some(text)
}

/// The same, as Base64.
pub(crate) fn open_text(
    key: &[u8],
    iv: &[u8],
    sealed: &str,
    most: u8,
) -> Option<Zeroizing<Vec<u8>>> {
    open(key, iv, &STANDARD.decode(sealed).ok()?, most)
}

/// Seals a text whose length is right already.
#[cfg(test)]
pub(crate) fn seal_whole(key: &[u8], iv: &[u8], text: &[u8]) -> Option<Vec<u8>> {
    use aws_lc_rs::cipher::{EncryptingKey, EncryptionContext};
    let iv: [u8; BLOCK] = iv.try_into().ok()?;
    let key = EncryptingKey::cbc(UnboundCipherKey::new(&AES_256, key).ok()?).ok()?;
    let mut sealed = text.to_vec();
    key.less_safe_encrypt(&mut sealed, EncryptionContext::Iv128(FixedLength::from(iv))).ok()?;
    Some(sealed)
}

/// The length of a text without its padding.
fn unpadded(text: &[u8], most: u8) -> Option<usize> {
    let last = *text.last()?;
    let mut wrong = u8::from(last == 0) | u8::from(last > most);
    wrong |= u8::from(usize::from(last) > text.len());
    for (at, byte) in (0..most).zip(text.iter().rev()) {
        // All ones for bytes of the padding.
        let mask = 0_u8.wrapping_sub(u8::from(at < last));
        wrong |= mask & (byte ^ last);
    }
    (wrong == 0).then(|| text.len().saturating_sub(usize::from(last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_what_it_has_to_be() {
        let with = |length: usize, tail: &[u8]| {
            let mut text = vec![b'x'; length];
            text.extend_from_slice(tail);
            unpadded(&text, 16)
        };
        assert_eq!(with(15, &[1]), Some(15));
        assert_eq!(with(13, &[3, 3, 3]), Some(13));
        assert_eq!(with(0, &[16; 16]), Some(0));
        for (length, tail) in
            [(15, &[0][..]), (15, &[17]), (14, &[1, 2]), (13, &[3, 2, 3]), (0, &[2])]
        {
            assert_eq!(with(length, tail), None, "{tail:?}");
        }
        assert_eq!(unpadded(&[20; 32], 32), Some(12), "as message pushes are padded");
        assert_eq!(unpadded(&[20; 32], 16), None);
        assert_eq!(unpadded(&[], 16), None);
    }

    #[test]
    fn what_is_no_sealed_text_is_not_opened() {
        for (key, iv, text) in [(15, 16, 16), (16, 15, 16), (16, 16, 15), (16, 16, 0), (24, 16, 16)]
        {
            assert!(open(&vec![1; key], &vec![2; iv], &vec![3; text], 16).is_none());
        }
        assert!(open_text(&[1; 16], &[2; 16], "no base64", 16).is_none());
    }

    #[test]
    fn what_was_sealed_is_opened() {
        let (key, iv) = ([7; 32], [9; 16]);
        let text = [vec![b'a'; 20], vec![12; 12]].concat();
        let sealed = seal_whole(&key, &iv, &text).unwrap();
        assert_eq!(sealed.len(), 32);
        assert_eq!(**open(&key, &iv, &sealed, 32).unwrap(), vec![b'a'; 20]);
    }
}
