//! Keys that callers show: hashed in the config or in Redis, two at a time, never seen by services or logs.

use sluice_chaos::process::Redis;
use sluice_chaos::raw::Response;

use crate::configs::echoing;
use crate::support::{Gateway, Setup, eventually, reason};
use crate::tokens::{digest, hex, mac};

const OLD: &str = "slk_old-0123456789";
const NEW: &str = "slk_new-0123456789";

fn hash(key: &str) -> String {
    hex(&digest("-sha256", key.as_bytes()))
}

async fn call(gateway: &Gateway, target: &str, headers: &[(&str, &str)]) -> Response {
    gateway.client().await.request("GET", target, "localhost", headers, b"").await
}

async fn with(gateway: &Gateway, key: &str) -> Response {
    call(gateway, "/a", &[("X-Api-Key", key)]).await
}

fn config(record: &str) -> String {
    let from = "from: [ { header: X-Api-Key }, { query: api_key } ]";
    echoing(&[
        format!("api_key: {{ {from}, keys: [ {{ id: partner, {record} }} ] }}"),
        "rate_limit: { limit: 3, per: 1h, key: \"claim:key\", tiers: { by: \"claim:tier\", of: { gold: { limit: 100 } } } }".to_owned(),
        telling("{claim.key}/{claim.tier}"),
    ])
}

/// Tells who is calling.
fn telling(caller: &str) -> String {
    format!("headers: {{ request: {{ set: {{ X-Caller: \"{caller}\" }} }} }}")
}

#[tokio::test]
async fn a_token_behind_a_key_takes_nothing_of_it_away() {
    let token = crate::tokens::Key::new("HS256");
    let key = format!("{{ id: partner, hash: \"{}\", tier: gold }}", hash(NEW));
    let config = echoing(&[
        format!("api_key: {{ from: [ {{ header: X-Api-Key }} ], keys: [ {key} ] }}"),
        "jwt: { keys: [ { kid: k, alg: HS256, secret_file: jwt.key } ] }".to_owned(),
        telling("{claim.key}/{claim.tier}/{claim.sub}"),
    ]);
    let files = vec![("jwt.key", token.shared.clone())];
    let gateway = Gateway::start_with(&config, Setup { files, ..Setup::default() }).await;
    let exp = crate::tokens::now() + 600;
    let claims = format!(r#"{{"sub":"u","tier":"free","key":"other","exp":{exp}}}"#);
    let token = format!("Bearer {}", token.token(&claims));
    let answer = call(&gateway, "/a", &[("X-Api-Key", NEW), ("Authorization", &token)]).await;
    assert_eq!(answer.json()["headers"]["x-caller"], "partner/gold/u", "{}", answer.text());
}

#[tokio::test]
async fn a_key_is_known_by_its_hash_and_tells_who_is_calling() {
    let gateway = Gateway::start(&config(&format!("hash: \"{}\", tier: gold", hash(OLD)))).await;
    let answer = with(&gateway, OLD).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["headers"]["x-caller"], "partner/gold");
    assert_eq!(
        answer.json()["headers"]["x-api-key"],
        serde_json::Value::Null,
        "services do not see it"
    );
    assert_eq!(answer.header("ratelimit-limit"), Some("100"), "the tier is proven");
    let query = call(&gateway, &format!("/a?x=1&api_key={OLD}"), &[]).await;
    assert_eq!(query.json()["query"], "x=1", "neither here");
    for key in [NEW, "x", &hash(OLD), &"k".repeat(9000)] {
        assert_eq!(
            reason(&with(&gateway, key).await),
            (401, "api_key_invalid".to_owned()),
            "{key}"
        );
    }
    let missing = call(&gateway, "/a", &[]).await;
    assert_eq!(reason(&missing), (401, "api_key_missing".to_owned()));
    assert_eq!(missing.header("www-authenticate"), Some("ApiKey"));
    let twice = call(&gateway, "/a", &[("X-Api-Key", OLD), ("X-Api-Key", NEW)]).await;
    assert_eq!(reason(&twice), (401, "token_ambiguous".to_owned()));
    let lines = gateway.log_lines(8).await;
    assert!(lines.iter().any(|line| line["key"] == "partner"), "{lines:?}");
    let text = serde_json::to_string(&lines).unwrap();
    assert!(!text.contains(OLD) && !text.contains(NEW), "{text}");
}

