//! What `deny.toml` says, as far as this check honours it.
//!
//! Holds reading the file and the three questions asked of it; walking the graph is left to the
//! parent. A key that is neither honoured nor harmless here is refused, since cargo-deny and this
//! check must not disagree in silence.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::spdx::Expression;

/// The rules for dependencies.
#[derive(Debug)]
pub(super) struct Policy {
    /// Judge the graph with every feature of the workspace's own crates switched on.
    pub(super) all_features: bool,
    /// Crate name to the reason of its ban.
    pub(super) banned: BTreeMap<String, String>,
    licences: Vec<String>,
    /// Crate name to licences allowed for this crate alone.
    exceptions: BTreeMap<String, Vec<String>>,
    registries: Vec<String>,
}

impl Policy {
    /// Reads the file's text, or says which key is wrong.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let whole: Table =
            text.parse().map_err(|error: toml::de::Error| format!("deny.toml: {error}"))?;
        only(&whole, "", &["graph", "output", "advisories", "bans", "licenses", "sources"])?;
        let graph = section(&whole, "graph")?;
        only(&graph, "graph.", &["all-features"])?;
        let bans = section(&whole, "bans")?;
        only(&bans, "bans.", &["deny", "multiple-versions", "wildcards", "allow-wildcard-paths"])?;
        let licenses = section(&whole, "licenses")?;
        only(
            &licenses,
            "licenses.",
            &["allow", "exceptions", "confidence-threshold", "unused-allowed-license"],
        )?;
        let sources = section(&whole, "sources")?;
        only(&sources, "sources.", &["allow-registry", "unknown-registry", "unknown-git"])?;
        for key in ["unknown-registry", "unknown-git"] {
            if sources.get(key).is_some_and(|value| value.as_str() != Some("deny")) {
                return Err(format!("deny.toml: sources.{key} can only be \"deny\" here"));
            }
        }
        // A warning there would be silence here.
        if bans.get("multiple-versions").is_some_and(|value| value.as_str() == Some("deny")) {
            return Err("deny.toml: bans.multiple-versions cannot be \"deny\" here".to_owned());
        }
        if bans.get("wildcards").is_some_and(|value| value.as_str() == Some("deny")) {
            return Err("deny.toml: bans.wildcards cannot be \"deny\" here".to_owned());
        }
        Ok(Self {
            all_features: graph.get("all-features").and_then(Value::as_bool).unwrap_or(false),
            banned: bans_of(&bans)?,
            licences: strings(licenses.get("allow"), "licenses.allow")?,
            exceptions: exceptions_of(&licenses)?,
            registries: strings(sources.get("allow-registry"), "sources.allow-registry")?,
        })
    }

    /// Whether a crate's licence expression is allowed, or why it is not.
    pub(super) fn licence_fits(&self, name: &str, licence: Option<&str>) -> Result<(), String> {
        let Some(text) = licence else {
            return Err("it names no licence".to_owned());
        };
        let expression = Expression::parse(text)
            .map_err(|why| format!("its licence `{text}` cannot be read: {why}"))?;
        let own = self.exceptions.get(name).map(Vec::as_slice).unwrap_or_default();
        if expression.is_met_by(&[&self.licences, own].concat()) {
            return Ok(());
        }
        Err(format!("its licence `{text}` is not allowed"))
    }

    /// Whether a source, as `cargo metadata` writes it, is one of the allowed registries.
    pub(super) fn source_fits(&self, source: &str) -> bool {
        let registry = source.strip_prefix("registry+").or_else(|| source.strip_prefix("sparse+"));
        registry.is_some_and(|url| self.registries.iter().any(|allowed| allowed == url))
    }
}

fn bans_of(bans: &Table) -> Result<BTreeMap<String, String>, String> {
    let mut banned = BTreeMap::new();
    for entry in list(bans.get("deny"), "bans.deny")? {
        let (name, reason) = match entry {
            Value::String(name) => (name.as_str(), "no reason given"),
            Value::Table(table) => {
                only(table, "bans.deny.", &["crate", "reason"])?;
                (
                    text(table, "crate", "bans.deny")?,
                    table.get("reason").and_then(Value::as_str).unwrap_or("no reason given"),
                )
            }
            other => {
                return Err(format!("deny.toml: `bans.deny` cannot hold a {}", other.type_str()));
            }
        };
        plain_name(name, "bans.deny")?;
        banned.insert(name.to_owned(), reason.to_owned());
    }
    Ok(banned)
}

fn exceptions_of(licenses: &Table) -> Result<BTreeMap<String, Vec<String>>, String> {
    let mut exceptions = BTreeMap::new();
    for entry in list(licenses.get("exceptions"), "licenses.exceptions")? {
        let Value::Table(table) = entry else {
            return Err(format!(
                "deny.toml: `licenses.exceptions` cannot hold a {}",
                entry.type_str()
            ));
        };
        only(table, "licenses.exceptions.", &["crate", "allow"])?;
        let name = text(table, "crate", "licenses.exceptions")?;
        plain_name(name, "licenses.exceptions")?;
        let allowed = strings(table.get("allow"), "licenses.exceptions.allow")?;
        exceptions.insert(name.to_owned(), allowed);
    }
    Ok(exceptions)
}

