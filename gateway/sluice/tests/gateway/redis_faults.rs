//! More that goes wrong with a Redis, and calls that are paid for in advance.

use std::time::{Duration, Instant};

use sluice_chaos::load::Plan;
use sluice_chaos::process::Redis;

use crate::support::{Gateway, Setup, eventually};
use crate::tokens::{Key, now};

fn config(filter: &str) -> String {
    format!(
        r#"
redis: {{ url: "${{REDIS_URL}}" }}
upstreams: {{ echo: {{ builtin: echo }} }}
routes:
  - {{ id: limited, match: {{ path: /limited }}, filters: [ {{ rate_limit: {filter} }} ], upstream: echo }}
  - id: known
    match: {{ path: /known }}
    filters:
      - jwt: {{ keys: [ {{ kid: k, alg: HS256, secret_file: k.key }} ] }}
      - rate_limit: {filter}
    upstream: echo
"#
    )
}

async fn start(url: String, filter: &str) -> Gateway {
    start_knowing(url, filter, &Key::new("HS256")).await
}

async fn start_knowing(url: String, filter: &str, key: &Key) -> Gateway {
    let (env, files) = (vec![("REDIS_URL", url)], vec![("k.key", key.shared.clone())]);
    let setup = Setup { env, files, workers: Some(1), ..Setup::default() };
    Gateway::start_with(&config(filter), setup).await
}

async fn mode(gateway: &Gateway) -> String {
    let answer = gateway.get("/limited").await;
    assert!(matches!(answer.status, 200 | 429), "status {}", answer.status);
    answer.header("x-sluice-ratelimit-mode").unwrap().to_owned()
}

