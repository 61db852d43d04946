//! Fetching programs from the packages of Debian and Ubuntu.
//!
//! Holds the apt and dpkg command lines; which programs are wanted is left to `tools`. A package
//! whose installation would start a service is never installed: it is downloaded and unpacked, and
//! a link to its program is left in `target/tools`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Source, Tool};
use crate::shell::{Failure, Shell};

/// How often package lists are asked for before giving up.
const UPDATE_ATTEMPTS: u32 = 3;

/// Whether packages can be installed: apt and dpkg are there, and this is root.
pub(super) fn may_install(shell: &Shell) -> bool {
    let mut whoami = shell.command("id");
    whoami.arg("-u");
    shell.find("apt-get").is_some()
        && shell.find("dpkg").is_some()
        && shell.capture(whoami).is_ok_and(|id| id.trim() == "0")
}

/// Brings one program to this machine.
pub(super) fn fetch(shell: &Shell, tool: &Tool) -> Result<(), Failure> {
    match &tool.source {
        Source::Install(packages) => install(shell, packages),
        Source::Unpack { packages, program, libraries } => {
            if !libraries.is_empty() {
                install(shell, libraries)?;
            }
            unpack(shell, tool.name, packages, program)
        }
        Source::Wheel { .. } => Err(Failure(format!("{} is no package of Debian's", tool.name))),
    }
}

fn install(shell: &Shell, packages: &[&str]) -> Result<(), Failure> {
    let words = ["install", "-qq", "-y", "--no-install-recommends"];
    with_fresh_lists(shell, |shell| apt(shell, shell.root(), &[&words, packages].concat()))
}

fn unpack(shell: &Shell, name: &str, packages: &[&str], program: &str) -> Result<(), Failure> {
    let place = Path::new("packages").join(name);
    let folder = shell.tools().join(&place);
    empty(&folder).map_err(at(&folder))?;
    let words = ["download", "-qq"];
    with_fresh_lists(shell, |shell| apt(shell, &folder, &[&words, packages].concat()))?;
    for package in archives_in(&folder).map_err(at(&folder))? {
        let mut dpkg = shell.command("dpkg");
        dpkg.arg("-x").arg(&package).arg(&folder);
        shell.run(dpkg)?;
        fs::remove_file(&package).map_err(at(&package))?;
    }
    // Relative, so that the link still holds when the checkout moves.
    let link = shell.tools().join(name);
    replace_link(&place.join(program), &link).map_err(at(&link))
}

/// Tries once as things are; where that fails, perhaps for stale lists, refreshes them first.
fn with_fresh_lists(
    shell: &Shell,
    work: impl Fn(&Shell) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if work(shell).is_ok() {
        return Ok(());
    }
    let refresh =
        || apt(shell, shell.root(), &["update", "-qq", "-o", "APT::Update::Error-Mode=any"]);
    let mut refreshed = refresh();
    for _ in 1..UPDATE_ATTEMPTS {
        if refreshed.is_ok() {
            break;
        }
        refreshed = refresh();
    }
    // One broken source of many need not matter, so the work itself decides.
    if let Err(Failure(why)) = refreshed {
        shell.warn(&format!("xtask tools: {why}"));
    }
    work(shell)
}

/// Runs apt-get so that it asks nothing, waits for another apt, and retries broken downloads.
fn apt(shell: &Shell, folder: &Path, words: &[&str]) -> Result<(), Failure> {
    let mut command = shell.command("apt-get");
    command
        .current_dir(folder)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"])
        // Progress bars of dpkg would fill a log.
        .args(["-o", "Dpkg::Use-Pty=0"])
        // Downloads go to a folder that apt's own unprivileged user may not write to.
        .args(["-o", "APT::Sandbox::User=root"])
        .args(words);
    shell.run(command)
}

pub(super) fn empty(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::create_dir_all(folder),
    }
}

fn archives_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| entry.map(|it| it.path()));
    let mut files = entries.collect::<io::Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "deb"));
    Ok(files)
}

pub(super) fn replace_link(to: &Path, link: &Path) -> io::Result<()> {
    match fs::remove_file(link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => std::os::unix::fs::symlink(to, link),
    }
}

pub(super) fn at(place: &Path) -> impl FnOnce(io::Error) -> Failure {
    move |error| Failure(format!("{}: {error}", place.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_emptied_and_a_link_replaced() {
        let scratch = std::env::temp_dir().join(format!("xtask-debian-{}", std::process::id()));
        let folder = scratch.join("packages");
        for name in ["old.deb", "old.txt"] {
            empty(&folder).unwrap();
            fs::write(folder.join(name), name).unwrap();
            replace_link(&Path::new("packages").join(name), &scratch.join("link")).unwrap();
            assert_eq!(fs::read_to_string(scratch.join("link")).unwrap(), name);
        }
        assert!(archives_in(&folder).unwrap().is_empty());
        fs::write(folder.join("new.deb"), "").unwrap();
        assert_eq!(archives_in(&folder).unwrap(), [folder.join("new.deb")]);
        fs::remove_dir_all(&scratch).unwrap();
    }
}
