//! Walking into lists, mappings and enums. A child's error is told at the child, then the walk stops
//! because serde has no way to go on; the next pass finds the child spent and steps over it. The one
//! rule: a good child of a list or map may be left out of a later pass, a good field of a struct may
//! not, or the struct would call it missing.

use serde::Deserializer;
use serde::de::{DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};

use super::Findings;
use super::failure::{Failure, Words};
use super::reader::Reader;
use crate::base::yaml::node::{Content, Entry, Node};
use crate::base::yaml::place::Place;

/// The items of a list or of a tuple.
pub(super) struct Items<'a, 's> {
    parent: Place<'a>,
    findings: &'s Findings<'s>,
    items: &'a [Node],
    next: usize,
    /// The list, if its items may be left out.
    list: Option<&'a Node>,
    failed: Option<&'a Node>,
}

/// The entries of a map or of a struct.
pub(super) struct Entries<'a, 's> {
    parent: Place<'a>,
    findings: &'s Findings<'s>,
    pairs: &'a [Entry],
    next: usize,
    /// The map, if its good entries may be left out.
    map: Option<&'a Node>,
    value: Option<&'a Entry>,
}

/// A variant: its word, and its settings if there are any.
pub(super) struct Choice<'a, 's> {
    word: Reader<'a, 's>,
    settings: Reader<'a, 's>,
}

// === impl Items ===

impl<'a, 's> Items<'a, 's> {
    pub(super) fn of_list(reader: &Reader<'a, 's>, list: &'a Node, items: &'a [Node]) -> Self {
        let next = reader.findings.first_doubtful(list);
        Self { next, list: Some(list), ..Self::of_tuple(reader, items) }
    }

    pub(super) fn of_tuple(reader: &Reader<'a, 's>, items: &'a [Node]) -> Self {
        let (parent, findings) = (reader.at.clone(), reader.findings);
        Self { parent, findings, items, next: 0, list: None, failed: None }
    }

    /// Whether an item that cannot be left out has nothing more to tell.
    pub(super) fn is_beyond_saving(&self) -> bool {
        self.failed.is_some_and(|item| self.findings.is_spent(item))
    }
}

impl<'de> SeqAccess<'de> for Items<'_, '_> {
    type Error = Failure;

    fn next_element_seed<T>(&mut self, seed: T) -> Result<Option<T::Value>, Failure>
    where
        T: DeserializeSeed<'de>,
    {
        while let Some(item) = self.items.get(self.next) {
            let index = self.next;
            self.next += 1;
            if self.list.is_some() && self.findings.is_spent(item) {
                continue;
            }
            let at = self.parent.item(index, item);
            let result = seed.deserialize(Reader::new(at.clone(), self.findings));
            return result.map(Some).map_err(|failure| {
                self.failed = Some(item);
                if let Some(list) = self.list {
                    self.findings.set_first_doubtful(list, index);
                }
                self.findings.settle(&at, failure)
            });
        }
        if let Some(list) = self.list.filter(|_| !self.items.is_empty()) {
            self.findings.set_first_doubtful(list, self.items.len());
        }
        Ok(None)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len().saturating_sub(self.next))
    }
}

// === impl Entries ===

impl<'a, 's> Entries<'a, 's> {
    pub(super) fn of_map(reader: &Reader<'a, 's>, map: &'a Node) -> Self {
        let next = reader.findings.first_doubtful(map);
        Self { next, map: Some(map), ..Self::of_struct(reader, map.pairs()) }
    }

    pub(super) fn of_struct(reader: &Reader<'a, 's>, pairs: &'a [Entry]) -> Self {
        let (parent, findings) = (reader.at.clone(), reader.findings);
        Self { parent, findings, pairs, next: 0, map: None, value: None }
    }

    /// What stands before the entry that failed is good; the entry may have more to tell.
    fn remember_good(&self) {
        if let (Some(map), Some(index)) = (self.map, self.next.checked_sub(1)) {
            self.findings.set_first_doubtful(map, index);
        }
    }
}

impl<'de> MapAccess<'de> for Entries<'_, '_> {
    type Error = Failure;

