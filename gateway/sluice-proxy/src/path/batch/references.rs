//! References to other calls' answers: `me#/data/id` is what the JSON pointer `/data/id` (RFC 6901) finds in
//! the body of the answer to the call `me`. In a path they stand in braces, in a body they are
//! `{"$ref": "me#/data/id"}`.
//!
//! The one rule: a value that is put into a path stays within its segment or parameter. It is
//! percent-encoded, and what would change the path itself (nothing, `.`, `..`) is refused.

use std::borrow::Cow;
use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

/// What stands for a reference in a body.
pub(super) const MEMBER: &str = "$ref";
/// Bytes of a reference, and of a path after it was filled in.
const MOST: usize = 256;
const MAX_PATH: usize = 8 * 1024;
/// All but the unreserved characters of RFC 3986 section 2.3.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A reference as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) id: String,
    pub(super) pointer: String,
}

/// A path with references in it.
#[derive(Debug)]
pub(super) struct Path(Vec<Piece>);

#[derive(Debug)]
enum Piece {
    Plain(String),
    Of(Reference),
}

impl Reference {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (id, pointer) = text.split_once('#')?;
        let fits = text.len() <= MOST && (pointer.is_empty() || pointer.starts_with('/'));
        fits.then(|| Self { id: id.to_owned(), pointer: pointer.to_owned() })
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}#{}", self.id, self.pointer)
    }
}

/// Finds what a reference names.
pub(super) trait Answers {
    fn find(&self, reference: &Reference) -> Option<&Value>;
}

impl Path {
    /// Reads a path with its query, or says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let plain = |text: &str| {
            text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'{' | b'}'))
        };
        if !text.starts_with('/') || text.len() > MAX_PATH {
            return Err("path_invalid");
        }
        let (mut pieces, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once('{') {
            let (inside, after) = after.split_once('}').ok_or("reference_invalid")?;
            let reference = Reference::parse(inside).ok_or("reference_invalid")?;
            if !plain(before) {
                return Err("path_invalid");
            }
            pieces.push(Piece::Plain(before.to_owned()));
            pieces.push(Piece::Of(reference));
            rest = after;
        }
        if !plain(rest) {
            return Err("path_invalid");
        }
        pieces.push(Piece::Plain(rest.to_owned()));
        Ok(Self(pieces))
    }

    pub(super) fn references(&self) -> impl Iterator<Item = &Reference> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Plain(_) => None,
            Piece::Of(reference) => Some(reference),
        })
    }

    /// The path with its query; the reference that cannot be filled in otherwise.
    pub(super) fn fill(&self, answers: &dyn Answers) -> Result<String, Reference> {
        let (mut out, mut last) = (String::new(), None);
        for piece in &self.0 {
            match piece {
                Piece::Plain(text) => out.push_str(text),
                Piece::Of(reference) => {
                    // What is too long is not even written: a path has room for many references.
                    let fits = |t: &Cow<'_, str>| out.len() + t.len() <= MAX_PATH;
                    let value = answers.find(reference).and_then(text).filter(|t| !t.is_empty());
                    let value = value.filter(fits).ok_or_else(|| reference.clone())?;
                    let _ = write!(out, "{}", utf8_percent_encode(&value, ENCODED));
                    last = Some(reference);
                }
            }
        }
        let path = out.split('?').next().unwrap_or_default();
        let leads_elsewhere = path.split('/').any(|segment| matches!(segment, "." | ".."));
        match last {
            Some(reference) if leads_elsewhere || out.len() > MAX_PATH => Err(reference.clone()),
            _ => Ok(out),
        }
    }
}

/// What a value is in a path.
fn text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(flag) => Some(Cow::Owned(flag.to_string())),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The references in a body, or what is wrong with one.
pub(super) fn in_body(body: &Value, out: &mut Vec<Reference>) -> Result<(), &'static str> {
    match body {
        Value::Object(members) => match members.get(MEMBER) {
            Some(Value::String(text)) if members.len() == 1 => {
                out.push(Reference::parse(text).ok_or("reference_invalid")?);
                Ok(())
            }
            Some(_) => Err("reference_invalid"),
            None => members.values().try_for_each(|value| in_body(value, out)),
        },
        Value::Array(values) => values.iter().try_for_each(|value| in_body(value, out)),
        _ => Ok(()),
    }
}

