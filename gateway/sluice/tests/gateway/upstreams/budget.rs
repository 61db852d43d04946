//! The budget for second attempts: a service that fails is not given twice the load.

use std::time::Duration;

use sluice_chaos::load::Plan;
use sluice_chaos::recorder::Recorder;
use sluice_chaos::rogue::{self, Rogue};

use crate::support::{Gateway, Setup};

fn config(more: &str, endpoints: &[std::net::SocketAddr]) -> String {
    let endpoints: Vec<String> =
        endpoints.iter().map(|addr| format!("{{ address: \"{addr}\" }}")).collect();
    format!(
        "upstreams: {{ up: {{ {more} endpoints: [ {} ] }} }}\nroutes: [ {{ id: up, upstream: up }} ]\n",
        endpoints.join(", ")
    )
}

async fn gateway(more: &str, endpoints: &[std::net::SocketAddr]) -> Gateway {
    let setup = Setup { workers: Some(2), ..Setup::default() };
    Gateway::start_with(&config(more, endpoints), setup).await
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

/// What a service sees of which every request fails: by two ways of failing, with two and three attempts,
/// at several rates.
///
/// Shows U-20.
#[tokio::test]
#[ignore = "second tier: half a minute of failures; prints a table"]
async fn long_a_failing_service_sees_a_fifth_more_at_most() {
    const SECONDS: u64 = 30;
    let mut runs = Vec::new();
    for (failure, attempts, rate) in [
        ("reset", 2, 20),
        ("reset", 2, 200),
        ("reset", 3, 100),
        ("503", 2, 2),
        ("503", 2, 20),
        ("503", 2, 200),
        ("503", 3, 100),
    ] {
        runs.push(tokio::spawn(async move {
            let services = [0; 3].map(|_| match failure {
                "503" => {
                    Rogue::start(rogue::answer("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"))
                }
                _ => Rogue::start(rogue::reset_after_head()),
            });
            let addresses: Vec<_> = services.iter().map(Rogue::addr).collect();
            let config = config(&format!("retries: {{ attempts: {attempts} }},"), &addresses)
                .replace("upstream: up }", "upstream: up, retries: { statuses: [503] } }");
            let gateway = Gateway::start(&config).await;
            let load = Plan::new(gateway.http, "/").host("a").per_second(rate);
            let load = load.duration(Duration::from_secs(SECONDS)).run().await;
            let seen: usize = services.iter().map(|service| service.heads().len()).sum();
            let ratio = seen as f64 / load.sent as f64;
            let row = format!(
                "| {failure} | {attempts} | {rate} | {} | {seen} | {ratio:.3} |",
                load.sent
            );
            (row, ratio)
        }));
    }
    println!(
        "| failure | attempts | a second | offered | seen | ratio |\n|---|---|---|---|---|---|"
    );
    for run in runs {
        let (row, ratio) = run.await.unwrap();
        println!("{row}");
        assert!(ratio <= 1.2, "{row}");
    }
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
