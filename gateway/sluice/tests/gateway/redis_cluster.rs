//! Limits counted in a real cluster of three nodes, and in whichever server sentinels name.

use std::time::Duration;

use sluice_chaos::process::Redis;

use crate::support::{Gateway, Setup, eventually};

const SLOTS: u64 = 16_384;

fn config(redis: &str, filter: &str) -> String {
    format!(
        r#"
redis: {redis}
upstreams: {{ echo: {{ builtin: echo }} }}
routes:
  - {{ id: limited, match: {{ path: /limited }}, filters: [ {{ rate_limit: {filter} }} ], upstream: echo }}
"#
    )
}

const EACH_USER: &str = "{ limit: 6, per: 1h, key: \"header:X-User\", address_limit: 1000000 }";

async fn start(redis: &str, filter: &str) -> Gateway {
    let setup = Setup { workers: Some(1), ..Setup::default() };
    let gateway = Gateway::start_with(&config(redis, filter), setup).await;
    gateway.connected().await;
    gateway
}

/// The status, and where it was counted.
async fn call(gateway: &Gateway, user: &str) -> (u16, String) {
    let mut client = gateway.client().await;
    let answer = client.request("GET", "/limited", "a", &[("X-User", user)], b"").await;
    (answer.status, answer.header("x-sluice-ratelimit-mode").unwrap_or("none").to_owned())
}

/// Three nodes, each with a third of the slots.
async fn cluster() -> Vec<Redis> {
    let nodes =
        vec![Redis::start_node().await, Redis::start_node().await, Redis::start_node().await];
    for (n, node) in (0..).zip(&nodes) {
        let (first, last) = (n * SLOTS / 3, (n + 1) * SLOTS / 3 - 1);
        let range = [first.to_string(), last.to_string()];
        node.command(&["CLUSTER", "ADDSLOTSRANGE", &range[0], &range[1]]).await;
    }
    join(&nodes).await;
    nodes
}

async fn join(nodes: &[Redis]) {
    for node in &nodes[1..] {
        meet(&nodes[0], node).await;
    }
    for node in nodes {
        eventually("the cluster to be whole", async || {
            let info = node.command(&["CLUSTER", "INFO"]).await;
            let known = format!("cluster_known_nodes:{}", nodes.len());
            let wanted = ["cluster_state:ok", "cluster_slots_assigned:16384", &known];
            wanted.iter().all(|line| info.contains(line))
        })
        .await;
    }
}

async fn meet(one: &Redis, other: &Redis) {
    let bus = other.command(&["CONFIG", "GET", "cluster-port"]).await;
    let (port, bus) = (other.port().to_string(), bus.lines().last().unwrap().to_owned());
    assert_eq!(one.command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await, "OK");
}

fn named(nodes: &[Redis]) -> String {
    let urls: Vec<String> = nodes.iter().map(|node| format!("\"{}\"", node.url())).collect();
    format!("{{ cluster: [ {} ] }}", urls.join(", "))
}

