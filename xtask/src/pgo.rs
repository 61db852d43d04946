//! `cargo xtask pgo`: a release build for which the compiler knows what is done often. The gateway is
//! built so that it counts what it does, goes through the workloads of the benchmarks, and is built
//! again with the counts.
//!
//! Takes twenty minutes. The counts stay in `target/pgo`; nothing of it is needed for an ordinary
//! build.

use std::path::{Path, PathBuf};

use crate::bench;
use crate::shell::{Failure, Shell};
use crate::tools;

/// Where everything of it is, below the root.
const FOLDER: &str = "target/pgo";

/// Builds in three steps, and says where the program is.
pub(crate) fn run(shell: &Shell) -> Result<(), Failure> {
    tools::ensure_for_bench(shell)?;
    let host = host(shell)?;
    let merger = merger(shell, &host)?;
    let folder = shell.root().join(FOLDER);
    let counts = folder.join("counts");
    // Counts of another version of the code would mislead.
    let _ = std::fs::remove_dir_all(&counts);
    std::fs::create_dir_all(&counts).map_err(|e| Failure(format!("{}: {e}", counts.display())))?;
    shell.say("xtask pgo: 1 of 3, a build that counts");
    let counting = format!("-Cprofile-generate={}", counts.display());
    let counter = build(shell, &folder.join("counting"), &host, &counting)?;
    shell.say("xtask pgo: 2 of 3, the workloads");
    train(shell, &counter, &counts)?;
    let merged = folder.join("merged.profdata");
    let mut merge = shell.command(merger);
    merge.arg("merge").arg("-o").arg(&merged).arg(&counts);
    shell.run(merge)?;
    shell.say("xtask pgo: 3 of 3, the build that uses the counts");
    let using = format!("-Cprofile-use={}", merged.display());
    let built = build(shell, &folder.join("build"), &host, &using)?;
    shell.say(&format!("xtask pgo: {}", built.display()));
    Ok(())
}

/// Every workload once, for a second after a second of warming up.
fn train(shell: &Shell, program: &Path, counts: &Path) -> Result<(), Failure> {
    let build = format!("counting={}", program.display());
    let words = ["--quick", "--pass", "saturation", "--peers", "nginx", "--sluice", &build];
    let mut harness = bench::harness(shell, &words);
    harness.env("LLVM_PROFILE_FILE", counts.join("%p.profraw"));
    shell.run(harness)
}

/// Named as a target, the host does not lend its flags to build scripts.
fn build(shell: &Shell, folder: &Path, host: &str, flags: &str) -> Result<PathBuf, Failure> {
    let words = ["build", "--locked", "--release", "--package", "sluice", "--target", host];
    let mut cargo = shell.cargo(&words);
    cargo.arg("--target-dir").arg(folder).env("RUSTFLAGS", flags);
    shell.run(cargo)?;
    Ok(folder.join(host).join("release/sluice"))
}

/// The triple of this machine.
pub(crate) fn host(shell: &Shell) -> Result<String, Failure> {
    let mut rustc = shell.command("rustc");
    rustc.arg("-vV");
    let said = shell.capture(rustc)?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| Failure("rustc names no host".into()))
}

/// The merger of the compiler's own LLVM: another version may not read its counts.
fn merger(shell: &Shell, host: &str) -> Result<PathBuf, Failure> {
    let mut rustc = shell.command("rustc");
    rustc.args(["--print", "sysroot"]);
    let sysroot = shell.capture(rustc)?;
    let merger = Path::new(sysroot.trim()).join("lib/rustlib").join(host).join("bin/llvm-profdata");
    if !merger.is_file() {
        let mut rustup = shell.command("rustup");
        rustup.args(["component", "add", "llvm-tools"]);
        shell.run(rustup)?;
    }
    let missing = || Failure(format!("no {}; it is in the component llvm-tools", merger.display()));
    merger.is_file().then(|| merger.clone()).ok_or_else(missing)
}
