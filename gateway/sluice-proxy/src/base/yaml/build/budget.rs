//! What a tree may cost. Aliases are copies, so a short file may ask for a tree of any size; each
//! copy is therefore priced before it is made. The one rule: whatever is added to the tree, or kept
//! aside to be copied, is paid for first.

use crate::base::yaml::node::{Content, Node};

/// Values of a file, counted again for each alias.
const MAX_NODES: usize = 2_000_000;
/// Bytes of text in the tree, counted again for each alias.
const MAX_TEXT: usize = 64 * 1024 * 1024;

/// What a node adds to the tree, with everything below it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    nodes: usize,
    text: usize,
}

/// What was spent so far.
#[derive(Debug, Default)]
pub(super) struct Budget {
    nodes: usize,
    text: usize,
}

/// A finished node with an anchor, and what one more copy of it costs.
pub(super) struct Anchored {
    pub(super) node: Node,
    pub(super) cost: Cost,
    /// Levels of lists and mappings; none for a scalar.
    pub(super) depth: usize,
}

impl Cost {
    /// A list or mapping as it is opened.
    pub(super) const OF_ONE: Self = Self { nodes: 1, text: 0 };

    pub(super) fn of(node: &Node) -> Self {
        let mut cost = Self { nodes: 0, text: 0 };
        node.walk(&mut |below| {
            cost.nodes += 1;
            cost.text += below.text().map_or(0, str::len);
        });
        cost
    }
}

impl Budget {
    /// Pays for a node.
    ///
    /// # Errors
    /// The limit that would be broken, as a message.
    pub(super) fn spend(&mut self, cost: Cost) -> Result<(), String> {
        self.nodes = self.nodes.saturating_add(cost.nodes);
        self.text = self.text.saturating_add(cost.text);
        if self.nodes > MAX_NODES {
            Err(format!("the file holds more than {MAX_NODES} values once aliases are in place"))
        } else if self.text > MAX_TEXT {
            Err("the file holds more than 64 MiB of text once aliases are in place".to_owned())
        } else {
            Ok(())
        }
    }
}

impl Anchored {
    pub(super) fn new(node: Node, cost: Cost) -> Self {
        Self { depth: depth(&node), node, cost }
    }
}

fn depth(node: &Node) -> usize {
    let below = node.items().iter().chain(node.pairs().iter().map(|entry| &entry.value));
    match node.content {
        Content::Sequence(_) | Content::Mapping(_) => 1 + below.map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
