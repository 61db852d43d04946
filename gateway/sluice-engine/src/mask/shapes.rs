//! The shapes that personal numbers have: mobile phones of mainland China, identity cards (GB
//! 11643), bank cards (ISO/IEC 7812), and the identities of `WeChat` users. Each asks for all that the
//! shape promises (dates, check digits, issuers), so that order numbers and times survive.

/// What a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Phone,
    IdentityCard,
    BankCard,
}

/// A number at the beginning of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    kind: Kind,
    pub(super) len: usize,
}

impl Shape {
    /// The number with its middle hidden.
    pub(super) fn shown(self, letters: &[u8]) -> Vec<u8> {
        let (first, last) = match self.kind {
            Kind::Phone => (self.len - 8, 4),
            Kind::IdentityCard => (6, 4),
            Kind::BankCard => (0, 4),
        };
        let mut shown = letters.get(..self.len).unwrap_or(letters).to_vec();
        let end = shown.len().saturating_sub(last);
        shown.get_mut(first..end).unwrap_or_default().fill(b'*');
        shown
    }
}

/// The number that the digits at the beginning are; they end where the digits end.
pub(super) fn number(letters: &[u8]) -> Option<Shape> {
    let digits = letters.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let found = |kind, len| Some(Shape { kind, len });
    let number = letters.get(..digits)?;
    let mobile = |number: &[u8]| matches!(number, [b'1', b'3'..=b'9', ..] if number.len() == 11);
    match digits {
        11 if mobile(number) => found(Kind::Phone, 11),
        // With the country code.
        13 if number.strip_prefix(b"86").is_some_and(mobile) => found(Kind::Phone, 13),
        15 if number.strip_prefix(b"0086").is_some_and(mobile) => found(Kind::Phone, 15),
        17 if letters.get(..18).is_some_and(is_identity_card) => found(Kind::IdentityCard, 18),
        18 if is_identity_card(number) => found(Kind::IdentityCard, 18),
        16..=19 if is_bank_card(number) => found(Kind::BankCard, digits),
        _ => None,
    }
}

/// Eighteen characters: a region, a date of birth, a number, and the check of ISO 7064 MOD 11-2.
fn is_identity_card(letters: &[u8]) -> bool {
    let digit = |at: usize| letters.get(at).map_or(0, |byte| u32::from(byte.wrapping_sub(b'0')));
    let pair = |at| digit(at) * 10 + digit(at + 1);
    let dated =
        matches!(pair(6), 18..=20) && (1..=12).contains(&pair(10)) && (1..=31).contains(&pair(12));
    if !dated || !(11..=91).contains(&pair(0)) {
        return false;
    }
    let sum = (0..17).fold(0, |sum, at| (sum + digit(at)) * 2 % 11);
    let check = (12 - sum) % 11;
    match letters.get(17) {
        Some(b'x' | b'X') => check == 10,
        Some(byte) => byte.is_ascii_digit() && digit(17) == check,
        None => false,
    }
}

/// Issuers of payment cards begin with 3 to 6, or 2221 to 2720; the last digit checks the others (Luhn).
fn is_bank_card(number: &[u8]) -> bool {
    let issuer = match number {
        [b'3'..=b'6', ..] => true,
        [a @ b'2', b, c, d, ..] => (*b"2221"..=*b"2720").contains(&[*a, *b, *c, *d]),
        _ => false,
    };
    let sum: u32 = number
        .iter()
        .rev()
        .zip([1_u32, 2].into_iter().cycle())
        .map(|(byte, weight)| u32::from(byte - b'0') * weight)
        .map(|value| if value > 9 { value - 9 } else { value })
        .sum();
    issuer && sum.is_multiple_of(10)
}

/// Twenty-eight letters from `o` on, mixed as only a random word is. An upper case, a lower case and a
/// digit are all there but in one of a thousand.
pub(super) fn is_openid(letters: &[u8]) -> bool {
    let Some(rest) = letters.strip_prefix(b"o") else { return false };
    let upper = rest.iter().filter(|byte| byte.is_ascii_uppercase()).count();
    let lower = rest.iter().any(u8::is_ascii_lowercase);
    let other = rest.iter().any(|byte| !byte.is_ascii_alphabetic());
    lower && (upper >= 6 || upper > 0 && other)
}
