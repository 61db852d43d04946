//! The threat model: which test shows which row. A test shows a row by naming it, at the beginning of its
//! own name (`h1_05_...`) or in its comment (`/// Shows HD-01, P-09.`). `docs/threat-model.md` holds the
//! table and is made by this test with `UPDATE_GOLDEN=1`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests say what they expect by panicking"
)]

mod batches;
mod client;
mod http2;
mod limits;
mod logins;
mod machine;
mod names;
mod operators;
mod platform;
mod secrets;
mod services;
mod signatures;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Its id, what happens, and what the gateway does about it.
type Row = (&'static str, &'static str, &'static str);

const PARTS: [(&str, &[Row]); 13] = [
    ("Clients over HTTP/1", client::ROWS),
    ("Clients over HTTP/2", http2::ROWS),
    ("TLS, header fields, paths, tunnels", names::ROWS),
    ("Services, and overload", services::ROWS),
    ("Tokens", tokens::ROWS),
    ("Operators", operators::ROWS),
    ("Limits, and Redis", limits::ROWS),
    ("Logging in", logins::ROWS),
    ("What platforms say", platform::ROWS),
    ("Secrets and logs", secrets::ROWS),
    ("Signatures and keys", signatures::ROWS),
    ("Batches", batches::ROWS),
    ("The machine", machine::ROWS),
];
const BEGIN: &str = "<!-- begin: made from the tests -->\n";
const END: &str = "<!-- end -->\n";

/// Tests by the row they show.
type Shown = BTreeMap<String, BTreeSet<String>>;

#[test]
fn the_threat_model_is_what_the_tests_show() {
    let mut shown = Shown::new();
    for file in sources(&folder().join("..")) {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        read(&text, &name, &mut shown);
    }
    let known: BTreeSet<&str> = rows().map(|row| row.0).collect();
    assert_eq!(known.len(), rows().count(), "a row is there twice");
    for id in shown.keys() {
        assert!(known.contains(id.as_str()), "no row {id}, which {:?} shows", shown[id]);
    }
    let page = folder().join("../../../../docs/threat-model.md");
    let old = std::fs::read_to_string(&page).unwrap();
    let (before, rest) = old.split_once(BEGIN).expect("the mark where the table begins");
    let (_, after) = rest.split_once(END).expect("the mark where the table ends");
    let new = [before, BEGIN, &table(&shown), END, after].concat();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&page, new).unwrap();
    } else {
        assert!(old == new, "docs/threat-model.md is old: UPDATE_GOLDEN=1 cargo test -p sluice");
    }
}

#[test]
fn ids_are_read_from_names_and_comments() {
    let text = "    /// Shows HD-01, P-09.\n#[tokio::test]\nasync fn hosts() {\n}\n\
        /// Shows nothing special.\n#[test]\nfn h1_05_two() {}\n#[test]\nfn other() {}\n";
    let mut shown = Shown::new();
    read(text, "file", &mut shown);
    let found: Vec<_> = shown.iter().map(|(id, tests)| (id.as_str(), tests.len())).collect();
    assert_eq!(found, [("H1-05", 1), ("HD-01", 1), ("P-09", 1)]);
    assert!(shown["P-09"].contains("file::hosts"));
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/threats")
}

fn rows() -> impl Iterator<Item = &'static Row> {
    PARTS.iter().flat_map(|(_, rows)| rows.iter())
}

/// The files of all tests over sockets.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("threats") {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

/// Notes which rows the tests of a file show.
fn read(text: &str, file: &str, shown: &mut Shown) {
    let mut named: Vec<String> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(ids) = line.strip_prefix("/// Shows ") {
            named.extend(ids.split([',', ' ']).map(|id| id.trim_end_matches('.')).filter_map(id));
        } else if let Some((_, rest)) = line.split_once("fn ") {
            let name = rest.split('(').next().unwrap_or_default();
            named.extend(id(&name.splitn(3, '_').take(2).collect::<Vec<_>>().join("-")));
            for id in named.drain(..) {
                shown.entry(id).or_default().insert(format!("{file}::{name}"));
            }
        }
    }
}

/// `h1-05` or `H1-05` as an id: capital letters, perhaps a digit, and a number of two digits.
fn id(word: &str) -> Option<String> {
    let (family, number) = word.split_once('-')?;
    let known = [
        "A", "H1", "H2", "T", "HD", "P", "W", "U", "V", "S", "E", "G", "F", "Z", "J", "K", "L",
        "O", "X",
    ];
    let family = family.to_ascii_uppercase();
    let number = Some(number).filter(|n| n.len() == 2 && n.bytes().all(|b| b.is_ascii_digit()))?;
    known.contains(&family.as_str()).then(|| format!("{family}-{number}"))
}

fn table(shown: &Shown) -> String {
    let mut text = String::new();
    for (title, rows) in PARTS {
        let done = rows.iter().filter(|row| shown.contains_key(row.0)).count();
        text += &format!("\n### {title}: {done} of {} shown\n\n", rows.len());
        text += "| row | what happens | what the gateway does | shown by |\n|---|---|---|---|\n";
        for (id, threat, answer) in rows {
            let tests = shown.get(*id).map(|tests| {
                tests.iter().map(|test| format!("`{test}`")).collect::<Vec<_>>().join(", ")
            });
            let tests = tests.unwrap_or_else(|| "no test yet".to_owned());
            text += &format!("| {id} | {threat} | {answer} | {tests} |\n");
        }
    }
    text + "\n"
}
