//! The tree a file becomes. A node knows where it stands and how it was written, which is all that
//! typed reading and messages need. Trees are built in [`build`](super::build) alone; nobody changes
//! one afterwards. The one rule: substituted text leaves a node only towards the setting it is for,
//! so `Debug` hides it.

use std::fmt;

use zeroize::Zeroizing;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing written, or `~` or `null`.
    Null,
    Scalar,
    Sequence,
    Mapping,
}

/// How a node was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// A scalar without quotes.
    Plain,
    /// A scalar in quotes, or a `|` or `>` block.
    Quoted,
    /// A list or mapping by indentation.
    Block,
    /// A list or mapping in brackets.
    Flow,
}

/// A value of the file, with everything below it.
#[derive(Clone)]
pub(crate) struct Node {
    pub(super) content: Content,
    pub(super) style: Style,
    /// From 1.
    pub(super) line: u32,
    /// From 1, in characters.
    pub(super) column: u32,
    /// Whether any of the text came out of `${...}`.
    pub(super) substituted: bool,
}

#[derive(Clone)]
pub(super) enum Content {
    Null,
    /// The text after quotes, escapes and substitution; `1.10` stays `1.10`.
    /// Wiped when it is dropped, since it may have come out of `${...}`.
    Scalar(Zeroizing<String>),
    Sequence(Vec<Node>),
    Mapping(Mapping),
}

/// Entries in the order of the file, without two of the same key.
#[derive(Clone, Default)]
pub(super) struct Mapping {
    entries: Vec<Entry>,
    /// Indices by key, for binary search; only kept where it pays.
    order: Vec<usize>,
}

#[derive(Clone)]
pub(super) struct Entry {
    /// Always a scalar.
    pub(super) key: Node,
    pub(super) value: Node,
}

/// From this many entries on, looking through all of them is slower than searching.
const SEARCHED_FROM: usize = 12;

// === impl Node ===

impl Node {
    pub(crate) fn kind(&self) -> Kind {
        match &self.content {
            Content::Null => Kind::Null,
            Content::Scalar(_) => Kind::Scalar,
            Content::Sequence(_) => Kind::Sequence,
            Content::Mapping(_) => Kind::Mapping,
        }
    }

    /// From 1.
    pub(crate) fn line(&self) -> u32 {
        self.line
    }

    /// From 1, in characters.
    pub(crate) fn column(&self) -> u32 {
        self.column
    }

    /// Whether any of a scalar's text came out of `${...}` and must not be shown.
    pub(crate) fn substituted(&self) -> bool {
        self.substituted
    }

    /// A scalar's text.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar(text) => Some(text),
            _ => None,
        }
    }

    /// The value of a mapping's key.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// Line and column of a mapping's key.
    #[cfg(test)]
    pub(crate) fn key_place(&self, key: &str) -> Option<(u32, u32)> {
        self.entry(key).map(|entry| (entry.key.line, entry.key.column))
    }

    /// The items of a sequence; none for anything else.
    pub(crate) fn items(&self) -> &[Self] {
        match &self.content {
            Content::Sequence(items) => items,
            _ => &[],
        }
    }

    /// Keys and values of a mapping in the order of the file; none for anything else.
    pub(crate) fn entries(&self) -> impl ExactSizeIterator<Item = (&str, &Self)> {
        self.pairs().iter().map(|entry| (entry.name(), &entry.value))
    }

    pub(super) fn pairs(&self) -> &[Entry] {
        match &self.content {
            Content::Mapping(mapping) => &mapping.entries,
            _ => &[],
        }
    }

    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.content {
            Content::Mapping(mapping) => mapping.find(key),
            _ => None,
        }
    }

    /// Calls `visit` with this node and every node below it, keys included.
    pub(super) fn walk<'a>(&'a self, visit: &mut dyn FnMut(&'a Self)) {
        visit(self);
        for item in self.items() {
            item.walk(visit);
        }
        for entry in self.pairs() {
            visit(&entry.key);
            entry.value.walk(visit);
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.content {
            Content::Null => f.write_str("~"),
            Content::Scalar(_) if self.substituted => f.write_str("***"),
            Content::Scalar(text) => fmt::Debug::fmt(text.as_str(), f),
            Content::Sequence(items) => f.debug_list().entries(items).finish(),
            Content::Mapping(_) => f.debug_map().entries(self.entries()).finish(),
        }
    }
}

