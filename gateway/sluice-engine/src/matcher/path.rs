//! Path patterns: a literal path, segments with captures, everything below a prefix, or a regular
//! expression.
//!
//! Which of several patterns wins is the router's. The one rule: literal text is brought into
//! canonical form when it is parsed, since it is compared with canonical paths only.

use regex::{Regex, RegexBuilder};

use super::{Captures, PatternError, REGEX_SIZE_LIMIT, anchored, regex_error};
use crate::canon::{EncodedSlash, PathFault, PathPolicy, path_with};

/// A path to match.
#[derive(Clone, Debug)]
pub struct PathPattern {
    text: String,
    names: Vec<String>,
    shape: Shape,
}

/// The kinds of pattern, in order of precedence.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    /// This path and no other.
    Literal(String),
    /// Segment by segment; with `below`, whatever follows them matches too. Without `below` there is
    /// a capture among them.
    Segments { segments: Vec<Segment>, below: bool },
    /// Anchored at both ends.
    Regex(Regex),
}

/// What one segment of a path has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// This text. Empty only at the end, where it stands for a trailing slash.
    Literal(Box<str>),
    /// Anything but nothing.
    Capture,
}

/// A bound on the depth of the trie, and so on the depth of its recursion.
const MAX_SEGMENTS: usize = 128;

impl PathPattern {
    /// Reads a pattern:
    ///
    /// * `/api/users` matches itself only, and not with another trailing slash;
    /// * `/api/users/**` matches `/api/users`, `/api/users/` and everything below;
    /// * `/u/{id}` captures one segment, which is never empty;
    /// * `/u/{id}/**` does both, and `/**` matches every path.
    ///
    /// # Errors
    /// A sentence that says what to write.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let Some(inner) = text.strip_prefix('/') else {
            return Err(PatternError::new(format!("`{text}` has to begin with `/`")));
        };
        let (body, below) = match inner.strip_suffix("/**") {
            Some(body) => (Some(body), true),
            None if inner == "**" => (None, true),
            None => (Some(inner), false),
        };
        let mut names = Vec::new();
        let mut segments = Vec::new();
        let mut parts = body.into_iter().flat_map(|body| body.split('/')).peekable();
        while let Some(part) = parts.next() {
            let trailing = !below && parts.peek().is_none();
            segments.push(segment(text, part, trailing, &mut names)?);
        }
        if segments.len() > MAX_SEGMENTS {
            return Err(PatternError::new(format!(
                "`{text}` has more than {MAX_SEGMENTS} segments"
            )));
        }
        let shape = if below || !names.is_empty() {
            Shape::Segments { segments, below }
        } else {
            Shape::Literal(joined(&segments))
        };
        Ok(Self { text: text.to_owned(), names, shape })
    }

    /// Reads a regular expression that has to match the whole canonical path; anchors are ours.
    /// Named groups are captures.
    ///
    /// # Errors
    /// When it is no expression, or compiles to more than [`REGEX_SIZE_LIMIT`].
    pub fn regex(expression: &str) -> Result<Self, PatternError> {
        let regex = RegexBuilder::new(&anchored(expression)?)
            .size_limit(REGEX_SIZE_LIMIT)
            .build()
            .map_err(|error| regex_error(expression, &error))?;
        let names = regex.capture_names().flatten().map(str::to_owned).collect();
        Ok(Self { text: expression.to_owned(), names, shape: Shape::Regex(regex) })
    }

    /// The names of the captures, in the order of [`Captures`].
    #[must_use]
    pub fn capture_names(&self) -> &[String] {
        &self.names
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a canonical path matches.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        match &self.shape {
            Shape::Literal(literal) => literal == path,
            Shape::Regex(regex) => regex.is_match(path),
            Shape::Segments { segments, below } => {
                let Some(inner) = path.strip_prefix('/') else { return false };
                let mut parts = inner.split('/');
                let fits = segments.iter().all(|segment| {
                    parts.next().is_some_and(|part| match segment {
                        Segment::Literal(literal) => **literal == *part,
                        Segment::Capture => !part.is_empty(),
                    })
                });
                fits && (*below || parts.next().is_none())
            }
        }
    }

    pub(super) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The pieces that the pattern captures of a path it matches.
    pub(super) fn captures(&self, path: &str) -> Captures {
        let mut captures = Captures::default();
        match &self.shape {
            _ if self.names.is_empty() => {}
            Shape::Literal(_) => {}
            Shape::Segments { segments, .. } => {
                let mut start = 1;
                for (segment, part) in segments.iter().zip(path.split('/').skip(1)) {
                    let end = start + part.len();
                    if *segment == Segment::Capture {
                        captures.push(start, end);
                    }
                    start = end + 1;
                }
            }
            Shape::Regex(regex) => {
                let Some(found) = regex.captures(path) else { return captures };
                for name in &self.names {
                    match found.name(name) {
                        Some(group) => captures.push(group.start(), group.end()),
                        None => captures.push_absent(),
                    }
                }
            }
        }
        captures
    }
}

