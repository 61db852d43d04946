//! A place in a file: a node together with the path that leads to it, which is what a problem needs.
//! Places are cheap to make and to clone, and the text of the path is only put together when asked
//! for. The one rule: a place always points into the file, so asking for a child that is not there
//! gives the parent's position under the longer path.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::rc::Rc;

use super::node::{Entry, Node};

/// A node, or the spot where one is missing, and how one gets there.
#[derive(Debug, Clone)]
pub(crate) struct Place<'a> {
    node: Option<&'a Node>,
    line: u32,
    column: u32,
    path: Option<Rc<Step<'a>>>,
}

#[derive(Debug)]
struct Step<'a> {
    parent: Option<Rc<Self>>,
    to: To<'a>,
}

#[derive(Debug)]
enum To<'a> {
    Key(Cow<'a, str>),
    Index(usize),
}

impl<'a> Place<'a> {
    /// The whole document.
    pub(crate) fn root(node: &'a Node) -> Self {
        Self { node: Some(node), line: node.line(), column: node.column(), path: None }
    }

    /// The value of a key.
    pub(crate) fn field(&self, name: &str) -> Self {
        match self.node.and_then(|node| node.entry(name)) {
            Some(entry) => self.value(entry),
            None => self.missing(To::Key(Cow::Owned(name.to_owned()))),
        }
    }

    /// The same child as [`field`](Self::field), pointing at the key itself: for problems with the
    /// name rather than with what it stands for.
    pub(crate) fn key(&self, name: &str) -> Self {
        match self.node.and_then(|node| node.entry(name)) {
            Some(entry) => self.value(entry).pointing_at(&entry.key),
            None => self.field(name),
        }
    }

    /// An item of a list, from 0.
    pub(crate) fn index(&self, index: usize) -> Self {
        match self.node.and_then(|node| node.items().get(index)) {
            Some(item) => self.item(index, item),
            None => self.missing(To::Index(index)),
        }
    }

    /// The items of a list; none for anything else.
    #[cfg(test)]
    pub(crate) fn items(&self) -> impl Iterator<Item = Self> {
        let items = self.node.map_or(&[][..], Node::items);
        items.iter().enumerate().map(|(index, item)| self.item(index, item))
    }

    /// The keys of a mapping with the places of their values; none for anything else.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'a str, Self)> {
        let entries = self.node.map_or(&[][..], Node::pairs);
        entries.iter().map(|entry| (entry.name(), self.value(entry)))
    }

    /// The node; `None` when the file does not have it.
    pub(crate) fn node(&self) -> Option<&'a Node> {
        self.node
    }

    /// From 1.
    pub(crate) fn line(&self) -> u32 {
        self.line
    }

    /// From 1, in characters.
    pub(crate) fn column(&self) -> u32 {
        self.column
    }

    /// The path as operators read it: `routes[3].filters[1].jwt.issuer`. The root's is empty.
    pub(crate) fn path(&self) -> String {
        let mut steps = Vec::new();
        let mut next = self.path.as_deref();
        while let Some(step) = next {
            steps.push(&step.to);
            next = step.parent.as_deref();
        }
        let mut path = String::new();
        for step in steps.into_iter().rev() {
            match step {
                To::Key(key) => push_key(&mut path, key),
                To::Index(index) => push_index(&mut path, *index),
            }
        }
        path
    }

    /// A message that may quote this place's values, with `***` for those that came out of `${...}`.
    pub(crate) fn redact(&self, message: String) -> String {
        let mut secrets = Vec::new();
        if let Some(node) = self.node {
            node.walk(&mut |below| {
                if below.substituted() {
                    secrets.extend(below.text().filter(|text| !text.is_empty()));
                }
            });
        }
        secrets.iter().fold(message, |message, secret| without(&message, secret))
    }

    pub(super) fn value(&self, entry: &'a Entry) -> Self {
        self.child(To::Key(Cow::Borrowed(entry.name())), &entry.value)
    }

    pub(super) fn item(&self, index: usize, item: &'a Node) -> Self {
        self.child(To::Index(index), item)
    }

    /// The same path and node, at the position of another node.
    pub(super) fn pointing_at(self, other: &Node) -> Self {
        Self { line: other.line(), column: other.column(), ..self }
    }

    /// The same path and position, for another node.
    pub(super) fn holding(self, node: Option<&'a Node>) -> Self {
        Self { node, ..self }
    }

    fn child(&self, to: To<'a>, node: &'a Node) -> Self {
        let path = Some(Rc::new(Step { parent: self.path.clone(), to }));
        Self { node: Some(node), line: node.line(), column: node.column(), path }
    }

    fn missing(&self, to: To<'a>) -> Self {
        let path = Some(Rc::new(Step { parent: self.path.clone(), to }));
        Self { node: None, line: self.line, column: self.column, path }
    }
}

