//! Which route a request takes: compiled route specifications × a request → a route or the reason
//! why there is none.
//!
//! Reading requests, canonical paths (`canon`) and lower-casing hosts are left to the caller. The one
//! rule: the answer depends on the specifications and the request alone, never on hashing or timing.
//!
//! # Precedence
//!
//! A route matches *wholly* when its host, path, method and all its predicates do. Among routes that
//! match wholly the winner is found by these questions, in this order:
//!
//! 1. **Host.** A literal host comes before the longest wildcard, that before shorter ones, and any
//!    host last. When nothing under the more specific host matches wholly, the next one is asked.
//! 2. **Path.** A literal path; then paths with captures, where the first segment from the left that
//!    differs decides and a literal segment comes before a capture; then regular expressions, in
//!    file order (that of the first route with the same expression); then prefixes, the one with
//!    more segments first, and the one that is literal further left among equals.
//! 3. **Priority**, higher first.
//! 4. **Predicates**, more first.
//! 5. **Methods**, routes that name some before routes for any.
//! 6. **File order.**
//!
//! When no route matches wholly but some would with another method, the answer names those methods.
//!
//! # Cost
//!
//! Hosts and literal paths are looked up by hash. Captures and prefixes share a trie of segments
//! that is walked with backtracking; each of its nodes is visited once at most. Regular expressions
//! are tried one by one. Finding allocates nothing, except that an expression with named groups
//! allocates when it has won.

mod explain;
mod host;
mod method;
mod order;
mod pairs;
mod path;
mod predicate;
mod router;
mod trie;

use std::fmt;
use std::net::IpAddr;

use smallvec::SmallVec;

use crate::mini;

pub use explain::{Lost, Near};
pub use host::HostPattern;
pub use method::MethodSet;
pub use pairs::cookie;
pub use path::PathPattern;
pub use predicate::{Predicate, Source, Test};
pub use router::Router;

/// How many captures one path may have.
pub const MAX_CAPTURES: usize = 16;

/// The largest compiled size of one regular expression, in bytes (row P-12).
pub const REGEX_SIZE_LIMIT: usize = 1 << 20;

/// What a route asks of a request.
#[derive(Clone, Debug)]
pub struct RouteSpec {
    /// Any of these; empty for any host.
    pub hosts: Vec<HostPattern>,
    /// The path to match.
    pub path: PathPattern,
    /// The methods; empty for any.
    pub methods: MethodSet,
    /// All of these have to hold.
    pub predicates: Vec<Predicate>,
    /// Decides between routes of the same host and path; higher first.
    pub priority: i32,
}

/// The facts of a request that only predicates ask for.
pub trait Facts {
    /// Calls `f` with the value of each field line of that name, in order. `name` is lower case.
    fn each_header(&self, name: &str, f: &mut dyn FnMut(&[u8]));
    /// The raw query without `?`; empty when there is none.
    fn query(&self) -> &str;
    /// The client's address.
    fn client(&self) -> IpAddr;
    /// The mini-program that calls, if it is one.
    fn mini(&self) -> Option<&mini::Client> {
        None
    }
}

/// A request as the matcher sees it.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// In lower case, without port and trailing dot; may be empty.
    pub host: &'a str,
    /// The method as sent.
    pub method: &'a str,
    /// Canonical, see [`crate::canon`]. At most 65,535 bytes; nothing matches a longer one.
    pub path: &'a str,
    /// The rest.
    pub facts: &'a dyn Facts,
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.method, self.host, self.path)
    }
}

/// The answer of [`Router::find`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A route matches wholly.
    Route(Match),
    /// Some routes match in everything but the method; these are the methods they take.
    MethodNotAllowed(MethodSet),
    /// No route matches.
    NoRoute,
}

/// The route that won.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// Its index in the specifications.
    pub route: usize,
    /// What its path captured.
    pub captures: Captures,
}

/// Pieces of a path, in the order of [`PathPattern::capture_names`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captures {
    spans: SmallVec<[(u16, u16); 4]>,
}

impl Captures {
    /// The piece number `index` of `path`, which has to be the path that was matched. `None` when
    /// there is no such piece, or when an expression's group took no part in the match.
    #[must_use]
    pub fn get<'p>(&self, index: usize, path: &'p str) -> Option<&'p str> {
        let (start, end) = *self.spans.get(index)?;
        path.get(usize::from(start)..usize::from(end))
    }

    /// How many pieces there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether nothing was captured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    fn push(&mut self, start: usize, end: usize) {
        // Paths are at most u16::MAX bytes long, which `Router::find` sees to.
        if let (Ok(start), Ok(end)) = (u16::try_from(start), u16::try_from(end)) {
            self.spans.push((start, end));
        }
    }

    /// A piece that exists by name but is not there: no path has a range that ends before it starts.
    fn push_absent(&mut self) {
        self.spans.push((1, 0));
    }
}

/// Why specifications do not make a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BuildFault {
    /// Wherever `route` matches, another route of the same host and path shape comes first. Both are
    /// indices of specifications.
    Unreachable {
        /// The route that can never win.
        route: usize,
        /// A route that stands before it.
        because_of: usize,
    },
    /// A path has more than [`MAX_CAPTURES`] captures.
    TooManyCaptures {
        /// The route.
        route: usize,
        /// How many it has.
        count: usize,
    },
}

impl fmt::Display for BuildFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { route, because_of } => {
                write!(
                    f,
                    "route {route} can never be reached, because route {because_of} comes first"
                )
            }
            Self::TooManyCaptures { route, count } => {
                write!(f, "route {route} has {count} captures; at most {MAX_CAPTURES} are kept")
            }
        }
    }
}

impl std::error::Error for BuildFault {}

/// Why a text is not a pattern: a sentence that says what to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError(String);

impl PatternError {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PatternError {}

/// `expression` between anchors. It is compiled alone first, so that an unbalanced bracket cannot
/// break out of the group which the anchors need.
fn anchored(expression: &str) -> Result<String, PatternError> {
    match regex::RegexBuilder::new(expression).size_limit(REGEX_SIZE_LIMIT).build() {
        Ok(_) => Ok(format!(r"\A(?:{expression})\z")),
        Err(error) => Err(regex_error(expression, &error)),
    }
}

fn regex_error(expression: &str, error: &regex::Error) -> PatternError {
    match error {
        regex::Error::CompiledTooBig(limit) => PatternError::new(format!(
            "the expression `{expression}` compiles to more than {limit} bytes; write a smaller one"
        )),
        other => {
            // The library draws the expression and points at the spot; the reason is the last line.
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default();
            let why = last.strip_prefix("error: ").unwrap_or(last);
            PatternError::new(format!("`{expression}` is no regular expression: {why}"))
        }
    }
}
