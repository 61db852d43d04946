//! Whose failures open which breaker, and who is still served then.

use std::time::Duration;

use sluice_chaos::recorder::{Answer, Recorder};
use sluice_chaos::rogue::Rogue;

use super::{fill, page, state};
use crate::support::{Gateway, eventually};

#[tokio::test]
async fn an_open_endpoint_is_passed_over_until_none_is_left() {
    const CONFIG: &str = r#"
upstreams:
  up:
    endpoints: [ { address: "{0}" }, { address: "{1}" }, { address: "{2}" } ]
    endpoint_breaker: { consecutive_failures: 2, open_for: 1s, half_open_requests: 1, ramp: 0s }
    ejection: { enabled: false }
routes: [ { id: up, upstream: up } ]
"#;
    let recorders = [200, 503, 503].map(|status| Recorder::answering(Answer::new(status)));
    let gateway = Gateway::start(&fill(CONFIG, &recorders.each_ref())).await;
    let names = recorders.each_ref().map(|it| format!("endpoint:up/{}", it.addr()));
    let bad = async || {
        let mut bad = 0;
        for _ in 0..12 {
            bad += usize::from(gateway.get("/a").await.status != 200);
        }
        bad
    };
    // Two failures each, and now and then a trial of each.
    assert!((4..=8).contains(&bad().await), "not two failures of each of two");
    for _ in 0..3 {
        assert!(bad().await <= 6, "more than a trial of each now and then");
    }
    assert_eq!(state(&gateway, &names[0]).await, "closed");
    assert_ne!(state(&gateway, &names[1]).await, "closed");
    let upstreams = page(&gateway, "/upstreams").await;
    let of = |index: usize| upstreams["up"]["endpoints"][index].clone();
    assert_eq!((&of(0)["tripped"], &of(0)["breaker"]["state"]), (&false.into(), &"closed".into()));
    assert_ne!(of(1)["breaker"]["state"], "closed");
    assert_eq!(of(1)["up"], true, "the health check has said nothing");
    assert!(of(1)["breaker"]["failures_in_a_row"].is_u64(), "{upstreams}");

    // When all are open, callers are refused.
    recorders[0].set(Answer::new(502));
    eventually("a refusal", async || {
        let answer = gateway.get("/a").await;
        answer.status == 503 && answer.text().contains("breaker_open")
    })
    .await;
    let refused = async || {
        let lines = gateway.log_lines(1).await;
        lines.into_iter().find(|line| line["reason"] == "breaker_open")
    };
    eventually("its line", async || refused().await.is_some()).await;
    let breaker = refused().await.unwrap()["breaker"].as_str().unwrap().to_owned();
    assert!(names.contains(&breaker), "{breaker}");
    let rejected = gateway.metric("sluice_breaker_rejected_total{scope=\"endpoint\"}").await;
    assert!(rejected >= 1.0, "{rejected}");

    // And when one of them recovers, it is found by a trial and serves them all.
    recorders[2].set(Answer::ok("well"));
    eventually("the recovery", async || {
        gateway.get("/a").await;
        state(&gateway, &names[2]).await == "closed"
    })
    .await;
    assert!(bad().await <= 6);
}

#[tokio::test]
async fn a_route_is_refused_and_its_neighbour_is_served() {
    const CONFIG: &str = r#"
upstreams: { up: { endpoints: [ { address: "{0}" } ] } }
routes:
  - id: poor
    match: { path: /poor }
    upstream: up
    breaker: { consecutive_failures: 2, open_for: 60s, failures: [500, 429] }
  - id: slow
    match: { path: /slow }
    upstream: up
    breaker: { slow_calls: { longer_than: 50ms }, window_calls: 4, min_requests: 4, open_for: 60s }
  - { id: rich, match: { path: /rich }, upstream: up }
"#;
    let recorder = Recorder::deciding(|request| match &*request.target {
        "/poor?1" => Answer::new(500),
        "/poor?2" => Answer::new(429),
        "/poor?3" => Answer::new(503),
        "/slow?1" => Answer::ok("late").delay(Duration::from_millis(80)),
        _ => Answer::ok("well"),
    });
    let gateway = Gateway::start(&fill(CONFIG, &[&recorder])).await;
    for (path, status) in
        [("/poor?1", 500), ("/poor?3", 503), ("/poor?2", 429), ("/poor", 200), ("/poor?1", 500)]
    {
        assert_eq!(gateway.get(path).await.status, status, "{path}");
        assert_eq!(state(&gateway, "route:poor").await, "closed", "{path}");
    }
    assert_eq!(gateway.get("/poor?2").await.status, 429);
    let refused = gateway.get("/poor").await;
    assert_eq!((refused.status, refused.json()["reason"].as_str()), (503, Some("breaker_open")));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(gateway.get("/rich").await.status, 200);

    for path in ["/slow", "/slow", "/slow?1", "/slow?1"] {
        assert_eq!(gateway.get(path).await.status, 200);
    }
    let slow = page(&gateway, "/breakers/route:slow").await;
    // A busy machine may have made one of the others slow, too.
    assert_eq!(
        (slow["state"].as_str(), slow["timeline"][0]["why"].as_str()),
        (Some("open"), Some("slow_calls"))
    );
    assert_eq!(gateway.get("/slow").await.status, 503);
    assert_eq!(gateway.get("/rich").await.status, 200);
    assert_eq!(gateway.metric("circuitbreaker_state{route=\"slow\",state=\"open\"}").await, 1.0);
}

