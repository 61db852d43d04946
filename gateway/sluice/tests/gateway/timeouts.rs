//! How long a service may take, phase by phase, and that no limit can be switched off.

use std::process::Command;
use std::time::{Duration, Instant};

use sluice_chaos::client;
use sluice_chaos::h2up::{H2Upstream, Mode};
use sluice_chaos::raw;
use sluice_chaos::recorder::{Answer, Recorder};
use sluice_chaos::rogue::{self, Rogue};

use crate::configs::passing_with;
use crate::support::{Gateway, Setup, eventually};

async fn expect(gateway: &Gateway, status: u16, reason: &str) -> raw::Response {
    let answer = gateway.get("/").await;
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.json()["reason"], reason);
    answer
}

/// Shows U-02.
#[tokio::test]
async fn connecting() {
    let deaf = Rogue::deaf();
    let config = passing_with(deaf.addr(), "timeouts: { connect: 200ms },", "");
    let gateway = Gateway::start(&config).await;
    let answer = expect(&gateway, 504, "connect_timeout").await;
    assert_eq!(answer.header("proxy-status"), Some("sluice; error=connection_timeout"));
    let lines = gateway.log_lines(1).await;
    assert!(lines[0]["dur_ms"].as_f64().unwrap() >= 200.0, "{lines:?}");
    assert_eq!(lines[0]["attempts"], 1, "there is no other endpoint");
}

/// Calls share one HTTP/2 connection, and so its making; they must not queue up for one attempt each.
#[tokio::test]
async fn many_calls_that_wait_for_one_connection() {
    let deaf = Rogue::deaf();
    let config = passing_with(deaf.addr(), "protocol: http2, timeouts: { connect: 500ms },", "");
    let setup = Setup { workers: Some(1), ..Setup::default() };
    let gateway = Gateway::start_with(&config, setup).await;
    let calls: Vec<_> = (0..40)
        .map(|_| {
            let addr = gateway.http;
            tokio::spawn(async move { raw::get(addr, "a", "/").await })
        })
        .collect();
    let start = Instant::now();
    for call in calls {
        let answer = call.await.unwrap();
        assert_eq!(
            (answer.status, answer.json()["reason"].as_str()),
            (504, Some("connect_timeout"))
        );
    }
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}

/// Shows U-02.
#[tokio::test]
async fn connecting_to_another_endpoint_instead() {
    let (deaf, recorder) = (Rogue::deaf(), Recorder::start());
    let config = format!(
        "upstreams:\n  service: {{ timeouts: {{ connect: 200ms }}, endpoints: [ {{ address: \"{}\" }}, {{ address: \"{}\" }} ] }}\nroutes: [ {{ id: all, upstream: service }} ]\n",
        deaf.addr(),
        recorder.addr()
    );
    let gateway = Gateway::start(&config).await;
    for _ in 0..4 {
        let answer = gateway.client().await.request("POST", "/", "a", &[], b"whole").await;
        assert_eq!(answer.status, 200);
    }
    assert!(recorder.wait_for(4).await.iter().all(|request| request.text() == "whole"));
}

