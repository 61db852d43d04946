//! Predicates: what a route asks of headers, query, cookies, the client's address, and the mini-program
//! that calls.
//!
//! The facts come from the caller through [`Facts`]. The one rule: predicates fail closed. Over a
//! name that is given several times, every value has to pass, since we cannot know which of them an
//! upstream reads; and where there is too much to read, nothing holds.

use regex::bytes::{Regex, RegexBuilder};

use super::{Facts, PatternError, REGEX_SIZE_LIMIT, anchored, pairs, regex_error};
use crate::{cidr, mini};

/// One condition of a route.
#[derive(Clone, Debug, PartialEq)]
pub enum Predicate {
    /// Something the request says has to pass a test.
    Value {
        /// Where to look.
        source: Source,
        /// What to ask.
        test: Test,
    },
    /// The client's address has to be in a set.
    ClientIn(cidr::Set),
    /// The mini-program that calls has to pass a test.
    Mini(mini::Test),
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The field lines of this name, in lower case. Lists in a line are not taken apart.
    Header(String),
    /// The query parameters of this name, decoded.
    Query(String),
    /// The cookies of this name, as they stand.
    Cookie(String),
}

/// What is asked of each value.
#[derive(Clone, Debug)]
pub enum Test {
    /// It is this text.
    Exact(String),
    /// It begins with this text.
    Prefix(String),
    /// It matches. Made by [`Test::regex`], which anchors.
    Regex(Regex),
    /// There is at least one value.
    Present,
    /// There is none.
    Absent,
}

impl Test {
    /// A test that the whole value matches `expression`; anchors are ours. Values are bytes and need
    /// not be UTF-8.
    ///
    /// # Errors
    /// When it is no expression, or compiles to more than [`REGEX_SIZE_LIMIT`].
    pub fn regex(expression: &str) -> Result<Self, PatternError> {
        RegexBuilder::new(&anchored(expression)?)
            .size_limit(REGEX_SIZE_LIMIT)
            .build()
            .map(Self::Regex)
            .map_err(|error| regex_error(expression, &error))
    }

    fn passes(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(text) => value == text.as_bytes(),
            Self::Prefix(text) => value.starts_with(text.as_bytes()),
            Self::Regex(regex) => regex.is_match(value),
            Self::Present => true,
            Self::Absent => false,
        }
    }
}

/// Expressions are equal when they are written the same.
impl PartialEq for Test {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) | (Self::Prefix(a), Self::Prefix(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            (Self::Present, Self::Present) | (Self::Absent, Self::Absent) => true,
            _ => false,
        }
    }
}

impl Predicate {
    /// Whether the facts satisfy this predicate.
    #[must_use]
    pub fn holds(&self, facts: &dyn Facts) -> bool {
        match self {
            Self::ClientIn(set) => set.contains(facts.client()),
            Self::Mini(test) => facts.mini().is_some_and(|client| test.passes(client)),
            Self::Value { source, test } => {
                let (mut any, mut all) = (false, true);
                let whole = source.each(facts, &mut |value| {
                    any = true;
                    all = all && test.passes(value);
                });
                whole && if matches!(test, Test::Absent) { !any } else { any && all }
            }
        }
    }
}

