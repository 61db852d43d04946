//! Thirty-three mistakes operators make, with the place and the words each is answered with. They
//! are the ones other readers of YAML were compared by.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::build::tests::parsed;
use super::{Place, read};
use crate::base::problem::Problems;
use crate::base::units::Span;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its problems are looked at")]
struct File {
    #[serde(default)]
    routes: Vec<Route>,
    #[serde(default)]
    upstreams: BTreeMap<String, Upstream>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its problems are looked at")]
struct Route {
    id: String,
    #[serde(default)]
    host: Option<String>,
    #[serde(default)]
    path: Option<String>,
    upstream: String,
    #[serde(default)]
    timeout: Option<Span>,
    #[serde(default)]
    retries: Option<u8>,
    #[serde(default)]
    enabled: Option<bool>,
    #[serde(default)]
    mode: Option<Mode>,
    #[serde(default)]
    filters: Vec<Filter>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Enforce,
    Shadow,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "only its problems are looked at")]
enum Filter {
    RateLimit(RateLimit),
    Cors(Cors),
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "only its problems are looked at")]
struct RateLimit {
    rate: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cors {
    origins: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "only its problems are looked at")]
struct Upstream {
    endpoints: Vec<String>,
}

/// Each problem as `line:column message (path) | help`.
fn answer(text: &str) -> Vec<String> {
    let mut problems = Problems::new("f");
    let problems = match parsed(text) {
        Err(problems) => problems,
        Ok(tree) => {
            let file = read::<File>(&Place::root(&tree), &mut problems);
            assert!(file.is_none(), "nothing was found wrong with {text:?}");
            problems
        }
    };
    let answers = problems.sorted().into_iter().map(|problem| {
        let (line, column, path) = (problem.line, problem.column, &problem.path);
        let help = problem.help.as_deref().unwrap_or("-");
        format!("{line}:{column} {} ({path}) | {help}", problem.message)
    });
    answers.collect()
}

/// What stands above a case that begins with spaces: its own lines begin on line 5.
const ROUTE: &str = "routes:
  - id: a
    path: /a
    upstream: users
";

struct Case {
    mistake: &'static str,
    text: &'static str,
    says: &'static [&'static str],
}

const fn case(mistake: &'static str, text: &'static str, says: &'static [&'static str]) -> Case {
    Case { mistake, text, says }
}

const SYNTAX: &[Case] = &[
    case(
        "tab for indent",
        "routes:\n  - id: a\n    path: /a\n\tupstream: b\n",
        &["4:1 a tab is used for indentation", "indent with spaces"],
    ),
    case(
        "one space too many",
        "     timeout: 3s\n",
        &["5:6 this line is indented more deeply than the keys it belongs with"],
    ),
    case(
        "one space too few",
        "routes:\n  - id: a\n    path: /a\n   upstream: b\n",
        &["4:4 this line does not line up with any line above it"],
    ),
    case(
        "no space after a colon",
        "    timeout:3s\n",
        &["5:5 `timeout:3s` has no space after its colon", "write `timeout: 3s`"],
    ),
    case(
        "no space after a colon in brackets",
        "routes: [{id: a, upstream: b, timeout:3s}]\n",
        &["1:31 unknown field `timeout:3s`", "write a space after the colon: `timeout: 3s`"],
    ),
    case(
        "host without quotes",
        "    host: *.example.com\n",
        &[
            "5:11 `*.example.com` is read as an alias",
            "(routes[0].host)",
            "put it in quotes: \"*.example.com\"",
        ],
    ),
    case(
        "a lone star",
        "    host: *\n",
        &["5:11 a value that begins with `*` must be in quotes", "write \"*\""],
    ),
    case(
        "at sign",
        "    host: @home\n",
        &["5:11 a value cannot begin with `@`", "write \"@home\""],
    ),
    case("backtick", "    host: `x`\n", &["5:11 a value cannot begin with ```", "write \"`x`\""]),
    case(
        "character class",
        "    host: [a-z]+\n",
        &["5:11 a value that begins with `[` is read as a list", "in quotes"],
    ),
    case(
        "quote not closed",
        "    host: \"x\n    retries: 1\n",
        &["5:11 a quote is opened here and not closed"],
    ),
    case(
        "bracket not closed",
        "    filters: [cors\n    retries: 1\n",
        &["5:14 `[` is opened here and not closed", "close it with `]`"],
    ),
    case(
        "colon in a value",
        "    host: a: b\n",
        &["5:12 a second `: ` on this line looks like another key", "quotes"],
    ),
    case(
        "regex in double quotes",
        "    host: \"\\d+\"\n",
        &["5:12 `\\d` means nothing within double quotes", "single quotes"],
    ),
    case(
        "list on the line of its key",
        "    filters: - cors\n",
        &["5:14 a list cannot begin on the line of its key"],
    ),
    case("two documents", "routes: []\n---\nroutes: []\n", &["2:1 a second document begins here"]),
    case("empty file", "# nothing yet\n", &["0:0 the file is empty"]),
];

