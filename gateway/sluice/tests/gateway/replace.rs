//! One process in another's place: after a kill, under load, and as the first of a container.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sluice_chaos::load::Plan;
use sluice_chaos::raw::Client;
use sluice_chaos::recorder::{Answer, Recorder};

use crate::support::{Gateway, Setup, eventually};

fn thousand_routes() -> String {
    let route =
        |n| format!("  - {{ id: r{n}, match: {{ path: \"/s{n}/{{id}}/**\" }}, upstream: echo }}\n");
    let routes: String = (0..1000).map(route).collect();
    format!("upstreams: {{ echo: {{ builtin: echo }} }}\nroutes:\n{routes}")
}

/// Shows G-04.
#[tokio::test]
async fn g_04_after_a_kill_the_next_one_serves_at_once() {
    let mut gateway = Gateway::start(&thousand_routes()).await;
    for _ in 0..5 {
        let mut kept = gateway.client().await;
        kept.request("GET", "/s999/1/x", "a", &[], b"").await;
        gateway.daemon.kill();
        let began = Instant::now();
        gateway.daemon = gateway.another(&[]).await;
        let took = began.elapsed();
        assert_eq!(gateway.get("/s999/1/x").await.status, 200);
        // Some 300 ms where nothing else runs; what must not be is waiting for a port or a lock.
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
}

async fn takeover(rounds: usize) {
    let service = Recorder::answering(Answer::ok("fine").delay(Duration::from_millis(20)));
    let config = format!(
        "shutdown: {{ delay: 100ms, grace: 20s }}\n\
         upstreams: {{ up: {{ endpoints: [ {{ address: \"{}\" }} ] }} }}\n\
         routes: [ {{ id: all, match: {{ path: /** }}, upstream: up }} ]\n",
        service.addr()
    );
    let mut gateway = Gateway::start(&config).await;
    // Without the word for it a second gateway does not start.
    let path = gateway.config_path();
    let alone = Command::new(env!("CARGO_BIN_EXE_sluice")).arg("run").arg("-c").arg(path).output();
    assert_eq!(alone.unwrap().status.code(), Some(78));
    let seconds = Duration::from_secs(60 * rounds as u64);
    let plan = |keepalive| {
        let plan = Plan::new(gateway.http, "/x").per_second(60).duration(seconds);
        plan.keepalive(keepalive).start()
    };
    let (fresh, kept) = (plan(false), plan(true));
    for _ in 0..rounds {
        let next = gateway.another(&["--takeover"]).await;
        let mut old = std::mem::replace(&mut gateway.daemon, next);
        tokio::time::sleep(Duration::from_millis(200)).await;
        old.signal("TERM");
        assert_eq!(old.exit_code().await, Some(0));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    for load in [fresh, kept] {
        let tally = load.stop().await;
        assert!(tally.sent > 60, "{tally:?}");
        assert_eq!((tally.refused, tally.failed), (0, 0), "{:?}", tally.errors);
        assert_eq!(tally.ok, tally.sent);
    }
}

/// Shows G-05.
#[tokio::test(flavor = "multi_thread")]
async fn g_05_a_new_program_takes_over_under_load() {
    takeover(2).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "second tier: cargo xtask soak"]
async fn long_twenty_programs_take_over_from_each_other() {
    takeover(20).await;
}

/// Shows G-09.
#[tokio::test]
async fn g_09_as_the_first_process_of_a_container_it_hears_signals() {
    let root = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0;
    let by = if root {
        "exec unshare --pid --fork --kill-child \"$@\""
    } else {
        "exec unshare --map-root-user --pid --fork --kill-child \"$@\""
    };
    let config = "shutdown: { delay: 50ms, grace: 5s }\nupstreams: { echo: { builtin: echo } }\n\
        routes: [ { id: all, match: { path: /** }, upstream: echo } ]\n";
    let mut gateway = Gateway::start_with(config, Setup { by: Some(by), ..Setup::default() }).await;
    let pid = gateway.daemon.pid();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let first = children.trim();
    let status = std::fs::read_to_string(format!("/proc/{first}/status")).unwrap();
    assert!(status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1")));
    let signal = |name: &str| {
        assert!(Command::new("kill").args(["-s", name, first]).status().unwrap().success());
    };
    signal("HUP");
    gateway.wait_for_generation(2).await;
    assert_eq!(gateway.get("/x").await.status, 200);
    signal("TERM");
    assert_eq!(gateway.daemon.exit_code().await, Some(0));
    assert!(Client::try_connect(gateway.http).await.is_err());
}

/// Shows G-07, Z-03.
#[tokio::test]
async fn g_07_a_stopped_process_blames_nobody_for_the_time_it_lost() {
    let asked = Arc::<AtomicUsize>::default();
    let seen = Arc::clone(&asked);
    let service = Recorder::deciding(move |request| {
        seen.fetch_add(usize::from(request.target == "/x"), Ordering::SeqCst);
        Answer::ok("fine").delay(Duration::from_millis(700))
    });
    let config = format!(
        "upstreams:\n  up:\n    endpoints: [ {{ address: \"{}\" }} ]\n    timeouts: {{ total: 1500ms }}\n\
         \x20   health_check: {{ http: /health, interval: 100ms, timeout: 1s, fall: 1 }}\n\
         \x20   breaker: {{ failure_rate: 10%, min_requests: 5 }}\n\
         routes: [ {{ id: all, match: {{ path: /** }}, upstream: up }} ]\n",
        service.addr()
    );
    let gateway = Gateway::start(&config).await;
    for round in 1..=2 {
        let mut clients = Vec::new();
        for _ in 0..20 {
            let mut client = gateway.client().await;
            client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
            clients.push(client);
        }
        // What has no connection yet when time is lost has none of it back. Health checks come beside these.
        eventually("the service to be asked", async || asked.load(Ordering::SeqCst) >= 20 * round)
            .await;
        gateway.daemon.signal("STOP");
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        gateway.daemon.signal("CONT");
        for client in &mut clients {
            assert_eq!(client.response().await.status, 200);
        }
    }
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(gateway.metric("sluice_endpoint_up").await, 1.0);
    assert_eq!(gateway.metric("circuitbreaker_state{state=\"closed\"}").await, 1.0);
    assert!(!gateway.daemon.output().contains("taken out of use"));
    eventually("the pause to be noticed", async || {
        gateway.get("/x").await;
        gateway.metric("sluice_worker_stalls_total").await > 0.0
    })
    .await;
}
