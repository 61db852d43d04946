//! Oracles: what has to be true of every input, as ordinary functions over bytes. The fuzz targets in
//! `fuzz/` call them with inputs that libFuzzer invents, and the test here with those that were kept.
//!
//! Built for tests and with the feature `fuzzing`, never into the program. The one rule: an oracle
//! compares with something that shares no code with what it checks, or states a property of the
//! answer; that nothing panics is the least of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "an oracle says what it expects by panicking"
)]

mod answer;
mod canon;
mod chunked;
mod config;
mod draw;
mod frames;
mod head;
mod jwks;
mod log;
mod policy;
mod router;
mod token;
mod words;
mod world;
mod xml;

#[cfg(test)]
pub(crate) use answer::readings;

/// An oracle: panics if the input shows that something is wrong.
pub type Check = fn(&[u8]);

/// Every oracle by the name of its fuzz target and of its corpus.
pub const TARGETS: [(&str, Check); 13] = [
    ("answer", answer::check),
    ("canon", canon::check),
    ("chunked", chunked::check),
    ("config", config::check),
    ("frames", frames::check),
    ("head", head::check),
    ("jwks", jwks::check),
    ("log", log::check),
    ("policy", policy::check),
    ("router", router::check),
    ("token", token::check),
    ("words", words::check),
    ("xml", xml::check),
];

/// Runs the oracle of that name.
///
/// # Panics
///
/// If there is none, or if it is not content.
pub fn check(name: &str, data: &[u8]) {
    let found = TARGETS.iter().find(|(target, _)| *target == name);
    let (_, check) = found.expect("a target of this name");
    check(data);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Every kept input of every target: what once broke something must not do so again.
    #[test]
    fn every_kept_input_passes() {
        for (name, check) in TARGETS {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
            let mut kept = 0;
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let data = std::fs::read(&path).unwrap();
                // Printed only if the oracle panics, and then it says which input it was.
                println!("{}", path.display());
                check(&data);
                kept += 1;
            }
            assert!(kept > 2, "{name} has {kept} inputs");
        }
    }

    #[test]
    fn every_target_has_its_program() {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/Cargo.toml");
        let manifest = std::fs::read_to_string(manifest).unwrap();
        for (name, _) in TARGETS {
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        }
    }
}
