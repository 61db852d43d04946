//! What callers get where a service cannot be asked or does not answer.

use std::time::Duration;

use sluice_chaos::recorder::{Answer, Recorder};
use sluice_chaos::rogue::Rogue;

use super::{fill, page, state};
use crate::support::{Gateway, eventually, refusal};

async fn counted(gateway: &Gateway, route: &str, cause: &str, outcome: &str) -> f64 {
    let labels = format!("route=\"{route}\",cause=\"{cause}\",outcome=\"{outcome}\"");
    gateway.metric(&format!("sluice_fallback_total{{{labels}}}")).await
}

#[tokio::test]
async fn a_fixed_answer_stands_in_for_a_service_that_is_given_time_to_recover() {
    const CONFIG: &str = r#"
upstreams:
  up: { endpoints: [ { address: "{0}" } ], breaker: { consecutive_failures: 2, open_for: 60s } }
routes:
  - id: home
    match: { path: /home }
    upstream: up
    fallback:
      on: [breaker]
      respond: { status: 203, headers: { X-From: shelf }, body: '{ "items": [] }' }
  - { id: bare, match: { path: /bare }, upstream: up }
"#;
    let recorder = Recorder::answering(Answer::new(503));
    let gateway = Gateway::start(&fill(CONFIG, &[&recorder])).await;
    for _ in 0..2 {
        let own = gateway.get("/home").await;
        assert_eq!((own.status, own.header("x-sluice-degraded")), (503, None), "an answer is one");
    }
    for _ in 0..3 {
        let answer = gateway.get("/home").await;
        assert_eq!(answer.status, 203);
        assert_eq!(answer.json(), serde_json::json!({ "items": [] }));
        assert_eq!(answer.header("x-from"), Some("shelf"));
        assert_eq!(answer.header("x-sluice-degraded"), Some("fallback"));
        assert_eq!(answer.header("retry-after"), None);
    }
    assert_eq!(gateway.get("/bare").await.status, 503);
    assert_eq!(recorder.requests().len(), 2, "an open breaker let a request through");
    // A text is nothing to who speaks gRPC.
    let mut client = gateway.client().await;
    let fields = [("Content-Type", "application/grpc"), ("TE", "trailers")];
    let grpc = client.request("POST", "/home", "localhost", &fields, b"").await;
    assert_eq!((grpc.status, grpc.header("grpc-status")), (200, Some("14")));
    // A body that nobody reads does not spoil the connection's next request.
    let mut client = gateway.client().await;
    let posted = client.request("POST", "/home", "localhost", &[], &[b'x'; 1000]).await;
    assert_eq!(posted.status, 203);

    assert_eq!(counted(&gateway, "home", "breaker", "answered").await, 4.0);
    let find = async |status: u64| {
        let lines = gateway.log_lines(1).await;
        lines.into_iter().find(|line| line["route"] == "home" && line["status"] == status)
    };
    eventually("its line", async || find(203).await.is_some()).await;
    let line = find(203).await.unwrap();
    assert_eq!(
        (line["fallback"].as_str(), line["breaker"].as_str(), line["reason"].as_str()),
        (Some("breaker_open"), Some("upstream:up"), None)
    );
    assert_eq!(line["source"], "gateway");
}

