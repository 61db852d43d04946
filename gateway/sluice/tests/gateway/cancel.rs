//! Clients that go away: the service is told, everything counted comes back to zero, and the log says
//! whose fault it was not.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use sluice_chaos::client;
use sluice_chaos::h2up::{H2Upstream, Mode};
use sluice_chaos::recorder::Recorder;
use sluice_chaos::rogue::Rogue;

use crate::configs::{passing, passing_with};
use crate::support::{Gateway, eventually};

/// Everything that counts what is under way.
const GAUGES: [&str; 8] = [
    "sluice_http_requests_in_flight",
    "sluice_client_connections",
    "sluice_endpoint_requests_in_flight",
    r#"sluice_pool_connections{state="in_use"}"#,
    "sluice_pool_waiting",
    r#"sluice_tasks{kind="connection"}"#,
    r#"sluice_tasks{kind="stream"}"#,
    r#"sluice_tasks{kind="tunnel"}"#,
];

async fn all_quiet(gateway: &Gateway) {
    for gauge in GAUGES {
        eventually(&format!("{gauge} to be 0"), async || gateway.metric(gauge).await == 0.0).await;
    }
}

/// Reads a head, says `answer`, and waits for the gateway to leave.
fn waits_for_the_end(answer: &'static str) -> Rogue {
    Rogue::start(move |mut talk| async move {
        talk.read_head().await;
        talk.send(answer).await;
        assert!(talk.closed_by_peer().await, "the gateway kept the connection");
    })
}

/// The one log line, which says that the client went away.
async fn logged(gateway: &Gateway, status: u16) {
    let lines = gateway.log_lines(1).await;
    let line = &lines[0];
    assert_eq!((lines.len(), &line["status"]), (1, &status.into()), "{line}");
    assert_eq!(line["reason"], "client_gone", "{line}");
}

/// A byte of a next request hides that the client has left; the request's own time ends it then.
#[tokio::test]
async fn h1_28_who_leaves_with_a_byte_behind_is_waited_for_no_longer_than_the_route_allows() {
    let rogue = waits_for_the_end("");
    let config = passing_with(rogue.addr(), "timeouts: { total: 2s },", "");
    let gateway = Gateway::start(&config).await;
    let mut client = gateway.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\nG").await;
    rogue.wait_for_heads(1).await;
    drop(client);
    rogue.wait_for_open(0).await;
    assert_eq!(rogue.complaints(), Vec::<String>::new());
    all_quiet(&gateway).await;
    assert_eq!(gateway.log_lines(1).await.len(), 1);
}