/// Shows K-10.
#[tokio::test]
async fn two_keys_are_accepted_while_one_replaces_the_other() {
    let gateway = Gateway::start(&config(&format!("hash: \"{}\"", hash(OLD)))).await;
    assert_eq!(with(&gateway, OLD).await.status, 200);
    let both = format!("hash: \"{}\", previous_hash: \"{}\"", hash(NEW), hash(OLD));
    gateway.write_config(&config(&format!("{both}, tier: gold")));
    gateway.wait_for_generation(2).await;
    assert_eq!(with(&gateway, OLD).await.status, 200);
    assert_eq!(with(&gateway, NEW).await.status, 200);
    gateway.write_config(&config(&format!(
        "{both}, tier: gold, previous_until: \"2020-01-01T00:00:00Z\""
    )));
    gateway.wait_for_generation(3).await;
    assert_eq!(reason(&with(&gateway, OLD).await), (401, "key_expired".to_owned()));
    assert_eq!(with(&gateway, NEW).await.status, 200);
    let bound = format!("hash: \"{}\", tier: gold, allow_cidrs: [10.0.0.0/8]", hash(NEW));
    gateway.write_config(&config(&bound));
    gateway.wait_for_generation(4).await;
    assert_eq!(reason(&with(&gateway, NEW).await), (403, "address_refused".to_owned()));
    assert_eq!(reason(&with(&gateway, OLD).await), (401, "api_key_invalid".to_owned()));
}

#[tokio::test]
async fn keys_in_redis_are_found_by_their_hash() {
    let mut redis = Redis::start().await;
    let config = r#"
redis: { url: "${REDIS_URL}" }
upstreams: { echo: { builtin: echo } }
routes:
  - { id: a, match: { path: /a }, upstream: echo, filters: [ { api_key: { redis_keys: true, pepper_file: pepper.key } } ] }
"#;
    let pepper = "pepper-0123456789-0123456789-0123456789";
    let setup = Setup {
        env: vec![("REDIS_URL", redis.url())],
        files: vec![("pepper.key", format!("{pepper}\n"))],
        ..Setup::default()
    };
    let gateway = Gateway::start_with(config, setup).await;
    let hash = hex(&mac("-sha256", pepper.as_bytes(), NEW.as_bytes()));
    let place = format!("sluice:api_key:{hash}");
    redis.command(&["SET", &place, &format!(r#"{{"id":"partner","hash":"{hash}"}}"#)]).await;
    assert_eq!(with(&gateway, NEW).await.status, 200);
    assert_eq!(reason(&with(&gateway, OLD).await), (401, "api_key_invalid".to_owned()));
    redis.command(&["DEL", &place]).await;
    eventually("the key to be forgotten", async || with(&gateway, NEW).await.status == 401).await;
    // A record under another key's hash is about nobody.
    redis
        .command(&["SET", &place, &format!(r#"{{"id":"partner","hash":"{}"}}"#, "0".repeat(64))])
        .await;
    eventually("the record to be looked at", async || {
        gateway.metric("sluice_redis_commands_total").await > 5.5
            && reason(&with(&gateway, NEW).await) == (401, "api_key_invalid".to_owned())
    })
    .await;
    redis.kill();
    eventually("the loss to be noticed", async || {
        reason(&with(&gateway, NEW).await) == (503, "key_store_down".to_owned())
    })
    .await;
}

#[tokio::test]
async fn sluice_key_makes_keys_whose_hashes_are_accepted() {
    let run = |args: &[&str], input: &str| {
        use std::io::Write as _;
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_sluice"))
            .arg("key")
            .args(args)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let said = run(&[], "");
    let value = |name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().to_owned()
    };
    let (key, hash) = (value("key:"), value("hash:"));
    let gateway = Gateway::start(&config(&format!("hash: \"{hash}\""))).await;
    assert_eq!(with(&gateway, &key).await.status, 200);
    assert_eq!(run(&["--hash"], &format!("{key}\n")).trim(), hash);
}
