//! WebSockets: tunnels where the route allows them, nothing of the kind anywhere else.

use std::time::Duration;

use sluice_chaos::pki::{self, Authority};
use sluice_chaos::raw;
use sluice_chaos::recorder::Recorder;
use sluice_chaos::rogue::Rogue;
use sluice_chaos::ws;

use crate::configs::{passing, passing_with};
use crate::support::{Gateway, Setup, eventually};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

async fn tunnels(gateway: &Gateway, expected: f64) {
    eventually("the gauge of tunnels", async || {
        gateway.metric("sluice_websocket_connections").await == expected
    })
    .await;
}

#[tokio::test]
async fn a_tunnel_keeps_its_place_among_the_connections_to_its_service() {
    let echo = ws::Echo::start();
    let upstream = "keepalive: { max_connections: 1, max_wait: 200ms },";
    let config = passing_with(echo.addr(), upstream, "websocket: true,");
    let gateway = Gateway::start(&config).await;
    let mut client = ws::Client::connect(gateway.http, "a", "/", &[]).await;
    client.send_text("first").await;
    assert_eq!(client.next().await.payload, b"first");
    let refused = gateway.get("/").await;
    assert_eq!((refused.status, refused.json()["reason"].as_str()), (503, Some("pool_exhausted")));
    client.close(1000).await;
    drop(client);
    tunnels(&gateway, 0.0).await;
    let mut second = ws::Client::connect(gateway.http, "a", "/", &[]).await;
    second.send_text("second").await;
    assert_eq!(second.next().await.payload, b"second");
}

#[tokio::test]
async fn messages_pass_both_ways_and_are_counted() {
    let echo = ws::Echo::start();
    let gateway = Gateway::start(&passing_with(echo.addr(), "", "websocket: true,")).await;
    let headers = [
        ("Sec-WebSocket-Protocol", "chat"),
        ("Sec-WebSocket-Extensions", "permessage-deflate"),
        ("X-Forwarded-For", "9.9.9.9"),
    ];
    let mut client =
        ws::Client::connect(gateway.http, "chat.example", "/room?id=1", &headers).await;
    assert_eq!(client.response.header("connection").unwrap().to_ascii_lowercase(), "upgrade");
    assert_eq!(client.response.header("upgrade"), Some("websocket"));
    tunnels(&gateway, 1.0).await;
    for turn in 0..5 {
        let text = format!("message {turn}");
        client.send_text(&text).await;
        assert_eq!(client.next().await.payload, text.as_bytes());
    }
    let large: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
    client.send_binary(&large).await;
    let mut back = Vec::new();
    while back.len() < large.len() {
        back.extend(client.next().await.payload);
    }
    assert!(back == large, "{} bytes came back changed", large.len());
    client.ping(b"are you there").await;
    assert_eq!(client.next().await.payload, b"are you there");

    let handshake = &echo.handshakes()[0];
    assert_eq!(handshake.target, "/room?id=1");
    assert_eq!(handshake.all("host"), ["chat.example"]);
    assert_eq!(handshake.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(handshake.header("sec-websocket-protocol"), Some("chat"));
    assert_eq!(handshake.header("sec-websocket-extensions"), Some("permessage-deflate"));
    assert!(handshake.lists("connection", "upgrade"), "{handshake:?}");

    client.close(1000).await;
    assert_eq!(client.next().await.payload, 1000_u16.to_be_bytes());
    assert!(client.closed_by_peer_within(Duration::from_secs(20)).await);
    drop(client);
    assert_eq!(echo.wait_for_closes(1).await, [Some(1000)]);
    tunnels(&gateway, 0.0).await;
    assert_eq!(gateway.metric("sluice_tunnels_opened_total").await, 1.0);
    assert_eq!(gateway.log_lines(1).await[0]["status"], 101);
    let busy = "sluice_endpoint_requests_in_flight";
    eventually("the endpoint to be free", async || gateway.metric(busy).await == 0.0).await;
}

#[tokio::test]
async fn either_side_may_vanish() {
    let echo = ws::Echo::start();
    let gateway = Gateway::start(&passing_with(echo.addr(), "", "websocket: true,")).await;
    let client = ws::Client::connect(gateway.http, "a", "/", &[]).await;
    tunnels(&gateway, 1.0).await;
    drop(client);
    assert_eq!(echo.wait_for_closes(1).await, [None], "cut without a close frame");
    tunnels(&gateway, 0.0).await;

    let mut client = ws::Client::connect(gateway.http, "a", "/", &[]).await;
    tunnels(&gateway, 1.0).await;
    drop(echo);
    assert!(client.closed_by_peer_within(Duration::from_secs(20)).await);
    drop(client);
    tunnels(&gateway, 0.0).await;
}

#[tokio::test]
async fn a_route_that_does_not_allow_it_serves_plain_http() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    let refusal = ws::Client::try_connect(gateway.http, "a", "/", &[]).await.err().unwrap();
    assert_eq!((refusal.status, refusal.text().as_str()), (200, "ok"));
    let seen = &recorder.wait_for(1).await[0];
    assert_eq!((seen.header("upgrade"), seen.header("connection")), (None, None));
}

