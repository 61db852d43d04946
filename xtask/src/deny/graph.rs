//! The crates of this workspace and who brings whom, from `cargo metadata`.
//!
//! Holds reading the graph and walking it; judging is left to the parent. `cargo metadata` draws an
//! edge to an optional dependency that only a weak feature (`ring?/std`) mentions, although cargo
//! never builds it (rust-lang/cargo#10801). Such an edge is dropped here, by the features that are
//! really on; any other doubt keeps the edge.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// How far a walk from the workspace's own crates goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// What is linked, and what takes part in building it.
    Shipped,
    /// The same, and what tests, examples and benches use.
    WithTests,
}

/// A crate as its manifest describes it.
#[derive(Debug)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    /// The licence expression, if the manifest has one.
    pub(super) licence: Option<String>,
    /// Where it comes from in cargo's spelling; none for a folder on this machine.
    pub(super) source: Option<String>,
    pub(super) manifest: PathBuf,
    id: String,
}

impl fmt::Display for Package {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.name, self.version)
    }
}

/// Crates by id, and the edges that cargo follows.
pub(super) struct Graph {
    root: PathBuf,
    members: Vec<String>,
    packages: BTreeMap<String, Package>,
    edges: BTreeMap<String, Vec<Edge>>,
}

struct Edge {
    to: String,
    /// Needed to link or build, and not by tests alone.
    ships: bool,
}

impl Graph {
    /// Reads the output of `cargo metadata --format-version 1`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let whole: Value =
            serde_json::from_str(text).map_err(|error| format!("cargo metadata: {error}"))?;
        let mut packages = BTreeMap::new();
        let mut manifests = BTreeMap::new();
        for item in array(&whole, "packages")? {
            let package = package_of(item)?;
            manifests.insert(package.id.clone(), item);
            packages.insert(package.id.clone(), package);
        }
        let mut edges = BTreeMap::new();
        for node in array(field(&whole, "resolve")?, "nodes")? {
            let id = string(node, "id")?;
            let manifest = manifests.get(id).ok_or_else(|| format!("cargo metadata lacks {id}"))?;
            edges.insert(id.to_owned(), edges_of(node, manifest, &packages)?);
        }
        let members = array(&whole, "workspace_members")?;
        Ok(Self {
            root: string(&whole, "workspace_root")?.into(),
            members: members.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            packages,
            edges,
        })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Every crate that the lock file names for this workspace, used or not.
    pub(super) fn packages(&self) -> impl Iterator<Item = &Package> {
        self.packages.values()
    }

    /// Walks from the members, nearest first, so that each crate is reached by a shortest way.
    pub(super) fn reachable(&self, reach: Reach) -> Reached<'_> {
        let mut parents: BTreeMap<&str, Option<&str>> = BTreeMap::new();
        let mut queue = VecDeque::new();
        for member in &self.members {
            parents.insert(member, None);
            queue.push_back(member.as_str());
        }
        while let Some(id) = queue.pop_front() {
            for edge in self.edges.get(id).into_iter().flatten() {
                let wanted = edge.ships || reach == Reach::WithTests;
                if wanted && !parents.contains_key(edge.to.as_str()) {
                    parents.insert(&edge.to, Some(id));
                    queue.push_back(&edge.to);
                }
            }
        }
        Reached { graph: self, parents }
    }
}

/// The crates that a walk came to, each with the one that brought it.
pub(super) struct Reached<'a> {
    graph: &'a Graph,
    parents: BTreeMap<&'a str, Option<&'a str>>,
}

impl<'a> Reached<'a> {
    pub(super) fn len(&self) -> usize {
        self.parents.len()
    }

    pub(super) fn packages(&self) -> impl Iterator<Item = &'a Package> {
        self.parents.keys().filter_map(|id| self.graph.packages.get(*id))
    }

    /// The names from one of the workspace's own crates down to this one.
    pub(super) fn path_to(&self, package: &Package) -> Vec<&'a str> {
        let mut names = Vec::new();
        let mut next = Some(package.id.as_str());
        while let Some((id, parent)) = next.and_then(|id| self.parents.get_key_value(id)) {
            names.extend(self.graph.packages.get(*id).map(|it| it.name.as_str()));
            next = *parent;
        }
        names.reverse();
        names
    }
}