fn segment(
    text: &str,
    part: &str,
    trailing: bool,
    names: &mut Vec<String>,
) -> Result<Segment, PatternError> {
    if let Some(name) = part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        check_name(text, name)?;
        if names.iter().any(|held| held == name) {
            return Err(PatternError::new(format!("`{text}` captures `{name}` twice")));
        }
        names.push(name.to_owned());
        return Ok(Segment::Capture);
    }
    if part.contains(['{', '}']) {
        return Err(PatternError::new(format!(
            "in `{text}` a capture has to be a whole segment, as in `/users/{{id}}`"
        )));
    }
    if part.contains('*') {
        return Err(PatternError::new(format!(
            "in `{text}` write `{{name}}` for one segment, and `/**` at the end for everything below"
        )));
    }
    if part.is_empty() {
        return if trailing {
            Ok(Segment::Literal("".into()))
        } else {
            Err(PatternError::new(format!("`{text}` has an empty segment, which no path has")))
        };
    }
    literal(text, part)
}

fn literal(text: &str, part: &str) -> Result<Segment, PatternError> {
    let slashed = format!("/{part}");
    let keep = PathPolicy { encoded_slash: EncodedSlash::Keep };
    let refused = |why: &str| PatternError::new(format!("no path matches `{text}`: {why}"));
    let canonical = path_with(&slashed, &keep).map_err(|fault| refused(reason(fault)))?;
    match canonical.strip_prefix('/') {
        Some(literal) if !literal.is_empty() => Ok(Segment::Literal(literal.into())),
        _ => Err(refused("dot segments are removed before matching")),
    }
}

fn reason(fault: PathFault) -> &'static str {
    match fault {
        PathFault::NotAbsolute => "paths begin with `/`",
        PathFault::Delimiter => "`?` and `#` end a path; query parameters are matched on their own",
        PathFault::Control => "requests with control characters are refused",
        PathFault::Escape => "a `%` is followed by two hexadecimal digits",
        PathFault::Backslash => "requests with a backslash are refused",
        PathFault::EncodedSlash => "requests with an escaped slash are refused",
        PathFault::HiddenDots => "requests with disguised dot segments are refused",
        PathFault::AboveRoot => "dot segments are removed before matching",
    }
}

fn check_name(text: &str, name: &str) -> Result<(), PatternError> {
    let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if letters && name.starts_with(|first: char| !first.is_ascii_digit()) {
        return Ok(());
    }
    Err(PatternError::new(format!(
        "in `{text}` the name `{{{name}}}` has to be of letters, digits and `_`, no digit first"
    )))
}

