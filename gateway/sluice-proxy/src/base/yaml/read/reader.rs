//! One node as serde sees it. Values are read from the text as it was written, by the type that is
//! wanted and never by how they look, so `1.10` stays `1.10` where text is wanted. Walking into
//! lists, mappings and enums is left to [`access`](super::access). The one rule: every result of a
//! visitor passes through [`Reader::settle`], so that its error is told here and not further out.

use serde::de::{Deserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::Findings;
use super::access::{Choice, Entries, Items};
use super::failure::{Failure, Words, unknown_field};
use super::scalar::{self, Scalar};
use crate::base::yaml::hints;
use crate::base::yaml::node::{Content, Entry, Kind, Node, Style};
use crate::base::yaml::place::Place;

/// A node to be read, or a key.
#[derive(Clone)]
pub(super) struct Reader<'a, 's> {
    pub(super) at: Place<'a>,
    pub(super) findings: &'s Findings<'s>,
    is_key: bool,
}

impl<'a, 's> Reader<'a, 's> {
    pub(super) fn new(at: Place<'a>, findings: &'s Findings<'s>) -> Self {
        Self { at, findings, is_key: false }
    }

    /// Reads a mapping's key, at the key's own position and under the path of its value.
    pub(super) fn of_key(parent: &Place<'a>, entry: &'a Entry, findings: &'s Findings<'s>) -> Self {
        let at = parent.value(entry).pointing_at(&entry.key).holding(Some(&entry.key));
        Self { at, findings, is_key: true }
    }

    /// Tells the error of a visitor here, unless it was told further in.
    pub(super) fn settle<T>(&self, result: Result<T, Failure>) -> Result<T, Failure> {
        result.map_err(|failure| self.findings.settle(&self.at, failure))
    }

    /// An error of our own at this node.
    pub(super) fn refuse<T>(&self, words: Words) -> Result<T, Failure> {
        self.settle(Err(words.into()))
    }

    fn content(&self) -> Option<&'a Content> {
        self.at.node().map(|node| &node.content).filter(|held| !matches!(held, Content::Null))
    }

    fn scalar(&self) -> Option<Scalar<'a>> {
        self.at.node().and_then(|node| scalar::scalar(node, self.is_key))
    }

    fn whole<T: TryFrom<i128>>(&self, expected: &str) -> Result<T, Failure> {
        let number = self.scalar().and_then(scalar::whole);
        match number.and_then(|number| T::try_from(number).ok()) {
            Some(number) => Ok(number),
            None => self.refuse(scalar::not_a_number(expected, self.at.node())),
        }
    }

    /// The error for a node of the wrong kind, with advice where the kind has a usual cause.
    pub(super) fn unlike<T>(&self, expected: &str) -> Result<T, Failure> {
        let node = self.at.node();
        let bracketed = node.is_some_and(|node| node.style == Style::Flow);
        let readable = node.filter(|node| !node.substituted()).and_then(Node::text);
        let help = match expected {
            TEXT if bracketed => Some("put it in quotes if it is text".to_owned()),
            TEXT if node.is_some() && self.content().is_none() => {
                Some("write `\"\"` for an empty text, and quotes around the word `null`".to_owned())
            }
            LIST if self.content().is_none() => Some("an empty list is written `[]`".to_owned()),
            LIST => Some(match readable.filter(|text| text.chars().all(char::is_alphanumeric)) {
                Some(text) => format!("write `[{}]`, or `- ` before each item", hints::clip(text)),
                None => "begin each item with `- `, on a line of its own".to_owned(),
            }),
            MAPPING if self.content().is_none() => {
                Some("an empty mapping is written `{}`".to_owned())
            }
            MAPPING if node.is_some_and(|node| node.kind() == Kind::Sequence) => {
                Some("write `name: ...` in place of `- `".to_owned())
            }
            MAPPING => readable
                .and_then(hints::spaced)
                .map(|spaced| format!("write a space after the colon: `{spaced}`")),
            _ => None,
        };
        self.refuse(Words::plain(format!("expected {expected}, got {}", scalar::shown(node)), help))
    }

    /// Tells of every key that is none of the fields, and sets it aside.
    fn unknown_fields(&self, pairs: &'a [Entry], fields: &'static [&'static str]) {
        for entry in pairs {
            let known = fields.contains(&entry.name());
            if known || self.findings.is_spent(&entry.value) {
                continue;
            }
            let (words, near) = unknown_field(entry.name(), fields);
            if let (Some(near), Some(node)) = (near, self.at.node()) {
                self.findings.suggest(node, near);
            }
            self.findings.tell(&self.at.value(entry).pointing_at(&entry.key), words);
        }
    }
}