// === impl Entry ===

impl Entry {
    pub(super) fn name(&self) -> &str {
        self.key.text().unwrap_or_default()
    }
}

// === impl Mapping ===

impl Mapping {
    /// Keeps the first of several entries with one key; the others come back, each with the line
    /// of the one that was kept.
    pub(super) fn new(entries: Vec<Entry>) -> (Self, Vec<(Entry, u32)>) {
        let mut order: Vec<usize> = (0..entries.len()).collect();
        let name = |index: &usize| entries.get(*index).map_or("", Entry::name);
        // Stable, so that of two equal keys the one written first comes first.
        order.sort_by(|a, b| name(a).cmp(name(b)));
        let mut first_lines = vec![None; entries.len()];
        for pair in order.chunk_by(|a, b| name(a) == name(b)) {
            let Some((first, others)) = pair.split_first() else { continue };
            let line = entries.get(*first).map(|entry| entry.key.line);
            for other in others {
                if let Some(slot) = first_lines.get_mut(*other) {
                    *slot = line;
                }
            }
        }
        if first_lines.iter().all(Option::is_none) {
            if entries.len() < SEARCHED_FROM {
                order.clear();
            }
            return (Self { entries, order }, Vec::new());
        }
        let mut kept = Vec::with_capacity(entries.len());
        let mut twice = Vec::new();
        for (entry, first_line) in entries.into_iter().zip(first_lines) {
            match first_line {
                None => kept.push(entry),
                Some(line) => twice.push((entry, line)),
            }
        }
        (Self::new(kept).0, twice)
    }

    pub(super) fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    pub(super) fn find(&self, key: &str) -> Option<&Entry> {
        if self.order.is_empty() {
            return self.entries.iter().find(|entry| entry.name() == key);
        }
        let name = |index: &usize| self.entries.get(*index).map_or("", Entry::name);
        let found = self.order.binary_search_by(|index| name(index).cmp(key)).ok()?;
        self.entries.get(*self.order.get(found)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(text: &str, line: u32) -> Node {
        let content = Content::Scalar(text.to_owned().into());
        Node { content, style: Style::Plain, line, column: 1, substituted: false }
    }

    fn mapping(keys: &[&str]) -> (Mapping, Vec<(Entry, u32)>) {
        let entry = |(line, key): (u32, &&str)| Entry {
            key: scalar(key, line),
            value: scalar(&line.to_string(), line),
        };
        Mapping::new((1..).zip(keys).map(entry).collect())
    }

    #[test]
    fn finds_keys_in_small_and_in_large_mappings() {
        for size in [1, 5, 40] {
            let keys: Vec<String> = (0..size).map(|n| format!("k{n}")).collect();
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            let content = Content::Mapping(mapping(&keys).0);
            let node =
                Node { content, style: Style::Block, line: 1, column: 1, substituted: false };
            for (index, key) in keys.iter().enumerate() {
                assert_eq!(node.get(key).unwrap().text(), Some(&*(index + 1).to_string()));
            }
            assert!(node.get("other").is_none());
            assert_eq!(node.key_place("k0"), Some((1, 1)));
        }
    }

    #[test]
    fn gives_back_every_repetition_with_the_first_line() {
        let (kept, twice) = mapping(&["b", "a", "b", "c", "b"]);
        let names: Vec<_> = kept.into_entries().iter().map(|e| e.name().to_owned()).collect();
        assert_eq!(names, ["b", "a", "c"]);
        let lines: Vec<_> = twice.iter().map(|(e, first)| (e.key.line, *first)).collect();
        assert_eq!(lines, [(3, 1), (5, 1)]);
    }

    #[test]
    fn debug_hides_substituted_text() {
        let secret = Node { substituted: true, ..scalar("hunter2", 1) };
        assert_eq!(format!("{secret:?}"), "***");
    }
}
