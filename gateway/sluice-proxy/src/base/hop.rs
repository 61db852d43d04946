//! Fields that end at this hop (RFC 9110 section 7.6.1), and those that speak to proxies. The one rule:
//! what a peer nominates in `Connection` goes too, but never what decides about access or framing.

use http::header::{
    CONNECTION, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use smallvec::SmallVec;

/// Options of `Connection` that are looked at.
const MAX_OPTIONS: usize = 32;

/// The fields, in the order of [`index`].
pub(crate) static FIELDS: [HeaderName; 9] = [
    CONNECTION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
];

/// The place of a field in [`FIELDS`], if it is one of them.
pub(crate) fn index(name: &str) -> Option<usize> {
    Some(match name {
        "connection" => 0,
        "te" => 1,
        "transfer-encoding" => 2,
        "upgrade" => 3,
        "proxy-authenticate" => 4,
        "proxy-authorization" => 5,
        "keep-alive" => 6,
        "proxy-connection" => 7,
        "http2-settings" => 8,
        _ => return None,
    })
}

/// Names that a peer nominates.
pub(crate) type Nominated = SmallVec<[HeaderName; 2]>;

/// `Connection` names more options than anybody needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany;

/// What the lines of `Connection` say.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Whether the connection ends after this message.
    pub(crate) close: bool,
    /// Fields that end at this hop too.
    pub(crate) nominated: Nominated,
    seen: usize,
}

impl Options {
    /// Reads a line.
    ///
    /// # Errors
    ///
    /// [`TooMany`] when all lines together have more than 32 options.
    pub(crate) fn read(&mut self, line: &[u8]) -> Result<(), TooMany> {
        let options = line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        for option in options.filter(|option| !option.is_empty()) {
            self.seen += 1;
            if self.seen > MAX_OPTIONS {
                return Err(TooMany);
            }
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if !option.eq_ignore_ascii_case(b"keep-alive")
                && let Ok(name) = HeaderName::from_bytes(option)
                && !is_kept(&name)
            {
                self.nominated.push(name);
            }
        }
        Ok(())
    }
}

fn is_kept(name: &HeaderName) -> bool {
    const KEPT: [&str; 7] =
        ["authorization", "content-length", "content-type", "cookie", "host", "via", "date"];
    KEPT.contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_the_place_in_the_table() {
        for (at, name) in FIELDS.iter().enumerate() {
            assert_eq!(index(name.as_str()), Some(at), "{name}");
        }
        assert_eq!(index("host"), None);
    }

    #[test]
    fn options_of_all_lines_count() {
        let mut options = Options::default();
        options.read(b"keep-alive, X-A ,,authorization").unwrap();
        assert!(!options.close);
        options.read(b"Close, x-b").unwrap();
        assert!(options.close);
        assert_eq!(options.nominated.as_slice(), ["x-a", "x-b"]);
        assert_eq!(options.read(&b"a,".repeat(MAX_OPTIONS)), Err(TooMany));
    }
}
