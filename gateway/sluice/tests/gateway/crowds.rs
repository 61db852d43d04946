//! Thousands of clients that do next to nothing: what each costs, how soon it is gone, and that those
//! who ask for something are served meanwhile.

use std::process::Command;
use std::time::{Duration, Instant};

use sluice_chaos::load::Plan;
use sluice_chaos::raw::Client;
use sluice_chaos::recorder::Recorder;
use sluice_chaos::rogue::Rogue;
use sluice_chaos::ws;

use crate::configs::passing_with;
use crate::frames::{GOAWAY, HEADERS, PREFACE, SETTINGS, Talk, WHOLE, block, frame, get};
use crate::support::{Gateway, Setup, eventually, resident};

const OPEN: &str = "sluice_client_connections";
/// Code that is not optimised holds more, and a small crowd shares what a worker needs once.
const LOOSE: u64 = if cfg!(debug_assertions) { 3 } else { 1 };

const QUICK: &str = "listeners: [ { name: plain, address: \"{http}\", timeouts: \
    { handshake: 2s, head: 2s, body: 2s, write: 2s, keepalive: 2s } } ]\n";

/// What every connection of a crowd says, and what it may cost.
struct Crowd {
    name: &'static str,
    says: Vec<u8>,
    bytes_each: u64,
    gone_within: Duration,
}

fn crowds(quick: bool) -> [Crowd; 3] {
    let limit = |seconds| Duration::from_secs(if quick { 2 } else { seconds });
    [
        Crowd {
            name: "a head in part",
            says: b"GET / HTTP/1.1\r\nHost: a\r\nX-Part: 1\r\nX-".to_vec(),
            bytes_each: 10 * 1024,
            gone_within: limit(10),
        },
        Crowd {
            name: "a body in part",
            says: b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nx".to_vec(),
            bytes_each: 24 * 1024,
            gone_within: limit(30),
        },
        Crowd {
            name: "HTTP/2 at rest",
            says: [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(SETTINGS, 1, 0, &[])].concat(),
            bytes_each: 20 * 1024,
            // The farewell is waited for as long as a head.
            gone_within: limit(75) + limit(10),
        },
    ]
}

/// Lets this process, and those it starts, have as many descriptors as the machine allows.
fn many_descriptors() {
    let pid = std::process::id().to_string();
    let hard = Command::new("sh").args(["-c", "ulimit -Hn"]).output().unwrap();
    let hard = String::from_utf8(hard.stdout).unwrap();
    let limit = format!("--nofile={0}:{0}", hard.trim());
    assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
}

/// Connects so many clients, a hundred at a time, that say the same.
async fn gather(gateway: &Gateway, count: usize, says: &[u8]) -> Vec<Client> {
    let mut clients = Vec::with_capacity(count);
    while clients.len() < count {
        let mut more = Vec::new();
        for _ in 0..100.min(count - clients.len()) {
            let (address, says) = (gateway.http, says.to_vec());
            more.push(tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                client.send(says).await;
                client
            }));
        }
        for client in more {
            clients.push(client.await.unwrap());
        }
    }
    clients
}

#[expect(clippy::print_stdout, reason = "figures to quote")]
async fn stand(count: usize, quick: bool) {
    many_descriptors();
    let recorder = Recorder::start();
    let upstream = "keepalive: { max_connections: 20000 },";
    for crowd in crowds(quick) {
        let listeners = quick.then_some(QUICK);
        let setup = Setup { listeners, ..Setup::default() };
        // Who asks for something has a service that no crowd can overrun.
        let config = passing_with(recorder.addr(), upstream, "")
            .replace("upstreams:\n", "upstreams:\n  echo: { builtin: echo }\n")
            .replace(
                "routes:\n",
                "routes:\n  - { id: good, match: { path: /good }, upstream: echo }\n",
            );
        let gateway = Gateway::start_with(&config, setup).await;
        for path in ["/", "/good"] {
            assert_eq!(gateway.get(path).await.status, 200);
        }
        let before = resident(&gateway);
        let wait = crowd.gone_within * 2 + Duration::from_secs(30);
        let good = Plan::new(gateway.http, "/good").per_second(50).duration(wait).start();
        let clients = gather(&gateway, count, &crowd.says).await;
        let complete = Instant::now();
        eventually("all to be seen", async || gateway.metric(OPEN).await >= count as f64 * 0.99)
            .await;
        // What was needed only to begin is given back within a second.
        let mut each = u64::MAX;
        while complete.elapsed() < Duration::from_secs(2) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let grown = resident(&gateway).saturating_sub(before);
            if gateway.metric(OPEN).await >= count as f64 * 0.9 {
                each = each.min(grown / count as u64);
            }
        }
        // Some are left to those who ask for something.
        while gateway.metric(OPEN).await > 20.0 && complete.elapsed() < wait {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let gone = complete.elapsed();
        let good = good.stop().await;
        println!(
            "{count} times {}: {each} bytes each, gone after {:.1} s; {} others served, half within \
             {:?}, 99 % within {:?}, all within {:?}",
            crowd.name,
            gone.as_secs_f64(),
            good.ok,
            good.quantile(0.5),
            good.quantile(0.99),
            good.quantile(1.0),
        );
        assert!(each <= crowd.bytes_each * LOOSE, "{}: {each} bytes each", crowd.name);
        assert!(gone < crowd.gone_within * 3 / 2 + Duration::from_secs(5), "{}", crowd.name);
        assert_eq!((good.failed, good.ok), (0, good.sent), "{}: {good:?}", crowd.name);
        drop(clients);
    }
}

