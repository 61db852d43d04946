//! Sets of request methods.
//!
//! What an empty set means to a route is the route's matter (any method). The one rule: a set with
//! GET has HEAD too, since every GET resource answers HEAD (RFC 9110 section 9.3.2).

use std::fmt;

use smallvec::SmallVec;

use super::PatternError;

/// A set of methods: a bit for each common one, and a short sorted list for the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MethodSet {
    known: u8,
    custom: SmallVec<[Box<str>; 1]>,
}

/// A request's method, looked up once.
#[derive(Clone, Copy, Debug)]
pub(super) enum Method<'a> {
    Known(u8),
    Custom(&'a str),
}

impl<'a> Method<'a> {
    pub(super) fn of(token: &'a str) -> Self {
        KNOWN
            .iter()
            .position(|known| *known == token)
            .map_or(Self::Custom(token), |at| Self::Known(1 << at))
    }
}

impl MethodSet {
    /// The set of these tokens.
    ///
    /// # Errors
    /// As [`MethodSet::insert`].
    pub fn parse<'a>(tokens: impl IntoIterator<Item = &'a str>) -> Result<Self, PatternError> {
        let mut set = Self::default();
        tokens.into_iter().try_for_each(|token| set.insert(token))?;
        Ok(set)
    }

    /// Adds one method; GET brings HEAD along.
    ///
    /// # Errors
    /// When `token` is no token of RFC 9110 section 5.6.2, or has lower-case letters: methods are
    /// case-sensitive, and a lower-case one would never match.
    pub fn insert(&mut self, token: &str) -> Result<(), PatternError> {
        if token.bytes().any(|byte| byte.is_ascii_lowercase()) {
            let upper = token.to_ascii_uppercase();
            return Err(PatternError::new(format!(
                "methods are case-sensitive: write `{upper}` instead of `{token}`"
            )));
        }
        if token.is_empty() || !token.bytes().all(is_token_byte) {
            return Err(PatternError::new(format!(
                "`{token}` is not a method such as GET or POST"
            )));
        }
        match Method::of(token) {
            Method::Known(GET) => self.known |= GET | HEAD,
            Method::Known(bit) => self.known |= bit,
            Method::Custom(token) => {
                if let Err(at) = self.custom.binary_search_by(|held| held.as_ref().cmp(token)) {
                    self.custom.insert(at, token.into());
                }
            }
        }
        Ok(())
    }

    /// Whether the set has this method.
    #[must_use]
    pub fn contains(&self, token: &str) -> bool {
        self.has(Method::of(token))
    }

    /// Whether a route with this set takes this method: it has it, or it is empty.
    #[must_use]
    pub fn admits(&self, token: &str) -> bool {
        self.takes(Method::of(token))
    }

    /// Whether there are no methods in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known == 0 && self.custom.is_empty()
    }

    /// The methods: common ones in a fixed order, then the others by the alphabet.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let known = KNOWN.iter().enumerate().filter(|(at, _)| self.known & 1 << at != 0);
        known.map(|(_, name)| *name).chain(self.custom.iter().map(AsRef::as_ref))
    }

    /// The methods that are in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut custom: SmallVec<_> = self.custom.iter().chain(&other.custom).cloned().collect();
        custom.sort_unstable();
        custom.dedup();
        Self { known: self.known | other.known, custom }
    }

    pub(super) fn takes(&self, method: Method<'_>) -> bool {
        self.is_empty() || self.has(method)
    }

    /// Whether a route with this set takes every method that one with `other` takes.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let all_custom = other.custom.iter().all(|token| self.custom.contains(token));
        self.is_empty()
            || (!other.is_empty() && self.known & other.known == other.known && all_custom)
    }

    fn has(&self, method: Method<'_>) -> bool {
        match method {
            Method::Known(bit) => self.known & bit != 0,
            Method::Custom(token) => self.custom.iter().any(|held| held.as_ref() == token),
        }
    }
}

/// As in an `Allow` field.
impl fmt::Display for MethodSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, method) in self.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{method}")?;
        }
        Ok(())
    }
}

const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];
const GET: u8 = 1;
const HEAD: u8 = 1 << 1;

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(tokens: &[&str]) -> MethodSet {
        MethodSet::parse(tokens.iter().copied()).unwrap()
    }

    #[test]
    fn get_brings_head() {
        assert!(set(&["GET"]).contains("HEAD"));
        assert!(!set(&["HEAD"]).contains("GET"));
        assert_eq!(set(&["POST", "GET"]).to_string(), "GET, HEAD, POST");
    }

    #[test]
    fn other_tokens_are_kept_in_order() {
        let both = set(&["PURGE", "LOCK", "PURGE"]).union(&set(&["LOCK", "COPY", "PUT"]));
        assert_eq!(both.iter().collect::<Vec<_>>(), ["PUT", "COPY", "LOCK", "PURGE"]);
        assert!(both.contains("LOCK") && !both.contains("UNLOCK"));
    }

    #[test]
    fn an_empty_set_admits_all_and_contains_none() {
        let empty = MethodSet::default();
        assert!(empty.is_empty() && empty.admits("GET") && !empty.contains("GET"));
        assert!(set(&["GET"]).admits("HEAD") && !set(&["GET"]).admits("POST"));
    }

    #[test]
    fn covering_is_about_what_routes_take() {
        let (any, get, lock) = (set(&[]), set(&["GET"]), set(&["GET", "LOCK"]));
        assert!(any.covers(&get) && any.covers(&any));
        assert!(!get.covers(&any) && !get.covers(&lock));
        assert!(lock.covers(&get) && lock.covers(&lock));
    }

    #[test]
    fn bad_tokens_say_what_to_write() {
        let error = set(&[]).clone().insert("get").unwrap_err();
        assert!(error.to_string().contains("`GET`"));
        for bad in ["", "GET POST", "GET,POST", "G\u{c9}T"] {
            assert!(MethodSet::parse([bad]).is_err(), "{bad}");
        }
    }
}