#[tokio::test]
async fn another_upstream_gets_what_the_first_one_has_had_nothing_of() {
    const CONFIG: &str = r#"
upstreams:
  gone: { endpoints: [ { address: "{gone}" } ] }
  gone2: { endpoints: [ { address: "{gone}" } ], protocol: http2 }
  other: { endpoints: [ { address: "{0}" } ], bulkhead: { requests: 1, queue: 0 } }
routes:
  - { id: one, match: { path: /one }, upstream: gone, fallback: { upstream: other } }
  - { id: two, match: { path: /two }, upstream: gone2, fallback: { upstream: other } }
  - { id: tripped, match: { path: /tripped }, upstream: gone, breaker: { consecutive_failures: 1, open_for: 60s }, fallback: { on: [breaker], upstream: other } }
  - { id: late, match: { path: /late }, upstream: gone, fallback: { on: [timeout], upstream: other } }
  - { id: worse, match: { path: /worse }, upstream: gone, fallback: { upstream: gone2 } }
"#;
    let other = Recorder::answering(Answer::ok("other"));
    let gone = Rogue::refuse();
    let config = fill(CONFIG, &[&other]).replace("{gone}", &gone.addr().to_string());
    let gateway = Gateway::start(&config).await;
    for path in ["/one", "/two"] {
        for (method, body) in [("GET", vec![]), ("POST", vec![b'x'; 300_000])] {
            let mut client = gateway.client().await;
            let fields = [("X-Mine", "1"), ("X-Forwarded-For", "1.2.3.4")];
            let answer = client.request(method, path, "localhost", &fields, &body).await;
            assert_eq!((answer.status, &*answer.text()), (200, "other"), "{method} {path}");
            assert_eq!(answer.header("x-sluice-degraded"), Some("fallback"));
            let seen = other.requests().pop().unwrap();
            assert_eq!((&*seen.method, seen.body.len()), (method, body.len()), "{path}");
            for (name, value) in [
                ("x-mine", "1"),
                ("x-forwarded-for", "127.0.0.1"),
                ("x-forwarded-host", "localhost"),
            ] {
                let all: Vec<_> = seen.all(name);
                assert_eq!(all, [value], "{method} {path}");
            }
            assert_eq!(seen.all("via").len(), 1, "{method} {path}");
        }
    }
    assert_eq!(gateway.get("/tripped").await.status, 502, "that is no breaker yet");
    let answer = gateway.get("/tripped").await;
    assert_eq!((answer.status, &*answer.text()), (200, "other"));
    assert_eq!(gateway.get("/late").await.status, 502);
    // A fallback has none of its own: what it comes to is told.
    let worse = gateway.get("/worse").await;
    assert_eq!((worse.status, worse.json()["reason"].as_str()), (502, Some("connect_refused")));
    assert_eq!(worse.header("x-sluice-degraded"), None);
    assert_eq!(counted(&gateway, "worse", "connect", "failed").await, 1.0);
    assert_eq!(counted(&gateway, "one", "connect", "answered").await, 2.0);
    assert_eq!(counted(&gateway, "tripped", "breaker", "answered").await, 1.0);
    let find = async || {
        let lines = gateway.log_lines(1).await;
        lines.into_iter().find(|line| line["route"] == "tripped" && line["status"] == 200)
    };
    eventually("its line", async || find().await.is_some()).await;
    let line = find().await.unwrap();
    assert_eq!(
        (line["upstream"].as_str(), line["fallback"].as_str()),
        (Some("other"), Some("breaker_open"))
    );

    // The other upstream has a bulkhead of its own.
    other.set(Answer::ok("late").delay(Duration::from_secs(20)));
    let mut first = gateway.client().await;
    first.send("GET /one HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    eventually("the first one", async || {
        gateway.metric("sluice_bulkhead_in_progress{bulkhead=\"upstream:other\"}").await == 1.0
    })
    .await;
    let full = gateway.get("/tripped").await;
    assert_eq!((full.status, full.json()["reason"].as_str()), (503, Some("bulkhead_full")));
    first.reset();
    eventually("its place", async || {
        gateway.metric("sluice_bulkhead_in_progress{bulkhead=\"gateway\"}").await == 0.0
    })
    .await;
}

#[tokio::test]
async fn after_a_timeout_only_what_may_be_sent_twice_goes_elsewhere() {
    const CONFIG: &str = r#"
upstreams:
  slow: { endpoints: [ { address: "{0}" } ], timeouts: { head: 100ms, total: 300ms } }
  other: { endpoints: [ { address: "{1}" } ], breaker: { consecutive_failures: 2, open_for: 60s } }
routes:
  - { id: slow, match: { path: /slow }, upstream: slow, fallback: { upstream: other } }
  - { id: text, match: { path: /text }, upstream: slow, fallback: { respond: { body: sorry } } }
"#;
    let slow = Recorder::answering(Answer::ok("late").delay(Duration::from_secs(20)));
    let other = Recorder::answering(Answer::ok("other").delay(Duration::from_millis(400)));
    let config = fill(CONFIG, &[&slow, &other]);
    let gateway = Gateway::start(&config).await;
    // The other one has a time of its own, which begins when it is asked.
    let answer = gateway.get("/slow").await;
    assert_eq!((answer.status, &*answer.text()), (200, "other"));
    let mut client = gateway.client().await;
    let posted = client.request("POST", "/slow", "localhost", &[], b"order").await;
    assert_eq!((posted.status, posted.json()["reason"].as_str()), (504, Some("upstream_timeout")));
    assert_eq!(counted(&gateway, "slow", "timeout", "unrepeatable").await, 1.0);
    assert_eq!(other.requests().len(), 1);
    // A fixed answer asks nobody.
    let mut client = gateway.client().await;
    let text = client.request("POST", "/text", "localhost", &[], b"order").await;
    assert_eq!((text.status, &*text.text()), (200, "sorry"));

    // The other one's breaker counts these, too.
    other.set(Answer::new(503));
    for _ in 0..2 {
        assert_eq!(gateway.get("/slow").await.status, 503);
    }
    assert_eq!(state(&gateway, "upstream:other").await, "open");
    let refused = gateway.get("/slow").await;
    assert_eq!((refused.status, refused.json()["reason"].as_str()), (503, Some("breaker_open")));
    assert!(page(&gateway, "/breakers").await["upstream:other"]["refused"].as_u64() >= Some(1));
}

#[test]
fn a_fallback_is_somebody_else() {
    let said = refusal(
        "upstreams: { up: { endpoints: [ { address: \"127.0.0.1:1\" } ] } }\n\
         routes: [ { id: a, upstream: up, fallback: { upstream: up } } ]\n",
    );
    assert!(said.contains("`up` is what has failed by then"), "{said}");
}
