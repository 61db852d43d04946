//! The program from outside: its commands, what they print, and their exit codes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests say what they expect by panicking"
)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use sluice_chaos::process::{Daemon, Ready, free_port};
use sluice_chaos::raw;
use tempfile::TempDir;

/// What a command said and how it ended.
struct Said {
    code: i32,
    out: String,
    err: String,
}

fn sluice(folder: &Path, args: &[&str]) -> Said {
    said(&mut command(folder, args))
}

/// The program in a folder, with nothing of the caller's environment that it would read.
fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(args).current_dir(folder);
    for name in ["SLUICE_CONFIG", "SLUICE_WORKERS", "SLUICE_LOG"] {
        command.env_remove(name);
    }
    command
}

fn said(command: &mut Command) -> Said {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

const GOOD: &str = r#"version: 1
listeners: [ { name: main, address: "127.0.0.1:8080" } ]
upstreams: { echo: { builtin: echo } }
routes:
  - { id: wide, match: { path: "/**" }, upstream: echo }
  - id: narrow
    match: { hosts: [ a.test ], path: "/users/{id}", methods: [ GET, POST ] }
    filters: [ { request_id: {} }, { strip_prefix: 1 } ]
    upstream: echo
"#;

fn folder(config: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("routes.yaml"), config).unwrap();
    folder
}

/// The example that is shipped with the program.
fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../routes.yaml")
}

#[test]
fn check_tells_good_from_bad_and_bad_from_doubtful() {
    let good = folder(GOOD);
    let fine = sluice(good.path(), &["check"]);
    assert_eq!((fine.code, fine.err.as_str()), (0, ""));
    assert!(fine.out.starts_with("fine: 2 routes, hash "), "{}", fine.out);
    assert_eq!(sluice(good.path(), &["check", "--strict"]).code, 0);

    let bad = folder(
        &GOOD.replace("upstream: echo }", "upstream: eco }").replace("version: 1", "version: 2"),
    );
    let refused = sluice(bad.path(), &["check"]);
    assert_eq!((refused.code, refused.out.as_str()), (1, ""));
    for place in ["routes.yaml:1:10: error", "routes.yaml:5:51: error", "2 errors"] {
        assert!(refused.err.contains(place), "no {place} in {}", refused.err);
    }
    assert_eq!(sluice(bad.path(), &["check", "--strict"]).code, 1);

    let unused = folder(&GOOD.replace("{ echo:", "{ idle: { builtin: health }, echo:"));
    let doubtful = sluice(unused.path(), &["check"]);
    assert_eq!(doubtful.code, 0);
    assert!(doubtful.err.contains("warning") && doubtful.err.contains("idle"), "{}", doubtful.err);
    assert!(doubtful.out.starts_with("fine: "), "{}", doubtful.out);
    let strict = sluice(unused.path(), &["check", "--strict"]);
    assert_eq!((strict.code, strict.out.as_str()), (3, ""));
    assert!(strict.err.contains("idle"));

    let missing = sluice(good.path(), &["check", "--config", "none.yaml"]);
    assert_eq!(missing.code, 1);
    assert!(missing.err.contains("none.yaml: error: cannot be read"), "{}", missing.err);
}

#[test]
fn check_writes_nothing() {
    let text = std::fs::read_to_string(shipped()).unwrap();
    let folder = folder(&text);
    assert_eq!(sluice(folder.path(), &["check"]).code, 0);
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

/// Shows G-08.
#[test]
fn a_config_that_cannot_be_served_has_a_code_of_its_own() {
    let bad = folder("version: 1\nlisteners: []\nroutes: []\n");
    for args in [&["run"][..], &[]] {
        let refused = sluice(bad.path(), args);
        assert_eq!((refused.code, refused.out.as_str()), (78, ""));
        assert!(refused.err.contains("routes.yaml:2:"), "{}", refused.err);
    }
    // A port that somebody has is a config that cannot be served here.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let squatted = folder(&format!(
        "admin: {{ address: \"127.0.0.1:{}\" }}\n{}",
        free_port(),
        GOOD.replace("127.0.0.1:8080", &address)
    ));
    let refused = sluice(squatted.path(), &["run"]);
    assert_eq!(refused.code, 78);
    assert!(refused.err.contains("another program listens there"), "{}", refused.err);
}

