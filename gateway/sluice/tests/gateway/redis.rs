//! Limits counted in a real Redis: shared by gateways, exact about refusals, and never a reason for
//! an error when Redis is slow or gone.

use std::time::{Duration, Instant};

use sluice_chaos::process::Redis;

use crate::support::{Gateway, Setup, eventually};

fn config(filter: &str) -> String {
    format!(
        r#"
redis: {{ url: "${{REDIS_URL}}" }}
upstreams: {{ echo: {{ builtin: echo }} }}
routes:
  - {{ id: limited, match: {{ path: /limited }}, filters: [ {{ rate_limit: {filter} }} ], upstream: echo }}
"#
    )
}

async fn start(redis: &Redis, filter: &str) -> Gateway {
    let gateway = Gateway::start_with(
        &config(filter),
        Setup { env: vec![("REDIS_URL", redis.url())], workers: Some(1), ..Setup::default() },
    )
    .await;
    // The first call of a worker finds no connection yet and makes it ask for one.
    gateway.get("/limited").await;
    eventually("the connection to Redis", async || {
        gateway.metric("sluice_redis_connections").await > 0.5
    })
    .await;
    gateway
}

#[tokio::test]
async fn gateways_share_one_limit() {
    let redis = Redis::start().await;
    let filter = "{ limit: 20, per: 1h, key: route }";
    let (one, two) = (start(&redis, filter).await, start(&redis, filter).await);
    let mut admitted = 0;
    for n in 0..60 {
        let gateway = if n % 2 == 0 { &one } else { &two };
        let answer = gateway.get("/limited").await;
        assert_eq!(answer.header("x-sluice-ratelimit-mode"), Some("shared"));
        match answer.status {
            200 => admitted += 1,
            429 => assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1),
            other => panic!("status {other}"),
        }
    }
    assert_eq!(admitted, 20, "the limit holds over both gateways, and refusals are not counted");
}

#[tokio::test]
async fn a_dead_redis_costs_no_request_and_limits_go_on_here() {
    let redis = Redis::start().await;
    let gateway = start(&redis, "{ limit: 5, per: 1h, key: route }").await;
    let port = redis.port();
    drop(redis);
    let (mut passed, mut local) = (0, 0);
    for _ in 0..30 {
        let answer = gateway.get("/limited").await;
        assert!(matches!(answer.status, 200 | 429), "status {}", answer.status);
        passed += u32::from(answer.status == 200);
        local += u32::from(answer.header("x-sluice-ratelimit-mode") == Some("local"));
    }
    assert_eq!(local, 30);
    assert!((4..=5).contains(&passed), "{passed} passed under a local limit of 5");
    let _back = Redis::start_on(port).await;
    eventually("the limit to be shared again", async || {
        gateway.get("/limited").await.header("x-sluice-ratelimit-mode") == Some("shared")
    })
    .await;
}

#[tokio::test]
async fn a_hung_redis_delays_few_requests_and_not_for_long() {
    let redis = Redis::start().await;
    let gateway = start(&redis, "{ limit: 100000, per: 1h, key: route }").await;
    redis.pause();
    let mut slow = 0;
    for _ in 0..50 {
        let begun = Instant::now();
        assert_eq!(gateway.get("/limited").await.status, 200);
        slow += u32::from(begun.elapsed() >= Duration::from_millis(18));
    }
    assert!(slow <= 20, "{slow} of 50 requests waited for Redis");
    assert!(gateway.metric("sluice_redis_connections").await < 0.5);
    redis.resume();
    eventually("the limit to be shared again", async || {
        gateway.get("/limited").await.header("x-sluice-ratelimit-mode") == Some("shared")
    })
    .await;
}

#[tokio::test]
async fn what_happens_without_redis_is_the_operators_choice() {
    let redis = Redis::start().await;
    let deny = start(&redis, "{ limit: 5, per: 1h, key: route, on_store_error: deny }").await;
    let allow = start(&redis, "{ limit: 1, per: 2h, key: route, on_store_error: allow }").await;
    drop(redis);
    for _ in 0..10 {
        assert_eq!(allow.get("/limited").await.status, 200);
    }
    // The first failures are found out one by one; every one of them is refused.
    for _ in 0..10 {
        let answer = deny.get("/limited").await;
        assert_eq!(
            (answer.status, answer.json()["reason"].as_str()),
            (503, Some("limit_store_down"))
        );
    }
}

#[tokio::test]
async fn a_restarted_redis_without_scripts_is_no_error() {
    let redis = Redis::start().await;
    let gateway = start(&redis, "{ limit: 1000, per: 1h, key: route }").await;
    let cli = sluice_chaos::process::tool("redis-cli");
    for _ in 0..5 {
        let flushed = std::process::Command::new(&cli)
            .args(["-p", &redis.port().to_string(), "script", "flush"])
            .output()
            .unwrap();
        assert!(flushed.status.success());
        let answer = gateway.get("/limited").await;
        assert_eq!(
            (answer.status, answer.header("x-sluice-ratelimit-mode")),
            (200, Some("shared"))
        );
    }
}

#[tokio::test]
async fn keys_in_redis_expire_and_tell_nothing() {
    let redis = Redis::start().await;
    let gateway = start(&redis, "{ limit: 5, per: 1h, key: \"header:X-Phone\" }").await;
    let mut client = gateway.client().await;
    let phone = [("X-Phone", "13800138000")];
    assert_eq!(client.request("GET", "/limited", "localhost", &phone, b"").await.status, 200);
    let ask = |args: &[&str]| {
        let output = std::process::Command::new(sluice_chaos::process::tool("redis-cli"))
            .args(["-p", &redis.port().to_string()])
            .args(args)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let keys = ask(&["keys", "*"]);
    assert!(!keys.trim().is_empty());
    for key in keys.lines() {
        assert!(key.starts_with("sluice:w:{") && !key.contains("138"), "{key}");
        let left: i64 = ask(&["pttl", key]).trim().parse().unwrap();
        assert!((1..=7_200_000).contains(&left), "{key} lives for {left} ms");
    }
}
