//! A trie of path segments for patterns with captures and for prefixes.
//!
//! It knows nothing of hosts, methods or predicates: it offers lists of routes, and the visitor says
//! whether one of them wins. The one rule: literal children are walked before the capture, so lists
//! are offered in the order of precedence, and the walk backs out of a branch that does not win.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::path::Segment;

/// Segments by node. Node 0 is the root and stands for no segment.
#[derive(Clone, Debug)]
pub(super) struct Trie {
    nodes: Vec<Node>,
}

/// What a walk meets. Lists are never empty.
pub(super) trait Visit<'t> {
    /// These routes match the whole path by captures. `Some` ends the walk.
    fn whole(&mut self, routes: &'t [usize]) -> Option<usize>;
    /// These routes match everything below the first `depth` segments.
    fn below(&mut self, depth: usize, routes: &'t [usize]);
}

#[derive(Clone, Debug, Default)]
struct Node {
    literals: Children,
    capture: Option<usize>,
    whole: Vec<usize>,
    below: Vec<usize>,
}

#[derive(Clone, Debug)]
enum Children {
    Few(Vec<(Box<str>, usize)>),
    Many(HashMap<Box<str>, usize, RandomState>),
}

/// Up to this many children, comparing beats hashing.
const FEW: usize = 8;

impl Default for Trie {
    fn default() -> Self {
        Self { nodes: vec![Node::default()] }
    }
}

impl Trie {
    /// Adds a route; a list holds its routes in the order in which they were added.
    pub(super) fn insert(&mut self, segments: &[Segment], below: bool, route: usize) {
        let mut at = 0;
        for segment in segments {
            at = self.child(at, segment);
        }
        if let Some(node) = self.nodes.get_mut(at) {
            let list = if below { &mut node.below } else { &mut node.whole };
            list.push(route);
        }
    }

    /// All lists, for sorting them.
    pub(super) fn lists(&mut self) -> impl Iterator<Item = &mut Vec<usize>> {
        self.nodes.iter_mut().flat_map(|node| [&mut node.whole, &mut node.below])
    }

    /// Whether no route was added.
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.len() == 1 && self.nodes.iter().all(|node| node.below.is_empty())
    }

    /// Walks all nodes that `path` reaches, until the visitor takes a route.
    pub(super) fn walk<'t>(&'t self, path: &str, visitor: &mut impl Visit<'t>) -> Option<usize> {
        self.descend(0, path.strip_prefix('/'), 0, visitor)
    }

    /// The depth of this recursion is that of the trie, which the patterns bound.
    fn descend<'t>(
        &'t self,
        at: usize,
        rest: Option<&str>,
        depth: usize,
        visitor: &mut impl Visit<'t>,
    ) -> Option<usize> {
        let node = self.nodes.get(at)?;
        if !node.below.is_empty() {
            visitor.below(depth, &node.below);
        }
        let Some(rest) = rest else {
            return if node.whole.is_empty() { None } else { visitor.whole(&node.whole) };
        };
        let (segment, rest) =
            rest.split_once('/').map_or((rest, None), |(segment, rest)| (segment, Some(rest)));
        let literal = node.literals.get(segment);
        let capture = node.capture.filter(|_| !segment.is_empty());
        [literal, capture]
            .into_iter()
            .flatten()
            .find_map(|child| self.descend(child, rest, depth + 1, visitor))
    }

    fn child(&mut self, at: usize, segment: &Segment) -> usize {
        let next = self.nodes.len();
        let Some(node) = self.nodes.get_mut(at) else { return at };
        let child = match segment {
            Segment::Literal(text) => node.literals.get_or_insert(text, next),
            Segment::Capture => *node.capture.get_or_insert(next),
        };
        if child == next {
            self.nodes.push(Node::default());
        }
        child
    }
}

impl Default for Children {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Children {
    fn get(&self, segment: &str) -> Option<usize> {
        match self {
            Self::Few(few) => {
                few.iter().find(|(text, _)| **text == *segment).map(|(_, child)| *child)
            }
            Self::Many(many) => many.get(segment).copied(),
        }
    }

    fn get_or_insert(&mut self, segment: &str, next: usize) -> usize {
        if let Some(child) = self.get(segment) {
            return child;
        }
        match self {
            Self::Few(few) if few.len() < FEW => few.push((segment.into(), next)),
            Self::Few(few) => {
                let mut many: HashMap<_, _, _> = few.drain(..).collect();
                many.insert(segment.into(), next);
                *self = Self::Many(many);
            }
            Self::Many(many) => {
                many.insert(segment.into(), next);
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes down what is offered, and takes nothing but `wanted`.
    #[derive(Default)]
    struct Notes {
        wanted: Option<usize>,
        whole: Vec<usize>,
        below: Vec<(usize, usize)>,
    }

    impl<'t> Visit<'t> for Notes {
        fn whole(&mut self, routes: &'t [usize]) -> Option<usize> {
            self.whole.extend(routes);
            routes.iter().copied().find(|route| Some(*route) == self.wanted)
        }
        fn below(&mut self, depth: usize, routes: &'t [usize]) {
            self.below.extend(routes.iter().map(|route| (depth, *route)));
        }
    }

    fn segments(text: &str) -> Vec<Segment> {
        let one = |part: &str| match part {
            "*" => Segment::Capture,
            text => Segment::Literal(text.into()),
        };
        text.split(' ').filter(|part| !part.is_empty()).map(one).collect()
    }

    fn trie() -> Trie {
        let mut trie = Trie::default();
        let patterns = ["users * posts", "users me posts", "users *", "* * posts"];
        for (route, text) in patterns.iter().enumerate() {
            trie.insert(&segments(text), false, route);
        }
        for (route, text) in ["users", "users * posts", "", "*"].iter().enumerate() {
            trie.insert(&segments(text), true, 10 + route);
        }
        trie
    }

    #[test]
    fn the_walk_backs_out_and_goes_on() {
        let (trie, mut notes) = (trie(), Notes::default());
        assert_eq!(trie.walk("/users/me/posts", &mut notes), None);
        assert_eq!(notes.whole, [1, 0, 3]);
        assert_eq!(notes.below, [(0, 12), (1, 10), (3, 11), (1, 13)]);
        let mut second = Notes { wanted: Some(0), ..Notes::default() };
        assert_eq!(trie.walk("/users/me/posts", &mut second), Some(0));
        assert_eq!(second.whole, [1, 0]);
    }

    #[test]
    fn captures_are_never_empty() {
        let (trie, mut notes) = (trie(), Notes::default());
        assert_eq!(trie.walk("/users/", &mut notes), None);
        assert!(notes.whole.is_empty());
        let mut root = Notes::default();
        assert_eq!(trie.walk("/", &mut root), None);
        assert_eq!(root.below, [(0, 12)]);
    }

    #[test]
    fn a_node_with_many_children_is_hashed_and_still_found() {
        let mut trie = Trie::default();
        assert!(trie.is_empty());
        for route in 0..1_000 {
            trie.insert(&segments(&format!("a s{route} *")), false, route);
        }
        assert!(!trie.is_empty());
        assert!(trie.nodes.iter().any(|node| matches!(node.literals, Children::Many(_))));
        for route in [0, 7, 8, 9, 999] {
            let mut notes = Notes { wanted: Some(route), ..Notes::default() };
            assert_eq!(trie.walk(&format!("/a/s{route}/x"), &mut notes), Some(route));
            assert_eq!(notes.whole.len(), 1, "only one branch is walked");
        }
    }
}
