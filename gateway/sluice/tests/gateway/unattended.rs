//! Writes whose client leaves before the answer: they are finished, within bounds, and everything else is
//! cancelled as before. The service says whether its connection broke.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use sluice_chaos::client;
use sluice_chaos::h2up::{H2Upstream, Mode};
use sluice_chaos::rogue::Rogue;
use tokio::sync::watch;

use crate::configs::{passing, passing_with};
use crate::support::{Gateway, Setup, eventually};

const OPEN: &str = "sluice_unattended_requests";

/// A service that answers when it is told to, and notes who breaks off before.
struct Slow {
    rogue: Rogue,
    go: watch::Sender<bool>,
    asked: Arc<AtomicUsize>,
    broken: Arc<AtomicUsize>,
}

impl Slow {
    fn start() -> Self {
        Self::answering("HTTP/1.1 201 Created\r\nContent-Length: 4\r\n\r\ndone")
    }

    fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let (answer, go) = (Arc::<[u8]>::from(answer.into()), watch::Sender::new(false));
        let (asked, broken) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (gone, heard, wait) = (Arc::clone(&broken), Arc::clone(&asked), go.clone());
        let rogue = Rogue::start(move |mut talk| {
            let (answer, gone, heard) =
                (Arc::clone(&answer), Arc::clone(&gone), Arc::clone(&heard));
            let mut wait = wait.subscribe();
            async move {
                while let Some(head) = talk.next_head().await {
                    talk.read_body(&head).await;
                    heard.fetch_add(1, Ordering::SeqCst);
                    tokio::select! {
                        went = wait.wait_for(|go| *go) => drop(went.unwrap()),
                        left = talk.closed_by_peer() => {
                            gone.fetch_add(usize::from(left), Ordering::SeqCst);
                            return;
                        }
                    }
                    if answer.is_empty() || !talk.send(&answer).await {
                        return;
                    }
                }
            }
        });
        Self { rogue, go, asked, broken }
    }

    /// Waits until it has so many requests whole.
    async fn wait_for(&self, asked: usize) {
        eventually("whole requests", async || self.asked.load(Ordering::SeqCst) >= asked).await;
    }

    async fn wait_for_broken(&self, broken: usize) {
        eventually("broken connections", async || self.broken() >= broken).await;
    }

    fn answer(&self) {
        self.go.send_replace(true);
    }

    fn hold(&self) {
        self.go.send_replace(false);
    }

    fn broken(&self) -> usize {
        self.broken.load(Ordering::SeqCst)
    }
}

async fn one_worker(config: &str) -> Gateway {
    Gateway::start_with(config, Setup { workers: Some(1), ..Setup::default() }).await
}

async fn open(gateway: &Gateway, wanted: f64) {
    eventually("requests without clients", async || gateway.metric(OPEN).await == wanted).await;
}

async fn became(gateway: &Gateway, outcome: &str) -> f64 {
    gateway.metric(&format!("{OPEN}_total{{outcome=\"{outcome}\"}}")).await
}

/// Sends a request, and leaves when the service has it, as its `nth`.
async fn send_and_leave(gateway: &Gateway, slow: &Slow, request: &str, nth: usize) {
    let mut client = gateway.client().await;
    client.send(request).await;
    slow.wait_for(nth).await;
    drop(client);
}

fn post(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\npay")
}

/// To the client it was over when it left, and what became of it is beside that.
fn told(line: &Value, word: &str, status: Option<u16>) {
    let said = ["status", "reason", "source", "bytes_out", "unattended", "unattended_status"];
    let said = said.map(|name| line[name].clone());
    let status = status.map_or(Value::Null, Value::from);
    let expected =
        [499.into(), "client_gone".into(), "gateway".into(), 0.into(), word.into(), status];
    assert_eq!(said, expected, "{line}");
}

/// Nothing is left of them that anybody counts.
async fn nothing_left(gateway: &Gateway) {
    for gauge in [
        OPEN,
        r#"sluice_tasks{kind="unattended"}"#,
        "sluice_http_requests_in_flight",
        "sluice_endpoint_requests_in_flight",
    ] {
        eventually(&format!("{gauge} to be 0"), async || gateway.metric(gauge).await == 0.0).await;
    }
}

