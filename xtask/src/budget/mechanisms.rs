//! The engine's mechanisms under callgrind: `gateway/sluice-engine/examples/hot.rs` repeats one of them, and what comes
//! before falls out as the difference between a long run and a short one.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::callgrind::Counts;
use super::load::TUNABLES;
use crate::shell::{Failure, Shell};

/// Calls of the short and of the long run.
const RUNS: [u64; 2] = [100, 1_100];

/// What one call of each costs.
pub(super) fn count(shell: &Shell) -> Result<Vec<(String, Counts)>, Failure> {
    let program = build(shell)?;
    let folder = shell.root().join("target/budget");
    std::fs::create_dir_all(&folder)
        .map_err(|error| Failure(format!("{}: {error}", folder.display())))?;
    let names = shell.capture(shell.command(&program))?;
    let [short, long] = RUNS;
    let mut all = Vec::new();
    for name in names.lines() {
        let less = run(shell, &program, name, short)?;
        let more = run(shell, &program, name, long)?;
        all.push((name.to_owned(), more.per_request(&less, long - short)));
    }
    Ok(all)
}

fn build(shell: &Shell) -> Result<PathBuf, Failure> {
    let words = ["build", "--locked", "--profile", "soak", "--package", "sluice-engine"];
    let mut cargo = shell.cargo(&words);
    cargo.args(["--example", "hot", "--message-format=json", "--quiet"]);
    let said = shell.capture(cargo)?;
    let program = said.lines().rev().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        message.get("executable")?.as_str().map(PathBuf::from)
    });
    program.ok_or_else(|| Failure("cargo named no program it had built".into()))
}

fn run(shell: &Shell, program: &Path, name: &str, calls: u64) -> Result<Counts, Failure> {
    let file = shell.root().join("target/budget").join(name);
    let mut command = shell.command("valgrind");
    command
        .args(["--tool=callgrind", "-q"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(program)
        .args([name, &calls.to_string()])
        .env("GLIBC_TUNABLES", TUNABLES);
    shell.capture(command)?;
    let text = std::fs::read_to_string(&file);
    text.map(|text| Counts::read(&text))
        .map_err(|error| Failure(format!("{}: {error}", file.display())))
}
