//! Clocks of client connections that no single pause sets off.

use std::time::{Duration, Instant};

use sluice_chaos::client;
use sluice_chaos::recorder::Recorder;

use crate::configs::passing;
use crate::support::{Gateway, Setup, eventually};

async fn start(recorder: &Recorder, listeners: &'static str) -> Gateway {
    let setup = Setup { listeners: Some(listeners), ..Setup::default() };
    Gateway::start_with(&passing(recorder.addr()), setup).await
}

/// Each pause is short enough, and all of them together are not.
#[tokio::test]
async fn h1_19_a_byte_now_and_then_does_not_keep_an_upload_alive() {
    let recorder = Recorder::start();
    let listeners = "listeners: [ { name: plain, address: \"{http}\", timeouts: { body: 1s } } ]\n";
    let gateway = start(&recorder, listeners).await;
    let mut client = gateway.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n").await;
    let begun = Instant::now();
    client.drip([b'x'; 100], Duration::from_millis(400)).await;
    let answer = client.response().await;
    assert_eq!((answer.status, answer.json()["reason"].as_str()), (408, Some("body_timeout")));
    assert!(begun.elapsed() < Duration::from_secs(30), "100 bytes would have taken 40 s");
    assert!(!recorder.wait_for(1).await[0].complete);
}

#[tokio::test]
async fn h1_21_an_old_connection_ends_with_its_next_answer() {
    let recorder = Recorder::start();
    let listeners =
        "listeners: [ { name: plain, address: \"{http}\", timeouts: { max_age: 1s } } ]\n";
    let gateway = start(&recorder, listeners).await;
    let mut client = gateway.client().await;
    let young = client.request("GET", "/", "a", &[], b"").await;
    assert_eq!((young.status, young.header("connection")), (200, None));
    tokio::time::sleep(Duration::from_millis(1300)).await;
    let old = client.request("GET", "/", "a", &[], b"").await;
    assert_eq!((old.status, old.header("connection"), old.closed), (200, Some("close"), true));

    // Over HTTP/2 nobody has to ask.
    let mut h2 = client::h2c(gateway.http).await;
    assert_eq!(h2.send(client::get("/")).await.0.status, 200);
    eventually("the connection to be closed", async || {
        gateway.metric("sluice_client_connections").await == 0.0
    })
    .await;
    assert!(h2.try_send(client::get("/")).await.is_err());
}
