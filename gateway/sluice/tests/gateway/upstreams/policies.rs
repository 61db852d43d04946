//! Ways of choosing beyond turns and load: by speed, by chance, by what keeps requests together, and what
//! an endpoint bears that has just come back.

use std::time::Duration;

use sluice_chaos::recorder::{Answer, Recorder};

use super::{served, start};
use crate::support::{Gateway, Setup, eventually};
use crate::tokens::{Key, now};

/// Each answers with its own number.
fn numbered<const N: usize>() -> [Recorder; N] {
    std::array::from_fn(|n| Recorder::answering(Answer::ok(n.to_string())))
}

/// Who serves a GET with these fields, over a connection of its own.
async fn owner(gateway: &Gateway, path: &str, fields: &[(&str, &str)]) -> String {
    let answer = gateway.client().await.request("GET", path, "localhost", fields, b"").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

async fn owners(gateway: &Gateway, name: &str) -> Vec<String> {
    let mut owners = Vec::new();
    for user in 0..24 {
        owners.push(owner(gateway, "/a", &[(name, &format!("user-{user}"))]).await);
    }
    owners
}

#[tokio::test]
async fn the_fastest_is_asked_and_the_slow_one_tried_now_and_then() {
    let recorders = numbered::<3>();
    recorders[1].set(Answer::ok("1").delay(Duration::from_millis(250)));
    let upstream = r#"{ balance: fastest,
        endpoints: [ { address: "{0}" }, { address: "{1}" }, { address: "{2}" } ] }"#;
    let gateway = start(2, upstream, &recorders.each_ref()).await;
    for _ in 0..60 {
        owner(&gateway, "/a", &[]).await;
    }
    let shares: Vec<usize> = recorders.iter().map(served).collect();
    assert!((1..=12).contains(&shares[1]), "{shares:?}");
    assert_eq!(shares.iter().sum::<usize>(), 60);

    // Who fails at once is not the fastest.
    recorders[0].set(Answer::new(503));
    recorders[2].set(Answer::new(503));
    for _ in 0..8 {
        gateway.get("/a").await;
    }
    assert!(served(&recorders[1]) > shares[1] + 1, "failures look attractive: {shares:?}");
}

#[tokio::test]
async fn chance_gives_each_its_share() {
    let recorders = numbered::<3>();
    let upstream = r#"{ balance: random, endpoints: [
        { address: "{0}", weight: 2 }, { address: "{1}" }, { address: "{2}", weight: 0 } ] }"#;
    let gateway = start(2, upstream, &recorders.each_ref()).await;
    let mut client = gateway.client().await;
    for _ in 0..300 {
        assert_eq!(client.request("GET", "/a", "localhost", &[], b"").await.status, 200);
    }
    let shares: Vec<usize> = recorders.iter().map(served).collect();
    assert!((150..250).contains(&shares[0]) && shares[0] + shares[1] == 300, "{shares:?}");
}

/// Two instances that list the same endpoints in another order, and an endpoint that dies.
///
/// Shows U-01.
#[tokio::test]
async fn a_key_has_the_same_endpoint_on_every_instance() {
    let [a, b, c] = numbered::<3>();
    let upstream = |keep: &str| {
        format!(
            r#"{{ balance: hash, hash: {{ key: "header:x-user" }}, {keep}
                endpoints: [ {{ address: "{{0}}" }}, {{ address: "{{1}}" }}, {{ address: "{{2}}" }} ] }}"#
        )
    };
    let one = start(2, &upstream(""), &[&a, &b, &c]).await;
    let other = start(1, &upstream("ejection: { consecutive_failures: 1 },"), &[&c, &a, &b]).await;
    let before = owners(&one, "x-user").await;
    assert_eq!(owners(&other, "x-user").await, before);
    for number in ["0", "1", "2"] {
        let own = before.iter().filter(|owner| *owner == number).count();
        assert!((2..=16).contains(&own), "{before:?}");
    }
    b.stop().await;
    for gateway in [&one, &other] {
        let after = owners(gateway, "x-user").await;
        for (before, after) in before.iter().zip(&after) {
            assert!(after == before || before == "1" && after != "1", "{after}");
        }
    }
    assert_eq!(owners(&one, "x-user").await, owners(&other, "x-user").await, "second choices");
    // Without the header the address counts, so all of this test's requests stay together.
    let alone = owner(&one, "/a", &[]).await;
    for _ in 0..5 {
        assert_eq!(owner(&other, "/a", &[]).await, alone);
    }
}

