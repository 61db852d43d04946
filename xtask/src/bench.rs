//! `cargo xtask bench`: fetches and builds what a comparison of proxies needs, then hands over to the
//! harness in `benches/`, which knows all options but two: without `--sluice` the tree is built, and
//! what `--peers` leaves out is not.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use crate::shell::{Failure, Shell};
use crate::tools;

/// How the harness is built: quick to run and quick to link.
const HARNESS: [&str; 7] =
    ["--locked", "--profile", "soak", "--package", "sluice-benches", "--bin", "sluice-bench"];
/// Options that only tell something.
const TELLING: [&str; 2] = ["--list", "--help"];

pub(crate) fn run(shell: &Shell, options: &[&str]) -> Result<(), Failure> {
    let mut options: Vec<String> = options.iter().map(|&word| word.to_owned()).collect();
    if !options.iter().any(|word| TELLING.contains(&word.as_str())) {
        tools::ensure_for_bench(shell)?;
        if wants(&options, "pingora")
            && let Err(Failure(why)) = build_pingora(shell)
        {
            shell.warn(&format!("xtask bench: without Pingora: {why}"));
        }
        if !options.iter().any(|word| word == "--sluice") {
            let built = build(shell)?;
            options.extend(["--sluice".to_owned(), format!("sluice={built}")]);
        }
    }
    shell.run(harness(shell, &options))
}

/// The harness with its own options.
pub(crate) fn harness(shell: &Shell, options: &[impl AsRef<OsStr>]) -> Command {
    let mut harness = shell.cargo(&["run", "--quiet"]);
    harness.args(HARNESS).arg("--").args(options);
    harness
}

/// Whether a proxy takes part, as far as the options say.
fn wants(options: &[String], peer: &str) -> bool {
    let mut after = options.iter().skip_while(|word| *word != "--peers").skip(1);
    after.next().is_none_or(|peers| peers.split(',').any(|name| name == peer))
}

/// The minimal proxy on Pingora: a workspace of its own, left among the fetched programs.
fn build_pingora(shell: &Shell) -> Result<(), Failure> {
    let target = shell.root().join("target/pingora");
    let mut cargo = shell.cargo(&["build", "--release", "--locked", "--quiet"]);
    cargo.args(["--manifest-path", "benches/pingora/Cargo.toml", "--target-dir"]).arg(&target);
    // Our counts would reach the crates that both use.
    cargo.env("RUSTC_WRAPPER", "");
    shell.run(cargo)?;
    tools::link(shell, "pingora", &target.join("release/sluice-bench-pingora"))
}

/// The release build of the tree, as it would be shipped.
pub(crate) fn build(shell: &Shell) -> Result<String, Failure> {
    let words = ["build", "--locked", "--release", "--package", "sluice", "--message-format=json"];
    shell.say("xtask: building Sluice, which takes minutes when something has changed");
    let said = shell.capture(shell.cargo(&words))?;
    let built = said.lines().rev().find_map(executable);
    built.ok_or_else(|| Failure("cargo named no program it had built".into()))
}

/// The program named by one of cargo's messages, if it is Sluice.
fn executable(message: &str) -> Option<String> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let place = message.get("executable")?.as_str()?;
    (Path::new(place).file_name()? == "sluice").then(|| place.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_wanted_unless_some_are_named() {
        let options = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(wants(&options("--quick"), "pingora"));
        assert!(wants(&options("--peers nginx,pingora --quick"), "pingora"));
        assert!(!wants(&options("--quick --peers nginx"), "pingora"));
    }

    #[test]
    fn the_program_is_named_by_cargo() {
        let message = r#"{"reason":"compiler-artifact","executable":"/x/release/sluice"}"#;
        assert_eq!(executable(message).as_deref(), Some("/x/release/sluice"));
        for other in [r#"{"reason":"compiler-artifact","executable":null}"#, "nonsense"] {
            assert_eq!(executable(other), None);
        }
    }
}
