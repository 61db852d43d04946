//! What happens when the machine has no more of something.

use std::process::Command;
use std::time::Duration;

use sluice_chaos::raw::Client;
use sluice_chaos::rogue::{Rogue, black_hole};

use crate::configs::passing_with;
use crate::support::{Gateway, Setup, eventually};

const CONFIG: &str = "upstreams: { echo: { builtin: echo } }\n\
    routes: [ { id: all, match: { path: /** }, upstream: echo } ]\n";

/// Processor time that the gateway has had, in the kernel's ticks of a hundredth of a second.
fn ticks(gateway: &Gateway) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", gateway.daemon.pid())).unwrap();
    // proc(5): behind the name in brackets, user and system time are fields 12 and 13.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum()
}

#[tokio::test]
async fn e_01_without_descriptors_accepting_pauses_and_goes_on() {
    let setup = Setup { workers: Some(1), ..Setup::default() };
    let gateway = Gateway::start_with(CONFIG, setup).await;
    let mut kept = gateway.client().await;
    assert_eq!(kept.request("GET", "/", "a", &[], b"").await.status, 200);
    let pid = gateway.daemon.pid().to_string();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let limit = format!("--nofile={0}:{0}", open + 8);
    let done = Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap();
    assert!(done.success());

    // The kernel takes them; the gateway cannot.
    let mut crowd: Vec<Client> = Vec::new();
    for _ in 0..40 {
        crowd.push(gateway.client().await);
    }
    let before = ticks(&gateway);
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let answer = kept.request("GET", "/", "a", &[], b"").await;
        assert_eq!(answer.status, 200, "who is in, and not at rest, stays in");
    }
    let spent = ticks(&gateway) - before;
    assert!(spent < 50, "{spent} of 200 ticks were spent on what cannot be done");

    drop(crowd);
    eventually("new connections to be served", async || {
        let mut late = gateway.client().await;
        late.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.is_ok()
            && late.try_response_to("GET").await.is_some_and(|answer| answer.status == 200)
    })
    .await;
    assert!(gateway.metric("sluice_accept_errors_total").await > 0.0);
}

/// A thousand requests wait for a service that does not answer, each with time limits of its own.
#[tokio::test]
async fn e_09_time_limits_that_nobody_reaches_cost_nothing() {
    let service = Rogue::start(black_hole());
    let upstream = "keepalive: { max_connections: 2000 },";
    let config = passing_with(service.addr(), upstream, "");
    let setup = Setup { workers: Some(1), ..Setup::default() };
    let gateway = Gateway::start_with(&config, setup).await;
    let mut waiting: Vec<Client> = Vec::new();
    for _ in 0..1_000 {
        let mut client = gateway.client().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        waiting.push(client);
    }
    eventually("all to be on their way", async || {
        gateway.metric("sluice_http_requests_in_flight").await >= 1_000.0
    })
    .await;
    let before = ticks(&gateway);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let spent = ticks(&gateway) - before;
    assert!(spent < 20, "{spent} of 200 ticks were spent on waiting");
}
