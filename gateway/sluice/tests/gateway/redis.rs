//! Limits counted in a real Redis: shared by gateways, exact about refusals, and never a reason for
//! an error when Redis is slow or gone.

use std::time::{Duration, Instant};

use sluice_chaos::faults::{Direction, Fault, FaultProxy};
use sluice_chaos::load::Plan;
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
    eventually("the connection to Redis", async || {
        gateway.metric("sluice_redis_connections").await > 0.5
    })
    .await;
    gateway
}

/// Shows L-01.
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

/// Shows X-01.
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

/// Shows X-02.
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

/// A network between the gateway and a Redis that is well: slow, silent, wrong, cut.
/// Shows X-03, X-06.
#[tokio::test]
async fn a_bad_network_towards_redis_costs_no_request() {
    let redis = Redis::start().await;
    let mut proxy = FaultProxy::seeded(redis.addr(), 7);
    let url = format!("redis://{}", proxy.addr());
    let setup = Setup { env: vec![("REDIS_URL", url)], workers: Some(1), ..Setup::default() };
    let config = config("{ limit: 100000, per: 1h, key: route }");
    let gateway = Gateway::start_with(&config, setup).await;
    let shared =
        async || gateway.get("/limited").await.header("x-sluice-ratelimit-mode") == Some("shared");
    for fault in [
        Fault::none().delay(Duration::from_millis(200)),
        Fault::none().hang(),
        Fault::none().corrupt_one_in(2).only(Direction::Down),
        Fault::none().cut_after(20),
        Fault::none().reset_after(0),
    ] {
        eventually("the limit to be shared", &shared).await;
        let what = format!("{fault:?}");
        proxy.set(fault);
        let mut slow = 0;
        for _ in 0..30 {
            let begun = Instant::now();
            assert_eq!(gateway.get("/limited").await.status, 200, "{what}");
            slow += u32::from(begun.elapsed() >= Duration::from_millis(18));
        }
        assert!(slow <= 20, "{slow} of 30 requests waited for Redis: {what}");
        proxy.heal();
    }
    proxy.refuse().await;
    assert_eq!(gateway.get("/limited").await.status, 200);
    proxy.heal();
    eventually("the limit to be shared", &shared).await;
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

/// Shows X-04.
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

/// Shows L-04, L-11.
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
    for key in keys.lines().filter(|key| *key != "sluice:gateways") {
        assert!(key.starts_with("sluice:s:{") && !key.contains("138"), "{key}");
        let left: i64 = ask(&["pttl", key]).trim().parse().unwrap();
        assert!((1..=7_200_000).contains(&left), "{key} lives for {left} ms");
    }
}

/// A script that is passed around (a sorted set whose members are times in whole seconds) takes all calls of
/// a second for one. Ours is asked beside it, through a gateway.
/// Shows L-10.
#[tokio::test]
async fn a_window_of_times_in_a_set_admits_everything_and_ours_its_limit() {
    const SET: &str = "local key, now, window = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
        redis.call('ZREMRANGEBYSCORE', key, 0, now - window)
        if redis.call('ZCARD', key) >= tonumber(ARGV[3]) then return 0 end
        redis.call('ZADD', key, now, now)
        return 1";
    let redis = Redis::start().await;
    let filter = "{ limit: 10, per: 1h, key: route, on_store_error: deny }";
    let gateway = start(&redis, filter).await;
    // All within one call of Redis, so that they fall into one or two seconds.
    let thousands = "local admitted = 0
        for _ = 1, 2000 do admitted = admitted + redis.call('INCRBY', 'sum', SCRIPT()) end
        return redis.call('GET', 'sum')";
    let body = format!("local SCRIPT = function() {SET} end {thousands}");
    let now = crate::tokens::now().to_string();
    let admitted = redis.command(&["EVAL", &body, "1", "set", &now, "1", "10"]).await;
    assert_eq!(admitted, "2000", "of 2000 under a limit of 10");
    assert_eq!(redis.command(&["TTL", "set"]).await, "-1", "and the key stays for ever");

    let load = Plan::new(gateway.http, "/limited").host("localhost").per_second(1_000);
    let tally = load.duration(Duration::from_secs(2)).run().await;
    assert_eq!(tally.sent, 2_000);
    assert!((8..=10).contains(&tally.ok), "{} of 2000 under a limit of 10", tally.ok);
    // What was refused is refused here for a second without asking.
    let commands = gateway.metric("sluice_redis_commands_total").await;
    assert!(commands < 500.0, "{commands} commands for 2000 calls");
}

/// Shows X-08.
#[tokio::test]
async fn a_key_that_holds_something_else_is_made_anew() {
    let redis = Redis::start().await;
    for filter in [
        "{ limit: 5, per: 1h, key: route }",
        "{ limit: 5, per: 1h, key: route, exact: true }",
        "{ algorithm: token_bucket, limit: 5, per: 1h, key: route }",
        "{ algorithm: quota, limit: 5, period: day, key: route }",
    ] {
        redis.command(&["FLUSHALL"]).await;
        let gateway = start(&redis, filter).await;
        gateway.get("/limited").await;
        let keys = redis.command(&["KEYS", "sluice:?:*"]).await;
        let key = keys.lines().next().unwrap();
        redis.command(&["DEL", key]).await;
        redis.command(&["SADD", key, "something"]).await;
        eventually("the key to be healed", async || {
            let answer = gateway.get("/limited").await;
            answer.header("x-sluice-ratelimit-mode") == Some("shared")
        })
        .await;
        assert!(redis.command(&["PTTL", key]).await.parse::<i64>().unwrap() > 0, "{filter}");
    }
}

#[tokio::test]
async fn without_redis_each_gateway_has_its_share() {
    let redis = Redis::start().await;
    let filter = "{ limit: 30, per: 1h, key: route }";
    let mut three = Vec::new();
    for _ in 0..3 {
        three.push(start(&redis, filter).await);
    }
    eventually("all three to be counted", async || {
        redis.command(&["ZCARD", "sluice:gateways"]).await == "3"
    })
    .await;
    // Each learns with its own next sign of life, a second later at most.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    drop(redis);
    for gateway in &three {
        let mut admitted = 0;
        for _ in 0..25 {
            admitted += u32::from(gateway.get("/limited").await.status == 200);
        }
        // One call was counted here before there was a connection.
        assert!((9..=10).contains(&admitted), "{admitted} of a third of 30");
    }
}

/// Shows X-02, X-12.
#[tokio::test]
async fn a_hung_redis_is_waited_for_by_few_of_many_at_once() {
    let redis = Redis::start().await;
    let gateway = start(&redis, "{ limit: 1000000, per: 1h, key: route }").await;
    redis.pause();
    let load = Plan::new(gateway.http, "/limited").host("localhost").per_second(500);
    let tally = load.duration(Duration::from_secs(2)).run().await;
    assert_eq!((tally.ok, tally.failed), (1_000, 0), "{:?}", tally.errors);
    let errors = gateway.metric("sluice_redis_errors_total").await;
    assert!(errors <= 20.0, "{errors} calls waited for the hung Redis");
}
