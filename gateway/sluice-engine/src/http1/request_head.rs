//! The head of a request (RFC 9112 sections 3 and 5), judged line by line before anybody parses it.
//!
//! The judge keeps nothing but numbers: the caller owns the bytes and shows them again, with more
//! behind them, until the head is whole. Parsing it is left to the caller. The one rule: a head passes
//! only if every reader finds the same fields and the same end of the body in it, so what may be read
//! in two ways is refused here, where both readings are still to be seen.

use std::ops::Range;

use memchr::{memchr, memchr_iter};

use super::content_length;

/// Header fields at most.
pub const MAX_FIELDS: usize = 100;
/// Request target at most, bytes.
pub const MAX_TARGET: usize = 8 * 1024;
/// Name of a field at most, bytes.
const MAX_NAME: usize = 1024;
/// Bytes of an unfinished request line that must look like one already.
const FIRST_LOOK: usize = 32;

/// How far a head has been read.
#[derive(Clone, Debug)]
pub struct RequestHead {
    limit: usize,
    /// Where the first line that is not complete begins.
    at: usize,
    /// Bytes of that line that are known to hold no line end.
    seen: usize,
    line: Option<RequestLine>,
    fields: usize,
    /// Lines that end in CR LF.
    crlf: usize,
    length: Option<u64>,
    coding: Option<Coding>,
    upgrade: bool,
}

#[derive(Clone, Debug)]
struct RequestLine {
    target: Range<usize>,
    ordinary: bool,
    old: bool,
}

/// What stands in `Transfer-Encoding`, over all its lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    /// One line, and nothing but `chunked` in it.
    Chunked,
    /// Anything else; `last` tells whether at least the end of the body can be found.
    Other { last: bool },
}

/// How a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Nothing,
    /// It has so many bytes, at least one.
    Length(u64),
    /// It comes in chunks.
    Chunked,
}

/// A whole head that was let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    /// Its bytes, empty lines before it included.
    pub len: usize,
    /// What follows it.
    pub framing: Framing,
    /// Whether it offers another protocol, so that what follows may not be HTTP.
    pub upgrade: bool,
    /// Where the target stands.
    pub target: Range<usize>,
    /// Whether the target is a path with a query and holds no byte that URI parsers differ about.
    pub ordinary: bool,
}

/// Why a head was not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Against the grammar, folded lines and control bytes included.
    Malformed,
    /// More or larger fields than allowed.
    TooLarge,
    /// The target is longer than [`MAX_TARGET`].
    TargetTooLong,
    /// Well-formed, but of a version that is not spoken in this way.
    Version,
    /// `Content-Length` is not one number.
    Length,
    /// `Content-Length` and `Transfer-Encoding` are both there.
    LengthAndCoding,
    /// `Transfer-Encoding` leaves open where the body ends.
    Coding,
    /// `Transfer-Encoding` names codings other than chunked.
    CodingUnsupported,
}

impl RequestHead {
    /// For heads of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            at: 0,
            seen: 0,
            line: None,
            fields: 0,
            crlf: 0,
            length: None,
            coding: None,
            upgrade: false,
        }
    }

    /// Reads on in `input`, which begins with the head's first byte and holds at least what it held
    /// the last time. `None` when the head does not end in it; otherwise the judge is ready for the
    /// next head.
    ///
    /// # Errors
    ///
    /// [`Refusal`], after which the judge must not be used again.
    pub fn read(&mut self, input: &[u8]) -> Result<Option<Whole>, Refusal> {
        let known = self.at + self.seen;
        for end in memchr_iter(b'\n', input.get(known..).unwrap_or_default()) {
            let end = known + end;
            let start = std::mem::replace(&mut self.at, end + 1);
            if self.at > self.limit {
                return Err(Refusal::TooLarge);
            }
            let line = input.get(start..end).unwrap_or_default();
            let line = match line.split_last() {
                Some((b'\r', rest)) => {
                    self.crlf += 1;
                    rest
                }
                _ => line,
            };
            match (&self.line, line) {
                // RFC 9112 section 2.2: empty lines before the request line are passed over.
                (None, []) => {}
                (None, _) => self.line = Some(RequestLine::read(line, start)?),
                (Some(_), []) => return self.finish(input).map(Some),
                (Some(_), _) => self.field(line)?,
            }
        }
        self.seen = input.len().saturating_sub(self.at);
        if input.len() > self.limit {
            return Err(Refusal::TooLarge);
        }
        if self.line.is_none() && !may_begin(input.get(self.at..).unwrap_or_default()) {
            return Err(Refusal::Malformed);
        }
        Ok(None)
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let length = token_length(line);
        let Some((name, [b':', value @ ..])) = line.split_at_checked(length) else {
            // No colon, space before it, a folded line, or a byte that names cannot have.
            return Err(Refusal::Malformed);
        };
        self.fields += 1;
        if self.fields > MAX_FIELDS || name.len() > MAX_NAME {
            return Err(Refusal::TooLarge);
        }
        match name.len() {
            0 => Err(Refusal::Malformed),
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.upgrade = true;
                Ok(())
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => self.length(trim(value)),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                self.coding(trim(value));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// RFC 9112 section 6.3: a repeated length may be taken as one, differing ones may not.
    fn length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let number = content_length(value).ok_or(Refusal::Length)?;
        match self.length.replace(number) {
            Some(other) if other != number => Err(Refusal::Length),
            _ => Ok(()),
        }
    }

    fn coding(&mut self, value: &[u8]) {
        let is_chunked = |coding: &[u8]| trim(coding).eq_ignore_ascii_case(b"chunked");
        let last = value.rsplit(|byte| *byte == b',').next().is_some_and(is_chunked);
        self.coding = Some(if self.coding.is_none() && is_chunked(value) {
            Coding::Chunked
        } else {
            Coding::Other { last }
        });
    }

    fn finish(&mut self, input: &[u8]) -> Result<Whole, Refusal> {
        let read = std::mem::replace(self, Self::new(self.limit));
        let line = read.line.ok_or(Refusal::Malformed)?;
        if !text_with_returns(input.get(..read.at).unwrap_or_default(), read.crlf) {
            return Err(Refusal::Malformed);
        }
        let framing = match (read.length, read.coding) {
            (Some(_), Some(_)) => return Err(Refusal::LengthAndCoding),
            (None | Some(0), None) => Framing::Nothing,
            (Some(length), None) => Framing::Length(length),
            (None, Some(Coding::Chunked)) if !line.old => Framing::Chunked,
            (None, Some(Coding::Other { last: true })) if !line.old => {
                return Err(Refusal::CodingUnsupported);
            }
            (None, Some(_)) => return Err(Refusal::Coding),
        };
        Ok(Whole {
            len: read.at,
            framing,
            upgrade: read.upgrade && !line.old,
            target: line.target,
            ordinary: line.ordinary,
        })
    }
}