fn only(table: &Table, at: &str, known: &[&str]) -> Result<(), String> {
    match table.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(format!("deny.toml: `{at}{key}` is not honoured by this check")),
    }
}

fn section(whole: &Table, key: &str) -> Result<Table, String> {
    match whole.get(key) {
        None => Ok(Table::new()),
        Some(Value::Table(table)) => Ok(table.clone()),
        Some(_) => Err(format!("deny.toml: `{key}` must be a section")),
    }
}

fn list<'a>(value: Option<&'a Value>, at: &str) -> Result<&'a [Value], String> {
    match value {
        None => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(format!("deny.toml: `{at}` must be a list")),
    }
}

fn strings(value: Option<&Value>, at: &str) -> Result<Vec<String>, String> {
    let items = list(value, at)?.iter();
    items
        .map(|item| item.as_str().map(str::to_owned))
        .collect::<Option<_>>()
        .ok_or_else(|| format!("deny.toml: `{at}` must hold strings"))
}

fn text<'a>(table: &'a Table, key: &str, at: &str) -> Result<&'a str, String> {
    let value = table.get(key).and_then(Value::as_str);
    value.ok_or_else(|| format!("deny.toml: an entry of `{at}` lacks `{key}`"))
}

fn plain_name(name: &str, at: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.chars().all(plain) {
        return Ok(());
    }
    Err(format!("deny.toml: `{at}` takes a crate's bare name here, not `{name}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Policy::parse(text).unwrap_err()
    }

    #[test]
    fn the_shipped_file_is_understood() {
        let policy = Policy::parse(include_str!("../../../deny.toml")).unwrap();
        assert!(policy.banned.contains_key("ring") && policy.banned.contains_key("serde_yaml"));
        assert!(policy.licence_fits("x", Some("MIT OR Apache-2.0")).is_ok());
        assert!(policy.licence_fits("x", Some("GPL-3.0-only")).is_err());
        assert!(policy.source_fits("registry+https://github.com/rust-lang/crates.io-index"));
        assert!(policy.banned.values().all(|reason| reason != "no reason given"));
    }

    #[test]
    fn bans_are_read_with_and_without_a_reason() {
        let policy =
            Policy::parse("[bans]\ndeny = ['a', { crate = 'b', reason = 'old' }]").unwrap();
        assert_eq!(policy.banned.get("a").unwrap(), "no reason given");
        assert_eq!(policy.banned.get("b").unwrap(), "old");
    }

    #[test]
    fn an_exception_helps_its_own_crate_only() {
        let policy =
            Policy::parse("[licenses]\nexceptions = [{ crate = 'a', allow = ['ISC'] }]").unwrap();
        assert!(policy.licence_fits("a", Some("ISC")).is_ok());
        assert!(policy.licence_fits("b", Some("ISC")).is_err());
    }

    #[test]
    fn a_missing_or_broken_licence_is_not_allowed() {
        let policy = Policy::parse("[licenses]\nallow = ['MIT']").unwrap();
        assert_eq!(policy.licence_fits("a", None).unwrap_err(), "it names no licence");
        let why = policy.licence_fits("a", Some("MIT OR")).unwrap_err();
        assert_eq!(why, "its licence `MIT OR` cannot be read: a licence is missing at the end");
    }

    #[test]
    fn sources_are_compared_whole() {
        let policy = Policy::parse("[sources]\nallow-registry = ['https://a.test/i']").unwrap();
        assert!(policy.source_fits("registry+https://a.test/i"));
        assert!(policy.source_fits("sparse+https://a.test/i"));
        assert!(!policy.source_fits("registry+https://a.test/i/other"));
        assert!(!policy.source_fits("git+https://a.test/i"));
    }

    #[test]
    fn settings_that_cannot_be_honoured_are_refused() {
        assert!(refused("[bans]\nskip = []").contains("`bans.skip` is not honoured"));
        assert!(refused("[licences]").contains("`licences` is not honoured"));
        assert!(refused("[bans]\ndeny = ['a@1']").contains("bare name here, not `a@1`"));
        assert!(refused("[bans]\ndeny = [{ reason = 'x' }]").contains("lacks `crate`"));
        assert!(refused("[bans]\nmultiple-versions = 'deny'").contains("cannot be \"deny\""));
        assert!(refused("[sources]\nunknown-git = 'warn'").contains("can only be \"deny\""));
        assert!(refused("[licenses]\nallow = 'MIT'").contains("must be a list"));
        assert!(refused("[licenses]\nallow = [1]").contains("must hold strings"));
        assert!(refused("bans = 1").contains("must be a section"));
        assert!(refused("[bans").starts_with("deny.toml: "));
    }
}
