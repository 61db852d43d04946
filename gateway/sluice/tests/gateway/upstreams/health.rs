//! Health: how endpoints are asked, and the votes about each of them, which know nothing of one another.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use sluice_chaos::h2up::{H2Upstream, Mode};
use sluice_chaos::process::{Daemon, Ready, free_port, tool};
use sluice_chaos::recorder::{Answer, Recorder};
use sluice_chaos::rogue::Rogue;

use super::{served, start};
use crate::support::{Gateway, eventually};

/// What `/upstreams` says of an endpoint's vote, as `vote: why`.
async fn said(gateway: &Gateway, endpoint: usize, vote: &str) -> String {
    let page = gateway.admin("/upstreams").await.json();
    let vote = &page["up"]["endpoints"][endpoint]["votes"][vote];
    format!("{}: {}", vote["vote"].as_str().unwrap(), vote["why"].as_str().unwrap())
}

async fn becomes(gateway: &Gateway, endpoint: usize, vote: &str, wanted: &str) {
    eventually(wanted, async || said(gateway, endpoint, vote).await.starts_with(wanted)).await;
}

#[tokio::test]
async fn connections_alone_can_be_asked_for() {
    let (stays, goes) = (Recorder::start(), Recorder::start());
    let upstream = r#"{ endpoints: [ { address: "{0}" }, { address: "{1}" } ],
        health_check: { tcp: true, interval: 50ms, jitter: 0%, fall: 2 } }"#;
    let gateway = start(2, upstream, &[&stays, &goes]).await;
    becomes(&gateway, 1, "health_check", "for: well").await;
    let address = goes.addr();
    goes.stop().await;
    becomes(&gateway, 1, "health_check", "against: Connection refused").await;
    for _ in 0..6 {
        assert_eq!(gateway.get("/a").await.status, 200);
    }
    assert_eq!((served(&stays), gateway.metric("sluice_upstream_retries_total").await), (6, 0.0));
    let _again = Recorder::setup().at(address).start();
    becomes(&gateway, 1, "health_check", "for: well").await;
}

#[tokio::test]
async fn the_expected_statuses_and_the_host_are_those_of_the_config() {
    let service = Recorder::answering(Answer::new(204));
    let upstream = r#"{ endpoints: [ { address: "{0}" } ], health_check: {
        http: "/health?deep=1", host: users.internal, expect: [ "204", "401-403" ], interval: 50ms, fall: 1, rise: 1 } }"#;
    let gateway = start(1, upstream, &[&service]).await;
    becomes(&gateway, 0, "health_check", "for: well").await;
    let asked = &service.wait_for(1).await[0];
    assert_eq!(
        (asked.target.as_str(), asked.header("host")),
        ("/health?deep=1", Some("users.internal"))
    );
    service.set(Answer::ok("x"));
    becomes(&gateway, 0, "health_check", "against: status 200").await;
    service.set(Answer::new(402));
    becomes(&gateway, 0, "health_check", "for: well").await;
}

/// An endpoint that keeps its answer back does not keep back the verdict about another.
///
/// Shows U-03.
#[tokio::test]
async fn who_says_nothing_delays_nobody_elses_verdict() {
    let (deaf, service) = (Rogue::deaf(), Recorder::start());
    let upstream = format!(
        "{{ endpoints: [ {{ address: \"{}\" }}, {{ address: \"{{0}}\" }} ],
           health_check: {{ http: /health, interval: 50ms, timeout: 9s, fall: 1, rise: 1 }} }}",
        deaf.addr()
    );
    let gateway = start(1, &upstream, &[&service]).await;
    for (answer, wanted) in [(503, "against: status 503"), (200, "for: well")] {
        service.set(Answer::new(answer));
        becomes(&gateway, 1, "health_check", wanted).await;
    }
    assert_eq!(said(&gateway, 0, "health_check").await, "none: nobody has asked");
}