/// Shows H2-10.
#[tokio::test]
async fn e_03_hundreds_of_slow_clients_cost_little_and_nobody_else() {
    stand(300, true).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "second tier: cargo xtask soak"]
async fn long_five_thousand_slow_clients_cost_little_and_nobody_else() {
    stand(5_000, false).await;
}

#[tokio::test]
async fn h2_10_a_connection_at_rest_is_told_to_leave() {
    let recorder = Recorder::start();
    let listeners = "listeners: [ { name: plain, address: \"{http}\", timeouts: { keepalive: 1s, head: 2s } } ]\n";
    let setup = Setup { listeners: Some(listeners), ..Setup::default() };
    let gateway = Gateway::start_with(&passing_with(recorder.addr(), "", ""), setup).await;
    let (mut never, mut once) = (Talk::begin(&gateway).await, Talk::begin(&gateway).await);
    once.say(&frame(HEADERS, WHOLE, 1, &block(&get(&[])))).await;
    assert!(once.until(HEADERS).await.is_some());
    for talk in [&mut never, &mut once] {
        assert_eq!(talk.until(GOAWAY).await.expect("GOAWAY").error(), Some(0));
    }
    eventually("both to be gone", async || gateway.metric(OPEN).await == 0.0).await;
}

/// Longer than others wait: by default a client is asked for a sign of life after half a minute.
///
/// Shows H2-10.
#[tokio::test]
#[ignore = "second tier: cargo xtask soak"]
async fn long_who_does_not_answer_a_ping_is_gone() {
    const PING: u8 = 6;
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing_with(recorder.addr(), "", "")).await;
    let mut talk = Talk::begin(&gateway).await;
    talk.say(&frame(SETTINGS, 1, 0, &[])).await;
    let begun = Instant::now();
    let mut pinged = None;
    while gateway.metric(OPEN).await > 0.0 && begun.elapsed() < Duration::from_secs(60) {
        if let Some(frame) = talk.next().await
            && frame.kind == PING
        {
            pinged = Some(begun.elapsed());
        }
    }
    assert!(pinged.is_some_and(|after| after < Duration::from_secs(40)), "{pinged:?}");
    assert!(begun.elapsed() < Duration::from_secs(55), "long before it would be idle for too long");
}

/// Sends as much as is taken, to whoever asks for a WebSocket.
fn talkative() -> Rogue {
    Rogue::start(|mut talk| async move {
        let head = talk.read_head().await;
        let key = head.header("sec-websocket-key").unwrap_or_default();
        let accept = ws::accept_key(key);
        talk.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        ))
        .await;
        while talk.send(&[0; 16 * 1024]).await {}
    })
}

#[expect(clippy::print_stdout, reason = "a figure to quote")]
async fn tunnels(count: usize) {
    many_descriptors();
    let rogue = talkative();
    // A thousand services that send as fast as they can share the test's own processor: a connect takes
    // its time.
    let upstream = format!(
        "keepalive: {{ max_connections: {count}, max_wait: 100ms }}, \
         timeouts: {{ connect: 30s, total: 50s }},"
    );
    let config = passing_with(rogue.addr(), &upstream, "websocket: true,");
    let gateway = Gateway::start(&config).await;
    let before = resident(&gateway);
    let head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut readers = Vec::new();
    for _ in 0..count {
        // A narrow one, so that the kernel does not take all of it.
        let mut client = Client::connect_narrow(gateway.http, 4 * 1024).await;
        client.send(head).await;
        readers.push(client);
    }
    let open = count as f64;
    eventually("the tunnels", async || {
        gateway.metric("sluice_websocket_connections").await == open
    })
    .await;
    let mut most = 0;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        most = most.max(resident(&gateway).saturating_sub(before) / count as u64);
    }
    println!("{count} tunnels whose clients do not read: {most} bytes each");
    // Two buffers of 16 KiB, and what a connection needs on both sides.
    assert!(most < 48 * 1024 * LOOSE, "{most} bytes for a tunnel");
    let refused = gateway.get("/").await;
    assert_eq!((refused.status, refused.json()["reason"].as_str()), (503, Some("pool_exhausted")));
    // They still live.
    for reader in readers.iter_mut().take(20) {
        assert_eq!(reader.response().await.status, 101);
        assert_eq!(reader.read_exactly(100_000).await.len(), 100_000);
    }
    drop(readers);
    eventually("the tunnels to end", async || {
        gateway.metric("sluice_websocket_connections").await == 0.0
    })
    .await;
}

#[tokio::test]
async fn w_07_tunnels_have_small_buffers_and_a_number() {
    tunnels(150).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "second tier: cargo xtask soak"]
async fn long_a_thousand_tunnels_have_small_buffers_and_a_number() {
    tunnels(1_000).await;
}