const TEXT: &str = "text";
const LIST: &str = "a list";
const MAPPING: &str = "a mapping";

macro_rules! whole_numbers {
    ($($deserialize:ident $visit:ident $expected:literal)*) => {$(
        fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
            let number = self.whole($expected)?;
            self.settle(visitor.$visit(number))
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_, '_> {
    type Error = Failure;

    whole_numbers! {
        deserialize_i8 visit_i8 "a whole number from -128 to 127"
        deserialize_i16 visit_i16 "a whole number from -32768 to 32767"
        deserialize_i32 visit_i32 "a whole number from -2147483648 to 2147483647"
        deserialize_i64 visit_i64 "a whole number"
        deserialize_i128 visit_i128 "a whole number"
        deserialize_u8 visit_u8 "a whole number from 0 to 255"
        deserialize_u16 visit_u16 "a whole number from 0 to 65535"
        deserialize_u32 visit_u32 "a whole number from 0 to 4294967295"
        deserialize_u64 visit_u64 "a whole number from 0 up"
        deserialize_u128 visit_u128 "a whole number from 0 up"
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.content() {
            None => self.settle(visitor.visit_unit()),
            Some(Content::Sequence(_)) => self.deserialize_seq(visitor),
            Some(Content::Mapping(_)) => self.deserialize_map(visitor),
            Some(_) if self.is_key => self.deserialize_str(visitor),
            Some(_) => {
                let Some(scalar) = self.scalar() else { return self.unlike("a value") };
                let whole = scalar::whole(scalar);
                self.settle(if let Some(value) = scalar::boolean(scalar) {
                    visitor.visit_bool(value)
                } else if let Some(value) = whole.and_then(|number| u64::try_from(number).ok()) {
                    visitor.visit_u64(value)
                } else if let Some(value) = whole.and_then(|number| i64::try_from(number).ok()) {
                    visitor.visit_i64(value)
                } else if let Some(value) = scalar::float(scalar) {
                    visitor.visit_f64(value)
                } else {
                    visitor.visit_str(scalar.text)
                })
            }
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.scalar().and_then(scalar::boolean) {
            Some(value) => self.settle(visitor.visit_bool(value)),
            None => self.refuse(scalar::not_a_boolean(self.at.node())),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.scalar().and_then(scalar::float) {
            Some(value) => self.settle(visitor.visit_f64(value)),
            None => self.refuse(scalar::not_a_number("a number", self.at.node())),
        }
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_str(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.scalar() {
            Some(scalar) => self.settle(visitor.visit_str(scalar.text)),
            None => self.unlike(TEXT),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.content() {
            None => self.settle(visitor.visit_none()),
            Some(_) => {
                let result = visitor.visit_some(self.clone());
                self.settle(result)
            }
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.content() {
            None => self.settle(visitor.visit_unit()),
            Some(_) => self.unlike("nothing"),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        let result = visitor.visit_newtype_struct(self.clone());
        self.settle(result)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let (Some(Content::Sequence(items)), Some(node)) = (self.content(), self.at.node()) else {
            return self.unlike(LIST);
        };
        self.settle(visitor.visit_seq(Items::of_list(&self, node, items)))
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        let (Some(Content::Sequence(items)), Some(node)) = (self.content(), self.at.node()) else {
            return self.unlike(LIST);
        };
        if items.len() != length {
            let message = format!("expected a list of {length}, got {}", items.len());
            return self.refuse(Words::plain(message, None));
        }
        let mut access = Items::of_tuple(&self, items);
        let result = visitor.visit_seq(&mut access);
        if access.is_beyond_saving() {
            self.findings.spend(node);
        }
        self.settle(result)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.deserialize_tuple(length, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let (Some(Content::Mapping(_)), Some(node)) = (self.content(), self.at.node()) else {
            return self.unlike(MAPPING);
        };
        self.settle(visitor.visit_map(Entries::of_map(&self, node)))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        let pairs = match self.content() {
            None => &[],
            Some(Content::Mapping(_)) => self.at.node().map_or(&[][..], Node::pairs),
            Some(_) => return self.unlike(MAPPING),
        };
        self.unknown_fields(pairs, fields);
        self.settle(visitor.visit_map(Entries::of_struct(&self, pairs)))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        let choice = Choice::new(&self, variants)?;
        let chosen = choice.content();
        let result = self.settle(visitor.visit_enum(choice));
        // Whoever holds an enum can leave it out only as a whole, so it goes once its content has.
        let open = chosen.is_some_and(|content| !self.findings.is_spent(content));
        if let (Err(_), false, Some(node)) = (&result, open, self.at.node()) {
            self.findings.spend(node);
        }
        result
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.settle(visitor.visit_unit())
    }

    forward_to_deserialize_any! { bytes byte_buf }
}
