//! Stopping in good order: who is told first, who may finish, who is cut.

use std::time::Duration;

use sluice_chaos::client;
use sluice_chaos::load::{Plan, Running, Tally};
use sluice_chaos::raw::{Client, Response};
use sluice_chaos::recorder::{Answer, Recorder};

use crate::support::{Gateway, eventually};

const ROUTES: &str = r#"
upstreams:
  up: { endpoints: [ { address: "{up}" } ], timeouts: { total: 50s } }
  health: { builtin: health }
routes:
  - { id: up, match: { path: /up }, upstream: up }
  - { id: health, match: { path: /health }, upstream: health }
"#;

async fn start(shutdown: &str, recorder: &Recorder) -> Gateway {
    let config = format!("shutdown: {shutdown}\n{ROUTES}");
    Gateway::start(&config.replace("{up}", &recorder.addr().to_string())).await
}

fn slow(delay: Duration) -> Recorder {
    Recorder::answering(Answer::ok("late").delay(delay))
}

async fn ask(client: &mut Client, path: &str) -> Response {
    client.request("GET", path, "localhost", &[], b"").await
}

#[tokio::test]
async fn readiness_fails_before_anybody_is_refused() {
    let recorder = Recorder::start();
    let mut gateway = start("{ delay: 4s, grace: 10s }", &recorder).await;
    let (mut kept, mut idle) = (gateway.client().await, gateway.client().await);
    let ready = gateway.admin("/readyz").await;
    assert_eq!((ready.status, ready.text().as_str()), (200, "ready\n"));
    for client in [&mut kept, &mut idle] {
        let answer = ask(client, "/up").await;
        assert_eq!((answer.status, answer.header("connection")), (200, None));
    }
    assert_eq!(gateway.get("/health").await.status, 200);

    gateway.daemon.signal("TERM");
    eventually("readiness to fail", async || gateway.admin("/readyz").await.status == 503).await;
    assert_eq!(gateway.admin("/readyz").await.text(), "draining\n");
    assert_eq!(gateway.admin("/livez").await.status, 200);
    assert_eq!(gateway.metric("sluice_ready").await, 0.0);
    // Until the delay is over everybody is served, and asked to come back elsewhere.
    let last = ask(&mut kept, "/up").await;
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    assert!(last.closed);
    let fresh = gateway.get("/up").await;
    assert_eq!((fresh.status, fresh.header("connection")), (200, Some("close")));
    assert_eq!(gateway.get("/health").await.status, 503);

    assert!(idle.closed_by_peer().await, "an idle connection outlives the delay");
    eventually("the listener to close", async || Client::try_connect(gateway.http).await.is_err())
        .await;
    assert_eq!(gateway.daemon.exit_code().await, Some(0));
}

#[tokio::test]
async fn requests_under_way_finish() {
    let recorder = slow(Duration::from_secs(3));
    let mut gateway = start("{ delay: 100ms, grace: 20s }", &recorder).await;
    let mut client = gateway.client().await;
    client.send("GET /up HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    recorder.wait_for_begun(1).await;
    gateway.daemon.signal("TERM");
    eventually("the listener to close", async || Client::try_connect(gateway.http).await.is_err())
        .await;
    let answer = client.response().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "late"));
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(answer.closed && answer.complete);
    assert_eq!(gateway.daemon.exit_code().await, Some(0));
    let log = std::fs::read_to_string(gateway.folder().join("access.log")).unwrap();
    assert_eq!(log.lines().count(), 1, "the last line is missing: {log}");
}

/// Shows H2-24.
#[tokio::test]
async fn http2_is_told_to_go_away_and_open_streams_finish() {
    let recorder = slow(Duration::from_secs(3));
    let mut gateway = start("{ delay: 100ms, grace: 20s }", &recorder).await;
    // An idle connection, whose frames are read as they come.
    let mut idle = gateway.client().await;
    idle.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    let mut busy = client::h2c(gateway.http).await;
    let mut late = busy.another();
    let waiting = tokio::spawn(async move { busy.send(client::get("/up")).await });
    recorder.wait_for_begun(1).await;

    gateway.daemon.signal("TERM");
    let mut frames = Vec::new();
    while !kinds(&frames).contains(&7) {
        let more = idle.read_some().await;
        assert!(!more.is_empty(), "closed without GOAWAY after {frames:?}");
        frames.extend(more);
    }
    // Who does not answer the gateway's ping would be waited for.
    drop(idle);
    assert!(!waiting.is_finished(), "the stream ended before it could have");
    // Each connection gets its own GOAWAY, and a stream that crosses it on the way is still served:
    // give the frame the time to arrive here.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let refused = late.try_send(client::get("/up")).await;
    assert!(refused.is_err(), "a stream was opened after GOAWAY");
    let (head, body, _) = waiting.await.unwrap();
    assert_eq!((head.status.as_u16(), body.as_slice()), (200, &b"late"[..]));
    assert!(head.headers.get("connection").is_none());
    assert_eq!(gateway.daemon.exit_code().await, Some(0));
    assert_eq!(recorder.begun(), 1);
}

