//! The ways of counting calls, in this process and in a real Redis.

use std::time::{Duration, Instant};

use sluice_chaos::load::Plan;
use sluice_chaos::process::Redis;
use sluice_chaos::raw::Response;

use crate::support::{Gateway, Setup};
use crate::tokens::{Key, now};

fn config(filter: &str) -> String {
    format!(
        r#"
redis: {{ url: "${{REDIS_URL:-}}" }}
upstreams: {{ echo: {{ builtin: echo }} }}
routes:
  - id: limited
    match: {{ path: /limited }}
    filters: [ {{ rate_limit: {filter} }} ]
    upstream: echo
  - id: known
    match: {{ path: /known }}
    filters:
      - jwt: {{ keys: [ {{ kid: k, alg: HS256, secret_file: k.key }} ] }}
      - rate_limit: {filter}
    upstream: echo
"#
    )
}

/// With Redis if there is one; then every worker is connected when this returns.
async fn start(filter: &str, key: &Key, redis: Option<&Redis>) -> Gateway {
    let env = redis.map(|redis| ("REDIS_URL", redis.url())).into_iter().collect();
    let files = vec![("k.key", key.shared.clone())];
    let setup = Setup { env, files, workers: Some(1), ..Setup::default() };
    let gateway = Gateway::start_with(&config(filter), setup).await;
    if redis.is_some() {
        gateway.connected().await;
    }
    gateway
}

