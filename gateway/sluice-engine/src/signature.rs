//! What a signed request says, and the text that was signed: one file for each dialect, without any
//! cryptography. A dialect reads a [`Proof`] from the header fields, and builds from the proof and the
//! request the very bytes that the caller must have signed.
//!
//! The one rule: two requests that a service could tell apart never have the same text, as far as the
//! dialect is able to say it. Where a dialect leaves that open (a parameter twice, a field twice), the
//! request is refused here.

use std::borrow::Cow;

mod credentials;
mod form;
pub mod hmac;
pub mod rfc9421;
pub mod session;
mod sf;
pub mod x_ca;

/// Longest nonce and shortest, bytes.
const NONCE: std::ops::RangeInclusive<usize> = 16..=64;
/// Longest name of a key or an app.
const MAX_ID: usize = 128;
/// Fields that a signature may cover.
const MAX_COVERED: usize = 32;

/// Header fields of a request.
pub trait Fields {
    /// Calls `f` with each value of `name`, which is in lower case.
    fn each<'a>(&'a self, name: &str, f: &mut dyn FnMut(&'a [u8]));
}

/// A request as its signature sees it.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The method, as it came.
    pub method: &'a str,
    /// `HTTP/1.1` and the like.
    pub version: &'a str,
    /// `http` or `https`, as the client spoke.
    pub scheme: &'a str,
    /// Host and port as the client named them, in lower case.
    pub authority: &'a str,
    /// The canonical path, percent-encoded.
    pub path: &'a str,
    /// The query as it came, without `?`.
    pub query: Option<&'a str>,
    /// Its header fields.
    pub fields: &'a dyn Fields,
}

/// What of the body a text contains.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// Nothing: the text does not tell of bodies, or does it by a header field.
    Apart,
    /// The SHA-256 of the body, or `None` where bodies are not signed.
    Sum(Option<[u8; 32]>),
    /// The body itself, which is a form.
    Form(&'a [u8]),
}

/// How a request says that it is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof<'a> {
    /// The name of the key or app; empty where the caller's session stands for it.
    pub id: Cow<'a, str>,
    /// What the caller says it signed with; `None` where it does not say.
    pub algorithm: Option<Algorithm>,
    /// The signature, as text.
    pub signature: &'a str,
    /// How that text is to be read.
    pub encoding: Encoding,
    /// When it was signed.
    pub time: Time<'a>,
    /// When it ends, in seconds since 1970, where it says so.
    pub expires: Option<u64>,
    /// What makes this request another one than its twin.
    pub nonce: Option<&'a str>,
    /// The digest of the body that is covered by the signature.
    pub digest: Option<Digest<'a>>,
    /// Where in the text the body itself stands.
    pub body: Covers,
    /// Names of what is covered, as the dialect lists them.
    pub covered: Vec<&'a str>,
    /// The raw parameters (RFC 9421).
    parameters: &'a str,
}

/// How a text depends on the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Covers {
    /// Not at all.
    Nothing,
    /// By its SHA-256.
    Sum,
    /// By the parameters of a form.
    Form,
}

/// Algorithms of signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// HMAC with SHA-1, for old clients.
    HmacSha1,
    /// HMAC with SHA-256.
    HmacSha256,
    /// HMAC with SHA-384.
    HmacSha384,
    /// HMAC with SHA-512.
    HmacSha512,
    /// Ed25519 (RFC 8032).
    Ed25519,
}

/// How a signature is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// RFC 4648 section 4, with padding.
    Base64,
    /// RFC 4648 section 5, without padding.
    Base64Url,
}

/// When a request was signed, as it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time<'a> {
    /// Milliseconds since 1970.
    Unix(u64),
    /// A date of HTTP (RFC 9110 section 5.6.7).
    Date(&'a str),
}

/// The digest of a body, as it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest<'a> {
    /// How it was made.
    pub kind: DigestKind,
    /// In Base64.
    pub text: &'a str,
}

/// Digests of bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DigestKind {
    /// For clients that know no other.
    Md5,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// A signature that cannot be understood, or would leave open what was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unclear;

/// What reading a proof comes to: none there is `Ok(None)`.
pub type Read<'a> = Result<Option<Proof<'a>>, Unclear>;

