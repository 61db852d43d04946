//! From text to tree: one pass over the parser's events. Anchors, merge keys and `${...}` are
//! resolved here, repeated keys and whatever else a settings file has no use for are refused. The
//! one rule: everything that can grow is counted before it grows, so that a small file cannot
//! become a large tree.

use std::collections::HashMap;

use serde_saphyr::granit_parser as granit;
use serde_saphyr::granit_parser::{Event, ScalarStyle, StructureStyle};

use self::budget::{Anchored, Budget, Cost};
use self::merge::merge;
use super::hints;
use super::node::{Content, Entry, Mapping, Node, Style};
use super::place::{push_index, push_key};
use super::substitute::replace;
use super::{Lookup, Source};
use crate::base::problem::{Problem, Problems};

mod budget;
mod merge;

/// Bytes of a file.
const MAX_FILE: usize = 16 * 1024 * 1024;
/// Levels of lists and mappings, aliases included.
const MAX_DEPTH: usize = 64;

/// Reads a file into a tree, with `${...}` replaced. Top-level keys that begin with `x-` are left
/// out: they are free space for anchors.
///
/// # Errors
/// Everything that is wrong with the file as YAML, or with its `${...}`, in one report.
pub(crate) fn parse(source: &Source, lookup: &dyn Lookup) -> Result<Node, Problems> {
    let mut problems = Problems::new(&*source.name);
    if let Some((line, column, message)) = unreadable(&source.text) {
        problems.error_at(line, column, message);
        return Err(problems);
    }
    let mut builder = Builder {
        lookup,
        text: &source.text,
        problems,
        frames: Vec::new(),
        anchors: HashMap::new(),
        budget: Budget::default(),
        documents: 0,
        root: None,
    };
    let stopped = builder.run().is_err();
    let Builder { mut problems, root, .. } = builder;
    match root {
        Some(root) if !stopped && !problems.has_errors() => Ok(without_free_space(root)),
        None if !problems.has_errors() => {
            problems.error_at(0, 0, "the file is empty").help("begin with `version: 1`");
            Err(problems)
        }
        _ => Err(problems),
    }
}

struct Builder<'s> {
    lookup: &'s dyn Lookup,
    text: &'s str,
    problems: Problems,
    /// The lists and mappings that are still open, outermost first.
    frames: Vec<Frame>,
    anchors: HashMap<usize, Anchored>,
    budget: Budget,
    documents: usize,
    root: Option<Node>,
}

struct Frame {
    open: Open,
    anchor: usize,
    style: Style,
    line: u32,
    column: u32,
}

enum Open {
    Sequence(Vec<Node>),
    /// The entries so far, and the key whose value comes next.
    Mapping(Vec<Entry>, Option<Node>),
}

/// The file cannot be read any further; the reason is among the problems.
struct Stop;

// === impl Builder ===

