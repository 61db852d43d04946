//! Configs and what the gateway says about them, one file each: above the ruled line the config,
//! below it, as comments, the problems as `sluice check` prints them or the outline of the routes.
//!
//! The expected half is written by the test itself when `UPDATE_GOLDEN=1` is set; what belongs there
//! is then judged by a person in the diff. The one rule: an outcome depends on the file alone, so
//! every file it names is made here, in a folder of its own.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by panicking")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use sluice_proxy::{Checked, Environment, Origin, RouteLine};

/// Ends the config; what follows is the expected outcome.
const RULE: &str = "# ---8<---";

/// What `${GOLDEN_SECRET}` stands for: no outcome may show it.
const SECRET: &str = "never-to-be-shown-0123456789abcdefghijklmn";

/// A set of keys: the one of RFC 8037, appendix A.2.
const KEYS: &str = r#"{ "keys": [
  { "kty": "OKP", "crv": "Ed25519", "kid": "a",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }
] }
"#;
const FLAWED: &str = r#"{ "keys": [
  { "kty": "OKP", "crv": "Ed25519", "kid": "a", "alg": "ES256",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" },
  { "kty": "oct", "kid": "b", "alg": "HS256", "k": "c2hvcnQ" }
] }
"#;

#[test]
fn every_config_is_answered_as_its_golden_says() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = String::new();
    for path in goldens(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")) {
        let text = std::fs::read_to_string(&path).unwrap();
        let config = text.split_once(RULE).map_or(text.as_str(), |(config, _)| config);
        let whole = format!("{config}{RULE}\n{}", outcome(&path, config));
        if update {
            std::fs::write(&path, whole).unwrap();
        } else if text != whole {
            let _ = writeln!(wrong, "=== {}\n{}", path.display(), difference(&text, &whole));
        }
    }
    assert!(wrong.is_empty(), "if this is meant, run it with UPDATE_GOLDEN=1\n{wrong}");
}

#[test]
fn no_golden_shows_a_secret() {
    for path in goldens(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")) {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(SECRET), "{}", path.display());
    }
}

fn goldens(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(goldens(&path));
        } else if path.extension().is_some_and(|ending| ending == "yaml") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Checks `config` under the golden's file name, in a folder with the files that goldens may name.
fn outcome(golden: &Path, config: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    furnish(folder.path());
    let path = folder.path().join(golden.file_name().unwrap());
    std::fs::write(&path, config).unwrap();
    let environment =
        Environment([("GOLDEN_SECRET".to_owned(), SECRET.to_owned())].into_iter().collect());
    let told = match sluice_proxy::check(&Origin::File(path), &environment) {
        Ok(checked) => outline(&checked),
        Err(rejected) => rejected.to_string(),
    };
    let here = folder.path().display().to_string();
    let told = told.replace(&format!("{here}/"), "").replace(&here, "<folder of the config>");
    told.lines().fold(String::new(), |mut out, line| {
        let _ = writeln!(out, "{}", format!("# {line}").trim_end());
        out
    })
}

fn furnish(folder: &Path) {
    let (one, other) = (pair(), pair());
    for (name, text) in [
        ("cert.pem", one.cert.as_str()),
        ("cert.key", one.key.as_str()),
        ("other.key", other.key.as_str()),
        ("secret.key", "0123456789abcdefghijklmnopqrstuvwxyz\n"),
        ("short.key", "0123456789\n"),
        ("empty.txt", ""),
        ("contracts.yaml", "shop-wx: [{ client: a1b2c3d, accepts: [rooms@9f8e] }]\n"),
        ("keys.json", KEYS),
        ("flawed.json", FLAWED),
    ] {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

fn pair() -> sluice_proxy::Pair {
    sluice_proxy::self_signed(&["golden.example"]).unwrap()
}

/// The routes in order of precedence, then the warnings.
fn outline(checked: &Checked) -> String {
    let mut out = String::new();
    for route in checked.routes() {
        let _ = writeln!(out, "{}", line(&route));
    }
    out.push_str(&checked.warnings);
    out
}

fn line(route: &RouteLine) -> String {
    let or_any = |words: &[String]| {
        if words.is_empty() { "*".to_owned() } else { words.join(",") }
    };
    let mut way = route.filters.clone();
    way.extend(route.upstream.clone());
    format!(
        "{}: {} {} {} -> {}",
        route.id,
        or_any(&route.hosts),
        or_any(&route.methods),
        route.path,
        way.join(" -> ")
    )
}

/// The lines that only one of the two has.
fn difference(expected: &str, got: &str) -> String {
    let lack = |of: &str, other: &str, mark: char| {
        let other: Vec<&str> = other.lines().collect();
        let lines = of.lines().filter(|line| !other.contains(line));
        lines.map(|line| format!("{mark} {line}\n")).collect::<String>()
    };
    format!("{}{}", lack(expected, got, '-'), lack(got, expected, '+'))
}