#[tokio::test]
async fn before_the_answer() {
    let rogue = waits_for_the_end("");
    let gateway = Gateway::start(&passing(rogue.addr())).await;
    let mut client = gateway.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    rogue.wait_for_heads(1).await;
    assert_eq!(gateway.metric("sluice_http_requests_in_flight").await, 1.0);
    assert_eq!(gateway.metric("sluice_endpoint_requests_in_flight").await, 1.0);
    assert_eq!(gateway.metric(r#"sluice_pool_connections{state="in_use"}"#).await, 1.0);
    drop(client);
    rogue.wait_for_open(0).await;
    all_quiet(&gateway).await;
    logged(&gateway, 499).await;
    assert_eq!(gateway.metric("sluice_client_aborts_total").await, 1.0);
    assert_eq!(gateway.metric(r#"sluice_rejected_total{reason="client_gone"}"#).await, 1.0);
    assert_eq!(gateway.metric(r#"sluice_pool_closed_total{reason="abandoned"}"#).await, 1.0);
    let tasks = r#"sluice_tasks{kind="upstream"}"#;
    eventually("no task for the connection", async || gateway.metric(tasks).await == 0.0).await;
    assert_eq!(rogue.complaints(), Vec::<String>::new());
}

/// hyper cannot tell it from a client that has left, and nor can most proxies in between.
#[tokio::test]
async fn h1_26_a_client_that_closes_its_writing_side_counts_as_gone() {
    let rogue = waits_for_the_end("");
    let gateway = Gateway::start(&passing(rogue.addr())).await;
    let mut client = gateway.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    rogue.wait_for_heads(1).await;
    client.half_close().await;
    rogue.wait_for_open(0).await;
    all_quiet(&gateway).await;
    logged(&gateway, 499).await;
}

#[tokio::test]
async fn before_the_answer_by_a_reset() {
    let rogue = waits_for_the_end("");
    let gateway = Gateway::start(&passing(rogue.addr())).await;
    let mut client = gateway.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    rogue.wait_for_heads(1).await;
    client.reset();
    rogue.wait_for_open(0).await;
    all_quiet(&gateway).await;
    logged(&gateway, 499).await;
}

/// Shows H2-26.
#[tokio::test]
async fn before_the_answer_by_an_http2_stream() {
    let rogue = waits_for_the_end("");
    let gateway = Gateway::start(&passing(rogue.addr())).await;
    let mut h2 = client::h2c(gateway.http).await;
    tokio::select! {
        _ = h2.try_start(client::get("/")) => panic!("nobody answers"),
        _ = rogue.wait_for_heads(1) => {}
    }
    rogue.wait_for_open(0).await;
    logged(&gateway, 499).await;
    eventually("the stream to end", async || {
        gateway.metric("sluice_http_requests_in_flight").await == 0.0
    })
    .await;
    assert_eq!(gateway.metric("sluice_client_connections").await, 1.0, "only the stream was cut");
    drop(h2);
    all_quiet(&gateway).await;
}

#[tokio::test]
async fn before_the_answer_of_an_http2_service() {
    let service = H2Upstream::start(Mode::Silent);
    let gateway = Gateway::start(&passing_with(service.addr(), "protocol: http2,", "")).await;
    let mut client = gateway.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    service.wait_for_begun(1).await;
    drop(client);
    assert_eq!(service.wait_for_resets(1).await[0].code, 8, "CANCEL");
    logged(&gateway, 499).await;
    eventually("the request to end", async || {
        gateway.metric("sluice_endpoint_requests_in_flight").await == 0.0
    })
    .await;
    // The connection itself was not harmed.
    service.set(Mode::Answer(200, b"alive".to_vec()));
    for _ in 0..4 {
        assert_eq!(gateway.get("/").await.text(), "alive");
    }
    assert!(service.connections() <= 2, "one for each worker");
}

#[tokio::test]
async fn amid_the_answer() {
    let rogue = waits_for_the_end("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf");
    let gateway = Gateway::start(&passing(rogue.addr())).await;
    let mut client = gateway.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut got = Vec::new();
    while !got.ends_with(b"half") {
        got.extend(client.read_some().await);
    }
    drop(client);
    rogue.wait_for_open(0).await;
    all_quiet(&gateway).await;
    logged(&gateway, 200).await;
    assert_eq!(gateway.metric("sluice_client_aborts_total").await, 1.0);
    assert_eq!(rogue.complaints(), Vec::<String>::new());
}

#[tokio::test]
async fn amid_the_answer_by_an_http2_connection() {
    let rogue = waits_for_the_end("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf");
    let gateway = Gateway::start(&passing(rogue.addr())).await;
    let mut h2 = client::h2c(gateway.http).await;
    let answer = h2.start(client::get("/")).await;
    assert_eq!(answer.status(), 200);
    h2.cut();
    rogue.wait_for_open(0).await;
    drop(answer);
    all_quiet(&gateway).await;
    logged(&gateway, 200).await;
}

/// Shows H1-27.
#[tokio::test]
async fn amid_the_upload() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    for framing in
        ["Content-Length: 1000\r\n\r\npart", "Transfer-Encoding: chunked\r\n\r\n4\r\npart\r\n"]
    {
        let before = recorder.requests().len();
        let mut client = gateway.client().await;
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}")).await;
        recorder.wait_for_begun(before as u64 + 1).await;
        drop(client);
        let seen = &recorder.wait_for(before + 1).await[before];
        assert_eq!((seen.text().as_str(), seen.complete), ("part", false), "{framing:?}");
        all_quiet(&gateway).await;
        let line = gateway.log_lines(before + 1).await.remove(before);
        assert_eq!(
            (&line["status"], &line["reason"]),
            (&499.into(), &"client_gone".into()),
            "{line}"
        );
    }
    assert_eq!(recorder.open(), 0);
}

#[tokio::test]
async fn amid_an_upload_over_http2() {
    let service = H2Upstream::start(Mode::GrpcUnary);
    let gateway = Gateway::start(&passing_with(service.addr(), "protocol: http2,", "")).await;
    let mut grpc = client::grpc(gateway.http).await;
    let mut call = grpc.bidi("/pkg.Echo/Say").await;
    call.send(b"part").await;
    service.wait_for_begun(1).await;
    call.cancel();
    assert_eq!(service.wait_for_resets(1).await.len(), 1);
    assert!(!service.wait_for(1).await[0].complete);
    eventually("the stream to end", async || {
        gateway.metric("sluice_http_requests_in_flight").await == 0.0
    })
    .await;
    logged(&gateway, 499).await;
}

#[tokio::test]
async fn while_waiting_for_a_connection_to_the_service() {
    let rogue = waits_for_the_end("");
    let pool = "keepalive: { max_connections: 1, max_wait: 9s },";
    let gateway = Gateway::start(&passing_with(rogue.addr(), pool, "")).await;
    let mut first = gateway.client().await;
    first.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\n").await;
    rogue.wait_for_heads(1).await;
    let mut second = gateway.client().await;
    second.send("GET /second HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("a waiter", async || gateway.metric("sluice_pool_waiting").await == 1.0).await;
    drop(second);
    eventually("no waiter", async || gateway.metric("sluice_pool_waiting").await == 0.0).await;
    drop(first);
    rogue.wait_for_open(0).await;
    all_quiet(&gateway).await;
    assert_eq!(rogue.heads().len(), 1, "the second never got there");
}

#[tokio::test]
async fn many_at_once_leave_nothing_behind() {
    let rogue = Rogue::start(|mut talk| async move {
        while let Some(_head) = talk.next_head().await {
            talk.pause(Duration::from_millis(50)).await;
            talk.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    });
    let gateway = Gateway::start(&passing(rogue.addr())).await;
    let mut clients = Vec::new();
    for _ in 0..100 {
        let mut client = gateway.client().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        clients.push(client);
    }
    let mut h2 = client::h2c(gateway.http).await;
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let mut sender = h2.another();
            tokio::spawn(async move {
                let request = Request::get("/").body(Full::new(Bytes::new())).unwrap();
                sender.try_start(request).await.is_ok()
            })
        })
        .collect();
    drop(clients);
    for call in &calls {
        call.abort();
    }
    let _ = h2.try_send(client::get("/")).await;
    h2.cut();
    all_quiet(&gateway).await;
    assert_eq!(gateway.get("/").await.text(), "ok");
}
