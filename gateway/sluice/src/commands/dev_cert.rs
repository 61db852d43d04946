//! `sluice dev-cert`: a self-signed certificate in two files.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use super::{FAILED, complain, print};
use crate::cli;

pub(super) fn run(args: &cli::DevCert) -> ExitCode {
    let names: Vec<&str> = args.names.iter().map(String::as_str).collect();
    let pair = match sluice_proxy::self_signed(&names) {
        Ok(pair) => pair,
        Err(error) => return complain(FAILED, &format!("error: {error}")),
    };
    // Both or none: a key beside somebody else's certificate would serve nobody.
    if let Some(taken) = [&args.key, &args.cert].into_iter().find(|path| path.exists()) {
        return complain(FAILED, &format!("error: {}: there is one already", taken.display()));
    }
    for (path, text, mode) in [(&args.key, &pair.key, 0o600), (&args.cert, &pair.cert, 0o644)] {
        if let Err(error) = write(path, text, mode) {
            return complain(FAILED, &format!("error: {}: {error}", path.display()));
        }
    }
    print(&format!(
        "wrote {} and {} for {}\n",
        args.cert.display(),
        args.key.display(),
        names.join(", ")
    ))
}

/// Never overwrites: a key that is in use must not vanish by a slip.
fn write(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    options.open(path)?.write_all(text.as_bytes())
}