fn package_of(item: &Value) -> Result<Package, String> {
    let optional = |key| item.get(key).and_then(Value::as_str).map(str::to_owned);
    Ok(Package {
        name: string(item, "name")?.to_owned(),
        version: string(item, "version")?.to_owned(),
        licence: optional("license"),
        source: optional("source"),
        manifest: string(item, "manifest_path")?.into(),
        id: string(item, "id")?.to_owned(),
    })
}

fn edges_of(
    node: &Value,
    manifest: &Value,
    packages: &BTreeMap<String, Package>,
) -> Result<Vec<Edge>, String> {
    let enabled = enabled_by_features(node, manifest)?;
    let declared = array(manifest, "dependencies")?;
    let mut edges = Vec::new();
    for dependency in array(node, "deps")? {
        let to = string(dependency, "pkg")?;
        let child = packages.get(to).ok_or_else(|| format!("cargo metadata lacks {to}"))?;
        let kinds = array(dependency, "dep_kinds")?;
        let real = |kind: &&Value| is_built(kind, &child.name, declared, &enabled);
        let mut built = kinds.iter().filter(real).peekable();
        if built.peek().is_some() {
            let ships = built.any(|kind| kind.get("kind").and_then(Value::as_str) != Some("dev"));
            edges.push(Edge { to: to.to_owned(), ships });
        }
    }
    Ok(edges)
}

/// The keys of optional dependencies that the features which are on really ask for.
fn enabled_by_features(node: &Value, manifest: &Value) -> Result<BTreeSet<String>, String> {
    let table = field(manifest, "features")?;
    let mut enabled = BTreeSet::new();
    for feature in array(node, "features")?.iter().filter_map(Value::as_str) {
        let asked = table.get(feature).and_then(Value::as_array).into_iter().flatten();
        for word in asked.filter_map(Value::as_str) {
            match (word.strip_prefix("dep:"), word.split_once('/')) {
                (Some(key), _) => _ = enabled.insert(key.to_owned()),
                (None, Some((key, _))) if !key.ends_with('?') => {
                    _ = enabled.insert(key.to_owned());
                }
                _ => {}
            }
        }
    }
    Ok(enabled)
}

/// Whether cargo builds an edge of this kind: some declaration behind it is not optional or is
/// switched on. An edge whose declaration cannot be told counts as built.
fn is_built(kind: &Value, child: &str, declared: &[Value], enabled: &BTreeSet<String>) -> bool {
    let same = |item: &&Value, key: &str| item.get(key) == kind.get(key);
    let mut behind = declared
        .iter()
        .filter(|item| item.get("name").and_then(Value::as_str) == Some(child))
        .filter(|item| same(item, "kind") && same(item, "target"))
        .peekable();
    behind.peek().is_none()
        || behind.any(|item| {
            let optional = item.get("optional").and_then(Value::as_bool).unwrap_or(false);
            let key = item.get("rename").and_then(Value::as_str).unwrap_or(child);
            !optional || enabled.contains(key)
        })
}

fn field<'a>(value: &'a Value, key: &str) -> Result<&'a Value, String> {
    value.get(key).ok_or_else(|| format!("cargo metadata lacks `{key}`"))
}

fn array<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>, String> {
    field(value, key)?.as_array().ok_or_else(|| format!("cargo metadata: `{key}` is no list"))
}

fn string<'a>(value: &'a Value, key: &str) -> Result<&'a str, String> {
    field(value, key)?.as_str().ok_or_else(|| format!("cargo metadata: `{key}` is no string"))
}

#[cfg(test)]
pub(super) mod fixture {
    //! Small graphs in the shape of `cargo metadata`, for the tests of this floor.

    use serde_json::json;

    use super::*;

