//! Versions of apps and ranges of them, ordered as Semantic Versioning 2.0.0 orders them (section 11).
//!
//! Clients write what their build gave them, so less than three numbers and a `v` in front are read too,
//! and a fourth number counts. The one rule: what is no version is none, and is in no range.

use std::cmp::Ordering;
use std::fmt;

/// Longest version that is read.
const MAX: usize = 64;
/// Comparisons that a range may have.
const MAX_COMPARISONS: usize = 8;

/// A version; equal to another if neither comes first, so `3.2` is `3.2.0`.
#[derive(Clone, Debug)]
pub struct Version {
    numbers: [u32; 4],
    /// How many of them were written.
    written: usize,
    /// What follows the hyphen.
    pre: Option<Box<str>>,
}

impl Version {
    /// Reads `3.2.0`, `v3.2`, `3.5.0-rc.1`; what follows a `+` does not count.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX {
            return None;
        }
        let text = text.strip_prefix('v').unwrap_or(text);
        let (text, meta) = text.split_once('+').unwrap_or((text, "0"));
        let (core, pre) = match text.split_once('-') {
            Some((core, pre)) => (core, Some(pre)),
            None => (text, None),
        };
        if !identifiers(meta) || pre.is_some_and(|pre| !identifiers(pre)) {
            return None;
        }
        let (mut numbers, mut written) = ([0; 4], 0);
        for part in core.split('.') {
            if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            *numbers.get_mut(written)? = part.parse().ok()?;
            written += 1;
        }
        Some(Self { numbers, written, pre: pre.map(Into::into) })
    }

    /// The first version that does not begin with the same `count` numbers.
    fn after(&self, count: usize) -> Self {
        let mut numbers = [0; 4];
        for (at, (new, old)) in numbers.iter_mut().zip(self.numbers).enumerate().take(count) {
            *new = if at + 1 == count { old.saturating_add(1) } else { old };
        }
        Self { numbers, written: 3, pre: None }
    }
}

/// Dot-separated words of letters, digits and hyphens.
fn identifiers(text: &str) -> bool {
    let word = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    text.split('.').all(word)
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (&self.pre, &other.pre) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(one), Some(two)) => one.split('.').map(Word).cmp(two.split('.').map(Word)),
        })
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, number) in self.numbers.iter().enumerate().take(self.written.max(3)) {
            write!(f, "{}{number}", if at > 0 { "." } else { "" })?;
        }
        self.pre.as_ref().map_or(Ok(()), |pre| write!(f, "-{pre}"))
    }
}

/// One word of a pre-release: numbers by value, and before words.
#[derive(PartialEq, Eq, PartialOrd)]
struct Word<'a>(&'a str);

impl Ord for Word<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let number = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
        match (number(self.0), number(other.0)) {
            (true, true) => {
                let (one, two) = (self.0.trim_start_matches('0'), other.0.trim_start_matches('0'));
                one.len().cmp(&two.len()).then_with(|| one.cmp(two))
            }
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => self.0.cmp(other.0),
        }
    }
}

/// Versions that a route is for: `>=3.2.0 <4`, `3.2`, `^3.2`, `~3.2.1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range(Vec<(Sign, Version)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    AtLeast,
    Above,
    AtMost,
    Below,
    Equal,
}

