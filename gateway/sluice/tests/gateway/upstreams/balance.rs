//! Which endpoint is asked: by turn and weight, by load, by health, or because no other is left.

use std::time::Duration;

use sluice_chaos::recorder::{Answer, Recorder};
use sluice_chaos::rogue::Rogue;

use super::{served, start};
use crate::support::eventually;

#[tokio::test]
async fn turns_are_taken_by_weight_over_all_workers() {
    let recorders = [0; 3].map(|_| Recorder::start());
    let upstream = r#"{ endpoints: [
        { address: "{0}", weight: 5 }, { address: "{1}", weight: 2 }, { address: "{2}", weight: 0 } ] }"#;
    let gateway = start(2, upstream, &[&recorders[0], &recorders[1], &recorders[2]]).await;
    for _ in 0..70 {
        assert_eq!(gateway.get("/a").await.status, 200);
    }
    let shares: Vec<usize> = recorders.iter().map(served).collect();
    assert_eq!(shares, [50, 20, 0]);
}

#[tokio::test]
async fn the_heavier_endpoint_is_not_asked_in_bursts() {
    let recorders = [0, 1].map(|n| Recorder::answering(Answer::ok(n.to_string())));
    let upstream = r#"{ endpoints: [ { address: "{0}", weight: 3 }, { address: "{1}" } ] }"#;
    let gateway = start(1, upstream, &[&recorders[0], &recorders[1]]).await;
    let mut turns = String::new();
    for _ in 0..16 {
        turns.push_str(&gateway.get("/a").await.text());
    }
    assert!(!turns.contains("0000") && !turns.contains("11"), "{turns}");
    assert_eq!(turns.matches('1').count(), 4, "{turns}");
}

#[tokio::test]
async fn a_busy_endpoint_is_left_alone() {
    let slow = |request: &sluice_chaos::record::Recorded| {
        let answer = Answer::ok("x");
        if request.target == "/slow" { answer.delay(Duration::from_secs(8)) } else { answer }
    };
    let recorders = [0, 1].map(|_| Recorder::deciding(slow));
    let upstream =
        r#"{ balance: least_request, endpoints: [ { address: "{0}" }, { address: "{1}" } ] }"#;
    let gateway = start(2, upstream, &[&recorders[0], &recorders[1]]).await;
    let mut waiting = gateway.client().await;
    waiting.send("GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    eventually("the slow request", async || {
        recorders.iter().map(Recorder::begun).sum::<u64>() == 1
    })
    .await;
    let busy = usize::from(recorders[1].begun() == 1);
    for _ in 0..10 {
        assert_eq!(gateway.get("/quick").await.status, 200);
    }
    assert_eq!((recorders[busy].begun(), recorders[1 - busy].begun()), (1, 10));
    assert_eq!(gateway.metric("sluice_endpoint_requests_in_flight").await, 1.0);
    assert_eq!(waiting.response().await.status, 200);
    eventually("the load to be over", async || {
        gateway.metric("sluice_endpoint_requests_in_flight").await == 0.0
    })
    .await;
    for _ in 0..10 {
        gateway.get("/quick").await;
    }
    assert!(recorders[busy].begun() > 3, "an idle endpoint stays shunned");
}

const CHECKED: &str = r#"{
    endpoints: [ { address: "{0}" }, { address: "{1}" }, { address: "{2}", backup: true } ],
    panic_threshold: 0%,
    health_check: { http: /health, interval: 50ms, rise: 2, fall: 2 } }"#;

