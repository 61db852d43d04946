//! How long tunnels live, who may open one, and what they hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sluice_chaos::raw;
use sluice_chaos::rogue::Rogue;
use sluice_chaos::ws;

use crate::configs::passing_with;
use crate::support::{Gateway, eventually, refusal};

const HANDSHAKE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const SWITCHING: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

async fn none_are_open(gateway: &Gateway) {
    eventually("the tunnels to end", async || {
        gateway.metric("sluice_websocket_connections").await == 0.0
    })
    .await;
}

#[tokio::test]
async fn w_06_a_tunnel_in_which_nothing_moves_ends() {
    let echo = ws::Echo::start();
    let config = passing_with(echo.addr(), "", "websocket: { idle: 2s },");
    let gateway = Gateway::start(&config).await;
    let mut client = ws::Client::connect(gateway.http, "a", "/", &[]).await;
    let begun = Instant::now();
    // What moves keeps it, beyond the limit.
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        client.send_text("still here").await;
        assert_eq!(client.next().await.payload, b"still here");
    }
    assert!(begun.elapsed() > Duration::from_millis(2_500));
    assert!(client.closed_by_peer_within(Duration::from_secs(20)).await);
    none_are_open(&gateway).await;
    assert_eq!(echo.wait_for_closes(1).await, [None]);
}

/// The end of one side is told to the other, which may finish what it was saying.
#[tokio::test]
async fn w_06_the_end_of_one_side_is_passed_on() {
    let rogue = Rogue::start(|mut talk| async move {
        talk.read_head().await;
        talk.send(SWITCHING).await;
        assert_eq!(talk.read_some().await, b"last words");
        assert!(talk.closed_by_peer().await, "the end did not arrive");
        talk.send("heard").await;
        talk.close().await;
    });
    let gateway = Gateway::start(&passing_with(rogue.addr(), "", "websocket: true,")).await;
    let mut client = gateway.client().await;
    client.send(format!("{HANDSHAKE}\r\n")).await;
    assert_eq!(client.response().await.status, 101);
    client.send("last words").await;
    client.half_close().await;
    assert_eq!(client.read_to_end().await, b"heard");
    none_are_open(&gateway).await;
    assert_eq!(rogue.complaints(), Vec::<String>::new());
}

/// A reader that stalls stops the other side: what is on the way is in two buffers of 16 KiB and in those
/// of the sockets.
#[tokio::test]
async fn w_07_a_reader_that_stalls_stops_the_writer() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let rogue = Rogue::start(move |mut talk| {
        let counter = Arc::clone(&counter);
        async move {
            talk.read_head().await;
            talk.send(SWITCHING).await;
            while talk.send([b'x'; 16 * 1024]).await {
                counter.fetch_add(16 * 1024, Ordering::Relaxed);
            }
        }
    });
    let gateway = Gateway::start(&passing_with(rogue.addr(), "", "websocket: true,")).await;
    let mut client = raw::Client::connect_narrow(gateway.http, 16 * 1024).await;
    client.send(format!("{HANDSHAKE}\r\n")).await;
    assert_eq!(client.response().await.status, 101);
    let so_far = || sent.load(Ordering::Relaxed);
    let mut before = usize::MAX;
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        if so_far() == before {
            break;
        }
        before = so_far();
    }
    assert_eq!(so_far(), before, "the writer was not stopped");
    // The sockets of both connections take some megabytes; the tunnel itself next to nothing.
    assert!(before < 16 << 20, "{before} bytes are on the way");
    // It goes on as soon as the reader does.
    let read = client.read_exactly(before + (1 << 20)).await;
    assert!(read.len() > before && read.iter().all(|byte| *byte == b'x'));
}

#[tokio::test]
async fn w_08_tunnels_are_cut_when_the_grace_of_a_drain_is_over() {
    let echo = ws::Echo::start();
    let config = passing_with(echo.addr(), "", "websocket: true,");
    let mut gateway =
        Gateway::start(&format!("shutdown: {{ delay: 100ms, grace: 2s }}\n{config}")).await;
    let mut client = ws::Client::connect(gateway.http, "a", "/", &[]).await;
    gateway.daemon.signal("TERM");
    eventually("the listener to close", async || {
        raw::Client::try_connect(gateway.http).await.is_err()
    })
    .await;
    client.send_text("within the grace").await;
    assert_eq!(client.next().await.payload, b"within the grace");
    assert_eq!(gateway.daemon.exit_code().await, Some(0));
    assert!(client.closed_by_peer_within(Duration::from_secs(20)).await);
    let said = gateway.daemon.output();
    assert!(said.contains("cut at the end of the grace period"), "{said}");
}

#[tokio::test]
async fn w_09_a_tunnel_ends_when_it_is_too_old_where_a_route_says_so() {
    let rogue = Rogue::start(|mut talk| async move {
        talk.read_head().await;
        talk.send(SWITCHING).await;
        // Busy to the last.
        while talk.send("busy").await {
            talk.pause(Duration::from_millis(50)).await;
        }
    });
    let config = passing_with(rogue.addr(), "", "websocket: { max_age: 2s },");
    let gateway = Gateway::start(&config).await;
    let mut client = gateway.client().await;
    client.send(format!("{HANDSHAKE}\r\n")).await;
    assert_eq!(client.response().await.status, 101);
    let begun = Instant::now();
    let said = client.read_to_end().await;
    assert!(begun.elapsed() > Duration::from_millis(1_500), "{:?}", begun.elapsed());
    assert!(said.len() > 4, "nothing moved");
    none_are_open(&gateway).await;
}

#[tokio::test]
async fn w_10_pages_of_other_sites_open_no_tunnel() {
    let echo = ws::Echo::start();
    let origins = "websocket: { origins: [ \"https://app.example\", \"https://*.app.example\" ] },";
    let gateway = Gateway::start(&passing_with(echo.addr(), "", origins)).await;
    for (origins, status) in [
        ("", 101),
        ("Origin: https://app.example\r\n", 101),
        ("Origin: https://chat.app.example\r\n", 101),
        ("Origin: https://evil.example\r\n", 403),
        ("Origin: http://app.example\r\n", 403),
        ("Origin: https://app.example.evil\r\n", 403),
        ("Origin: https://app.example:8443\r\n", 403),
        ("Origin: null\r\n", 403),
        ("Origin: \r\n", 403),
        ("Origin: https://app.example\r\nOrigin: https://evil.example\r\n", 403),
        ("Origin: https://evil.example\r\nOrigin: https://app.example\r\n", 403),
        ("Origin: https://app.example\u{e9}\r\n", 403),
    ] {
        let answer = raw::exchange(gateway.http, format!("{HANDSHAKE}{origins}\r\n")).await;
        assert_eq!(answer.status, status, "{origins}");
        if status == 403 {
            assert_eq!(answer.json()["reason"], "origin_refused", "{origins}");
        }
    }
    assert_eq!(echo.handshakes().len(), 3, "the service saw no other");
    let config = "upstreams: { up: { endpoints: [ { address: \"127.0.0.1:9\" } ] } }\n\
        routes: [ { id: r, websocket: { origins: [ app.example ] }, upstream: up } ]\n";
    let said = refusal(config);
    assert!(said.contains("4:") && said.contains("is not an origin"), "{said}");
}