/// Shows X-05.
#[tokio::test]
async fn a_wrong_password_costs_no_request_and_is_told() {
    let redis = Redis::start_with(&["--requirepass", "right"]).await;
    let url = |word: &str| redis.url().replace("redis://", &format!("redis://:{word}@"));
    let wrong = start(url("wrong"), "{ limit: 1000, per: 1h, key: route }").await;
    let begun = Instant::now();
    for _ in 0..50 {
        assert_eq!(mode(&wrong).await, "local");
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    eventually("the failure to be counted", async || {
        wrong.metric("sluice_redis_connect_errors_total{kind=\"auth\"}").await > 0.5
    })
    .await;
    assert!(wrong.daemon.output().contains("auth"), "{}", wrong.daemon.output());
    let told = "sluice_ratelimit_decisions_total{limit=\"route:limited\",mode=\"local\",decision=\"admitted\"}";
    assert!(wrong.metric(told).await > 49.5);

    let right = start(url("right"), "{ limit: 1000, per: 1h, key: route }").await;
    right.connected().await;
    assert_eq!(mode(&right).await, "shared");
    // Changed while connections stand: who is connected goes on.
    assert_eq!(right.metric("sluice_redis_errors_total").await, 0.0);
}

/// Shows X-05.
#[tokio::test]
async fn a_redis_that_may_not_write_is_done_without_until_it_may() {
    let redis = Redis::start().await;
    let gateway = start(redis.url(), "{ limit: 100000, per: 1h, key: route }").await;
    gateway.connected().await;
    assert_eq!(mode(&gateway).await, "shared");
    for (fault, healed, kind) in [
        (
            &["CONFIG", "SET", "maxmemory", "1"][..],
            &["CONFIG", "SET", "maxmemory", "0"][..],
            "full",
        ),
        (&["REPLICAOF", "127.0.0.1", "9"], &["REPLICAOF", "NO", "ONE"], "read_only"),
    ] {
        redis.command(fault).await;
        eventually("the limit to be counted here", async || mode(&gateway).await == "local").await;
        for _ in 0..20 {
            mode(&gateway).await;
        }
        let series = format!("sluice_redis_errors_total{{kind=\"{kind}\"}}");
        assert!(gateway.metric(&series).await > 0.5, "{kind}");
        redis.command(healed).await;
        eventually("the limit to be shared", async || mode(&gateway).await == "shared").await;
    }
}

/// Shows X-07, L-01.
#[tokio::test]
async fn clients_that_leave_never_shift_the_answers_of_others() {
    let redis = Redis::start().await;
    let filter =
        "{ limit: 7, per: 1h, key: \"header:X-User\", address_limit: 1000000, prepay: false }";
    let gateway = start(redis.url(), filter).await;
    gateway.connected().await;
    for round in 0..20 {
        // Of each user's calls every second one is left by its client while Redis is being asked.
        let users = (0..20).map(async |n| {
            let user = format!("{round}-{n}");
            let mut leaves = gateway.client().await;
            let head = format!("GET /limited HTTP/1.1\r\nHost: a\r\nX-User: {user}\r\n\r\n");
            leaves.send(&head).await;
            leaves.reset();
            let mut stays = gateway.client().await;
            let answer = stays.request("GET", "/limited", "a", &[("X-User", &user)], b"").await;
            let left: u64 = answer.header("ratelimit-remaining").unwrap().parse().unwrap();
            assert!((5..=6).contains(&left), "{left} left of 7 after one or two calls");
        });
        futures_util::future::join_all(users).await;
    }
}

/// Shows L-01, L-10.
#[tokio::test]
async fn a_busy_key_pays_in_advance_and_is_never_over() {
    let redis = Redis::start().await;
    let filter = "{ limit: 1200, per: 1h, key: route, on_store_error: deny }";
    let (one, two) = (start(redis.url(), filter).await, start(redis.url(), filter).await);
    one.connected().await;
    two.connected().await;
    let load = |gateway: &Gateway| {
        let plan = Plan::new(gateway.http, "/limited").host("localhost").per_second(250);
        plan.duration(Duration::from_secs(4)).start()
    };
    let (first, second) = (load(&one), load(&two));
    let admitted = first.finish().await.ok + second.finish().await.ok;
    assert!(admitted <= 1_200, "{admitted} of 1200");
    let (mut leased, mut shared, mut unasked) = (0.0, 0.0, 0.0);
    for gateway in [&one, &two] {
        let decided = async |mode: &str| {
            let labels = format!("{{mode=\"{mode}\",decision=\"admitted\"}}");
            gateway.metric(&format!("sluice_ratelimit_decisions_total{labels}")).await
        };
        leased += decided("leased").await;
        shared += decided("shared").await;
        unasked += gateway.metric("sluice_ratelimit_decisions_total{mode=\"unasked\"}").await;
    }
    assert!(leased > shared, "{leased} paid in advance, {shared} one by one");
    // A busy machine may keep Redis from answering in time. Else nearly all of 2000 calls that can be
    // admitted are: what is left of blocks comes back, only at the very end a few are not used.
    assert!(unasked > 0.0 || admitted >= 1_150, "{admitted} of 1200");
}

#[tokio::test]
async fn of_several_keys_the_proven_one_counts_and_nobody_can_use_it_up() {
    let redis = Redis::start().await;
    let key = Key::new("HS256");
    let filter = "{ limit: 3, per: 1h, key: \"claim:openid | api_key:X-Api-Key | address\", \
        address_limit: 8 }";
    let gateway = start_knowing(redis.url(), filter, &key).await;
    gateway.connected().await;
    let bearer = |claims: &str| {
        format!("Bearer {}", key.token(&format!(r#"{{{claims}"exp":{}}}"#, now() + 600)))
    };
    let (ann, somebody) = (bearer(r#""openid":"ann","#), bearer(""));
    let ask = async |bearer: &str, key: Option<&str>| {
        let mut headers = vec![("Authorization", bearer)];
        headers.extend(key.map(|key| ("X-Api-Key", key)));
        gateway.client().await.request("GET", "/known", "a", &headers, b"").await.status
    };
    // Who says to be ann, or has her name as a key of its own, counts apart from who proves it.
    for _ in 0..3 {
        assert_eq!(ask(&somebody, Some("ann")).await, 200);
    }
    assert_eq!(ask(&somebody, Some("ann")).await, 429);
    for _ in 0..3 {
        assert_eq!(ask(&ann, Some("other")).await, 200);
    }
    assert_eq!(ask(&ann, Some("more")).await, 429);
    // Ever new keys are bounded by the address; the proven calls did not count for it.
    let mut admitted = 0;
    for n in 0..20 {
        let name = format!("key-{n}");
        admitted += u32::from(ask(&somebody, Some(&name)).await == 200);
    }
    assert!((4..=5).contains(&admitted), "{admitted} more of 8 after 3 or 4");
    for _ in 0..3 {
        assert_eq!(
            ask(&somebody, None).await,
            200,
            "without any key the address counts, apart from its cap"
        );
    }
    assert_eq!(ask(&somebody, None).await, 429);
}

#[tokio::test]
async fn l_05_limits_that_cannot_be_counted_are_refused() {
    for (filter, why) in [
        ("{ limit: 0, per: 1h }", "refuses every call"),
        ("{ limit: 9223372036854775808, per: 1h }", "9007199254740992 at most"),
        ("{ limit: -1, per: 1h }", "limit"),
        ("{ algorithm: concurrency, limit: 10001 }", "10000"),
        ("{ algorithm: concurrency, limit: 1, per: 1h }", "no span is looked at"),
        ("{ algorithm: concurrency, limit: 1, lease: 1s }", "between 3s and 5m"),
        ("{ limit: 1, per: 1h, lease: 5s }", "only `concurrency` has leases"),
        ("{ limit: 1, per: 1h, exact: true, prepay: true }", "when it is made"),
        ("{ limit: 1, per: 1h, key: \"header:X | claim:sub\" }", "`claim:` first"),
    ] {
        let config = config(filter).replace("\"${REDIS_URL}\"", "\"\"");
        let (limited, _) = config.split_once("  - id: known").unwrap();
        let said = crate::support::refusal(limited);
        assert!(said.contains(why), "{filter}: {said}");
    }
    for (redis, why) in [
        ("{ url: \"redis://a\", cluster: [ \"redis://b\" ] }", "more than one way"),
        ("{ cluster: [ \"redis://:a@b\", \"redis://:c@d\" ] }", "one user and password"),
        ("{ cluster: [ \"redis://b/1\" ] }", "no numbered databases"),
        ("{ sentinel: { name: \"\", addresses: [ \"redis://b\" ] } }", "by its name"),
        ("{ sentinel: { name: a, addresses: [] } }", "name 1 to 16"),
        ("{ url: \"rediss://a\" }", "not the address of a Redis"),
    ] {
        let said = crate::support::refusal(&format!("redis: {redis}\nroutes: []\n"));
        assert!(said.contains(why), "{redis}: {said}");
    }
}
