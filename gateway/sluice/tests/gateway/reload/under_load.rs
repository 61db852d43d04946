//! Reload after reload while requests pour in: not one of them may notice.

use std::time::Duration;

use sluice_chaos::load::{Plan, Tally};
use sluice_chaos::recorder::{Answer, Recorder};

use super::rename_over;
use crate::support::Gateway;

const CONFIG: &str = r#"
upstreams: { up: { endpoints: [ { address: "{up}" } ] } }
routes:
  - id: up
    match: { path: /up }
    filters: [ { headers: { request: { set: { X-Table: even } } } } ]
    upstream: up
"#;
const RELOADS: u64 = 200;

fn untouched(tally: &Tally, kind: &str) {
    assert_eq!((tally.failed, tally.refused), (0, 0), "{kind}: {:?}", tally.errors);
    assert_eq!(tally.ok, tally.sent, "{kind}: {:?}", tally.by_status);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_reloads_cost_no_request() {
    let recorder = Recorder::answering(Answer::ok("ok"));
    let gateway = Gateway::start(&CONFIG.replace("{up}", &recorder.addr().to_string())).await;
    let even = std::fs::read_to_string(gateway.config_path()).unwrap();
    let odd = even.replace("even", "odd");
    // Longer than the reloads can take; stopped when they are done.
    let plan = Plan::new(gateway.http, "/up").per_second(250).duration(Duration::from_secs(300));
    let kept = plan.clone().keepalive(true).start();
    let single = plan.keepalive(false).start();
    for reload in 0..RELOADS {
        // Every twentieth time the content changes too, which the file watch notices by itself.
        if reload.is_multiple_of(20) {
            rename_over(&gateway, if reload.is_multiple_of(40) { &odd } else { &even });
        }
        let before = gateway.metric("sluice_config_generation").await;
        gateway.daemon.signal("HUP");
        gateway.wait_for_generation(before as u64 + 1).await;
    }
    let (kept, single) = (kept.stop().await, single.stop().await);
    untouched(&kept, "kept connections");
    untouched(&single, "a connection each");
    assert!(kept.sent > 500 && single.sent > 500, "{} and {} sent", kept.sent, single.sent);
    let accepted = gateway.metric("sluice_config_reloads_total{result=\"accepted\"}").await;
    assert!(accepted >= RELOADS as f64, "{accepted}");
    assert_eq!(gateway.metric("sluice_config_reloads_total{result=\"rejected\"}").await, 0.0);
    let seen = recorder.requests();
    assert_eq!(seen.len() as u64, kept.sent + single.sent);
    let by = |table: &str| seen.iter().filter(|r| r.header("x-table") == Some(table)).count();
    assert!(by("even") > 100 && by("odd") > 100, "{} and {}", by("even"), by("odd"));
    assert_eq!(by("even") + by("odd"), seen.len());
    assert_eq!(gateway.metric("sluice_panics_total").await, 0.0);
}
