//! The canonical form of a request path, so that what is matched is what is forwarded.
//!
//! Two spellings of one resource become one string here, and whatever has no single meaning is
//! refused (RFC 3986 section 6.2.2; the traversal tricks of proxies past). Splitting the query off,
//! and everything about hosts, is left to the caller. The one rule: nothing is ever decoded twice,
//! so a canonical path is its own canonical form.

use std::borrow::Cow;

/// What an operator may relax.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathPolicy {
    /// What becomes of `%2F`.
    pub encoded_slash: EncodedSlash,
}

/// The two treatments of `%2F`; it is never turned into a separator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EncodedSlash {
    /// The path is refused.
    #[default]
    Refuse,
    /// The escape stays, as part of its segment. Dot segments hidden between escaped slashes are
    /// still refused, because an upstream that decodes would walk them.
    Keep,
}

/// Why a path has no canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathFault {
    /// It does not begin with `/`.
    NotAbsolute,
    /// It holds a raw `?` or `#`, so it is not only a path.
    Delimiter,
    /// It holds a control character, raw or escaped.
    Control,
    /// A `%` is not followed by two hexadecimal digits.
    Escape,
    /// It holds a backslash, raw or escaped.
    Backslash,
    /// It holds `%2F` where the policy refuses that.
    EncodedSlash,
    /// A dot segment, or an empty one, is dressed up, such as `..;`, `..%2F` or `/;x/`.
    HiddenDots,
    /// Its dot segments lead above the root.
    AboveRoot,
}

impl PathFault {
    /// A stable word for metrics, logs and clients.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotAbsolute => "path_not_absolute",
            Self::Delimiter => "path_delimiter",
            Self::Control => "path_control",
            Self::Escape => "path_escape",
            Self::Backslash => "path_backslash",
            Self::EncodedSlash => "path_encoded_slash",
            Self::HiddenDots => "path_hidden_dots",
            Self::AboveRoot => "path_above_root",
        }
    }
}

impl std::fmt::Display for PathFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for PathFault {}

/// [`path_with`] under the strict policy.
///
/// # Errors
/// See [`PathFault`].
pub fn path(raw: &str) -> Result<Cow<'_, str>, PathFault> {
    path_with(raw, &PathPolicy::default())
}

/// The canonical form of `raw`, which is a path without its query.
///
/// Escapes of unreserved characters are decoded, other escapes are written in upper case, bytes
/// that RFC 3986 does not admit in a path are escaped, runs of `/` become one, and dot segments
/// (written plainly or as `%2e`) are removed. A trailing slash stays. A path that is canonical
/// already is borrowed and costs one pass.
///
/// # Errors
/// See [`PathFault`]: the path is refused when it cannot be canonical.
pub fn path_with<'a>(raw: &'a str, policy: &PathPolicy) -> Result<Cow<'a, str>, PathFault> {
    if !raw.starts_with('/') {
        return Err(PathFault::NotAbsolute);
    }
    if is_canonical(raw.as_bytes()) {
        return Ok(Cow::Borrowed(raw));
    }
    let plain = normalize_bytes(raw.as_bytes(), *policy)?;
    let built = remove_dots(&plain)?;
    Ok(if built == raw { Cow::Borrowed(raw) } else { Cow::Owned(built) })
}

// What a byte may be inside a path.

/// May stand as it is: pchar of RFC 3986, without `%`.
const PLAIN: u8 = 0;
const UNRESERVED: u8 = 1;
const SLASH: u8 = 2;
const PERCENT: u8 = 3;
const CONTROL: u8 = 4;
const BACKSLASH: u8 = 5;
const DELIMITER: u8 = 6;
/// Has to be escaped.
const FOREIGN: u8 = 7;

const CLASSES: [u8; 256] = classes();

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler over its own table")]
const fn classes() -> [u8; 256] {
    let mut table = [FOREIGN; 256];
    let mut at: u8 = 0;
    loop {
        table[at as usize] = match at {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => UNRESERVED,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => PLAIN,
            b':' | b'@' => PLAIN,
            b'/' => SLASH,
            b'%' => PERCENT,
            0..=0x1f | 0x7f => CONTROL,
            b'\\' => BACKSLASH,
            b'?' | b'#' => DELIMITER,
            _ => FOREIGN,
        };
        if at == u8::MAX {
            return table;
        }
        at += 1;
    }
}

fn class(byte: u8) -> u8 {
    CLASSES.get(usize::from(byte)).copied().unwrap_or(FOREIGN)
}

/// True only when nothing is to be changed or refused; a doubtful path goes the slow way.
fn is_canonical(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let [byte, tail @ ..] = rest {
        rest = match class(*byte) {
            PLAIN | UNRESERVED => tail,
            SLASH => match tail {
                [b'/', ..] => return false,
                [b'.', after @ ..] if may_be_dots(after) => return false,
                [b';', ..] | [b'%', b'3', b'B', ..] => return false,
                _ => tail,
            },
            PERCENT => match tail {
                [high, low, after @ ..] if stays_escaped(*high, *low) => after,
                _ => return false,
            },
            _ => return false,
        };
    }
    true
}

