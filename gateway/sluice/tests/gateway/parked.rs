//! Connections at rest give their buffers back. Nobody may notice: what was begun goes on, and what ends
//! a connection still ends it.

use std::time::Duration;

use sluice_chaos::pki::{self, Authority};
use sluice_chaos::raw::Client;
use sluice_chaos::recorder::Recorder;
use sluice_chaos::rogue::Rogue;
use sluice_chaos::ws;

use crate::configs::{passing, passing_with};
use crate::support::{Gateway, Setup, eventually};

const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";

async fn parked(gateway: &Gateway, expected: f64) {
    eventually("connections to be parked", async || {
        gateway.metric("sluice_client_connections_parked").await == expected
    })
    .await;
}

async fn all_gone(gateway: &Gateway) {
    eventually("the connections to end", async || {
        gateway.metric("sluice_client_connections").await == 0.0
    })
    .await;
    parked(gateway, 0.0).await;
}

async fn ask(client: &mut Client) {
    client.send(GET).await;
    let answer = client.response().await;
    assert_eq!((answer.status, answer.header("connection")), (200, None), "{answer:?}");
}

async fn start(recorder: &Recorder, listeners: &'static str) -> Gateway {
    let setup = Setup { listeners: Some(listeners), ..Setup::default() };
    Gateway::start_with(&passing(recorder.addr()), setup).await
}

/// Over TLS too, where a part of the next head may lie in the session.
#[tokio::test]
async fn a_parked_connection_serves_again() {
    let (authority, recorder) = (Authority::new(), Recorder::start());
    let pair = authority.issue(&["localhost"]);
    let gateway = Gateway::start_with(&passing(recorder.addr()), Setup::with_tls(&pair)).await;
    let trust = pki::client_config(&authority, &["http/1.1"]);
    let mut clients =
        [gateway.client().await, Client::connect_tls(gateway.https, "localhost", trust).await];
    for round in 1..=3 {
        for client in &mut clients {
            ask(client).await;
            let body = [b'b'; 20_000];
            let answer = client.request("POST", "/y", "a", &[], &body).await;
            assert_eq!(answer.status, 200);
        }
        parked(&gateway, 2.0).await;
        assert_eq!(recorder.begun(), round * 4);
    }
    assert_eq!(gateway.metric("sluice_client_connections").await, 2.0);
    assert_eq!(gateway.metric("sluice_client_connections_accepted_total").await, 2.0);
    drop(clients);
    all_gone(&gateway).await;
}

#[tokio::test]
async fn nothing_that_was_sent_is_lost() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    let head = "DELETE /late HTTP/1.1\r\nHost: a\r\nX-Long: long\r\nContent-Length: 4\r\n\r\nbody";
    for cut in [1, 9, 19, 30, head.len() - 5] {
        // Alone, behind a whole request, and on a connection that was parked before.
        for before in ["", GET, "pause"] {
            let mut client = gateway.client().await;
            let (begun, rest) = head.split_at(cut);
            match before {
                "pause" => {
                    ask(&mut client).await;
                    parked(&gateway, 1.0).await;
                    client.send(begun).await;
                }
                before => {
                    client.send(format!("{before}{begun}")).await;
                    if !before.is_empty() {
                        assert_eq!(client.response().await.status, 200);
                    }
                }
            }
            // A head that has begun waits in the same place.
            parked(&gateway, 1.0).await;
            client.send(rest).await;
            assert_eq!(client.response().await.status, 200, "cut at {cut} after {before:?}");
            let seen = recorder.requests().pop().unwrap();
            assert_eq!((seen.target.as_str(), seen.text().as_str()), ("/late", "body"));
            assert_eq!(seen.header("x-long"), Some("long"));
            drop(client);
            all_gone(&gateway).await;
        }
    }
}

const SHORT: &str = r#"listeners:
  - { name: plain, address: "{http}", timeouts: { keepalive: 2s, head: 3s } }
"#;

