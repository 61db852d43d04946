//! How exactly tiers hold over a minute, on three gateways that share one Redis.

use std::time::Duration;

use sluice_chaos::load::Plan;
use sluice_chaos::process::Redis;

use crate::support::{Gateway, Setup};
use crate::tokens::{Key, now};

const CONFIG: &str = r#"
redis: { url: "${REDIS_URL}" }
upstreams: { echo: { builtin: echo } }
routes:
  - id: known
    match: { path: /known }
    filters:
      - jwt: { keys: [ { kid: k, alg: HS256, secret_file: k.key } ] }
      - rate_limit:
          algorithm: token_bucket
          limit: 1
          per: 1s
          burst: 5
          key: "claim:sub"
          prepay: PREPAY
          tiers: { by: "claim:tier", of: { vip: { limit: 100, burst: 200 }, normal: { limit: 10, burst: 50 } } }
    upstream: echo
"#;

const SECONDS: u32 = 60;

async fn start(redis: &Redis, key: &Key, prepay: bool) -> Gateway {
    let setup = Setup { files: vec![("k.key", key.shared.clone())], ..Setup::default() };
    let config = CONFIG.replace("PREPAY", &prepay.to_string());
    Gateway::start_with_redis(&config, redis, setup).await
}

/// Offers each tier at least twice its rate for a minute; prints what was admitted beside
/// `rate * t + burst`.
async fn minute(prepay: bool) {
    let (redis, key) = (Redis::start().await, Key::new("HS256"));
    let mut gateways = Vec::new();
    for _ in 0..3 {
        gateways.push(start(&redis, &key, prepay).await);
    }
    let mut loads = Vec::new();
    for (tier, rate, burst) in [("vip", 100_u32, 200_u32), ("normal", 10, 50), ("free", 1, 5)] {
        let claims = format!(r#"{{"sub":"{tier}","tier":"{tier}","exp":{}}}"#, now() + 600);
        let bearer = format!("Bearer {}", key.token(&claims));
        let offered = (2 * rate).div_ceil(3);
        let running: Vec<_> = gateways
            .iter()
            .map(|gateway| {
                let plan = Plan::new(gateway.http, "/known").host("localhost");
                let plan = plan.header("Authorization", &bearer).per_second(offered);
                plan.duration(Duration::from_secs(u64::from(SECONDS))).start()
            })
            .collect();
        loads.push((tier, rate, burst, offered, running));
    }
    eprintln!("prepay: {prepay}");
    eprintln!("| tier | offered | admitted | rate * t + burst | off by |\n|---|---|---|---|---|");
    for (tier, rate, burst, offered, running) in loads {
        let mut admitted = 0;
        for load in running {
            admitted += load.finish().await.ok;
        }
        let wanted = f64::from(rate * SECONDS + burst);
        let off = admitted as f64 - wanted;
        let offered = offered * 3 * SECONDS;
        eprintln!(
            "| {tier} | {offered} | {admitted} | {wanted} | {:+.2} % |",
            off / wanted * 100.0
        );
        // A single call is more than a hundredth of the smallest tier.
        assert!(off.abs() <= (wanted / 100.0).max(1.0), "{tier}: {admitted} of {wanted}");
    }
    let mut commands = 0.0;
    let mut local = 0.0;
    for gateway in &gateways {
        commands += gateway.metric("sluice_redis_commands_total").await;
        local += gateway.metric("sluice_ratelimit_decisions_total{mode=\"local\"}").await;
    }
    eprintln!("{commands} commands; {local} calls decided without Redis");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "second tier: takes a minute"]
async fn long_tiers_admit_their_rate_and_burst_within_a_hundredth() {
    minute(false).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "second tier: takes a minute"]
async fn long_tiers_that_pay_in_advance_admit_as_much() {
    minute(true).await;
}