#[tokio::test]
async fn addresses_captures_cookies_and_claims_keep_requests_together() {
    let recorders = numbered::<4>();
    let key = Key::new("HS256");
    let endpoints: Vec<String> =
        recorders.iter().map(|one| format!("{{ address: \"{}\" }}", one.addr())).collect();
    let endpoints = format!("endpoints: [ {} ]", endpoints.join(", "));
    let config = format!(
        "trusted_proxies: [ 127.0.0.1 ]
upstreams:
  ip: {{ balance: ip_hash, {endpoints} }}
  room: {{ balance: hash, hash: {{ key: 'capture:room + cookie:side', balance_factor: 1000 }}, {endpoints} }}
  user: {{ sticky: {{ claim: sub }}, {endpoints} }}
routes:
  - {{ id: ip, match: {{ path: /ip }}, upstream: ip }}
  - {{ id: room, match: {{ path: '/rooms/{{room}}/x' }}, upstream: room }}
  - {{ id: seat, match: {{ path: '/seats/{{row}}/{{room}}' }}, upstream: room }}
  - id: user
    match: {{ path: /user }}
    filters: [ {{ jwt: {{ keys: [ {{ kid: k, alg: HS256, secret_file: HS256.key }} ] }} }} ]
    upstream: user
"
    );
    let setup = Setup { files: vec![("HS256.key", key.shared.clone())], ..Setup::default() };
    let gateway = Gateway::start_with(&config, setup).await;
    let mut seen = [0; 3].map(|_| std::collections::BTreeSet::new());
    for n in 0..16 {
        let client = format!("198.51.100.{n}");
        let fields = [("X-Forwarded-For", client.as_str())];
        let first = owner(&gateway, "/ip", &fields).await;
        assert_eq!(owner(&gateway, "/ip", &fields).await, first);
        seen[0].insert(first);

        let first = owner(&gateway, &format!("/rooms/{n}/x"), &[("Cookie", "b=1; side=2")]).await;
        let fields = [("Cookie", "side=2")];
        assert_eq!(owner(&gateway, &format!("/rooms/{n}/x"), &fields).await, first);
        assert_eq!(owner(&gateway, &format!("/seats/7/{n}"), &fields).await, first);
        seen[1].insert(first);

        let claims = format!(r#"{{"sub":"user-{n}","exp":{}}}"#, now() + 600);
        let bearer = format!("Bearer {}", key.token(&claims));
        let fields = [("Authorization", bearer.as_str())];
        let first = owner(&gateway, "/user", &fields).await;
        assert_eq!(owner(&gateway, "/user", &fields).await, first);
        seen[2].insert(first);
    }
    assert!(seen.iter().all(|owners| owners.len() >= 3), "{seen:?}");
}

#[tokio::test]
async fn a_header_that_is_sticky_leaves_the_others_to_their_turns() {
    let recorders = numbered::<2>();
    let upstream = r#"{ sticky: { header: x-device },
        endpoints: [ { address: "{0}" }, { address: "{1}" } ] }"#;
    let gateway = start(2, upstream, &recorders.each_ref()).await;
    let own = owner(&gateway, "/a", &[("X-Device", "seven")]).await;
    let mut turns = String::new();
    for _ in 0..4 {
        assert_eq!(owner(&gateway, "/a", &[("X-Device", "seven")]).await, own);
        turns.push_str(&owner(&gateway, "/a", &[]).await);
    }
    assert!(["0101", "1010"].contains(&turns.as_str()), "{turns}");
}

const STICKY: &str = r#"{ sticky: { cookie: { name: side, secret: "${SIDE}", max_age: 1h } },
    endpoints: [ { address: "{0}" }, { address: "{1}" }, { address: "{2}" } ] }"#;