impl Algorithm {
    /// By the names that RFC 9421 and the `hmac` dialects use.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "hmac-sha1" => Self::HmacSha1,
            "hmac-sha256" => Self::HmacSha256,
            "hmac-sha384" => Self::HmacSha384,
            "hmac-sha512" => Self::HmacSha512,
            "ed25519" => Self::Ed25519,
            _ => return None,
        })
    }
}

/// The one value of a field. Twice is unclear: one reader could take the first, another the last.
fn only<'a>(fields: &'a dyn Fields, name: &str) -> Result<Option<&'a str>, Unclear> {
    let (mut found, mut more) = (None, false);
    fields.each(name, &mut |value| more |= found.replace(value).is_some());
    let Some(value) = found else { return Ok(None) };
    let text = std::str::from_utf8(value).map_err(|_| Unclear)?.trim_matches([' ', '\t']);
    if more { Err(Unclear) } else { Ok(Some(text)) }
}

/// The one value of a field, or nothing.
fn only_or_empty<'a>(fields: &'a dyn Fields, name: &str) -> Result<&'a str, Unclear> {
    Ok(only(fields, name)?.unwrap_or(""))
}

/// A nonce that can be kept: 16 to 64 letters, digits, `-` and `_`.
fn nonce(text: &str) -> Result<&str, Unclear> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if NONCE.contains(&text.len()) && text.bytes().all(fits) { Ok(text) } else { Err(Unclear) }
}

/// A name of a key: visible ASCII, not too long.
fn id(text: &str) -> Result<&str, Unclear> {
    let fits = (1..=MAX_ID).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    fits.then_some(text).ok_or(Unclear)
}

/// A moment as 10 digits of seconds or 13 of milliseconds, nothing else. In milliseconds.
fn unix(text: &str) -> Result<u64, Unclear> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Unclear);
    }
    match (text.len(), text.parse::<u64>()) {
        (10, Ok(seconds)) => Ok(seconds * 1000),
        (13, Ok(millis)) => Ok(millis),
        _ => Err(Unclear),
    }
}

/// `/path?query` as the request has it.
fn target(request: &Request<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(request.path.as_bytes());
    if let Some(query) = request.query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
}

/// Whether a body of this type is a form whose parameters are signed with those of the query.
#[must_use]
pub fn is_form(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or("").trim();
    kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Fields as a list.
    pub(crate) struct List<'l>(pub(crate) &'l [(&'l str, &'l str)]);

    impl Fields for List<'_> {
        fn each<'a>(&'a self, name: &str, f: &mut dyn FnMut(&'a [u8])) {
            self.0.iter().filter(|(known, _)| *known == name).for_each(|(_, v)| f(v.as_bytes()));
        }
    }

    pub(crate) fn request<'a>(
        method: &'a str,
        target: &'a str,
        fields: &'a dyn Fields,
    ) -> Request<'a> {
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let (version, scheme) = ("HTTP/1.1", "https");
        Request { method, version, scheme, authority: "example.com", path, query, fields }
    }

    pub(crate) fn sign(algorithm: aws_lc_rs::hmac::Algorithm, key: &[u8], text: &[u8]) -> String {
        use base64::Engine as _;
        let key = aws_lc_rs::hmac::Key::new(algorithm, key);
        base64::engine::general_purpose::STANDARD.encode(aws_lc_rs::hmac::sign(&key, text))
    }

    #[test]
    fn k_01_moments_are_seconds_or_milliseconds_and_nothing_else() {
        assert_eq!(unix("1700000000"), Ok(1_700_000_000_000));
        assert_eq!(unix("1700000000123"), Ok(1_700_000_000_123));
        for text in ["", "-1700000000", "+170000000", "17000000000", "1.700000000", "1e9", "٣٣٣٣٣"]
        {
            assert_eq!(unix(text), Err(Unclear), "{text}");
        }
        assert_eq!(unix(&"1".repeat(20)), Err(Unclear));
    }

    #[test]
    fn k_09_nonces_are_short_words() {
        assert!(nonce("0123456789abcdef").is_ok());
        assert!(nonce(&"a".repeat(64)).is_ok());
        let long = "a".repeat(10 * 1024);
        for text in ["", "short", "0123456789abcde\n", "0123456789abcd{}", "0123456789abcdé", &long]
        {
            assert_eq!(nonce(text), Err(Unclear), "{text}");
        }
    }
}
