//! The breaker: when it opens, what callers are told, how it closes again.

use std::time::Duration;

use sluice_chaos::raw::Response;
use sluice_chaos::recorder::{Answer, Recorder};
use sluice_chaos::rogue::Rogue;

use super::{served, start};
use crate::support::{Gateway, eventually};

async fn state(gateway: &Gateway) -> &'static str {
    let mut on = Vec::new();
    for state in ["closed", "open", "half_open"] {
        if gateway.metric(&format!("circuitbreaker_state{{state=\"{state}\"}}")).await == 1.0 {
            on.push(state);
        }
    }
    assert_eq!(on.len(), 1, "{on:?}");
    on[0]
}

fn refused(answer: &Response) {
    assert_eq!((answer.status, answer.json()["reason"].as_str()), (503, Some("breaker_open")));
    let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    // A fifth more than a minute, by chance.
    assert!((1..=72).contains(&after), "{after}");
}

/// Shows U-28.
#[tokio::test]
async fn failures_in_a_row_open_it_and_good_trials_close_it() {
    let recorder = Recorder::answering(Answer::new(502));
    let upstream = r#"{ endpoints: [ { address: "{0}" } ],
        breaker: { consecutive_failures: 3, open_for: 1s, half_open_requests: 2 } }"#;
    let gateway = start(2, upstream, &[&recorder]).await;
    for _ in 0..2 {
        assert_eq!(gateway.get("/a").await.status, 502);
    }
    // A success in between starts the count over; what the caller did wrong is no failure.
    for fine in [200, 404, 500, 429] {
        recorder.set(Answer::new(fine));
        assert_eq!(gateway.get("/a").await.status, fine);
        recorder.set(Answer::new(503));
        for _ in 0..2 {
            assert_eq!(gateway.get("/a").await.status, 503);
        }
        assert_eq!(state(&gateway).await, "closed", "{fine}");
    }
    let before = served(&recorder);
    assert_eq!(gateway.get("/a").await.status, 503);
    assert_eq!(state(&gateway).await, "open");
    for _ in 0..5 {
        refused(&gateway.get("/a").await);
    }
    assert_eq!(served(&recorder), before + 1, "an open breaker let a request through");

    // A failed trial opens it again.
    eventually("a trial", async || {
        let answer = gateway.get("/a").await;
        answer.status == 503 && answer.text() == ""
    })
    .await;
    assert_eq!(served(&recorder), before + 2);
    assert_eq!(state(&gateway).await, "open");
    recorder.set(Answer::ok("well"));
    eventually("a trial", async || gateway.get("/a").await.status == 200).await;
    assert_eq!(state(&gateway).await, "half_open");
    assert_eq!(gateway.get("/a").await.status, 200);
    assert_eq!(state(&gateway).await, "closed");
    for step in ["\"to\":\"open\"", "\"to\":\"half_open\"", "\"to\":\"closed\""] {
        gateway.daemon.wait_for_output(step).await;
    }
    assert!(gateway.metric("sluice_rejected_total{reason=\"breaker_open\"}").await >= 5.0);
}

#[tokio::test]
async fn a_share_of_failures_opens_it_once_there_are_enough_calls() {
    let recorder =
        Recorder::deciding(|request| Answer::new(if request.target == "/bad" { 504 } else { 200 }));
    let upstream = r#"{ endpoints: [ { address: "{0}" } ],
        breaker: { failure_rate: 50%, min_requests: 10, window: 60s, open_for: 60s } }"#;
    let gateway = start(2, upstream, &[&recorder]).await;
    for path in ["/bad", "/bad", "/bad", "/bad", "/good", "/good", "/good", "/good", "/good"] {
        gateway.get(path).await;
    }
    assert_eq!(state(&gateway).await, "closed");
    let rate = gateway.metric("circuitbreaker_failure_rate").await;
    assert!((rate - 4.0 / 9.0).abs() < 0.01, "{rate}");
    assert_eq!(gateway.get("/bad").await.status, 504);
    assert_eq!(state(&gateway).await, "open");
    refused(&gateway.get("/good").await);
}

#[tokio::test]
async fn connections_that_fail_count_and_clients_that_leave_do_not() {
    let refusing = Rogue::refuse();
    let upstream = format!(
        "{{ endpoints: [ {{ address: \"{}\" }} ], breaker: {{ consecutive_failures: 2, open_for: 60s }} }}",
        refusing.addr()
    );
    let gateway = start(1, &upstream, &[]).await;
    for _ in 0..2 {
        let answer = gateway.get("/a").await;
        assert_eq!(
            (answer.status, answer.json()["reason"].as_str()),
            (502, Some("connect_refused"))
        );
    }
    refused(&gateway.get("/a").await);

    let recorder = Recorder::answering(Answer::ok("late").delay(Duration::from_secs(30)));
    let upstream = r#"{ endpoints: [ { address: "{0}" } ],
        breaker: { consecutive_failures: 1, failure_rate: 1%, min_requests: 1 } }"#;
    let gateway = start(2, upstream, &[&recorder]).await;
    for n in 1..=5 {
        let mut client = gateway.client().await;
        client.send("GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        recorder.wait_for_begun(n).await;
        client.reset();
        recorder.wait_for_abandoned(n).await;
    }
    eventually("the requests to be over", async || {
        gateway.metric("sluice_http_requests_in_flight").await == 0.0
    })
    .await;
    assert_eq!(state(&gateway).await, "closed");
    assert_eq!(gateway.metric("circuitbreaker_failure_rate").await, 0.0);
    recorder.set(Answer::ok("well"));
    assert_eq!(gateway.get("/a").await.status, 200);
}
