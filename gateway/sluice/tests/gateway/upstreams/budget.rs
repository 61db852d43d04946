//! The budget for second attempts: a service that fails is not given twice the load.

use sluice_chaos::recorder::Recorder;
use sluice_chaos::rogue::{self, Rogue};

use crate::support::{Gateway, Setup};

async fn gateway(more: &str, endpoints: &[std::net::SocketAddr]) -> Gateway {
    let endpoints: Vec<String> =
        endpoints.iter().map(|addr| format!("{{ address: \"{addr}\" }}")).collect();
    let config = format!(
        "upstreams: {{ up: {{ {more} endpoints: [ {} ] }} }}\nroutes: [ {{ id: up, upstream: up }} ]\n",
        endpoints.join(", ")
    );
    Gateway::start_with(&config, Setup { workers: Some(2), ..Setup::default() }).await
}

#[tokio::test]
async fn u_20_a_service_that_always_fails_gets_few_second_attempts() {
    const REQUESTS: usize = 400;
    let rogues = [0; 3].map(|_| Rogue::start(rogue::reset_after_head()));
    let gateway = gateway("", &[rogues[0].addr(), rogues[1].addr(), rogues[2].addr()]).await;
    let mut client = gateway.client().await;
    for _ in 0..REQUESTS {
        let answer = client.request("GET", "/", "localhost", &[], b"").await;
        assert_eq!(
            (answer.status, answer.json()["reason"].as_str()),
            (502, Some("upstream_reset"))
        );
    }
    let attempts: usize = rogues.iter().map(|rogue| rogue.heads().len()).sum();
    let extra = attempts - REQUESTS;
    assert!((10..=REQUESTS / 5).contains(&extra), "{extra} second attempts");
    assert_eq!(gateway.metric("sluice_upstream_retries_total").await, extra as f64);
    let refused = gateway.metric("sluice_retry_budget_exhausted_total").await;
    assert_eq!(refused, (REQUESTS - extra) as f64);
    let lines = gateway.log_lines(REQUESTS).await;
    assert!(lines.iter().all(|line| line["attempts"].as_u64().unwrap() <= 2));
}

const NONE: &str = "retries: { budget: 0%, min_per_second: 0 }, ejection: { enabled: false },";

/// Shows U-20.
#[tokio::test]
async fn without_a_budget_nothing_goes_elsewhere() {
    let (rogue, recorder) = (Rogue::start(rogue::reset_after_head()), Recorder::start());
    let gateway = gateway(NONE, &[rogue.addr(), recorder.addr()]).await;
    let mut statuses = Vec::new();
    for _ in 0..10 {
        statuses.push(gateway.get("/").await.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 502, 502, 502, 502, 502]);
    assert_eq!(gateway.metric("sluice_upstream_retries_total").await, 0.0);
    assert_eq!(gateway.metric("sluice_retry_budget_exhausted_total").await, 5.0);
}

/// Who refuses a connection has had no work with it; one of three services that are restarted in turn
/// would use up the budget otherwise.
///
/// Shows U-01, U-20.
#[tokio::test]
async fn refused_connections_need_no_budget() {
    let (refusing, recorder) = (Rogue::refuse(), Recorder::start());
    let gateway = gateway(NONE, &[refusing.addr(), recorder.addr()]).await;
    for _ in 0..50 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    assert!(gateway.metric("sluice_upstream_retries_total").await >= 25.0);
}

/// The race with a service that closes idle connections is its peace, not its distress.
///
/// Shows U-05, U-20.
#[tokio::test]
async fn the_close_race_needs_no_budget() {
    let rogue = Rogue::start(rogue::reset_on_reuse());
    let gateway = gateway(NONE, &[rogue.addr()]).await;
    let mut client = gateway.client().await;
    for _ in 0..20 {
        assert_eq!(client.request("GET", "/", "localhost", &[], b"").await.status, 200);
    }
    assert!(gateway.metric("sluice_upstream_retries_total").await >= 1.0);
}