impl Builder<'_> {
    fn run(&mut self) -> Result<(), Stop> {
        let mut options = granit::Options::default();
        options.set_emit_comments(false);
        // A host such as `*.example.com` without quotes is an alias; it deserves words of our own.
        options.emit_unresolved_aliases = true;
        for event in granit::Parser::new_from_str_with_options(self.text, options) {
            match event {
                Ok((event, span)) => self.event(event, &span)?,
                Err(error) => {
                    let told = hints::explain(&error, self.text);
                    // Where the parser gives up, the path is often that of the next item.
                    let (at, path) = ((told.line, told.column), String::new());
                    self.problems.error_as_is(at, path, &told.message).help = told.help;
                    return Err(Stop);
                }
            }
        }
        Ok(())
    }

    fn event(&mut self, event: Event<'_>, span: &granit::Span) -> Result<(), Stop> {
        let at = position(&span.start);
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    self.problem(at, "a second document begins here")
                        .help("a file holds one document: remove `---` or split the file");
                    return Err(Stop);
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let style = match style {
                    ScalarStyle::Plain => Style::Plain,
                    _ => Style::Quoted,
                };
                let style =
                    if self.is_string(tag.as_deref(), span) { Style::Quoted } else { style };
                self.scalar(&text, style, anchor, span)?;
            }
            Event::SequenceStart(style, anchor, tag) => {
                self.is_string(tag.as_deref(), span);
                self.open(Open::Sequence(Vec::new()), style, anchor, at)?;
            }
            Event::MappingStart(style, anchor, tag) => {
                self.is_string(tag.as_deref(), span);
                self.open(Open::Mapping(Vec::new(), None), style, anchor, at)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close()?,
            Event::Alias(id) => self.alias(id, at)?,
            Event::UnresolvedAlias(name) => {
                let (message, help) = hints::unknown_alias(&name);
                self.problem(at, message).help(help);
                self.accept(null(at), 0)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Refuses the tags nobody reads; true for those that ask for text.
    fn is_string(&mut self, tag: Option<&granit::Tag>, span: &granit::Span) -> bool {
        let Some(tag) = tag else { return false };
        let written = tag.original();
        match tag.core_suffix() {
            Some(suffix) => return suffix == "str",
            None if written == "!" => return true,
            None => {}
        }
        let at = position(&span.tag_start().unwrap_or(span.start));
        self.problem(at, format!("the tag `{written}` is not known here"))
            .help("leave it out, or quote the value if it begins with `!`");
        false
    }

    fn open(
        &mut self,
        open: Open,
        style: StructureStyle,
        anchor: usize,
        at: (u32, u32),
    ) -> Result<(), Stop> {
        self.check_depth(1, at)?;
        self.spend(Cost::OF_ONE, at)?;
        let style = match style {
            StructureStyle::Block => Style::Block,
            StructureStyle::Flow => Style::Flow,
        };
        self.frames.push(Frame { open, anchor, style, line: at.0, column: at.1 });
        Ok(())
    }

    fn scalar(
        &mut self,
        text: &str,
        style: Style,
        anchor: usize,
        span: &granit::Span,
    ) -> Result<(), Stop> {
        let at = position(&span.start);
        let mut node = scalar(text.to_owned(), style, at);
        if self.expects_key() {
            if text.contains("${") {
                self.problem(at, "`${...}` is not replaced in a key").help("write the key itself");
            }
        } else if style == Style::Plain && is_null(text) {
            node.content = Content::Null;
            // Nothing was written, so the key is what can be pointed at.
            if let (true, Some(key)) = (span.is_empty(), self.pending_key()) {
                (node.line, node.column) = (key.line, key.column);
            }
        } else {
            self.substitute(&mut node, span);
        }
        self.spend(Cost::of(&node), at)?;
        self.accept(node, anchor)
    }

    fn substitute(&mut self, node: &mut Node, span: &granit::Span) {
        let Some(text) = node.text() else { return };
        match replace(text, self.lookup) {
            Ok(None) => {}
            Ok(Some(replaced)) => {
                node.substituted = replaced.substituted;
                node.content = Content::Scalar(replaced.text);
            }
            Err(refusal) => {
                let (line, mut column) = (node.line, node.column);
                // Only where text and file run in step can the very `${` be pointed at.
                let before = text.get(..refusal.offset).unwrap_or_default().chars().count();
                let quotes = span.len().checked_sub(text.chars().count());
                if span.start.line() == span.end.line() && matches!(quotes, Some(0 | 2)) {
                    let quote = quotes.unwrap_or(0) / 2;
                    column = column.saturating_add(small(before + quote));
                }
                self.problem((line, column), refusal.message).help(refusal.help);
            }
        }
    }

    fn close(&mut self) -> Result<(), Stop> {
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        let content = match frame.open {
            Open::Sequence(items) => Content::Sequence(items),
            Open::Mapping(entries, _) => Content::Mapping(self.mapping(entries)),
        };
        let node = Node {
            content,
            style: frame.style,
            line: frame.line,
            column: frame.column,
            substituted: false,
        };
        self.accept(node, frame.anchor)
    }

    fn mapping(&mut self, entries: Vec<Entry>) -> Mapping {
        let (mapping, twice) = Mapping::new(entries);
        for (entry, first) in twice {
            let mut path = self.path();
            push_key(&mut path, entry.name());
            let at = (entry.key.line, entry.key.column);
            let message = format!("`{}` is given twice, first on line {first}", entry.name());
            self.problems.error_as_is(at, path, &message).help("keep one of them");
        }
        let (mapping, misplaced) = merge(mapping);
        for at in misplaced {
            self.problem(at, "`<<` takes in mappings only")
                .help("write `<<: *name`, where `&name` stands before a mapping");
        }
        mapping
    }

    fn alias(&mut self, id: usize, at: (u32, u32)) -> Result<(), Stop> {
        let Some(anchored) = self.anchors.get(&id) else {
            self.problem(at, "an anchor cannot hold itself").help("remove this alias");
            return Err(Stop);
        };
        let (cost, depth) = (anchored.cost, anchored.depth);
        self.check_depth(depth, at)?;
        self.spend(cost, at)?;
        let Some(copy) = self.anchors.get(&id).map(|anchored| anchored.node.clone()) else {
            return Ok(());
        };
        // The copy stands where it is used; what is inside stays where it was written.
        let node = Node { line: at.0, column: at.1, ..copy };
        self.accept(node, 0)
    }

    /// Hands a finished node to whatever it belongs to.
    fn accept(&mut self, node: Node, anchor: usize) -> Result<(), Stop> {
        if anchor != 0 {
            let cost = Cost::of(&node);
            self.spend(cost, (node.line, node.column))?;
            self.anchors.insert(anchor, Anchored::new(node.clone(), cost));
        }
        match self.frames.last_mut().map(|frame| &mut frame.open) {
            None => self.root = Some(node),
            Some(Open::Sequence(items)) => items.push(node),
            Some(Open::Mapping(entries, key)) => match key.take() {
                Some(key) => entries.push(Entry { key, value: node }),
                None if node.text().is_some() => *key = Some(node),
                None => {
                    self.problem((node.line, node.column), "a key must be a plain word")
                        .help("put quotes around a value or key that begins with `{` or `[`");
                    return Err(Stop);
                }
            },
        }
        Ok(())
    }

    fn expects_key(&self) -> bool {
        matches!(self.frames.last(), Some(Frame { open: Open::Mapping(_, None), .. }))
    }

    fn pending_key(&self) -> Option<&Node> {
        match self.frames.last() {
            Some(Frame { open: Open::Mapping(_, key), .. }) => key.as_ref(),
            _ => None,
        }
    }

    fn check_depth(&mut self, more: usize, at: (u32, u32)) -> Result<(), Stop> {
        if self.frames.len() + more <= MAX_DEPTH {
            return Ok(());
        }
        self.problem(at, format!("lists and mappings lie more than {MAX_DEPTH} deep"))
            .help("look for a bracket that is never closed, or an alias within an alias");
        Err(Stop)
    }

    fn spend(&mut self, cost: Cost, at: (u32, u32)) -> Result<(), Stop> {
        let Err(message) = self.budget.spend(cost) else { return Ok(()) };
        self.problem(at, message).help("use fewer aliases of large blocks, or split the file");
        Err(Stop)
    }

    fn problem(&mut self, at: (u32, u32), message: impl AsRef<str>) -> &mut Problem {
        let path = self.path();
        self.problems.error_as_is(at, path, message.as_ref())
    }

    /// The path to what is being read.
    fn path(&self) -> String {
        let mut path = String::new();
        for frame in &self.frames {
            match &frame.open {
                Open::Sequence(items) => push_index(&mut path, items.len()),
                Open::Mapping(_, Some(key)) => push_key(&mut path, key.text().unwrap_or_default()),
                Open::Mapping(_, None) => {}
            }
        }
        path
    }
}

fn without_free_space(root: Node) -> Node {
    match root.content {
        Content::Mapping(mapping) => {
            let mut entries = mapping.into_entries();
            entries.retain(|entry| !entry.name().starts_with("x-"));
            Node { content: Content::Mapping(Mapping::new(entries).0), ..root }
        }
        _ => root,
    }
}

/// What keeps a text from being looked at in the first place.
fn unreadable(text: &str) -> Option<(u32, u32, String)> {
    if text.len() > MAX_FILE {
        return Some((0, 0, "the file is larger than 16 MiB".to_owned()));
    }
    let before = text.get(..text.find('\0')?)?;
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
    Some((small(line), small(column), "the file holds a NUL byte: it is not text".to_owned()))
}

fn scalar(text: String, style: Style, (line, column): (u32, u32)) -> Node {
    Node { content: Content::Scalar(text.into()), style, line, column, substituted: false }
}

fn null((line, column): (u32, u32)) -> Node {
    Node { content: Content::Null, style: Style::Plain, line, column, substituted: false }
}

/// The ways YAML 1.2 writes nothing (core schema, section 10.3.2).
fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// The parser counts lines from 1 and columns from 0.
pub(super) fn position(marker: &granit::Marker) -> (u32, u32) {
    (small(marker.line()), small(marker.col().saturating_add(1)))
}

pub(super) fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
pub(super) mod tests;
