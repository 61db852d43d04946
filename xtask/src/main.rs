//! `cargo xtask`: one door to everything that is done to this repository rather than by it.
//!
//! Holds the verbs and their exit codes (0 fine, 1 failed, 2 usage) and leaves the work to the
//! modules. The environment is read here and nowhere else. A verb must work from a fresh clone:
//! whatever it needs it fetches, or it says what to install.

mod bench;
mod budget;
mod conformance;
mod deny;
mod fuzz;
mod gate;
mod pgo;
mod shell;
mod tools;

use std::process::ExitCode;

use budget::Wanted;
use shell::{Failure, Shell};

const USAGE: &str = "\
usage: cargo xtask <verb>

  tools [--check]   fetch the programs that tests need; --check only looks
  test [-- ARGS]    every test of the workspace; ARGS narrow the run
  lint              formatting, and clippy with warnings denied
  deny              banned crates, licences and sources, by deny.toml
  bench [OPTIONS]   Sluice beside other proxies; --help tells the options
  budget [--calls | --write]
                    instructions and allocations of a request, against benches/budgets.json;
                    --calls only those of the engine's mechanisms
  pgo               counts anew what release builds are laid out by
  conformance [--only WORD] [--sluice PROGRAM] [--write-docs]
                    clients and scanners that others wrote, against Sluice, nginx and HAProxy
  ci                lint, deny, test and the budgets of mechanisms, with the time of each
  fuzz [TARGET...] [SECONDS]
                    random inputs for all targets or those named, 60 s each
  soak              the second tier: long tests, named long_*, and all budgets";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let shell = Shell::new(
        std::env::var_os("CARGO"),
        std::env::var_os("PATH"),
        std::env::var_os("SLUICE_TOOLS"),
    );
    let done = match words.as_slice() {
        ["tools"] => tools::ensure(&shell),
        ["tools", "--check"] => tools::check(&shell),
        ["test"] => gate::test(&shell, &[]),
        ["test", "--", narrowed @ ..] => gate::test(&shell, narrowed),
        ["lint"] => gate::lint(&shell),
        ["deny"] => deny::run(&shell),
        ["bench", options @ ..] => bench::run(&shell, options),
        ["budget"] => budget::run(&shell, Wanted::All),
        ["budget", "--calls"] => budget::run(&shell, Wanted::Calls),
        ["budget", "--write"] => budget::run(&shell, Wanted::Write),
        ["pgo"] => pgo::run(&shell),
        ["conformance", options @ ..] => conformance::run(&shell, options),
        ["ci"] => gate::ci(&shell),
        ["fuzz", words @ ..] => fuzz::run(&shell, words),
        ["soak"] => gate::soak(&shell),
        ["help" | "--help" | "-h"] => {
            shell.say(USAGE);
            Ok(())
        }
        _ => {
            shell.warn(USAGE);
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(why)) => {
            shell.warn(&format!("xtask: {why}"));
            ExitCode::FAILURE
        }
    }
}
