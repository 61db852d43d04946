//! The outer form of a token: three parts in base64url without padding, and a header of which only what
//! decides is read. The one rule: anything unusual is refused here, before a key is looked for. What a
//! header says about keys (`jku`, `jwk`, `x5u`, `x5c`) is not even read.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};

use super::key::Alg;
use crate::base::fault::Fault;

/// Longest token accepted, bytes.
pub(super) const MAX_TOKEN: usize = 8 * 1024;

/// A token that looks like one.
pub(super) struct Form<'t> {
    pub(super) token: &'t str,
    /// Digits of the signature.
    signature: usize,
    pub(super) kid: Option<String>,
    /// `None` if it is not served here.
    pub(super) alg: Option<Alg>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    /// Whether it is there, whatever it says.
    #[serde(default, deserialize_with = "present")]
    crit: bool,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

impl<'t> Form<'t> {
    pub(super) fn read(token: &'t [u8]) -> Result<Self, Fault> {
        Self::parse(token).ok_or(Fault::TokenInvalid)
    }

    fn parse(token: &'t [u8]) -> Option<Self> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let token = std::str::from_utf8(token).ok()?;
        let mut parts = token.split('.');
        let (header, claims, signature) = (parts.next()?, parts.next()?, parts.next()?);
        let whole = [header, claims, signature].into_iter().all(is_base64url);
        if parts.next().is_some() || !whole {
            return None;
        }
        // The parser would take a list for an object, its members in their order.
        let decoded = URL_SAFE_NO_PAD.decode(header).ok().filter(|text| text.starts_with(b"{"))?;
        let header: Header = serde_json::from_slice(&decoded).ok()?;
        // RFC 7515 section 4.1.11: extensions that are not understood must be refused.
        if header.crit {
            return None;
        }
        let alg = Alg::named(&header.alg);
        Some(Self { token, signature: signature.len(), kid: header.kid, alg })
    }

    /// Bytes of the signature.
    pub(super) fn signature_bytes(&self) -> usize {
        self.signature * 3 / 4
    }
}

/// Without padding a last group of one digit stands for nothing.
fn is_base64url(part: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !part.is_empty() && part.len() % 4 != 1 && part.bytes().all(digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(header: &str, rest: &str) -> Option<(Option<String>, Option<Alg>)> {
        let token = format!("{}{rest}", URL_SAFE_NO_PAD.encode(header));
        Form::read(token.as_bytes()).ok().map(|form| (form.kid, form.alg))
    }

    #[test]
    fn odd_tokens_are_refused_before_a_key_is_looked_for() {
        let good = r#"{"alg":"ES256","kid":"a","jku":"https://evil","jwk":7,"x5u":[]}"#;
        assert_eq!(read(good, ".e30.c2ln"), Some((Some("a".to_owned()), Some(Alg::ES256))));
        assert_eq!(read(r#"{"alg":"none"}"#, ".e30.c2ln"), Some((None, None)));
        let odd = [
            "",
            ".",
            "..",
            ".e30",
            ".e30.",
            ".e30..",
            "..c2ln",
            ".e30.c2ln.",
            ".e30.c2ln.x",
            "..e30.c2ln",
            ".e30=.c2ln",
            ".e30.c2ln=",
            ".e30.c2ln ",
            ".e30.c2+n",
            ".e30.c2/n",
            ".e30.c2lnc",
            ".e30.c2l\u{e9}",
        ];
        for rest in odd {
            assert_eq!(read(good, rest), None, "{rest}");
        }
        for header in [
            r#"{"alg":"ES256","crit":[]}"#,
            r#"{"alg":"ES256","crit":null}"#,
            r#"{"alg":"ES256","alg":"none"}"#,
            r#"{"alg":"ES256","kid":"a","kid":"b"}"#,
            r#"{"alg":"ES256","kid":7}"#,
            r#"{"alg":null}"#,
            r#"{"kid":"a"}"#,
            "[]",
            r#"["ES256","a"]"#,
            "{",
        ] {
            assert_eq!(read(header, ".e30.c2ln"), None, "{header}");
        }
        assert_eq!(read(good, &format!(".{}.c2ln", "e".repeat(MAX_TOKEN))), None, "too long");
    }

    #[test]
    fn the_length_of_a_signature_is_seen_in_its_digits() {
        for bytes in 1..200 {
            let signature = URL_SAFE_NO_PAD.encode(vec![1_u8; bytes]);
            let token = format!("{}.e30.{signature}", URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#));
            assert_eq!(Form::read(token.as_bytes()).unwrap().signature_bytes(), bytes);
        }
    }
}