impl Source {
    /// Calls `f` with each value. False when there was too much to look at all of it.
    fn each(&self, facts: &dyn Facts, f: &mut dyn FnMut(&[u8])) -> bool {
        match self {
            Self::Header(name) => {
                facts.each_header(name, f);
                true
            }
            Self::Query(name) => pairs::each_query_value(facts.query(), name, f),
            Self::Cookie(name) => {
                let (mut whole, mut seen) = (true, 0);
                facts.each_header("cookie", &mut |line| {
                    whole = whole && pairs::each_cookie_value(line, name, &mut seen, f);
                });
                whole
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::IpAddr;

    use super::*;

    /// A request's facts, written down.
    #[derive(Debug)]
    pub(crate) struct Told {
        pub(crate) headers: Vec<(&'static str, &'static [u8])>,
        pub(crate) query: String,
        pub(crate) client: IpAddr,
    }

    impl Default for Told {
        fn default() -> Self {
            Self { headers: Vec::new(), query: String::new(), client: IpAddr::from([192, 0, 2, 1]) }
        }
    }

    impl Facts for Told {
        fn each_header(&self, name: &str, f: &mut dyn FnMut(&[u8])) {
            for (_, value) in self.headers.iter().filter(|(held, _)| *held == name) {
                f(value);
            }
        }
        fn query(&self) -> &str {
            &self.query
        }
        fn client(&self) -> IpAddr {
            self.client
        }
    }

    fn header(test: Test) -> Predicate {
        Predicate::Value { source: Source::Header("x-tag".to_owned()), test }
    }

    fn with_tags(values: &[&'static [u8]]) -> Told {
        Told { headers: values.iter().map(|value| ("x-tag", *value)).collect(), ..Told::default() }
    }

    #[test]
    fn each_test_asks_its_question() {
        let told = with_tags(&[b"green-1"]);
        for (test, holds) in [
            (Test::Exact("green-1".to_owned()), true),
            (Test::Exact("green".to_owned()), false),
            (Test::Prefix("green".to_owned()), true),
            (Test::Prefix("blue".to_owned()), false),
            (Test::regex("green-[0-9]").unwrap(), true),
            (Test::regex("green").unwrap(), false),
            (Test::Present, true),
            (Test::Absent, false),
        ] {
            assert_eq!(header(test.clone()).holds(&told), holds, "{test:?}");
        }
    }

    #[test]
    fn without_a_value_only_absence_holds() {
        let told = with_tags(&[]);
        assert!(header(Test::Absent).holds(&told));
        for test in [Test::Present, Test::Prefix(String::new()), Test::regex(".*").unwrap()] {
            assert!(!header(test).holds(&told));
        }
    }

    #[test]
    fn p11_every_value_has_to_pass() {
        let user = |query: &str| {
            let told = Told { query: query.to_owned(), ..Told::default() };
            let source = Source::Query("role".to_owned());
            Predicate::Value { source, test: Test::Exact("user".to_owned()) }.holds(&told)
        };
        assert!(user("role=user&role=user") && user("role=%75ser"));
        assert!(!user("role=user&role=admin") && !user("role=admin&role=user"));
        assert!(!user(&format!("role=user&{}", "x&".repeat(300))));
    }

    #[test]
    fn cookies_are_found_over_all_lines() {
        let told = Told {
            headers: vec![("cookie", b"a=1; tier=gold"), ("cookie", b"tier=gold")],
            ..Told::default()
        };
        let source = Source::Cookie("tier".to_owned());
        assert!(Predicate::Value { source, test: Test::Exact("gold".to_owned()) }.holds(&told));
    }

    #[test]
    fn bytes_that_are_no_text_are_compared_as_bytes() {
        let told = with_tags(&[b"\xff"]);
        assert!(header(Test::Present).holds(&told));
        assert!(!header(Test::regex(".").unwrap()).holds(&told));
    }

    #[test]
    fn addresses_are_looked_up() {
        let set = cidr::Set::new([cidr::parse_net("192.0.2.0/24").unwrap()]);
        assert!(Predicate::ClientIn(set).holds(&Told::default()));
        assert!(!Predicate::ClientIn(cidr::Set::default()).holds(&Told::default()));
    }

    #[test]
    fn expressions_are_equal_by_their_text() {
        assert_eq!(Test::regex("a").unwrap(), Test::regex("a").unwrap());
        assert_ne!(Test::regex("a").unwrap(), Test::regex("b").unwrap());
        assert_ne!(Test::Exact("a".to_owned()), Test::Prefix("a".to_owned()));
        assert!(Test::regex("a)|(b").is_err());
    }
}
