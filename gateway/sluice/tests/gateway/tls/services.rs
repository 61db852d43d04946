//! TLS towards services: whom the gateway trusts, who it says it is, which name it asks for.

use sluice_chaos::h2up::{H2Upstream, Mode};
use sluice_chaos::pki::{Authority, Pair, server_config, server_config_asking};
use sluice_chaos::raw::Response;
use sluice_chaos::recorder::Recorder;
use sluice_chaos::rogue::{self, Rogue};

use crate::support::{Gateway, Setup, eventually};

async fn start(upstream: &str, files: Vec<(&'static str, String)>) -> Gateway {
    let config =
        format!("upstreams: {{ up: {upstream} }}\nroutes: [ {{ id: up, upstream: up }} ]\n");
    Gateway::start_with(&config, Setup { files, ..Setup::default() }).await
}

fn refused(answer: &Response) {
    assert_eq!((answer.status, answer.json()["reason"].as_str()), (502, Some("upstream_tls")));
    assert_eq!(answer.header("proxy-status"), Some("sluice; error=tls_certificate_error"));
}

fn serving(pair: &Pair) -> Recorder {
    Recorder::setup().tls(server_config(pair, &[])).start()
}

/// Shows T-12.
#[tokio::test]
async fn only_a_service_with_the_right_certificate_is_asked() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let ca = || vec![("ca.pem", authority.pem())];
    let at = |recorder: &Recorder| {
        format!(
            "{{ endpoints: [ {{ address: \"{}\" }} ], tls: {{ ca_file: ca.pem }} }}",
            recorder.addr()
        )
    };
    let good = serving(&authority.issue(&["127.0.0.1"]));
    let gateway = start(&at(&good), ca()).await;
    for _ in 0..3 {
        assert_eq!(gateway.get("/a").await.status, 200);
    }
    let seen = good.requests().pop().unwrap();
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));

    for (what, pair) in [
        ("a foreign authority", stranger.issue(&["127.0.0.1"])),
        ("another name", authority.issue(&["elsewhere.test"])),
        ("no longer valid", authority.issue_expired(&["127.0.0.1"])),
    ] {
        let recorder = serving(&pair);
        let gateway = start(&at(&recorder), ca()).await;
        let answer = gateway.get("/a").await;
        assert_eq!(answer.status, 502, "{what}");
        refused(&answer);
        assert_eq!(recorder.begun(), 0, "{what}: the request was sent");
        let counted = gateway.metric("sluice_upstream_errors_total{reason=\"upstream_tls\"}").await;
        assert!(counted >= 1.0, "{what}");
    }
    // Neither is one that speaks no TLS at all.
    let plain = Rogue::start(rogue::ok("hello"));
    let upstream = format!(
        "{{ endpoints: [ {{ address: \"{}\" }} ], tls: {{ ca_file: ca.pem }} }}",
        plain.addr()
    );
    let gateway = start(&upstream, ca()).await;
    let answer = gateway.get("/a").await;
    assert!(matches!(answer.json()["reason"].as_str(), Some("upstream_tls" | "connect_timeout")));
}

#[tokio::test]
async fn a_service_may_ask_who_is_calling() {
    let authority = Authority::new();
    let server = server_config_asking(&authority.issue(&["127.0.0.1"]), &[], &authority);
    let recorder = Recorder::setup().tls(server).start();
    let address = recorder.addr();
    let ours = authority.issue_client("gateway");
    let files =
        vec![("ca.pem", authority.pem()), ("us.pem", ours.cert_pem), ("us.key", ours.key_pem)];
    let known = format!(
        "{{ endpoints: [ {{ address: \"{address}\" }} ], tls: {{ ca_file: ca.pem, cert_file: us.pem, key_file: us.key }} }}"
    );
    let gateway = start(&known, files.clone()).await;
    assert_eq!(gateway.get("/a").await.status, 200);
    assert_eq!(recorder.begun(), 1);

    let nameless =
        format!("{{ endpoints: [ {{ address: \"{address}\" }} ], tls: {{ ca_file: ca.pem }} }}");
    let gateway = start(&nameless, files).await;
    // The objection may be overtaken by the end of the connection, but not every time.
    eventually("the service's objection", async || {
        let answer = gateway.get("/a").await;
        assert_eq!(answer.status, 502);
        answer.json()["reason"] == "upstream_tls"
    })
    .await;
    assert_eq!(recorder.begun(), 1);
}

#[tokio::test]
async fn a_cloud_function_is_asked_by_its_own_name() {
    let authority = Authority::new();
    let recorder = serving(&authority.issue(&["fn-1.run.example.com"]));
    let upstream = format!(
        "{{ endpoints: [ {{ address: \"{}\" }} ], host: fn-1.run.example.com, \
         tls: {{ ca_file: ca.pem, server_name: fn-1.run.example.com }} }}",
        recorder.addr()
    );
    let gateway = start(&upstream, vec![("ca.pem", authority.pem())]).await;
    assert_eq!(gateway.get("/call").await.status, 200);
    let seen = recorder.requests().pop().unwrap();
    assert_eq!(seen.all("host"), ["fn-1.run.example.com"]);
    assert_eq!(seen.header("x-forwarded-host"), Some("localhost"));

    // Rotated files come with the next reload; another authority means other connections.
    std::fs::write(gateway.folder().join("ca.pem"), Authority::new().pem()).unwrap();
    gateway.daemon.signal("HUP");
    gateway.wait_for_generation(2).await;
    refused(&gateway.get("/call").await);
}

/// Shows T-13.
#[tokio::test]
async fn an_answer_that_ends_without_tls_saying_so_is_broken() {
    let authority = Authority::new();
    for polite in [true, false] {
        let config = server_config(&authority.issue(&["127.0.0.1"]), &[]);
        let rogue = Rogue::start_tls(config, move |mut talk| async move {
            talk.read_head().await;
            talk.send("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n\r\nhalf of it").await;
            if polite {
                talk.close().await;
            }
        });
        let upstream = format!(
            "{{ endpoints: [ {{ address: \"{}\" }} ], tls: {{ ca_file: ca.pem }} }}",
            rogue.addr()
        );
        let gateway = start(&upstream, vec![("ca.pem", authority.pem())]).await;
        let answer = gateway.get("/a").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "half of it"));
        assert_eq!(answer.complete, polite, "whether the client takes it for whole");
        let lines = gateway.log_lines(1).await;
        let reason = if polite { None } else { Some("upstream_broken") };
        assert_eq!(lines[0]["reason"].as_str(), reason);
    }
}

#[tokio::test]
async fn http2_is_agreed_on_by_tls() {
    let authority = Authority::new();
    let pair = authority.issue(&["127.0.0.1"]);
    let upstream =
        H2Upstream::start_tls(server_config(&pair, &["h2"]), Mode::Answer(200, b"two".to_vec()));
    let config = format!(
        "{{ endpoints: [ {{ address: \"{}\" }} ], protocol: http2, tls: {{ ca_file: ca.pem }} }}",
        upstream.addr()
    );
    let gateway = start(&config, vec![("ca.pem", authority.pem())]).await;
    let answer = gateway.get("/a").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "two"));
    let seen = upstream.requests().pop().unwrap();
    assert_eq!((seen.target.as_str(), seen.header(":authority")), ("/a", Some("localhost")));
}