const MEANING: &[Case] = &[
    case(
        "unknown field",
        "    timout: 3s\n",
        &["5:5 unknown field `timout` (routes[0].timout)", "did you mean `timeout`?", "`retries`"],
    ),
    case(
        "wrong type",
        "    retries: lots\n",
        &["5:14 expected a whole number from 0 to 255, got `lots` (routes[0].retries)"],
    ),
    case("number too large", "    retries: 300\n", &["5:14", "0 to 255, got `300`"]),
    case(
        "field given twice",
        "    path: /b\n",
        &["5:5 `path` is given twice, first on line 3 (routes[0].path)"],
    ),
    case(
        "name given twice",
        "upstreams:\n  users:\n    endpoints: [a]\n  users:\n    endpoints: [b]\n",
        &["4:3 `users` is given twice, first on line 2 (upstreams.users)"],
    ),
    case(
        "misspelt word",
        "    mode: shadw\n",
        &[
            "5:11 unknown word `shadw` (routes[0].mode)",
            "did you mean `shadow`? Known here: `enforce`, `shadow`",
        ],
    ),
    case(
        "error inside a filter",
        "    filters:\n      - rate_limit: {rate: x}\n",
        &["6:28 expected a whole number", "(routes[0].filters[0].rate_limit.rate)"],
    ),
    case(
        "misspelt filter",
        "    filters:\n      - ratelimt: {rate: 1}\n",
        &["6:9 unknown word `ratelimt`", "did you mean `rate_limit`?"],
    ),
    case(
        "two filters in one item",
        "    filters:\n      - cors: {}\n        rate_limit: {rate: 1}\n",
        &["7:9 expected one word with its settings, got `cors` and `rate_limit`", "own list item"],
    ),
    case(
        "time without a unit",
        "    timeout: 5\n",
        &["5:14 `5` has no unit: write a unit, like 5s (routes[0].timeout)"],
    ),
    case(
        "off for false",
        "    enabled: off\n",
        &["5:14 expected `true` or `false`, got `off`", "write `false`"],
    ),
    case("missing field", "routes:\n  - id: a\n", &["2:5 missing field `upstream` (routes[0])"]),
    case(
        "list expected",
        "routes:\n  a: {upstream: b}\n",
        &["2:3 expected a list, got a mapping (routes)"],
    ),
    case(
        "variable not set",
        "    host: \"${NOPE}\"\n",
        &["5:12 the environment variable `NOPE` is not set (routes[0].host)", "`${NOPE:-value}`"],
    ),
    case(
        "variable within braces",
        "upstreams: {u: {endpoints: [${HOST}]}}\n",
        &["1:29 `${...}` within brackets must be in quotes"],
    ),
    case("list left empty", "routes:\n", &["1:1 expected a list, got nothing (routes)", "`[]`"]),
];

#[test]
fn thirty_three_mistakes_are_answered() {
    assert_eq!(SYNTAX.len() + MEANING.len(), 33);
    for Case { mistake, text, says } in SYNTAX.iter().chain(MEANING) {
        let above = if text.starts_with(' ') { ROUTE } else { "" };
        let answers = answer(&format!("{above}{text}"));
        assert_eq!(answers.len(), 1, "{mistake}: {answers:#?}");
        assert!(answers[0].starts_with(says[0]), "{mistake}: {answers:#?}");
        for words in *says {
            assert!(answers[0].contains(words), "{mistake}: {words:?} not in {answers:#?}");
        }
    }
}

#[test]
fn what_only_looks_wrong_is_read() {
    for text in [
        "\u{feff}routes:\r\n  - id: a\r\n    upstream: b\r\n",
        "x-defaults: &d\n  upstream: u\nroutes:\n  - {<<: *d, id: 1.10}\n",
        "routes:\n- id: a\n  upstream: b\n  host: \"*.example.com\"\n  filters: [cors, {rate_limit: {rate: 1}}]\n",
        "---\nroutes: [{id: true, upstream: \"${HOST}\", path: '/a/{id}'}]\n",
    ] {
        let tree = parsed(text).unwrap();
        let mut problems = Problems::new("f");
        assert!(read::<File>(&Place::root(&tree), &mut problems).is_some(), "{problems:?}");
    }
}