#[test]
fn wrong_usage_has_a_code_of_its_own() {
    let good = folder(GOOD);
    for args in [
        &["serve"][..],
        &["check", "--strcit"],
        &["run", "--workers", "many"],
        &["run", "--log", "sluice=[loud"],
        &["token", "--claim", "openid"],
        &["healthcheck", "--address", "nowhere"],
        &["completions", "cobol"],
        &["run", "--config"],
    ] {
        let said = sluice(good.path(), args);
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{args:?}: {}", said.err);
        assert!(!said.err.is_empty());
    }
    let help = sluice(good.path(), &["--help"]);
    assert_eq!(help.code, 0);
    for command in [
        "run",
        "check",
        "routes",
        "schema",
        "token",
        "healthcheck",
        "dev-cert",
        "version",
        "completions",
    ] {
        assert!(help.out.contains(command), "no {command} in {}", help.out);
    }
}

#[test]
fn routes_are_listed_in_the_order_in_which_they_are_tried() {
    let good = folder(GOOD);
    let table = sluice(good.path(), &["routes"]);
    assert_eq!((table.code, table.err.as_str()), (0, ""));
    let rows: Vec<Vec<&str>> =
        table.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["ID", "HOST", "METHOD", "PATH", "LEADS", "TO"]);
    assert_eq!(rows[1][..3], ["narrow", "a.test", "GET,POST"], "{}", table.out);
    assert_eq!(rows[1][3..].join(" "), "/users/{id} request_id → strip_prefix → echo");
    assert_eq!(rows[2], ["wide", "*", "*", "/**", "echo"]);

    let json = sluice(good.path(), &["routes", "--json"]);
    let list: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(list[0]["id"], "narrow");
    assert_eq!(list[0]["filters"], serde_json::json!(["request_id", "strip_prefix"]));
    assert_eq!((&list[1]["path"], &list[1]["upstream"]), (&"/**".into(), &"echo".into()));
    assert_eq!(list.as_array().unwrap().len(), 2);
}

#[test]
fn the_schema_describes_the_example() {
    let empty = tempfile::tempdir().unwrap();
    let said = sluice(empty.path(), &["schema"]);
    assert_eq!(said.code, 0);
    let schema: Value = serde_json::from_str(&said.out).unwrap();
    let sections = schema["properties"].as_object().unwrap();
    for section in ["version", "listeners", "upstreams", "groups", "routes", "filters", "redis"] {
        assert!(sections.contains_key(section), "no {section}");
    }
    let required = schema["required"].as_array().unwrap();
    assert!(required.contains(&"routes".into()) && required.contains(&"listeners".into()));
    std::fs::write(empty.path().join("schema.json"), &said.out).unwrap();
    // A judge of its own where there is one.
    let script = "import json, sys, yaml, jsonschema\n\
        schema = json.load(open('schema.json'))\n\
        check = jsonschema.validators.validator_for(schema)(schema)\n\
        example = yaml.safe_load(open(sys.argv[1]))\n\
        print('errors', [e.message for e in check.iter_errors(example)])\n\
        example['routes'][0]['mach'] = {}\n\
        example['listeners'][0].pop('address')\n\
        print('found', len(list(check.iter_errors(example))))\n";
    let have = Command::new("python3").args(["-c", "import yaml, jsonschema"]).output();
    if have.is_ok_and(|output| output.status.success()) {
        let mut python = Command::new("python3");
        let judged = said_by(python.current_dir(empty.path()).args(["-c", script]).arg(shipped()));
        assert_eq!(judged, "errors []\nfound 2\n");
    }
}

fn said_by(command: &mut Command) -> String {
    let said = said(command);
    assert_eq!(said.code, 0, "{}", said.err);
    said.out
}

/// The example under ports of its own.
fn example() -> (TempDir, u16, u16) {
    let (http, https, admin) = (free_port(), free_port(), free_port());
    let text = std::fs::read_to_string(shipped()).unwrap();
    let text = text
        .replace("0.0.0.0:8080", &format!("127.0.0.1:{http}"))
        .replace("0.0.0.0:8443", &format!("127.0.0.1:{https}"))
        .replace("127.0.0.1:9901", &format!("127.0.0.1:{admin}"));
    (folder(&text), http, admin)
}

