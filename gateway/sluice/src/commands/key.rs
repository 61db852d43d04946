//! `sluice key`: a key for the filter `api_key`, or the hash of one.

use std::path::Path;
use std::process::ExitCode;

use super::{FAILED, complain, print};
use crate::cli;

/// Longest key that is read, bytes.
const MAX_KEY: u64 = 8 * 1024;

pub(super) fn run(args: &cli::Key) -> ExitCode {
    let pepper = match args.pepper_file.as_deref().map(pepper).transpose() {
        Ok(pepper) => pepper,
        Err(why) => return complain(FAILED, &why),
    };
    let pepper = pepper.as_deref();
    if args.hash {
        return match typed() {
            Ok(key) => print(&format!("{}\n", sluice_proxy::api_key_hash(&key, pepper))),
            Err(why) => complain(FAILED, &why),
        };
    }
    match sluice_proxy::api_key(pepper) {
        Some((key, hash)) => print(&format!("key:  {key}\nhash: {hash}\n")),
        None => complain(FAILED, "the system has no randomness"),
    }
}

fn pepper(path: &Path) -> Result<Vec<u8>, String> {
    let told = |error| format!("{}: error: cannot be read: {error}", path.display());
    let mut bytes = std::fs::read(path).map_err(told)?;
    while bytes.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
        bytes.pop();
    }
    Ok(bytes)
}

/// The key on standard input: a command line would show it to others.
fn typed() -> Result<String, String> {
    use std::io::Read as _;
    let mut text = String::new();
    let read = std::io::stdin().take(MAX_KEY).read_to_string(&mut text);
    read.map_err(|error| format!("the key cannot be read: {error}"))?;
    let key = text.trim_end_matches(['\n', '\r']);
    if key.is_empty() {
        Err("write the key to standard input".to_owned())
    } else {
        Ok(key.to_owned())
    }
}