fn joined(segments: &[Segment]) -> String {
    let mut path = String::new();
    for segment in segments {
        path.push('/');
        if let Segment::Literal(literal) = segment {
            path.push_str(literal);
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> PathPattern {
        PathPattern::parse(text).unwrap()
    }

    fn check(pattern: &PathPattern, yes: &[&str], no: &[&str]) {
        for path in yes {
            assert!(pattern.matches(path), "{} should match {path}", pattern.as_str());
        }
        for path in no {
            assert!(!pattern.matches(path), "{} should not match {path}", pattern.as_str());
        }
    }

    fn pieces<'p>(pattern: &PathPattern, path: &'p str) -> Vec<Option<&'p str>> {
        let captures = pattern.captures(path);
        (0..captures.len()).map(|index| captures.get(index, path)).collect()
    }

    #[test]
    fn literals_match_themselves_only() {
        check(&parse("/api/users"), &["/api/users"], &["/api/users/", "/api", "/API/users"]);
        check(&parse("/api/"), &["/api/"], &["/api"]);
        check(&parse("/"), &["/"], &["/a", ""]);
        check(&parse("/caf\u{e9}/%7ex"), &["/caf%C3%A9/~x"], &["/caf\u{e9}/~x"]);
    }

    #[test]
    fn prefixes_end_at_a_slash() {
        let yes = ["/api/users", "/api/users/", "/api/users/1", "/api/users/1/2/"];
        check(&parse("/api/users/**"), &yes, &["/api/usersX", "/api", "/api/", "/"]);
        check(&parse("/**"), &["/", "/a", "/a/b/"], &["", "*"]);
    }

    #[test]
    fn captures_take_one_segment() {
        let pattern = parse("/u/{id}/posts/{pid}");
        assert_eq!(pattern.capture_names(), ["id", "pid"]);
        check(&pattern, &["/u/5/posts/6"], &["/u//posts/6", "/u/5/posts/", "/u/5/posts/6/"]);
        assert_eq!(pieces(&pattern, "/u/5/posts/six"), [Some("5"), Some("six")]);
        let below = parse("/u/{id}/**");
        check(&below, &["/u/5", "/u/5/", "/u/5/x"], &["/u", "/u/"]);
        assert_eq!(pieces(&below, "/u/55/x/y"), [Some("55")]);
        check(&parse("/u/{id}/"), &["/u/5/"], &["/u/5", "/u//"]);
    }

    #[test]
    fn expressions_are_anchored_on_both_sides() {
        let pattern = PathPattern::regex("/a|/v(?<n>[0-9]+)(?<rest>/.*)?").unwrap();
        check(&pattern, &["/a", "/v1", "/v2/x"], &["/ab", "x/a", "/a\n", "/v1x", "/v"]);
        assert_eq!(pattern.capture_names(), ["n", "rest"]);
        assert_eq!(pieces(&pattern, "/v2/x"), [Some("2"), Some("/x")]);
        assert_eq!(pieces(&pattern, "/v2"), [Some("2"), None]);
        for bad in ["/a)|(/b", "(", "/(?<x>a)(?<x>b)", "(?:(?:a{1000}){1000}){10}"] {
            assert!(PathPattern::regex(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bad_patterns_say_what_to_write() {
        for (text, word) in [
            ("", "begin with `/`"),
            ("api", "begin with `/`"),
            ("/a/*/b", "write `{name}`"),
            ("/a/**/b", "write `{name}`"),
            ("/a**", "write `{name}`"),
            ("/a//b", "empty segment"),
            ("/a//**", "empty segment"),
            ("//", "empty segment"),
            ("/{id}.json", "whole segment"),
            ("/{id", "whole segment"),
            ("/{1d}", "no digit first"),
            ("/{}", "letters"),
            ("/{a}/{a}", "twice"),
            ("/a/../b", "dot segments"),
            ("/a/.", "dot segments"),
            ("/a?b", "end a path"),
            ("/%zz", "hexadecimal"),
        ] {
            let error = PathPattern::parse(text).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
        assert!(PathPattern::parse(&"/a".repeat(129)).is_err());
    }
}
