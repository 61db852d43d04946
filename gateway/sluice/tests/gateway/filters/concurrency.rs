//! Limits of requests in progress: in this process, shared in Redis, and when a gateway dies.

use std::time::{Duration, Instant};

use sluice_chaos::process::Redis;
use sluice_chaos::raw::{Client, Response};
use sluice_chaos::ws;

use crate::support::{Gateway, Setup, eventually};

fn config(filter: &str, service: &str) -> String {
    format!(
        r#"
redis: {{ url: "${{REDIS_URL:-}}" }}
upstreams:
  echo: {{ builtin: echo }}
  service: {{ endpoints: [ {{ address: "{service}" }} ] }}
routes:
  - {{ id: a, match: {{ path: /a }}, filters: [ {{ rate_limit: {filter} }} ], upstream: echo }}
  - id: tunnel
    match: {{ path: /tunnel }}
    filters: [ {{ rate_limit: {filter} }} ]
    websocket: true
    upstream: service
"#
    )
}

const FILTER: &str = "{ algorithm: concurrency, limit: 2, key: \"header:X-User\", \
    address_limit: 1000, lease: 3s }";

async fn start(redis: Option<&Redis>) -> Gateway {
    start_before(redis, "127.0.0.1:9").await
}

async fn start_before(redis: Option<&Redis>, service: &str) -> Gateway {
    let env = redis.map(|redis| ("REDIS_URL", redis.url())).into_iter().collect();
    let setup = Setup { env, workers: Some(1), ..Setup::default() };
    let gateway = Gateway::start_with(&config(FILTER, service), setup).await;
    if redis.is_some() {
        gateway.connected().await;
    }
    gateway
}

