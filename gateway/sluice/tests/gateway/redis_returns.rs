//! How a Redis comes back: soon, on gateways that do not come back in step, and at another address.

use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sluice_chaos::dns::FakeDns;
use sluice_chaos::process::{Redis, tool};

use crate::support::{Gateway, Setup, eventually};

/// What an operator may count on.
const SOON: Duration = Duration::from_millis(1_500);
/// Long enough for pauses between attempts to have become as long as they get.
const GONE: Duration = Duration::from_millis(2_500);

async fn start(url: String, head: &str) -> Gateway {
    let config = format!(
        "{head}\nredis: {{ url: \"${{REDIS_URL}}\" }}\nupstreams: {{ echo: {{ builtin: echo }} }}\n\
         routes: [ {{ id: limited, upstream: echo,\n  \
         filters: [ {{ rate_limit: {{ limit: 1000000, per: 1h, key: route }} }} ] }} ]\n"
    );
    let setup = Setup { env: vec![("REDIS_URL", url)], workers: Some(1), ..Setup::default() };
    let gateway = Gateway::start_with(&config, setup).await;
    eventually("the limit to be shared", async || is_shared(&gateway).await).await;
    gateway
}

async fn is_shared(gateway: &Gateway) -> bool {
    let answer = gateway.get("/limited").await;
    assert_eq!(answer.status, 200);
    answer.header("x-sluice-ratelimit-mode") == Some("shared")
}

/// How long it takes until limits are shared.
async fn until_shared(gateway: &Gateway) -> Duration {
    let begun = Instant::now();
    while !is_shared(gateway).await {
        assert!(begun.elapsed() < Duration::from_secs(30), "limits are never shared again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    begun.elapsed()
}

/// Shows. A machine that does more than this may be late: one round of three has to do.
#[tokio::test]
async fn limits_are_shared_within_a_second_and_a_half_of_the_return_of_redis() {
    let mut redis = Redis::start().await;
    let gateways = join_all((0..3).map(|_| start(redis.url(), ""))).await;
    for killed in [false, true] {
        let mut rounds = Vec::new();
        let soon = async |rounds: &mut Vec<Duration>| {
            let took = join_all(gateways.iter().map(until_shared)).await;
            rounds.push(took.into_iter().max().unwrap());
            rounds.last().is_some_and(|took| *took <= SOON)
        };
        for _ in 0..3 {
            if killed {
                redis.kill();
            } else {
                redis.pause();
            }
            let until = Instant::now() + GONE;
            while Instant::now() < until {
                for gateway in &gateways {
                    assert_eq!(gateway.get("/limited").await.status, 200);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if killed {
                redis = Redis::start_on(redis.port()).await;
            } else {
                redis.resume();
            }
            if soon(&mut rounds).await {
                break;
            }
        }
        assert!(rounds.iter().any(|took| *took <= SOON), "killed: {killed}: {rounds:?}");
    }
}

/// Shows X-11.
#[tokio::test]
async fn a_redis_that_has_moved_is_found_by_its_name() {
    let dns = FakeDns::start();
    dns.set("redis.test", &["127.0.0.1".parse().unwrap()], 1);
    let redis = Redis::start_with(&["--bind", "127.0.0.1", "127.0.0.2"]).await;
    let url = format!("redis://redis.test:{}", redis.port());
    let head = format!("resolver: {{ nameservers: [ \"{}\" ] }}", dns.addr());
    let gateway = start(url, &head).await;
    assert_eq!(redis.command(&["CONFIG", "SET", "bind", "127.0.0.2"]).await, "OK");
    let mut there = Command::new(tool("redis-cli"));
    there.args(["-h", "127.0.0.2", "-p", &redis.port().to_string()]);
    assert!(there.args(["CLIENT", "KILL", "TYPE", "normal"]).status().unwrap().success());
    eventually("the limit to be counted here", async || !is_shared(&gateway).await).await;
    dns.set("redis.test", &["127.0.0.2".parse().unwrap()], 1);
    eventually("the limit to be shared", async || is_shared(&gateway).await).await;
}