/// Whether a segment that begins with a dot may be a dot segment, given what follows that dot.
fn may_be_dots(after: &[u8]) -> bool {
    matches!(after, [] | [b'/' | b'.' | b';' | b'%', ..])
}

/// Whether an escape is one that the strict policy leaves exactly as it is.
fn stays_escaped(high: u8, low: u8) -> bool {
    if high.is_ascii_lowercase() || low.is_ascii_lowercase() {
        return false;
    }
    match decode(high, low) {
        Some(byte) => {
            matches!(class(byte), PLAIN | PERCENT | DELIMITER | FOREIGN)
        }
        None => false,
    }
}

fn decode(high: u8, low: u8) -> Option<u8> {
    Some(hex(high)? << 4 | hex(low)?)
}

/// The value of one hexadecimal digit in either case.
pub(crate) fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// One spelling for each character; segments are not looked at yet. The result is ASCII.
fn normalize_bytes(raw: &[u8], policy: PathPolicy) -> Result<String, PathFault> {
    let mut out = String::with_capacity(raw.len() + 16);
    let mut rest = raw;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match class(*byte) {
            PLAIN | UNRESERVED | SLASH => out.push(char::from(*byte)),
            PERCENT => {
                let [high, low, after @ ..] = tail else { return Err(PathFault::Escape) };
                let decoded = decode(*high, *low).ok_or(PathFault::Escape)?;
                push_decoded(&mut out, decoded, policy)?;
                rest = after;
            }
            CONTROL => return Err(PathFault::Control),
            BACKSLASH => return Err(PathFault::Backslash),
            DELIMITER => return Err(PathFault::Delimiter),
            _ => push_escape(&mut out, *byte),
        }
    }
    Ok(out)
}

fn push_decoded(out: &mut String, byte: u8, policy: PathPolicy) -> Result<(), PathFault> {
    match class(byte) {
        UNRESERVED => out.push(char::from(byte)),
        CONTROL => return Err(PathFault::Control),
        BACKSLASH => return Err(PathFault::Backslash),
        SLASH if policy.encoded_slash == EncodedSlash::Refuse => {
            return Err(PathFault::EncodedSlash);
        }
        _ => push_escape(out, byte),
    }
    Ok(())
}

fn push_escape(out: &mut String, byte: u8) {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or('0');
    out.push('%');
    out.push(digit(byte >> 4));
    out.push(digit(byte & 15));
}

/// Merges slashes first and removes dot segments second, as one walk over the segments: `/a//..`
/// is `/`, which is also what an upstream that merges would see.
fn remove_dots(plain: &str) -> Result<String, PathFault> {
    let mut out = String::with_capacity(plain.len());
    let mut segments = plain.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "" | "." => {}
            ".." => {
                let cut = out.rfind('/').ok_or(PathFault::AboveRoot)?;
                out.truncate(cut);
            }
            _ => {
                refuse_hidden_dots(segment)?;
                out.push('/');
                out.push_str(segment);
                continue;
            }
        }
        if last {
            out.push('/');
        }
    }
    Ok(out)
}

