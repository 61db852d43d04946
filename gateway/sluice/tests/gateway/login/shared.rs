//! Several gateways and one Redis: a code is sent once over all of them, and nothing in Redis can be read.

use std::time::Duration;

use sluice_chaos::process::Redis;
use sluice_chaos::provider::{Login, Manner, Provider, SECRET};

use super::{KEY, config, log_in, with_token};
use crate::support::{Gateway, Setup};

const STORE: &str =
    "\n  store_keys: [{ kid: s1, secret: \"${STORE_KEY}\" }]\nredis: { url: \"${REDIS_URL}\" }\n";

pub(super) async fn start(provider: &Provider, redis: &Redis, login: &str) -> Gateway {
    let env = vec![
        ("APP_SECRET", SECRET.to_owned()),
        ("REDIS_URL", redis.url()),
        ("STORE_KEY", format!("store-{KEY}")),
    ];
    let config = config(&[provider.addr()], &format!("{login}{STORE}"));
    let gateway =
        Gateway::start_with(&config, Setup { env, workers: Some(1), ..Setup::default() }).await;
    // A worker connects when it is first asked.
    log_in(&gateway, "nobody").await;
    gateway.connected().await;
    gateway
}

/// Shows J-17.
#[tokio::test]
async fn gateways_send_a_code_once_between_them() {
    let (provider, redis) = (Provider::start(), Redis::start().await);
    let one = start(&provider, &redis, "").await;
    let two = start(&provider, &redis, "").await;
    provider.decide("good", Login::session("o-secret", None));
    provider.set(Manner::Slow(Duration::from_millis(300)));
    let all = (0..10).map(|n| log_in(if n % 2 == 0 { &one } else { &two }, "good"));
    let answers = futures_util::future::join_all(all).await;
    let first = answers[0].text();
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.text() == first));
    assert_eq!(provider.exchanges("good"), 1);
    let token = answers[0].json()["data"]["token"].as_str().unwrap().to_owned();
    assert_eq!(with_token(&two, "/me", &token).await.status, 200);
    let kept = redis.dump().await;
    assert!(kept.contains("sluice:login:code:"), "{kept}");
    for secret in ["good", "o-secret", "session_key", &token[..20]] {
        assert!(!kept.contains(secret), "Redis tells {secret}");
    }
}

#[tokio::test]
async fn without_redis_people_still_log_in() {
    let (provider, redis) = (Provider::start(), Redis::start().await);
    let gateway = start(&provider, &redis, "").await;
    drop(redis);
    provider.decide("good", Login::session("o", None));
    for _ in 0..2 {
        assert_eq!(log_in(&gateway, "good").await.status, 200);
    }
    assert_eq!(provider.exchanges("good"), 1);
}
