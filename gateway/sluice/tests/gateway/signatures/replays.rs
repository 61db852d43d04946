//! The same request again: refused by whichever gateway gets it, and never let through silently.

use sluice_chaos::process::Redis;

use super::{SECRET, XCa, nonce};
use crate::support::{Gateway, Setup, reason};

fn config(more: &str) -> String {
    format!(
        r#"
redis: {{ url: "${{REDIS_URL}}" }}
upstreams: {{ echo: {{ builtin: echo }} }}
routes:
  - id: xca
    match: {{ path: /a }}
    upstream: echo
    filters: [ {{ signature: {{ scheme: x-ca, {more} keys: [ {{ id: demo, secret_file: demo.key }} ] }} }} ]
"#
    )
}

async fn start(redis: &Redis, more: &str) -> Gateway {
    let files = vec![("demo.key", SECRET.to_owned())];
    let env = vec![("REDIS_URL", redis.url())];
    Gateway::start_with(&config(more), Setup { files, env, ..Setup::default() }).await
}

#[tokio::test]
async fn k_02_of_a_hundred_alike_on_two_gateways_one_passes() {
    let redis = Redis::start().await;
    let (one, two) = (start(&redis, "").await, start(&redis, "").await);
    let get = XCa::get("/a");
    // Also the very first requests of a worker are checked and pass.
    let calls = (0..100).map(|n| get.send(if n % 2 == 0 { &one } else { &two }));
    let answers = futures_util::future::join_all(calls).await;
    let passed = answers.iter().filter(|answer| answer.status == 200).count();
    let replayed = answers.iter().filter(|a| reason(a) == (401, "replayed".to_owned())).count();
    assert_eq!((passed, replayed), (1, 99));
    let kept = redis.command(&["KEYS", "sluice:nonce:*"]).await;
    assert_eq!(kept.matches("sluice:nonce:").count(), 1, "{kept}");
    assert!(!kept.contains(&get.nonce) && !kept.contains("demo"), "{kept}");
    let key = kept.split_whitespace().find(|word| word.starts_with("sluice:nonce:")).unwrap();
    let left: i64 =
        redis.command(&["PTTL", key]).await.trim().trim_start_matches(':').parse().unwrap();
    assert!((600_000..=660_000).contains(&left), "for twice the window and a minute: {left} ms");
}

#[tokio::test]
async fn k_02_without_redis_one_gateway_lets_one_pass() {
    let config = config("").replace(r#"redis: { url: "${REDIS_URL}" }"#, "");
    let files = vec![("demo.key", SECRET.to_owned())];
    let gateway = Gateway::start_with(&config, Setup { files, ..Setup::default() }).await;
    let get = XCa::get("/a");
    let answers = futures_util::future::join_all((0..30).map(|_| get.send(&gateway))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
    // A reload forgets no nonce.
    gateway
        .write_config(&format!("{config}  - {{ id: b, match: {{ path: /b }}, upstream: echo }}\n"));
    gateway.wait_for_generation(2).await;
    assert_eq!(reason(&get.send(&gateway).await), (401, "replayed".to_owned()));
}

#[tokio::test]
async fn k_03_without_an_answer_from_redis_the_config_decides_and_by_default_nobody_passes() {
    let mut redis = Redis::start().await;
    let deny = start(&redis, "").await;
    let allow = start(&redis, "on_store_error: allow,").await;
    let local = start(&redis, "on_store_error: local,").await;
    for gateway in [&deny, &allow] {
        assert_eq!(XCa::get("/a").send(gateway).await.status, 200);
    }
    let before = XCa::get("/a");
    assert_eq!(before.send(&local).await.status, 200);
    redis.pause();
    let again = before.send(&local).await;
    assert_eq!(reason(&again), (401, "replayed".to_owned()), "seen while Redis was there");
    for _ in 0..3 {
        let refused = XCa::get("/a").send(&deny).await;
        assert_eq!(reason(&refused), (503, "replay_store_down".to_owned()));
    }
    let (first, second) = (XCa::get("/a"), XCa::get("/a"));
    for _ in 0..2 {
        assert_eq!(first.send(&allow).await.status, 200, "allowed to be repeated");
    }
    assert_eq!(second.send(&local).await.status, 200);
    assert_eq!(reason(&second.send(&local).await), (401, "replayed".to_owned()));
    redis.resume();
    redis.command(&["FLUSHALL"]).await;
    let again = second.send(&local).await;
    assert_eq!(reason(&again), (401, "replayed".to_owned()), "seen while Redis was gone");
    redis.kill();
    let gone = XCa { nonce: nonce(), ..XCa::get("/a") };
    assert_eq!(reason(&gone.send(&deny).await), (503, "replay_store_down".to_owned()));
}