impl RequestLine {
    /// `line` begins at `start`.
    fn read(line: &[u8], start: usize) -> Result<Self, Refusal> {
        let method = token_length(line);
        let Some((b' ', rest)) = line.get(method..).and_then(<[u8]>::split_first) else {
            return Err(Refusal::Malformed);
        };
        let length = memchr(b' ', rest).unwrap_or(0);
        let Some((target, [b' ', version @ ..])) = rest.split_at_checked(length) else {
            return Err(Refusal::Malformed);
        };
        if method == 0 || target.is_empty() {
            return Err(Refusal::Malformed);
        }
        let old = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                return Err(Refusal::Version);
            }
            _ => return Err(Refusal::Malformed),
        };
        if target.len() > MAX_TARGET {
            return Err(Refusal::TargetTooLong);
        }
        let from = start + method + 1;
        let ordinary = target.first() == Some(&b'/') && target.iter().all(|b| is(*b, ORDINARY));
        // The parser takes targets for text without blanks.
        if !ordinary && (target.contains(&b'\t') || std::str::from_utf8(target).is_err()) {
            return Err(Refusal::Malformed);
        }
        Ok(Self { target: from..from + target.len(), ordinary, old })
    }
}

// === Bytes ===

const TOKEN: u8 = 1;
const ORDINARY: u8 = 2;

/// What a byte may be part of.
static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let (mut rest, mut byte) = (classes.as_mut_slice(), 0_u8);
    while let Some((class, more)) = rest.split_first_mut() {
        *class = class_of(byte);
        byte = byte.wrapping_add(1);
        rest = more;
    }
    classes
}

const fn class_of(byte: u8) -> u8 {
    let word = byte.is_ascii_alphanumeric();
    let token =
        matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~');
    // RFC 3986: unreserved, sub-delims, and what else a path or a query may hold.
    let ordinary =
        matches!(byte, b'!' | b'$'..=b'/' | b':' | b';' | b'=' | b'?' | b'@' | b'_' | b'~');
    (if word || token { TOKEN } else { 0 }) | (if word || ordinary { ORDINARY } else { 0 })
}

fn is(byte: u8, class: u8) -> bool {
    CLASSES.get(usize::from(byte)).is_some_and(|found| found & class != 0)
}

/// Bytes up to the first that no token may hold.
fn token_length(bytes: &[u8]) -> usize {
    let mut length = 0_usize;
    for byte in bytes {
        if !is(*byte, TOKEN) {
            break;
        }
        // Cannot overflow: there are not more bytes than a length can count.
        length = length.wrapping_add(1);
    }
    length
}

/// Whether a request line may begin in this way, so that what never becomes one is not waited for.
fn may_begin(line: &[u8]) -> bool {
    let line = line.get(..FIRST_LOOK).unwrap_or(line);
    let method = token_length(line);
    match line.get(method..) {
        None | Some([]) => true,
        // The first half of an empty line.
        Some([b'\r']) => method == 0,
        Some([next, ..]) => method > 0 && *next == b' ',
    }
}

/// Bytes looked at together.
const LANES: usize = 16;

/// Whether there are no control bytes but tabs and line ends, and no CR but in front of these: as many as
/// lines that end in CR LF.
fn text_with_returns(head: &[u8], line_ends: usize) -> bool {
    let mut returns = 0;
    // Lanes count in bytes, so in pieces that cannot overflow them.
    for piece in head.chunks(LANES * 255) {
        let (mut control, mut cr) = ([0; LANES], [0; LANES]);
        let (blocks, rest) = piece.as_chunks::<LANES>();
        for block in blocks {
            look(block, &mut control, &mut cr);
        }
        let mut last = [b' '; LANES];
        last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        look(&last, &mut control, &mut cr);
        if control != [0; LANES] {
            return false;
        }
        returns += cr.iter().map(|lane| usize::from(*lane)).sum::<usize>();
    }
    returns == line_ends
}

/// One step in every lane. Without branches or checks inside, so that a compiler makes a vector of it.
fn look(block: &[u8; LANES], control: &mut [u8; LANES], cr: &mut [u8; LANES]) {
    for ((byte, control), cr) in block.iter().zip(control).zip(cr) {
        let blank = u8::from(*byte == b'\t') | u8::from(*byte == b'\n');
        let is_return = u8::from(*byte == b'\r');
        *control |= (u8::from(*byte < b' ') & !(blank | is_return)) | u8::from(*byte == 0x7f);
        *cr = cr.wrapping_add(is_return);
    }
}

fn trim(value: &[u8]) -> &[u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !blank(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
    value.get(start..end).unwrap_or_default()
}

#[cfg(test)]
mod tests;
