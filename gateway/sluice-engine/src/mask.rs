//! What must not stand in a log: numbers of phones, identity cards and bank cards, identities of
//! users, tokens, and the values of fields known by name. By name first, then by shape, and through
//! the escapes of URLs (`%31`) and JSON (`\u0031`).
//!
//! What a text decodes to is judged, and what is shown is the text as it came with the found parts
//! replaced. One quick pass finds the texts in which there is nothing, which are borrowed; a look at
//! the others takes time linear in their length. The one rule: whoever cuts a text has it cut here,
//! so that no half of a number is left at its end.

mod fields;
mod shapes;
mod units;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use fields::{Cover, Fields};
use units::Units;

/// Bytes behind a cut that are looked at too: more than any shape has, escaped twice.
const BEYOND: usize = 512;
/// What is shown in place of what is hidden.
const HIDDEN: &[u8] = b"***";
/// Letters of an `openid` or `unionid`.
const OPENID: usize = 28;
/// Shortest first part of a signed token that is taken for one.
const TOKEN_HEAD: usize = 16;
/// Digits of the shortest number that is masked.
const SHORTEST: usize = 11;

/// Stands for an identity so that lines about one user can be joined and nobody can tell who it is.
pub type Fingerprint = Box<dyn Fn(&[u8]) -> u64 + Send + Sync>;

/// What to mask; compiled once.
pub struct Mask {
    fields: Fields,
    fingerprint: Fingerprint,
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mask").field("fields", &self.fields).finish_non_exhaustive()
    }
}

/// A text as it may be shown.
#[derive(Debug, PartialEq, Eq)]
pub struct Masked<'t> {
    /// The text; borrowed when nothing had to be masked.
    pub text: Cow<'t, [u8]>,
    /// Whether something at its end is missing.
    pub truncated: bool,
}

impl Mask {
    /// Masks the shapes, the fields that everybody needs masked, and `more` fields by name.
    /// `fingerprint` must be keyed: what it gives is shown.
    #[must_use]
    pub fn new<'n>(more: impl IntoIterator<Item = &'n str>, fingerprint: Fingerprint) -> Self {
        Self { fields: Fields::new(more), fingerprint }
    }

    /// Whether the value of a field of this name is masked, whatever it holds.
    #[must_use]
    pub fn covers(&self, field: &str) -> bool {
        self.fields.find(field.bytes()).is_some()
    }

    /// The first `most` bytes of a text as they may be shown.
    #[must_use]
    pub fn apply<'t>(&self, text: &'t [u8], most: usize) -> Masked<'t> {
        let seen = text.get(..most.saturating_add(BEYOND)).unwrap_or(text);
        let truncated = text.len() > most;
        if !self.may_hold(seen) {
            let text = Cow::Borrowed(text.get(..most).unwrap_or(text));
            return Masked { text, truncated };
        }
        let mut found = self.find(seen);
        found.retain(|part| part.raw.start < most);
        if found.is_empty() {
            let text = Cow::Borrowed(text.get(..most).unwrap_or(text));
            return Masked { text, truncated };
        }
        Masked { text: Cow::Owned(replace(seen, &found, most)), truncated }
    }

    /// The quick pass: false when there certainly is nothing to mask.
    fn may_hold(&self, text: &[u8]) -> bool {
        // Without a branch, so that the compiler takes many bytes at a time.
        let odd = text.iter().fold(false, |odd, byte| odd | is_odd(*byte));
        odd && self.has_field_or_escape(text)
            || covers_a_run(text, SHORTEST, |byte| byte.is_ascii_digit(), |_| true)
            || covers_a_run(text, TOKEN_HEAD, is_word, |word| {
                word.starts_with(b"o") || word.starts_with(b"eyJ")
            })
            || announces_a_credential(text)
    }

    /// Whether some separator follows the name of a field, or some escape may be one of a character that
    /// belongs to what is looked for.
    fn has_field_or_escape(&self, text: &[u8]) -> bool {
        let mut word = 0..0;
        for (at, &byte) in text.iter().enumerate() {
            let found = match byte {
                b'%' => text.get(at + 1).is_none_or(|next| (b'2'..=b'7').contains(next)),
                b'\\' | b'@' => true,
                b'=' | b':' => self.names(text, &word).is_some(),
                _ => false,
            };
            if found {
                return true;
            }
            if is_word(byte) {
                word = if word.end == at { word.start..at + 1 } else { at..at + 1 };
            }
        }
        false
    }

    fn names(&self, text: &[u8], word: &Range<usize>) -> Option<Cover> {
        self.fields.find(text.get(word.clone())?.iter().copied())
    }

    fn find(&self, text: &[u8]) -> Vec<Part> {
        let units = Units::decode(text);
        let mut finder = Finder { mask: self, units: &units, parts: Vec::new(), at: 0 };
        finder.run();
        finder.parts
    }
}

