//! Kept connections: how many, for how long, for how many requests, and who waits for one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sluice_chaos::raw::{Client, Response};
use sluice_chaos::recorder::{Answer, Recorder};
use sluice_chaos::rogue::Rogue;

use super::{closed, start};
use crate::support::{Gateway, eventually};

const HEAD: &str = "GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn slow(millis: u64) -> Recorder {
    Recorder::answering(Answer::ok("x").delay(Duration::from_millis(millis)))
}

/// So many requests at a time, each on a connection of its own.
async fn at_once(gateway: &Gateway, count: usize) -> Vec<Response> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = Client::connect(gateway.http).await;
        client.send(HEAD).await;
        clients.push(client);
    }
    let mut answers = Vec::new();
    for client in &mut clients {
        answers.push(client.response().await);
    }
    answers
}

fn all_well(answers: &[Response]) -> bool {
    answers.iter().all(|answer| answer.status == 200)
}

#[tokio::test]
async fn more_idle_connections_than_wanted_are_closed() {
    let recorder = slow(1500);
    let upstream = r#"{ endpoints: [ { address: "{0}" } ], keepalive: { idle_per_endpoint: 1 } }"#;
    let gateway = start(1, upstream, &[&recorder]).await;
    assert!(all_well(&at_once(&gateway, 3).await));
    assert_eq!(recorder.connections(), 3);
    recorder.wait_for_open(1).await;
    assert_eq!(closed(&gateway, "surplus").await, 2.0);
    recorder.set(Answer::ok("x"));
    assert_eq!(gateway.get("/a").await.status, 200);
    assert_eq!(
        (recorder.connections(), gateway.metric("sluice_pool_reused_total").await),
        (3, 1.0)
    );
}

#[tokio::test]
async fn a_connection_is_replaced_after_so_many_requests() {
    let recorder = Recorder::start();
    let upstream = r#"{ endpoints: [ { address: "{0}" } ], keepalive: { max_requests: 3 } }"#;
    let gateway = start(1, upstream, &[&recorder]).await;
    for _ in 0..7 {
        assert_eq!(gateway.get("/a").await.status, 200);
    }
    let by: Vec<u64> = recorder.requests().iter().map(|request| request.connection).collect();
    assert_eq!(by, [1, 1, 1, 2, 2, 2, 3]);
    assert_eq!(closed(&gateway, "max_requests").await, 2.0);
}

/// Shows U-30.
#[tokio::test]
async fn idle_and_old_connections_are_closed() {
    for (keepalive, reason) in [
        ("{ idle_timeout: 300ms }", "idle_timeout"),
        ("{ max_age: 300ms, idle_timeout: 5m }", "max_age"),
    ] {
        let recorder = Recorder::start();
        let upstream =
            format!("{{ endpoints: [ {{ address: \"{{0}}\" }} ], keepalive: {keepalive} }}");
        let gateway = start(1, &upstream, &[&recorder]).await;
        assert_eq!(gateway.get("/a").await.status, 200);
        recorder.wait_for_open(0).await;
        eventually("the count", async || closed(&gateway, reason).await == 1.0).await;
        assert_eq!(gateway.get("/a").await.status, 200);
        assert_eq!(recorder.connections(), 2);
    }
}

#[tokio::test]
async fn a_service_that_announces_its_patience_is_believed() {
    let answer = Answer::ok("x").header("Keep-Alive", "timeout=1, max=100");
    let recorder = Recorder::answering(answer);
    let upstream = r#"{ endpoints: [ { address: "{0}" } ], keepalive: { idle_timeout: 5m } }"#;
    let gateway = start(1, upstream, &[&recorder]).await;
    assert_eq!(gateway.get("/a").await.status, 200);
    recorder.wait_for_open(0).await;
    eventually("the count", async || closed(&gateway, "idle_timeout").await == 1.0).await;
}

