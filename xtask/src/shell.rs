//! Running other programs from the repository's root, and talking to the person who waits.
//!
//! Every child gets the same surroundings: the root as its folder, and the folder of fetched
//! programs at the end of `PATH`. Verbs never start a process in any other way, so that a test
//! finds the same programs under every verb.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Why a verb could not be completed, as a sentence for its caller.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

/// The surroundings that every child process shares.
pub(crate) struct Shell {
    root: PathBuf,
    tools: PathBuf,
    cargo: OsString,
    path: OsString,
}

impl Shell {
    /// Takes what the environment says of cargo, of the search path and of the folder of fetched
    /// programs; cargo sets the last one from `.cargo/config.toml`.
    pub(crate) fn new(
        cargo: Option<OsString>,
        path: Option<OsString>,
        tools: Option<OsString>,
    ) -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = here.parent().unwrap_or(here).to_path_buf();
        let tools = tools.map_or_else(|| root.join("target/tools"), PathBuf::from);
        let cargo = cargo.unwrap_or_else(|| "cargo".into());
        let path = with_last(path.unwrap_or_default(), &tools);
        Self { root, tools, cargo, path }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of fetched programs, whatever the target directory of cargo is.
    pub(crate) fn tools(&self) -> &Path {
        &self.tools
    }

    /// Where a program would be found by a child: `PATH` first, fetched programs last.
    pub(crate) fn find(&self, program: &str) -> Option<PathBuf> {
        std::env::split_paths(&self.path).map(|folder| folder.join(program)).find(|at| at.is_file())
    }

    pub(crate) fn cargo(&self, args: &[&str]) -> Command {
        let mut command = self.command(&self.cargo);
        command.args(args);
        command
    }

    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root).env("PATH", &self.path).stdin(Stdio::null());
        command
    }

    /// Shows the command line, runs it with its output passed through, and expects success.
    pub(crate) fn run(&self, mut command: Command) -> Result<(), Failure> {
        let line = line_of(&command);
        self.say(&format!("$ {line}"));
        match command.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Failure(format!("`{line}` ended with {status}"))),
            Err(error) => Err(Failure(format!("`{line}` did not start: {error}"))),
        }
    }

    /// Runs quietly and gives back standard output; on failure the message holds standard error.
    pub(crate) fn capture(&self, mut command: Command) -> Result<String, Failure> {
        let line = line_of(&command);
        let output = command
            .output()
            .map_err(|error| Failure(format!("`{line}` did not start: {error}")))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Failure(format!("`{line}` ended with {}\n{said}", output.status)));
        }
        String::from_utf8(output.stdout)
            .map_err(|_| Failure(format!("`{line}` printed something that is not UTF-8")))
    }

    /// A line on standard output. A reader who went away is no reason to fail.
    pub(crate) fn say(&self, line: &str) {
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    }

    /// A line on standard error.
    pub(crate) fn warn(&self, line: &str) {
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }
}

/// Runs `work` and says how long it took.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    #[expect(
        clippy::disallowed_methods,
        reason = "the time of a build step, which no test needs to invent"
    )]
    let start = Instant::now();
    let done = work();
    (done, start.elapsed())
}

fn with_last(path: OsString, folder: &Path) -> OsString {
    let folders = std::env::split_paths(&path).chain([folder.to_path_buf()]);
    std::env::join_paths(folders.collect::<Vec<_>>()).unwrap_or(path)
}

fn line_of(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut line = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell() -> Shell {
        Shell::new(None, Some("/nowhere:/bin:/usr/bin".into()), Some("/fetched".into()))
    }

    #[test]
    fn children_see_fetched_programs_last() {
        let shell = shell();
        let path = std::env::split_paths(&shell.path).collect::<Vec<_>>();
        assert_eq!(path.first().unwrap(), Path::new("/nowhere"));
        assert_eq!(path.last().unwrap(), Path::new("/fetched"));
    }

    #[test]
    fn a_child_starts_in_the_root_and_reads_nothing() {
        let shell = shell();
        let mut command = shell.command("sh");
        command.args(["-c", "pwd -P; cat"]);
        let said = shell.capture(command).unwrap();
        assert_eq!(Path::new(said.trim()), shell.root().canonicalize().unwrap());
    }

    #[test]
    fn a_failing_child_is_named_with_what_it_said() {
        let shell = shell();
        let mut command = shell.command("sh");
        command.args(["-c", "echo the reason >&2; exit 3"]);
        let Failure(why) = shell.capture(command).unwrap_err();
        assert!(why.starts_with("`sh -c "), "{why}");
        assert!(why.contains("exit status: 3") && why.contains("the reason"), "{why}");
    }

    #[test]
    fn an_absent_program_is_not_found_and_does_not_start() {
        let shell = shell();
        assert!(shell.find("no-such-program-anywhere").is_none());
        let Failure(why) = shell.capture(shell.command("no-such-program-anywhere")).unwrap_err();
        assert!(why.contains("did not start"), "{why}");
    }
}
