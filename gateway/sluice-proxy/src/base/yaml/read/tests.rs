//! Reading typed settings: what each type takes, and that no problem hides another.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use super::super::build::tests::node;
use super::*;
use crate::base::units::{ByteSize, Percent, Secret, Span};

fn read_text<T: DeserializeOwned>(text: &str) -> Result<T, Vec<String>> {
    let tree = node(text);
    let mut problems = Problems::new("t");
    let value = read(&Place::root(&tree), &mut problems);
    assert_eq!(value.is_none(), problems.has_errors(), "{problems:?}");
    value.ok_or_else(|| problems.sorted().iter().map(ToString::to_string).collect())
}

fn refused<T: DeserializeOwned + std::fmt::Debug>(text: &str) -> Vec<String> {
    read_text::<T>(text).unwrap_err()
}

fn helps<T: DeserializeOwned>(text: &str) -> Vec<String> {
    let tree = node(text);
    let mut problems = Problems::new("t");
    assert!(read::<T>(&Place::root(&tree), &mut problems).is_none());
    problems.sorted().iter().map(|problem| problem.help.clone().unwrap_or_default()).collect()
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Route {
    id: String,
    #[serde(default)]
    weight: u8,
    #[serde(default)]
    enabled: Option<bool>,
    #[serde(default)]
    timeout: Option<Span>,
    #[serde(default)]
    filters: Vec<Filter>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Filter {
    RateLimit(RateLimit),
    Cors(Cors),
    Off,
    Pair(u8, String),
    Inline { name: String },
}

#[derive(Debug, PartialEq, Deserialize)]
struct RateLimit {
    rate: u32,
    key: String,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Cors {
    origins: Vec<String>,
    max_age: Option<u64>,
}

#[test]
fn scalars_are_read_by_type() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct All {
        a: String,
        b: String,
        c: u64,
        d: i64,
        e: f64,
        f: bool,
        g: char,
        h: (u8, String),
        i: Option<u8>,
        j: Option<u8>,
        k: usize,
    }
    let text = "a: 1.10\nb: true\nc: 0x1F\nd: -5\ne: 2\nf: false\ng: x\nh: [1, y]\ni: ~\nk: 7\n";
    let all: All = read_text(text).unwrap();
    assert_eq!((all.a.as_str(), all.b.as_str(), all.c, all.d), ("1.10", "true", 31, -5));
    assert_eq!((all.e, all.f, all.g, all.h), (2.0, false, 'x', (1, "y".to_owned())));
    assert_eq!((all.i, all.j, all.k), (None, None, 7));
}

#[test]
fn maps_newtypes_and_units_are_read() {
    #[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
    struct Name(String);
    #[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Side {
        Left,
        Right,
    }
    let map: BTreeMap<Name, u16> = read_text("b: 1\na: 2\n").unwrap();
    assert_eq!(map, BTreeMap::from([(Name("a".into()), 2), (Name("b".into()), 1)]));
    let by_status: HashMap<u16, String> = read_text("502: x\n\"503\": y\n").unwrap();
    assert_eq!(by_status.get(&503).map(String::as_str), Some("y"));
    let by_side: BTreeMap<Side, Vec<bool>> = read_text("left: [true, false]\n").unwrap();
    assert_eq!(by_side[&Side::Left], [true, false]);
    let (size, share): (ByteSize, Percent) = read_text("[64KiB, 50%]").unwrap();
    assert_eq!((size, share), (ByteSize(65_536), Percent(50)));
    assert_eq!(read_text::<()>("~"), Ok(()));
    assert_eq!(
        refused::<BTreeMap<Side, u8>>("lft: 1\nright: x\n"),
        [
            "t:1:1: error: unknown word `lft` (lft)",
            "t:2:8: error: expected a whole number from 0 to 255, got `x` (right)",
        ]
    );
    assert_eq!(
        refused::<HashMap<u16, u8>>("70000: 1\n"),
        ["t:1:1: error: expected a whole number from 0 to 65535, got `70000` (70000)"]
    );
}

#[test]
fn enums_are_words_with_settings() {
    let text = "- rate_limit: {rate: 5, key: ip}\n- cors\n- cors:\n- cors: {origins: [a]}\n\
                - off\n- off:\n- off: {}\n- pair: [1, x]\n- inline: {name: n}\n";
    let filters: Vec<Filter> = read_text(text).unwrap();
    assert_eq!(filters[0], Filter::RateLimit(RateLimit { rate: 5, key: "ip".into() }));
    assert_eq!(filters[1], Filter::Cors(Cors::default()));
    assert_eq!(filters[2], filters[1]);
    assert_eq!(filters[3], Filter::Cors(Cors { origins: vec!["a".into()], max_age: None }));
    assert_eq!(filters[4..7], [Filter::Off, Filter::Off, Filter::Off]);
    assert_eq!(filters[7], Filter::Pair(1, "x".into()));
    assert_eq!(filters[8], Filter::Inline { name: "n".into() });
}

#[test]
fn wrong_enums_are_told_at_the_word() {
    let text = "- rate_limt: {rate: x}\n- of\n- off: 5\n- rate_limit\n- [a]\n- {}\n- pair: [1]\n\
                - inline: {nam: x}\n- rate_limit:\n  rate: 5\n- cors: {}\n  off:\n";
    assert_eq!(
        refused::<Vec<Filter>>(text),
        [
            "t:1:3: error: unknown word `rate_limt` ([0].rate_limt)",
            "t:2:3: error: unknown word `of` ([1])",
            "t:3:8: error: `off` takes no settings ([2].off)",
            "t:4:3: error: missing field `rate` ([3])",
            "t:5:3: error: expected a word, or a word with its settings, got a list ([4])",
            "t:6:3: error: expected a word, or a word with its settings, got a mapping ([5])",
            "t:7:9: error: expected a list of 2, got 1 ([6].pair)",
            "t:8:12: error: unknown field `nam` ([7].inline.nam)",
            "t:10:3: error: expected one word with its settings, got `rate_limit` and `rate` ([8].rate)",
            "t:12:3: error: expected one word with its settings, got `cors` and `off` ([9].off)",
        ]
    );
    let helps = helps::<Vec<Filter>>(text);
    assert!(helps[0].starts_with("did you mean `rate_limit`? Known here: `rate_limit`, `cors`"));
    assert!(helps[8].contains("indent what belongs to `rate_limit`"));
    assert!(helps[9].contains("own list item: `- cors:`, `- off:`"));
}

#[test]
fn every_problem_of_every_item_is_told() {
    let text = "\
- id: a
  weight: lots
  enabled: yes
  timeout: 5
- weight: 300
- id: ok
- id: [x]
  timout: 3s
  filters:
    - rate_limit: {rate: no, key: [1], kee: 2}
    - cors: {origins: a, max_age: -1}
    - off
";
    assert_eq!(
        refused::<Vec<Route>>(text),
        [
            "t:2:11: error: expected a whole number from 0 to 255, got `lots` ([0].weight)",
            "t:3:12: error: expected `true` or `false`, got `yes` ([0].enabled)",
            "t:4:12: error: `5` has no unit: write a unit, like 5s ([0].timeout)",
            "t:5:3: error: missing field `id` ([1])",
            "t:5:11: error: expected a whole number from 0 to 255, got `300` ([1].weight)",
            "t:7:7: error: expected text, got a list ([3].id)",
            "t:8:3: error: unknown field `timout` ([3].timout)",
            "t:10:26: error: expected a whole number from 0 to 4294967295, got `no` ([3].filters[0].rate_limit.rate)",
            "t:10:35: error: expected text, got a list ([3].filters[0].rate_limit.key)",
            "t:10:40: error: unknown field `kee` ([3].filters[0].rate_limit.kee)",
            "t:11:23: error: expected a list, got `a` ([3].filters[1].cors.origins)",
            "t:11:35: error: expected a whole number from 0 up, got `-1` ([3].filters[1].cors.max_age)",
        ]
    );
}

#[test]
fn a_misspelt_field_is_not_missing_too() {
    assert_eq!(
        refused::<Vec<RateLimit>>("- raet: 5\n  key: x\n- kee: 5\n"),
        [
            "t:1:3: error: unknown field `raet` ([0].raet)",
            "t:3:3: error: unknown field `kee` ([1].kee)",
            "t:3:3: error: missing field `rate` ([1])",
        ]
    );
}

#[test]
fn an_error_that_follows_from_another_is_not_told() {
    #[derive(Debug, Deserialize)]
    #[serde(try_from = "Limits")]
    struct Checked(());
    #[derive(Deserialize)]
    #[serde(default)]
    struct Limits {
        min: u8,
        max: u8,
    }
    impl Default for Limits {
        fn default() -> Self {
            Self { min: 5, max: 0 }
        }
    }
    impl TryFrom<Limits> for Checked {
        type Error = String;
        fn try_from(limits: Limits) -> Result<Self, String> {
            let message = || format!("`min` is {} and more than `max`", limits.min);
            (limits.min <= limits.max).then_some(Self(())).ok_or_else(message)
        }
    }
    assert_eq!(
        refused::<Vec<Checked>>("- {max: x}\n- {min: 1, max: 0}\n- {min: 0}\n- {max: 4, mni: 1}\n"),
        [
            "t:1:9: error: expected a whole number from 0 to 255, got `x` ([0].max)",
            "t:2:3: error: `min` is 1 and more than `max` ([1])",
            "t:4:12: error: unknown field `mni` ([3].mni)",
        ]
    );
    assert!(read_text::<Checked>("{min: 0}").is_ok());
}

#[test]
fn what_was_good_is_not_doubted_later() {
    #[derive(Debug, Deserialize)]
    #[serde(try_from = "Vec<String>")]
    struct Some(());
    impl TryFrom<Vec<String>> for Some {
        type Error = &'static str;
        fn try_from(list: Vec<String>) -> Result<Self, &'static str> {
            if list.is_empty() { Err("at least one is needed") } else { Ok(Self(())) }
        }
    }
    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only its problems are looked at")]
    struct Both {
        names: Some,
        weight: u8,
        count: u8,
    }
    assert_eq!(
        refused::<Both>("names: [a]\nweight: x\ncount: y\n"),
        [
            "t:2:9: error: expected a whole number from 0 to 255, got `x` (weight)",
            "t:3:8: error: expected a whole number from 0 to 255, got `y` (count)",
        ]
    );
    assert_eq!(refused::<Both>("names: []\nweight: 1\ncount: y\n").len(), 2);
}