impl Range {
    /// Reads comparisons divided by blanks or commas; all have to hold. A version without a sign is that
    /// version, or all that begin with it if it has less than three numbers; `^` allows what does not
    /// change the first number that is not 0, `~` what does not change the second. Elsewhere numbers
    /// that are missing are zeros.
    ///
    /// # Errors
    /// What is no comparison.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut all = Vec::new();
        for word in text.split([',', ' ']).filter(|word| !word.is_empty()) {
            let signs = [
                (">=", Sign::AtLeast),
                ("<=", Sign::AtMost),
                (">", Sign::Above),
                ("<", Sign::Below),
            ];
            let signed = signs.iter().find_map(|(sign, is)| Some((word.strip_prefix(sign)?, *is)));
            let (rest, sign) = match word.chars().next() {
                _ if signed.is_some() => signed.unwrap_or((word, Sign::Equal)),
                Some('=' | '^' | '~') => (word.get(1..).unwrap_or_default(), Sign::Equal),
                _ => (word, Sign::Equal),
            };
            let version =
                Version::parse(rest).ok_or_else(|| format!("`{word}` compares with no version"))?;
            let count = match word.chars().next() {
                Some('^') => {
                    let leading = version.numbers.iter().take(3).take_while(|n| **n == 0).count();
                    Some((leading + 1).min(version.written.max(1)))
                }
                Some('~') => Some(version.written.min(2)),
                _ if sign == Sign::Equal && version.written < 3 && version.pre.is_none() => {
                    Some(version.written)
                }
                _ => None,
            };
            match count {
                Some(count) => {
                    let end = version.after(count);
                    all.extend([(Sign::AtLeast, version), (Sign::Below, end)]);
                }
                None => all.push((sign, version)),
            }
        }
        match all.len() {
            0 => Err("a range needs at least one version, like `>=3.2.0`".to_owned()),
            n if n > MAX_COMPARISONS => Err(format!("at most {MAX_COMPARISONS} comparisons")),
            _ => Ok(Self(all)),
        }
    }

    /// Whether a version lies in it.
    #[must_use]
    pub fn contains(&self, version: &Version) -> bool {
        self.0.iter().all(|(sign, bound)| match sign {
            Sign::AtLeast => version >= bound,
            Sign::Above => version > bound,
            Sign::AtMost => version <= bound,
            Sign::Below => version < bound,
            Sign::Equal => version == bound,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    /// The order of section 11 of Semantic Versioning, its own example included.
    #[test]
    fn versions_have_one_order() {
        let ordered = [
            "0.9.9",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.0.1",
            "1.2",
            "1.10.0",
            "2",
        ];
        for (at, one) in ordered.iter().enumerate() {
            for (other_at, other) in ordered.iter().enumerate() {
                assert_eq!(version(one).cmp(&version(other)), at.cmp(&other_at), "{one} {other}");
            }
        }
        assert_eq!(version("v1.2"), version("1.2.0+build.7"));
        assert_eq!(version("v1.2").to_string(), "1.2.0");
        assert_eq!(version("1.2.3.4-x").to_string(), "1.2.3.4-x");
    }

    #[test]
    fn what_is_no_version_is_none() {
        let long = format!("1.0.0-{}", "a".repeat(MAX));
        for text in [
            "",
            "v",
            "1.",
            ".1",
            "1..2",
            "1.2.3.4.5",
            "a",
            "1.x",
            "-1",
            "1-",
            "1+",
            "1-a..b",
            "1.0 ",
            " 1",
            "4294967296",
            "1.0-ä",
            "1_0",
            &long,
        ] {
            assert!(Version::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn ranges_hold_what_they_say() {
        for (range, within, without) in [
            (">=3.2.0", &["3.2.0", "3.2", "10"][..], &["3.1.99", "3.2.0-rc.1"][..]),
            (">=3.2.0 <4", &["3.9"], &["4.0.0", "3.1"]),
            (">=3.2.0, <4", &["3.9"], &["4.0.0"]),
            ("3.2", &["3.2.0", "3.2.7"], &["3.3", "3.1"]),
            ("=3.2.1", &["3.2.1"], &["3.2.2", "3.2.1-a"]),
            ("3", &["3.0.0", "3.9.9"], &["4", "2.9"]),
            ("^1.2", &["1.2.0", "1.9"], &["1.1", "2.0"]),
            ("^0.2.3", &["0.2.3", "0.2.9"], &["0.3.0", "0.2.2"]),
            ("~1.2.3", &["1.2.3", "1.2.9"], &["1.3.0", "1.2.2"]),
            ("~1", &["1.0", "1.9"], &["2.0"]),
            (">1.0.0 <=1.0.2", &["1.0.1", "1.0.2"], &["1.0.0", "1.0.3"]),
        ] {
            let parsed = Range::parse(range).unwrap();
            for text in within {
                assert!(parsed.contains(&version(text)), "{range}: {text}");
            }
            for text in without {
                assert!(!parsed.contains(&version(text)), "{range}: {text}");
            }
        }
        for text in ["", " ", ">=", "=>1", "1 || 2", ">=a", "1 1 1 1 1"] {
            assert!(Range::parse(text).is_err(), "{text}");
        }
    }
}