#[tokio::test]
async fn what_is_not_listed_does_not_count_and_grpc_says_it_in_its_own_way() {
    const CONFIG: &str = r#"
upstreams:
  gone: { endpoints: [ { address: "{gone}" } ], breaker: { consecutive_failures: 2, failures: [5xx, timeout] } }
  late:
    endpoints: [ { address: "{0}" } ]
    timeouts: { head: 50ms }
    breaker: { consecutive_failures: 2, failures: [timeout] }
  grpc:
    endpoints: [ { address: "{grpc}" } ]
    breaker: { consecutive_failures: 2, open_for: 60s }
routes:
  - { id: gone, match: { path: /gone }, upstream: gone }
  - { id: late, match: { path: /late }, upstream: late }
  - { id: grpc, match: { path: /grpc }, upstream: grpc }
"#;
    let late = Recorder::answering(Answer::ok("late").delay(Duration::from_secs(20)));
    let gone = Rogue::refuse();
    let grpc = Recorder::answering(Answer::ok("").header("grpc-status", "14"));
    let config = fill(CONFIG, &[&late]).replace("{gone}", &gone.addr().to_string());
    let gateway = Gateway::start(&config.replace("{grpc}", &grpc.addr().to_string())).await;
    for _ in 0..4 {
        assert_eq!(gateway.get("/gone").await.status, 502);
    }
    assert_eq!(state(&gateway, "upstream:gone").await, "closed");
    for _ in 0..2 {
        assert_eq!(gateway.get("/late").await.status, 504);
    }
    let late = page(&gateway, "/breakers/upstream:late").await;
    assert_eq!(late["timeline"][0]["window"]["reasons"]["upstream_timeout"], 2, "{late}");
    // Who does not speak gRPC means nothing by such a field.
    let call = async |content: &str| {
        let mut client = gateway.client().await;
        let fields = [("Content-Type", content), ("TE", "trailers")];
        client.request("POST", "/grpc", "localhost", &fields, b"").await
    };
    for _ in 0..3 {
        call("text/plain").await;
    }
    assert_eq!(state(&gateway, "upstream:grpc").await, "closed");
    for _ in 0..2 {
        call("application/grpc").await;
    }
    let grpc = page(&gateway, "/breakers/upstream:grpc").await;
    assert_eq!(
        (grpc["state"].as_str(), grpc["timeline"][0]["top_reason"].as_str()),
        (Some("open"), Some("grpc_unavailable"))
    );
}

/// Shows U-28.
#[tokio::test]
async fn after_closing_not_everybody_comes_at_once() {
    const CONFIG: &str = r#"
upstreams:
  up: { endpoints: [ { address: "{0}" } ], breaker: { consecutive_failures: 1, open_for: 500ms, half_open_requests: 1, ramp: 60s } }
routes: [ { id: up, upstream: up } ]
"#;
    let recorder = Recorder::answering(Answer::new(503));
    let gateway = Gateway::start(&fill(CONFIG, &[&recorder])).await;
    gateway.get("/a").await;
    recorder.set(Answer::ok("well"));
    eventually("the trial", async || gateway.get("/a").await.status == 200).await;
    assert_eq!(state(&gateway, "upstream:up").await, "closed");
    let mut passed = 0;
    for _ in 0..100 {
        passed += usize::from(gateway.get("/a").await.status == 200);
    }
    let share = page(&gateway, "/breakers").await["upstream:up"]["share_let_through"].as_f64();
    // By chance a tenth and more; all of them only if the machine took a minute for this.
    assert!(
        (1..80).contains(&passed) && share.is_some_and(|share| share >= 0.1),
        "{passed} {share:?}"
    );
}
