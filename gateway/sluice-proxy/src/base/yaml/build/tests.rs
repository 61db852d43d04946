//! What files become, and what is refused before anybody reads settings from them.

use super::super::Kind;
use super::super::substitute::tests::Env;
use super::*;

pub(in crate::base) fn parsed(text: &str) -> Result<Node, Problems> {
    parse(&Source { name: "t.yaml".to_owned(), text: text.to_owned().into() }, &Env)
}

/// The tree of a text that is in order.
pub(in crate::base) fn node(text: &str) -> Node {
    parsed(text).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn shape(text: &str) -> String {
    format!("{:?}", node(text))
}

fn refused(text: &str) -> Vec<String> {
    parsed(text).unwrap_err().sorted().iter().map(ToString::to_string).collect()
}

#[test]
fn text_stays_as_it_was_written() {
    assert_eq!(
        shape("a: 1.10\nb: 'x y'\nc: |\n  l\nd: ~\ne:\nf: \"\\u00e9\"\n"),
        r#"{"a": "1.10", "b": "x y", "c": "l\n", "d": ~, "e": ~, "f": "é"}"#
    );
}

#[test]
fn every_value_and_key_has_a_position() {
    let tree = node("\u{feff}a:\r\n  - b: 1\r\n    ключ: {c: 2}\r\n");
    let item = &tree.get("a").unwrap().items()[0];
    assert_eq!((item.line(), item.column()), (2, 5));
    assert_eq!(item.key_place("ключ"), Some((3, 5)));
    let c = item.get("ключ").unwrap().get("c").unwrap();
    assert_eq!((c.line(), c.column()), (3, 15));
    assert_eq!(tree.key_place("a"), Some((1, 1)));
}

#[test]
fn nothing_after_a_key_is_at_the_key() {
    let tree = node("a:\n  b:\n");
    let b = tree.get("a").unwrap().get("b").unwrap();
    assert_eq!((b.kind(), b.line(), b.column()), (Kind::Null, 2, 3));
}

#[test]
fn repeated_keys_are_refused_with_both_lines() {
    assert_eq!(
        refused("u:\n  users: 1\n  x: 2\n  users: 3\n  \"x\": 4\n"),
        [
            "t.yaml:4:3: error: `users` is given twice, first on line 2 (u.users)",
            "t.yaml:5:3: error: `x` is given twice, first on line 3 (u.x)",
        ]
    );
}

#[test]
fn merge_keys_fill_in_what_is_not_written() {
    let text = "x-a: &a {t: 1, r: 1}\nx-b: &b {t: 2, s: 2}\nroute:\n  <<: [*a, *b]\n  r: 9\n";
    assert_eq!(shape(text), r#"{"route": {"r": "9", "t": "1", "s": "2"}}"#);
    let tree = node(text);
    let route = tree.get("route").unwrap();
    assert_eq!(route.key_place("s"), Some((2, 16)));
    assert_eq!(shape("'<<': 1\n"), r#"{"<<": "1"}"#);
    assert_eq!(refused("a:\n  <<: 5\n"), ["t.yaml:2:7: error: `<<` takes in mappings only (a)"]);
}

#[test]
fn an_alias_stands_where_it_is_used() {
    let tree = node("x-t: &t 5s\nx-m: &m {k: v}\na: *t\nb: *m\n*t : c\n");
    assert_eq!((tree.get("a").unwrap().line(), tree.get("a").unwrap().column()), (3, 4));
    assert_eq!(tree.get("b").unwrap().get("k").unwrap().line(), 2);
    assert_eq!(tree.get("5s").unwrap().text(), Some("c"));
}

#[test]
fn free_space_is_only_at_the_top() {
    assert_eq!(shape("x-a: 1\nb: {x-c: 2}\n"), r#"{"b": {"x-c": "2"}}"#);
}

#[test]
fn substitution_is_marked_and_hidden() {
    let tree = node("a: ${SECRET}\nb: '${SECRET}'\nc: $${X}\nd: x-${PORT}\n");
    assert_eq!(tree.get("a").unwrap().text(), Some("hunter2: {x}"));
    assert_eq!(tree.get("c").unwrap().text(), Some("${X}"));
    assert_eq!(format!("{tree:?}"), r#"{"a": ***, "b": ***, "c": "${X}", "d": ***}"#);
}

#[test]
fn what_cannot_be_replaced_is_pointed_at() {
    assert_eq!(
        refused("a:\n  - url: http://${NOPE}/\n  - '${NO}'\n${K}: 1\n"),
        [
            "t.yaml:2:17: error: the environment variable `NOPE` is not set (a[0].url)",
            "t.yaml:3:6: error: the environment variable `NO` is not set (a[1])",
            "t.yaml:4:1: error: `${...}` is not replaced in a key",
        ]
    );
}

#[test]
fn files_that_are_no_settings() {
    assert_eq!(refused(""), ["t.yaml: error: the file is empty"]);
    assert_eq!(refused("# only\n"), ["t.yaml: error: the file is empty"]);
    assert_eq!(refused("a: 1\n---\nb: 2\n"), ["t.yaml:2:1: error: a second document begins here"]);
    assert_eq!(
        refused("a: 1\nb: \0\n"),
        ["t.yaml:2:4: error: the file holds a NUL byte: it is not text"]
    );
    assert_eq!(refused("a: !x 1\n"), ["t.yaml:1:4: error: the tag `!x` is not known here (a)"]);
    assert_eq!(refused("{{a}}: 1\n"), ["t.yaml:1:2: error: a key must be a plain word"]);
    assert_eq!(node("--- # start\na: !!str 5\n...\n").get("a").unwrap().text(), Some("5"));
}

#[test]
fn bombs_are_defused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let alias = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb += &format!("a{level}: &a{level} [{alias}]\n");
    }
    assert!(refused(&bomb)[0].contains("more than 2000000 values"));
    let text = format!("t: &t {}\nl:\n{}", "x".repeat(50_000), "  - *t\n".repeat(20_000));
    assert!(refused(&text)[0].contains("64 MiB of text"));
    assert!(refused(&"[".repeat(20_000))[0].contains("too deep"));
    assert!(refused(&"- ".repeat(20_000))[0].contains("more than 64 deep"));
    let chain: String = (1..70).map(|n| format!("a{n}: &a{n} [*a{}]\n", n - 1)).collect();
    assert!(refused(&format!("a0: &a0 x\n{chain}"))[0].contains("more than 64 deep"));
    assert_eq!(refused("a: &x [*x]\n"), ["t.yaml:1:8: error: an anchor cannot hold itself (a[0])"]);
}