/// A request in progress: its body is not whole. The limit has admitted it, or else a call that looks how many
/// there are could take the place it is for.
async fn begin(gateway: &Gateway, user: &str) -> Client {
    let mut client = gateway.client().await;
    let head = format!(
        "POST /a HTTP/1.1\r\nHost: a\r\nX-User: {user}\r\nContent-Length: 2\r\n\
         Expect: 100-continue\r\n\r\n"
    );
    client.send(head).await;
    assert_eq!(client.read_some().await, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.send("1").await;
    client
}

async fn call(gateway: &Gateway, user: &str) -> Response {
    gateway.client().await.request("GET", "/a", "a", &[("X-User", user)], b"").await
}

async fn both(story: impl AsyncFn(Option<&Redis>)) {
    story(None).await;
    story(Some(&Redis::start().await)).await;
}

/// Waits until so many of the user's requests are in progress, as far as answers tell.
async fn taken(gateway: &Gateway, user: &str, wanted: u64) {
    eventually("requests in progress", async || {
        let answer = call(gateway, user).await;
        let left: u64 = answer.header("ratelimit-remaining").unwrap().parse().unwrap();
        // The asking one takes a place itself, if there is one.
        if wanted == 2 { answer.status == 429 } else { answer.status == 200 && left == 1 - wanted }
    })
    .await;
}

#[tokio::test]
async fn places_are_taken_while_a_request_lasts_and_given_back_however_it_ends() {
    both(async |redis| {
        let gateway = start(redis).await;
        let mut one = begin(&gateway, "ann").await;
        let two = begin(&gateway, "ann").await;
        taken(&gateway, "ann", 2).await;
        let refused = call(&gateway, "ann").await;
        assert_eq!(refused.json()["reason"].as_str(), Some("rate_limited"));
        assert_eq!(refused.header("retry-after"), Some("1"));
        assert_eq!(refused.header("ratelimit-limit"), Some("2"));
        assert_eq!(call(&gateway, "bob").await.status, 200, "another's places are others");

        one.send("2").await;
        assert_eq!(one.response().await.json()["body"], "12");
        taken(&gateway, "ann", 1).await;
        drop(two);
        taken(&gateway, "ann", 0).await;
        for _ in 0..20 {
            assert_eq!(call(&gateway, "ann").await.status, 200);
        }
    })
    .await;
}

/// A bound on the WebSockets of a user.
#[tokio::test]
async fn a_tunnel_has_its_place_until_it_ends() {
    both(async |redis| {
        let echo = ws::Echo::start();
        let gateway = start_before(redis, &echo.addr().to_string()).await;
        let open = async |user| {
            ws::Client::try_connect(gateway.http, "a", "/tunnel", &[("X-User", user)]).await
        };
        let mut first = open("ann").await.unwrap();
        let second = open("ann").await.unwrap();
        first.send_text("still here").await;
        assert_eq!(first.next().await.payload, b"still here");
        let refused = open("ann").await.err().unwrap();
        assert_eq!((refused.status, refused.header("ratelimit-limit")), (429, Some("2")));
        assert!(open("bob").await.is_ok(), "another's places are others");
        first.close(1000).await;
        drop(first);
        eventually("the place to be free", async || open("ann").await.is_ok()).await;
        drop(second);
        eventually("all places to be free", async || {
            let two = (open("ann").await, open("ann").await);
            two.0.is_ok() && two.1.is_ok()
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn gateways_count_together_and_one_that_dies_is_forgotten_with_its_leases() {
    let redis = Redis::start().await;
    let echo = ws::Echo::start();
    let one = start_before(Some(&redis), &echo.addr().to_string()).await;
    let mut two = start(Some(&redis)).await;
    let tunnel =
        async || ws::Client::try_connect(one.http, "a", "/tunnel", &[("X-User", "ann")]).await;
    let _tunnels = (tunnel().await.unwrap(), tunnel().await.unwrap());
    let _a = begin(&one, "ann").await;
    let _b = begin(&two, "ann").await;
    taken(&one, "ann", 2).await;
    taken(&two, "ann", 2).await;
    // Longer than a lease: places are renewed as long as the requests last.
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    assert_eq!(call(&one, "ann").await.status, 429);
    assert_eq!(tunnel().await.err().unwrap().status, 429);
    assert!(redis.command(&["PTTL", &key(&redis).await]).await.parse::<i64>().unwrap() > 0);

    two.daemon.kill();
    let dead = Instant::now();
    taken(&one, "ann", 1).await;
    assert!(dead.elapsed() < Duration::from_secs(6), "{:?} for a lease of 3 s", dead.elapsed());
}

/// Shows X-04, X-08.
#[tokio::test]
async fn an_emptied_redis_learns_again_what_is_in_progress() {
    let redis = Redis::start().await;
    let gateway = start(Some(&redis)).await;
    let _a = begin(&gateway, "ann").await;
    let _b = begin(&gateway, "ann").await;
    taken(&gateway, "ann", 2).await;
    redis.command(&["FLUSHALL"]).await;
    eventually("the places to be taken again", async || {
        let keys = redis.command(&["KEYS", "sluice:p:*"]).await;
        let key = keys.lines().next().unwrap_or("none");
        redis.command(&["ZCARD", key]).await == "2"
    })
    .await;
    assert_eq!(call(&gateway, "ann").await.status, 429);
    let key = key(&redis).await;
    redis.command(&["DEL", &key]).await;
    redis.command(&["SET", &key, "something else"]).await;
    eventually("the key to be healed", async || {
        redis.command(&["TYPE", &key]).await == "zset"
            && redis.command(&["ZCARD", &key]).await == "2"
    })
    .await;
}

#[tokio::test]
async fn without_redis_a_gateway_knows_its_own_requests() {
    let redis = Redis::start().await;
    let gateway = start(Some(&redis)).await;
    let _a = begin(&gateway, "ann").await;
    let _b = begin(&gateway, "ann").await;
    taken(&gateway, "ann", 2).await;
    drop(redis);
    for _ in 0..10 {
        assert_eq!(call(&gateway, "ann").await.status, 429, "both are still in progress");
        let answer = call(&gateway, "bob").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-sluice-ratelimit-mode"), Some("local"));
    }
}

async fn key(redis: &Redis) -> String {
    let keys = redis.command(&["KEYS", "sluice:p:*"]).await;
    // The cap by address has one too.
    for key in keys.lines() {
        if redis.command(&["ZCARD", key]).await == "2" {
            return key.to_owned();
        }
    }
    panic!("no places in {keys}");
}
