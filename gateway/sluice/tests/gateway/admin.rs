//! The operators' door: what it shows, to whom, and what it never shows.

use std::time::Duration;

use sluice_chaos::h2up::{H2Upstream, Mode};
use sluice_chaos::load::Plan;
use sluice_chaos::process::promtool_check;
use sluice_chaos::raw::{Client, get};
use sluice_chaos::recorder::{Answer, Recorder};
use sluice_chaos::rogue::Rogue;
use sluice_chaos::{client, pki, ws};

use crate::support::{Gateway, Setup, eventually};

/// Names and labels of all series, sorted.
async fn series(gateway: &Gateway) -> Vec<String> {
    let text = gateway.admin("/metrics").await.text();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut all: Vec<String> =
        lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect();
    all.sort();
    all
}

#[tokio::test]
async fn a_scrape_after_traffic_of_all_kinds_is_clean() {
    const CONFIG: &str = r#"
upstreams:
  up:
    endpoints: [ { address: "{up}" } ]
    breaker: { failure_rate: 50% }
    health_check: { http: /health, interval: 100ms }
  two: { endpoints: [ { address: "{two}" } ], protocol: http2 }
  gone: { endpoints: [ { address: "{gone}" } ], breaker: { consecutive_failures: 1, open_for: 1h } }
  socket: { endpoints: [ { address: "{socket}" } ] }
  echo: { builtin: echo }
filters: [ { request_id: {} } ]
routes:
  - { id: up, match: { path: /up }, upstream: up }
  - { id: two, match: { path: /two }, upstream: two }
  - { id: gone, match: { path: /gone }, upstream: gone }
  - { id: socket, match: { path: /socket }, upstream: socket, websocket: true }
  - { id: 'odd "name" \ with {braces}', match: { path: /odd }, upstream: echo }
  - id: limited
    match: { path: /limited }
    filters: [ { rate_limit: { limit: 1, per: 1m } } ]
    upstream: echo
"#;
    let (up, socket) = (Recorder::answering(Answer::ok("ok").chunked()), ws::Echo::start());
    let (two, gone) = (H2Upstream::start(Mode::Answer(404, Vec::new())), Rogue::refuse());
    let mut config = CONFIG.to_owned();
    for (hole, addr) in [
        ("{up}", up.addr()),
        ("{two}", two.addr()),
        ("{gone}", gone.addr()),
        ("{socket}", socket.addr()),
    ] {
        config = config.replace(hole, &addr.to_string());
    }
    let authority = pki::Authority::new();
    let pair = authority.issue(&["localhost"]);
    let setup = Setup::with_tls(&pair);
    let gateway = Gateway::start_with(&config, setup).await;
    promtool_check(&gateway.admin("/metrics").await.text()).unwrap();

    for path in
        ["/up", "/two", "/gone", "/gone", "/limited", "/limited", "/odd", "/nothing", "/%00"]
    {
        gateway.get(path).await;
    }
    let mut https =
        client::tls(gateway.https, "localhost", pki::client_config(&authority, &["h2"])).await;
    https.send(client::get("/up")).await;
    let stranger = pki::client_config(&pki::Authority::new(), &[]);
    assert!(Client::try_connect_tls(gateway.https, "localhost", stranger).await.is_err());
    let mut tunnel = ws::Client::connect(gateway.http, "localhost", "/socket", &[]).await;
    tunnel.send_text("hello").await;
    tunnel.next().await;
    let mut leaving = gateway.client().await;
    up.set(Answer::ok("late").delay(Duration::from_secs(30)));
    leaving.send("GET /up HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    // Health checks ask the service too, so its count tells nothing.
    eventually("the request", async || {
        gateway.metric("sluice_http_requests_in_flight").await >= 1.0
    })
    .await;
    leaving.reset();
    eventually("the abort", async || gateway.metric("sluice_client_aborts_total").await >= 1.0)
        .await;
    gateway.daemon.signal("HUP");
    gateway.wait_for_generation(2).await;

    let text = gateway.admin("/metrics").await.text();
    promtool_check(&text).unwrap_or_else(|complaint| panic!("{complaint}\n{text}"));
    for (series, at_least) in [
        ("http_requests_total{method=\"GET\",status=\"200\"}", 4.0),
        ("gateway_requests_seconds_bucket{route=\"up\",le=\"30\"}", 2.0),
        ("gateway_requests_by_route_total{route=\"none\",class=\"4xx\",source=\"gateway\"}", 2.0),
        ("http_client_requests_total{upstream=\"two\",class=\"4xx\"}", 1.0),
        ("circuitbreaker_state{upstream=\"gone\",state=\"open\"}", 1.0),
        ("sluice_upstream_errors_total{upstream=\"gone\",reason=\"connect_refused\"}", 1.0),
        ("sluice_rejected_total{reason=\"rate_limited\"}", 1.0),
        ("sluice_websocket_connections", 1.0),
        ("sluice_tls_handshake_errors_total", 1.0),
        ("sluice_endpoint_up{upstream=\"up\"}", 1.0),
        ("sluice_tls_cert_not_after_timestamp_seconds{sni=\"localhost\"}", 1.0),
        ("process_open_fds", 10.0),
    ] {
        let value = gateway.metric(series).await;
        assert!(value >= at_least, "{series} is {value} in\n{text}");
    }
    assert!(text.contains("route=\"odd \\\"name\\\" \\\\ with {braces}\""), "{text}");
    assert_eq!(gateway.metric("sluice_panics_total").await, 0.0);
}

#[tokio::test]
async fn series_of_what_was_removed_are_gone() {
    const BEFORE: &str = r#"
upstreams:
  leaving: { endpoints: [ { address: "{up}" } ], breaker: { failure_rate: 50% } }
  staying: { endpoints: [ { address: "{up}" } ] }
routes:
  - { id: left, match: { path: /left }, upstream: leaving }
  - { id: stayed, match: { path: /stayed }, upstream: staying }
"#;
    const AFTER: &str = r#"
upstreams: { staying: { endpoints: [ { address: "{up}" } ] } }
routes: [ { id: stayed, match: { path: /stayed }, upstream: staying } ]
"#;
    let recorder = Recorder::start();
    let fill = |config: &str| config.replace("{up}", &recorder.addr().to_string());
    let gateway = Gateway::start(&fill(BEFORE)).await;
    for path in ["/left", "/stayed"] {
        assert_eq!(gateway.get(path).await.status, 200);
    }
    let of = |all: &[String], label: &str| all.iter().filter(|s| s.contains(label)).count();
    let before = series(&gateway).await;
    assert!(
        of(&before, "route=\"left\"") > 2 && of(&before, "upstream=\"leaving\"") > 5,
        "{before:?}"
    );
    gateway.write_config(&fill(AFTER));
    gateway.wait_for_generation(2).await;
    eventually("the series to go", async || {
        let now = series(&gateway).await;
        of(&now, "left") == 0 && of(&now, "leaving") == 0
    })
    .await;
    let after = series(&gateway).await;
    assert_eq!(of(&after, "route=\"stayed\""), of(&before, "route=\"stayed\""));
    assert!(gateway.metric("gateway_requests_by_route_total{route=\"stayed\"}").await == 1.0);
}

#[tokio::test]
async fn callers_cannot_make_series() {
    const CONFIG: &str = r#"
upstreams: { echo: { builtin: echo } }
routes:
  - id: any
    match: { path: "/any/{x}" }
    filters: [ { rate_limit: { limit: 1000000, per: 1h, key: "header:X-Key" } } ]
    upstream: echo
"#;
    let gateway = Gateway::start(CONFIG).await;
    let mut client = gateway.client().await;
    for (method, path, host) in
        [("GET", "/any/1", "a"), ("GET", "/x", "a"), ("BREW", "/any/1", "a")]
    {
        client.request(method, path, host, &[], b"").await;
    }
    let before = series(&gateway).await;
    for n in 0..1000 {
        let (path, host) = (format!("/any/{n}-x"), format!("h{n}.test"));
        let (key, other) = (format!("k{n}"), format!("/elsewhere/{n}"));
        let method = format!("M{n}");
        let (method, path) = match n % 3 {
            0 => ("GET", &*path),
            1 => ("GET", &*other),
            _ => (&*method, &*path),
        };
        let answer = client
            .request(method, path, &host, &[("X-Key", &key), ("User-Agent", &key)], b"")
            .await;
        assert_eq!(answer.status, [200, 404, 501][n % 3], "{method} {path}");
    }
    let after = series(&gateway).await;
    assert_eq!(before, after);
    // A third of the names, the first one, and the address they all came from.
    assert_eq!(gateway.metric("sluice_ratelimit_keys").await, 336.0);
}

#[tokio::test]
async fn pages_tell_what_is_in_force() {
    const CONFIG: &str = r#"
upstreams:
  up:
    endpoints: [ { address: "{up}", weight: 3 }, { address: "127.0.0.1:9", backup: true } ]
    breaker: { failure_rate: 50% }
  echo: { builtin: echo }
routes:
  - id: wide
    match: { path: "/**" }
    upstream: echo
  - id: narrow
    match: { hosts: [ a.test ], path: "/users/{id}", methods: [ GET ] }
    filters: [ { strip_prefix: 1 }, { request_id: {} } ]
    upstream: up
"#;
    let recorder = Recorder::start();
    let gateway = Gateway::start(&CONFIG.replace("{up}", &recorder.addr().to_string())).await;
    assert_eq!(get(gateway.http, "a.test", "/users/7").await.status, 200);

    let page = gateway.admin("/").await.text();
    for path in ["/metrics", "/livez", "/readyz", "/config", "/routes", "/upstreams", "/jwks"] {
        assert!(page.contains(path), "{page}");
        let answer = gateway.admin(path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
    }
    assert_eq!(gateway.admin("/livez").await.text(), "alive\n");
    assert_eq!(gateway.admin("/readyz").await.text(), "ready\n");
    assert_eq!(gateway.admin("/secrets").await.status, 404);

    let config = gateway.admin("/config").await.json();
    assert_eq!(config["generation"], 1);
    assert_eq!(config["hash"].as_str().unwrap().len(), 16);
    assert_eq!((config["routes"].as_u64(), config["upstreams"].as_u64()), (Some(2), Some(2)));
    assert_eq!(
        (&config["last_problems"], &config["development"]),
        (&serde_json::Value::Null, &false.into())
    );
    assert_eq!(config["listeners"][0]["name"], "plain");
    assert_eq!(config["listeners"][0]["address"], gateway.http.to_string());

    let routes = gateway.admin("/routes").await.json();
    let routes = &routes["in_order_of_precedence"];
    assert_eq!(
        (routes[0]["id"].as_str(), routes[1]["id"].as_str()),
        (Some("narrow"), Some("wide"))
    );
    let narrow = &routes[0]["match"];
    assert_eq!(narrow["path"], "/users/{id}");
    assert_eq!(narrow["hosts"], serde_json::json!(["a.test"]));
    assert_eq!(narrow["filters"], serde_json::json!(["request_id", "strip_prefix"]));
    assert_eq!(narrow["upstream"], "up");

    let upstreams = gateway.admin("/upstreams").await.json();
    assert_eq!(upstreams["echo"]["builtin"], "echo");
    let first = &upstreams["up"]["endpoints"][0];
    assert_eq!(first["endpoint"], recorder.addr().to_string());
    assert_eq!((first["weight"].as_u64(), first["up"].as_bool()), (Some(3), Some(true)));
    assert_eq!((first["connections"].as_u64(), first["idle"].as_u64()), (Some(1), Some(1)));
    assert_eq!(upstreams["up"]["endpoints"][1]["backup"], true);
    assert_eq!(upstreams["up"]["breaker"]["state"], "closed");
}

/// Shows A-03.
#[tokio::test]
async fn only_reading_and_only_by_a_local_name() {
    let gateway = Gateway::start("routes: [ { id: a, filters: [ { respond: {} } ] } ]\n").await;
    for host in ["evil.example", "evil.example:9901", "127.0.0.1.evil.example", "10.0.0.1", ""] {
        for path in ["/", "/metrics", "/config"] {
            let answer = get(gateway.admin, host, path).await;
            assert_eq!(answer.status, 403, "{host} {path}");
            assert!(!answer.text().contains("hash") && !answer.text().contains("sluice_"));
        }
    }
    for host in ["localhost", "127.0.0.1:1", "[::1]:9901"] {
        assert_eq!(get(gateway.admin, host, "/livez").await.status, 200, "{host}");
    }
    let mut client = Client::connect(gateway.admin).await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = client.request(method, "/config", "localhost", &[], b"").await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
    let head = client.request("HEAD", "/metrics", "localhost", &[], b"").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}

/// Shows A-05.
#[tokio::test]
async fn secrets_are_on_no_page_and_in_no_message() {
    const CONFIG: &str = r#"
upstreams: { up: { endpoints: [ { address: "{up}" } ] } }
routes:
  - id: private
    match: { path: /private }
    filters:
      - jwt: { keys: [ { kid: k, alg: HS256, secret: "${SECRET}" }, { kid: l, alg: HS256, secret_file: l.key } ] }
    upstream: up
  - id: keyed
    match: { path: /keyed }
    filters:
      - headers: { request: { set: { X-Api-Key: "${file:api.key}", X-More: "Bearer ${SECRET}" } } }
    upstream: up
"#;
    const CANARIES: [&str; 3] = [
        "canary-one-0123456789abcdef0123456789",
        "canary-two-0123456789abcdef0123456789",
        "canary-three-0123456789abcdef012345678",
    ];
    let recorder = Recorder::start();
    let setup = Setup {
        env: vec![("SECRET", CANARIES[0].to_owned())],
        files: vec![("l.key", CANARIES[1].to_owned()), ("api.key", CANARIES[2].to_owned())],
        ..Setup::default()
    };
    let config = CONFIG.replace("{up}", &recorder.addr().to_string());
    let gateway = Gateway::start_with(&config, setup).await;
    assert_eq!(gateway.get("/keyed").await.status, 200);
    assert_eq!(gateway.get("/private").await.status, 401);
    let seen = recorder.requests().pop().unwrap();
    assert_eq!(seen.header("x-api-key"), Some(CANARIES[2]), "the secret is not in use");
    assert_eq!(seen.header("x-more"), Some(&*format!("Bearer {}", CANARIES[0])));

    let silent = async |what: &str| {
        for page in ["/", "/metrics", "/readyz", "/config", "/routes", "/upstreams", "/jwks"] {
            let text = gateway.admin(page).await.text();
            for canary in CANARIES {
                assert!(!text.contains(&canary[..12]), "{what}: {page} shows {canary}");
            }
        }
        let said = gateway.daemon.output();
        for canary in CANARIES {
            assert!(!said.contains(&canary[..12]), "{what}: the log shows {canary} in {said}");
        }
    };
    silent("good").await;
    // Secrets where they do not belong are told about without being told.
    for (nth, (from, to)) in (1..).zip([
        ("path: /private", "path: \"${SECRET}\""),
        ("path: /private", "methods: [ \"${SECRET} x\" ]"),
        ("alg: HS256, secret: \"${SECRET}\"", "alg: \"${SECRET}\""),
        ("X-More: \"Bearer ${SECRET}\"", "X-More: \"Bearer {${SECRET}}\""),
        ("X-Api-Key: \"${file:api.key}\"", "X-Api-Key: \"{claim.${file:api.key}\""),
        ("{ address: \"", "{ address: \"${file:l.key} "),
        ("id: private", "\"${SECRET}\": private"),
        ("kid: k, alg", "kid: \"${SECRET}\", alg: [ \"${SECRET}\" ], aIg"),
    ]) {
        assert!(config.contains(from), "{from}");
        gateway.write_config(&config.replacen(from, to, 1));
        eventually(&format!("the refusal of {to}"), async || {
            gateway.metric("sluice_config_reloads_total{result=\"rejected\"}").await
                >= f64::from(nth)
        })
        .await;
        let page = gateway.admin("/config").await.json();
        assert!(page["last_problems"].as_str().unwrap().contains("error"), "{to}");
        silent(to).await;
    }
}

/// Shows A-07.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_are_answered_while_every_worker_is_busy() {
    let gateway =
        Gateway::start("routes: [ { id: a, filters: [ { respond: { body: x } } ] } ]\n").await;
    let plan = Plan::new(gateway.http, "/").per_second(20_000).duration(Duration::from_secs(30));
    let running = plan.keepalive(true).start();
    eventually("some load", async || running.sent() > 2000).await;
    for _ in 0..20 {
        for page in ["/metrics", "/readyz", "/config"] {
            assert_eq!(gateway.admin(page).await.status, 200, "{page}");
        }
    }
    let during = running.sent();
    let tally = running.stop().await;
    assert!(tally.sent >= during && tally.ok > 2000, "{} of {} answered", tally.ok, tally.sent);
}
