//! Logs that cannot be written: nobody waits, nothing breaks, and what is lost is counted.

use std::io::{BufRead, BufReader, Read as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use sluice_chaos::process::free_port;
use sluice_chaos::raw;

use crate::support::{Gateway, Setup, eventually};

const ROUTES: &str = "upstreams: { echo: { builtin: echo } }\n\
    routes: [ { id: all, match: { path: /** }, upstream: echo } ]\n";

fn routes(output: &str) -> String {
    format!("access_log: {{ output: {output} }}\n{ROUTES}")
}

async fn dropped(gateway: &Gateway) -> f64 {
    gateway.metric("sluice_log_dropped_total").await
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Shows F-02.
#[tokio::test]
async fn a_log_whose_reader_has_left_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let gateway = Gateway::start(&routes(pipe.to_str().unwrap())).await;
    let first_line = async || {
        let path = pipe.clone();
        let reader = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(std::fs::File::open(path).unwrap()).read_line(&mut line).unwrap();
            line
        });
        while !reader.is_finished() {
            assert_eq!(gateway.get("/x").await.status, 200);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // The reader is gone with the closure's end.
        let line: Value = serde_json::from_str(&reader.await.unwrap()).unwrap();
        assert_eq!(line["path"], "/x");
    };
    first_line().await;
    let before = dropped(&gateway).await;
    eventually("lines to be lost", async || {
        assert_eq!(gateway.get("/x").await.status, 200);
        dropped(&gateway).await > before
    })
    .await;
    first_line().await;
}

/// Shows F-02.
#[tokio::test]
async fn the_own_log_may_go_away() {
    let folder = tempfile::tempdir().unwrap();
    let (http, admin) = (free_port(), free_port());
    let path = folder.path().join("routes.yaml");
    let config = format!(
        "version: 1\nadmin: {{ address: \"127.0.0.1:{admin}\" }}\naccess_log: {{ output: stdout }}\n\
         listeners: [ {{ name: plain, address: \"127.0.0.1:{http}\" }} ]\n\
         upstreams: {{ bang: {{ builtin: panic }} }}\n\
         routes: [ {{ id: all, match: {{ path: /** }}, upstream: bang }} ]\n"
    );
    std::fs::write(&path, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(["run", "--config"]).arg(&path);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let address = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let (http, admin) = (address(http), address(admin));
    let mut said = child.stderr.take().unwrap();
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains("is serving") {
        let mut byte = [0];
        said.read_exact(&mut byte).unwrap();
        text.push(byte[0]);
    }
    // Nobody listens any more, to neither output.
    drop((said, child.stdout.take()));
    eventually("lines to be lost", async || {
        assert_eq!(raw::get(http, "localhost", "/x").await.status, 500);
        let page = raw::get(admin, "127.0.0.1", "/metrics").await.text();
        let lost = |name: &str, label: &str| {
            let is_it = |line: &&str| line.starts_with(name) && line.contains(label);
            page.lines().find(is_it).is_some_and(|line| !line.ends_with(" 0"))
        };
        lost("sluice_own_log_dropped_total", "unwritten") && lost("sluice_log_dropped_total", "")
    })
    .await;
    let pid = child.id().to_string();
    assert!(Command::new("kill").arg(&pid).status().unwrap().success());
    let ended = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    assert_eq!(ended.code(), Some(0));
}

/// Shows F-03.
#[tokio::test]
async fn a_disk_without_room_costs_lines_and_no_requests() {
    let gateway = Gateway::start(&routes("/dev/full")).await;
    let mut sent = 0.0;
    eventually("lines to be lost", async || {
        assert_eq!(gateway.get("/x").await.status, 200);
        dropped(&gateway).await > 0.0
    })
    .await;
    sent += gateway.metric("gateway_requests_by_route_total").await;
    eventually("all of them to be counted", async || dropped(&gateway).await >= sent).await;
    assert_eq!(gateway.metric("sluice_log_lines_total").await, 0.0);

    // A disk that fills up amid a batch, and has room again.
    if !is_root() {
        return;
    }
    let setup = Setup {
        by: Some(
            "mkdir \"$FOLDER/disk\"; exec unshare -m sh -c \
             'mount -t tmpfs -o size=64k none \"$FOLDER/disk\" && exec \"$@\"' sh \"$@\"",
        ),
        ..Setup::default()
    };
    let gateway = Gateway::start_with(&routes("disk/access.log"), setup).await;
    let log = format!(
        "/proc/{}/root{}/disk/access.log",
        gateway.daemon.pid(),
        gateway.folder().display()
    );
    let agent = "z".repeat(900);
    let mut client = gateway.client().await;
    while dropped(&gateway).await == 0.0 {
        for _ in 0..20 {
            let answer = client.request("GET", "/x", "a", &[("User-Agent", &agent)], b"").await;
            assert_eq!(answer.status, 200);
        }
    }
    let full = std::fs::read_to_string(&log).unwrap();
    let torn = full.lines().filter(|line| serde_json::from_str::<Value>(line).is_err()).count();
    assert!(full.len() > 32 * 1024 && torn <= 1, "{} bytes, {torn} torn", full.len());
    std::fs::OpenOptions::new().write(true).truncate(true).open(&log).unwrap();
    let lost = dropped(&gateway).await;
    eventually("lines to be written again", async || {
        gateway.get("/late").await;
        std::fs::read_to_string(&log).unwrap().contains("/late")
    })
    .await;
    let text = std::fs::read_to_string(&log).unwrap();
    let whole = |line: &str| line.is_empty() || serde_json::from_str::<Value>(line).is_ok();
    assert!(text.lines().all(whole), "{text}");
    assert!(dropped(&gateway).await >= lost);
}

/// Shows V-10.
#[tokio::test]
async fn a_storm_of_failures_makes_few_lines() {
    // It refuses TLS on its plain port at once.
    let service = Gateway::start(ROUTES).await;
    let config = format!(
        "upstreams: {{ plain: {{ endpoints: [ {{ address: \"{}\" }} ], tls: {{ server_name: localhost }} }} }}\n\
         routes: [ {{ id: all, match: {{ path: /** }}, upstream: plain }} ]\n",
        service.http
    );
    let gateway = Gateway::start(&config).await;
    let missing = "sluice_own_log_dropped_total{reason=\"repeated\"}";
    let (began, mut sent) = (Instant::now(), 0_u64);
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(gateway.client().await);
    }
    while gateway.metric(missing).await < 50.0 {
        for _ in 0..20 {
            for client in &mut clients {
                client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            }
            for client in &mut clients {
                assert_eq!(client.response().await.status, 502);
                sent += 1;
            }
        }
        assert!(sent < 50_000, "nothing was left out");
    }
    let lines = || gateway.daemon.output().matches("TLS to the upstream failed").count() as u64;
    let seconds = began.elapsed().as_secs() + 2;
    assert!(lines() <= seconds * 100, "{} lines in {seconds} s", lines());
    // When the storm is over, the next line says how much is missing.
    eventually("a line that counts", async || {
        gateway.get("/").await;
        gateway.daemon.output().contains("\"left_out\":")
    })
    .await;
    let text = gateway.daemon.output();
    let broken = text
        .lines()
        .filter(|line| line.starts_with('{'))
        .find(|line| serde_json::from_str::<Value>(line).is_err());
    assert_eq!(broken, None);
}
