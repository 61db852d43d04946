//! Finds the config and reads the environment.

use std::path::{Path, PathBuf};

use sluice_proxy::{Environment, Origin};

use crate::cli;

const LOCAL: &str = "routes.yaml";
const SYSTEM: &str = "/etc/sluice/routes.yaml";
/// A copy of the table at the root, so that whoever edits that one need not build anew.
const EMBEDDED: &str = include_str!("routes.yaml");

/// The config to use: the one named, else the first that is there, else the one in the program.
pub(crate) fn origin(config: &cli::Config) -> Origin {
    if let Some(path) = &config.config {
        return Origin::File(path.clone());
    }
    [LOCAL, SYSTEM]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .map_or(Origin::Embedded(EMBEDDED), |path| Origin::File(PathBuf::from(path)))
}

/// The environment now; names and values that are not UTF-8 cannot be used in a config.
pub(crate) fn environment() -> Environment {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    Environment(std::env::vars_os().filter_map(text).collect())
}
