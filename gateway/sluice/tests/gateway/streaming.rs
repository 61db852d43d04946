//! Bodies in motion: nothing is collected, whoever is slow slows the other side, what breaks is seen
//! to break, and who stalls is let go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sluice_chaos::client;
use sluice_chaos::h2up::{H2Upstream, Mode};
use sluice_chaos::raw;
use sluice_chaos::recorder::Recorder;
use sluice_chaos::rogue::{self, Rogue};

use crate::configs::{passing, passing_with};
use crate::support::{Gateway, Setup, eventually};

const MIB: u64 = 1024 * 1024;
/// The size of the large bodies.
const LARGE: u64 = 200 * MIB;
/// What sockets and buffers of all three processes may hold while nobody reads.
const SLACK: u64 = 32 * MIB;

/// Short limits on clients.
const HASTY: &str = r#"listeners:
  - name: plain
    address: "{http}"
    timeouts: { handshake: 500ms, head: 500ms, body: 500ms, write: 1s, keepalive: 500ms }
"#;

async fn hasty(config: &str) -> Gateway {
    let setup = Setup { listeners: Some(HASTY), ..Setup::default() };
    Gateway::start_with(config, setup).await
}

/// Resident memory of the gateway, bytes.
fn memory(gateway: &Gateway) -> u64 {
    let path = format!("/proc/{}/status", gateway.daemon.pid());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Waits until a count has not moved for a while, and gives it back.
async fn stands_still(count: &AtomicU64) -> u64 {
    let mut last = u64::MAX;
    for _ in 0..60 {
        let now = count.load(Ordering::Relaxed);
        if now == last && now > 0 {
            return now;
        }
        last = now;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    panic!("{last} bytes and still moving");
}

/// Answers with [`LARGE`] bytes and counts how many it got rid of.
fn large_answer() -> (Rogue, Arc<AtomicU64>) {
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let rogue = Rogue::start(move |mut talk| {
        let count = Arc::clone(&count);
        async move {
            talk.read_head().await;
            talk.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n")).await;
            let piece = vec![b'x'; 64 * 1024];
            while count.load(Ordering::Relaxed) < LARGE && talk.send(&piece).await {
                count.fetch_add(piece.len() as u64, Ordering::Relaxed);
            }
            talk.close().await;
        }
    });
    (rogue, sent)
}

// === Backpressure ===

/// Shows U-15.
#[tokio::test]
async fn a_reader_that_stalls_stalls_the_service_and_not_the_memory() {
    let (rogue, sent) = large_answer();
    let gateway = Gateway::start(&passing(rogue.addr())).await;
    let before = memory(&gateway);
    let mut client = raw::Client::connect_narrow(gateway.http, 64 * 1024).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let stuck = stands_still(&sent).await;
    assert!(stuck < SLACK, "the service got rid of {stuck} bytes that nobody has read");
    let grown = memory(&gateway).saturating_sub(before);
    assert!(grown < 16 * MIB, "{grown} bytes more");

    // Once it reads, everything comes.
    let mut got = 0;
    loop {
        let piece = client.read_some().await;
        if got == 0 {
            let head = piece.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
            got += (piece.len() - head) as u64;
        } else {
            got += piece.len() as u64;
        }
        if piece.is_empty() || got >= LARGE {
            break;
        }
    }
    assert_eq!(got, LARGE);
    let grown = memory(&gateway).saturating_sub(before);
    assert!(grown < 16 * MIB, "{grown} bytes more");
    let line = &gateway.log_lines(1).await[0];
    assert_eq!((&line["bytes_out"], &line["reason"]), (&LARGE.into(), &serde_json::Value::Null));
}

/// Shows H2-09.
#[tokio::test]
async fn an_http2_reader_that_stalls_does_so_too() {
    let (rogue, sent) = large_answer();
    let gateway = Gateway::start(&passing(rogue.addr())).await;
    let before = memory(&gateway);
    let mut h2 = client::h2c(gateway.http).await;
    let answer = h2.start(client::get("/")).await;
    let stuck = stands_still(&sent).await;
    assert!(stuck < SLACK, "the service got rid of {stuck} bytes that nobody has read");
    let grown = memory(&gateway).saturating_sub(before);
    assert!(grown < 16 * MIB, "{grown} bytes more");
    drop(answer);
    rogue.wait_for_open(0).await;
}

/// Shows U-24.
#[tokio::test]
async fn a_service_that_does_not_read_stalls_the_client() {
    let (release, released) = tokio::sync::watch::channel(false);
    let rogue = Rogue::start(move |mut talk| {
        let mut released = released.clone();
        async move {
            let head = talk.read_head().await;
            released.wait_for(|go| *go).await.unwrap();
            let body = talk.read_body_raw(&head).await;
            let whole = body.complete && body.data.len() as u64 == LARGE;
            let status = if whole { "200 OK" } else { "500 Short" };
            talk.send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")).await;
            talk.drain().await;
        }
    });
    let gateway = Gateway::start(&passing_with(rogue.addr(), "", "streaming: true,")).await;
    let before = memory(&gateway);
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let mut client = gateway.client().await.with_deadline(Duration::from_secs(60));
    let upload = tokio::spawn(async move {
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n")).await;
        let piece = vec![b'x'; 64 * 1024];
        while count.load(Ordering::Relaxed) < LARGE {
            client.send(&piece).await;
            count.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        client.response().await
    });
    let stuck = stands_still(&sent).await;
    assert!(stuck < SLACK, "the client got rid of {stuck} bytes that nobody has read");
    let grown = memory(&gateway).saturating_sub(before);
    assert!(grown < 16 * MIB, "{grown} bytes more");
    release.send(true).unwrap();
    assert_eq!(upload.await.unwrap().status, 200, "{:?}", rogue.complaints());
    assert_eq!(gateway.log_lines(1).await[0]["bytes_in"], LARGE);
}

#[tokio::test]
async fn pieces_are_passed_on_as_they_come() {
    let (go, gone) = tokio::sync::watch::channel(0);
    let rogue = Rogue::start(move |mut talk| {
        let mut gone = gone.clone();
        async move {
            talk.read_head().await;
            talk.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            for turn in 1..=3 {
                talk.send(format!("2\r\n#{turn}\r\n")).await;
                gone.wait_for(|seen| *seen >= turn).await.unwrap();
            }
            talk.send("0\r\n\r\n").await;
        }
    });
    let gateway = Gateway::start(&passing(rogue.addr())).await;
    let mut client = gateway.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut got = Vec::new();
    for turn in 1..=3 {
        let mark = format!("#{turn}").into_bytes();
        while !got.windows(2).any(|two| two == mark) {
            let piece = client.read_some().await;
            assert!(!piece.is_empty(), "closed before piece {turn}");
            got.extend(piece);
        }
        go.send(turn).unwrap();
    }
    while !got.ends_with(b"0\r\n\r\n") {
        got.extend(client.read_some().await);
    }
}

// === Broken answers ===

/// Shows U-06.
#[tokio::test]
async fn an_answer_that_the_service_cuts_never_looks_whole() {
    for (name, script) in [
        ("reset", rogue::reset_mid_body()),
        ("short", rogue::lying_length(rogue::Lie::Short)),
        (
            "chunked",
            rogue::script(|mut talk| async move {
                talk.read_head().await;
                talk.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n")
                    .await;
                talk.close().await;
            }),
        ),
        (
            "malformed",
            rogue::script(|mut talk| async move {
                talk.read_head().await;
                talk.send(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\nxyz\r\n",
                )
                .await;
                talk.drain().await;
            }),
        ),
    ] {
        let rogue = Rogue::start(script);
        let gateway = Gateway::start(&passing(rogue.addr())).await;
        let cut = gateway.get("/").await;
        assert_eq!(cut.status, 200, "{name}");
        assert!(!cut.complete && cut.closed && !cut.body.is_empty(), "{name}: {cut:?}");
        assert!(!cut.raw_body.ends_with(b"0\r\n\r\n"), "{name}");
        let mut h2 = client::h2c(gateway.http).await;
        let broken = h2.try_send(client::get("/")).await.map(|(head, ..)| head);
        assert!(broken.is_err(), "{name}: {broken:?}");
        let lines = gateway.log_lines(2).await;
        assert!(lines.iter().all(|line| line["reason"] == "upstream_broken"), "{name}: {lines:?}");
    }
}

/// Shows U-06.
#[tokio::test]
async fn a_cut_over_http2_is_visible_to_an_http1_client() {
    let service = H2Upstream::start(Mode::Stall(b"some".to_vec()));
    let gateway = Gateway::start(&passing_with(service.addr(), "protocol: http2,", "")).await;
    let mut client = gateway.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut got = Vec::new();
    while !got.windows(4).any(|four| four == b"some") {
        let piece = client.read_some().await;
        assert!(!piece.is_empty(), "closed before the first piece");
        got.extend(piece);
    }
    service.stop().await;
    got.extend(client.read_to_end().await);
    assert!(got.starts_with(b"HTTP/1.1 200"));
    assert!(!got.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&got));
}

// === Uploads with limits ===

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_sent_or_cut_while_it_grows() {
    let recorder = Recorder::start();
    let limit = "filters: [ { size_limit: { body: 1KiB } } ],";
    let gateway = Gateway::start(&passing_with(recorder.addr(), "", limit)).await;
    let fits = gateway.client().await.request("POST", "/", "a", &[], &[b'x'; 1024]).await;
    assert_eq!(fits.status, 200);

    let announced = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n";
    let announced = raw::exchange(gateway.http, announced).await;
    assert_eq!((announced.status, announced.closed), (413, true));
    assert_eq!(announced.json()["reason"], "body_too_large");
    assert_eq!(recorder.begun(), 1, "the service heard nothing of it");

    let mut client = gateway.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for _ in 0..3 {
        client.send(format!("200\r\n{}\r\n", "x".repeat(512))).await;
    }
    let grown = client.response().await;
    assert_eq!((grown.status, grown.json()["reason"].as_str()), (413, Some("body_too_large")));
    assert!(grown.closed);
    let seen = &recorder.wait_for(2).await[1];
    assert!(!seen.complete && seen.body.len() <= 1024, "{seen:?}");

    let mut h2 = client::h2c(gateway.http).await;
    let (head, ..) = h2.send(client::post("/", vec![b'x'; 1025])).await;
    assert_eq!(head.status.as_u16(), 413);
}

#[tokio::test]
async fn without_a_filter_the_limit_is_10_mib() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    let limit = 10 * MIB;
    let over = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", limit + 1);
    assert_eq!(raw::exchange(gateway.http, over).await.status, 413);
    assert_eq!(recorder.begun(), 0);
    let body = vec![b'x'; usize::try_from(limit).unwrap()];
    assert_eq!(gateway.client().await.request("POST", "/", "a", &[], &body).await.status, 200);
    assert_eq!(recorder.wait_for(1).await[0].body.len() as u64, limit);
}

/// Shows H1-19.
#[tokio::test]
async fn an_upload_that_stalls_is_given_up() {
    let recorder = Recorder::start();
    let gateway = hasty(&passing(recorder.addr())).await;
    let mut client = gateway.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nsome").await;
    let answer = client.response().await;
    assert_eq!((answer.status, answer.json()["reason"].as_str()), (408, Some("body_timeout")));
    assert!(answer.closed);
    let seen = &recorder.wait_for(1).await[0];
    assert_eq!((seen.text().as_str(), seen.complete), ("some", false));
    let errors = r#"sluice_upstream_errors_total{reason="upstream_timeout"}"#;
    assert_eq!(gateway.metric(errors).await, 0.0, "it was not the service's fault");

    // Slow is not stalled.
    let mut client = gateway.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 400\r\n\r\n").await;
    assert!(client.drip([b'x'; 400], Duration::from_millis(5)).await);
    assert_eq!(client.response().await.status, 200);
}

/// Shows H1-09.
#[tokio::test]
async fn a_malformed_body_is_the_clients_fault() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    let request =
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\nxyz\r\n";
    let mut client = gateway.client().await;
    client.send(request).await;
    let answer = client.response().await;
    assert_eq!((answer.status, answer.json()["reason"].as_str()), (400, Some("body_broken")));
    assert!(answer.closed);
    assert!(!recorder.wait_for(1).await[0].complete);
}

