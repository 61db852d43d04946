//! JSON pointers (RFC 6901), parsed once.

use serde_json::{Map, Value};

use crate::base::yaml::Place;
use crate::parts::env::Env;

/// Steps at most.
const MOST: usize = 16;

#[derive(Debug)]
pub(super) struct Pointer {
    first: String,
    /// The rest, as it is written.
    rest: String,
}

impl Pointer {
    /// Understands `/a/b`, or records why not.
    pub(super) fn build(text: &str, at: &Place<'_>, env: &mut Env<'_>) -> Option<Self> {
        let parsed = Self::parse(text);
        if parsed.is_none() {
            env.problems
                .error(at, format!("`{text}` is no JSON pointer"))
                .help("write `/roles`, or `/org/id` for a member of a member");
        }
        parsed
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let path = text.strip_prefix('/')?;
        let (first, rest) = match path.find('/') {
            Some(at) => path.split_at_checked(at)?,
            None => (path, ""),
        };
        let fits = !first.is_empty() && text.len() <= 256 && text.split('/').count() <= MOST + 1;
        let first = first.replace("~1", "/").replace("~0", "~");
        fits.then(|| Self { first, rest: rest.to_owned() })
    }

    /// What it points to.
    pub(super) fn find<'c>(&self, claims: &'c Map<String, Value>) -> Option<&'c Value> {
        claims.get(&self.first)?.pointer(&self.rest)
    }
}