/// The types of some HTTP/2 frames (RFC 9113 section 4.1).
fn kinds(mut bytes: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let [a, b, c, kind, ..] = bytes {
        kinds.push(*kind);
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        bytes = bytes.get(9 + length..).unwrap_or(&[]);
    }
    kinds
}

/// Shows G-02.
#[tokio::test]
async fn asked_a_second_time_it_stops_at_once() {
    let recorder = slow(Duration::from_secs(40));
    let mut gateway = start("{ delay: 60s, grace: 60s }", &recorder).await;
    let mut client = gateway.client().await;
    client.send("GET /up HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    recorder.wait_for_begun(1).await;
    gateway.daemon.signal("TERM");
    gateway.daemon.wait_for_output("draining").await;
    gateway.daemon.signal("INT");
    assert_eq!(gateway.daemon.exit_code().await, Some(0));
    assert!(client.try_response_to("GET").await.is_none(), "an answer out of nothing");
    assert!(gateway.daemon.output().contains("asked again"));
}

/// Shows G-06.
#[tokio::test]
async fn what_never_ends_is_cut_when_the_time_is_up() {
    let recorder = slow(Duration::from_secs(40));
    let mut gateway = start("{ delay: 100ms, grace: 1s }", &recorder).await;
    let mut client = gateway.client().await;
    client.send("GET /up HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    recorder.wait_for_begun(1).await;
    gateway.daemon.signal("TERM");
    assert_eq!(gateway.daemon.exit_code().await, Some(0));
    assert!(client.try_response_to("GET").await.is_none());
    let said = gateway.daemon.output();
    assert!(said.contains("cut at the end of the grace period"), "{said}");
    assert!(said.contains("\"connections\":1"), "{said}");
}

/// A load as a balancer would send it: to this gateway for as long as it says that it is ready.
fn load(gateway: &Gateway, keepalive: bool) -> Running {
    let plan = Plan::new(gateway.http, "/up").per_second(150).duration(Duration::from_secs(60));
    plan.keepalive(keepalive).start()
}

fn nothing_lost(round: u32, tally: &Tally) {
    let lost = (tally.failed, tally.refused);
    assert_eq!(lost, (0, 0), "round {round}: {:?}", tally.errors);
    assert_eq!(tally.ok, tally.sent, "round {round}: {:?}", tally.by_status);
}

/// Shows G-01.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_drains_under_load_lose_nothing() {
    let recorder = Recorder::answering(Answer::ok("ok").delay(Duration::from_millis(20)));
    for round in 1..=20 {
        let before = recorder.begun();
        let mut gateway = start("{ delay: 1s, grace: 20s }", &recorder).await;
        let (kept, single) = (load(&gateway, true), load(&gateway, false));
        eventually("some load", async || kept.sent() > 20 && single.sent() > 20).await;
        gateway.daemon.signal("TERM");
        eventually("readiness to fail", async || gateway.admin("/readyz").await.status == 503)
            .await;
        // The balancer takes some of its time to act on what it has seen.
        let seen = kept.sent();
        eventually("more load", async || kept.sent() > seen + 20).await;
        let (kept, single) = (kept.stop().await, single.stop().await);
        nothing_lost(round, &kept);
        nothing_lost(round, &single);
        assert_eq!(gateway.daemon.exit_code().await, Some(0), "round {round}");
        // Both ends and the log have seen the same requests.
        let sent = kept.sent + single.sent;
        assert_eq!(recorder.begun() - before, sent, "round {round}");
        let log = std::fs::read_to_string(gateway.folder().join("access.log")).unwrap();
        assert_eq!(log.lines().count() as u64, sent, "round {round}");
    }
}
