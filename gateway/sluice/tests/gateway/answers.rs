//! What becomes of a service's answer: what frames it, what makes no sense, and the fields that come
//! after a body, on both ways.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use sluice_chaos::client;
use sluice_chaos::h2up::{H2Upstream, Mode};
use sluice_chaos::recorder::{Answer, Recorder};
use sluice_chaos::rogue::{self, Rogue};

use crate::configs::{passing, passing_with};
use crate::support::{Gateway, Setup};

// === What frames an answer ===

#[tokio::test]
async fn answers_without_a_body_keep_their_length_and_the_connection() {
    for (method, answer, status, length) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n", 200, Some("1234")),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, None),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 99\r\n\r\n",
            304,
            None,
        ),
        ("GET", "HTTP/1.1 304 Not Modified\r\n\r\n", 304, None),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", 204, None),
        ("POST", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, Some("0")),
    ] {
        let rogue = Rogue::start(rogue::answer(answer));
        let setup = Setup { workers: Some(1), ..Setup::default() };
        let gateway = Gateway::start_with(&passing(rogue.addr()), setup).await;
        let mut client = gateway.client().await;
        for _ in 0..2 {
            let got = client.request(method, "/", "localhost", &[], b"").await;
            assert_eq!((got.status, got.header("content-length")), (status, length), "{answer}");
            assert!(got.complete && got.body.is_empty(), "{got:?}");
        }
        assert_eq!(rogue.connections(), 1, "{method} {answer}");
        let lines = gateway.log_lines(2).await;
        assert!(lines.iter().all(|line| line["reason"].is_null()), "{lines:?}");
    }
}

/// Shows U-07, U-12.
#[tokio::test]
async fn bytes_after_an_answer_are_never_the_next_answer() {
    for (name, script) in [
        ("a second answer", rogue::extra_bytes_after_body()),
        (
            "a body for 204",
            rogue::answer("HTTP/1.1 204 No Content\r\nContent-Length: 8\r\n\r\npoisoned"),
        ),
        ("a length too small", rogue::lying_length(rogue::Lie::Long)),
    ] {
        let rogue = Rogue::start(script);
        let setup = Setup { workers: Some(1), ..Setup::default() };
        let gateway = Gateway::start_with(&passing(rogue.addr()), setup).await;
        let mut client = gateway.client().await;
        for turn in 0..50 {
            let got = client.request("GET", "/", "localhost", &[], b"").await;
            assert!(matches!(got.status, 200 | 204), "{name}, {turn}: {got:?}");
            assert!(got.complete && !got.text().contains("poisoned"), "{name}, {turn}: {got:?}");
        }
    }
}

/// Shows U-13.
#[tokio::test]
async fn an_answer_that_nobody_asked_for_closes_the_idle_connection() {
    let poison = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned";
    let rogue = Rogue::start(rogue::unsolicited(poison));
    let setup = Setup { workers: Some(1), ..Setup::default() };
    let gateway = Gateway::start_with(&passing(rogue.addr()), setup).await;
    for turn in 1..=3 {
        assert_eq!(gateway.get("/").await.text(), "ok");
        rogue.wait_for_open(0).await;
        assert_eq!(rogue.connections(), turn);
    }
}

#[tokio::test]
async fn a_service_that_closes_its_connection_does_not_close_the_clients() {
    let recorder = Recorder::answering(Answer::ok("bye").close());
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    let mut client = gateway.client().await;
    for _ in 0..5 {
        let answer = client.request("GET", "/", "a", &[], b"").await;
        assert_eq!((answer.text().as_str(), answer.header("connection")), ("bye", None));
    }
    assert_eq!(recorder.connections(), 5);
}

