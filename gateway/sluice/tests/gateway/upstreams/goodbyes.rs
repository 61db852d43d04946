//! HTTP/2 services that allow one stream, or none, or say goodbye at once: requests wait or fail, and
//! nothing turns in circles.

use std::time::{Duration, Instant};

use sluice_chaos::client;
use sluice_chaos::h2up::{H2Upstream, Mode};
use sluice_chaos::rogue::{Conversation, Rogue};

use crate::configs::passing_with;
use crate::support::{Gateway, Setup};

async fn gateway(addr: std::net::SocketAddr, more: &str) -> Gateway {
    let config = passing_with(addr, &format!("protocol: http2, {more}"), "");
    Gateway::start_with(&config, Setup { workers: Some(1), ..Setup::default() }).await
}

/// Processor time of the gateway so far.
fn worked(gateway: &Gateway) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", gateway.daemon.pid())).unwrap();
    let fields = stat.rsplit_once(") ").unwrap().1;
    // The 14th and 15th fields of proc(5), in hundredths of a second.
    let ticks = |at: usize| fields.split(' ').nth(at - 3).unwrap().parse::<u64>().unwrap();
    Duration::from_millis((ticks(14) + ticks(15)) * 10)
}

#[tokio::test]
async fn u_25_one_stream_at_a_time_serves_everybody_in_turn() {
    let service = H2Upstream::setup().max_streams(1).mode(Mode::Answer(200, b"well".to_vec()));
    let service = service.start();
    let gateway = gateway(service.addr(), "").await;
    let sender = client::h2c(gateway.http).await;
    let asks: Vec<_> = (0..40)
        .map(|_| {
            let mut sender = sender.another();
            tokio::spawn(async move { sender.send(client::get("/")).await.0.status.as_u16() })
        })
        .collect();
    for ask in asks {
        assert_eq!(ask.await.unwrap(), 200);
    }
    assert_eq!(service.requests().len(), 40);
    // Streams that left before the service had said how many it allows were refused, and sent once more.
    assert!(service.connections() <= 3, "{} connections", service.connections());
}

/// Shows U-25.
#[tokio::test]
async fn no_stream_at_all_is_waited_for_without_work() {
    let service = H2Upstream::setup().max_streams(0).start();
    let gateway = gateway(service.addr(), "timeouts: { head: 800ms },").await;
    let sender = client::h2c(gateway.http).await;
    let (start, before) = (Instant::now(), worked(&gateway));
    let asks: Vec<_> = (0..10)
        .map(|_| {
            let mut sender = sender.another();
            tokio::spawn(async move { sender.send(client::get("/")).await })
        })
        .collect();
    for ask in asks {
        let (head, body, _) = ask.await.unwrap();
        let body = String::from_utf8(body).unwrap();
        assert_eq!(head.status, 504, "{body}");
        assert!(body.contains("upstream_timeout"), "{body}");
    }
    let (took, work) = (start.elapsed(), worked(&gateway) - before);
    assert!(took >= Duration::from_millis(700) && work < took / 2, "{work:?} of {took:?}");
    assert_eq!((service.connections(), service.begun()), (1, 0));
}

/// Says that it will serve nothing, and closes.
async fn goodbye_at_once(mut talk: Conversation) {
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    /// NO_ERROR, no stream was served.
    const FAREWELL: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    talk.send([SETTINGS, FAREWELL].concat()).await;
    talk.close().await;
}

/// Shows U-25, U-20.
#[tokio::test]
async fn a_goodbye_at_once_is_a_failure_and_nobody_connects_for_nothing() {
    const REQUESTS: u64 = 60;
    let rogue = Rogue::start(goodbye_at_once);
    let gateway = gateway(rogue.addr(), "").await;
    let mut client = gateway.client().await;
    for _ in 0..REQUESTS {
        let answer = client.request("GET", "/", "localhost", &[], b"").await;
        assert_eq!(answer.status, 502, "{answer:?}");
    }
    let asked = rogue.connections();
    // Two for each request at most, and second ones only as far as the budget goes.
    assert!((REQUESTS..=REQUESTS + 30).contains(&asked), "{asked} connections");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(rogue.connections(), asked, "connections without requests");
}

/// Many requests that are lost with one connection share the next one, instead of making one each.
///
/// Shows U-25.
#[tokio::test]
async fn what_was_lost_with_one_connection_shares_the_next() {
    let service = H2Upstream::start(Mode::Silent);
    let (addr, gateway) = (service.addr(), gateway(service.addr(), "").await);
    let sender = client::h2c(gateway.http).await;
    // The first one makes the connection one that has served before.
    service.set(Mode::Answer(200, Vec::new()));
    assert_eq!(sender.another().send(client::get("/")).await.0.status, 200);
    service.set(Mode::Silent);
    let asks: Vec<_> = (0..30)
        .map(|_| {
            let mut sender = sender.another();
            tokio::spawn(async move { sender.send(client::get("/")).await.0.status.as_u16() })
        })
        .collect();
    service.wait_for_begun(31).await;
    service.stop().await;
    let service = H2Upstream::setup().at(addr).mode(Mode::Answer(200, Vec::new())).start();
    let mut statuses = Vec::new();
    for ask in asks {
        statuses.push(ask.await.unwrap());
    }
    // Between the end and the beginning nobody listened; whoever came then was refused.
    let well = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!(service.requests().len(), well, "{statuses:?}");
    assert!(service.connections() <= 1, "{} connections", service.connections());
    assert_eq!(sender.another().send(client::get("/")).await.0.status, 200);
}
