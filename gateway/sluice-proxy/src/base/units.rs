//! Quantities as operators write them, each a small type that reads, prints and describes itself.
//! A bare number is always refused: nobody can tell `5` seconds from `5` milliseconds by looking.
//! What a quantity is good for is left to whoever asks for it. The one rule: what a unit prints, it
//! reads back as the same value.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error};

mod bytes;
mod percent;
mod secret;
mod span;

pub(crate) use bytes::ByteSize;
pub(crate) use percent::Percent;
pub(crate) use secret::Secret;
pub(crate) use span::Span;

/// A text is none of the quantity that was wanted; the words say what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed(String);

impl Malformed {
    fn new(expected: &str, text: &str) -> Self {
        let got = if text.trim().is_empty() { "nothing".to_owned() } else { format!("`{text}`") };
        Self(format!("expected {expected}, got {got}"))
    }

    fn no_unit(text: &str, like: &str) -> Self {
        Self(format!("`{text}` has no unit: write a unit, like {like}"))
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Malformed {}

/// The common part of the quantities: one JSON string, matched by a pattern.
macro_rules! quantity {
    ($type:ident, $title:literal, $pattern:literal, $examples:tt, $about:literal) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                crate::base::units::from_text(deserializer)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $title.into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    "description": $about,
                    "pattern": $pattern,
                    "examples": $examples,
                })
            }
        }
    };
}
use quantity;

fn from_text<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr<Err = Malformed>,
    D: Deserializer<'de>,
{
    Cow::<str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

/// Splits `10MiB` after its digits. `None` when there are no digits or more than a `u64` holds.
fn leading_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_the_text() {
        let read: Span = serde_json::from_str("\"1m30s\"").unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), "\"1m30s\"");
        let size: ByteSize = serde_json::from_str("\"10MiB\"").unwrap();
        assert_eq!(serde_json::to_string(&size).unwrap(), "\"10MiB\"");
        assert!(serde_json::from_str::<Span>("5").is_err());
        let error = serde_json::from_str::<Span>("\"5\"").unwrap_err();
        assert!(error.to_string().contains("write a unit"), "{error}");
    }

    #[test]
    fn schemas_describe_strings() {
        let schema = schemars::schema_for!(Span).to_value();
        assert_eq!(schema["type"], "string");
        assert!(schema["pattern"].as_str().unwrap().starts_with('^'));
        assert!(!schema["examples"].as_array().unwrap().is_empty());
    }
}