/// Shows U-10.
#[tokio::test]
async fn interim_answers_end_at_the_gateway() {
    let rogue = Rogue::start(rogue::interim_storm(16));
    let gateway = Gateway::start(&passing(rogue.addr())).await;
    let answer = gateway.get("/").await;
    assert_eq!((answer.status, answer.text().as_str(), answer.interims.len()), (200, "ok", 0));
    assert_eq!(gateway.metric(r#"sluice_upstream_interim_total{upstream="service"}"#).await, 16.0);
}

/// U-10: a service that never comes to the point.
#[tokio::test]
async fn u_10_a_storm_of_interim_answers_is_a_bad_gateway() {
    let rogue = Rogue::start(rogue::interim_storm(17));
    let gateway = Gateway::start(&passing(rogue.addr())).await;
    let answer = gateway.get("/").await;
    assert_eq!(
        (answer.status, answer.json()["reason"].as_str()),
        (502, Some("upstream_malformed"))
    );
    let counted = r#"sluice_upstream_interim_total{upstream="service"}"#;
    assert_eq!(gateway.metric(counted).await, 17.0, "a storm counts although no answer came of it");
}

/// Shows U-09, HD-12.
#[tokio::test]
async fn answers_that_make_no_sense_are_a_bad_gateway() {
    for answer in [
        "HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nBad Name: x\r\nContent-Length: 0\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
    ] {
        let rogue = Rogue::start(rogue::answer(answer));
        let gateway = Gateway::start(&passing(rogue.addr())).await;
        let got = gateway.get("/").await;
        assert_eq!(
            (got.status, got.json()["reason"].as_str()),
            (502, Some("upstream_malformed")),
            "{answer}"
        );
        assert_eq!(got.header("proxy-status"), Some("sluice; error=http_protocol_error"));
        assert_eq!(rogue.connections(), 1, "{answer}");
    }
    for script in [
        rogue::many_headers(150),
        rogue::answer(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(70_000))),
    ] {
        let rogue = Rogue::start(script);
        let gateway = Gateway::start(&passing(rogue.addr())).await;
        let got = gateway.get("/").await;
        assert_eq!((got.status, got.json()["reason"].as_str()), (502, Some("upstream_malformed")));
    }
}

// === Trailers ===

#[tokio::test]
async fn trailers_of_an_answer_reach_those_who_can_take_them() {
    let trailing = Answer::ok("text")
        .chunked()
        .header("Trailer", "X-Sum, Set-Cookie")
        .trailer("X-Sum", "42")
        .trailer("Set-Cookie", "evil=1");
    let recorder = Recorder::answering(trailing);
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    let mut h2 = client::h2c(gateway.http).await;
    let wanting = Request::get("/").header("te", "trailers").body(Full::new(Bytes::new())).unwrap();
    let (_, body, trailers) = h2.send(wanting).await;
    let trailers = trailers.expect("trailers");
    assert_eq!((body.as_slice(), &trailers["x-sum"]), (&b"text"[..], &http::HeaderValue::from(42)));
    assert!(!trailers.contains_key("set-cookie"), "a trailer sets no cookie");
    assert_eq!(recorder.wait_for(1).await[0].header("te"), Some("trailers"));

    let plain = gateway.get("/").await;
    assert_eq!((plain.text().as_str(), plain.complete), ("text", true));
    assert_eq!(plain.trailers, [], "not asked for");
}

/// Shows H1-11.
#[tokio::test]
async fn trailers_of_a_request_cannot_pose_as_header_fields() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing_with(recorder.addr(), "", "")).await;
    let mut client = gateway.client().await;
    client
        .send(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: Authorization\r\n\r\n\
             2\r\nhi\r\n0\r\nAuthorization: Bearer evil\r\nX-User: root\r\n\r\n",
        )
        .await;
    assert_eq!(client.response().await.status, 200);
    let seen = &recorder.wait_for(1).await[0];
    assert_eq!((seen.text().as_str(), seen.complete), ("hi", true));
    assert_eq!(seen.trailers, []);
    assert_eq!(seen.header("authorization"), None);
}

#[tokio::test]
async fn trailers_of_a_grpc_request_reach_the_service() {
    let service = H2Upstream::start(Mode::GrpcUnary);
    let gateway = Gateway::start(&passing_with(service.addr(), "protocol: http2,", "")).await;
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-trace-bin", http::HeaderValue::from_static("AAA"));
    trailers.insert("authorization", http::HeaderValue::from_static("Bearer evil"));
    let body = Full::new(client::frame(b"hello")).with_trailers(async { Some(Ok(trailers)) });
    let request = Request::post("/pkg.Echo/Say").header("content-type", "application/grpc");
    let (head, ..) = client::h2c(gateway.http).await.send(request.body(body).unwrap()).await;
    assert_eq!(head.status, 200);
    let seen = &service.wait_for(1).await[0];
    assert_eq!(seen.trailers, [("grpc-trace-bin".to_owned(), "AAA".to_owned())]);
    assert!(seen.complete);
}