#[tokio::test]
async fn a_cookie_keeps_its_caller_at_an_endpoint_on_every_instance() {
    let recorders = numbered::<3>();
    let secret = "0123456789abcdef";
    let start = async || {
        let upstream = STICKY.replace("${SIDE}", secret);
        start(2, &upstream, &recorders.each_ref()).await
    };
    let (one, other) = (start().await, start().await);
    let first = one.get("/a").await;
    let set = first.header("set-cookie").unwrap().to_owned();
    let (pair, attributes) = set.split_once("; ").unwrap();
    assert_eq!(attributes, "Path=/; Max-Age=3600; HttpOnly; SameSite=Lax");
    let value = pair.strip_prefix("side=").unwrap();
    assert!(value.len() == 32 && value.bytes().all(|b| b.is_ascii_hexdigit()), "{value}");
    let cookie = format!("a=b; {pair}");
    let fields = [("Cookie", cookie.as_str())];
    for gateway in [&one, &other, &one] {
        let answer = gateway.client().await.request("GET", "/a", "localhost", &fields, b"").await;
        assert_eq!(answer.text(), first.text());
        assert_eq!(answer.header("set-cookie"), None, "it knows already");
    }
    // What nobody was given means nothing, and is replaced.
    for wrong in ["side=", "side=0", "side=00000000000000000000000000000000", "side=127.0.0.1"] {
        let fields = [("Cookie", wrong)];
        let answer = one.client().await.request("GET", "/a", "localhost", &fields, b"").await;
        assert!(answer.header("set-cookie").is_some_and(|set| set.starts_with("side=")), "{wrong}");
    }
    // Its endpoint is gone: another one serves it, and keeps it.
    let mut left: Vec<Recorder> = recorders.into_iter().collect();
    let dead: usize = first.text().parse().unwrap();
    left.remove(dead).stop().await;
    let answer = one.client().await.request("GET", "/a", "localhost", &fields, b"").await;
    assert_eq!(answer.status, 200);
    assert_ne!(answer.text(), first.text());
    let (moved, _) = answer.header("set-cookie").unwrap().split_once("; ").unwrap();
    assert_ne!(moved, pair);
    let again =
        other.client().await.request("GET", "/a", "localhost", &[("Cookie", moved)], b"").await;
    assert_eq!((again.text(), again.header("set-cookie")), (answer.text(), None));
}

#[tokio::test]
async fn a_cookie_that_was_set_over_tls_is_sent_over_tls_only() {
    let recorder = Recorder::start();
    let upstream = format!(
        r#"{{ sticky: {{ cookie: {{ secret: "0123456789abcdef", http_only: false, same_site: strict }} }},
            endpoints: [ {{ address: "{}" }} ] }}"#,
        recorder.addr()
    );
    let config = format!(
        "trusted_proxies: [ 127.0.0.1 ]\nupstreams: {{ up: {upstream} }}\n\
         routes: [ {{ id: up, upstream: up }} ]\n"
    );
    let gateway = Gateway::start(&config).await;
    let set = async |proto: &str| {
        let fields = [("X-Forwarded-Proto", proto)];
        let answer = gateway.client().await.request("GET", "/", "localhost", &fields, b"").await;
        answer.header("set-cookie").unwrap().split_once("; ").unwrap().1.to_owned()
    };
    assert_eq!(set("https").await, "Path=/; SameSite=Strict; Secure");
    assert_eq!(set("http").await, "Path=/; SameSite=Strict");
}

#[tokio::test]
async fn who_comes_back_begins_slowly() {
    let recorders = numbered::<2>();
    let [first, second] = &recorders;
    let upstream = r#"{ slow_start: { window: 1h }, endpoints: [ { address: "{0}" }, { address: "{1}" } ],
        health_check: { http: /health, interval: 50ms, rise: 1, fall: 1 } }"#;
    let gateway = start(2, upstream, &[first, second]).await;
    let shares = async |calls: usize| {
        let before = [first, second].map(served);
        let mut client = gateway.client().await;
        for _ in 0..calls {
            assert_eq!(client.request("GET", "/a", "localhost", &[], b"").await.status, 200);
        }
        [served(first) - before[0], served(second) - before[1]]
    };
    assert_eq!(shares(20).await, [10, 10], "at the start all are as new");
    let up = async || gateway.metric("sluice_endpoint_up").await;
    first.set(Answer::new(500));
    eventually("the first to be out", async || up().await == 1.0).await;
    first.set(Answer::ok("0"));
    eventually("the first to be back", async || up().await == 2.0).await;
    let [fresh, old] = shares(220).await;
    assert!((5..=50).contains(&fresh) && fresh + old == 220, "a tenth of its half: {fresh}");
}
