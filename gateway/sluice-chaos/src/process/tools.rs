//! Programs that tests run and the repository does not contain.
//!
//! The one rule: a missing program fails the test with the way to get it; no test is passed over.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Finds a program: where `cargo xtask` says (`SLUICE_TOOLS`), on `PATH`, or in `target/tools`.
pub fn tool(name: &str) -> PathBuf {
    find(name).unwrap_or_else(|| {
        let package = if name == "promtool" { "prometheus" } else { name };
        panic!("{name} is missing; install it: apt-get install {package}, or run cargo xtask tools")
    })
}

fn find(name: &str) -> Option<PathBuf> {
    let told = std::env::var_os("SLUICE_TOOLS").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools");
    let folders = told.into_iter().chain(std::env::split_paths(&path)).chain([fetched]);
    folders.map(|folder| folder.join(name)).find(|place| place.is_file())
}

/// Runs promtool with this input; its output, or what it complained of.
pub fn promtool(args: &[&str], input: &str) -> Result<String, String> {
    let mut command = Command::new(tool("promtool"));
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("promtool did not start: {error}"))?;
    let mut stdin = child.stdin.take().expect("a piped input");
    let input = input.to_owned();
    // Written from aside, since promtool may speak before it has read everything; one that ends
    // early closes its input, which its exit status explains better than a broken pipe.
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()).ok());
    let output = child.wait_with_output().map_err(|error| format!("promtool is lost: {error}"))?;
    writer.join().expect("a writer that does not panic");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    if output.status.success() { Ok(said) } else { Err(said) }
}

/// Checks the text of a metrics page (`promtool check metrics`), lint included.
pub fn promtool_check(metrics: &str) -> Result<(), String> {
    promtool(&["check", "metrics"], metrics).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_checked() {
        let good = "# HELP a_total A.\n# TYPE a_total counter\na_total 1\n";
        assert_eq!(promtool_check(good), Ok(()));
        let unnamed = "# HELP a A.\n# TYPE a counter\na 1\n";
        assert!(promtool_check(unnamed).unwrap_err().contains("_total"));
        assert!(promtool_check("a{ 1\n").is_err());
    }

    #[test]
    #[should_panic(expected = "cargo xtask tools")]
    fn a_missing_program_says_how_to_get_it() {
        tool("no-such-program");
    }
}
