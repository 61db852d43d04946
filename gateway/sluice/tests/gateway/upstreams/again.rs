//! Further attempts where a route says more than the default: after which answers, for which requests,
//! after which time; where they go, and what they are called.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sluice_chaos::recorder::{Answer, Recorder};

use crate::support::{Gateway, Setup};

/// One route to these endpoints, with more keys of its upstream and of itself.
async fn gateway(upstream: &str, route: &str, endpoints: &[&Recorder]) -> Gateway {
    let endpoints: Vec<String> =
        endpoints.iter().map(|one| format!("{{ address: \"{}\" }}", one.addr())).collect();
    let config = format!(
        "upstreams:\n  up: {{ {upstream} ejection: {{ enabled: false }}, endpoints: [ {} ] }}\n\
         routes: [ {{ id: up, {route} upstream: up }} ]\n",
        endpoints.join(", ")
    );
    Gateway::start_with(&config, Setup { workers: Some(1), ..Setup::default() }).await
}

fn busy() -> Recorder {
    Recorder::answering(Answer::new(503).body("busy"))
}

const STATUSES: &str = "retries: { statuses: [502, 503, 504] },";

#[tokio::test]
async fn a_status_that_the_route_names_is_tried_elsewhere() {
    let (bad, good) = (busy(), Recorder::start());
    let gateway = gateway("", STATUSES, &[&bad, &good]).await;
    let mut client = gateway.client().await;
    for _ in 0..8 {
        assert_eq!(client.request("GET", "/", "a", &[], b"").await.text(), "ok");
    }
    // Each has met the bad one first, since every attempt takes a turn.
    assert_eq!((bad.requests().len(), good.requests().len()), (8, 8));
    assert_eq!(bad.connections(), 1, "its answers are read, and its connection is kept");
    // A further attempt says which one it is, to the service and to operators.
    let numbers: Vec<_> = good
        .requests()
        .iter()
        .filter_map(|seen| seen.header("x-sluice-attempt").map(str::to_owned))
        .collect();
    assert_eq!(numbers, ["2"; 8]);
    assert!(bad.requests().iter().all(|seen| seen.header("x-sluice-attempt").is_none()));
    let retries = r#"sluice_upstream_retries_total{upstream="up",reason="status"}"#;
    assert_eq!(gateway.metric(retries).await, 8.0);
    let lines = gateway.log_lines(8).await;
    let says = |line: &serde_json::Value| line["attempts"] == 2 && line["retry_reason"] == "status";
    assert!(lines.iter().all(says), "{lines:?}");
}

#[tokio::test]
async fn nobody_else_can_say_which_attempt_it_is() {
    let service = Recorder::start();
    let gateway = gateway("", "", &[&service]).await;
    let said = [("X-Sluice-Attempt", "7")];
    gateway.client().await.request("GET", "/", "a", &said, b"").await;
    assert_eq!(service.wait_for(1).await[0].header("x-sluice-attempt"), None);
}

/// RFC 9110 section 9.2.2.
#[tokio::test]
async fn other_methods_only_where_the_route_says_so() {
    let key = [("Idempotency-Key", "8e03978e")];
    for (route, fields, twice) in [
        ("retries: { statuses: [503] },", &key[..], false),
        ("retries: { statuses: [503], idempotency_key: true },", &[], false),
        ("retries: { statuses: [503], idempotency_key: true },", &key, true),
        ("retries: { statuses: [503], idempotent: true },", &[], true),
    ] {
        let (bad, good) = (busy(), Recorder::start());
        let gateway = gateway("", route, &[&bad, &good]).await;
        let mut client = gateway.client().await;
        let mut statuses = Vec::new();
        for _ in 0..4 {
            let answer = client.request("POST", "/", "a", fields, b"one order").await;
            statuses.push(answer.status);
        }
        statuses.sort_unstable();
        let expected = if twice { [200; 4] } else { [200, 200, 503, 503] };
        assert_eq!(statuses, expected, "{route} {fields:?}");
        assert!(good.requests().iter().all(|seen| seen.text() == "one order"));
    }
}