/// Shows U-03, U-14.
#[tokio::test]
async fn the_head_of_the_answer() {
    for script in [rogue::black_hole(), rogue::slow_head(Duration::from_millis(50))] {
        let rogue = Rogue::start(script);
        let config = passing_with(rogue.addr(), "timeouts: { head: 300ms },", "");
        let gateway = Gateway::start(&config).await;
        let answer = expect(&gateway, 504, "upstream_timeout").await;
        assert_eq!(answer.header("proxy-status"), Some("sluice; error=http_response_timeout"));
        assert_eq!(rogue.connections(), 1, "a slow answer is not asked for twice");
        eventually("the connection to be given up", async || {
            gateway.metric(r#"sluice_pool_connections{upstream="service"}"#).await == 0.0
        })
        .await;
    }
}

#[tokio::test]
async fn the_head_of_an_answer_over_http2() {
    let service = H2Upstream::start(Mode::Silent);
    let config = passing_with(service.addr(), "protocol: http2, timeouts: { head: 300ms },", "");
    let gateway = Gateway::start(&config).await;
    expect(&gateway, 504, "upstream_timeout").await;
    assert_eq!(service.wait_for_resets(1).await.len(), 1, "the stream is given up");
    service.set(Mode::Answer(200, b"well again".to_vec()));
    assert_eq!(gateway.get("/").await.text(), "well again");
}

/// `head` alone would allow 20s after the second s of connecting in vain.
#[tokio::test]
async fn all_attempts_together() {
    let (deaf, hole) = (Rogue::deaf(), Rogue::start(rogue::black_hole()));
    let config = format!(
        "upstreams:\n  service: {{ timeouts: {{ connect: 1s, head: 20s, total: 2s }}, endpoints: [ {{ address: \"{}\" }}, {{ address: \"{}\" }} ] }}\nroutes: [ {{ id: all, upstream: service }} ]\n",
        deaf.addr(),
        hole.addr()
    );
    let setup = Setup { workers: Some(1), ..Setup::default() };
    let gateway = Gateway::start_with(&config, setup).await;
    let start = Instant::now();
    for _ in 0..2 {
        expect(&gateway, 504, "upstream_timeout").await;
    }
    assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
    let lines = gateway.log_lines(2).await;
    assert!(lines.iter().any(|line| line["attempts"] == 2), "{lines:?}");
    assert!(lines.iter().all(|line| line["dur_ms"].as_f64().unwrap() >= 2000.0), "{lines:?}");
}

/// Shows U-14.
#[tokio::test]
async fn pauses_within_the_answer() {
    for part in
        ["Content-Length: 100\r\n\r\nsome", "Transfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n"]
    {
        let rogue = Rogue::start(move |mut talk| async move {
            talk.read_head().await;
            talk.send(format!("HTTP/1.1 200 OK\r\n{part}")).await;
            assert!(talk.closed_by_peer().await, "the gateway kept the connection");
        });
        let config = passing_with(rogue.addr(), "timeouts: { idle: 300ms },", "");
        let gateway = Gateway::start(&config).await;
        let cut = gateway.get("/").await;
        assert_eq!((cut.status, cut.text().as_str()), (200, "some"));
        assert!(!cut.complete && cut.closed, "{cut:?}");
        assert_eq!(gateway.log_lines(1).await[0]["reason"], "upstream_broken");

        let mut h2 = client::h2c(gateway.http).await;
        let broken = h2.try_send(client::get("/")).await.expect_err("the stream is reset");
        assert!(broken.contains("stream error") || broken.contains("reset"), "{broken}");
        rogue.wait_for_open(0).await;
        assert_eq!(rogue.complaints(), Vec::<String>::new());
    }
}

/// The limits are on pauses, not on the whole.
#[tokio::test]
async fn a_slow_answer_without_long_pauses_is_whole() {
    let rogue = Rogue::start(rogue::slow_body(Duration::from_millis(15)));
    let config = passing_with(rogue.addr(), "timeouts: { idle: 1s, total: 1s },", "");
    let gateway = Gateway::start(&config).await;
    let start = Instant::now();
    let answer = gateway.get("/").await;
    assert_eq!((answer.status, answer.body.len(), answer.complete), (200, 100, true));
    assert!(start.elapsed() > Duration::from_secs(1), "it took longer than any one limit");
}

#[tokio::test]
async fn streaming_routes_have_no_total() {
    let recorder = Recorder::answering(Answer::ok("late").delay(Duration::from_millis(1500)));
    let timeouts = "timeouts: { total: 300ms },";
    let gateway = Gateway::start(&passing_with(recorder.addr(), timeouts, "")).await;
    expect(&gateway, 504, "upstream_timeout").await;
    let gateway =
        Gateway::start(&passing_with(recorder.addr(), timeouts, "streaming: true,")).await;
    assert_eq!(gateway.get("/").await.text(), "late");
}

#[tokio::test]
async fn no_limit_can_be_switched_off() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("routes.yaml");
    let check = |listener: &str, upstream: &str| {
        let config = format!(
            "version: 1\nlisteners: [ {{ name: a, address: \"127.0.0.1:1\"{listener} }} ]\nupstreams: {{ s: {{ endpoints: [ {{ address: \"127.0.0.1:2\" }} ]{upstream} }} }}\nroutes: [ {{ id: r, upstream: s }} ]\n"
        );
        std::fs::write(&path, config).unwrap();
        let ran = Command::new(env!("CARGO_BIN_EXE_sluice"))
            .args(["check", "--config"])
            .arg(&path)
            .output()
            .unwrap();
        let said = [ran.stdout, ran.stderr].concat();
        (ran.status.success(), String::from_utf8(said).unwrap())
    };
    let (fine, said) = check("", "");
    assert!(fine, "{said}");
    for name in ["connect", "head", "total", "idle"] {
        for off in ["0s", "2h", "0", "off"] {
            let (fine, said) = check("", &format!(", timeouts: {{ {name}: {off} }}"));
            assert!(!fine && said.contains(name), "{name}: {off}: {said}");
        }
    }
    for name in ["handshake", "head", "body", "write", "keepalive"] {
        for off in ["0s", "25h", "0", "off"] {
            let (fine, said) = check(&format!(", timeouts: {{ {name}: {off} }}"), "");
            assert!(!fine && said.contains(name), "{name}: {off}: {said}");
        }
    }
}