#[tokio::test]
async fn an_idle_connection_ends_in_its_time() {
    let recorder = Recorder::start();
    let gateway = start(&recorder, SHORT).await;
    let mut client = gateway.client().await;
    ask(&mut client).await;
    parked(&gateway, 1.0).await;
    assert!(client.closed_by_peer_within(Duration::from_secs(5)).await);
    all_gone(&gateway).await;
    assert_eq!(gateway.log_lines(1).await.len(), 1, "an end without a request is no request");
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    let mut clients = [gateway.client().await, gateway.client().await, gateway.client().await];
    for client in &mut clients {
        ask(client).await;
    }
    clients[0].send("GET /never").await;
    parked(&gateway, 3.0).await;
    let [half, fin, reset] = clients;
    reset.reset();
    drop((half, fin));
    all_gone(&gateway).await;
    assert_eq!(recorder.begun(), 3);
}

#[tokio::test]
async fn a_drain_ends_who_rests_and_answers_who_has_begun() {
    let recorder = Recorder::start();
    let mut gateway = Gateway::start(&passing(recorder.addr())).await;
    let (mut resting, mut asking) = (gateway.client().await, gateway.client().await);
    for client in [&mut resting, &mut asking] {
        ask(client).await;
    }
    asking.send("GET /x HTTP/1.1\r\nHo").await;
    parked(&gateway, 2.0).await;
    gateway.daemon.signal("TERM");
    assert!(resting.closed_by_peer_within(Duration::from_secs(5)).await);
    asking.send("st: a\r\n\r\n").await;
    let answer = asking.response().await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(gateway.daemon.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_parked_connection_can_become_a_websocket() {
    let echo = ws::Echo::start();
    let gateway = Gateway::start(&passing_with(echo.addr(), "", "websocket: true,")).await;
    let mut client = gateway.client().await;
    client.send("GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.response().await.status, 400);
    parked(&gateway, 1.0).await;
    let text = b"\x81\x85\0\0\0\0hello";
    let head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    // The first frame comes with the head, which an impatient client may do.
    client.send([head.as_bytes(), text].concat()).await;
    assert_eq!(client.response().await.status, 101);
    assert_eq!(client.read_exactly(7).await, b"\x81\x05hello");
    // A tunnel is nothing that could be parked.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    client.send(text).await;
    assert_eq!(client.read_exactly(7).await, b"\x81\x05hello");
    assert_eq!(gateway.metric("sluice_client_connections_parked").await, 0.0);
}

/// Whoever offers another protocol and is answered in this one goes on in this one.
///
/// Shows W-01.
#[tokio::test]
async fn what_follows_an_offer_that_was_declined_is_http() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    let mut client = gateway.client().await;
    let offer = "GET /offer HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    client.send(format!("{GET}{offer}{GET}{offer}")).await;
    for _ in 0..4 {
        assert_eq!(client.response().await.status, 200);
    }
    client.send(format!("{offer}POST")).await;
    assert_eq!(client.response().await.status, 200);
    client.send(" /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").await;
    assert_eq!(client.response().await.status, 200);
    assert_eq!(recorder.begun(), 6);
    // Nor is the connection lost when it rests.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    ask(&mut client).await;
}

/// A body that is still coming when the answer is over must never be taken for a request.
#[tokio::test]
async fn an_upload_that_outlasts_its_answer_is_not_parked() {
    let rogue = Rogue::start(|mut talk| async move {
        talk.read_head().await;
        talk.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        talk.drain().await;
    });
    let gateway = Gateway::start(&passing(rogue.addr())).await;
    let mut client = gateway.client().await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let length = smuggled.len() * 2;
    client
        .send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{smuggled}"))
        .await;
    assert_eq!(client.response().await.status, 200);
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(gateway.metric("sluice_client_connections_parked").await, 0.0);
    }
    let _ = client.try_send(smuggled).await;
    let _ = client.try_send(GET).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let targets: Vec<String> = rogue.heads().into_iter().map(|head| head.target).collect();
    assert!(!targets.contains(&"/smuggled".to_owned()), "{targets:?}");
}