async fn call(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> Response {
    gateway.client().await.request("GET", path, "localhost", headers, b"").await
}

fn number(response: &Response, name: &str) -> u64 {
    response.header(name).unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

/// Runs a story without Redis and with one.
async fn both(story: impl AsyncFn(Option<&Redis>)) {
    story(None).await;
    story(Some(&Redis::start().await)).await;
}

#[tokio::test]
async fn a_token_bucket_admits_a_burst_and_then_its_rate() {
    let filter = "{ algorithm: token_bucket, limit: 1, per: 2s, burst: 5, key: \"claim:sub\" }";
    both(async |redis| {
        let key = Key::new("HS256");
        let gateway = start(filter, &key, redis).await;
        let bearer = format!("Bearer {}", key.token(&claims("tier", "none")));
        let known = [("Authorization", bearer.as_str())];
        for left in (0..5).rev() {
            let answer = call(&gateway, "/known", &known).await;
            assert_eq!((answer.status, number(&answer, "ratelimit-remaining")), (200, left));
        }
        let refused = call(&gateway, "/known", &known).await;
        assert_eq!(refused.status, 429);
        assert!((1..=2).contains(&number(&refused, "retry-after")));
        tokio::time::sleep(Duration::from_millis(2_100)).await;
        assert_eq!(call(&gateway, "/known", &known).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn a_leaky_bucket_has_calls_wait_for_their_turns() {
    let filter = "{ algorithm: leaky_bucket, limit: 10, per: 2s, key: route, queue: 3 }";
    both(async |redis| {
        let key = Key::new("HS256");
        let gateway = start(filter, &key, redis).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let begun = Instant::now();
        let calls = (0..8).map(|_| call(&gateway, "/limited", &[]));
        let answers = futures_util::future::join_all(calls).await;
        let served = answers.iter().filter(|answer| answer.status == 200).count();
        assert!((4..=6).contains(&served), "one, three that waited, and what drained meanwhile");
        assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 429)));
        assert!(begun.elapsed() >= Duration::from_millis(550), "{:?}", begun.elapsed());
    })
    .await;
}

#[tokio::test]
async fn a_quota_tells_when_its_period_ends() {
    let filter = "{ algorithm: quota, limit: 3, period: month, key: \"claim:sub\" }";
    both(async |redis| {
        let key = Key::new("HS256");
        let gateway = start(filter, &key, redis).await;
        let bearer = format!("Bearer {}", key.token(&claims("tier", "none")));
        let known = [("Authorization", bearer.as_str())];
        for left in [2, 1, 0] {
            let answer = call(&gateway, "/known", &known).await;
            assert_eq!((answer.status, number(&answer, "ratelimit-remaining")), (200, left));
        }
        let refused = call(&gateway, "/known", &known).await;
        assert_eq!(refused.status, 429);
        let wait = number(&refused, "retry-after");
        assert_eq!((now() + wait) % 86_400, 0, "a month begins at midnight, in {wait} s");
    })
    .await;
}

/// Shows L-02.
#[tokio::test]
async fn an_exact_window_is_never_over_its_limit() {
    let filter = "{ limit: 20, per: 1s, exact: true, key: route }";
    both(async |redis| {
        let key = Key::new("HS256");
        let one = start(filter, &key, redis).await;
        let gateways = match redis {
            None => vec![one],
            Some(_) => {
                vec![one, start(filter, &key, redis).await, start(filter, &key, redis).await]
            }
        };
        // What the calls that opened the connections used has to grow old.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let mut admitted: Vec<(Instant, Instant)> = Vec::new();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(3_500) {
            let asked = Instant::now();
            let calls = gateways.iter().map(|gateway| call(gateway, "/limited", &[]));
            for answer in futures_util::future::join_all(calls).await {
                match answer.status {
                    200 => admitted.push((asked, Instant::now())),
                    other => assert_eq!(other, 429),
                }
            }
        }
        assert!(admitted.len() >= 60, "{} of 80 were used", admitted.len());
        // Between asking and the answer lies the moment that counts: a window holds those calls whose
        // whole span lies in it.
        for (from, _) in &admitted {
            let end = *from + Duration::from_millis(999);
            let inside = admitted.iter().filter(|(a, b)| a >= from && *b <= end).count();
            assert!(inside <= 20, "{inside} within a second");
        }
    })
    .await;
}

fn claims(name: &str, value: &str) -> String {
    format!(r#"{{"sub":"a","{name}":"{value}","exp":{}}}"#, now() + 600)
}

const TIERS: &str = "{ algorithm: token_bucket, limit: 1, per: 1s, burst: 5, key: \"claim:sub\", \
    tiers: { by: \"claim:tier\", of: { vip: { limit: 100, burst: 200 }, normal: { limit: 10, burst: 50 } } } }";

/// Asks at twice the rate of the tier, on as many gateways as given; what is admitted must be
/// `rate * t + burst`, within `slack`.
async fn tier(gateways: &[Gateway], key: &Key, tier: &str, rate: u32, burst: u32, slack: f64) {
    const SECONDS: u32 = 6;
    let bearer = format!("Bearer {}", key.token(&claims("tier", tier)));
    let offered = (2 * rate).max(6).div_ceil(gateways.len() as u32);
    let loads: Vec<_> = gateways
        .iter()
        .map(|gateway| {
            Plan::new(gateway.http, "/known")
                .host("localhost")
                .header("Authorization", &bearer)
                .per_second(offered)
                .duration(Duration::from_secs(u64::from(SECONDS)))
                .start()
        })
        .collect();
    let begun = Instant::now();
    let mut admitted = 0;
    for load in loads {
        admitted += load.finish().await.ok;
    }
    let time = begun.elapsed().as_secs_f64().max(f64::from(SECONDS));
    let (least, most) = (
        f64::from(rate * SECONDS).min(f64::from(offered * SECONDS)),
        f64::from(rate) * time + f64::from(burst),
    );
    let offered_all = f64::from(offered * SECONDS) * gateways.len() as f64;
    assert!(admitted as f64 <= most * (1.0 + slack) + 1.0, "{tier}: {admitted} of {most}");
    let wanted = (least + f64::from(burst)).min(offered_all);
    assert!(admitted as f64 >= wanted * (1.0 - slack) - 2.0, "{tier}: {admitted} of {wanted}");
}

#[tokio::test]
async fn tiers_have_their_own_rates_on_one_gateway_and_on_three() {
    let redis = Redis::start().await;
    let key = Key::new("HS256");
    let alone = [start(TIERS, &key, None).await];
    tier(&alone, &key, "normal", 10, 50, 0.05).await;
    let mut three = Vec::new();
    for _ in 0..3 {
        three.push(start(TIERS, &key, Some(&redis)).await);
    }
    let bearer = format!("Bearer {}", key.token(&claims("tier", "warm")));
    for gateway in &three {
        // Connects the worker.
        call(gateway, "/known", &[("Authorization", &bearer)]).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    tier(&three, &key, "normal", 10, 50, 0.05).await;
}

#[tokio::test]
async fn a_tier_is_only_what_a_token_proves() {
    let key = Key::new("HS256");
    let gateway = start(TIERS, &key, None).await;
    let free = format!("Bearer {}", key.token(&claims("tier", "unheard-of")));
    let said = [("Authorization", free.as_str()), ("X-Tier", "vip"), ("Tier", "vip")];
    let answer = call(&gateway, "/known", &said).await;
    assert_eq!(number(&answer, "ratelimit-limit"), 1);
    let vip = format!("Bearer {}", key.token(&claims("tier", "vip")));
    let answer = call(&gateway, "/known", &[("Authorization", &vip)]).await;
    assert_eq!(number(&answer, "ratelimit-limit"), 100);
}

/// Shows L-06, L-09.
#[tokio::test]
async fn numbers_change_with_a_reload_and_counts_stay() {
    both(async |redis| {
        let key = Key::new("HS256");
        let filter = |limit: u32, vip: u32| {
            format!(
                "{{ limit: {limit}, per: 1h, key: \"claim:sub\", \
                 tiers: {{ by: \"claim:tier\", of: {{ vip: {{ limit: {vip} }} }} }} }}"
            )
        };
        let gateway = start(&filter(3, 5), &key, redis).await;
        let bearer = format!("Bearer {}", key.token(&claims("tier", "vip")));
        let vip = [("Authorization", bearer.as_str())];
        for _ in 0..5 {
            assert_eq!(call(&gateway, "/known", &vip).await.status, 200);
        }
        assert_eq!(call(&gateway, "/known", &vip).await.status, 429);
        gateway.write_config(&config(&filter(3, 7)));
        gateway.wait_for_generation(2).await;
        // A refusal is believed for a second at most.
        tokio::time::sleep(Duration::from_millis(1_050)).await;
        let answer = call(&gateway, "/known", &vip).await;
        assert_eq!((answer.status, number(&answer, "ratelimit-remaining")), (200, 1));
        assert_eq!(call(&gateway, "/known", &vip).await.status, 200);
        assert_eq!(call(&gateway, "/known", &vip).await.status, 429);
    })
    .await;
}

/// A client that makes up a new name for each call must not get more than its address may have.
/// Shows L-03.
#[tokio::test]
async fn ever_new_names_do_not_raise_the_limit_of_an_address() {
    both(async |redis| {
        let key = Key::new("HS256");
        let filter = "{ limit: 3, per: 1h, key: \"header:X-Client-Id\", address_limit: 10 }";
        let gateway = start(filter, &key, redis).await;
        let mut admitted = 0;
        for n in 0..40 {
            let name = format!("client-{n}");
            let answer = call(&gateway, "/limited", &[("X-Client-Id", &name)]).await;
            admitted += u32::from(answer.status == 200);
        }
        assert!((9..=10).contains(&admitted), "{admitted} of 10");
    })
    .await;
}
