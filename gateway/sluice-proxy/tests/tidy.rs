//! Looks at the tree as it lies on disk, for what neither the compiler nor clippy can see: the
//! direction of the floors, the shape of files, and whether the documents say what the code says.
//!
//! What is generated (`UPDATE_GOLDEN=1` writes it anew) is compared byte for byte. The one rule: an
//! exception is written down here, with its reason, or there is none.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test says what it expects by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sluice_proxy::{Environment, Origin};

/// Floors of the library, the lowest first.
const FLOORS: [&str; 6] = ["base", "lasting", "parts", "snapshot", "path", "doors"];
/// Lines of code and comments a file may have, its tests not counted.
const MAX_LINES: usize = 500;
/// Crates that would bring IO, a clock, a config format or logging into the engine.
const NOT_IN_ENGINE: [&str; 6] = ["tokio", "hyper", "serde", "tracing", "prometheus", "redis"];

// === Code ===

#[test]
fn floors_use_only_what_is_below_them() {
    let mut wrong = Vec::new();
    for (height, floor) in FLOORS.iter().enumerate() {
        let above: Vec<String> =
            FLOORS.iter().skip(height + 1).map(|floor| format!("crate::{floor}")).collect();
        for file in below(&crate_file(&format!("src/{floor}")), "rs")
            .into_iter()
            .chain([crate_file(&format!("src/{floor}.rs"))])
        {
            for (number, line) in read(&file).lines().enumerate() {
                if above.iter().any(|higher| line.contains(higher)) || line.contains("crate::{") {
                    wrong.push(format!("{}:{}: {line}", file.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_holds() {
    let silent: Vec<PathBuf> =
        code().into_iter().filter(|file| !read(file).starts_with("//! ")).collect();
    assert!(silent.is_empty(), "begin with a `//!` paragraph: {silent:#?}");
}

#[test]
fn files_stay_short() {
    let of_tests = |file: &Path| {
        file.components().any(|part| part.as_os_str() == "tests") || file.ends_with("tests.rs")
    };
    for file in code().into_iter().filter(|file| !of_tests(file)) {
        let text = read(&file);
        let lines = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
        assert!(lines <= MAX_LINES, "{}: {lines} lines, at most {MAX_LINES}", file.display());
    }
}

#[test]
fn modules_are_named_after_their_files() {
    let nameless: Vec<PathBuf> =
        code().into_iter().filter(|file| file.ends_with("mod.rs")).collect();
    assert!(nameless.is_empty(), "write `name.rs` beside a folder `name`: {nameless:#?}");
}

#[test]
fn the_engine_knows_neither_io_nor_clock() {
    let manifest = read(&root().join("gateway/sluice-engine/Cargo.toml"));
    for line in manifest.lines() {
        let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
        assert!(!NOT_IN_ENGINE.contains(&name), "{line}");
    }
}

// === Filters ===

#[test]
fn every_filter_has_its_page_and_its_golden() {
    for name in filters() {
        let page = root().join(format!("docs/filters/{name}.md"));
        let blocks = configs_in(&page);
        assert!(
            blocks.iter().any(|block| block.contains(&format!("{name}:"))),
            "{} needs a whole config that uses it",
            page.display()
        );
        for golden in [
            format!("tests/golden/filters/{name}.yaml"),
            format!("tests/golden/filters/bad/{name}.yaml"),
        ] {
            let text = read(&crate_file(&golden));
            assert!(text.contains(&format!("{name}:")), "{golden} does not use it");
        }
    }
    let listed = read(&root().join("docs/filters/README.md"));
    for name in filters() {
        assert!(listed.contains(&format!("({name}.md)")), "docs/filters/README.md lacks {name}");
    }
}

/// `docs/hardening.md` says of every filter and builtin whom it is hardened against, and what shows it.
#[test]
fn every_filter_is_hardened_against_somebody_or_says_that_it_is_not() {
    let page = read(&root().join("docs/hardening.md"));
    let model = read(&root().join("docs/threat-model.md"));
    let tests: String = below(&root().join("gateway/sluice/tests/gateway"), "rs")
        .iter()
        .map(|file| read(file))
        .collect();
    let builtins = sluice_proxy::config_schema();
    let builtins = builtins.pointer("/$defs/Builtin/oneOf").and_then(|all| all.as_array()).unwrap();
    let builtins = builtins.iter().filter_map(|one| one.get("const")?.as_str());
    let parts = filters().into_iter().chain(builtins.map(|name| format!("builtin: {name}")));
    let mut seen = 0;
    for part in parts.chain(["proxying".to_owned()]) {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{part}` |")));
        let row = row.unwrap_or_else(|| panic!("docs/hardening.md lacks `{part}`"));
        let [tag, rows, shown]: [&str; 3] =
            row.split('|').map(str::trim).skip(2).take(3).collect::<Vec<_>>().try_into().unwrap();
        let tag = tag.trim_matches('`');
        match tag {
            "experimental" | "trusted-only" => continue,
            "untrusted-both" | "untrusted-downstream" => {}
            other => panic!("`{other}` of `{part}` is no tag"),
        }
        seen += 1;
        assert!(!rows.is_empty() && !shown.is_empty(), "what shows that `{part}` is {tag}?");
        for id in rows.split(", ") {
            let row = model.lines().find(|line| line.starts_with(&format!("| {id} |")));
            let row = row.unwrap_or_else(|| panic!("`{part}`: there is no row {id}"));
            assert!(!row.contains("no test yet"), "`{part}`: no test shows {id}");
        }
        for test in shown.split(", ").map(|test| test.trim_matches('`')) {
            assert!(tests.contains(&format!("fn {test}(")), "`{part}`: there is no test {test}");
        }
    }
    assert!(seen > 8, "{seen} parts are hardened");
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let mut crates = 0;
    for manifest in below(&root().join("gateway"), "toml")
        .into_iter()
        .chain([root().join("benches/Cargo.toml"), root().join("xtask/Cargo.toml")])
    {
        crates += 1;
        let text = read(&manifest);
        assert!(text.contains("[lints]\nworkspace = true"), "{}", manifest.display());
    }
    assert!(crates >= 6, "{crates} crates");
    let lints = read(&root().join("Cargo.toml"));
    for lint in [
        "unsafe_code = \"forbid\"",
        "unwrap_used",
        "expect_used",
        "panic",
        "indexing_slicing",
        "await_holding_lock",
        "print_stdout",
    ] {
        assert!(lints.contains(&format!("\n{lint}")), "{lint}");
    }
}

/// All filters, from the schema, which is made from the table.
fn filters() -> Vec<String> {
    let schema = sluice_proxy::config_schema();
    let rows = schema.pointer("/$defs/Declared/oneOf").and_then(|rows| rows.as_array()).unwrap();
    let name = |row: &serde_json::Value| {
        row.pointer("/required/0").and_then(|name| name.as_str()).unwrap().to_owned()
    };
    rows.iter().map(name).collect()
}

// === Documents ===

#[test]
fn every_config_in_the_documents_is_fine() {
    let folder = tempfile::tempdir().unwrap();
    // What `development: true` does not make: authorities, and certificates for more than one name.
    let pair = sluice_proxy::self_signed(&["partners.example"]).unwrap();
    for (name, text) in
        [("clients.pem", &pair.cert), ("partners.pem", &pair.cert), ("partners.key", &pair.key)]
    {
        fs::write(folder.path().join(name), text).unwrap();
    }
    for name in ["jwt.key", "sign.key", "partner.key"] {
        fs::write(folder.path().join(name), "0123456789abcdefghijklmnopqrstuvwxyz").unwrap();
    }
    let mut seen = 0;
    for page in pages() {
        for block in configs_in(&page) {
            seen += 1;
            let path = folder.path().join("routes.yaml");
            fs::write(&path, &block).unwrap();
            match sluice_proxy::check(&Origin::File(path), &Environment::default()) {
                Ok(checked) => {
                    assert_eq!(checked.warnings, "", "{}\n{block}", page.display());
                }
                Err(rejected) => panic!("{}\n{rejected}", page.display()),
            }
        }
    }
    assert!(seen > 10, "{seen} configs found; are they still fenced as yaml?");
}

#[test]
fn the_shipped_table_is_fine_without_a_warning() {
    let origin = Origin::File(root().join("routes.yaml"));
    let checked = sluice_proxy::check(&origin, &Environment::default()).unwrap();
    assert_eq!(checked.warnings, "");
}

#[test]
fn what_is_made_from_something_else_is_in_step() {
    let schema = serde_json::to_string_pretty(&sluice_proxy::config_schema()).unwrap();
    for (path, wanted) in [
        ("docs/faults.md", sluice_proxy::faults_markdown()),
        ("docs/reference/config.md", sluice_proxy::config_reference()),
        ("docs/schema/routes.schema.json", format!("{schema}\n")),
        ("gateway/sluice/src/routes.yaml", read(&root().join("routes.yaml"))),
    ] {
        let file = root().join(path);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, wanted).unwrap();
        } else {
            assert!(read(&file) == wanted, "{path} is stale; UPDATE_GOLDEN=1 writes it anew");
        }
    }
}

#[test]
fn operators_are_told_of_every_metric_and_of_no_other() {
    let below = files_in(&crate_file("src/doors/scrape"));
    let files = std::iter::once(crate_file("src/doors/scrape.rs")).chain(below);
    let code: String = files.map(|file| read(&file)).collect();
    let scraped: BTreeSet<String> = quoted(&code).filter(|text| is_metric(text)).collect();
    assert!(scraped.len() > 20, "are names still literals? {scraped:?}");
    let page = read(&root().join("docs/operating.md"));
    let told: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(['`', '{']).next())
        .filter(|name| is_metric(name))
        .map(str::to_owned)
        .collect();
    assert_eq!(told, scraped);
}

#[test]
fn operators_are_told_of_every_field_of_the_access_log() {
    let code = read(&crate_file("src/path/record.rs"));
    let page = read(&root().join("docs/operating.md"));
    let mut seen = 0;
    for call in ["text", "bytes", "number", "millis", "flag"] {
        for rest in code.split(&format!("line.{call}(\"")).skip(1) {
            let name = rest.split('"').next().unwrap_or_default();
            seen += 1;
            assert!(page.contains(&format!("`{name}`")), "docs/operating.md lacks `{name}`");
        }
    }
    assert!(seen > 20, "{seen} fields found; are names still literals?");
}

#[test]
fn the_code_map_names_every_file() {
    let map = read(&root().join("docs/ARCHITECTURE.md"));
    assert!(map.lines().count() <= 400, "the map is longer than what it maps");
    let of_proxy = FLOORS.iter().flat_map(|floor| files_in(&crate_file(&format!("src/{floor}"))));
    for file in of_proxy.chain(files_in(&root().join("gateway/sluice-engine/src"))) {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(map.contains(&format!("`{name}`")), "docs/ARCHITECTURE.md lacks `{name}`");
    }
}

#[test]
fn links_lead_somewhere() {
    for page in pages() {
        for target in read(&page).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            let here = page.parent().unwrap().join(file);
            let inside = !file.is_empty() && !file.contains("://");
            assert!(!inside || here.exists(), "{}: {target}", page.display());
        }
    }
}

fn is_metric(text: &str) -> bool {
    ["http_", "gateway_", "circuitbreaker_", "sluice_"].iter().any(|start| text.starts_with(start))
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// The string literals of some code; good enough where none holds an escaped quote.
fn quoted(code: &str) -> impl Iterator<Item = String> {
    code.split('"').skip(1).step_by(2).map(str::to_owned)
}

/// YAML blocks of a page that are whole configs.
fn configs_in(page: &Path) -> Vec<String> {
    let text = read(page);
    let blocks = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.filter(|block| block.starts_with("version: 1")).map(str::to_owned).collect()
}

// === The tree ===

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn crate_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Every Rust file of the workspace.
fn code() -> Vec<PathBuf> {
    ["gateway", "benches", "fuzz", "xtask"]
        .iter()
        .flat_map(|top| below(&root().join(top), "rs"))
        .collect()
}

/// Every page: those at the root and those in `docs`.
fn pages() -> Vec<PathBuf> {
    let mut pages = below(&root().join("docs"), "md");
    let at_root = files_in(&root());
    pages.extend(at_root.into_iter().filter(|file| file.extension().is_some_and(|e| e == "md")));
    pages
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

fn below(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let wanted = |file: &PathBuf| file.extension().is_some_and(|found| found == ending);
    let mut found: Vec<PathBuf> = files_in(folder).into_iter().filter(wanted).collect();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            found.extend(below(&path, ending));
        }
    }
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
