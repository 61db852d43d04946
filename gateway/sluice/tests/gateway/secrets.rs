//! Secrets come in by every way there is, and come out by none. That the output of all other tests'
//! gateways is looked through as well is the work of `support`.

use std::os::unix::fs::PermissionsExt;

use sluice_chaos::client;
use sluice_chaos::process::{Daemon, Ready, Redis, free_port};
use sluice_chaos::recorder::{Answer, Recorder};

use crate::support::{CANARY, Gateway, Setup, eventually};

fn config(service: &Recorder, redis: &Redis) -> String {
    format!(
        r#"
redis: {{ url: "redis://user:${{file:redis.pass}}@{redis}" }}
access_log: {{ output: access.log, query: [page] }}
upstreams:
  service: {{ endpoints: [ {{ address: "{service}" }} ] }}
  gone: {{ endpoints: [ {{ address: "127.0.0.1:{gone}" }} ] }}
  plain: {{ endpoints: [ {{ address: "{service}" }} ], tls: {{ server_name: localhost }} }}
  bang: {{ builtin: panic }}
routes:
  - id: signed
    match: {{ path: "/signed/**" }}
    filters:
      - jwt: {{ keys: [ {{ kid: main, alg: HS256, secret: "${{JWT_SECRET}}" }} ] }}
    upstream: service
  - id: limited
    match: {{ path: "/limited/**" }}
    filters:
      - rate_limit: {{ limit: 5, per: 1h, key: "header:x-token" }}
      - headers: {{ request: {{ set: {{ x-upstream-secret: "${{UPSTREAM_SECRET}}" }} }} }}
    upstream: service
  - {{ id: gone, match: {{ path: "/gone/**" }}, upstream: gone }}
  - {{ id: plain, match: {{ path: "/plain/**" }}, upstream: plain }}
  - {{ id: bang, match: {{ path: "/bang/**" }}, upstream: bang }}
  - {{ id: all, match: {{ path: "/**" }}, upstream: service }}
"#,
        redis = redis.addr(),
        service = service.addr(),
        gone = free_port(),
    )
}

/// Config lines that hold a secret and cannot be used.
const BAD: [&str; 9] = [
    "redis: { url: \"redis://me:{}@nowhere:notaport\" }",
    "redis: { url: 7, password: {} }",
    "filters: [ { jwt: { keys: [ { kid: a, alg: HS256, secret: {} } ] } } ]",
    "filters: [ { jwt: { keys: [ { kid: a, alg: HS256, secret: \"{}, ",
    "filters: [ { jwt: { keys: [ { kid: a, alg: ES256, secret: {} } ] } } ]",
    "errors: { envelope: \"${JWT_SECRET}\" }",
    "shutdown: { delay: \"${file:redis.pass}\" }",
    "app_secret: {}",
    "access_log: { mask: { secret: {} } }",
];

/// Shows S-01, S-07, S-08.
#[tokio::test]
async fn no_canary_comes_out() {
    let canary = |name: &str| format!("{CANARY}-{name}-0123456789abcdef0123456789");
    let cookie = format!("sid={CANARY}; Path=/");
    let service = Recorder::answering(Answer::ok("fine").header("Set-Cookie", &cookie));
    let redis = Redis::start().await;
    let setup = Setup {
        env: vec![
            ("JWT_SECRET", canary("jwt")),
            ("UPSTREAM_SECRET", canary("upstream")),
            ("SLUICE_LOG", "debug".to_owned()),
        ],
        files: vec![("redis.pass", canary("redis"))],
        ..Setup::default()
    };
    let config = config(&service, &redis);
    let gateway = Gateway::start_with(&config, setup).await;

    let token = format!("Bearer {CANARY}.eyJhIjoxfQ.{CANARY}");
    let cookies = format!("session_key={CANARY}; other={CANARY}");
    let agent = format!("x/1 token={CANARY} (Bearer {CANARY})");
    let fields = [
        ("Authorization", token.as_str()),
        ("Cookie", &cookies),
        ("User-Agent", &agent),
        ("Referer", &cookies),
        ("X-Token", CANARY),
    ];
    let query = ["token", "js_code", "secret", "session_key", "access_token", "page&x"]
        .map(|name| format!("{name}={CANARY}"))
        .join("&");
    let body = format!("{{\"session_key\":\"{CANARY}\"}}");
    for path in ["/signed", "/limited", "/gone", "/plain", "/bang", "/other"] {
        let path = format!("{path}/x;token={CANARY}?{query}");
        let mut one = gateway.client().await;
        let answer = one.request("POST", &path, "localhost", &fields, body.as_bytes()).await;
        let mut two = client::h2c(gateway.http).await;
        let mut request = client::get(&path);
        request.headers_mut().insert("authorization", token.parse().unwrap());
        two.send(request).await;
        if answer.status >= 400 {
            let text = answer.text();
            let address = service.addr().to_string();
            for word in [CANARY, "hyper", "rustls", "os error", "127.0.0.1", &address] {
                assert!(!text.contains(word), "{path}: {text}");
            }
        }
    }
    // What never becomes a request.
    for bytes in [
        format!("GET /{CANARY}\u{1} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization : {CANARY}\r\n\r\n"),
        format!("GET /x?token={CANARY} HTTP/1.1\r\nHost: a\r\nHost: {CANARY}\r\n\r\n"),
        format!("{CANARY}{CANARY}\r\n\r\n"),
        format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{CANARY}{CANARY}"),
    ] {
        let mut client = gateway.client().await;
        client.send(bytes).await;
        client.half_close().await;
        client.read_to_end().await;
    }

    let mut rejected = 0.0;
    for bad in BAD {
        gateway.write_config(&format!("{config}{}\n", bad.replace("{}", CANARY)));
        rejected += 1.0;
        eventually("the config to be refused", async || {
            gateway.metric("sluice_config_reloads_total{result=\"rejected\"}").await >= rejected
        })
        .await;
        assert!(gateway.admin("/config").await.text().contains("error"), "{bad}");
    }
    for page in ["/config", "/routes", "/upstreams", "/jwks", "/metrics", "/readyz"] {
        assert_eq!(gateway.admin(page).await.status, 200, "{page}");
    }
    eventually("Redis to refuse the password", async || {
        gateway.daemon.output().contains("Redis does not answer")
    })
    .await;
    gateway.daemon.wait_for_output("panic: ").await;
    assert!(gateway.log_lines(15).await.len() >= 15);
}

