//! Clients that say how long they wait: what the service is told of it, and what happens then.

use std::time::{Duration, Instant};

use sluice_chaos::client;
use sluice_chaos::h2up::{H2Upstream, Mode};
use sluice_chaos::raw::Response;
use sluice_chaos::recorder::{Answer, Recorder};

use crate::configs::passing_with;
use crate::support::Gateway;

async fn ask(gateway: &Gateway, fields: &[(&str, &str)]) -> Response {
    gateway.client().await.request("GET", "/", "localhost", fields, b"").await
}

/// Milliseconds of a value like `1234ms`.
fn millis(text: &str) -> u64 {
    text.strip_suffix("ms").unwrap_or_else(|| panic!("{text}")).parse().unwrap()
}

#[tokio::test]
async fn u_22_the_service_is_told_what_is_left() {
    let service = Recorder::start();
    let config = passing_with(service.addr(), "timeouts: { total: 5s },", "");
    let gateway = Gateway::start(&config).await;
    for (said, most) in [("2000ms", 2_000), ("60000ms", 5_000)] {
        assert_eq!(ask(&gateway, &[("X-Request-Timeout", said)]).await.status, 200);
        let seen = service.requests().pop().unwrap();
        let told = millis(seen.header("x-request-timeout").unwrap());
        assert!((1..=most).contains(&told) && told + 1_500 > most, "{said}: {told}");
        assert_eq!(seen.all("x-request-timeout").len(), 1);
    }
    // The unit stays; what nobody can read stays as it is; and nothing is said that was not.
    ask(&gateway, &[("X-Request-Timeout", "3s"), ("Grpc-Timeout", "soon")]).await;
    let seen = service.requests().pop().unwrap();
    assert!(seen.header("x-request-timeout").unwrap().ends_with('s'));
    assert_eq!(seen.header("grpc-timeout"), Some("soon"));
    ask(&gateway, &[]).await;
    let seen = service.requests().pop().unwrap();
    assert_eq!((seen.header("x-request-timeout"), seen.header("grpc-timeout")), (None, None));
}

/// Shows U-22.
#[tokio::test]
async fn the_clients_time_ends_the_wait_and_blames_nobody() {
    let service = Recorder::answering(Answer::ok("late").delay(Duration::from_secs(8)));
    let more = "breaker: { consecutive_failures: 1 }, ejection: { consecutive_failures: 1 },";
    let gateway = Gateway::start(&passing_with(service.addr(), more, "")).await;
    let start = Instant::now();
    for _ in 0..2 {
        let answer = ask(&gateway, &[("X-Request-Timeout", "0.2")]).await;
        assert_eq!(
            (answer.status, answer.json()["reason"].as_str()),
            (504, Some("deadline_exceeded"))
        );
    }
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    assert_eq!(gateway.metric(r#"circuitbreaker_state{state="closed"}"#).await, 1.0);
    // What is over already is not begun.
    let begun = service.begun();
    assert_eq!(ask(&gateway, &[("X-Request-Timeout", "0")]).await.status, 504);
    assert_eq!(service.begun(), begun);
    let lines = gateway.log_lines(3).await;
    let mut attempts: Vec<_> = lines.iter().map(|line| line["attempts"].as_u64()).collect();
    attempts.sort_unstable();
    assert_eq!(attempts, [Some(0), Some(1), Some(1)]);
}

/// Shows U-22.
#[tokio::test]
async fn grpc_callers_are_answered_in_their_own_words() {
    let service = H2Upstream::start(Mode::GrpcUnary);
    let gateway = Gateway::start(&passing_with(service.addr(), "protocol: http2,", "")).await;
    let mut sender = client::h2c(gateway.http).await;
    let call = |timeout: &str| {
        let mut request = client::post("/shop.Orders/Get", &b"\0\0\0\0\0"[..]);
        let headers = request.headers_mut();
        headers.insert("content-type", http::HeaderValue::from_static("application/grpc"));
        headers.insert("te", http::HeaderValue::from_static("trailers"));
        headers.insert("grpc-timeout", http::HeaderValue::try_from(timeout).unwrap());
        request
    };
    assert_eq!(sender.send(call("10S")).await.0.status, 200);
    let seen = service.requests().pop().unwrap();
    let told = seen.header("grpc-timeout").unwrap().strip_suffix('m').unwrap();
    assert!((5_000..=10_000).contains(&told.parse::<u64>().unwrap()), "{told}");
    service.set(Mode::Silent);
    let (head, _, _) = sender.send(call("200m")).await;
    assert_eq!((head.status.as_u16(), head.headers["grpc-status"].as_bytes()), (200, &b"4"[..]));
}
