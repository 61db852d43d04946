//! What somebody who means harm, or merely bad timing, could do to the gateway: each case once worked.

use std::net::SocketAddr;
use std::time::Duration;

use sluice_chaos::process::{Redis, free_port};
use sluice_chaos::raw::{self, Client};
use sluice_chaos::recorder::{Answer, Recorder};

use crate::support::{Gateway, Setup, eventually};

/// Shows HD-11.
#[tokio::test]
async fn bytes_that_are_no_text_do_not_hide_who_calls_behind_a_proxy() {
    let gateway = Gateway::start(
        r#"
trusted_proxies: [ 127.0.0.0/8 ]
upstreams: { echo: { builtin: echo } }
routes:
  - id: inside
    match: { path: /inside }
    filters: [ { ip_rules: { allow: [ 127.0.0.0/8 ] } } ]
    upstream: echo
"#,
    )
    .await;
    // The caller, at 203.0.113.9, sent `\xff`; the trusted proxy has added the address behind it.
    for list in [&b"\xff, 203.0.113.9"[..], b"127.0.0.1\xe9, 203.0.113.9", b"203.0.113.9"] {
        let head = [b"GET /inside HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: ", list, b"\r\n\r\n"];
        let answer = raw::exchange(gateway.http, head.concat()).await;
        assert_eq!(answer.status, 403, "{}", list.escape_ascii());
    }
    assert_eq!(gateway.get("/inside").await.status, 200);
}

/// The lines of a table that takes long to compile, and of one route that tells its version.
fn table(routes: usize, version: &str) -> String {
    let mut text = format!(
        "allow_shrink: true\nroutes:\n  - {{ id: version, match: {{ path: /version }}, filters: [ {{ respond: {{ body: \"{version}\" }} }} ] }}\n"
    );
    for n in 0..routes {
        text.push_str(&format!(
            "  - {{ id: r{n}, match: {{ path: \"/r{n}/{{id}}\" }}, filters: [ {{ respond: {{ body: \"{n}\" }} }} ] }}\n"
        ));
    }
    text
}

#[tokio::test]
async fn a_change_made_while_another_is_compiled_is_not_overlooked() {
    let gateway = Gateway::start(&table(0, "one")).await;
    for round in 0..2 {
        let (slow, quick) = (format!("slow {round}"), format!("quick {round}"));
        gateway.write_config(&table(10_000, &slow));
        // Noticed, settled, and now being compiled.
        tokio::time::sleep(Duration::from_millis(700)).await;
        gateway.write_config(&table(0, &quick));
        eventually("the second change", async || gateway.get("/version").await.text() == quick)
            .await;
    }
}

const FRAMED: &str = r#"listeners:
  - { name: plain, address: "{http}", timeouts: { head: 500ms, keepalive: 3s } }
"#;

