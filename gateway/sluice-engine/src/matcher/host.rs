//! Host patterns: a literal host, or a wildcard for everything below a domain.
//!
//! Ports, trailing dots and case of *requests* are the caller's. The one rule: a wildcard stands for
//! one label or more, never for none, so `*.example.com` does not match `example.com`.

use std::fmt;
use std::net::Ipv6Addr;

use super::PatternError;

/// A host to match, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPattern {
    /// The literal host, or what follows `*.`.
    name: String,
    wildcard: bool,
}

/// The longest name that DNS admits (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

impl HostPattern {
    /// Reads `api.example.com`, `*.example.com`, an IPv4 address or a bracketed IPv6 one.
    ///
    /// # Errors
    /// A sentence that says what to write.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let lower = text.to_ascii_lowercase();
        if lower == "*" {
            return Err(PatternError::new("leave the hosts away instead of writing `*`"));
        }
        let (name, wildcard) =
            lower.strip_prefix("*.").map_or((lower.as_str(), false), |below| (below, true));
        let name = name.strip_suffix('.').unwrap_or(name);
        check(text, name, wildcard)?;
        Ok(Self { name: name.to_owned(), wildcard })
    }

    /// Whether `host` (in lower case, without port) matches.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        if !self.wildcard {
            return host == self.name;
        }
        let labels = host.strip_suffix(&self.name).and_then(|front| front.strip_suffix('.'));
        labels.is_some_and(|labels| !labels.is_empty())
    }

    /// Whether this is a wildcard.
    #[must_use]
    pub const fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// The literal host, or the domain below which the wildcard matches.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.wildcard { "*." } else { "" };
        write!(f, "{star}{}", self.name)
    }
}

/// The names that wildcards over `host` may have, the longest first. Only those of at most `longest`
/// bytes, which keeps a host of a thousand labels cheap.
pub(super) fn domains(host: &str, longest: usize) -> impl Iterator<Item = &str> {
    let dots = host.match_indices('.').filter(|(at, _)| *at > 0);
    dots.filter_map(|(at, _)| host.get(at + 1..)).filter(move |name| name.len() <= longest)
}

fn check(text: &str, name: &str, wildcard: bool) -> Result<(), PatternError> {
    if let Some(inner) = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        if !wildcard && inner.parse::<Ipv6Addr>().is_ok() {
            return Ok(());
        }
        return Err(PatternError::new(format!("`{text}` is not an IPv6 address in brackets")));
    }
    if !name.is_ascii() {
        return Err(PatternError::new(format!("write `{text}` in its `xn--` form")));
    }
    if name.contains('*') {
        return Err(PatternError::new(format!(
            "in `{text}` only a whole first label may be a wildcard, as in `*.example.com`"
        )));
    }
    if name.contains(':') {
        return Err(PatternError::new(format!("write `{text}` without scheme and port")));
    }
    let good = |label: &str| {
        let byte = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty() && label.len() <= MAX_LABEL && label.bytes().all(byte)
    };
    if name.len() > MAX_NAME || !name.split('.').all(good) {
        return Err(PatternError::new(format!(
            "`{text}` is not a host; write one like `api.example.com` or `*.example.com`"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> HostPattern {
        HostPattern::parse(text).unwrap()
    }

    #[test]
    fn literals_and_wildcards_match() {
        assert!(host("API.example.com.").matches("api.example.com"));
        assert!(!host("example.com").matches("api.example.com"));
        let wild = host("*.Example.com");
        assert!(wild.is_wildcard() && wild.to_string() == "*.example.com");
        for yes in ["a.example.com", "a.b.example.com"] {
            assert!(wild.matches(yes), "{yes}");
        }
        for no in ["example.com", ".example.com", "badexample.com", "a.example.com.evil", ""] {
            assert!(!wild.matches(no), "{no}");
        }
        assert!(host("[::1]").matches("[::1]"));
        assert!(host("127.0.0.1").matches("127.0.0.1"));
    }

    #[test]
    fn domains_run_from_long_to_short() {
        let all: Vec<_> = domains("a.b.example.com", 100).collect();
        assert_eq!(all, ["b.example.com", "example.com", "com"]);
        let short: Vec<_> = domains("a.b.example.com", 11).collect();
        assert_eq!(short, ["example.com", "com"]);
        assert_eq!(domains(".example.com", 100).collect::<Vec<_>>(), ["com"]);
        assert_eq!(domains("localhost", 100).count(), 0);
    }

    #[test]
    fn bad_hosts_say_what_to_write() {
        let long_label = "a".repeat(64);
        for bad in ["", "*", "a..b", "a.*.com", "*a.com", "a.com:80", "http://a.com", "a b", "."] {
            assert!(HostPattern::parse(bad).is_err(), "{bad}");
        }
        for bad in ["*.[::1]", "[::g]", "b\u{fc}cher.de", "*.*.com", "*.", &long_label] {
            assert!(HostPattern::parse(bad).is_err(), "{bad}");
        }
    }
}
