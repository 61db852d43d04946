//! Hears of changes to some files. It only says that a look is due; whether anything is new is for the
//! reader to find out. The one rule: what the gateway itself does to files (reading them, writing its
//! log beside them) is never news, or looking would never end.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

/// A watch on the folders of some files: editors rename over a file and Kubernetes swaps a link, so
/// that a watch on the file itself would see nothing.
pub(super) struct Watch {
    files: Vec<PathBuf>,
    _watcher: Option<notify::RecommendedWatcher>,
}

impl Watch {
    pub(super) fn start(files: Vec<PathBuf>, changes: mpsc::Sender<()>) -> Self {
        let (names, first) = (names(&files), changes.clone());
        let tell = move |event: notify::Result<Event>| {
            // An error may hide a change.
            if event.map_or(true, |event| is_news(&event, &names)) {
                // Full means that a look is due already.
                let _ = changes.try_send(());
            }
        };
        let watcher = notify::recommended_watcher(tell).and_then(|mut watcher| {
            for folder in folders(&files) {
                watcher.watch(&folder, RecursiveMode::NonRecursive)?;
            }
            Ok(watcher)
        });
        let watcher = watcher
            .inspect_err(
                |error| tracing::warn!(%error, "cannot watch files; comparing them every 5s"),
            )
            .ok();
        // What changed after it was read, and before the watch stood, nobody has told of.
        let _ = first.try_send(());
        Self { files, _watcher: watcher }
    }

    /// The same watch, or a new one if the files are others.
    pub(super) fn follow(self, files: Vec<PathBuf>, changes: &mpsc::Sender<()>) -> Self {
        if self.files == files { self } else { Self::start(files, changes.clone()) }
    }
}

/// Names that come, go or move may be links on the way to any of our files; new content matters only
/// in those themselves.
fn is_news(event: &Event, names: &[OsString]) -> bool {
    let ours = || {
        event
            .paths
            .iter()
            .any(|path| path.file_name().is_some_and(|n| names.contains(&n.to_owned())))
    };
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Data(_)) => ours(),
        EventKind::Access(_) => false,
        _ => true,
    }
}

/// What the files are called, by their own names and by those that links lead to.
fn names(files: &[PathBuf]) -> Vec<OsString> {
    let meant = files.iter().filter_map(|file| file.canonicalize().ok());
    files
        .iter()
        .cloned()
        .chain(meant)
        .filter_map(|file| file.file_name().map(std::ffi::OsStr::to_owned))
        .collect()
}

fn folders(files: &[PathBuf]) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = files
        .iter()
        .filter_map(|file| match file.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Some(Path::new(".").to_owned()),
            parent => parent.map(Path::to_owned),
        })
        .collect();
    folders.sort();
    folders.dedup();
    folders
}

#[cfg(test)]
mod tests {
    use notify::event::{AccessMode, CreateKind, DataChange, RenameMode};

    use super::*;

    #[test]
    fn a_log_beside_the_config_is_no_news() {
        let names = [OsString::from("routes.yaml")];
        let news = |kind: EventKind, file: &str| {
            is_news(&Event::new(kind).add_path(Path::new("/etc/sluice").join(file)), &names)
        };
        let written = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
        for kind in [written, closed] {
            assert!(news(kind, "routes.yaml"));
            assert!(!news(kind, "access.log"));
        }
        assert!(!news(EventKind::Access(AccessKind::Close(AccessMode::Read)), "routes.yaml"));
        assert!(!news(EventKind::Access(AccessKind::Open(AccessMode::Any)), "routes.yaml"));
        assert!(news(EventKind::Modify(ModifyKind::Name(RenameMode::To)), "..data"));
        assert!(news(EventKind::Create(CreateKind::Any), "..data"));
    }

    #[test]
    fn a_link_is_known_by_both_names() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("real.yaml"), "").unwrap();
        let link = folder.path().join("routes.yaml");
        std::os::unix::fs::symlink("real.yaml", &link).unwrap();
        assert_eq!(names(&[link]), ["routes.yaml", "real.yaml"]);
    }
}