/// Servlet containers drop `;parameters` before they resolve dots and merge slashes, and decoders of
/// `%2F` see more segments than we do. Either would walk upwards, or take a segment for none, behind
/// the matcher's back.
fn refuse_hidden_dots(segment: &str) -> Result<(), PathFault> {
    let hidden = segment.split("%2F").any(|piece| {
        let rest = piece.strip_prefix("..").or_else(|| piece.strip_prefix('.')).unwrap_or(piece);
        let dots = rest.len() < piece.len();
        rest.starts_with(';') || rest.starts_with("%3B") || rest.is_empty() && dots
    });
    if hidden { Err(PathFault::HiddenDots) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canon(raw: &str) -> Result<String, PathFault> {
        path(raw).map(Cow::into_owned)
    }

    #[test]
    fn a_canonical_path_is_borrowed() {
        for raw in ["/", "/a", "/a/", "/a/b.c/d~e", "/.well-known/x", "/a%20b", "/%252E", "/a;x=1"]
        {
            assert!(matches!(path(raw), Ok(Cow::Borrowed(same)) if same == raw), "{raw}");
        }
        for raw in ["/...", "/..a/b", "/.%41"] {
            assert!(path(raw).is_ok(), "{raw}");
        }
    }

    #[test]
    fn p01_dot_segments_are_removed_in_every_spelling() {
        for (raw, want) in [
            ("/public/../admin", "/admin"),
            ("/public/%2e%2e/admin", "/admin"),
            ("/public/%2E./admin", "/admin"),
            ("/./admin", "/admin"),
            ("/a/.", "/a/"),
            ("/a/b/..", "/a/"),
            ("/a/..", "/"),
            ("/.", "/"),
            ("/api../admin", "/api../admin"),
            ("/a//../b", "/b"),
        ] {
            assert_eq!(canon(raw).as_deref(), Ok(want), "{raw}");
        }
        for raw in ["/..", "/a/../..", "/%2e%2e/", "//.."] {
            assert_eq!(canon(raw), Err(PathFault::AboveRoot), "{raw}");
        }
        for raw in [
            "/p/..;/admin",
            "/p/.;/x",
            "/p/..;v=1",
            "/p/%2e%2e;/x",
            "/p/..%3b/x",
            "/.%3B/x",
            "/..;",
        ] {
            assert_eq!(canon(raw), Err(PathFault::HiddenDots), "{raw}");
        }
    }

    #[test]
    fn p01_parameters_alone_are_no_segment() {
        let keep = PathPolicy { encoded_slash: EncodedSlash::Keep };
        for raw in
            ["/;/admin", "/;a=b/admin", "/x/;", "//;admin//%61dmin/;x", "/%3b/admin", "/%3Bx"]
        {
            assert_eq!(canon(raw), Err(PathFault::HiddenDots), "{raw}");
        }
        assert_eq!(path_with("/a%2F;b", &keep), Err(PathFault::HiddenDots));
        assert_eq!(path_with("/a%2F%2Fb", &keep).as_deref(), Ok("/a%2F%2Fb"));
        assert_eq!(canon("/a;b=c/d").as_deref(), Ok("/a;b=c/d"));
    }

    #[test]
    fn p02_escaped_slashes_follow_the_policy_and_backslashes_never_pass() {
        let keep = PathPolicy { encoded_slash: EncodedSlash::Keep };
        assert_eq!(canon("/a%2Fb"), Err(PathFault::EncodedSlash));
        assert_eq!(canon("/a%2fb"), Err(PathFault::EncodedSlash));
        assert_eq!(path_with("/a%2fb", &keep).as_deref(), Ok("/a%2Fb"));
        for raw in ["/a/..%2fb", "/a%2F../b", "/a%2F%2e%2E%2Fb", "/a/.%2F", "/a%2F..;x"] {
            assert_eq!(path_with(raw, &keep), Err(PathFault::HiddenDots), "{raw}");
        }
        for raw in ["/a\\b", "/a%5cb", "/a%5Cb"] {
            assert_eq!(canon(raw), Err(PathFault::Backslash), "{raw}");
            assert_eq!(path_with(raw, &keep), Err(PathFault::Backslash), "{raw}");
        }
    }

    #[test]
    fn p03_nothing_is_decoded_twice() {
        assert_eq!(canon("/%252e%252e%252f").as_deref(), Ok("/%252e%252e%252f"));
        assert_eq!(canon("/%25%32%65").as_deref(), Ok("/%252e"));
    }

    #[test]
    fn p04_slashes_are_merged() {
        for (raw, want) in
            [("//admin", "/admin"), ("/a//b", "/a/b"), ("//evil.com/x", "/evil.com/x")]
        {
            assert_eq!(canon(raw).as_deref(), Ok(want));
        }
        assert_eq!(canon("/a//").as_deref(), Ok("/a/"));
        assert_eq!(canon("///").as_deref(), Ok("/"));
    }

    #[test]
    fn p05_controls_and_broken_escapes_are_refused() {
        for raw in ["/%00", "/%0d%0a", "/a\u{0}", "/a\n", "/%7f", "/\u{7f}", "/%1F"] {
            assert_eq!(canon(raw), Err(PathFault::Control), "{raw:?}");
        }
        for raw in ["/%zz", "/%", "/%2", "/a%4", "/%\u{e9}9"] {
            assert_eq!(canon(raw), Err(PathFault::Escape), "{raw:?}");
        }
        for raw in ["", "*", "a/b", "http://x/"] {
            assert_eq!(canon(raw), Err(PathFault::NotAbsolute), "{raw:?}");
        }
        assert_eq!(canon("/a?b"), Err(PathFault::Delimiter));
        assert_eq!(canon("/a#b"), Err(PathFault::Delimiter));
    }

    #[test]
    fn each_character_has_one_spelling() {
        for (raw, want) in [
            ("/caf\u{e9}", "/caf%C3%A9"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/%41%7e%2d", "/A~-"),
            ("/a b", "/a%20b"),
            ("/{x}", "/%7Bx%7D"),
            ("/a%3fb", "/a%3Fb"),
            ("/a%3Bb;c", "/a%3Bb;c"),
        ] {
            assert_eq!(canon(raw).as_deref(), Ok(want), "{raw}");
        }
    }

    #[test]
    fn p07_case_slash_and_parameters_are_kept() {
        for raw in ["/Admin", "/admin/", "/admin;x=1", "/admin%20"] {
            assert_eq!(canon(raw).as_deref(), Ok(raw));
        }
    }
}
