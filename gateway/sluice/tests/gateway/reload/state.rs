//! What a reload leaves as it is: counts, breakers, connections, turns, requests under way.

use std::time::Duration;

use sluice_chaos::h2up::{H2Upstream, Mode};
use sluice_chaos::recorder::{Answer, Recorder};

use super::{edited, rename_over};
use crate::support::{Gateway, Setup, eventually};

async fn start(config: &str, recorders: &[&Recorder]) -> Gateway {
    let mut config = config.to_owned();
    for (index, recorder) in recorders.iter().enumerate() {
        config = config.replace(&format!("{{up{index}}}"), &recorder.addr().to_string());
    }
    // One worker, so that pools and turns can be foreseen.
    Gateway::start_with(&config, Setup { workers: Some(1), ..Setup::default() }).await
}

#[tokio::test]
async fn counts_survive_and_a_raised_limit_counts_what_was_used() {
    const CONFIG: &str = r#"
upstreams: { echo: { builtin: echo } }
routes:
  - id: limited
    match: { path: /limited }
    filters: [ { rate_limit: { limit: 3, per: 10m } } ]
    upstream: echo
  - { id: other, match: { path: /other }, upstream: echo }
"#;
    let gateway = start(CONFIG, &[]).await;
    for expected in [200, 200, 200, 429] {
        assert_eq!(gateway.get("/limited").await.status, expected);
    }
    rename_over(&gateway, &edited(&gateway, "path: /other", "path: /changed"));
    gateway.wait_for_generation(2).await;
    assert_eq!(gateway.get("/changed").await.status, 200);
    assert_eq!(gateway.get("/limited").await.status, 429, "the reload forgot the counts");

    rename_over(&gateway, &edited(&gateway, "limit: 3", "limit: 5"));
    gateway.wait_for_generation(3).await;
    for (expected, left) in [(200, "1"), (200, "0"), (429, "0")] {
        let answer = gateway.get("/limited").await;
        let told = (answer.header("ratelimit-limit"), answer.header("ratelimit-remaining"));
        assert_eq!((answer.status, told), (expected, (Some("5"), Some(left))));
    }
    rename_over(&gateway, &edited(&gateway, "limit: 5", "limit: 2"));
    gateway.wait_for_generation(4).await;
    assert_eq!(gateway.get("/limited").await.status, 429);
}

#[tokio::test]
async fn an_open_breaker_stays_open() {
    const CONFIG: &str = r#"
upstreams:
  up:
    endpoints: [ { address: "{up0}" } ]
    breaker: { consecutive_failures: 2, open_for: 10m }
routes:
  - { id: up, match: { path: /up }, upstream: up }
"#;
    let recorder = Recorder::answering(Answer::new(503));
    let gateway = start(CONFIG, &[&recorder]).await;
    for _ in 0..2 {
        assert_eq!(gateway.get("/up").await.status, 503);
    }
    assert_eq!(gateway.metric("circuitbreaker_state{state=\"open\"}").await, 1.0);
    recorder.set(Answer::ok("well"));
    rename_over(&gateway, &edited(&gateway, "open_for: 10m", "open_for: 9m"));
    gateway.wait_for_generation(2).await;
    let refused = gateway.get("/up").await;
    assert_eq!((refused.status, refused.json()["reason"].as_str()), (503, Some("breaker_open")));
    assert_eq!(gateway.metric("circuitbreaker_state{state=\"open\"}").await, 1.0);
    assert_eq!(recorder.begun(), 2);
}

