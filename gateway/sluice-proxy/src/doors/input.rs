//! Where the config comes from: a file, or the text embedded in the program. The environment is read
//! once, at the program's door.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::base::yaml::{Lookup, Source};
use crate::parts::env::warn_if_exposed;

/// Largest config file, bytes.
const MAX_CONFIG: u64 = 16 * 1024 * 1024;
/// Largest file of `${file:…}`, bytes.
const MAX_VALUE: u64 = 64 * 1024;

/// Where the config is.
#[derive(Debug, Clone)]
pub enum Origin {
    /// A file, watched for changes.
    File(PathBuf),
    /// Text that belongs to the program; relative paths start at the working directory.
    Embedded(&'static str),
}

/// The environment as it was at start.
#[derive(Clone, Default)]
pub struct Environment(pub HashMap<String, String>);

/// Names only.
impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Origin {
    /// For people.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Embedded(_) => "embedded defaults".to_owned(),
        }
    }

    /// Folder that relative paths of the config start in.
    pub(crate) fn base(&self) -> PathBuf {
        match self {
            Self::File(path) => match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
                _ => PathBuf::from("."),
            },
            Self::Embedded(_) => PathBuf::from("."),
        }
    }

    pub(crate) fn read(&self) -> std::io::Result<Source> {
        let text = match self {
            Self::Embedded(text) => (*text).to_owned(),
            Self::File(path) => read_text(path, MAX_CONFIG)?,
        };
        Ok(Source { name: self.name(), text: text.into() })
    }
}

/// Reads into memory that is taken once: what grows leaves copies behind.
fn read_text(path: &Path, most: u64) -> std::io::Result<String> {
    let file = std::fs::File::open(path)?;
    let size = file.metadata()?.len().min(most);
    let mut text = String::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
    let read = file.take(most + 1).read_to_string(&mut text)?;
    if read as u64 > most {
        return Err(std::io::Error::other(format!("larger than {most} bytes")));
    }
    Ok(text)
}

/// Values of `${…}`.
pub(crate) struct Values<'a> {
    pub(crate) environment: &'a Environment,
    pub(crate) base: &'a Path,
}

impl Lookup for Values<'_> {
    fn env(&self, name: &str) -> Option<String> {
        self.environment.0.get(name).cloned()
    }

    fn file(&self, path: &str) -> std::io::Result<String> {
        let path = self.base.join(path);
        warn_if_exposed(&path);
        read_text(&path, MAX_VALUE)
    }
}
