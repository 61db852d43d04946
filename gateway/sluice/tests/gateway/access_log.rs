//! The access log: one line of JSON for each request, whatever the request holds and whatever
//! becomes of the log.

use std::io::{BufRead, BufReader};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use sluice_chaos::recorder::{Answer, Recorder};
use sluice_chaos::{client, raw};

use crate::support::{Gateway, Setup, eventually};

const ROUTES: &str = r#"
upstreams: { up: { endpoints: [ { address: "{up}" } ] }, echo: { builtin: echo } }
routes:
  - { id: up, match: { path: "/up/**" }, upstream: up }
  - { id: echo, match: { path: "/echo/**" }, upstream: echo }
"#;

async fn start(log: &str, recorder: &Recorder) -> Gateway {
    let config = format!("access_log: {{ output: {log} }}\n{ROUTES}");
    Gateway::start(&config.replace("{up}", &recorder.addr().to_string())).await
}

fn keys(line: &Value) -> Vec<&str> {
    line.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The line of the request with this path.
fn of<'l>(lines: &'l [Value], path: &str) -> &'l Value {
    let mut found = lines.iter().filter(|line| line["path"] == path);
    let line = found.next().unwrap_or_else(|| panic!("no line for {path} in {lines:?}"));
    assert!(found.next().is_none(), "two lines for {path}");
    line
}