#[tokio::test]
async fn kept_connections_are_used_on_and_turns_go_on() {
    const CONFIG: &str = r#"
upstreams:
  up:
    endpoints: [ { address: "{up0}" }, { address: "{up1}" }, { address: "{up2}" } ]
    keepalive: { idle_timeout: 5m }
routes:
  - { id: up, match: { path: /up }, upstream: up }
"#;
    let recorders = [0, 1, 2].map(|n| Recorder::answering(Answer::ok(n.to_string())));
    let gateway = start(CONFIG, &[&recorders[0], &recorders[1], &recorders[2]]).await;
    let mut turns = Vec::new();
    for generation in 2..8 {
        for _ in 0..4 {
            turns.push(gateway.get("/up").await.text());
        }
        rename_over(&gateway, &(edited(&gateway, "version: 1", "version: 1") + "# again\n"));
        gateway.wait_for_generation(generation).await;
    }
    let repeated = turns.windows(4).all(|turn| turn[0] == turn[3] && turn[0] != turn[1]);
    assert!(repeated, "a reload starts the turns over: {turns:?}");
    for recorder in &recorders {
        assert_eq!((recorder.requests().len(), recorder.connections()), (8, 1));
    }
    assert_eq!(gateway.metric("sluice_pool_opened_total").await, 3.0);

    // Other settings of the connections are other connections; the old ones are closed.
    rename_over(&gateway, &edited(&gateway, "idle_timeout: 5m", "idle_timeout: 4m"));
    gateway.wait_for_generation(8).await;
    for _ in 0..3 {
        assert_eq!(gateway.get("/up").await.status, 200);
    }
    for recorder in &recorders {
        recorder.wait_for_open(1).await;
        assert_eq!(recorder.connections(), 2);
    }
    let gone = gateway.metric("sluice_pool_closed_total{reason=\"endpoint_gone\"}").await;
    assert_eq!((gone, gateway.metric("sluice_pool_opened_total").await), (3.0, 6.0));
}

/// Idle connections kept their endpoint alive, which kept them: over HTTP/2 for ever.
#[tokio::test]
async fn connections_to_a_removed_endpoint_are_closed() {
    const CONFIG: &str = r#"
upstreams:
  old: { endpoints: [ { address: "{up0}" } ], keepalive: { idle_timeout: 5m } }
  two: { endpoints: [ { address: "{h2}" } ], protocol: http2 }
  new: { endpoints: [ { address: "{up1}" } ] }
routes:
  - { id: old, match: { path: /old }, upstream: old }
  - { id: two, match: { path: /two }, upstream: two }
  - { id: new, match: { path: /new }, upstream: new }
"#;
    let (old, new) = (Recorder::start(), Recorder::start());
    let two = H2Upstream::start(Mode::Answer(200, "ok".into()));
    let config = CONFIG.replace("{h2}", &two.addr().to_string());
    let gateway = start(&config, &[&old, &new]).await;
    for path in ["/old", "/two", "/new"] {
        assert_eq!(gateway.get(path).await.status, 200, "{path}");
    }
    assert_eq!((old.open(), two.connections()), (1, 1));
    let moved = edited(&gateway, "upstream: old", "upstream: new")
        .replace("upstream: two", "upstream: new");
    let kept: Vec<&str> = moved
        .lines()
        .filter(|line| !line.starts_with("  old:") && !line.starts_with("  two:"))
        .collect();
    rename_over(&gateway, &kept.join("\n"));
    gateway.wait_for_generation(2).await;
    old.wait_for_open(0).await;
    eventually("the removed upstreams' series to go", async || {
        let page = gateway.admin("/metrics").await.text();
        !page.contains("upstream=\"old\"") && !page.contains("upstream=\"two\"")
    })
    .await;
    assert_eq!(gateway.metric("sluice_pool_opened_total{upstream=\"new\"}").await, 1.0);
}

#[tokio::test]
async fn a_request_under_way_ends_on_the_route_it_began_on() {
    const CONFIG: &str = r#"
upstreams: { up: { endpoints: [ { address: "{up0}" } ] } }
routes:
  - id: old
    match: { path: /old }
    filters: [ { headers: { response: { set: { X-Table: old } } } } ]
    upstream: up
  - { id: other, match: { path: /other }, filters: [ { respond: {} } ] }
"#;
    let recorder = Recorder::answering(Answer::ok("late").delay(Duration::from_secs(2)));
    let gateway = start(CONFIG, &[&recorder]).await;
    let mut client = gateway.client().await;
    client.send("GET /old HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    recorder.wait_for_begun(1).await;
    gateway.write_config(
        "routes: [ { id: other, match: { path: /other }, filters: [ { respond: {} } ] } ]\n",
    );
    gateway.wait_for_generation(2).await;
    assert_eq!(gateway.get("/old").await.status, 404);
    let answer = client.response().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "late"));
    assert_eq!(answer.header("x-table"), Some("old"));
}
