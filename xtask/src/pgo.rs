//! `cargo xtask pgo`: counts anew what release builds are laid out by. The gateway is built so that it
//! counts what it does and goes through the workloads of the benchmarks; the counts replace those in
//! `.cargo/profile`, which `.cargo/guided` hands to the compiler, and a release build is made with them.
//!
//! Takes twenty minutes. Functions that have changed since the counts were made are built as they would be
//! without, so it is worth while after the request path has changed, and not after each commit.

use std::path::{Path, PathBuf};

use crate::bench;
use crate::shell::{Failure, Shell};
use crate::tools;

/// Where it works, below the root.
const FOLDER: &str = "target/pgo";
/// What is committed of it: the counts, and the compiler whose names for functions they use.
const KEPT: &str = ".cargo/profile";

/// Counts, keeps the counts, and builds with them.
pub(crate) fn run(shell: &Shell) -> Result<(), Failure> {
    tools::ensure_for_bench(shell)?;
    let merger = merger(shell, &host(shell)?)?;
    let folder = shell.root().join(FOLDER);
    let counts = folder.join("counts");
    // Counts of another version of the code would mislead.
    let _ = std::fs::remove_dir_all(&counts);
    std::fs::create_dir_all(&counts).map_err(|e| Failure(format!("{}: {e}", counts.display())))?;
    shell.say("xtask pgo: 1 of 3, a build that counts");
    let counter = counting_build(shell, &folder, &counts)?;
    shell.say("xtask pgo: 2 of 3, the workloads");
    train(shell, &counter, &counts)?;
    keep(shell, &merger, &counts)?;
    shell.say("xtask pgo: 3 of 3, the build that uses the counts");
    let built = bench::build(shell)?;
    shell.say(&format!("xtask pgo: {built}"));
    Ok(())
}

/// In a folder of its own, and with the options of an ordinary release, so that functions have the same
/// names.
fn counting_build(shell: &Shell, folder: &Path, counts: &Path) -> Result<PathBuf, Failure> {
    let mut cargo = shell.cargo(&["build", "--locked", "--release", "--package", "sluice"]);
    cargo.arg("--target-dir").arg(folder).env("SLUICE_COUNTS", counts);
    shell.run(cargo)?;
    Ok(folder.join("release/sluice"))
}

/// Merges the counts into the file that is committed; what never ran is left out.
fn keep(shell: &Shell, merger: &Path, counts: &Path) -> Result<(), Failure> {
    let kept = shell.root().join(KEPT);
    std::fs::create_dir_all(&kept).map_err(|e| Failure(format!("{}: {e}", kept.display())))?;
    let mut merge = shell.command(merger);
    merge.args(["merge", "-sparse", "-o"]).arg(kept.join("counts")).arg(counts);
    shell.run(merge)?;
    let mut rustc = shell.command("rustc");
    rustc.arg("-V");
    let version = kept.join("rustc");
    let said = shell.capture(rustc)?;
    std::fs::write(&version, said).map_err(|e| Failure(format!("{}: {e}", version.display())))
}

/// Every workload once, for a second after a second of warming up.
fn train(shell: &Shell, program: &Path, counts: &Path) -> Result<(), Failure> {
    let build = format!("counting={}", program.display());
    let words = ["--quick", "--pass", "saturation", "--peers", "nginx", "--sluice", &build];
    let mut harness = bench::harness(shell, &words);
    harness.env("LLVM_PROFILE_FILE", counts.join("%p.profraw"));
    shell.run(harness)
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    const RELEASE: &str = "--crate-name a -C opt-level=3 -C linker-plugin-lto";

    /// What the compiler is started with, if it is of that version.
    fn started(version: &str, words: &str, counting: Option<&str>) -> String {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let compiler = folder.path().join("rustc");
        let script = format!("#!/bin/sh\n[ \"$1\" = -V ] && echo '{version}' || echo \"$*\"\n");
        std::fs::write(&compiler, script).unwrap();
        std::fs::set_permissions(&compiler, PermissionsExt::from_mode(0o755)).unwrap();
        let mut guided = Command::new(root.join(".cargo/guided"));
        guided.arg(compiler).args(words.split(' ')).env_remove("SLUICE_COUNTS");
        guided.envs(counting.map(|folder| ("SLUICE_COUNTS", folder)));
        String::from_utf8(guided.output().unwrap().stdout).unwrap()
    }

    fn kept() -> String {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        std::fs::read_to_string(root.join(KEPT).join("rustc")).unwrap().trim().to_owned()
    }

    #[test]
    fn releases_get_the_counts_of_their_own_compiler_and_nothing_else_does() {
        assert!(started(&kept(), RELEASE, None).contains("/.cargo/profile/counts"));
        let plain = |words: &str| format!("{words}\n");
        assert_eq!(started("rustc 1.0.0", RELEASE, None), plain(RELEASE));
        for words in ["--crate-name a", "-C opt-level=3 -C embed-bitcode=no", "-vV"] {
            assert_eq!(started(&kept(), words, None), plain(words));
        }
    }

    #[test]
    fn a_build_that_counts_does_not_use_counts() {
        let said = started(&kept(), RELEASE, Some("/tmp/counts"));
        assert_eq!(said, format!("{RELEASE} -Cprofile-generate=/tmp/counts\n"));
    }
}