/// A part of a text, and what is shown instead.
#[derive(Debug)]
struct Part {
    raw: Range<usize>,
    shown: Vec<u8>,
}

fn replace(text: &[u8], parts: &[Part], most: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(most.min(text.len()) + HIDDEN.len());
    let mut at = 0;
    for part in parts {
        out.extend_from_slice(text.get(at..part.raw.start).unwrap_or_default());
        out.extend_from_slice(&part.shown);
        at = part.raw.end;
    }
    out.extend_from_slice(text.get(at..most.min(text.len())).unwrap_or_default());
    out
}

/// A careful pass over one text.
struct Finder<'a> {
    mask: &'a Mask,
    units: &'a Units,
    parts: Vec<Part>,
    at: usize,
}

impl Finder<'_> {
    fn run(&mut self) {
        while let Some(byte) = self.units.get(self.at) {
            if is_word(byte) {
                let word = self.at..self.units.end_of(self.at, is_word);
                self.word(word);
            } else {
                if byte == b'@' {
                    self.mailbox();
                }
                self.at += 1;
            }
        }
    }

    /// Judges a word as a whole, then as the name of what follows, then the numbers in it. Ends behind
    /// all that has been judged.
    fn word(&mut self, word: Range<usize>) {
        self.at = word.end;
        let letters = self.units.slice(&word);
        if letters.len() == OPENID && shapes::is_openid(letters) {
            let print = self.print(letters);
            return self.show(&word, print);
        }
        if letters.len() >= TOKEN_HEAD
            && letters.starts_with(b"eyJ")
            && self.units.get(word.end) == Some(b'.')
        {
            let end = self.units.end_of(word.end, |byte| is_word(byte) || byte == b'.');
            self.at = end;
            return self.show(&(word.start..end), HIDDEN.to_vec());
        }
        let cover = self.mask.fields.find(letters.iter().copied());
        if let Some((cover, value)) =
            cover.and_then(|cover| Some((cover, self.value(cover, word.end)?)))
        {
            self.at = value.end;
            return self.cover(cover, &value);
        }
        self.numbers(&word);
    }

    /// Where the value of the field begins and ends whose name ends at `end`.
    fn value(&self, cover: Cover, end: usize) -> Option<Range<usize>> {
        let mut at =
            self.units.end_of(end, |byte| matches!(byte, b'"' | b'\'' | b'\\' | b']' | b' '));
        match (self.units.get(at), cover) {
            (Some(b'=' | b':'), _) => at += 1,
            // `Bearer abc`.
            (Some(_), Cover::NextWord) if at > end => {}
            _ => return None,
        }
        let start =
            self.units.end_of(at, |byte| matches!(byte, b'"' | b'\'' | b'\\' | b' ' | b'['));
        let ends = |byte: u8| {
            matches!(byte, b'&' | b';' | b',' | b'"' | b'\'' | b'\\' | b'}' | b')' | b' ')
        };
        let mut end = self.units.end_of(start, |byte| cover == Cover::Rest || !ends(byte));
        // `Authorization: Bearer abc`: the scheme alone is not the value.
        let scheme = self.mask.fields.find(self.units.slice(&(start..end)).iter().copied());
        if scheme == Some(Cover::NextWord) {
            let next = self.units.end_of(end, |byte| byte == b' ');
            end = self.units.end_of(next, |byte| !ends(byte));
        }
        (start < end).then_some(start..end)
    }

    fn cover(&mut self, cover: Cover, value: &Range<usize>) {
        let letters = self.units.slice(value);
        let shown = match (cover, shapes::number(letters)) {
            (Cover::Print, _) => self.print(letters),
            (Cover::Shape, Some(shape)) if shape.len == letters.len() => shape.shown(letters),
            _ => HIDDEN.to_vec(),
        };
        self.show(value, shown);
    }

    /// Masks what looks like a number of a phone or a card. Its borders are anything but digits.
    fn numbers(&mut self, word: &Range<usize>) {
        let mut at = word.start;
        while at < word.end {
            if !self.units.get(at).is_some_and(|byte| byte.is_ascii_digit()) {
                at += 1;
                continue;
            }
            let end = self.units.end_of(at, |byte| byte.is_ascii_digit());
            // One more: the check digit of an identity card may be an X.
            let letters = self.units.slice(&(at..end + 1));
            match shapes::number(letters) {
                Some(shape) => {
                    let part = at..at + shape.len;
                    let shown = shape.shown(letters);
                    self.show(&part, shown);
                    at = part.end;
                }
                None => at = end,
            }
        }
    }

    /// The part of an address of mail before its `@`, where the finder is.
    fn mailbox(&mut self) {
        let bound = self.parts.last().map_or(0, |part| part.raw.end);
        let belongs = |byte: u8| is_word(byte) || matches!(byte, b'.' | b'+');
        let mut start = self.at;
        while start > 0
            && self.units.get(start - 1).is_some_and(belongs)
            && self.units.raw(start - 1) >= bound
        {
            start -= 1;
        }
        let host =
            self.at + 1..self.units.end_of(self.at + 1, |byte| is_word(byte) || byte == b'.');
        let dot = self.units.slice(&host).iter().position(|byte| *byte == b'.');
        if start < self.at && dot.is_some_and(|dot| dot > 0) {
            let shown = [self.units.slice(&(start..start + 1)), HIDDEN].concat();
            self.show(&(start..self.at), shown);
        }
    }

    fn print(&self, letters: &[u8]) -> Vec<u8> {
        format!("#{:016x}", (self.mask.fingerprint)(letters)).into_bytes()
    }

    fn show(&mut self, units: &Range<usize>, shown: Vec<u8>) {
        self.parts
            .push(Part { raw: self.units.raw(units.start)..self.units.raw(units.end), shown });
    }
}

