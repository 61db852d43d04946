//! Request bodies that are sent again: whole, up to a cap, in both protocols on both sides.

use std::net::SocketAddr;

use bytes::Bytes;
use sluice_chaos::client;
use sluice_chaos::faults::{Direction, Fault, FaultProxy};
use sluice_chaos::h2up::{H2Upstream, Mode};
use sluice_chaos::recorder::Recorder;
use sluice_chaos::rogue::{self, Rogue};

use crate::support::{Gateway, Setup};

async fn gateway(upstream: &str, route: &str, endpoints: &[SocketAddr]) -> Gateway {
    let endpoints: Vec<String> =
        endpoints.iter().map(|addr| format!("{{ address: \"{addr}\" }}")).collect();
    let config = format!(
        "upstreams:\n  up: {{ {upstream} ejection: {{ enabled: false }}, endpoints: [ {} ] }}\n\
         routes: [ {{ id: up, {route} upstream: up }} ]\n",
        endpoints.join(", ")
    );
    Gateway::start_with(&config, Setup { workers: Some(1), ..Setup::default() }).await
}

/// Bytes that tell where they stand.
fn numbered(bytes: usize) -> Vec<u8> {
    (0_u32..).flat_map(u32::to_be_bytes).take(bytes).collect()
}

/// A way to a service that dies amid the body.
fn dying(service: &Recorder) -> FaultProxy {
    let proxy = FaultProxy::before(service.addr());
    proxy.set(Fault::none().reset_after(20_000).only(Direction::Up));
    proxy
}

const BODY: usize = 60_000;

/// Shows U-21.
#[tokio::test]
async fn u_21_a_small_body_is_sent_again_whole() {
    for (method, route) in [("PUT", ""), ("DELETE", ""), ("POST", "retries: { idempotent: true },")]
    {
        let (one, other) = (Recorder::start(), Recorder::start());
        let gateway = gateway("", route, &[dying(&one).addr(), other.addr()]).await;
        let _ = &one;
        for _ in 0..4 {
            let mut client = gateway.client().await;
            let answer = client.request(method, "/", "a", &[], &numbered(BODY)).await;
            assert_eq!(answer.status, 200, "{method}");
        }
        let seen = other.wait_for(4).await;
        assert!(seen.iter().all(|seen| seen.complete && seen.body == numbered(BODY)));
    }
}

#[tokio::test]
async fn the_rest_may_still_be_on_its_way() {
    let early = Rogue::start(|mut talk| async move {
        let head = talk.read_head().await;
        drop(head);
        talk.read_some().await;
        talk.send("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n").await;
        talk.drain().await;
    });
    let other = Recorder::start();
    let route = "retries: { statuses: [503] },";
    let gateway = gateway("", route, &[early.addr(), other.addr()]).await;
    for chunked in [false, true, false, true] {
        let mut client = gateway.client().await;
        let (half, rest) = (numbered(1_000), numbered(9_000)[1_000..].to_vec());
        let begun = early.heads().len() + usize::try_from(other.begun()).unwrap();
        if chunked {
            client
                .send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n")
                .await;
        } else {
            client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\n").await;
        }
        client.send(&half).await;
        crate::support::eventually("an endpoint to have the first half", async || {
            early.heads().len() + usize::try_from(other.begun()).unwrap() > begun
        })
        .await;
        if chunked {
            client.send([b"\r\n1f40\r\n".as_slice(), &rest, b"\r\n0\r\n\r\n"].concat()).await;
        } else {
            client.send(&rest).await;
        }
        assert_eq!(client.response().await.status, 200);
    }
    assert_eq!(early.heads().len(), 4, "every attempt takes a turn");
    let seen = other.wait_for(4).await;
    assert!(seen.iter().all(|seen| seen.complete && seen.body == numbered(9_000)));
}

/// Shows U-21.
#[tokio::test]
async fn a_large_body_is_sent_once_and_counted() {
    let (one, other) = (Recorder::start(), Recorder::start());
    let proxy = FaultProxy::before(one.addr());
    proxy.set(Fault::none().reset_after(300_000).only(Direction::Up));
    for (upstream, size) in [("", 1_000_000), ("retries: { replay: 0B },", 400_000)] {
        let gateway = gateway(upstream, "", &[proxy.addr(), other.addr()]).await;
        let mut statuses = Vec::new();
        for _ in 0..2 {
            let mut client = gateway.client().await;
            let head = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n");
            client.send(head).await;
            // The gateway may answer before it has read everything.
            client.try_send(numbered(size)).await.ok();
            statuses.push(client.response().await.status);
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 502]);
        assert_eq!(other.requests().pop().unwrap().body, numbered(size));
        assert_eq!(gateway.metric("sluice_retry_body_gone_total").await, 1.0);
        assert_eq!(gateway.metric("sluice_upstream_retries_total").await, 0.0);
    }
}

#[tokio::test]
async fn clients_of_http2_and_services_of_http2() {
    let (one, other) = (Recorder::start(), Recorder::start());
    let proxy = dying(&one);
    let gateway = gateway("", "", &[proxy.addr(), other.addr()]).await;
    let mut sender = client::h2c(gateway.http).await;
    let put = || {
        let mut request = client::post("/", Bytes::from(numbered(BODY)));
        *request.method_mut() = http::Method::PUT;
        request
    };
    for _ in 0..4 {
        assert_eq!(sender.send(put()).await.0.status, 200);
    }
    assert!(other.wait_for(4).await.iter().all(|seen| seen.body == numbered(BODY)));

    let service = H2Upstream::start(Mode::Echo);
    let dead = Rogue::start(rogue::close_after_head());
    let gateway = self::gateway("protocol: http2,", "", &[dead.addr(), service.addr()]).await;
    let mut sender = client::h2c(gateway.http).await;
    for _ in 0..4 {
        let (head, body, _) = sender.send(put()).await;
        assert_eq!((head.status.as_u16(), &body[..]), (200, &numbered(BODY)[..]));
    }
}

/// What a service refuses to begin with goes again, whatever it is (RFC 9113 sections 6.8 and 8.7).
///
/// Shows H2-25.
#[tokio::test]
async fn h2_25_a_post_that_a_farewell_left_out_is_sent_again() {
    let rogue = Rogue::start(crate::retry_race::one_stream_only);
    let gateway = gateway("protocol: http2,", "", &[rogue.addr()]).await;
    let mut client = gateway.client().await;
    for turn in 0..5 {
        let answer = client.request("POST", "/", "a", &[], &numbered(1_000)).await;
        assert_eq!(answer.status, 200, "{turn}: {answer:?}");
    }
    assert_eq!(rogue.connections(), 5);
    let retries = r#"sluice_upstream_retries_total{reason="unsent"}"#;
    assert_eq!(gateway.metric(retries).await, 4.0);
}
