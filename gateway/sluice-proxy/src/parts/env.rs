//! What building a part may use: cells that outlive reloads, files beside the config, and the list
//! of problems. Nothing here is reachable from the request path.

use std::collections::HashSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;

use zeroize::Zeroizing;

use crate::base::problem::Problems;
use crate::base::yaml::Place;
use crate::lasting::redis::Target;
use crate::lasting::resolver::Names;
use crate::lasting::retained::Retained;
use crate::lasting::telemetry::metrics::Metrics;
use crate::parts::apps::Apps;
use crate::parts::filters::{KeySource, List};
use crate::parts::login::Login;

/// Largest key, secret or certificate file, bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// The workshop of one compilation.
pub(crate) struct Env<'a> {
    pub(crate) retained: &'a Retained,
    pub(crate) metrics: &'a Arc<Metrics>,
    pub(crate) problems: &'a mut Problems,
    /// The Redis that gateways share, if there is one.
    pub(crate) redis: Option<Arc<Target>>,
    /// Whether the config says how people log in, and how.
    pub(crate) has_login: bool,
    pub(crate) login: Option<Arc<Login>>,
    /// Whether the config says who gets access tokens.
    pub(crate) has_broker: bool,
    /// Looks up names of hosts.
    pub(crate) names: Arc<Names>,
    /// Issuers of keys so far.
    pub(crate) key_sets: Vec<Arc<KeySource>>,
    /// Lists of addresses that have to be watched.
    pub(crate) lists: Vec<Arc<List>>,
    /// Mini-programs that are declared.
    pub(crate) apps: Arc<Apps>,
    /// Folder of the config file; relative paths start here.
    pub(crate) base: &'a Path,
    /// Missing keys and certificates are made.
    pub(crate) development: bool,
    /// Makes files (`run`) or only looks (`check`).
    pub(crate) may_write: bool,
    /// Names of limits so far, to find two that would share their counts.
    pub(crate) limits: HashSet<String>,
    /// Files read so far with the [`digest`]s of what was read; a change of one of them is a change of the
    /// config.
    pub(crate) files: Vec<(PathBuf, String)>,
}

/// Where a filter stands: whose it is, and what the owner's path captures.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    /// `global`, `group:api` or `route:users`; the name its cells are kept by.
    pub(crate) name: String,
    /// Names captured by the route's path.
    pub(crate) captures: Vec<String>,
}

impl Env<'_> {
    /// A path of the config, relative to the config's folder.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.base.join(path)
    }

    /// Reads a secret, and warns if others may read it too.
    pub(crate) fn secret_file(&mut self, at: &Place<'_>, path: &str) -> Option<Zeroizing<Vec<u8>>> {
        warn_if_exposed(&self.path(path));
        self.file(at, path)
    }

    /// Reads a file the config names, or records why not. It is wiped after use: it may be a key.
    pub(crate) fn file(&mut self, at: &Place<'_>, path: &str) -> Option<Zeroizing<Vec<u8>>> {
        let full = self.path(path);
        let read = read_bounded(&full).map(Zeroizing::new);
        let seen = read.as_ref().map_or(&[][..], |bytes| bytes);
        self.files.push((full, digest(seen)));
        match read {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.problems
                    .error(at, format!("cannot read `{path}`: {error}"))
                    .help(format!("paths are relative to {}", self.base.display()));
                None
            }
        }
    }
}

/// First 16 hex digits of the SHA-256.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Whether anybody on this machine may read it.
fn is_exposed(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o004 != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        false
    }
}

/// Says that a secret is none.
pub(crate) fn warn_if_exposed(path: &Path) {
    if is_exposed(path) {
        tracing::warn!(path = %path.display(), "everybody on this machine may read this secret; chmod 600");
    }
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    // Not what the file system says of its size, which is 0 for a device that never ends.
    let read = file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if read as u64 > MAX_FILE {
        return Err(std::io::Error::other(format!("larger than {MAX_FILE} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::base::yaml::{Lookup, Node, Source, parse};

    struct Nowhere;

    impl Lookup for Nowhere {
        fn env(&self, _: &str) -> Option<String> {
            None
        }

        fn file(&self, _: &str) -> std::io::Result<String> {
            Err(std::io::ErrorKind::NotFound.into())
        }
    }

    /// A config in which nothing stands.
    pub(crate) fn nothing() -> Node {
        let source = Source { name: "test".to_owned(), text: "{}".to_owned().into() };
        parse(&source, &Nowhere).unwrap()
    }

    /// Builds a part; panics if there was anything to complain about.
    pub(crate) fn with_env<T>(build: impl FnOnce(&mut Env<'_>) -> T) -> T {
        let mut problems = Problems::new("test");
        let mut env = Env {
            apps: Arc::default(),
            retained: &Retained::default(),
            metrics: &Arc::new(Metrics::new(1)),
            problems: &mut problems,
            redis: None,
            has_login: false,
            login: None,
            has_broker: false,
            names: Arc::default(),
            key_sets: Vec::new(),
            lists: Vec::new(),
            base: Path::new("."),
            development: false,
            may_write: false,
            limits: HashSet::new(),
            files: Vec::new(),
        };
        let built = build(&mut env);
        assert!(!problems.has_errors(), "{:?}", problems.sorted());
        built
    }

    #[test]
    fn a_device_that_never_ends_is_not_read_for_ever() {
        let error = read_bounded(Path::new("/dev/zero")).unwrap_err();
        assert!(error.to_string().contains("larger than"), "{error}");
    }
}
