//! What holds for every text, however odd: nothing panics, every position lies within the file, and
//! a substituted value is never shown.

use std::collections::BTreeMap;
use std::io;

use proptest::prelude::*;
use serde::Deserialize;

use super::{Lookup, Place, Source, parse, read};
use crate::base::problem::{Problems, render};
use crate::base::units::{ByteSize, Percent, Span};

const SECRET: &str = "Tr0ub4dor&3";

/// Every variable holds the secret.
struct Secretive;

impl Lookup for Secretive {
    fn env(&self, _: &str) -> Option<String> {
        Some(SECRET.to_owned())
    }

    fn file(&self, _: &str) -> io::Result<String> {
        Ok(SECRET.to_owned())
    }
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "only its problems are looked at")]
struct Settings {
    a: u8,
    b: Option<Span>,
    c: Vec<Choice>,
    d: BTreeMap<u16, Self>,
    e: std::net::IpAddr,
    f: (bool, f64),
    g: ByteSize,
    h: Percent,
    i: char,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only its problems are looked at")]
enum Choice {
    A,
    B(u8),
    C { a: Option<u8>, b: bool },
}

/// Texts made of what settings are made of, in any order.
fn texts() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "a",
        "b",
        "c",
        "d",
        "e",
        "f",
        "1",
        "true",
        "5s",
        "64KiB",
        "~",
        ": ",
        ":",
        "\n",
        "\n  ",
        "\n    ",
        "- ",
        "\n- ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        "'",
        "\"",
        "\\",
        "&x ",
        "*x",
        "<<: ",
        "${A}",
        "${",
        "$${",
        "${A:-b}",
        "${file:/x}",
        "|\n",
        "#",
        " #",
        "\t",
        "!t ",
        "---\n",
        "é",
        "名",
        "\r\n",
        "\u{feff}",
        "@",
        "`",
        "%",
        "? ",
        "x-",
        ".",
        "*",
    ];
    let piece = proptest::sample::select(PIECES);
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn check(text: String) -> Result<(), TestCaseError> {
    let source = Source { name: "t".to_owned(), text: text.into() };
    let mut problems = Problems::new("t");
    match parse(&source, &Secretive) {
        Err(refused) => {
            prop_assert!(refused.has_errors());
            problems = refused;
        }
        Ok(tree) => {
            let debug = format!("{tree:?}");
            prop_assert!(!debug.contains(SECRET));
            let root = Place::root(&tree);
            let value = read::<Settings>(&root, &mut problems);
            prop_assert_eq!(value.is_none(), problems.has_errors());
            for (_, at) in root.entries() {
                let value = read::<Vec<Choice>>(&at, &mut problems);
                prop_assert!(value.is_some() || problems.has_errors());
            }
        }
    }
    let lines: Vec<&str> = source.text.lines().collect();
    for problem in problems.sorted() {
        let line = usize::try_from(problem.line).unwrap();
        prop_assert!(line <= lines.len() + 1, "{problem}");
    }
    let shown = render(&problems, Some(&source));
    prop_assert!(!shown.contains(SECRET), "{shown}");
    prop_assert!(!serde_json::to_string(&problems).unwrap().contains(SECRET));
    Ok(())
}

proptest! {
    #[test]
    fn odd_settings_are_survived(text in texts()) {
        check(text)?;
    }

    #[test]
    fn odd_values_are_survived(
        key in "[a-i]",
        value in "[ -~]{0,12}(\\$\\{[A-Z]\\})?[ -~]{0,4}",
    ) {
        check(format!("{key}: {value}\n"))?;
        check(format!("{key}: {value:?}\n"))?;
    }

    #[test]
    fn any_text_is_survived(text in "\\PC{0,60}") {
        check(text)?;
    }
}
