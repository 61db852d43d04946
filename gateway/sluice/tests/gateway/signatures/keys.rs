//! Keys of apps: two secrets at a time, what a key proves, where it may be used from, and keys in Redis.

use sluice_chaos::process::Redis;

use super::{SECRET, XCa};
use crate::configs::echoing;
use crate::support::{Gateway, Setup, eventually, reason};

const NEW: &str = "another-secret-0123456789";

fn config(secrets: &str, more: &str) -> String {
    let app = "{claim.key}/{claim.tier}/{claim.roles}";
    echoing(&[
        format!(
            "signature: {{ scheme: x-ca, keys: [ {{ id: demo, secret: {secrets} {more} }} ] }}"
        ),
        format!("headers: {{ request: {{ set: {{ X-App: \"{app}\" }} }} }}"),
    ])
}

#[tokio::test]
async fn k_10_a_secret_is_replaced_without_a_refused_request() {
    let gateway = Gateway::start(&config(SECRET, "")).await;
    let old = || XCa::get("/a");
    let new = || XCa { secret: NEW, ..XCa::get("/a") };
    assert_eq!(old().send(&gateway).await.status, 200);
    assert_eq!(reason(&new().send(&gateway).await).1, "signature_invalid");
    gateway.write_config(&config(&format!("{NEW}, previous_secret: {SECRET}"), ""));
    gateway.wait_for_generation(2).await;
    assert_eq!(old().send(&gateway).await.status, 200);
    assert_eq!(new().send(&gateway).await.status, 200);
    let over = r#", previous_until: "2020-01-01T00:00:00Z""#;
    gateway.write_config(&config(&format!("{NEW}, previous_secret: {SECRET}"), over));
    gateway.wait_for_generation(3).await;
    assert_eq!(reason(&old().send(&gateway).await), (401, "key_expired".to_owned()));
    assert_eq!(new().send(&gateway).await.status, 200);
    gateway.write_config(&config(NEW, r#", not_after: "2020-01-01T00:00:00Z""#));
    gateway.wait_for_generation(4).await;
    assert_eq!(reason(&new().send(&gateway).await), (401, "key_expired".to_owned()));
    assert_eq!(reason(&old().send(&gateway).await), (401, "signature_invalid".to_owned()));
}

#[tokio::test]
async fn a_key_tells_app_tier_and_roles_and_may_be_bound_to_networks() {
    let more = ", tier: gold, roles: [ partner ], allow_cidrs: [ 127.0.0.0/8 ]";
    let gateway = Gateway::start(&config(SECRET, more)).await;
    let answer = XCa::get("/a").send(&gateway).await;
    assert_eq!(answer.json()["headers"]["x-app"], r#"demo/gold/["partner"]"#);
    let line = &gateway.log_lines(1).await[0];
    assert_eq!(line["key"], "demo", "{line}");
    gateway.write_config(&config(SECRET, ", allow_cidrs: [ 10.0.0.0/8 ]"));
    gateway.wait_for_generation(2).await;
    let refused = XCa::get("/a").send(&gateway).await;
    assert_eq!(reason(&refused), (403, "address_refused".to_owned()));
    let wrong = XCa { secret: NEW, ..XCa::get("/a") }.send(&gateway).await;
    assert_eq!(
        reason(&wrong),
        (401, "signature_invalid".to_owned()),
        "only who has the key learns why"
    );
}

#[tokio::test]
async fn keys_in_redis_come_and_go_within_a_second() {
    let mut redis = Redis::start().await;
    let config = r#"
redis: { url: "${REDIS_URL}" }
upstreams: { echo: { builtin: echo } }
routes:
  - id: a
    match: { path: /a }
    upstream: echo
    filters: [ { signature: { scheme: x-ca, redis_keys: true } } ]
"#;
    let env = vec![("REDIS_URL", redis.url())];
    let setup = Setup { env, workers: Some(1), ..Setup::default() };
    let gateway = Gateway::start_with(config, setup).await;
    assert_eq!(reason(&XCa::get("/a").send(&gateway).await).1, "signature_invalid");
    let record = format!(r#"{{"id":"demo","secret":"{SECRET}","tier":"gold"}}"#);
    redis.command(&["SET", "sluice:app:demo", &record]).await;
    eventually("the key to be found", async || XCa::get("/a").send(&gateway).await.status == 200)
        .await;
    let asked = gateway.metric("sluice_redis_commands_total").await;
    for _ in 0..10 {
        assert_eq!(XCa::get("/a").send(&gateway).await.status, 200);
    }
    let asked = gateway.metric("sluice_redis_commands_total").await - asked;
    assert!(asked < 18.5, "{asked} commands for ten requests: a nonce each, and few look-ups");
    redis.command(&["SET", "sluice:app:demo", "{not json"]).await;
    eventually("a broken record to be refused", async || {
        reason(&XCa::get("/a").send(&gateway).await).1 == "signature_invalid"
    })
    .await;
    redis.kill();
    eventually("the loss to be noticed", async || {
        reason(&XCa::get("/a").send(&gateway).await) == (503, "key_store_down".to_owned())
    })
    .await;
}