async fn keys(node: &Redis) -> Vec<String> {
    let keys = node.command(&["KEYS", "sluice:?:*"]).await;
    keys.lines().filter(|key| !key.is_empty()).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_cluster_counts_for_all_gateways_and_its_nodes_share_the_keys() {
    let nodes = cluster().await;
    // One is named; it tells of the others.
    let (one, two) =
        (start(&named(&nodes[..1]), EACH_USER).await, start(&named(&nodes), EACH_USER).await);
    for user in 0..30 {
        let user = format!("user-{user}");
        let mut admitted = 0;
        for n in 0..8 {
            // The first command to a node finds no connection yet.
            eventually("the limit to be shared", async || {
                let (status, mode) = call(if n % 2 == 0 { &one } else { &two }, "warm").await;
                (status, mode.as_str()) == (429, "shared") || mode == "shared"
            })
            .await;
            let (status, mode) = call(if n % 2 == 0 { &one } else { &two }, &user).await;
            if mode == "shared" {
                admitted += u32::from(status == 200);
            }
        }
        assert!(admitted <= 6, "{admitted} of 6");
    }
    for node in &nodes {
        let keys = keys(node).await;
        assert!(keys.len() >= 3, "{} of 31 keys", keys.len());
        for key in keys {
            assert!(node.command(&["PTTL", &key]).await.parse::<i64>().unwrap() > 0);
        }
    }
    // By now every node is connected to, so nothing is decided without them.
    let mut admitted = 0;
    for n in 0..20 {
        let (status, mode) = call(if n % 2 == 0 { &one } else { &two }, "last").await;
        assert_eq!(mode, "shared");
        admitted += u32::from(status == 200);
    }
    assert_eq!(admitted, 6);
}

/// Shows X-05.
#[tokio::test]
async fn a_key_that_moves_between_nodes_keeps_its_count() {
    let nodes = cluster().await;
    let gateway = start(&named(&nodes), EACH_USER).await;
    eventually("all nodes to be connected", async || {
        gateway.metric("sluice_redis_connections").await > 2.5
    })
    .await;
    let expect = async |statuses: &[u16]| {
        for status in statuses {
            assert_eq!(call(&gateway, "ann").await, (*status, "shared".to_owned()));
        }
    };
    expect(&[200, 200]).await;
    // The cap by address has a key too; ann's is the one with few calls.
    let mut found = None;
    for (n, node) in nodes.iter().enumerate() {
        for key in keys(node).await {
            found = Some((n, key));
        }
    }
    let (from, key) = found.unwrap();
    let (source, target) = (&nodes[from], &nodes[(from + 1) % 3]);
    let slot = source.command(&["CLUSTER", "KEYSLOT", &key]).await;
    let (source_id, target_id) =
        (source.command(&["CLUSTER", "MYID"]).await, target.command(&["CLUSTER", "MYID"]).await);
    let setslot = async |node: &Redis, words: &[&str]| {
        let words = [&["CLUSTER", "SETSLOT", &slot][..], words].concat();
        assert_eq!(node.command(&words).await, "OK");
    };
    setslot(target, &["IMPORTING", &source_id]).await;
    setslot(source, &["MIGRATING", &target_id]).await;
    let port = target.port().to_string();
    assert_eq!(source.command(&["MIGRATE", "127.0.0.1", &port, &key, "0", "1000"]).await, "OK");
    // Being moved: the source says ASK.
    expect(&[200, 200]).await;
    setslot(target, &["NODE", &target_id]).await;
    setslot(source, &["NODE", &target_id]).await;
    // Moved: the source says MOVED until the slots are asked for again.
    expect(&[200, 200, 429]).await;
    assert!(keys(source).await.iter().all(|other| *other != key));
    assert!(keys(target).await.contains(&key));
}

/// Shows X-01.
#[tokio::test]
async fn a_node_that_dies_costs_no_request_and_only_its_keys_are_counted_here() {
    let mut nodes = cluster().await;
    let gateway = start(&named(&nodes), EACH_USER).await;
    eventually("all nodes to be connected", async || {
        gateway.metric("sluice_redis_connections").await > 2.5
    })
    .await;
    nodes[2].kill();
    let (mut local, mut shared) = (0, 0);
    for user in 0..60 {
        let (status, mode) = call(&gateway, &format!("user-{user}")).await;
        assert_eq!(status, 200);
        local += u32::from(mode == "local");
        shared += u32::from(mode == "shared");
    }
    assert!(local > 0 && shared > 0 && local + shared == 60, "{local} local, {shared} shared");
}

/// A replica takes over for a node that dies, and the gateway follows.
#[tokio::test]
#[ignore = "second tier: takes a failover"]
async fn long_a_replica_takes_over_in_a_cluster() {
    let mut nodes = cluster().await;
    let replica = Redis::start_node().await;
    meet(&nodes[0], &replica).await;
    let id = nodes[2].command(&["CLUSTER", "MYID"]).await;
    eventually("the replica to know its master", async || {
        replica.command(&["CLUSTER", "REPLICATE", &id]).await == "OK"
    })
    .await;
    eventually("the replica to be in step", async || {
        replica.command(&["INFO", "replication"]).await.contains("master_link_status:up")
    })
    .await;
    let gateway = start(&named(&nodes), EACH_USER).await;
    nodes[2].kill();
    for _ in 0..20 {
        // The failover takes seconds: no request may fail meanwhile.
        for user in 0..20 {
            let (status, _) = call(&gateway, &format!("user-{user}")).await;
            assert!(matches!(status, 200 | 429), "{status}");
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    eventually("all keys to be shared again", async || {
        for user in 0..40 {
            if call(&gateway, &format!("new-{user}")).await.1 != "shared" {
                return false;
            }
        }
        true
    })
    .await;
    assert!(!keys(&replica).await.is_empty());
}

async fn sentinel(watched: &Redis) -> Redis {
    let lines = format!(
        "sentinel monitor counts 127.0.0.1 {} 1\nsentinel down-after-milliseconds counts 500\n\
         sentinel failover-timeout counts 2000\n",
        watched.port()
    );
    Redis::start_sentinel(&lines).await
}

fn by_sentinel(sentinel: &Redis) -> String {
    format!(
        "{{ sentinel: {{ name: counts, addresses: [ \"redis://127.0.0.1:9\", \"{}\" ] }} }}",
        sentinel.url()
    )
}

#[tokio::test]
async fn sentinels_tell_who_counts() {
    let redis = Redis::start().await;
    let sentinel = sentinel(&redis).await;
    let gateway = start(&by_sentinel(&sentinel), "{ limit: 3, per: 1h, key: route }").await;
    let mut admitted = 0;
    for _ in 0..6 {
        let (status, mode) = call(&gateway, "ann").await;
        assert_eq!(mode, "shared");
        admitted += u32::from(status == 200);
    }
    assert_eq!(admitted, 3);
    assert_eq!(keys(&redis).await.len(), 1);
}

/// Shows X-10.
#[tokio::test]
#[ignore = "second tier: takes a failover"]
async fn long_sentinels_name_another_server_when_one_dies() {
    let mut redis = Redis::start().await;
    let port = redis.port().to_string();
    let replica = Redis::start_with(&["--replicaof", "127.0.0.1", &port]).await;
    eventually("the replica to be in step", async || {
        replica.command(&["INFO", "replication"]).await.contains("master_link_status:up")
    })
    .await;
    let sentinel = sentinel(&redis).await;
    eventually("the sentinel to know the replica", async || {
        !sentinel.command(&["SENTINEL", "REPLICAS", "counts"]).await.is_empty()
    })
    .await;
    let gateway = start(&by_sentinel(&sentinel), "{ limit: 10, per: 1h, key: route }").await;
    for _ in 0..4 {
        assert_eq!(call(&gateway, "ann").await, (200, "shared".to_owned()));
    }
    eventually("the replica to have the count", async || !keys(&replica).await.is_empty()).await;
    redis.kill();
    for _ in 0..40 {
        let (status, _) = call(&gateway, "ann").await;
        assert!(matches!(status, 200 | 429), "{status}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    eventually("the other server to count", async || call(&gateway, "ann").await.1 == "shared")
        .await;
    let (status, _) = call(&gateway, "ann").await;
    assert!(matches!(status, 200 | 429));
    let held = replica.command(&["HGET", &keys(&replica).await[0], "c"]).await;
    assert!(held.parse::<u64>().unwrap() >= 4, "the count went along: {held}");
}