async fn serve(folder: &Path) -> Daemon {
    let mut command = command(folder, &["run", "--config", "routes.yaml", "--workers", "1"]);
    command.env("REDIS_URL", "");
    Daemon::start(command, Ready::Says("is serving".to_owned())).await
}

fn decoded(part: &str) -> Value {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for c in part.bytes() {
        let digit = digits.iter().position(|d| *d == c).unwrap();
        bits = bits << 6 | u32::try_from(digit).unwrap();
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count).to_le_bytes()[0]);
        }
    }
    serde_json::from_slice(&bytes).unwrap()
}

#[tokio::test]
async fn tokens_say_what_was_asked_and_open_the_gateway() {
    let (folder, http, _) = example();
    let gateway = serve(folder.path()).await;
    let token = |args: &[&str]| {
        let said = sluice(folder.path(), &[&["token"], args].concat());
        assert_eq!(said.code, 0, "{}", said.err);
        said.out.trim().to_owned()
    };
    let good =
        token(&["--claim", "openid=o-1", "--claim", r#"roles=["admin",7]"#, "--claim", "n=12"]);
    let parts: Vec<&str> = good.split('.').collect();
    assert_eq!(parts.len(), 3);
    let (header, claims) = (decoded(parts[0]), decoded(parts[1]));
    assert_eq!((&header["alg"], &header["kid"]), (&"HS256".into(), &"main".into()));
    assert_eq!((&claims["openid"], &claims["n"]), (&"o-1".into(), &12.into()));
    assert_eq!(claims["roles"], serde_json::json!(["admin", 7]));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 7200);

    let ask = async |token: &str| {
        let mut client = raw::Client::connect(([127, 0, 0, 1], http).into()).await;
        let header = format!("Bearer {token}");
        client.request("GET", "/api/users/7", "localhost", &[("Authorization", &header)], b"").await
    };
    let answer = ask(&good).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["headers"]["x-user-openid"], "o-1");
    let expired = token(&["--claim", "openid=o-1", "--lifetime", "-120"]);
    assert_eq!(ask(&expired).await.json()["reason"], "token_expired");
    assert_eq!(ask(&token(&[])).await.json()["reason"], "token_invalid");

    let inspect = |token: &str| sluice(folder.path(), &["token", "--inspect", token]).out;
    let told = inspect(&good);
    assert!(
        told.contains(r#""openid":"o-1""#) && told.contains("route    users: accepted"),
        "{told}"
    );
    assert!(!told.contains(parts[2]), "the signature stays unsaid: {told}");
    let told = inspect(&expired);
    assert!(told.contains("s ago)") && told.contains("route    users: token_expired"), "{told}");
    assert!(inspect("x.y").contains("claims   not readable"));
    let unknown = sluice(folder.path(), &["token", "--kid", "other"]);
    assert_eq!((unknown.code, unknown.out.as_str()), (1, ""));
    assert!(unknown.err.contains("named `other`"), "{}", unknown.err);
    drop(gateway);
}

#[test]
fn the_keys_of_a_login_make_tokens_too() {
    let folder = tempfile::tempdir().unwrap();
    let config = "version: 1\ndevelopment: true\n\
        listeners: [{ name: main, address: \"127.0.0.1:8080\" }]\n\
        apps: [{ id: dev, provider: development }]\n\
        login: { store: memory, token: { issuer: me }, keys: [{ kid: k1, alg: HS256, secret_file: k1.key }] }\n\
        upstreams: { echo: { builtin: echo } }\n\
        routes: [{ id: a, upstream: echo, filters: [{ jwt: { issuer: login } }] }]\n";
    std::fs::write(folder.path().join("routes.yaml"), config).unwrap();
    let made = sluice(folder.path(), &["token", "--claim", "sub=u-1"]);
    assert_eq!(made.code, 0, "{}", made.err);
    let told = sluice(folder.path(), &["token", "--inspect", made.out.trim()]).out;
    assert!(told.contains(r#""kid":"k1""#) && told.contains("route    a: accepted"), "{told}");
    assert_eq!(sluice(folder.path(), &["token", "--kid", "other"]).code, 1);
}

#[tokio::test]
async fn the_health_check_asks_a_running_gateway() {
    let (folder, _, admin) = example();
    let address = format!("127.0.0.1:{admin}");
    let both = [&["healthcheck"][..], &["healthcheck", "--address", &address]];
    for args in both {
        let said = sluice(folder.path(), args);
        assert_eq!((said.code, said.out.as_str()), (1, ""), "{}", said.err);
    }
    let mut gateway = serve(folder.path()).await;
    for args in both {
        let said = sluice(folder.path(), args);
        assert_eq!((said.code, said.out.as_str()), (0, "ready\n"), "{}", said.err);
    }
    // The shipped config gives balancers 5 s to notice.
    gateway.signal("TERM");
    gateway.wait_for_output("draining").await;
    let said = sluice(folder.path(), &["healthcheck"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("draining"), "{}", said.err);
    assert_eq!(gateway.exit_code().await, Some(0));
}

#[tokio::test]
async fn breakers_are_shown_and_held_by_whoever_has_the_token() {
    const TOKEN: &str = "admin-token-0123456789abcdef0123456789abcdef";
    let (http, admin) = (free_port(), free_port());
    let config = format!(
        "version: 1\nlisteners: [ {{ name: main, address: \"127.0.0.1:{http}\" }} ]\n\
         admin: {{ address: \"127.0.0.1:{admin}\", token: \"${{file:admin.token}}\" }}\n\
         upstreams: {{ up: {{ endpoints: [ {{ address: \"127.0.0.1:1\" }} ], \
         breaker: {{ consecutive_failures: 3 }} }} }}\nroutes: [ {{ id: up, upstream: up }} ]\n"
    );
    let folder = folder(&config);
    std::fs::write(folder.path().join("admin.token"), TOKEN).unwrap();
    let absent = sluice(folder.path(), &["breakers"]);
    assert_eq!((absent.code, absent.out.as_str()), (1, ""), "{}", absent.err);
    let gateway = serve(folder.path()).await;
    let shown = sluice(folder.path(), &["breakers"]);
    assert_eq!(shown.code, 0, "{}", shown.err);
    let row = shown.out.lines().nth(1).unwrap();
    assert!(row.starts_with("upstream:up") && row.contains("closed"), "{}", shown.out);

    let force = ["breaker", "force", "upstream:up", "open", "--for", "10m"];
    let without = sluice(folder.path(), &force);
    assert_eq!(without.code, 1);
    assert!(without.err.contains("SLUICE_ADMIN_TOKEN"), "{}", without.err);
    let wrong = said(command(folder.path(), &force).env("SLUICE_ADMIN_TOKEN", "wrong"));
    assert_eq!(wrong.code, 1);
    assert!(wrong.err.contains("401"), "{}", wrong.err);
    let forced = said(command(folder.path(), &force).env("SLUICE_ADMIN_TOKEN", TOKEN));
    assert_eq!(forced.code, 0, "{}", forced.err);
    assert!(forced.out.starts_with("upstream:up: open (forced until 20"), "{}", forced.out);
    let timeline = sluice(folder.path(), &["breakers", "upstream:up"]);
    assert!(timeline.out.contains("closed -> open  forced"), "{}", timeline.out);
    let json = sluice(folder.path(), &["breakers", "upstream:up", "--json"]);
    let json: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&json["state"], &json["timeline"][0]["to"]), (&"open".into(), &"open".into()));
    let release = ["breaker", "release", "upstream:up", "--token-file", "admin.token"];
    let released = sluice(folder.path(), &release);
    assert_eq!(
        (released.code, &*released.out),
        (0, "upstream:up: half_open\n"),
        "{}",
        released.err
    );
    for odd in [&["breaker", "force", "upstream:up", "ajar", "--for", "1m"][..], &force[..4]] {
        assert_eq!(sluice(folder.path(), odd).code, 2, "{odd:?}");
    }
    assert_eq!(sluice(folder.path(), &["breakers", "upstream:nobody"]).code, 1);
    drop(gateway);
}

#[test]
fn a_development_certificate_is_written_once() {
    let folder = tempfile::tempdir().unwrap();
    let made = sluice(folder.path(), &["dev-cert", "gateway.test", "10.0.0.1"]);
    assert_eq!(made.code, 0, "{}", made.err);
    assert!(made.out.contains("gateway.test, 10.0.0.1"), "{}", made.out);
    let (cert, key) = (folder.path().join("certs/dev.pem"), folder.path().join("certs/dev.key"));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&key), mode(&cert) & 0o600), (0o600, 0o600));
    let before = (std::fs::read(&cert).unwrap(), std::fs::read(&key).unwrap());
    let shown = Command::new(sluice_chaos::process::tool("openssl"))
        .args(["x509", "-noout", "-ext", "subjectAltName", "-in"])
        .arg(&cert)
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("DNS:gateway.test") && shown.contains("IP Address:10.0.0.1"), "{shown}");

    let again = sluice(folder.path(), &["dev-cert"]);
    assert_eq!((again.code, again.out.as_str()), (1, ""));
    assert!(again.err.contains("certs/dev.key: there is one already"), "{}", again.err);
    assert_eq!(before, (std::fs::read(&cert).unwrap(), std::fs::read(&key).unwrap()));
    // Half a pair is not completed with a stranger.
    std::fs::remove_file(&key).unwrap();
    let half = sluice(folder.path(), &["dev-cert"]);
    assert_eq!(half.code, 1);
    assert_eq!(before.0, std::fs::read(&cert).unwrap());
    assert!(!key.exists(), "a key without its certificate was left behind");

    let elsewhere = sluice(folder.path(), &["dev-cert", "--cert", "a/c.pem", "--key", "b/k.pem"]);
    assert_eq!(elsewhere.code, 0, "{}", elsewhere.err);
    assert!(folder.path().join("a/c.pem").exists() && folder.path().join("b/k.pem").exists());
}

