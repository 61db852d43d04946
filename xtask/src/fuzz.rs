//! `cargo xtask fuzz`: builds the fuzz targets with the coverage that libFuzzer asks for, and runs them
//! one after the other. Works on a stable compiler and needs no cargo-fuzz, which sets the same flags
//! and an address sanitizer, of little use where nothing is unsafe.
//!
//! What is found stays in `fuzz/artifacts`; mend it, and keep the input in `fuzz/corpus`, which the
//! ordinary tests replay. New inputs are collected in `target/fuzz/corpus` and are not committed.

use std::path::{Path, PathBuf};

use crate::pgo::host;
use crate::shell::{Failure, Shell};
use crate::tools;

/// Edges and comparisons are counted where libFuzzer looks for them.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";
/// Seconds for each target, where none are given.
const SECONDS: u32 = 60;
/// Longest input, bytes.
const LONGEST: u32 = 4096;
/// An input that takes so many seconds is a finding.
const PATIENCE: u32 = 10;
/// Memory, MB, beyond which an input is a finding.
const MEMORY: u32 = 1024;

/// Runs the target of that name, or all of them, for so many seconds each.
pub(crate) fn run(shell: &Shell, words: &[&str]) -> Result<(), Failure> {
    let seconds = |word: &&&str| word.bytes().all(|byte| byte.is_ascii_digit());
    let time = words.iter().find(seconds).and_then(|word| word.parse().ok()).unwrap_or(SECONDS);
    let named: Vec<&str> = words.iter().filter(|word| !seconds(word)).copied().collect();
    let known = targets(shell)?;
    if let Some(unknown) = named.iter().find(|name| !known.iter().any(|target| target == *name)) {
        return Err(Failure(format!("no target {unknown}; there are {}", known.join(", "))));
    }
    tools::ensure_for_fuzz(shell)?;
    let folder = build(shell)?;
    let chosen = known.iter().filter(|name| named.is_empty() || named.contains(&name.as_str()));
    let mut failed = Vec::new();
    for name in chosen {
        // All targets have their time, so that one run tells of every finding.
        if let Err(Failure(why)) = fuzz(shell, &folder, name, time) {
            shell.warn(&format!("xtask fuzz: {why}"));
            failed.push(name.as_str());
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure(format!("look into fuzz/artifacts: {}", failed.join(", "))))
}

/// The names of the programs, which are those of their files.
fn targets(shell: &Shell) -> Result<Vec<String>, Failure> {
    let folder = shell.root().join("fuzz/fuzz_targets");
    let entries = std::fs::read_dir(&folder)
        .map_err(|error| Failure(format!("{}: {error}", folder.display())))?;
    let names = entries
        .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_string_lossy().into_owned()));
    let mut names: Vec<String> = names.collect();
    names.sort();
    Ok(names)
}

/// Named as a target, the host does not lend its flags to build scripts. The versions are those of the
/// gateway's own lock, to which cargo adds libFuzzer; so it is no file to keep in step.
fn build(shell: &Shell) -> Result<PathBuf, Failure> {
    let (own, theirs) = (shell.root().join("Cargo.lock"), shell.root().join("fuzz/Cargo.lock"));
    std::fs::copy(own, &theirs)
        .map_err(|error| Failure(format!("{}: {error}", theirs.display())))?;
    let host = host(shell)?;
    let mut cargo = shell.cargo(&["build", "--release", "--target", &host]);
    let folder = shell.root().join("target/fuzz/build");
    cargo.args(["--manifest-path", "fuzz/Cargo.toml", "--target-dir"]).arg(&folder);
    cargo.env("RUSTFLAGS", FLAGS);
    shell.run(cargo)?;
    Ok(folder.join(host).join("release"))
}

fn fuzz(shell: &Shell, programs: &Path, name: &str, seconds: u32) -> Result<(), Failure> {
    let found = shell.root().join("target/fuzz/corpus").join(name);
    let artifacts = shell.root().join("fuzz/artifacts").join(name);
    for folder in [&found, &artifacts] {
        std::fs::create_dir_all(folder)
            .map_err(|error| Failure(format!("{}: {error}", folder.display())))?;
    }
    let mut program = shell.command(programs.join(name));
    program
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={LONGEST}"))
        .arg(format!("-timeout={PATIENCE}"))
        .arg(format!("-rss_limit_mb={MEMORY}"))
        .args(["-print_final_stats=1", "-verbosity=0"])
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg(found)
        .arg(shell.root().join("fuzz/corpus").join(name));
    if name == "config" {
        program.arg(shell.root().join("gateway/sluice-proxy/tests/golden"));
    }
    let dictionary = shell.root().join("fuzz/dictionaries").join(format!("{name}.dict"));
    if dictionary.is_file() {
        program.arg(format!("-dict={}", dictionary.display()));
    }
    shell.run(program)
}