#[tokio::test]
async fn a_service_that_does_not_switch_answers_as_usual() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing_with(recorder.addr(), "", "websocket: true,")).await;
    let refusal = ws::Client::try_connect(gateway.http, "a", "/", &[]).await.err().unwrap();
    assert_eq!((refusal.status, refusal.text().as_str()), (200, "ok"));
    assert_eq!(recorder.wait_for(1).await[0].header("upgrade"), Some("websocket"));
    assert_eq!(gateway.metric("sluice_tunnels_opened_total").await, 0.0);
}

/// Shows W-04, W-05.
#[tokio::test]
async fn a_handshake_that_is_not_well_formed_is_refused() {
    let echo = ws::Echo::start();
    let gateway = Gateway::start(&passing_with(echo.addr(), "", "websocket: true,")).await;
    let head = "Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
    let (version, key) = ("Sec-WebSocket-Version: 13\r\n", format!("Sec-WebSocket-Key: {KEY}\r\n"));
    for (what, request) in [
        ("no key", format!("GET / HTTP/1.1\r\n{head}{version}\r\n")),
        ("a short key", format!("GET / HTTP/1.1\r\n{head}{version}Sec-WebSocket-Key: abc\r\n\r\n")),
        ("no version", format!("GET / HTTP/1.1\r\n{head}{key}\r\n")),
        (
            "an old version",
            format!("GET / HTTP/1.1\r\n{head}{key}Sec-WebSocket-Version: 8\r\n\r\n"),
        ),
        ("another method", format!("POST / HTTP/1.1\r\n{head}{version}{key}\r\n")),
        ("two upgrades", format!("GET / HTTP/1.1\r\n{head}{version}{key}Upgrade: h2c\r\n\r\n")),
        ("a body", format!("GET / HTTP/1.1\r\n{head}{version}{key}Content-Length: 2\r\n\r\nhi")),
    ] {
        let answer = raw::exchange(gateway.http, request).await;
        assert_eq!(answer.status, 400, "{what}: {answer:?}");
        assert_eq!(answer.json()["reason"], "upgrade_invalid", "{what}");
        assert!(answer.closed, "{what}");
    }
    let right = raw::exchange(gateway.http, format!("GET / HTTP/1.1\r\n{head}{version}{key}\r\n"));
    assert_eq!(right.await.status, 101, "the table differs from this one only");
    assert_eq!(echo.handshakes().len(), 1);
}

#[tokio::test]
async fn inside_tls() {
    let (authority, echo) = (Authority::new(), ws::Echo::start());
    let pair = authority.issue(&["localhost"]);
    let config = passing_with(echo.addr(), "", "websocket: true,");
    let gateway = Gateway::start_with(&config, Setup::with_tls(&pair)).await;
    let trust = pki::client_config(&authority, &["http/1.1"]);
    let mut client = ws::Client::connect_tls(gateway.https, "localhost", trust, "/", &[]).await;
    client.send_text("secret").await;
    assert_eq!(client.next().await.payload, b"secret");
    assert_eq!(echo.handshakes()[0].header("x-forwarded-proto"), Some("https"));
}

/// Shows W-09.
#[tokio::test]
async fn a_tunnel_outlives_its_route() {
    let echo = ws::Echo::start();
    let gateway = Gateway::start(&passing_with(echo.addr(), "", "websocket: true,")).await;
    let mut client = ws::Client::connect(gateway.http, "a", "/", &[]).await;
    client.send_text("before").await;
    assert_eq!(client.next().await.payload, b"before");
    gateway.write_config(
        "upstreams: { echo: { builtin: echo } }\nroutes: [ { id: other, match: { path: /other }, upstream: echo } ]\n",
    );
    gateway.wait_for_generation(2).await;
    assert_eq!(gateway.get("/").await.status, 404, "the route is gone");
    client.send_text("after").await;
    assert_eq!(client.next().await.payload, b"after");
    assert_eq!(gateway.metric("sluice_websocket_connections").await, 1.0);
    assert_eq!(echo.connections(), 1);
}

/// Bytes that a service sends right behind its 101 belong to the tunnel.
#[tokio::test]
async fn nothing_sent_early_is_lost() {
    let rogue = Rogue::start(|mut talk| async move {
        let head = talk.read_head().await;
        let accept = ws::accept_key(head.header("sec-websocket-key").unwrap());
        talk.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n\u{1}\u{5}early"
        ))
        .await;
        assert_eq!(talk.read_some().await, b"raw from the client");
        talk.hang().await;
    });
    let gateway = Gateway::start(&passing_with(rogue.addr(), "", "websocket: true,")).await;
    let mut client = gateway.client().await;
    client
        .send(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\nraw from the client"
        ))
        .await;
    assert_eq!(client.response().await.status, 101);
    assert_eq!(client.read_exactly(7).await, b"\x01\x05early");
    assert_eq!(rogue.complaints(), Vec::<String>::new());
}