/// Shows U-18.
#[tokio::test]
async fn health_checks_take_out_and_bring_back_and_backups_stand_in() {
    let recorders = [0, 1, 2].map(|n| Recorder::answering(Answer::ok(n.to_string())));
    let [first, second, backup] = &recorders;
    let gateway = start(2, CHECKED, &[first, second, backup]).await;
    let up = async |n: usize| {
        let endpoint = recorders[n].addr();
        gateway.metric(&format!("sluice_endpoint_up{{endpoint=\"{endpoint}\"}}")).await == 1.0
    };
    let asked = async |calls: usize| {
        let mut by = String::new();
        for _ in 0..calls {
            let answer = gateway.get("/a").await;
            by.push_str(&if answer.status == 200 {
                answer.text()
            } else {
                answer.status.to_string()
            });
        }
        by
    };
    let by = asked(6).await;
    assert_eq!((by.matches('0').count(), by.matches('1').count()), (3, 3), "{by}");

    first.set(Answer::new(500));
    eventually("the first to be taken out", async || !up(0).await).await;
    assert_eq!(asked(6).await, "111111");
    second.set(Answer::new(404));
    eventually("the second to be taken out", async || !up(1).await).await;
    assert_eq!(asked(6).await, "222222");
    backup.set(Answer::new(503));
    eventually("the backup to be taken out", async || !up(2).await).await;
    let refused = gateway.get("/a").await;
    assert_eq!((refused.status, refused.json()["reason"].as_str()), (503, Some("no_endpoint")));

    second.set(Answer::ok("1"));
    eventually("the second to be back", async || up(1).await).await;
    assert_eq!(asked(4).await, "1111");
    first.set(Answer::new(302).header("Location", "/elsewhere"));
    eventually("the first to be back", async || up(0).await).await;
    let probe = first.requests().into_iter().find(|r| r.target == "/health").unwrap();
    assert_eq!(probe.header("user-agent"), Some("sluice-health-check"));
    assert_eq!(probe.header("host"), Some(&*first.addr().to_string()));
    gateway.daemon.wait_for_output("taken out of use").await;
    gateway.daemon.wait_for_output("healthy again").await;
    assert_eq!(served(backup), 6);
}

/// Shows U-18.
#[tokio::test]
async fn all_are_asked_when_too_few_are_up() {
    let recorders = [0, 1, 2].map(|_| Recorder::start());
    let [first, second, third] = &recorders;
    let upstream = r#"{ endpoints: [ { address: "{0}" }, { address: "{1}" }, { address: "{2}" } ],
        health_check: { http: /health, interval: 50ms, rise: 1, fall: 1 } }"#;
    let gateway = start(2, upstream, &[first, second, third]).await;
    let up = async || gateway.metric("sluice_endpoint_up").await;
    let shares = async || {
        let before = [0, 1, 2].map(|n| served(&recorders[n]));
        for _ in 0..12 {
            gateway.get("/a").await;
        }
        [0, 1, 2].map(|n| served(&recorders[n]) - before[n])
    };
    first.set(Answer::new(404));
    eventually("one to be down", async || up().await == 2.0).await;
    assert_eq!(shares().await, [0, 6, 6]);
    assert_eq!(gateway.metric("sluice_upstream_panic").await, 0.0);
    second.set(Answer::new(404));
    eventually("two to be down", async || up().await == 1.0).await;
    assert_eq!(shares().await, [4, 4, 4]);
    assert_eq!(gateway.metric("sluice_upstream_panic").await, 1.0);
    third.set(Answer::new(404));
    eventually("all to be down", async || up().await == 0.0).await;
    assert_eq!(shares().await, [4, 4, 4], "a wrong health check does not stop everything");
}

#[tokio::test]
async fn who_does_not_listen_costs_a_second_attempt_and_not_the_request() {
    let (refusing, recorder) = (Rogue::refuse(), Recorder::start());
    let upstream = format!(
        "{{ endpoints: [ {{ address: \"{}\" }}, {{ address: \"{{0}}\" }} ] }}",
        refusing.addr()
    );
    let gateway = start(1, &upstream, &[&recorder]).await;
    let mut client = gateway.client().await;
    for _ in 0..10 {
        // Nothing was sent, so even a POST may go elsewhere.
        let answer = client.request("POST", "/a", "localhost", &[], b"once").await;
        assert_eq!(answer.status, 200);
    }
    assert_eq!(served(&recorder), 10);
    assert!(recorder.requests().iter().all(|request| request.text() == "once"));
    let retries = gateway.metric("sluice_upstream_retries_total").await;
    assert!((5.0..=10.0).contains(&retries), "{retries}");
}
