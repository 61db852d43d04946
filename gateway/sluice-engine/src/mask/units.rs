//! A text as what it decodes to, with the place each byte came from. Escapes of URLs and of
//! JSON, escaped again a few times; what is no escape stands for itself. What is not ASCII only ends words.

use std::ops::Range;

/// What stands for a character outside ASCII.
const OTHER: u8 = 0xff;
/// Escapes within escapes that are undone.
const LAYERS: usize = 4;

pub(super) struct Units {
    bytes: Vec<u8>,
    /// Where in the text each begins; one more for the end.
    places: Vec<usize>,
}

impl Units {
    pub(super) fn decode(text: &[u8]) -> Self {
        let mut units = Self { bytes: text.to_vec(), places: (0..=text.len()).collect() };
        for _ in 0..LAYERS {
            let before = units.bytes.len();
            units = units.unwrapped();
            if units.bytes.len() == before {
                break;
            }
        }
        units
    }

    /// With one layer of escapes fewer.
    fn unwrapped(self) -> Self {
        let Self { bytes, places } = self;
        let mut out = Self {
            bytes: Vec::with_capacity(bytes.len()),
            places: Vec::with_capacity(places.len()),
        };
        let mut at = 0;
        while let Some(&first) = bytes.get(at) {
            let rest = bytes.get(at..).unwrap_or_default();
            let (byte, len) = match first {
                b'%' => percent(rest),
                b'\\' => backslash(rest),
                0x80.. => (OTHER, 1),
                byte => (byte, 1),
            };
            out.bytes.push(byte);
            out.places.extend(places.get(at));
            at += len;
        }
        out.places.extend(places.last());
        out
    }

    pub(super) fn get(&self, at: usize) -> Option<u8> {
        self.bytes.get(at).copied()
    }

    pub(super) fn slice(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.start..range.end.min(self.bytes.len())).unwrap_or_default()
    }

    /// Where bytes that are `wanted` end, from `at` on.
    pub(super) fn end_of(&self, at: usize, wanted: impl Fn(u8) -> bool) -> usize {
        let rest = self.bytes.get(at..).unwrap_or_default();
        at + rest.iter().position(|byte| !wanted(*byte)).unwrap_or(rest.len())
    }

    /// The place in the text.
    pub(super) fn raw(&self, at: usize) -> usize {
        self.places.get(at).or_else(|| self.places.last()).copied().unwrap_or(0)
    }
}

/// `%31`.
fn percent(text: &[u8]) -> (u8, usize) {
    match text.get(1..3).and_then(hex) {
        Some(code) => (plain(code), 3),
        None => (b'%', 1),
    }
}

/// `\u0031`, `\x31`, `\/`, `\"`.
fn backslash(text: &[u8]) -> (u8, usize) {
    let (from, to) = match text.get(1) {
        Some(b'u') => (2, 6),
        Some(b'x') => (2, 4),
        Some(byte @ (b'/' | b'"')) => return (*byte, 2),
        _ => return (b'\\', 1),
    };
    match text.get(from..to).and_then(hex) {
        Some(code) => (plain(code), to),
        None => (b'\\', 1),
    }
}

fn plain(code: u32) -> u8 {
    u8::try_from(code).ok().filter(u8::is_ascii).unwrap_or(OTHER)
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |code, digit| Some(code * 16 + char::from(*digit).to_digit(16)?))
}