#[test]
fn version_and_completions() {
    let folder = tempfile::tempdir().unwrap();
    let version = format!("sluice {}\n", env!("CARGO_PKG_VERSION"));
    for args in ["version", "--version"] {
        let said = sluice(folder.path(), &[args]);
        assert_eq!((said.code, said.out.as_str()), (0, version.as_str()));
    }
    for (shell, mark) in
        [("bash", "complete -F"), ("zsh", "#compdef sluice"), ("fish", "complete -c sluice")]
    {
        let said = sluice(folder.path(), &["completions", shell]);
        assert_eq!(said.code, 0, "{}", said.err);
        assert!(said.out.contains(mark) && said.out.contains("healthcheck"), "{shell}");
        if shell == "bash" {
            std::fs::write(folder.path().join("c.bash"), &said.out).unwrap();
            let checked = Command::new("bash").arg("-n").arg(folder.path().join("c.bash")).output();
            assert!(checked.is_ok_and(|output| output.status.success()), "bash does not read it");
        }
    }
}

#[test]
fn the_config_is_looked_for_in_a_fixed_order() {
    let here = folder(GOOD);
    let two = GOOD.lines().take(5).collect::<Vec<_>>().join("\n");
    let other = folder(&two);
    let other = other.path().join("routes.yaml");
    let routes = |command: &mut Command| {
        let listed: Value = serde_json::from_str(&said_by(command)).unwrap();
        listed
            .as_array()
            .unwrap()
            .iter()
            .map(|r| r["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let args = ["routes", "--json"];
    assert_eq!(routes(&mut command(here.path(), &args)), ["narrow", "wide"]);
    assert_eq!(routes(command(here.path(), &args).env("SLUICE_CONFIG", &other)), ["wide"]);
    let named = ["routes", "--json", "--config", "routes.yaml"];
    assert_eq!(
        routes(command(here.path(), &named).env("SLUICE_CONFIG", &other)),
        ["narrow", "wide"]
    );
    // A named file that is missing is not replaced by another.
    let said = said(command(here.path(), &args).env("SLUICE_CONFIG", "/none.yaml"));
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    // With none at all, the example inside the program.
    let empty = tempfile::tempdir().unwrap();
    if !Path::new("/etc/sluice/routes.yaml").exists() {
        let inside = routes(&mut command(empty.path(), &args));
        let shipped = shipped();
        let shown = ["routes", "--json", "--config", shipped.to_str().unwrap()];
        assert_eq!(inside, routes(&mut command(empty.path(), &shown)));
        assert!(inside.contains(&"hello".to_owned()));
    }
}