#[tokio::test]
async fn grpc_servers_are_asked_by_their_own_protocol() {
    let answer = |serving: u8| Mode::GrpcAnswer(vec![0, 0, 0, 0, 2, 8, serving]);
    let service = H2Upstream::start(answer(1));
    let config = format!(
        "upstreams: {{ up: {{ protocol: http2, endpoints: [ {{ address: \"{}\" }} ], panic_threshold: 0%,
           health_check: {{ grpc: shop.Users, interval: 50ms, fall: 1, rise: 1 }} }} }}\n\
         routes: [ {{ id: up, upstream: up }} ]\n",
        service.addr()
    );
    let gateway = Gateway::start(&config).await;
    becomes(&gateway, 0, "health_check", "for: well").await;
    let asked = &service.requests()[0];
    assert_eq!(asked.target, "/grpc.health.v1.Health/Check");
    assert_eq!(asked.header("content-type"), Some("application/grpc"));
    assert_eq!(asked.body, b"\0\0\0\0\x0c\x0a\x0ashop.Users");
    service.set(answer(2));
    becomes(&gateway, 0, "health_check", "against: NOT_SERVING").await;
    assert_eq!(gateway.get("/a").await.json()["reason"], "no_endpoint");
    service.set(Mode::GrpcError { code: 12, message: "no".to_owned() });
    becomes(&gateway, 0, "health_check", "against: the server has no health service").await;
    service.set(answer(1));
    becomes(&gateway, 0, "health_check", "for: well").await;
}

/// The health check, the ejection and the operator each have a vote of their own, with a reason and a
/// time; the endpoint is used when none is against it.
///
/// Shows U-19.
#[tokio::test]
async fn votes_are_independent_and_visible() {
    let services = [0; 3].map(|_| {
        Recorder::deciding(|request| {
            if request.target == "/health" { Answer::ok("") } else { Answer::new(503) }
        })
    });
    let upstream = r#"{ endpoints: [ { address: "{0}" }, { address: "{1}" }, { address: "{2}", weight: 0 } ],
        ejection: { consecutive_failures: 2, time: 1h, max_time: 1h }, breaker: { consecutive_failures: 100 },
        health_check: { http: /health, interval: 50ms, fall: 1, rise: 1 } }"#;
    let gateway = start(1, upstream, &services.each_ref()).await;
    becomes(&gateway, 0, "health_check", "for: well").await;
    for _ in 0..4 {
        gateway.get("/a").await;
    }
    let page = gateway.admin("/upstreams").await.json();
    let out = (0..2).find(|n| page["up"]["endpoints"][n]["ejected"] == true).unwrap();
    let votes = &page["up"]["endpoints"][out]["votes"];
    let words = |votes: &Value| {
        ["operator", "discovery", "health_check", "ejection", "upstream_breaker"]
            .map(|who| votes[who]["vote"].as_str().unwrap().to_owned())
    };
    assert_eq!(words(votes), ["for", "for", "for", "against", "for"]);
    assert_eq!(votes["ejection"]["why"], "2 failures in a row");
    assert_eq!(votes["ejection"]["reason"], "consecutive_failures");
    for time in ["since", "until"] {
        let text = votes["ejection"][time].as_str().unwrap();
        assert!(text.starts_with("20") && text.ends_with('Z'), "{text}");
    }
    assert!(votes["health_check"]["since"].is_string() && votes["discovery"]["since"].is_string());
    assert_eq!(words(&page["up"]["endpoints"][2]["votes"])[0], "against");

    // Its health check takes it out too, and brings it back; the ejection stays.
    services[out].set(Answer::new(500));
    becomes(&gateway, out, "health_check", "against: status 500").await;
    services[out].set(Answer::ok(""));
    becomes(&gateway, out, "health_check", "for: well").await;
    assert_eq!(said(&gateway, out, "ejection").await, "against: 2 failures in a row");
}

