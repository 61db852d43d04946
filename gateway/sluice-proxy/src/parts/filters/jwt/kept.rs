//! The last good set of a source on disk, for starts while the source is away. The one rule: a file is
//! believed only if it was written for the very same source, and for no longer than what it holds may be
//! used.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::jwk::MAX_SET;

/// Bytes around a set.
const AROUND: usize = 4 * 1024;

#[derive(Serialize, Deserialize)]
struct File {
    /// The source, as a digest of all that makes it.
    source: String,
    /// Seconds since 1970.
    fetched_at: u64,
    set: Box<RawValue>,
}

/// The set, and how old it is at `now`, in seconds since 1970.
///
/// # Errors
///
/// Why there is none; `None` if there is just no file.
pub(super) fn read(path: &Path, source: &str, now: u64) -> Result<(String, u64), Option<String>> {
    let file = std::fs::File::open(path).map_err(|error| {
        (error.kind() != std::io::ErrorKind::NotFound).then(|| error.to_string())
    })?;
    let (mut text, most) = (String::new(), MAX_SET + AROUND);
    let read = file.take(most as u64 + 1).read_to_string(&mut text);
    if read.map_err(|error| Some(error.to_string()))? > most {
        return Err(Some("it is too large".to_owned()));
    }
    let file: File = serde_json::from_str(&text).map_err(|error| Some(error.to_string()))?;
    if file.source != source {
        return Err(Some("it was written for another source".to_owned()));
    }
    Ok((file.set.get().to_owned(), now.saturating_sub(file.fetched_at)))
}

/// Writes a set, all or nothing, for nobody else to read: it may hold secrets.
pub(super) fn write(path: &Path, source: &str, now: u64, set: String) -> std::io::Result<()> {
    let file =
        File { source: source.to_owned(), fetched_at: now, set: RawValue::from_string(set)? };
    let text = serde_json::to_vec(&file)?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let beside = beside(path);
    let written = put(&beside, &text).and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written
}

fn put(path: &Path, text: &[u8]) -> std::io::Result<()> {
    // What an earlier process of this number left behind.
    let _ = std::fs::remove_file(path);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

/// Another process may write the same file.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_for_the_same_source_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/keys.json");
        assert_eq!(read(&path, "s", 1), Err(None));
        let set = r#"{"keys": [1]}"#.to_owned();
        write(&path, "s", 100, set.clone()).unwrap();
        write(&path, "s", 110, set.clone()).unwrap();
        assert_eq!(read(&path, "s", 130), Ok((set.clone(), 20)));
        assert_eq!(read(&path, "s", 50), Ok((set, 0)), "a clock that was set back");
        assert!(read(&path, "other", 130).unwrap_err().unwrap().contains("another source"));
        let left = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(left, 1, "nothing is left beside it");
        for broken in ["", "{", "{}", "[]"] {
            std::fs::write(&path, broken).unwrap();
            assert!(read(&path, "s", 1).unwrap_err().is_some(), "{broken}");
        }
        std::fs::write(&path, vec![b' '; MAX_SET + AROUND + 1]).unwrap();
        assert!(read(&path, "s", 1).unwrap_err().unwrap().contains("too large"));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(write(&path, "s", 1, "{}".to_owned()).is_err());
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_may_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        write(&path, "s", 1, "{}".to_owned()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