/// What only stands in a text that needs a closer look.
fn is_odd(byte: u8) -> bool {
    matches!(byte, b'%' | b'\\' | b'@' | b'=' | b':')
}

/// Whether there is a run of at least `length` such bytes that is `wanted`. Of such a run one byte in
/// `length` is enough to notice it.
fn covers_a_run(
    text: &[u8],
    length: usize,
    belongs: impl Fn(u8) -> bool,
    wanted: impl Fn(&[u8]) -> bool,
) -> bool {
    let mut at = length - 1;
    while let Some(&byte) = text.get(at) {
        if !belongs(byte) {
            at += length;
            continue;
        }
        let (before, after) = text.split_at_checked(at).unwrap_or((text, &[]));
        let start = at - before.iter().rev().take_while(|byte| belongs(**byte)).count();
        let end = at + after.iter().take_while(|byte| belongs(**byte)).count();
        let run = text.get(start..end).unwrap_or_default();
        if run.len() >= length && wanted(run) {
            return true;
        }
        at = end + length;
    }
    false
}

/// Whether `Bearer` or `Basic` stands somewhere, with a blank behind it.
fn announces_a_credential(text: &[u8]) -> bool {
    memchr::memchr2_iter(b'b', b'B', text).any(|at| {
        let rest = text.get(at..).unwrap_or_default();
        let is =
            |word: &[u8]| rest.get(..word.len()).is_some_and(|it| it.eq_ignore_ascii_case(word));
        is(b"bearer ") || is(b"basic ")
    })
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

#[cfg(test)]
mod tests;
