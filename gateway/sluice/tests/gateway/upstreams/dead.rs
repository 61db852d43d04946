//! A connection that dies without a word: packets vanish, as behind a firewall that has forgotten it.
//! Needs a network of its own, hence root; the test starts itself once more inside one.

use std::process::Command;
use std::time::{Duration, Instant};

use sluice_chaos::recorder::Recorder;

use crate::configs::passing;
use crate::support::{Gateway, Setup};

/// Shows U-29.
#[test]
#[ignore = "second tier: cargo xtask soak"]
fn long_wait_for_a_connection_that_died_without_a_word() {
    let able = Command::new("unshare").args(["-n", "iptables", "-L", "-n"]).output();
    if !able.is_ok_and(|output| output.status.success()) {
        eprintln!("NOT RUN: needs root, unshare and iptables, to have a network of its own");
        return;
    }
    let inside = "upstreams::dead::inside_a_network_of_its_own";
    let script = "ip link set lo up && exec \"$0\" --exact \"$1\" --ignored --nocapture";
    let output = Command::new("unshare")
        .args(["-n", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg(inside)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Makes all packets of this port vanish.
fn drop_packets(port: u16) {
    for side in ["--sport", "--dport"] {
        let port = port.to_string();
        let rule = ["-A", "INPUT", "-p", "tcp", side, &port, "-j", "DROP"];
        let done = Command::new("iptables").args(rule).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

#[tokio::test]
#[ignore = "run by the test above, in a network of its own"]
async fn inside_a_network_of_its_own() {
    let service = Recorder::start();
    let setup = Setup { workers: Some(1), ..Setup::default() };
    let gateway = Gateway::start_with(&passing(service.addr()), setup).await;
    // Two connections that have served before.
    let mut clients = [gateway.client().await, gateway.client().await];
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n").await;
    }
    service.wait_for_begun(2).await;
    for client in &mut clients {
        client.send("x").await;
        assert_eq!(client.response().await.status, 200);
    }
    let seen = service.requests();
    assert_ne!(seen[0].peer, seen[1].peer);
    seen.iter().for_each(|request| drop_packets(request.peer.port()));

    let start = Instant::now();
    let [first, second] = &mut clients;
    let (mut first, mut second) = (
        std::mem::replace(first, gateway.client().await).with_deadline(Duration::from_secs(30)),
        std::mem::replace(second, gateway.client().await).with_deadline(Duration::from_secs(30)),
    );
    let (get, post) = tokio::join!(
        first.request("GET", "/again", "localhost", &[], b""),
        second.request("POST", "/once", "localhost", &[], b"order"),
    );
    let took = start.elapsed();
    // The system gives up after 10 s; the GET has 5 s left of its 15, and gets its answer.
    assert!((Duration::from_secs(8)..Duration::from_secs(15)).contains(&took), "{took:?}");
    assert_eq!((get.status, post.status), (200, 502), "{post:?}");
    assert_eq!(post.json()["reason"], "upstream_reset");
    let targets: Vec<String> = service.requests().into_iter().map(|r| r.target).collect();
    assert_eq!(targets, ["/", "/", "/again"]);
}