/// The body with what its references name; the one that cannot be filled in otherwise. `left` are the bytes
/// that values may have in all.
pub(super) fn fill_body(
    body: &Value,
    answers: &dyn Answers,
    left: &mut usize,
) -> Result<Value, Reference> {
    match body {
        Value::Object(members) => {
            if let Some(reference) = members.get(MEMBER).and_then(Value::as_str) {
                let Some(reference) = Reference::parse(reference) else { return Ok(body.clone()) };
                let Some(value) = answers.find(&reference) else { return Err(reference) };
                let Some(rest) = size(value, *left) else { return Err(reference) };
                *left = rest;
                return Ok(value.clone());
            }
            let filled = members
                .iter()
                .map(|(name, value)| Ok((name.clone(), fill_body(value, answers, left)?)));
            filled.collect::<Result<_, _>>().map(Value::Object)
        }
        Value::Array(values) => {
            let filled = values.iter().map(|value| fill_body(value, answers, left));
            filled.collect::<Result<_, _>>().map(Value::Array)
        }
        other => Ok(other.clone()),
    }
}

/// What is left of `left` bytes behind a value, or `None` if it is too large. Counted without writing it.
fn size(value: &Value, left: usize) -> Option<usize> {
    let left = left.checked_sub(8)?;
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => left.checked_sub(24),
        Value::String(text) => left.checked_sub(text.len()),
        Value::Array(values) => values.iter().try_fold(left, |left, value| size(value, left)),
        Value::Object(members) => members
            .iter()
            .try_fold(left, |left, (name, value)| size(value, left.checked_sub(name.len())?)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct One(Value);

    impl Answers for One {
        fn find(&self, reference: &Reference) -> Option<&Value> {
            (reference.id == "me").then(|| self.0.pointer(&reference.pointer)).flatten()
        }
    }

    fn filled(path: &str, answer: Value) -> Option<String> {
        Path::parse(path).unwrap().fill(&One(answer)).ok()
    }

    #[test]
    fn values_stay_where_they_are_put() {
        let of = |id: Value| json!({ "id": id });
        let at = |id: Value| filled("/u/{me#/id}/x?q={me#/id}", of(id));
        assert_eq!(at(json!("a")).as_deref(), Some("/u/a/x?q=a"));
        assert_eq!(at(json!(7)).as_deref(), Some("/u/7/x?q=7"));
        assert_eq!(
            at(json!("a/../b?c&d#e%f 你")).as_deref(),
            Some(
                "/u/a%2F..%2Fb%3Fc%26d%23e%25f%20%E4%BD%A0/x?q=a%2F..%2Fb%3Fc%26d%23e%25f%20%E4%BD%A0"
            )
        );
        for bad in [json!(""), json!("."), json!(".."), json!(null), json!([1]), json!({"a": 1})] {
            assert_eq!(at(bad.clone()), None, "{bad}");
        }
        assert_eq!(filled("/{me#/a}{me#/a}/x", json!({"a": "."})), None, "two dots in two pieces");
        assert_eq!(filled("/u/{me#/none}", of(json!(1))), None);
        assert_eq!(filled("/u/{you#/id}", of(json!(1))), None);
        assert_eq!(filled("/u/{me#}", json!("whole")).as_deref(), Some("/u/whole"));
    }

    /// A path of 8 KiB names a value more than a thousand times; filled in before it was measured, it had
    /// hundreds of megabytes.
    #[test]
    fn a_long_value_named_many_times_in_a_path_is_not_written_out() {
        let path = Path::parse(&format!("/{}", "{a#}".repeat(1600))).unwrap();
        struct Counts(Value, std::cell::Cell<usize>);
        impl Answers for Counts {
            fn find(&self, _: &Reference) -> Option<&Value> {
                self.1.set(self.1.get() + 1);
                Some(&self.0)
            }
        }
        for (length, looked_at) in [(200_000, 1), (3000, 2), (20, 206)] {
            let answers = Counts(json!("%".repeat(length)), std::cell::Cell::new(0));
            assert!(path.fill(&answers).is_err());
            assert!(answers.1.get() <= looked_at, "{} of {length} bytes", answers.1.get());
        }
    }

    #[test]
    fn paths_are_plain_but_for_references() {
        for bad in ["", "a", "/a b", "/a#b", "/你", "/{me#/id", "/{me}", "/{me#id}", "/}", "/{}"] {
            assert!(Path::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bodies_hold_whole_values() {
        let body = json!({ "user": { "$ref": "me#/id" }, "list": [{ "$ref": "me#/tags" }, 1] });
        let mut found = Vec::new();
        in_body(&body, &mut found).unwrap();
        assert_eq!(found.len(), 2);
        let answer = One(json!({ "id": 7, "tags": ["a", "b"] }));
        let whole = fill_body(&body, &answer, &mut 1000).unwrap();
        assert_eq!(whole, json!({ "user": 7, "list": [["a", "b"], 1] }));
        assert!(fill_body(&body, &answer, &mut 40).is_err(), "too large");
        assert!(fill_body(&json!({ "$ref": "me#/x" }), &answer, &mut 1000).is_err());
        for bad in [json!({ "$ref": 1 }), json!({ "$ref": "me#/a", "b": 1 }), json!({ "$ref": "" })]
        {
            assert!(in_body(&bad, &mut Vec::new()).is_err(), "{bad}");
        }
    }
}