#[tokio::test]
async fn an_answer_that_may_not_be_improved_is_passed_on() {
    for (upstream, route) in [
        // No status is named.
        ("", ""),
        // There is no budget, or no attempt.
        ("retries: { budget: 0%, min_per_second: 0 },", STATUSES),
        ("retries: { attempts: 1 },", STATUSES),
        ("", "retries: { statuses: [503], attempts: 1 },"),
    ] {
        let bad = busy();
        let gateway = gateway(upstream, route, &[&bad]).await;
        let answer = gateway.get("/").await;
        assert_eq!((answer.status, answer.text().as_str()), (503, "busy"), "{upstream} {route}");
        assert_eq!(bad.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_service_that_asks_for_patience_gets_some() {
    for (after, attempts) in [("1", 2), ("0", 2), ("2", 1), ("Fri, 31 Dec 2100 23:59:59 GMT", 1)] {
        let bad = Recorder::answering(Answer::new(503).header("Retry-After", after));
        let gateway = gateway("", STATUSES, &[&bad]).await;
        let start = Instant::now();
        let answer = gateway.get("/").await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some(after)));
        assert_eq!(bad.requests().len(), attempts, "{after}");
        assert!(after != "1" || start.elapsed() >= Duration::from_secs(1));
    }
}

#[tokio::test]
async fn nobody_waits_beyond_the_clients_time() {
    let bad = Recorder::answering(Answer::new(503).header("Retry-After", "1"));
    let gateway = gateway("", STATUSES, &[&bad]).await;
    let said = [("X-Request-Timeout", "900ms")];
    let answer = gateway.client().await.request("GET", "/", "a", &said, b"").await;
    assert_eq!((answer.status, bad.requests().len()), (503, 1), "the service's own answer");
    assert!(gateway.log_lines(1).await[0]["dur_ms"].as_f64().unwrap() < 900.0);
}

#[tokio::test]
async fn three_attempts_ask_three_endpoints() {
    let all = [busy(), busy(), Recorder::start(), busy(), busy()];
    let all: Vec<&Recorder> = all.iter().collect();
    for policy in ["round_robin", "least_request"] {
        let upstream = format!("balance: {policy}, retries: {{ attempts: 3, backoff: 1ms }},");
        let gateway = gateway(&upstream, STATUSES, &all).await;
        for n in 0..20 {
            gateway.get(&format!("/{policy}/{n}")).await;
        }
        assert!(gateway.log_lines(20).await.iter().any(|line| line["attempts"] == 3));
    }
    for (at, recorder) in all.iter().enumerate() {
        let mut times = HashMap::new();
        for request in recorder.requests() {
            *times.entry(request.target).or_insert(0) += 1;
        }
        assert!(times.values().all(|times| *times == 1), "{at} was asked again: {times:?}");
    }
}

#[tokio::test]
async fn with_one_endpoint_it_is_asked_again() {
    let seen = std::sync::atomic::AtomicU32::new(0);
    let service = Recorder::deciding(move |_| {
        match seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 | 1 => Answer::new(503),
            _ => Answer::ok("at last"),
        }
    });
    let gateway = gateway("retries: { attempts: 3 },", STATUSES, &[&service]).await;
    assert_eq!(gateway.get("/").await.text(), "at last");
}

#[tokio::test]
async fn a_slow_attempt_gives_way_to_another() {
    let slow = Recorder::answering(Answer::ok("slow").delay(Duration::from_secs(20)));
    let quick = Recorder::answering(Answer::ok("quick"));
    let upstream = "retries: { per_try_timeout: 100ms },";
    let gateway = gateway(upstream, "", &[&slow, &quick]).await;
    for _ in 0..4 {
        assert_eq!(gateway.get("/").await.text(), "quick");
    }
    slow.wait_for_abandoned(4).await;
    let retries = r#"sluice_upstream_retries_total{reason="timeout"}"#;
    assert_eq!(gateway.metric(retries).await, 4.0);
}

/// Giving up would help nobody.
#[tokio::test]
async fn a_slow_attempt_goes_on_where_there_is_no_other() {
    let quiet = "retries: { per_try_timeout: 50ms, budget: 0%, min_per_second: 0 },";
    for (upstream, route, method) in [
        (quiet, "", "GET"),
        ("retries: { per_try_timeout: 50ms, attempts: 1 },", "", "GET"),
        ("", "retries: { per_try_timeout: 50ms },", "POST"),
    ] {
        let slow = Recorder::answering(Answer::ok("slow").delay(Duration::from_millis(400)));
        let gateway = gateway(upstream, route, &[&slow]).await;
        let answer = gateway.client().await.request(method, "/", "a", &[], b"").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "slow"));
        assert_eq!(slow.begun(), 1, "{upstream} {route}");
    }
}
