//! The second tier: minutes of load. `cargo xtask soak` runs these.

use std::sync::Arc;
use std::time::Duration;

use sluice_chaos::load;
use sluice_chaos::pki::{Authority, client_config};
use sluice_chaos::raw::Client;
use sluice_chaos::recorder::{Answer, Recorder};

use crate::support::{Gateway, Setup, eventually, proportional};

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

#[tokio::test(flavor = "multi_thread")]
#[ignore = "second tier: cargo xtask soak"]
async fn long_idle_connections_hold_little_and_give_back_what_they_held() {
    const CONNECTIONS: u64 = 1000;
    let authority = Authority::new();
    let pair = authority.issue(&["localhost"]);
    for (tls, bound) in [(false, 5 * 1024), (true, 20 * 1024)] {
        let setup = Setup { workers: Some(1), ..Setup::with_tls(&pair) };
        let config = "upstreams: { echo: { builtin: echo } }\nroutes: [ { id: all, match: { path: /** }, upstream: echo } ]\n";
        let gateway = Gateway::start_with(config, setup).await;
        let trust = client_config(&authority, &["http/1.1"]);
        let mut clients = Vec::new();
        let mut start = 0;
        for n in 0..=CONNECTIONS {
            let mut client = if tls {
                Client::connect_tls(gateway.https, "localhost", Arc::clone(&trust)).await
            } else {
                gateway.client().await
            };
            assert_eq!(client.request("GET", "/x", "localhost", &[], b"").await.status, 200);
            clients.push(client);
            if n == 0 {
                start = proportional(&gateway);
            }
        }
        // All of them busy at a time, so that the least memory that is left is what counts.
        for client in &mut clients {
            client.send("GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        }
        for client in &mut clients {
            assert_eq!(client.response().await.status, 200);
        }
        eventually("the connections to rest", async || {
            gateway.metric("sluice_client_connections_parked").await >= CONNECTIONS as f64
        })
        .await;
        eventually("the memory to be given back", async || {
            let each = proportional(&gateway).saturating_sub(start) / CONNECTIONS;
            println!("tls {tls}: {each} bytes for each connection");
            each <= bound
        })
        .await;
    }
}

/// Shows E-08.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "second tier: cargo xtask soak"]
async fn long_a_million_requests_leave_nothing_behind() {
    const EACH: usize = 50;
    let service = Recorder::answering(Answer::ok("hello"));
    let config = format!(
        "upstreams: {{ up: {{ endpoints: [ {{ address: \"{}\" }} ] }}, echo: {{ builtin: echo }} }}\n\
         routes:\n  - {{ id: up, match: {{ path: /up }}, upstream: up }}\n  \
           - {{ id: all, match: {{ path: /** }}, upstream: echo }}\n",
        service.addr()
    );
    let gateway = Gateway::start(&config).await;
    let descriptors =
        || std::fs::read_dir(format!("/proc/{}/fd", gateway.daemon.pid())).unwrap().count();
    let rounds = async |rounds: usize| {
        let mut clients = Vec::new();
        for _ in 0..16 {
            clients.push(gateway.client().await);
        }
        for n in 0..rounds {
            let path = if n % 10 == 0 { "/up" } else { "/x" };
            let many = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").repeat(EACH);
            for client in &mut clients {
                client.send(&many).await;
            }
            for client in &mut clients {
                for _ in 0..EACH {
                    assert_eq!(client.response().await.status, 200);
                }
            }
            if n % 100 == 99 {
                // Before the last request of a connection has been.
                for client in &mut clients {
                    *client = gateway.client().await;
                }
            }
        }
    };
    let rest = async || {
        eventually("the connections to be gone", async || {
            gateway.metric("sluice_client_connections").await < 0.5
                && gateway.metric("sluice_tasks{kind=\"connection\"}").await < 0.5
                && gateway.metric("sluice_pool_connections{state=\"idle\"}").await < 0.5
        })
        .await;
        (resident(&gateway), descriptors(), gateway.metric("sluice_tasks").await)
    };
    rounds(125).await;
    let (memory, files, tasks) = rest().await;
    rounds(1_250).await;
    let (memory_late, files_late, tasks_late) = rest().await;
    assert!(files_late <= files + 2, "{files} descriptors, then {files_late}");
    assert!(tasks_late <= tasks, "{tasks} tasks, then {tasks_late}");
    assert!(memory_late * 10 <= memory * 11 + 40_960, "{memory} KiB, then {memory_late} KiB");
}
