//! Typed settings out of a tree, with every problem on the way. Serde gives up at the first error,
//! so a tree with errors is read again and again, each time without the nodes that were already
//! reported, until nothing new turns up; whatever comes out of such a later pass is thrown away.
//! The one rule: an error is told by the innermost place that knows of it, once, and whoever tells
//! it marks its node as spent. That is what makes the passes end.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use serde::de::DeserializeOwned;

use self::failure::{Failure, Words};
use self::reader::Reader;
use super::node::Node;
use super::place::Place;
use crate::base::problem::Problems;

mod access;
mod failure;
mod reader;
mod scalar;

/// Reads what stands at a place. A place that is not in the file reads as if nothing were written
/// there. `None` means that at least one error was added to the problems.
///
/// Fields that a struct does not have are refused whether or not it says so. Enums are written as a
/// bare word or as `word: settings`; a struct may be left empty if none of its fields is needed.
pub(crate) fn read<T: DeserializeOwned>(at: &Place<'_>, problems: &mut Problems) -> Option<T> {
    let findings = Findings::new(problems);
    for _ in 0..MAX_PASSES {
        let known = findings.spent.borrow().len();
        match T::deserialize(Reader::new(at.clone(), &findings)) {
            Ok(value) if findings.spent.borrow().is_empty() => return Some(value),
            Ok(_) => return None,
            Err(failure) => findings.settle(at, failure),
        };
        let done = at.node().is_none_or(|node| findings.is_spent(node));
        if done || findings.spent.borrow().len() == known {
            return None;
        }
    }
    None
}

/// Each pass tells one error; beyond this many, nobody reads them.
const MAX_PASSES: usize = 10_000;

/// What one call of [`read`] has learned so far. Nodes are told apart by their address, which holds
/// still for as long as the tree is borrowed.
struct Findings<'p> {
    problems: RefCell<&'p mut Problems>,
    /// Nodes that are done with: reported, or beyond saving because of what was reported below.
    spent: RefCell<HashSet<usize>>,
    /// How many leading children of a list or map need no second look.
    good: RefCell<HashMap<usize, usize>>,
    /// Lists and maps that were read again without their good children.
    shortened: RefCell<HashSet<usize>>,
    /// Fields that were suggested in place of an unknown one; their absence is no second problem.
    suggested: RefCell<HashSet<(usize, String)>>,
}

// === impl Findings ===

impl<'p> Findings<'p> {
    fn new(problems: &'p mut Problems) -> Self {
        Self {
            problems: RefCell::new(problems),
            spent: RefCell::default(),
            good: RefCell::default(),
            shortened: RefCell::default(),
            suggested: RefCell::default(),
        }
    }

    /// Tells a failure at a place unless somebody further in has told it already.
    fn settle(&self, at: &Place<'_>, failure: Failure) -> Failure {
        if let Some(words) = failure.into_words() {
            self.tell(at, words);
        }
        Failure::told()
    }

    fn tell(&self, at: &Place<'_>, words: Words) {
        if !at.node().is_some_and(|node| self.is_consequence(node, &words)) {
            let mut problems = self.problems.borrow_mut();
            let problem = if words.shows_nothing {
                problems.error_as_is((at.line(), at.column()), at.path(), &words.message)
            } else {
                problems.error(at, words.message)
            };
            problem.help = words.help;
        }
        if let Some(node) = at.node() {
            self.spend(node);
        }
    }

    /// Whether an error about a node may be due only to what was left out below it. That a field is
    /// missing stands, if it is missing in the file and was not offered for a misspelt one.
    fn is_consequence(&self, node: &Node, words: &Words) -> bool {
        if let Some(field) = words.missing
            && node.get(field).is_none()
        {
            return self.suggested.borrow().contains(&(id(node), field.to_owned()));
        }
        let mut left_out = false;
        node.walk(&mut |below| {
            left_out |= !std::ptr::eq(below, node) && self.is_spent(below);
            left_out |= self.shortened.borrow().contains(&id(below));
        });
        left_out
    }

    fn suggest(&self, node: &Node, field: &str) {
        self.suggested.borrow_mut().insert((id(node), field.to_owned()));
    }

    fn spend(&self, node: &Node) {
        self.spent.borrow_mut().insert(id(node));
    }

    fn is_spent(&self, node: &Node) -> bool {
        let spent = self.spent.borrow();
        !spent.is_empty() && spent.contains(&id(node))
    }

    /// Where to go on in a list or map. Whoever asks leaves out what stands before.
    fn first_doubtful(&self, node: &Node) -> usize {
        let first = self.good.borrow().get(&id(node)).copied().unwrap_or(0);
        if first > 0 {
            self.shortened.borrow_mut().insert(id(node));
        }
        first
    }

    fn set_first_doubtful(&self, node: &Node, index: usize) {
        self.good.borrow_mut().insert(id(node), index);
    }
}

fn id(node: &Node) -> usize {
    std::ptr::from_ref(node).addr()
}

#[cfg(test)]
mod tests;