/// The service answers before it has read the body, as it may.
///
/// Shows U-16.
#[tokio::test]
async fn an_early_answer_reaches_the_client() {
    let rogue = Rogue::start(rogue::early_answer_413());
    let gateway = Gateway::start(&passing(rogue.addr())).await;
    let mut client = gateway.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n").await;
    client.send(vec![b'x'; 50_000]).await;
    let answer = client.response().await;
    assert_eq!((answer.status, answer.text().as_str()), (413, "too large"));
    drop(client);
    rogue.wait_for_open(0).await;
}

/// The rest of the upload was waited for by a task that nobody woke any more.
#[tokio::test]
async fn an_early_answer_leaves_no_upload_behind() {
    let rogue = Rogue::start(|mut talk| async move {
        talk.read_head().await;
        talk.send("HTTP/1.1 413 Large\r\nContent-Length: 2\r\n\r\nno").await;
        assert!(talk.closed_by_peer().await, "the gateway kept the connection");
    });
    let gateway = Gateway::start(&passing(rogue.addr())).await;
    let mut client = gateway.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\nsome").await;
    assert_eq!(client.response().await.status, 413);
    rogue.wait_for_open(0).await;
    let tasks = r#"sluice_tasks{kind="upstream"}"#;
    eventually("no task for the upload", async || gateway.metric(tasks).await == 0.0).await;
    assert_eq!(rogue.complaints(), Vec::<String>::new());
}

