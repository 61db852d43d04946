//! Clients that say how long they wait: what the service is told of it, and what happens then.

use std::time::{Duration, Instant};

use sluice_chaos::client;
use sluice_chaos::h2up::{H2Upstream, Mode};
use sluice_chaos::raw::Response;
use sluice_chaos::recorder::{Answer, Recorder};
use sluice_chaos::rogue::Rogue;

use crate::configs::passing_with;
use crate::support::{Gateway, Setup};

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

#[tokio::test]
async fn what_is_doomed_is_refused_before_anybody_works_for_it() {
    let service = Recorder::start();
    // The limit would refuse the second request that comes so far.
    let limit = "filters: [ { rate_limit: { key: address, limit: 1, per: 1h } } ],";
    let config = passing_with(service.addr(), "timeouts: { floor: 2s },", limit);
    let gateway = Gateway::start(&config).await;
    for said in ["1", "1999ms", "0", "1"] {
        let answer = ask(&gateway, &[("X-Request-Timeout", said)]).await;
        let reason = answer.json()["reason"].clone();
        assert_eq!((answer.status, reason.as_str()), (504, Some("deadline_exceeded")), "{said}");
    }
    assert_eq!(service.begun(), 0);
    assert_eq!(ask(&gateway, &[("X-Request-Timeout", "30s")]).await.status, 200);
    let lines = gateway.log_lines(5).await;
    assert_eq!(lines.iter().filter(|line| line["attempts"] == 0).count(), 4);
}

#[tokio::test]
async fn waiting_in_a_queue_counts() {
    let service = Recorder::answering(Answer::ok("late").delay(Duration::from_secs(3)));
    let more = "bulkhead: { requests: 1, queue: 8, max_wait: 10s },";
    let gateway = Gateway::start(&passing_with(service.addr(), more, "")).await;
    let addr = gateway.http;
    let first = tokio::spawn(async move { sluice_chaos::raw::get(addr, "a", "/").await });
    service.wait_for_begun(1).await;
    let start = Instant::now();
    let answer = ask(&gateway, &[("X-Request-Timeout", "200ms")]).await;
    let reason = answer.json()["reason"].clone();
    assert_eq!((answer.status, reason.as_str()), (504, Some("deadline_exceeded")));
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(service.begun(), 1, "it never came so far");
}

/// Two gateways in a row. The first one tells what its route allows, and loses 300 ms to an endpoint that
/// does not answer; nobody's clock is asked but their own, so the way between them is not counted.
///
/// Shows U-22.
#[tokio::test]
async fn the_time_shrinks_hop_by_hop() {
    let service = Recorder::start();
    let second = Gateway::start(&passing_with(service.addr(), "", "")).await;
    let deaf = Rogue::deaf();
    let config = format!(
        "upstreams:\n  up: {{ timeouts: {{ tell: true, connect: 300ms }}, endpoints: [ \
           {{ address: \"{}\" }}, {{ address: \"{}\" }} ] }}\n\
         routes: [ {{ id: up, timeout: 5s, upstream: up }} ]\n",
        deaf.addr(),
        second.http
    );
    let first = Gateway::start_with(&config, Setup { workers: Some(1), ..Setup::default() }).await;
    let told = async |fields: &[(&str, &str)], name: &str| {
        assert_eq!(ask(&first, fields).await.status, 200);
        let seen = service.requests().pop().unwrap();
        seen.header(name).unwrap_or_else(|| panic!("{seen:?}")).to_owned()
    };
    // What the client says is told in its own words, and else the route's time; less what has passed.
    let whole = millis(&told(&[], "x-request-timeout").await);
    assert!((500..=4_700).contains(&whole), "{whole}");
    let own = millis(&told(&[("X-Request-Timeout", "4000ms")], "x-request-timeout").await);
    assert!((500..=3_700).contains(&own), "{own}");
    let grpc = told(&[("Grpc-Timeout", "4S")], "grpc-timeout").await;
    let grpc: u64 = grpc.strip_suffix('m').unwrap().parse().unwrap();
    assert!((500..=3_700).contains(&grpc), "{grpc}");

    // Time that is over at the first hop is not begun at the second.
    let begun = service.begun();
    let answer = ask(&first, &[("X-Request-Timeout", "200ms")]).await;
    assert_eq!((answer.status, answer.json()["reason"].as_str()), (504, Some("deadline_exceeded")));
    assert_eq!(service.begun(), begun);
}

#[tokio::test]
async fn a_route_has_its_own_time() {
    let service = Recorder::answering(Answer::ok("late").delay(Duration::from_millis(600)));
    let upstream = "timeouts: { total: 200ms },";
    let gateway = Gateway::start(&passing_with(service.addr(), upstream, "timeout: 20s,")).await;
    assert_eq!(ask(&gateway, &[]).await.text(), "late", "longer than its upstream's");
    let gateway = Gateway::start(&passing_with(service.addr(), "", "timeout: 200ms,")).await;
    let answer = ask(&gateway, &[]).await;
    assert_eq!((answer.status, answer.json()["reason"].as_str()), (504, Some("upstream_timeout")));
}