#[tokio::test]
async fn an_http2_connection_that_answers_pings_is_not_cut_as_a_slow_head() {
    let gateway = Gateway::start_with(
        "upstreams: { echo: { builtin: echo } }\nroutes: [ { id: r, match: { path: / }, upstream: echo } ]\n",
        Setup { listeners: Some(FRAMED), ..Setup::default() },
    )
    .await;
    let mut client = Client::connect(gateway.http).await;
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    client.send([0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
    // GET http://a/ with the static table and one literal.
    let head = [0x82, 0x86, 0x84, 0x41, 1, b'a'];
    let stream = |id: u8| [&[0, 0, 6, 1, 5, 0, 0, 0, id][..], &head].concat();
    client.send(stream(1)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    client.send([0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]).await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    client.send(stream(3)).await;
    assert_eq!(gateway.log_lines(2).await[1]["status"], 200);
    // Nor does anything but a request keep it: it ends in good order, and then it ends.
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let _ = client.try_send([0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]).await;
    }
    assert_eq!(gateway.metric("sluice_client_connections").await, 0.0);
}

#[tokio::test]
async fn a_listener_may_be_renamed_and_two_may_change_places() {
    const CONFIG: &str =
        "routes: [ { id: r, match: { path: / }, filters: [ { respond: {} } ] } ]\n";
    let gateway = Gateway::start(CONFIG).await;
    let other = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let text = std::fs::read_to_string(gateway.config_path()).unwrap();
    let line = format!("  - {{ name: plain, address: \"{}\" }}\n", gateway.http);
    assert!(text.contains(&line), "{text}");
    let with = |first: SocketAddr, second: SocketAddr| {
        let lines = format!(
            "  - {{ name: renamed, address: \"{first}\" }}\n  - {{ name: more, address: \"{second}\" }}\n"
        );
        std::fs::write(gateway.config_path(), text.replace(&line, &lines)).unwrap();
    };
    for (generation, first, second) in [(2, gateway.http, other), (3, other, gateway.http)] {
        with(first, second);
        gateway.wait_for_generation(generation).await;
        for address in [first, second] {
            eventually("the listener", async || Client::try_connect(address).await.is_ok()).await;
            assert_eq!(raw::get(address, "localhost", "/").await.status, 200);
        }
    }
}

#[tokio::test]
async fn a_redis_that_left_the_config_is_let_go() {
    let redis = Redis::start().await;
    let rest = "\nroutes: [ { id: r, match: { path: / }, filters: [ { rate_limit: { limit: 9, per: 1h } }, { respond: {} } ] } ]\n";
    let clients = async || redis.command(&["CLIENT", "LIST"]).await.matches("addr=127").count();
    let alone = clients().await;
    let gateway = Gateway::start(&format!("redis: {{ url: \"{}\" }}{rest}", redis.url())).await;
    eventually("a connection to Redis", async || {
        gateway.get("/").await;
        clients().await > alone
    })
    .await;
    gateway.write_config(rest);
    gateway.wait_for_generation(2).await;
    eventually("the connections to close", async || clients().await == alone).await;
}

#[tokio::test]
async fn a_connection_that_is_waited_for_still_ends_after_its_number_of_requests() {
    let recorder = Recorder::answering(Answer::ok("x").delay(Duration::from_millis(20)));
    let config = format!(
        r#"
upstreams:
  up:
    endpoints: [ {{ address: "{}" }} ]
    keepalive: {{ max_connections: 1, max_requests: 2, max_wait: 5s }}
routes: [ {{ id: r, match: {{ path: / }}, upstream: up }} ]
"#,
        recorder.addr()
    );
    let setup = Setup { workers: Some(1), ..Setup::default() };
    let gateway = Gateway::start_with(&config, setup).await;
    let calls = (0..8).map(|_| tokio::spawn(raw::get(gateway.http, "localhost", "/")));
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap().status, 200);
    }
    let most = recorder.requests().iter().map(|request| request.sequence).max();
    assert_eq!(most, Some(2));
}

#[tokio::test]
async fn a_route_with_cors_of_its_own_answers_by_it_and_not_by_the_global_one() {
    let gateway = Gateway::start(
        r#"
filters: [ { cors: { origins: [ "https://all.example" ] } } ]
routes:
  - id: own
    match: { path: /own }
    filters: [ { cors: { origins: [ "https://own.example" ] } }, { respond: {} } ]
"#,
    )
    .await;
    for (method, asked) in [("GET", "X-None"), ("OPTIONS", "Access-Control-Request-Method")] {
        for (origin, expected) in
            [("https://own.example", Some("https://own.example")), ("https://all.example", None)]
        {
            let headers = [("Origin", origin), (asked, "GET")];
            let answer =
                gateway.client().await.request(method, "/own", "localhost", &headers, b"").await;
            let allowed = answer.header("access-control-allow-origin");
            assert_eq!(allowed, expected, "{method} from {origin}");
        }
    }
}

/// Shows HD-03.
#[tokio::test]
async fn a_stranger_cannot_claim_tls_or_another_address_by_rarer_names() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&format!(
        "upstreams: {{ up: {{ endpoints: [ {{ address: \"{}\" }} ] }} }}\nroutes: [ {{ id: r, match: {{ path: / }}, upstream: up }} ]\n",
        recorder.addr()
    ))
    .await;
    let names = ["X-Forwarded-Ssl", "X-Forwarded-Scheme", "X-Client-IP", "X-Cluster-Client-IP"];
    let headers = names.map(|name| (name, "1"));
    gateway.client().await.request("GET", "/", "localhost", &headers, b"").await;
    let seen = recorder.wait_for(1).await;
    for name in names {
        assert_eq!(seen[0].header(name), None, "{name}");
    }
}