#[tokio::test]
async fn each_request_has_one_line_with_all_that_is_known() {
    let recorder = Recorder::answering(Answer::new(201).body("made"));
    let gateway = start("access.log", &recorder).await;
    let mut client = gateway.client().await;
    let headers = [("User-Agent", "probe/1")];
    client.request("POST", "/up/a?secret=1", "Shop.Test:81", &headers, b"hello").await;
    client.request("GET", "/up/b", "localhost", &[], b"").await;
    client.request("GET", "/nothing", "localhost", &[], b"").await;
    client.request("HEAD", "/echo/c", "localhost", &[], b"").await;
    let mut two = client::h2c(gateway.http).await;
    two.send(client::get("/up/d")).await;
    recorder.set(Answer::ok("late").delay(Duration::from_secs(30)));
    let mut leaving = gateway.client().await;
    leaving.send("GET /up/e HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    recorder.wait_for_begun(4).await;
    leaving.reset();

    let lines = gateway.log_lines(6).await;
    assert_eq!(lines.len(), 6);
    let line = of(&lines, "/up/a");
    let mut expected = vec![
        "timestamp",
        "level",
        "msg",
        "trace_id",
        "span_id",
        "listener",
        "route",
        "upstream",
        "endpoint",
        "client_ip",
        "scheme",
        "proto",
        "host",
        "method",
        "path",
        "ua",
        "status",
        "source",
        "bytes_in",
        "bytes_out",
        "dur_ms",
        "t_gateway_ms",
        "t_connect_ms",
        "t_upstream_ms",
        "attempts",
        "reused",
    ];
    let mut found = keys(line);
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!(
        (line["listener"].as_str(), line["route"].as_str(), line["upstream"].as_str()),
        (Some("plain"), Some("up"), Some("up"))
    );
    assert_eq!(line["endpoint"], recorder.addr().to_string());
    assert_eq!((&line["client_ip"], &line["scheme"]), (&"127.0.0.1".into(), &"http".into()));
    assert_eq!((&line["host"], &line["method"]), (&"shop.test".into(), &"POST".into()));
    assert_eq!((&line["ua"], &line["proto"]), (&"probe/1".into(), &"HTTP/1.1".into()));
    assert_eq!((line["status"].as_u64(), line["source"].as_str()), (Some(201), Some("upstream")));
    assert_eq!((line["bytes_in"].as_u64(), line["bytes_out"].as_u64()), (Some(5), Some(4)));
    assert_eq!((line["attempts"].as_u64(), line["reused"].as_bool()), (Some(1), Some(false)));
    assert_eq!((&line["level"], &line["msg"]), (&"info".into(), &"request".into()));
    let stamp = line["timestamp"].as_str().unwrap();
    assert!(stamp.ends_with('Z') && stamp.len() == "2026-01-01T00:00:00.000Z".len(), "{stamp}");
    let spent =
        ["t_gateway_ms", "t_connect_ms", "t_upstream_ms"].map(|k| line[k].as_f64().unwrap());
    assert!(spent.iter().sum::<f64>() <= line["dur_ms"].as_f64().unwrap() + 0.01, "{line}");
    assert!(!line.to_string().contains("secret"), "the query is in the log");

    assert_eq!(of(&lines, "/up/b")["reused"], true);
    let missing = of(&lines, "/nothing");
    assert_eq!(
        (missing["status"].as_u64(), missing["reason"].as_str()),
        (Some(404), Some("no_route"))
    );
    assert_eq!((&missing["route"], &missing["source"]), (&"none".into(), &"gateway".into()));
    assert_eq!((missing.get("upstream"), missing["attempts"].as_u64()), (None, Some(0)));
    let head = of(&lines, "/echo/c");
    assert_eq!((head["method"].as_str(), head["bytes_out"].as_u64()), (Some("HEAD"), Some(0)));
    assert_eq!(of(&lines, "/up/d")["proto"], "HTTP/2");
    let left = of(&lines, "/up/e");
    assert_eq!(
        (left["status"].as_u64(), left["reason"].as_str()),
        (Some(499), Some("client_gone"))
    );
    assert_eq!(gateway.metric("sluice_log_lines_total").await, 6.0);
    assert_eq!(gateway.metric("sluice_log_dropped_total").await, 0.0);
}

#[tokio::test]
async fn no_caller_can_forge_or_break_a_line() {
    let recorder = Recorder::start();
    let gateway = start("access.log", &recorder).await;
    let forged = r#"x","status":200,"route":"forged"#;
    let agents = [
        forged.to_owned(),
        "\\".to_owned(),
        "\\u0000\\n{\"msg\":\"request\"}".to_owned(),
        "tab\there".to_owned(),
        "bytes \u{ff}\u{fe}\u{80} and \u{c3}\u{28}".to_owned(),
        // NEL and LINE SEPARATOR as UTF-8 bytes.
        "\u{c2}\u{85}\u{e2}\u{80}\u{a8}".to_owned(),
        "\u{ff}".repeat(3000),
        "y".repeat(5000),
    ];
    let paths = [
        "/up/%0A%7B%22msg%22%3A1%7D",
        "/up/%22%2C%22status%22%3A200",
        "/up/%5C",
        "/up/%0d%0a",
        "/up/\"quoted\"",
        "/up/%E2%80%A8",
        "/up/\\n",
    ];
    let mut sent = 0;
    for agent in &agents {
        let mut client = gateway.client().await;
        client.request("GET", "/up/agent", "localhost", &[("User-Agent", agent)], b"").await;
        sent += 1;
    }
    for path in paths {
        let bytes = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: p\r\n\r\n");
        let mut client = gateway.client().await;
        client.send(bytes).await;
        // What hyper itself refuses never was a request of ours.
        let answer = client.response().await;
        sent += usize::from(
            answer.header("content-type") == Some("application/json; charset=utf-8")
                || answer.status == 200,
        );
    }
    let lines = gateway.log_lines(sent).await;
    assert_eq!(lines.len(), sent);
    let raw = std::fs::read(gateway.folder().join("access.log")).unwrap();
    assert!(std::str::from_utf8(&raw).is_ok(), "the log is not UTF-8");
    let text = String::from_utf8(raw).unwrap();
    assert!(text.chars().all(|c| c == '\n' || !(c.is_control() || c == '\u{2028}')));
    assert!(lines.iter().all(|line| line["route"] != "forged"));
    let logged: Vec<&str> = lines.iter().filter_map(|line| line["ua"].as_str()).collect();
    for whole in &agents[..4] {
        assert!(logged.contains(&whole.as_str()), "{whole:?} is not in {logged:?}");
    }
    assert!(logged.iter().all(|ua| ua.len() <= 3 * 1024), "a long field was not cut");
    assert!(logged.contains(&"\u{85}\u{2028}"), "{logged:?}");
}

/// Shows F-04, G-03.
#[tokio::test]
async fn a_rotated_file_is_opened_anew() {
    let recorder = Recorder::start();
    let gateway = start("access.log", &recorder).await;
    let (current, rotated) =
        (gateway.folder().join("access.log"), gateway.folder().join("old.log"));
    let count = |path: &std::path::Path| {
        std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
    };
    for _ in 0..3 {
        gateway.get("/up/1").await;
    }
    gateway.log_lines(3).await;
    std::fs::rename(&current, &rotated).unwrap();
    // Until it is told, the gateway writes to the file it has.
    gateway.get("/up/2").await;
    eventually("a line in the rotated file", async || count(&rotated) == 4).await;
    assert!(!current.exists());
    gateway.daemon.signal("USR1");
    eventually("the file to be opened anew", async || {
        gateway.get("/up/3").await;
        count(&current) > 0
    })
    .await;
    eventually("every line to be written", async || {
        let written = gateway.metric("sluice_log_lines_total").await;
        let lines = gateway.metric("gateway_requests_by_route_total{route=\"up\"}").await;
        written == lines && (count(&current) + count(&rotated)) as f64 == lines
    })
    .await;
    assert_eq!(gateway.metric("sluice_log_dropped_total").await, 0.0);
}

/// Shows F-01.
#[tokio::test]
async fn a_log_that_nobody_reads_costs_lines_and_no_requests() {
    let recorder = Recorder::start();
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut gateway = start(pipe.to_str().unwrap(), &recorder).await;
    let agent = "z".repeat(1000);
    let mut client = gateway.client().await;
    let mut sent = 0.0;
    // Lines of 1.5 KB; about 2 MB may wait for the writer.
    while gateway.metric("sluice_log_dropped_total").await == 0.0 {
        for _ in 0..250 {
            let headers = [("User-Agent", &*agent)];
            let answer = client.request("GET", "/up/x", "localhost", &headers, b"").await;
            assert_eq!(answer.status, 200);
            sent += 1.0;
        }
        assert!(sent < 20_000.0, "nothing was dropped");
    }
    assert_eq!(gateway.metric("sluice_log_lines_total").await, 0.0);

    // Somebody reads again: what had waited is written, whole lines only.
    let (lines, mut arrived) = tokio::sync::mpsc::unbounded_channel();
    let path = pipe.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(std::fs::File::open(path).unwrap()).lines() {
            if lines.send(line.unwrap()).is_err() {
                return;
            }
        }
    });
    eventually("all lines to be written or dropped", async || {
        let written = gateway.metric("sluice_log_lines_total").await;
        written > 0.0 && written + gateway.metric("sluice_log_dropped_total").await == sent
    })
    .await;
    let written = gateway.metric("sluice_log_lines_total").await as usize;
    for _ in 0..written {
        let line = arrived.recv().await.unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["ua"].as_str(), Some(&*agent));
    }
    gateway.daemon.signal("TERM");
    assert_eq!(gateway.daemon.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_log_that_blocks_does_not_block_the_end() {
    let recorder = Recorder::start();
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut gateway = start(pipe.to_str().unwrap(), &recorder).await;
    assert_eq!(gateway.get("/up/x").await.status, 200);
    gateway.daemon.signal("TERM");
    assert_eq!(gateway.daemon.exit_code().await, Some(0));
}

#[tokio::test]
async fn standard_output_off_and_a_change_between_them() {
    let recorder = Recorder::start();
    let gateway = start("stdout", &recorder).await;
    gateway.get("/up/first").await;
    gateway.daemon.wait_for_output("\"path\":\"/up/first\"").await;

    let text = std::fs::read_to_string(gateway.config_path()).unwrap();
    std::fs::write(gateway.config_path(), text.replace("output: stdout", "output: off")).unwrap();
    gateway.wait_for_generation(2).await;
    eventually("the log to be off", async || {
        let before = gateway.metric("sluice_log_lines_total").await;
        assert_eq!(gateway.get("/up/second").await.status, 200);
        tokio::time::sleep(Duration::from_millis(600)).await;
        gateway.metric("sluice_log_lines_total").await == before
    })
    .await;
    assert_eq!(gateway.metric("sluice_log_dropped_total").await, 0.0);
    assert_eq!(raw::get(gateway.http, "localhost", "/echo/x").await.status, 200);

    let unknown = Setup { workers: Some(1), ..Setup::default() };
    let config = format!("access_log: {{ output: no/such/folder.log }}\n{ROUTES}");
    let config = config.replace("{up}", &recorder.addr().to_string());
    let gateway = Gateway::start_with(&config, unknown).await;
    assert_eq!(gateway.get("/up/third").await.status, 200);
    eventually("a drop", async || gateway.metric("sluice_log_dropped_total").await == 1.0).await;
    gateway.daemon.wait_for_output("cannot open the access log").await;
}
