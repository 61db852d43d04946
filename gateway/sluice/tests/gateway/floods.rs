//! Clients of HTTP/2 that keep the gateway busy, or waiting, without asking for anything.

use std::time::Duration;

use sluice_chaos::client;
use sluice_chaos::recorder::Recorder;

use crate::configs::passing;
use crate::support::{Gateway, Setup, eventually};

/// Preface and empty SETTINGS.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\x0012345678";
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
const PRIORITY: &[u8] = b"\0\0\x05\x02\0\0\0\0\x03\0\0\0\0\x10";
const UNKNOWN: &[u8] = b"\0\0\x01\xbb\0\0\0\0\0x";

const BROKEN: &str = r#"sluice_client_protocol_errors_total{proto="http2"}"#;

#[tokio::test]
async fn h2_05_frames_that_serve_no_request_end_the_connection() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    let mut honest = client::h2c(gateway.http).await;
    for (turn, frame) in [PING, SETTINGS, PRIORITY, UNKNOWN].into_iter().enumerate() {
        let mut client = gateway.client().await;
        client.send(HELLO).await;
        // The gateway may close before it has read all of them.
        let _ = client.try_send(frame.repeat(1_500)).await;
        assert!(client.closed_by_peer_within(Duration::from_secs(10)).await, "{turn}");
        eventually("it to be counted", async || gateway.metric(BROKEN).await == turn as f64 + 1.0)
            .await;
        assert_eq!(honest.send(client::get("/")).await.0.status, 200, "others go on");
    }
    // What anybody may send.
    let mut client = gateway.client().await;
    client.send([HELLO, &PING.repeat(500)].concat()).await;
    assert!(!client.closed_by_peer_within(Duration::from_secs(1)).await);
}

#[tokio::test]
async fn h2_11_half_a_preface_or_half_a_frame_ends_in_the_time_of_heads() {
    let listeners =
        "listeners: [ { name: plain, address: \"{http}\", timeouts: { head: 500ms } } ]\n";
    let recorder = Recorder::start();
    let setup = Setup { listeners: Some(listeners), ..Setup::default() };
    let gateway = Gateway::start_with(&passing(recorder.addr()), setup).await;
    let settled = |more: &[u8]| [HELLO, more].concat();
    for (name, said) in [
        ("no SETTINGS", HELLO.get(..24).unwrap().to_vec()),
        ("half of SETTINGS", HELLO.get(..30).unwrap().to_vec()),
        ("a byte of a frame", settled(b"\0")),
        ("half of HEADERS", settled(b"\0\0\x20\x01\x04\0\0\0\x01\x82\x86")),
    ] {
        let mut client = gateway.client().await;
        client.send(said).await;
        assert!(client.closed_by_peer_within(Duration::from_secs(5)).await, "{name}");
    }
    let mut idle = gateway.client().await;
    idle.send(HELLO).await;
    assert!(!idle.closed_by_peer_within(Duration::from_secs(2)).await, "who is settled may rest");
}

/// One that is long, and many that are short.
#[tokio::test]
async fn h1_10_extensions_of_chunks_have_a_bound() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let long = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(17 * 1024));
    let many = format!("{}0\r\n\r\n", "1;fourteen-bytes\r\nx\r\n".repeat(2_000));
    for body in [long, many] {
        let mut client = gateway.client().await;
        client.send(head).await;
        let _ = client.try_send(&body).await;
        let answer = client.response().await;
        assert_eq!((answer.status, answer.json()["reason"].as_str()), (400, Some("body_broken")));
    }
    assert!(recorder.requests().iter().all(|request| !request.complete));
}