#[tokio::test]
async fn a_write_that_the_service_has_is_finished() {
    let slow = Slow::start();
    let gateway = one_worker(&passing(slow.rogue.addr())).await;
    let writes = [
        post("/"),
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\npay\r\n0\r\n\r\n"
            .into(),
        "DELETE / HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".into(),
    ];
    for (at, write) in writes.iter().enumerate() {
        slow.hold();
        send_and_leave(&gateway, &slow, write, at + 1).await;
        open(&gateway, 1.0).await;
        eventually("the connection to end", async || {
            gateway.metric("sluice_client_connections").await == 0.0
        })
        .await;
        assert_eq!(gateway.metric("sluice_endpoint_requests_in_flight").await, 1.0);
        slow.answer();
        nothing_left(&gateway).await;
        told(&gateway.log_lines(at + 1).await[at], "answered", Some(201));
    }
    assert_eq!((slow.broken(), slow.rogue.connections()), (0, 1), "one connection served all");
    assert_eq!(became(&gateway, "answered").await, 4.0);
    let answers = r#"http_client_requests_total{upstream="service",class="2xx"}"#;
    assert_eq!(gateway.metric(answers).await, 4.0);
    assert_eq!(gateway.metric(r#"http_requests_total{status="499"}"#).await, 4.0);
    assert_eq!(gateway.metric("sluice_client_aborts_total").await, 4.0);
    assert_eq!(gateway.get("/").await.status, 201, "and goes on to serve");
    assert_eq!(slow.rogue.connections(), 1);
}

#[tokio::test]
async fn an_http2_stream_or_connection_that_ends_leaves_its_write_behind() {
    let slow = Slow::start();
    let gateway = one_worker(&passing(slow.rogue.addr())).await;
    let mut h2 = client::h2c(gateway.http).await;
    tokio::select! {
        _ = h2.try_start(client::post("/", "pay")) => panic!("nobody answers"),
        () = slow.wait_for(1) => {}
    }
    open(&gateway, 1.0).await;
    assert_eq!(gateway.metric("sluice_client_connections").await, 1.0, "only the stream ended");
    let waiting = {
        let mut h2 = h2.another();
        tokio::spawn(async move { h2.try_start(client::post("/", "pay")).await.is_err() })
    };
    slow.wait_for(2).await;
    h2.cut();
    assert!(waiting.await.unwrap());
    open(&gateway, 2.0).await;
    slow.answer();
    nothing_left(&gateway).await;
    assert_eq!(slow.broken(), 0);
    for line in gateway.log_lines(2).await {
        told(&line, "answered", Some(201));
    }
}

#[tokio::test]
async fn reads_and_what_may_not_be_finished_end_with_their_clients() {
    let slow = Slow::start();
    let config = format!(
        r#"
upstreams:
  finishes: {{ endpoints: [ {{ address: "{service}" }} ] }}
  cancels: {{ on_client_abort: cancel, endpoints: [ {{ address: "{service}" }} ] }}
routes:
  - {{ id: plain, match: {{ path: /plain }}, upstream: finishes }}
  - {{ id: own, match: {{ path: /own }}, on_client_abort: cancel, upstream: finishes }}
  - {{ id: upstreams, match: {{ path: /upstreams }}, upstream: cancels }}
  - {{ id: stream, match: {{ path: /stream }}, streaming: true, upstream: finishes }}
  - {{ id: back, match: {{ path: /back }}, on_client_abort: finish, upstream: cancels }}
"#,
        service = slow.rogue.addr()
    );
    let gateway = one_worker(&config).await;
    let cancelled = [
        "GET /plain HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "OPTIONS /plain HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        post("/own"),
        post("/upstreams"),
        post("/stream"),
        post("/plain").replace("\r\n\r\n", "\r\nContent-Type: application/grpc\r\n\r\n"),
    ];
    for (at, request) in cancelled.iter().enumerate() {
        send_and_leave(&gateway, &slow, request, at + 1).await;
        slow.wait_for_broken(at + 1).await;
        let line = gateway.log_lines(at + 1).await.remove(at);
        assert_eq!((&line["status"], &line["unattended"]), (&499.into(), &Value::Null), "{line}");
    }
    send_and_leave(&gateway, &slow, &post("/back"), cancelled.len() + 1).await;
    open(&gateway, 1.0).await;
    slow.answer();
    nothing_left(&gateway).await;
    assert_eq!(slow.broken(), cancelled.len());
    assert_eq!((became(&gateway, "answered").await, became(&gateway, "refused").await), (1.0, 0.0));
}

/// Shows H1-30.
#[tokio::test]
async fn h1_30_no_write_outlasts_the_time_of_its_route() {
    let slow = Slow::start();
    let silent = H2Upstream::start(Mode::Silent);
    let config = format!(
        r#"
upstreams:
  one: {{ endpoints: [ {{ address: "{}" }} ] }}
  two: {{ protocol: http2, endpoints: [ {{ address: "{}" }} ] }}
routes:
  - {{ id: one, match: {{ path: /one }}, timeout: 1500ms, upstream: one }}
  - {{ id: two, match: {{ path: /two }}, timeout: 1500ms, upstream: two }}
"#,
        slow.rogue.addr(),
        silent.addr()
    );
    let gateway = one_worker(&config).await;
    send_and_leave(&gateway, &slow, &post("/one"), 1).await;
    let mut client = gateway.client().await;
    client.send(post("/two")).await;
    silent.wait_for(1).await;
    drop(client);
    slow.wait_for_broken(1).await;
    assert_eq!(silent.wait_for_resets(1).await.len(), 1);
    nothing_left(&gateway).await;
    for line in gateway.log_lines(2).await {
        told(&line, "upstream_timeout", None);
        let lasted = line["dur_ms"].as_f64().unwrap() + line["unattended_ms"].as_f64().unwrap();
        assert!(lasted >= 1500.0, "{line}");
    }
    assert_eq!(became(&gateway, "failed").await, 2.0);
    let failed = r#"sluice_upstream_errors_total{reason="upstream_timeout"}"#;
    assert_eq!(gateway.metric(failed).await, 2.0, "the services are blamed for it");
}

/// Shows H1-30.
#[tokio::test]
async fn h1_30_beyond_so_many_they_are_cancelled() {
    let slow = Slow::start();
    let config =
        |most: usize| format!("overload: {{ unattended: {most} }}\n{}", passing(slow.rogue.addr()));
    let gateway = one_worker(&config(2)).await;
    for nth in 1..=3 {
        send_and_leave(&gateway, &slow, &post("/"), nth).await;
        if nth < 3 {
            open(&gateway, nth as f64).await;
        }
    }
    slow.wait_for_broken(1).await;
    assert_eq!((became(&gateway, "refused").await, slow.broken()), (1.0, 1));
    slow.answer();
    nothing_left(&gateway).await;
    assert_eq!((became(&gateway, "answered").await, slow.broken()), (2.0, 1));

    slow.hold();
    gateway.write_config(&config(0));
    gateway.wait_for_generation(2).await;
    send_and_leave(&gateway, &slow, &post("/"), 4).await;
    slow.wait_for_broken(2).await;
    assert_eq!(became(&gateway, "refused").await, 2.0);
    nothing_left(&gateway).await;
}

/// Shows H1-30.
#[tokio::test]
async fn h1_30_of_an_answer_that_nobody_gets_not_much_is_read() {
    let mut endless = b"HTTP/1.1 200 OK\r\nContent-Length: 16777216\r\n\r\n".to_vec();
    endless.resize(16 * 1024 * 1024, b'x');
    let slow = Slow::answering(endless);
    let gateway = one_worker(&passing(slow.rogue.addr())).await;
    send_and_leave(&gateway, &slow, &post("/"), 1).await;
    open(&gateway, 1.0).await;
    slow.answer();
    nothing_left(&gateway).await;
    told(&gateway.log_lines(1).await[0], "cut", Some(200));
    assert_eq!(became(&gateway, "cut").await, 1.0);
    assert_eq!(gateway.metric(r#"sluice_pool_closed_total{reason="abandoned"}"#).await, 1.0);
}

#[tokio::test]
async fn without_its_client_nothing_is_tried_again_and_nobody_stands_in() {
    let refused = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
    for (answer, word, status) in [(refused, "answered", Some(503)), ("", "upstream_reset", None)] {
        let slow = Slow::answering(answer);
        let route = "retries: { attempts: 3, idempotent: true, statuses: [503] }, \
            fallback: { on: [reset], respond: { status: 200, body: sorry } },";
        let gateway = one_worker(&passing_with(slow.rogue.addr(), "", route)).await;
        send_and_leave(&gateway, &slow, &post("/"), 1).await;
        open(&gateway, 1.0).await;
        slow.answer();
        nothing_left(&gateway).await;
        let line = gateway.log_lines(1).await.remove(0);
        told(&line, word, status);
        assert_eq!((&line["attempts"], &line["fallback"]), (&1.into(), &Value::Null), "{line}");
        assert_eq!(slow.rogue.heads().len(), 1);
        // With its client it is, and after a reset, for which there is nobody else to ask, somebody stands in.
        let mut client = gateway.client().await;
        client.send(post("/")).await;
        let (expected, heads) = if status.is_some() { (503, 4) } else { (200, 2) };
        assert_eq!(client.response().await.status, expected);
        assert_eq!(slow.rogue.heads().len(), heads);
    }
}

#[tokio::test]
async fn a_breaker_hears_what_came_of_it() {
    let slow = Slow::answering("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
    let breaker = "breaker: { consecutive_failures: 1, open_for: 60s },";
    let gateway = one_worker(&passing_with(slow.rogue.addr(), breaker, "")).await;
    send_and_leave(&gateway, &slow, &post("/"), 1).await;
    open(&gateway, 1.0).await;
    slow.answer();
    nothing_left(&gateway).await;
    assert_eq!(gateway.get("/").await.json()["reason"], "breaker_open");
    assert_eq!(slow.rogue.heads().len(), 1);
}

#[tokio::test]
async fn it_keeps_its_place_until_it_is_over() {
    let slow = Slow::start();
    let route = "bulkhead: { requests: 1, queue: 0 },";
    let gateway = one_worker(&passing_with(slow.rogue.addr(), "", route)).await;
    send_and_leave(&gateway, &slow, &post("/"), 1).await;
    open(&gateway, 1.0).await;
    let refused = gateway.get("/").await;
    assert_eq!((refused.status, refused.json()["reason"].as_str()), (503, Some("bulkhead_full")));
    slow.answer();
    nothing_left(&gateway).await;
    assert_eq!(gateway.get("/").await.status, 201);
}

#[tokio::test]
async fn a_batch_leaves_the_writes_behind_that_were_made() {
    let slow = Slow::start();
    let config = format!(
        r#"
upstreams:
  service: {{ endpoints: [ {{ address: "{}" }} ] }}
  batch: {{ builtin: batch }}
routes:
  - {{ id: batch, match: {{ path: /batch }}, upstream: batch }}
  - {{ id: all, match: {{ path: "/**" }}, batch: all, upstream: service }}
"#,
        slow.rogue.addr()
    );
    let gateway = one_worker(&config).await;
    let calls = r#"{"requests":[{"id":"w","method":"POST","path":"/w","body":{"a":1}},{"id":"r","path":"/r"}]}"#;
    let head = "POST /batch HTTP/1.1\r\nHost: a\r\nContent-Type: application/json";
    let request = format!("{head}\r\nContent-Length: {}\r\n\r\n{calls}", calls.len());
    send_and_leave(&gateway, &slow, &request, 2).await;
    open(&gateway, 1.0).await;
    slow.wait_for_broken(1).await;
    slow.answer();
    nothing_left(&gateway).await;
    assert_eq!(slow.broken(), 1, "the read");
    let lines = gateway.log_lines(3).await;
    let write = lines.iter().find(|line| line["path"] == "/w").unwrap();
    told(write, "answered", Some(201));
}

#[tokio::test]
async fn the_gateway_stops_when_they_are_over() {
    let slow = Slow::start();
    let config = format!("shutdown: {{ delay: 0s, grace: 20s }}\n{}", passing(slow.rogue.addr()));
    let mut gateway = one_worker(&config).await;
    send_and_leave(&gateway, &slow, &post("/"), 1).await;
    open(&gateway, 1.0).await;
    gateway.daemon.signal("TERM");
    eventually("the listener to close", async || {
        sluice_chaos::raw::Client::try_connect(gateway.http).await.is_err()
    })
    .await;
    assert_eq!(gateway.metric(OPEN).await, 1.0);
    slow.answer();
    assert_eq!(gateway.daemon.exit_code().await, Some(0));
    let log = std::fs::read_to_string(gateway.folder().join("access.log")).unwrap();
    told(&serde_json::from_str(log.trim()).unwrap(), "answered", Some(201));
    assert!(!gateway.daemon.output().contains("cut at the end"), "{}", gateway.daemon.output());
    assert_eq!(slow.broken(), 0);
}

/// Shows G-06.
#[tokio::test]
async fn the_gateway_waits_for_them_no_longer_than_for_others() {
    let slow = Slow::start();
    let config = format!("shutdown: {{ delay: 0s, grace: 500ms }}\n{}", passing(slow.rogue.addr()));
    let mut gateway = one_worker(&config).await;
    send_and_leave(&gateway, &slow, &post("/"), 1).await;
    open(&gateway, 1.0).await;
    // Its client is there until the end, when nothing may begin any more.
    let mut client = gateway.client().await;
    client.send(post("/")).await;
    slow.wait_for(2).await;
    gateway.daemon.signal("TERM");
    assert_eq!(gateway.daemon.exit_code().await, Some(0));
    slow.wait_for_broken(2).await;
    let said = gateway.daemon.output();
    assert!(said.contains("\"connections\":2") && !said.contains("panic"), "{said}");
}