#[test]
fn substituted_values_are_typed_and_never_shown() {
    #[derive(Debug, Deserialize)]
    struct Server {
        port: u16,
        on: bool,
        password: Secret,
    }
    let server: Server = read_text("port: ${PORT}\non: \"${ON}\"\npassword: ${SECRET}\n").unwrap();
    assert_eq!((server.port, server.on, server.password.expose()), (8080, true, "hunter2: {x}"));
    assert_eq!(
        refused::<Server>("port: ${SECRET}\non: ${SECRET}\npassword: [x]\n"),
        [
            "t:1:7: error: expected a whole number from 0 to 65535, got *** (port)",
            "t:2:5: error: expected `true` or `false`, got *** (on)",
            "t:3:11: error: expected text, got a list (password)",
        ]
    );
    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only its problems are looked at")]
    struct Custom {
        span: Span,
        address: std::net::IpAddr,
        word: Filter,
    }
    let said =
        refused::<Custom>("span: ${SECRET}\naddress: ${SECRET}\nword: ${SECRET}\n").join(" ");
    assert!(!said.contains("hunter2"), "{said}");
    assert!(said.contains("got `***`"), "{said}");
}

#[test]
fn wrong_kinds_come_with_advice() {
    let advice = |text| helps::<Route>(text)[0].clone();
    assert!(advice("id: [a-z]\n").contains("quotes"));
    assert!(advice("id:\n").contains("`\"\"`"));
    assert!(advice("id: a\nfilters:\n").contains("`[]`"));
    assert!(advice("id: a\nfilters: cors\n").contains("`- `"));
    assert!(advice("id: a\nfilters:\n  - cors: max_age:5\n").contains("`max_age: 5`"));
    assert!(advice("{id: a, weight:5}\n").contains("`weight: 5`"));
    assert!(advice("id: a\nweight: \"5\"\n").contains("remove the quotes"));
    assert!(advice("id: a\nweight: 010\n").contains("`10`"));
    assert!(advice("id: a\nweight: 1_0\n").contains("separators"));
    assert!(advice("id: a\nweight: 5s\n").contains("without a unit"));
    assert!(advice("id: a\nenabled: off\n").contains("`false`"));
    assert!(advice("id: a\nenabled: 'true'\n").contains("remove the quotes"));
}