/// Adds a key to a path: `.timeout`, or `["a b"]` where a dot would mislead.
pub(super) fn push_key(path: &mut String, key: &str) {
    let simple = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '/' | '$');
    if key.is_empty() || !key.chars().all(simple) {
        let _ = write!(path, "[{key:?}]");
        return;
    }
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
}

/// Adds a list index to a path.
pub(super) fn push_index(path: &mut String, index: usize) {
    let _ = write!(path, "[{index}]");
}

/// Shorter secrets are only blanked where they are quoted: the letter `a` is in every message.
const BLANKED_ANYWHERE_FROM: usize = 4;

/// The message without the secret, and without quoted pieces of it: a parser's error often quotes
/// only the part it stumbled over.
fn without(message: &str, secret: &str) -> String {
    let escaped = secret.escape_debug().to_string();
    let mut cleaned = message.to_owned();
    for form in [secret, &escaped] {
        if form.chars().count() >= BLANKED_ANYWHERE_FROM {
            cleaned = cleaned.replace(form, "***");
        }
    }
    for quote in ['`', '"', '\''] {
        let pieces: Vec<&str> = cleaned.split(quote).collect();
        let last = pieces.len().saturating_sub(1);
        let mut rebuilt = String::with_capacity(cleaned.len());
        for (index, piece) in pieces.iter().enumerate() {
            // Every second piece stands between two quotes; an unpaired last one does not.
            let quoted = index % 2 == 1 && index < last && !piece.is_empty();
            let telling = quoted && (secret.contains(piece) || escaped.contains(piece));
            rebuilt.push_str(if telling { "***" } else { piece });
            if index < last {
                rebuilt.push(quote);
            }
        }
        cleaned = rebuilt;
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::super::build::tests::node;
    use super::*;

    #[test]
    fn paths_read_as_operators_write_them() {
        let tree = node("routes:\n  - filters:\n      - jwt: {issuer: x, \"a.b\": y}\n");
        let root = Place::root(&tree);
        let jwt = root.field("routes").index(0).field("filters").index(0).field("jwt");
        assert_eq!(jwt.field("issuer").path(), "routes[0].filters[0].jwt.issuer");
        assert_eq!(jwt.field("a.b").path(), "routes[0].filters[0].jwt[\"a.b\"]");
        assert_eq!(root.path(), "");
    }

    #[test]
    fn a_missing_child_is_at_its_parent() {
        let tree = node("a: 1\nroutes:\n  - id: x\n");
        let route = Place::root(&tree).field("routes").index(0);
        let missing = route.field("match").field("path").index(2);
        assert_eq!((missing.line(), missing.column()), (3, 5));
        assert_eq!(missing.path(), "routes[0].match.path[2]");
        assert!(missing.node().is_none());
    }

    #[test]
    fn a_key_is_pointed_at_and_its_value_read() {
        let tree = node("upstreams:\n  users: here\n");
        let users = Place::root(&tree).field("upstreams").key("users");
        assert_eq!((users.line(), users.column()), (2, 3));
        assert_eq!(users.node().unwrap().text(), Some("here"));
    }

    #[test]
    fn children_come_with_their_places() {
        let tree = node("- a\n- b: 1\n  c: 2\n");
        let root = Place::root(&tree);
        let paths: Vec<_> = root.items().map(|item| item.path()).collect();
        assert_eq!(paths, ["[0]", "[1]"]);
        let pairs: Vec<_> =
            root.index(1).entries().map(|(key, at)| (key.to_owned(), at.path())).collect();
        assert_eq!(pairs, [("b".into(), "[1].b".into()), ("c".into(), "[1].c".into())]);
    }

    #[test]
    fn secrets_leave_no_trace_in_messages() {
        assert_eq!(without("bad `s3cr3t!`", "s3cr3t!"), "bad `***`");
        assert_eq!(
            without("bad scheme `ftp`, write `http`", "ftp://u:p@h"),
            "bad scheme `***`, write `http`"
        );
        assert_eq!(without("unexpected 'x' in \"ab\\n\"", "x ab\n"), "unexpected '***' in \"***\"");
        assert_eq!(without("a plain `5s`, got `a`", "a"), "a plain `5s`, got `***`");
        assert_eq!(without("an unpaired ` stays", "stays"), "an unpaired ` ***");
    }
}
