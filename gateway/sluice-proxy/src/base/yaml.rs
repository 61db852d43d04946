//! The only door to YAML. A file becomes a tree of [`Node`]s that know their line and column; typed
//! settings are then read from pieces of that tree, and every problem is collected on the way.
//!
//! Events come from the parser that serde-saphyr exports; its own deserializer stops at the first
//! error, so the reading is ours. What the settings mean is left to whoever declares them. The one
//! rule: a value that came out of `${...}` stays one string, is never parsed as YAML again, and is
//! never shown.

use std::fmt;
use std::io;

use zeroize::Zeroizing;

mod build;
mod hints;
mod node;
mod place;
mod read;
mod substitute;
mod suggest;

#[cfg(test)]
mod mistakes;
#[cfg(test)]
mod properties;

pub(crate) use build::parse;
#[cfg(test)]
pub(crate) use node::Kind;
pub(crate) use node::Node;
pub(crate) use place::Place;
pub(crate) use read::read;
pub(crate) use suggest::nearest;

/// A file as it was read.
#[derive(Clone)]
pub(crate) struct Source {
    /// The name problems are reported under, as the operator wrote it.
    pub(crate) name: String,
    /// Wiped when it is dropped: it may hold secrets in clear.
    pub(crate) text: Zeroizing<String>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Where `${NAME}` and `${file:path}` find their values. The environment is read at the program's
/// door and handed in, so that a check may be given another one.
pub(crate) trait Lookup {
    /// The value of an environment variable; `None` when it is not set.
    fn env(&self, name: &str) -> Option<String>;

    /// The content of a file. Relative paths are the implementor's to resolve.
    fn file(&self, path: &str) -> io::Result<String>;
}
