//! The second tier: minutes of load. `cargo xtask soak` runs these.

use std::time::Duration;

use sluice_chaos::load;
use sluice_chaos::recorder::{Answer, Recorder};

use crate::support::{Gateway, eventually};

fn config(service: &Recorder, status: u16) -> String {
    format!(
        r#"
filters: [ {{ request_id: {{}} }} ]
upstreams:
  service: {{ endpoints: [ {{ address: "{}" }} ], breaker: {{ failure_rate: 50% }} }}
routes:
  - {{ id: all, match: {{ path: /** }}, upstream: service }}
  - {{ id: marker, match: {{ path: /marker }}, filters: [ {{ respond: {{ status: {status} }} }} ] }}
"#,
        service.addr()
    )
}

/// Resident memory of the gateway in KiB.
fn resident(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "second tier: cargo xtask soak"]
async fn long_load_with_a_reload_every_second_costs_no_request_and_no_memory() {
    let service = Recorder::answering(Answer::ok("hello"));
    let gateway = Gateway::start(&config(&service, 200)).await;
    let plan = load::Plan::new(gateway.http, "/x")
        .per_second(500)
        .duration(Duration::from_secs(120))
        .keepalive(true);
    let running = plan.start();
    let mut early = 0;
    for second in 0..110_u16 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        gateway.write_config(&config(&service, 200 + second % 2));
        if second == 20 {
            early = resident(&gateway);
        }
    }
    let tally = running.finish().await;
    assert_eq!(tally.failed, 0, "{:?}", tally.errors);
    assert_eq!(tally.ok, tally.sent);
    assert!(gateway.metric("sluice_config_generation").await >= 50.0);
    assert!(gateway.metric("sluice_config_reloads_total{result=\"rejected\"}").await < 0.5);
    let late = resident(&gateway);
    assert!(late * 10 <= early * 12, "memory grew from {early} to {late} KiB");
    eventually("all requests to be over", async || {
        gateway.metric("sluice_http_requests_in_flight").await < 0.5
    })
    .await;
}
