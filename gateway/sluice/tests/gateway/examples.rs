//! The examples do what they say, with this gateway.

use std::path::Path;
use std::process::Command;

/// From the first login to the forced upgrade; the script judges each step itself.
#[test]
fn the_mini_program_walks_to_the_end_of_its_example() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/mini-program/demo.mjs");
    let mut node = Command::new(sluice_chaos::process::tool("node"));
    node.arg(script).env("SLUICE", env!("CARGO_BIN_EXE_sluice"));
    let output = node.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}");
    let steps = said.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).count();
    assert!(steps == 9 && said.ends_with("all as it should be\n"), "{said}");
}
