//! `cargo xtask conformance`: clients, scanners and attackers that others wrote, against Sluice and its
//! peers before the same service. Second tier: it takes many minutes and fetches browsers.
//!
//! Holds what has to be there and hands over to the scripts in `xtask/conformance`, which know what is
//! asked and what is expected. What cannot be fetched is left out there, and said.

use std::path::PathBuf;

use crate::bench;
use crate::shell::{Failure, Shell};
use crate::tools;

/// Clients in Python, and what serves them.
const PYTHON: [&str; 9] = [
    "aiohttp==3.14.5",
    "grpcio==1.85.1",
    "h2==4.4.1",
    "hpack==4.2.0",
    "httpx[http2]==0.28.1",
    "requests==2.34.2",
    "sslyze==6.3.1",
    "websockets==17.4",
    "setuptools",
];
/// Clients in JavaScript.
const NODE: [&str; 2] = ["ws@8.23.0", "undici@7"];
const PAGE: &str = "docs/conformance.md";

pub(crate) fn run(shell: &Shell, options: &[&str]) -> Result<(), Failure> {
    let (mut only, mut program, mut write) = (None, None, false);
    let mut words = options.iter();
    while let Some(word) = words.next() {
        match *word {
            "--only" => only = words.next(),
            "--sluice" => program = words.next(),
            "--write-docs" => write = true,
            other => return Err(Failure(format!("conformance knows no `{other}`"))),
        }
    }
    tools::ensure_for_conformance(shell)?;
    let python = surroundings(shell)?;
    let program = match program {
        Some(program) => (*program).to_owned(),
        None => bench::build(shell)?,
    };
    let mut command = shell.command(python);
    command.arg("xtask/conformance/main.py").arg(format!("Sluice={program}"));
    for (name, peer) in [("nginx", "nginx"), ("HAProxy", "haproxy")] {
        if let Some(place) = shell.find(peer) {
            command.arg(format!("{name}={}", place.display()));
        }
    }
    if let Some(only) = only {
        command.args(["--only", only]);
    }
    if write {
        command.args(["--write", PAGE]);
    }
    shell.run(command)
}

/// Where its own Python and Node.js packages are, below the fetched tools.
fn folder(shell: &Shell) -> PathBuf {
    shell.tools().join("conformance")
}

/// A Python of its own with the clients' packages; gives back its place.
pub(crate) fn python(shell: &Shell) -> Result<PathBuf, Failure> {
    let folder = folder(shell);
    let python = folder.join("bin/python");
    if !python.exists() {
        let mut make = shell.command("python3");
        make.args(["-m", "venv"]).arg(&folder);
        shell.run(make)?;
    }
    let mut pip = shell.command(&python);
    pip.args(["-m", "pip", "install", "--quiet"]).args(PYTHON);
    shell.run(pip)?;
    Ok(python)
}

/// The same, and beside it the packages for Node.js.
fn surroundings(shell: &Shell) -> Result<PathBuf, Failure> {
    let python = python(shell)?;
    let mut npm = shell.command("npm");
    npm.args(["install", "--silent", "--no-fund", "--no-audit", "--prefix"])
        .arg(folder(shell))
        .args(NODE);
    if let Err(Failure(why)) = shell.run(npm) {
        shell.warn(&format!("xtask conformance: without the clients for Node.js: {why}"));
    }
    Ok(python)
}