#[tokio::test]
async fn each_way_a_connection_ends_is_counted() {
    let recorder = Recorder::setup().close_idle_after(Duration::from_millis(300)).start();
    let upstream = r#"{ endpoints: [ { address: "{0}" } ], keepalive: { idle_timeout: 5m } }"#;
    let gateway = start(1, upstream, &[&recorder]).await;
    assert_eq!(gateway.get("/a").await.status, 200);
    recorder.wait_for_open(0).await;
    eventually("the service's close", async || closed(&gateway, "peer_closed").await == 1.0).await;

    recorder.set(Answer::ok("x").close());
    assert_eq!(gateway.get("/a").await.status, 200);
    recorder.wait_for_open(0).await;
    let ended = async || closed(&gateway, "peer_closed").await + closed(&gateway, "unusable").await;
    eventually("the announced close", async || ended().await == 2.0).await;

    recorder.set(Answer::ok("late").delay(Duration::from_secs(30)));
    let mut client = gateway.client().await;
    client.send(HEAD).await;
    recorder.wait_for_begun(3).await;
    client.reset();
    eventually("the abandoned one", async || closed(&gateway, "abandoned").await == 1.0).await;
    eventually("all to be closed", async || gateway.metric("sluice_pool_connections").await == 0.0)
        .await;
    assert_eq!(gateway.metric("sluice_pool_opened_total").await, 3.0);
    assert_eq!(gateway.metric("sluice_pool_closed_total").await, 3.0);
}

/// Shows U-23.
#[tokio::test]
async fn who_finds_none_free_is_handed_the_next() {
    let recorder = slow(300);
    let upstream = r#"{ endpoints: [ { address: "{0}" } ],
        keepalive: { max_connections: 1, max_wait: 10s } }"#;
    let gateway = start(1, upstream, &[&recorder]).await;
    assert!(all_well(&at_once(&gateway, 5).await));
    assert_eq!(recorder.connections(), 1, "a waiter opened a connection of its own");
    assert_eq!(gateway.metric("sluice_pool_reused_total").await, 4.0);
    assert_eq!(gateway.metric("sluice_pool_waiting").await, 0.0);
}

/// Shows U-23.
#[tokio::test]
async fn who_waits_too_long_is_refused_and_the_service_is_not_blamed() {
    let recorder = slow(4000);
    let upstream = r#"{ endpoints: [ { address: "{0}" } ], breaker: { consecutive_failures: 1 },
        keepalive: { max_connections: 1, max_wait: 200ms } }"#;
    let gateway = start(1, upstream, &[&recorder]).await;
    let mut first = gateway.client().await;
    first.send(HEAD).await;
    recorder.wait_for_begun(1).await;
    let refused = gateway.get("/a").await;
    assert_eq!((refused.status, refused.json()["reason"].as_str()), (503, Some("pool_exhausted")));
    assert_eq!(refused.header("proxy-status"), Some("sluice; error=connection_limit_reached"));
    assert_eq!(first.response().await.status, 200);
    assert_eq!(gateway.metric("circuitbreaker_state{state=\"closed\"}").await, 1.0);
    assert_eq!((recorder.begun(), recorder.connections()), (1, 1));
    recorder.set(Answer::ok("x"));
    assert_eq!(gateway.get("/a").await.status, 200);
}

#[tokio::test]
async fn two_workers_together_never_open_more_than_allowed() {
    let (open, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (now, peak) = (Arc::clone(&open), Arc::clone(&most));
    let rogue = Rogue::start(move |mut talk| {
        let (now, peak) = (Arc::clone(&now), Arc::clone(&peak));
        async move {
            // The end of an old connection came first, but may be heard a moment later.
            tokio::time::sleep(Duration::from_millis(30)).await;
            peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            while talk.next_head().await.is_some() {
                tokio::time::sleep(Duration::from_millis(20)).await;
                talk.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx").await;
            }
            now.fetch_sub(1, Ordering::SeqCst);
        }
    });
    let upstream = format!(
        "{{ endpoints: [ {{ address: \"{}\" }} ], keepalive: {{ max_connections: 3, max_wait: 10s }} }}",
        rogue.addr()
    );
    let gateway = start(2, &upstream, &[]).await;
    for _ in 0..5 {
        assert!(all_well(&at_once(&gateway, 30).await));
    }
    assert_eq!(rogue.heads().len(), 150);
    let peak = most.load(Ordering::SeqCst);
    assert!((2..=3).contains(&peak), "{peak} connections at a time");
    assert!(gateway.metric("sluice_pool_connections").await <= 3.0);
    assert_eq!(rogue.complaints(), Vec::<String>::new());
}