// === Clients that stall ===

#[tokio::test]
async fn a_client_that_never_finishes_its_head_is_let_go() {
    let recorder = Recorder::start();
    let gateway = hasty(&passing(recorder.addr())).await;
    let limit = Duration::from_secs(8);
    for begun in ["", "G", "GET / HTTP/1.1\r\nHo", "PRI * HTTP"] {
        let mut client = gateway.client().await;
        client.send(begun).await;
        assert!(client.closed_by_peer_within(limit).await, "{begun:?}");
    }
    let mut dripping = gateway.client().await;
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(300));
    let stayed = dripping.drip(long, Duration::from_millis(50)).await;
    assert!(!stayed, "15 s of one head");

    let mut second = gateway.client().await;
    assert_eq!(second.request("GET", "/", "a", &[], b"").await.status, 200);
    second.send("GET / HT").await;
    assert!(second.closed_by_peer_within(limit).await, "the second head of a connection");
    assert_eq!(recorder.begun(), 1);
}

/// Shows H1-21.
#[tokio::test]
async fn an_idle_connection_is_closed() {
    let recorder = Recorder::start();
    let gateway = hasty(&passing(recorder.addr())).await;
    let mut client = gateway.client().await;
    assert_eq!(client.request("GET", "/", "a", &[], b"").await.status, 200);
    assert!(client.closed_by_peer_within(Duration::from_secs(8)).await);
    let mut h2 = client::h2c(gateway.http).await;
    assert_eq!(h2.send(client::get("/")).await.0.status, 200);
    eventually("both connections to be closed", async || {
        gateway.metric("sluice_client_connections").await == 0.0
    })
    .await;
}