    /// The first package is the workspace's only member. A name may carry `git+` or `path+` to
    /// come from there; an edge is (from, to, kind), where the kind is empty for a normal one.
    pub(crate) fn graph(packages: &[(&str, &str)], edges: &[(&str, &str, &str)]) -> Graph {
        let member = packages[0].0;
        let listed: Vec<Value> = packages
            .iter()
            .map(|(id, licence)| {
                let (source, manifest) = match id.split_once('+') {
                    Some(("git", name)) => {
                        (json!(format!("git+https://example.test/{name}")), "/cache/Cargo.toml")
                    }
                    Some(_) => (Value::Null, "/elsewhere/Cargo.toml"),
                    None if *id == member => (Value::Null, "/ws/app/Cargo.toml"),
                    None => (json!("registry+https://example.test/index"), "/cache/Cargo.toml"),
                };
                let name = id.rsplit('+').next();
                json!({"name": name, "version": "1.0.0", "id": id, "license": licence,
                    "source": source, "manifest_path": manifest, "dependencies": [],
                    "features": {}})
            })
            .collect();
        let nodes: Vec<Value> = packages
            .iter()
            .map(|(id, _)| {
                let deps: Vec<Value> = edges
                    .iter()
                    .filter(|(from, _, _)| from == id)
                    .map(|(_, to, kind)| {
                        let kind = if kind.is_empty() { Value::Null } else { json!(kind) };
                        json!({"pkg": to, "dep_kinds": [{"kind": kind, "target": null}]})
                    })
                    .collect();
                json!({"id": id, "features": [], "deps": deps})
            })
            .collect();
        let whole = json!({"packages": listed, "resolve": {"nodes": nodes},
            "workspace_members": [member], "workspace_root": "/ws"});
        Graph::parse(&whole.to_string()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names(graph: &Graph, reach: Reach) -> Vec<&str> {
        graph.reachable(reach).packages().map(|it| it.name.as_str()).collect()
    }

    #[test]
    fn tests_are_left_out_of_what_ships() {
        let graph = fixture::graph(
            &[("app", "MIT"), ("a", "MIT"), ("b", "MIT"), ("c", "MIT")],
            &[("app", "a", ""), ("app", "b", "dev"), ("b", "c", ""), ("a", "a", "")],
        );
        assert_eq!(names(&graph, Reach::Shipped), ["a", "app"]);
        assert_eq!(names(&graph, Reach::WithTests), ["a", "app", "b", "c"]);
    }

    #[test]
    fn a_path_names_the_shortest_way() {
        let graph = fixture::graph(
            &[("app", "MIT"), ("a", "MIT"), ("b", "MIT"), ("c", "MIT")],
            &[("app", "a", ""), ("a", "b", ""), ("b", "c", ""), ("a", "c", "build")],
        );
        let reached = graph.reachable(Reach::Shipped);
        let c = graph.packages().find(|it| it.name == "c").unwrap();
        assert_eq!(reached.path_to(c), ["app", "a", "c"]);
    }

    /// One crate with an optional dependency on `ring`, and the features that are on.
    fn with_features(features: &Value, on: &[&str]) -> Graph {
        let whole = json!({
            "packages": [
                {"name": "app", "version": "1.0.0", "id": "app", "manifest_path": "/ws/C.toml",
                 "features": features, "dependencies": [
                    {"name": "ring", "kind": null, "target": null, "optional": true},
                    {"name": "other", "kind": null, "target": "cfg(unix)", "optional": true},
                    {"name": "other", "kind": "dev", "target": null, "optional": false}]},
                {"name": "ring", "version": "1.0.0", "id": "ring", "manifest_path": "/c/C.toml",
                 "features": {}, "dependencies": []},
                {"name": "other", "version": "1.0.0", "id": "other", "manifest_path": "/c/C.toml",
                 "features": {}, "dependencies": []}],
            "resolve": {"nodes": [
                {"id": "app", "features": on, "deps": [
                    {"pkg": "ring", "dep_kinds": [{"kind": null, "target": null}]},
                    {"pkg": "other", "dep_kinds": [
                        {"kind": null, "target": "cfg(unix)"}, {"kind": "dev", "target": null}]}]},
                {"id": "ring", "features": [], "deps": []},
                {"id": "other", "features": [], "deps": []}]},
            "workspace_members": ["app"], "workspace_root": "/ws"});
        Graph::parse(&whole.to_string()).unwrap()
    }

    #[test]
    fn a_weak_feature_alone_brings_nothing() {
        let features = json!({"std": ["ring?/std"], "ring": ["dep:ring"], "fast": ["ring/asm"]});
        assert_eq!(names(&with_features(&features, &["std"]), Reach::Shipped), ["app"]);
        for on in [["std", "ring"], ["std", "fast"]] {
            assert_eq!(names(&with_features(&features, &on), Reach::Shipped), ["app", "ring"]);
        }
    }

    #[test]
    fn a_dependency_of_tests_is_not_shipped_by_an_optional_twin() {
        let graph = with_features(&json!({}), &[]);
        assert_eq!(names(&graph, Reach::Shipped), ["app"]);
        assert_eq!(names(&graph, Reach::WithTests), ["app", "other"]);
    }

    #[test]
    fn output_of_another_shape_is_refused() {
        for text in ["", "{}", "{\"packages\": 1}", "{\"packages\": [{}]}"] {
            assert!(Graph::parse(text).is_err(), "{text}");
        }
    }
}