/// It never fails often enough in a row, but more often than the others.
///
/// Shows U-19.
#[tokio::test]
async fn who_fails_more_often_than_its_peers_is_ejected() {
    let services = [0; 4].map(|_| Recorder::start());
    let turn = std::sync::atomic::AtomicU32::new(0);
    let flaky = Recorder::deciding(move |_| {
        let nth = turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if nth.is_multiple_of(2) { Answer::new(503) } else { Answer::ok("") }
    });
    let [a, b, c, d] = &services;
    let upstream = r#"{ endpoints: [ { address: "{0}" }, { address: "{1}" }, { address: "{2}" }, { address: "{3}" },
        { address: "{4}" } ], ejection: { time: 1h, max_time: 1h, success_rate: { interval: 200ms, min_requests: 3 } } }"#;
    let gateway = start(2, upstream, &[a, b, c, d, &flaky]).await;
    let mut client = gateway.client().await;
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while gateway.metric("sluice_endpoint_ejected").await == 0.0 {
        assert!(std::time::Instant::now() < until, "nobody is ejected");
        for _ in 0..50 {
            client.request("GET", "/a", "localhost", &[], b"").await;
        }
    }
    let series = r#"sluice_endpoint_ejections_total{reason="success_rate"}"#;
    assert_eq!(gateway.metric(series).await, 1.0);
    let why = said(&gateway, 4, "ejection").await;
    assert!(why.contains("% of its requests went well, below"), "{why}");
    let before = served(&flaky);
    for _ in 0..10 {
        assert_eq!(client.request("GET", "/a", "localhost", &[], b"").await.status, 200);
    }
    assert_eq!(served(&flaky), before);
}

/// Google's own gRPC as the server: what it says of `shop.Users` stands in a file.
const GRPC_SERVER: &str = r#"
import sys, concurrent.futures, grpc

class Health(grpc.GenericRpcHandler):
    def service(self, call):
        if call.method != '/grpc.health.v1.Health/Check':
            return None
        return grpc.unary_unary_rpc_method_handler(self.check)

    def check(self, request, context):
        if request != b'\x0a\x0ashop.Users':
            context.abort(grpc.StatusCode.NOT_FOUND, 'no such service')
        return bytes([8, int(open(sys.argv[2]).read())])

server = grpc.server(concurrent.futures.ThreadPoolExecutor(4), handlers=[Health()])
server.add_insecure_port(sys.argv[1])
server.start()
print('ready', flush=True)
server.wait_for_termination()
"#;

#[tokio::test]
#[ignore = "second tier: cargo xtask soak"]
async fn long_a_grpc_server_of_another_make_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let (script, says) = (folder.path().join("server.py"), folder.path().join("says"));
    std::fs::write(&script, GRPC_SERVER).unwrap();
    std::fs::write(&says, "1").unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new(tool("conformance/bin/python"));
    command.arg(&script).arg(&address).arg(&says);
    let server = Daemon::start(command, Ready::Says("ready".to_owned())).await;
    let config = |service: &str| {
        format!(
            "upstreams: {{ up: {{ protocol: http2, endpoints: [ {{ address: \"{address}\" }} ],
               health_check: {{ grpc: \"{service}\", interval: 50ms, fall: 1, rise: 1 }} }} }}\n\
             routes: [ {{ id: up, upstream: up }} ]\n"
        )
    };
    let gateway = Gateway::start(&config("shop.Users")).await;
    becomes(&gateway, 0, "health_check", "for: well").await;
    for (serving, wanted) in
        [("2", "against: NOT_SERVING"), ("0", "against: UNKNOWN"), ("1", "for: well")]
    {
        std::fs::write(&says, serving).unwrap();
        becomes(&gateway, 0, "health_check", wanted).await;
    }
    gateway.write_config(&config("shop.Orders"));
    becomes(&gateway, 0, "health_check", "against: the server does not know this service").await;
    gateway.write_config(&config("shop.Users"));
    becomes(&gateway, 0, "health_check", "for: well").await;
    drop(server);
    becomes(&gateway, 0, "health_check", "against: Connection refused").await;
}