/// The clock of the head does not run between requests, nor that of idleness within one.
#[tokio::test]
async fn each_clock_minds_its_own_time() {
    let rogue = Rogue::start(rogue::slow_head(Duration::from_millis(40)));
    let listeners = r#"listeners:
  - { name: plain, address: "{http}", timeouts: { head: 300ms, keepalive: 8s } }
"#;
    let setup = Setup { listeners: Some(listeners), ..Setup::default() };
    let gateway = Gateway::start_with(&passing(rogue.addr()), setup).await;
    let mut client = gateway.client().await;
    assert_eq!(client.request("GET", "/", "a", &[], b"").await.text(), "ok");
    assert!(!client.closed_by_peer_within(Duration::from_secs(1)).await, "idle, not slow");
    assert_eq!(client.request("GET", "/", "a", &[], b"").await.text(), "ok");

    let gateway = hasty(&passing(rogue.addr())).await;
    let answer = gateway.get("/").await;
    assert_eq!(answer.text(), "ok", "an answer may take longer than a client may idle");
}

/// Shows H1-20.
#[tokio::test]
async fn a_client_that_never_reads_is_let_go() {
    let (rogue, sent) = large_answer();
    let gateway = hasty(&passing(rogue.addr())).await;
    let mut client = raw::Client::connect_narrow(gateway.http, 16 * 1024).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    rogue.wait_for_heads(1).await;
    rogue.wait_for_open(0).await;
    assert!(sent.load(Ordering::Relaxed) < LARGE);
    eventually("the request to end", async || {
        gateway.metric("sluice_http_requests_in_flight").await == 0.0
    })
    .await;
    assert_eq!(gateway.metric("sluice_client_aborts_total").await, 1.0);
}
