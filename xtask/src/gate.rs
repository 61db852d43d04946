//! The gate that a change passes: lint, deny, test, budget; and the long tests behind it.
//!
//! Holds the exact cargo command lines, which continuous integration and people share, and leaves
//! finding programs to `tools` and the dependency rules to `deny`. Every command is `--locked`: a
//! gate that edits `Cargo.lock` would test something other than what is committed.

use crate::budget::{self, Wanted};
use crate::shell::{Failure, Shell, timed};
use crate::{conformance, deny, tools};

/// Formatting, then clippy over every target with warnings denied.
pub(crate) fn lint(shell: &Shell) -> Result<(), Failure> {
    shell.run(shell.cargo(&["fmt", "--all", "--check"]))?;
    shell.run(shell.cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ]))
}

/// Every test of the workspace, or those that `narrowed` (arguments of the test runner) selects.
///
/// Uses cargo-nextest where it is installed, since it runs each test in a process of its own.
/// Documentation examples are run when nothing is narrowed.
pub(crate) fn test(shell: &Shell, narrowed: &[&str]) -> Result<(), Failure> {
    tools::ensure(shell)?;
    let (done, took) = timed(|| {
        let nextest = shell.capture(shell.cargo(&["nextest", "--version"])).is_ok();
        for args in test_commands(nextest, narrowed) {
            shell.run(shell.cargo(&args))?;
        }
        Ok(())
    });
    done?;
    shell.say(&format!("xtask test: passed in {:.1} s", took.as_secs_f64()));
    Ok(())
}

/// The tests that take minutes, named `long_*` and ignored in the first tier, and the budgets of whole
/// requests, which need the same optimised build.
pub(crate) fn soak(shell: &Shell) -> Result<(), Failure> {
    tools::ensure_for_soak(shell)?;
    // Its gRPC is the server of another make.
    conformance::python(shell)?;
    let (done, took) = timed(|| {
        shell.run(shell.cargo(&[
            "test",
            "--profile",
            "soak",
            "--workspace",
            "--locked",
            "--tests",
            "--",
            "--ignored",
            "long_",
        ]))?;
        budget::run(shell, Wanted::All)
    });
    done?;
    shell.say(&format!("xtask soak: passed in {:.1} s", took.as_secs_f64()));
    Ok(())
}

/// Lint, deny, test and the budgets of mechanisms, each of them even if an earlier one failed, so that one run tells all.
pub(crate) fn ci(shell: &Shell) -> Result<(), Failure> {
    let mut report = Vec::new();
    let mut failed = Vec::new();
    let mut step = |name: &'static str, work: &dyn Fn() -> Result<(), Failure>| {
        let (done, took) = timed(work);
        let word = if done.is_ok() { "passed" } else { "FAILED" };
        let line = format!("xtask ci: {name:<6} {word} in {:>6.1} s", took.as_secs_f64());
        shell.say(&line);
        report.push(line);
        if let Err(Failure(why)) = done {
            shell.warn(&format!("xtask: {why}"));
            failed.push(name);
        }
    };
    step("lint", &|| lint(shell));
    step("deny", &|| deny::run(shell));
    step("test", &|| test(shell, &[]));
    step("budget", &|| budget::run(shell, Wanted::Calls));
    shell.say("");
    for line in &report {
        shell.say(line);
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure(format!("{} failed", failed.join(", ")))) }
}

fn test_commands<'a>(nextest: bool, narrowed: &[&'a str]) -> Vec<Vec<&'a str>> {
    let runner: &[&str] = if nextest { &["nextest", "run"] } else { &["test"] };
    let whole: &[&str] = &["--locked", "--workspace", "--no-fail-fast"];
    let mut commands = vec![[runner, whole, narrowed].concat()];
    if nextest && narrowed.is_empty() {
        commands.push(vec!["test", "--locked", "--workspace", "--doc"]);
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_run_covers_documentation_examples_once() {
        assert_eq!(
            test_commands(true, &[]),
            [
                vec!["nextest", "run", "--locked", "--workspace", "--no-fail-fast"],
                vec!["test", "--locked", "--workspace", "--doc"],
            ]
        );
        assert_eq!(
            test_commands(false, &[]),
            [vec!["test", "--locked", "--workspace", "--no-fail-fast"]]
        );
    }

    #[test]
    fn a_narrowed_run_is_one_command() {
        assert_eq!(
            test_commands(true, &["breaker"]),
            [vec!["nextest", "run", "--locked", "--workspace", "--no-fail-fast", "breaker"]]
        );
        assert_eq!(
            test_commands(false, &["breaker"]),
            [vec!["test", "--locked", "--workspace", "--no-fail-fast", "breaker"]]
        );
    }
}
