//! The error type that travels through serde. It carries words only until somebody with a position
//! has told them. The one rule: words that may quote a value say so, by leaving `shows_nothing`
//! false.

use std::fmt;

use serde::de::{Error, Expected, Unexpected};

use super::super::hints;
use super::super::suggest::nearest;

/// Something went wrong; the words are gone once they were told.
#[derive(Debug)]
pub(super) struct Failure(Option<Box<Words>>);

/// What to tell.
#[derive(Debug)]
pub(super) struct Words {
    pub(super) message: String,
    pub(super) help: Option<String>,
    /// The field that is missing, if that is the error.
    pub(super) missing: Option<&'static str>,
    /// Whether the message is known to quote no value, or only one that may be shown.
    pub(super) shows_nothing: bool,
}

impl Failure {
    /// The error was told; what is left is to stop reading.
    pub(super) fn told() -> Self {
        Self(None)
    }

    pub(super) fn into_words(self) -> Option<Words> {
        self.0.map(|words| *words)
    }
}

impl Words {
    /// Words that may be shown as they are.
    pub(super) fn plain(message: impl Into<String>, help: Option<String>) -> Self {
        Self { message: message.into(), help, missing: None, shows_nothing: true }
    }

    pub(super) fn with_help(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::plain(message, Some(help.into()))
    }
}

impl From<Words> for Failure {
    fn from(words: Words) -> Self {
        Self(Some(Box::new(words)))
    }
}

/// A field that does not exist, with the one that was probably meant.
pub(super) fn unknown_field(
    field: &str,
    known: &'static [&'static str],
) -> (Words, Option<&'static str>) {
    let near = nearest(field, known.iter().copied());
    let help = match (hints::spaced(field), near) {
        (Some(spaced), _) => format!("write a space after the colon: `{spaced}`"),
        (None, near) => offer(near, known, "no field is known here"),
    };
    (Words::with_help(format!("unknown field `{}`", hints::clip(field)), help), near)
}

fn offer(near: Option<&str>, known: &[&str], none: &str) -> String {
    let quoted: Vec<String> = known.iter().map(|word| format!("`{word}`")).collect();
    let known = quoted.join(", ");
    match near {
        Some(near) => format!("did you mean `{near}`? Known here: {known}"),
        None if quoted.is_empty() => none.to_owned(),
        None => format!("known here: {known}"),
    }
}

impl Error for Failure {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Words { shows_nothing: false, ..Words::plain(message.to_string(), None) }.into()
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("expected {expected}, got {}", Got(unexpected)))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Words::plain(format!("expected {expected}, got {length}"), None).into()
    }

    fn unknown_variant(word: &str, known: &'static [&'static str]) -> Self {
        let near = nearest(word, known.iter().copied());
        let help = Some(offer(near, known, "no word is known here"));
        let message = format!("unknown word `{}`", hints::clip(word));
        Words { shows_nothing: false, ..Words::plain(message, help) }.into()
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        unknown_field(field, known).0.into()
    }

    fn missing_field(field: &'static str) -> Self {
        let words = Words::plain(format!("missing field `{field}`"), None);
        Words { missing: Some(field), ..words }.into()
    }

    fn duplicate_field(field: &'static str) -> Self {
        Words::with_help(
            format!("`{field}` is given twice under different names"),
            "keep one of them",
        )
        .into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_ref().map_or("already told", |words| &words.message))
    }
}

impl std::error::Error for Failure {}

/// What serde came across, as an operator would call it.
struct Got<'a>(Unexpected<'a>);

impl fmt::Display for Got<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Unexpected::Bool(value) => write!(f, "`{value}`"),
            Unexpected::Unsigned(value) => write!(f, "`{value}`"),
            Unexpected::Signed(value) => write!(f, "`{value}`"),
            Unexpected::Float(value) => write!(f, "`{value}`"),
            Unexpected::Char(value) => write!(f, "`{value}`"),
            Unexpected::Str(value) => write!(f, "`{}`", hints::clip(value)),
            Unexpected::Unit | Unexpected::Option => f.write_str("nothing"),
            Unexpected::Seq => f.write_str("a list"),
            Unexpected::Map => f.write_str("a mapping"),
            other => write!(f, "{other}"),
        }
    }
}