#[test]
fn untyped_reading_guesses_as_yaml_does() {
    let value: serde_json::Value =
        read_text("a: 1\nb: -1\nc: 1.5\nd: true\ne: ~\nf: '1'\ng: [x]\n1: y\n").unwrap();
    assert_eq!(
        value,
        serde_json::json!({"a": 1, "b": -1, "c": 1.5, "d": true, "e": null, "f": "1", "g": ["x"], "1": "y"})
    );
}

#[test]
fn a_missing_place_reads_as_nothing() {
    let tree = node("a:\n  b: 1\n");
    let root = Place::root(&tree);
    let mut problems = Problems::new("t");
    assert_eq!(read::<Option<u8>>(&root.field("a").field("x"), &mut problems), Some(None));
    assert_eq!(read::<Cors>(&root.field("cors"), &mut problems), Some(Cors::default()));
    assert!(read::<u8>(&root.field("a").field("c"), &mut problems).is_none());
    assert_eq!(
        problems.sorted()[0].to_string(),
        "t:2:3: error: expected a whole number from 0 to 255, got nothing (a.c)"
    );
}

#[test]
fn an_aliased_mistake_is_told_once() {
    let text = "x: &d [{rate: no, key: a}]\nb: *d\n";
    assert_eq!(refused::<BTreeMap<String, Vec<RateLimit>>>(text).len(), 1);
}

#[test]
fn a_flood_of_mistakes_ends_soon() {
    let text = "- {id: a, weight: x, enabled: no}\n".repeat(5000);
    let tree = node(&text);
    let mut problems = Problems::new("t");
    assert!(read::<Vec<Route>>(&Place::root(&tree), &mut problems).is_none());
    assert_eq!((problems.errors(), problems.more()), (10_000, 9_900));
}
