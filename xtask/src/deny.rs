//! The dependency check: banned crates, licences and sources.
//!
//! Reads the same `deny.toml` as cargo-deny and judges the graph that `cargo metadata` describes;
//! the file's meaning is in `policy`, the graph in `graph`, licence expressions in `spdx`.
//! Advisories need a database from the network and are left to cargo-deny. A setting that this
//! check cannot honour is an error, never something passed over.

mod graph;
mod policy;
mod spdx;

use graph::{Graph, Reach};
use policy::Policy;

use crate::shell::{Failure, Shell};

/// Prints every finding; fails if there is one.
pub(crate) fn run(shell: &Shell) -> Result<(), Failure> {
    let place = shell.root().join("deny.toml");
    let text = std::fs::read_to_string(&place)
        .map_err(|error| Failure(format!("cannot read {}: {error}", place.display())))?;
    let policy = Policy::parse(&text).map_err(Failure)?;
    let mut metadata = shell.cargo(&["metadata", "--locked", "--format-version", "1"]);
    if policy.all_features {
        metadata.arg("--all-features");
    }
    let graph = Graph::parse(&shell.capture(metadata)?).map_err(Failure)?;
    let findings = judge(&policy, &graph);
    for finding in &findings {
        shell.warn(&format!("xtask deny: {finding}"));
    }
    if !findings.is_empty() {
        return Err(Failure(format!("the dependency check found {} problem(s)", findings.len())));
    }
    shell.say(&format!(
        "xtask deny: bans, licences and sources are fine ({} crates built, {} of them shipped)",
        graph.reachable(Reach::WithTests).len(),
        graph.reachable(Reach::Shipped).len()
    ));
    Ok(())
}

/// Everything in the graph that the policy does not allow, one sentence each.
///
/// Bans hold for whatever is built, tests included. Licences bind what is shipped or takes part in
/// building it. Sources hold for all that the lock file can make cargo download.
fn judge(policy: &Policy, graph: &Graph) -> Vec<String> {
    let mut findings = Vec::new();
    let built = graph.reachable(Reach::WithTests);
    for package in built.packages() {
        if let Some(reason) = policy.banned.get(&package.name) {
            findings.push(format!(
                "{package} is banned ({reason}); it comes by {}",
                built.path_to(package).join(" -> ")
            ));
        }
    }
    let shipped = graph.reachable(Reach::Shipped);
    for package in shipped.packages() {
        if let Err(why) = policy.licence_fits(&package.name, package.licence.as_deref()) {
            findings.push(format!(
                "{package}: {why}; it comes by {}",
                shipped.path_to(package).join(" -> ")
            ));
        }
    }
    for package in graph.packages() {
        let allowed = match &package.source {
            Some(source) => policy.source_fits(source),
            None => package.manifest.starts_with(graph.root()),
        };
        if !allowed {
            let from = package.source.as_deref().unwrap_or("a folder outside this workspace");
            findings.push(format!("{package} comes from {from}, which is not an allowed source"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"
        [bans]
        deny = [{ crate = "ring", reason = "one provider" }]
        [licenses]
        allow = ["MIT"]
        exceptions = [{ crate = "roots", allow = ["CDLA-Permissive-2.0"] }]
        [sources]
        allow-registry = ["https://example.test/index"]
    "#;

    fn findings(packages: &[(&str, &str)], edges: &[(&str, &str, &str)]) -> Vec<String> {
        let graph = graph::fixture::graph(packages, edges);
        judge(&Policy::parse(POLICY).unwrap(), &graph)
    }

    #[test]
    fn a_clean_graph_has_no_findings() {
        let found =
            findings(&[("app", "MIT"), ("roots", "CDLA-Permissive-2.0")], &[("app", "roots", "")]);
        assert_eq!(found, [""; 0]);
    }

    #[test]
    fn a_ban_holds_for_tests_too_and_names_the_way() {
        let found = findings(
            &[("app", "MIT"), ("rcgen", "MIT"), ("ring", "MIT")],
            &[("app", "rcgen", "dev"), ("rcgen", "ring", "")],
        );
        assert_eq!(
            found,
            ["ring 1.0.0 is banned (one provider); it comes by app -> rcgen -> ring"]
        );
    }

    #[test]
    fn a_licence_binds_what_is_shipped_and_what_builds_it() {
        let packages = [("app", "MIT"), ("cc", "GPL-3.0-only"), ("proptest", "GPL-3.0-only")];
        let found = findings(&packages, &[("app", "cc", "build"), ("app", "proptest", "dev")]);
        assert_eq!(
            found,
            ["cc 1.0.0: its licence `GPL-3.0-only` is not allowed; it comes by app -> cc"]
        );
    }

    #[test]
    fn a_foreign_source_is_found_even_where_nothing_uses_it() {
        let found = findings(&[("app", "MIT"), ("git+stray", "MIT")], &[]);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("git+https://example.test/stray"), "{found:?}");
    }

    #[test]
    fn a_folder_outside_the_workspace_is_foreign() {
        let found =
            findings(&[("app", "MIT"), ("path+stray", "MIT")], &[("app", "path+stray", "")]);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("a folder outside this workspace"), "{found:?}");
    }
}
