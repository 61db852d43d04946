//! Limits by every kind of key, and what callers are told about them.

use std::net::{IpAddr, Ipv4Addr};

use sluice_chaos::raw::{Client, Response};
use sluice_chaos::recorder::Recorder;

use crate::support::{Gateway, Setup, eventually};
use crate::tokens::{Key, now};

const CONFIG: &str = r#"
upstreams: { up: { endpoints: [ { address: "{up}" } ] } }
routes:
  - id: address
    match: { path: /address }
    filters: [ { rate_limit: { limit: 3, per: 60s } } ]
    upstream: up
  - id: header
    match: { path: /header }
    filters: [ { rate_limit: { limit: 2, per: 60s, key: "header:X-Key", address_limit: 90 } } ]
    upstream: up
  - id: tuple
    match: { path: "/tuple/{shop}" }
    filters: [ { rate_limit: { limit: 1, per: 60s, key: "capture:shop+header:X-Key", address_limit: 90 } } ]
    upstream: up
  - id: claim
    match: { path: /claim }
    filters:
      - rate_limit: { limit: 2, per: 60s, key: "claim:sub" }
      - jwt: { keys: [ { kid: k, alg: HS256, secret_file: k.key } ] }
    upstream: up
  - id: two
    match: { path: /two }
    filters:
      - rate_limit: { limit: 50, per: 60s, label: wide }
      - rate_limit: { limit: 1, per: 60s, label: narrow, key: "header:X-Key", address_limit: 90 }
    upstream: up
  - id: short
    match: { path: /short }
    filters: [ { rate_limit: { limit: 2, per: 2s } } ]
    upstream: up
"#;

async fn start(key: &Key) -> (Gateway, Recorder) {
    let recorder = Recorder::start();
    let setup = Setup { files: vec![("k.key", key.shared.clone())], ..Setup::default() };
    let config = CONFIG.replace("{up}", &recorder.addr().to_string());
    (Gateway::start_with(&config, setup).await, recorder)
}

async fn call(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> Response {
    gateway.client().await.request("GET", path, "localhost", headers, b"").await
}

fn number(response: &Response, name: &str) -> u64 {
    response.header(name).unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

/// Shows L-08.
#[tokio::test]
async fn callers_are_told_what_is_left_and_when_to_come_back() {
    let (gateway, recorder) = start(&Key::new("HS256")).await;
    for left in [2, 1, 0] {
        let answer = call(&gateway, "/address", &[]).await;
        assert_eq!(answer.status, 200);
        assert_eq!(number(&answer, "ratelimit-limit"), 3);
        assert_eq!(number(&answer, "ratelimit-remaining"), left);
        assert!((1..=120).contains(&number(&answer, "ratelimit-reset")));
    }
    for _ in 0..5 {
        let refused = call(&gateway, "/address", &[]).await;
        assert_eq!(
            (refused.status, refused.json()["reason"].as_str()),
            (429, Some("rate_limited"))
        );
        assert_eq!(number(&refused, "ratelimit-remaining"), 0);
        assert!((1..=120).contains(&number(&refused, "retry-after")));
    }
    assert_eq!(recorder.begun(), 3, "a refused call reached the service");
    let other = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    let mut client = Client::connect_from(other, gateway.http).await;
    assert_eq!(client.request("GET", "/address", "localhost", &[], b"").await.status, 200);
}

#[tokio::test]
async fn headers_captures_and_claims_are_counted_apart() {
    let key = Key::new("HS256");
    let (gateway, _recorder) = start(&key).await;
    let statuses = async |path: &str, header: (&str, &str), calls: usize| {
        let mut all = Vec::new();
        for _ in 0..calls {
            all.push(call(&gateway, path, &[header]).await.status);
        }
        all
    };
    assert_eq!(statuses("/header", ("X-Key", "a"), 3).await, [200, 200, 429]);
    assert_eq!(statuses("/header", ("X-Key", "b"), 3).await, [200, 200, 429]);
    assert_eq!(statuses("/header", ("X-Key", "\u{ff}"), 3).await, [200, 200, 429]);
    // A caller without the header is counted by its address, not let through.
    assert_eq!(statuses("/header", ("X-Other", "a"), 3).await, [200, 200, 429]);

    assert_eq!(statuses("/tuple/a", ("X-Key", "bc"), 2).await, [200, 429]);
    assert_eq!(statuses("/tuple/ab", ("X-Key", "c"), 2).await, [200, 429], "tuples run together");
    assert_eq!(statuses("/tuple/a", ("X-Key", "c"), 1).await, [200]);

    // The limit stands before the token in the file; it still counts the proven caller.
    let token = |sub: &str, jti: u32| {
        let claims = format!(r#"{{"sub":"{sub}","jti":"{jti}","exp":{}}}"#, now() + 600);
        format!("Bearer {}", key.token(&claims))
    };
    for caller in ["u-1", "u-2"] {
        for (jti, expected) in [(1, 200), (2, 200), (3, 429)] {
            let header = token(caller, jti);
            let answer = call(&gateway, "/claim", &[("Authorization", &header)]).await;
            assert_eq!(answer.status, expected, "{caller} {jti}");
        }
    }
    for _ in 0..5 {
        assert_eq!(call(&gateway, "/claim", &[]).await.status, 401);
    }
}

#[tokio::test]
async fn of_two_limits_the_tighter_one_is_told() {
    let (gateway, _recorder) = start(&Key::new("HS256")).await;
    let first = call(&gateway, "/two", &[("X-Key", "a")]).await;
    assert_eq!((first.status, number(&first, "ratelimit-limit")), (200, 1));
    let second = call(&gateway, "/two", &[("X-Key", "a")]).await;
    assert_eq!((second.status, number(&second, "ratelimit-limit")), (429, 1));
    assert_eq!(second.all("ratelimit-limit").len(), 1);
    assert_eq!(call(&gateway, "/two", &[("X-Key", "b")]).await.status, 200);
}

#[tokio::test]
async fn a_caller_that_hammers_recovers_because_refusals_do_not_count() {
    let (gateway, recorder) = start(&Key::new("HS256")).await;
    let mut client = gateway.client().await;
    for expected in [200, 200, 429] {
        let answer = client.request("GET", "/short", "localhost", &[], b"").await;
        assert_eq!(answer.status, expected);
    }
    // Asked all the time, it still opens again.
    eventually("the window to pass", async || call(&gateway, "/short", &[]).await.status == 200)
        .await;
    assert!(recorder.begun() >= 3);
    assert!(gateway.metric("sluice_rejected_total{reason=\"rate_limited\"}").await >= 1.0);
}