    fn next_key_seed<K>(&mut self, seed: K) -> Result<Option<K::Value>, Failure>
    where
        K: DeserializeSeed<'de>,
    {
        while let Some(entry) = self.pairs.get(self.next) {
            self.next += 1;
            if self.findings.is_spent(&entry.key) || self.findings.is_spent(&entry.value) {
                continue;
            }
            self.value = Some(entry);
            let key = Reader::of_key(&self.parent, entry, self.findings);
            return seed.deserialize(key.clone()).map(Some).map_err(|failure| {
                self.remember_good();
                self.findings.settle(&key.at, failure)
            });
        }
        if let Some(map) = self.map.filter(|_| !self.pairs.is_empty()) {
            self.findings.set_first_doubtful(map, self.pairs.len());
        }
        Ok(None)
    }

    fn next_value_seed<V>(&mut self, seed: V) -> Result<V::Value, Failure>
    where
        V: DeserializeSeed<'de>,
    {
        let Some(entry) = self.value.take() else { return Err(Failure::told()) };
        let at = self.parent.value(entry);
        seed.deserialize(Reader::new(at.clone(), self.findings)).map_err(|failure| {
            self.remember_good();
            self.findings.settle(&at, failure)
        })
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.pairs.len().saturating_sub(self.next))
    }
}

// === impl Choice ===

impl<'a, 's> Choice<'a, 's> {
    /// A bare word, or the one key of a mapping.
    pub(super) fn new(
        reader: &Reader<'a, 's>,
        variants: &'static [&'static str],
    ) -> Result<Self, Failure> {
        let findings = reader.findings;
        let node = reader.at.node();
        match node.map(|node| (&node.content, node.pairs())) {
            Some((Content::Scalar(_), _)) => Ok(Self {
                word: reader.clone(),
                settings: Reader::new(reader.at.clone().holding(None), findings),
            }),
            Some((Content::Mapping(_), [entry])) => Ok(Self {
                word: Reader::of_key(&reader.at, entry, findings),
                settings: Reader::new(reader.at.value(entry), findings),
            }),
            Some((Content::Mapping(_), [first, second, ..])) => {
                findings.tell(
                    &reader.at.value(second).pointing_at(&second.key),
                    several(first, second, variants),
                );
                if let Some(node) = node {
                    findings.spend(node);
                }
                Err(Failure::told())
            }
            _ => reader.unlike("a word, or a word with its settings"),
        }
    }

    /// The node with the settings.
    pub(super) fn content(&self) -> Option<&'a Node> {
        self.settings.at.node()
    }
}

fn several(first: &Entry, second: &Entry, variants: &[&str]) -> Words {
    let (one, two) = (first.name(), second.name());
    let message = format!("expected one word with its settings, got `{one}` and `{two}`");
    if variants.contains(&one) && !variants.contains(&two) {
        Words::with_help(message, format!("indent what belongs to `{one}` two spaces further"))
    } else {
        Words::with_help(
            message,
            format!("write each as its own list item: `- {one}:`, `- {two}:`"),
        )
    }
}

impl<'de, 'a, 's> EnumAccess<'de> for Choice<'a, 's> {
    type Error = Failure;
    type Variant = Settings<'a, 's>;

    fn variant_seed<V>(self, seed: V) -> Result<(V::Value, Self::Variant), Failure>
    where
        V: DeserializeSeed<'de>,
    {
        let result = seed.deserialize(self.word.clone());
        let variant = match self.word.settle(result) {
            Ok(variant) => variant,
            Err(failure) => {
                // Without its word an enum has nothing more to tell.
                if let Some(content) = self.content() {
                    self.settings.findings.spend(content);
                }
                return Err(failure);
            }
        };
        let word = self.word.at.node().and_then(Node::text).unwrap_or_default().to_owned();
        Ok((variant, Settings { settings: self.settings, word }))
    }
}

/// What stands below a variant's word.
pub(super) struct Settings<'a, 's> {
    settings: Reader<'a, 's>,
    word: String,
}

impl<'de> VariantAccess<'de> for Settings<'_, '_> {
    type Error = Failure;

    fn unit_variant(self) -> Result<(), Failure> {
        match self.settings.at.node().map(|node| (&node.content, node.pairs())) {
            None | Some((Content::Null, _) | (Content::Mapping(_), [])) => Ok(()),
            Some(_) => self.settings.refuse(Words::with_help(
                format!("`{}` takes no settings", self.word),
                "write the word alone",
            )),
        }
    }

    fn newtype_variant_seed<T>(self, seed: T) -> Result<T::Value, Failure>
    where
        T: DeserializeSeed<'de>,
    {
        let result = seed.deserialize(self.settings.clone());
        self.settings.settle(result)
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.settings.deserialize_tuple(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.settings.deserialize_struct("", fields, visitor)
    }
}
