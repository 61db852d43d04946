//! Endpoints that are taken out of use because their requests fail, and come back.

use sluice_chaos::faults::{Fault, FaultProxy};
use sluice_chaos::recorder::{Answer, Recorder};

use super::{served, start};
use crate::support::{Gateway, eventually};

/// Answers its health check well and everything else with `status`.
fn healthy_but(status: u16) -> Recorder {
    Recorder::deciding(move |request| {
        if request.target == "/health" { Answer::ok("") } else { Answer::new(status) }
    })
}

async fn ejected(gateway: &Gateway) -> f64 {
    gateway.metric("sluice_endpoint_ejected").await
}

/// Statuses of so many requests.
async fn statuses(gateway: &Gateway, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(gateway.get("/a").await.status);
    }
    statuses
}

#[tokio::test]
async fn u_19_healthy_by_its_checks_only() {
    let (bad, good) = (healthy_but(503), Recorder::start());
    let upstream = r#"{ endpoints: [ { address: "{0}" }, { address: "{1}" } ],
        ejection: { consecutive_failures: 3, time: 700ms },
        health_check: { http: /health, interval: 50ms } }"#;
    let gateway = start(2, upstream, &[&bad, &good]).await;
    let first = statuses(&gateway, 6).await;
    assert_eq!(first.iter().filter(|status| **status == 503).count(), 3, "{first:?}");
    assert_eq!(ejected(&gateway).await, 1.0);
    assert_eq!(statuses(&gateway, 6).await, [200; 6]);
    assert_eq!(served(&bad), 3);
    gateway.daemon.wait_for_output("requests keep failing; ejected").await;
    let page = gateway.admin("/upstreams").await.json();
    assert_eq!(page["up"]["endpoints"][0]["ejected"], true);
    assert_eq!(page["up"]["endpoints"][0]["up"], true, "its health check has another opinion");

    // It comes back by itself, fails again, and is out for longer.
    eventually("the end of the ejection", async || ejected(&gateway).await == 0.0).await;
    let second = statuses(&gateway, 10).await;
    assert_eq!(second.iter().filter(|status| **status == 503).count(), 3, "{second:?}");
    let series = r#"sluice_endpoint_ejections_total{reason="consecutive_failures"}"#;
    assert_eq!(gateway.metric(series).await, 2.0);

    bad.set(Answer::ok("well again"));
    eventually("the end of the second ejection", async || ejected(&gateway).await == 0.0).await;
    assert_eq!(statuses(&gateway, 10).await, [200; 10]);
    assert_eq!(served(&bad), 3 + 3 + 5);
}

/// Shows U-19.
#[tokio::test]
async fn other_statuses_of_5xx_count_where_that_is_said() {
    for (said, out) in [("false", 0.0), ("true", 1.0)] {
        let (bad, good) = (healthy_but(500), Recorder::start());
        let upstream = r#"{ endpoints: [ { address: "{0}" }, { address: "{1}" } ],
            ejection: { consecutive_failures: 3, server_errors: SAID } }"#;
        let gateway = start(1, &upstream.replace("SAID", said), &[&bad, &good]).await;
        statuses(&gateway, 10).await;
        assert_eq!(ejected(&gateway).await, out, "{said}");
    }
}

/// Shows U-19.
#[tokio::test]
async fn no_more_than_half_of_them_are_ejected() {
    let recorders = [0; 4].map(|_| healthy_but(503));
    let [a, b, c, d] = &recorders;
    let upstream = r#"{ endpoints: [ { address: "{0}" }, { address: "{1}" }, { address: "{2}" },
        { address: "{3}" } ], ejection: { consecutive_failures: 1 } }"#;
    let gateway = start(2, upstream, &[a, b, c, d]).await;
    assert_eq!(statuses(&gateway, 40).await, [503; 40]);
    assert_eq!(ejected(&gateway).await, 2.0);
    let mut shares: Vec<usize> = recorders.iter().map(served).collect();
    shares.sort_unstable();
    assert_eq!((shares[0], shares[1]), (1, 1), "{shares:?}");

    // Whom nobody could replace stays.
    let alone = healthy_but(503);
    let upstream = r#"{ endpoints: [ { address: "{0}" } ],
        ejection: { consecutive_failures: 1, max_ejected: 100% } }"#;
    let gateway = start(1, upstream, &[&alone]).await;
    assert_eq!(statuses(&gateway, 5).await, [503; 5]);
    assert_eq!(served(&alone), 5);
}

/// Connections that break count like answers of 5xx, and an ejection outlives a reload.
///
/// Shows U-19.
#[tokio::test]
async fn broken_connections_eject_and_reloads_do_not_pardon() {
    let (one, other) = (Recorder::start(), Recorder::start());
    let proxy = FaultProxy::before(one.addr());
    proxy.set(Fault::none().reset_after(0));
    let config = |path: &str, more: &str| {
        format!(
            "upstreams: {{ up: {{ {more} endpoints: [ {{ address: \"{}\" }}, {{ address: \"{}\" }} ] }} }}\n\
             routes: [ {{ id: up, match: {{ path: {path} }}, upstream: up }} ]\n",
            proxy.addr(),
            other.addr()
        )
    };
    let gateway = Gateway::start(&config("/**", "")).await;
    // A GET whose new connection dies goes elsewhere, so nobody sees a failure.
    assert_eq!(statuses(&gateway, 20).await, [200; 20]);
    assert_eq!(ejected(&gateway).await, 1.0);
    assert_eq!((proxy.connections(), served(&other)), (5, 20));
    gateway.write_config(&config("/a", ""));
    gateway.wait_for_generation(2).await;
    assert_eq!(statuses(&gateway, 10).await, [200; 10]);
    assert_eq!((ejected(&gateway).await, proxy.connections()), (1.0, 5));
    // Without ejection all are asked.
    gateway.write_config(&config("/a", "ejection: { enabled: false },"));
    gateway.wait_for_generation(3).await;
    assert_eq!(ejected(&gateway).await, 0.0);
    proxy.set(Fault::none());
    assert_eq!(statuses(&gateway, 10).await, [200; 10]);
    assert_eq!(served(&one), 5);
}