/// Shows S-05.
#[tokio::test]
async fn a_secret_that_everybody_may_read_is_warned_of() {
    let config = "upstreams: { echo: { builtin: echo } }\n\
        routes:\n  - { id: all, match: { path: /** }, upstream: echo, filters: [ { jwt: { keys: [ \
        { kid: a, alg: HS256, secret_file: a.key }, { kid: b, alg: HS256, secret: \"${file:b.key}\" } ] } } ] }\n";
    let setup = Setup {
        files: vec![("a.key", "a".repeat(40)), ("b.key", "b".repeat(40))],
        ..Setup::default()
    };
    let gateway = Gateway::start_with(config, setup).await;
    let secrets = ["a.key", "b.key"].map(|name| gateway.folder().join(name));
    let warning = "everybody on this machine may read this secret";
    let warnings = || gateway.daemon.output().matches(warning).count();
    let reload = async |generation: u64, mode: u32| {
        for secret in &secrets {
            std::fs::set_permissions(secret, PermissionsExt::from_mode(mode)).unwrap();
        }
        gateway.daemon.signal("HUP");
        gateway.wait_for_generation(generation).await;
    };
    reload(2, 0o600).await;
    let before = warnings();
    reload(3, 0o644).await;
    eventually("a warning for each", async || warnings() == before + 2).await;
    reload(4, 0o640).await;
    // The next reload is told after whatever this one had to say.
    gateway.daemon.wait_for_output("\"generation\":4").await;
    assert_eq!(warnings(), before + 2);
}

/// Shows S-06.
#[tokio::test]
async fn memory_is_neither_dumped_nor_looked_into() {
    // A user of its own, as in production; the program is opened before, wherever it lies.
    let by = "chown -R 54321 \"$FOLDER\"; exec 9<\"$1\"; shift; \
        exec setpriv --reuid=54321 --clear-groups --inh-caps=-all /proc/self/fd/9 \"$@\"";
    let root = std::fs::metadata("/proc/self").unwrap();
    let root = std::os::unix::fs::MetadataExt::uid(&root) == 0;
    let setup = Setup { by: root.then_some(by), ..Setup::default() };
    let config = "routes: [ { id: all, match: { path: /** }, filters: [ { respond: { status: 204 } } ] } ]\n";
    let gateway = Gateway::start_with(config, setup).await;
    assert_eq!(gateway.get("/").await.status, 204);
    let proc = std::path::PathBuf::from(format!("/proc/{}", gateway.daemon.pid()));
    let limits = std::fs::read_to_string(proc.join("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");
    // proc(5): of a process that is not dumpable these belong to root, whoever runs it.
    let memory = std::fs::metadata(proc.join("mem")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&memory), 0);
    let status = std::fs::read_to_string(proc.join("status")).unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    // It can still look at itself.
    assert!(gateway.metric("process_open_fds").await > 5.0);
}

/// Shows S-09.
#[tokio::test]
async fn clients_cannot_make_series() {
    let gateway = Gateway::start(
        "upstreams: { echo: { builtin: echo } }\nroutes: [ { id: all, match: { path: /a/** }, upstream: echo } ]\n",
    )
    .await;
    let series = async || {
        let text = gateway.admin("/metrics").await.text();
        text.lines().filter(|line| !line.starts_with('#')).count()
    };
    let mut client = gateway.client().await;
    for n in 0..2 {
        let before = series().await;
        for k in 0..300 {
            let (path, host) = (format!("/a/{n}/{k}?q={k}"), format!("h{n}-{k}.test"));
            let name = format!("X-{n}-{k}");
            client.request("GET", &path, &host, &[(&name, "x")], b"").await;
            let mut odd = gateway.client().await;
            odd.request(&format!("M{n}X{k}"), &path, &host, &[], b"").await;
        }
        // The first round may bring statuses that were not there before.
        assert!(n == 0 || series().await == before);
    }
}

/// Shows S-01.
#[tokio::test]
async fn a_start_that_fails_quotes_no_secret() {
    for bad in BAD {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("routes.yaml");
        std::fs::write(folder.path().join("redis.pass"), CANARY).unwrap();
        let rest = "version: 1\nlisteners: [ { name: a, address: \"127.0.0.1:0\" } ]\n\
            routes: [ { id: a, match: { path: / }, filters: [ { respond: { status: 204 } } ] } ]\n";
        std::fs::write(&path, format!("{rest}{}\n", bad.replace("{}", CANARY))).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sluice"));
        command.arg("run").arg("--config").arg(&path).env("JWT_SECRET", CANARY);
        let mut daemon = Daemon::start(command, Ready::AtOnce).await;
        assert_eq!(daemon.exit_code().await, Some(78), "{bad}");
        let said = daemon.last_words();
        assert!(said.contains("error") && !said.contains(CANARY), "{bad}: {said}");
    }
}
