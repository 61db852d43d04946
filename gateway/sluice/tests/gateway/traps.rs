//! Ways in which a proxy on hyper loses data or speaks for the wrong host without anybody noticing.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use sluice_chaos::h2up::{H2Upstream, Mode};
use sluice_chaos::recorder::Recorder;
use sluice_chaos::rogue::{self, Rogue};
use sluice_chaos::{client, raw};

use crate::configs::{passing, passing_with};
use crate::support::{Gateway, Setup};

/// One worker, so that a second request could meet the connection of the first.
async fn one_worker(config: &str) -> Gateway {
    Gateway::start_with(config, Setup { workers: Some(1), ..Setup::default() }).await
}

/// Shows U-08.
#[tokio::test]
async fn a_length_beside_chunks_neither_cuts_the_answer_nor_keeps_the_connection() {
    let rogue = Rogue::start(rogue::cl_and_te());
    let gateway = one_worker(&passing(rogue.addr())).await;
    let mut client = gateway.client().await;
    for _ in 0..2 {
        let answer = client.request("GET", "/", "localhost", &[], b"").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "chunked"));
        assert!(answer.complete);
        assert_eq!(answer.header("content-length"), None);
    }
    assert_eq!(rogue.heads().len(), 2);
    assert_eq!(rogue.connections(), 2, "such an answer leaves its connection in doubt");

    let mut h2 = client::h2c(gateway.http).await;
    let (head, body, _) = h2.send(client::get("/")).await;
    assert_eq!((head.status.as_u16(), body.as_slice()), (200, &b"chunked"[..]));
    assert!(!head.headers.contains_key("content-length"));
}

/// Shows U-11.
#[tokio::test]
async fn an_http10_answer_never_costs_the_next_chunked_body() {
    let bodies: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let seen = Arc::clone(&bodies);
    let rogue = Rogue::start(move |mut talk| {
        let seen = Arc::clone(&seen);
        async move {
            while let Some(head) = talk.next_head().await {
                let body = talk.read_body_raw(&head).await;
                assert!(body.complete, "the body ended as it was announced");
                seen.lock().unwrap().push(body.data);
                talk.send(
                    "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
                )
                .await;
            }
        }
    });
    let gateway = one_worker(&passing(rogue.addr())).await;
    let mut client = gateway.client().await;
    let first = client.request("GET", "/", "localhost", &[], b"").await;
    assert_eq!((first.status, first.text().as_str()), (200, "ok"));
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
        .await;
    assert_eq!(client.response().await.status, 200);
    assert_eq!(*bodies.lock().unwrap(), [b"".to_vec(), b"onetwo".to_vec()]);
    assert_eq!(rogue.connections(), 2, "a connection that spoke HTTP/1.0 is not used again");
    assert_eq!(rogue.complaints(), Vec::<String>::new());
    assert_eq!(gateway.metric(r#"sluice_pool_closed_total{reason="unusable"}"#).await, 2.0);
}

/// Shows U-26.
#[tokio::test]
async fn a_get_keeps_its_body_of_unknown_length() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    let mut client = gateway.client().await;
    client
        .send("GET /h1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n")
        .await;
    assert_eq!(client.response().await.status, 200);

    let mut h2 = client::h2c(gateway.http).await;
    let unsized_body = Full::new(Bytes::from_static(b"frames")).map_frame(|frame| frame);
    let request = Request::get("/h2").body(unsized_body).unwrap();
    assert_eq!(h2.send(request).await.0.status, 200);
    let sized = Request::get("/sized").body(Full::new(Bytes::from_static(b"length"))).unwrap();
    assert_eq!(h2.send(sized).await.0.status, 200);

    let seen = recorder.wait_for(3).await;
    let seen: Vec<_> = seen.iter().map(|r| (r.target.as_str(), r.text(), r.complete)).collect();
    assert_eq!(
        seen,
        [
            ("/h1", "body".to_owned(), true),
            ("/h2", "frames".to_owned(), true),
            ("/sized", "length".to_owned(), true),
        ]
    );
}

/// Shows U-26.
#[tokio::test]
async fn a_get_keeps_its_body_towards_http2_too() {
    let service = H2Upstream::start(Mode::Echo);
    let gateway = Gateway::start(&passing_with(service.addr(), "protocol: http2,", "")).await;
    let mut client = gateway.client().await;
    client
        .send("GET /h1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n")
        .await;
    assert_eq!(client.response().await.text(), "body");
    assert_eq!(service.wait_for(1).await[0].text(), "body");
}

/// Shows P-08.
#[tokio::test]
async fn options_about_the_server_dial_nobody() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    let mut client = gateway.client().await;
    client.send("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let answer = client.response_to("OPTIONS").await;
    assert_eq!(answer.status, 204);
    assert!(answer.header("allow").unwrap().contains("GET"), "{answer:?}");
    assert_eq!(answer.header("content-length"), None);

    let refused = raw::exchange(gateway.http, "GET * HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(refused.status, 400);
    assert_eq!(refused.json()["reason"], "target_invalid");
    assert_eq!(recorder.connections(), 0, "nobody was dialled");
}

/// Shows H2-17.
#[tokio::test]
async fn the_authority_of_http2_is_the_host_and_may_not_differ_from_it() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    let mut h2 = client::h2c(gateway.http).await;
    let empty = || Full::new(Bytes::new());
    let plain = Request::get("http://shop.example/basket").body(empty()).unwrap();
    assert_eq!(h2.send(plain).await.0.status, 200);
    let same = Request::get("http://shop.example/same").header("host", "Shop.Example");
    assert_eq!(h2.send(same.body(empty()).unwrap()).await.0.status, 200);
    let seen = recorder.wait_for(2).await;
    assert_eq!(seen[0].all("host"), ["shop.example"]);
    assert_eq!(seen[1].all("host"), ["shop.example"]);

    let evil = Request::get("http://shop.example/").header("host", "evil.example");
    let (head, body, _) = h2.send(evil.body(empty()).unwrap()).await;
    assert_eq!(head.status.as_u16(), 400);
    assert!(String::from_utf8(body).unwrap().contains(r#""reason":"authority_mismatch""#));
    assert_eq!(recorder.begun(), 2);
}

/// Shows W-02.
#[tokio::test]
async fn an_unasked_switch_of_protocols_is_a_bad_gateway() {
    let rogue = Rogue::start(rogue::unasked_101());
    let gateway = Gateway::start(&passing(rogue.addr())).await;
    let answer = gateway.get("/").await;
    assert_eq!((answer.status, answer.interims.len()), (502, 0));
    assert_eq!(answer.json()["reason"], "unexpected_upgrade");

    let (head, body, _) = client::h2c(gateway.http).await.send(client::get("/")).await;
    assert_eq!(head.status.as_u16(), 502);
    assert!(String::from_utf8(body).unwrap().contains(r#""reason":"unexpected_upgrade""#));

    // Asking does not help where the route does not allow it.
    let refusal = sluice_chaos::ws::Client::try_connect(gateway.http, "a", "/", &[]).await;
    let refusal = refusal.err().expect("no WebSocket");
    assert_eq!(refusal.json()["reason"], "unexpected_upgrade");
    assert_eq!(gateway.metric("sluice_websocket_connections").await, 0.0);
    assert_eq!(rogue.heads()[2].header("upgrade"), None, "the wish was not passed on");
}
