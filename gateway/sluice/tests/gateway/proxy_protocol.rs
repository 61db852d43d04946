//! Behind a proxy that says whose connection it passes on.

use std::time::Duration;

use sluice_chaos::pki::{Authority, client_config};
use sluice_chaos::process::{Daemon, Ready, free_port, tool};
use sluice_chaos::raw::{self, Client};
use sluice_chaos::recorder::{Answer, Recorder};

use crate::support::{Gateway, Setup, eventually};

const LISTENERS: &str = r#"listeners:
  - name: plain
    address: "{http}"
    timeouts: { handshake: 1s }
    proxy_protocol: { from: [127.0.0.1, 127.0.0.3] }
  - name: tls
    address: "{https}"
    proxy_protocol: { from: [127.0.0.0/8] }
    tls: { certificates: [ { cert_file: cert.pem, key_file: key.pem } ] }
"#;

struct Place {
    gateway: Gateway,
    service: Recorder,
    authority: Authority,
}

impl Place {
    async fn start() -> Self {
        let (service, authority) = (Recorder::answering(Answer::ok("x")), Authority::new());
        let config = format!(
            "trusted_proxies: [192.0.2.0/24]\n\
             filters: [ {{ ip_rules: {{ deny: [198.51.100.66] }} }} ]\n\
             upstreams: {{ up: {{ endpoints: [ {{ address: \"{}\" }} ] }} }}\n\
             routes: [ {{ id: all, match: {{ path: /** }}, upstream: up }} ]\n",
            service.addr()
        );
        let pair = authority.issue(&["localhost"]);
        let files = vec![("cert.pem", pair.cert_pem), ("key.pem", pair.key_pem)];
        let setup = Setup { listeners: Some(LISTENERS), files, ..Setup::default() };
        let gateway = Gateway::start_with(&config, setup).await;
        Self { gateway, service, authority }
    }

    async fn failures(&self, reason: &str) -> f64 {
        let series = format!("sluice_proxy_protocol_errors_total{{reason=\"{reason}\"}}");
        self.gateway.metric(&series).await
    }

    async fn failed(&self, reason: &str, times: f64) {
        eventually(reason, async || self.failures(reason).await >= times).await;
    }
}

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n";

fn line(source: &str) -> String {
    format!("PROXY TCP4 {source} 203.0.113.9 40000 443\r\n")
}

/// Version 2 with the address 198.51.100.7, and an extension.
const BINARY: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11\xc6\x33\x64\x07\xcb\0\x71\x09\x9c\x40\x01\xbb\x04\0\x02ab";
/// Version 2 of a proxy that looks whether we are there.
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

#[tokio::test]
async fn the_address_it_carries_is_the_peer_for_everything() {
    let place = Place::start().await;
    let first =
        |header: &[u8], more: &str| [header, GET.as_bytes(), more.as_bytes(), b"\r\n"].concat();
    let six = b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n";
    let known = "X-Forwarded-For: 10.9.9.9\r\n";
    for (bytes, client, chain) in [
        (first(line("198.51.100.7").as_bytes(), ""), "198.51.100.7", "198.51.100.7"),
        (first(BINARY, ""), "198.51.100.7", "198.51.100.7"),
        (first(six, ""), "2001:db8::7", "2001:db8::7"),
        // A stranger's word is removed, a trusted proxy's counts.
        (first(BINARY, known), "198.51.100.7", "198.51.100.7"),
        (first(line("192.0.2.1").as_bytes(), known), "10.9.9.9", "10.9.9.9, 192.0.2.1"),
        // The proxy speaks for itself.
        (first(LOCAL, ""), "127.0.0.1", "127.0.0.1"),
        (first(b"PROXY UNKNOWN\r\n", ""), "127.0.0.1", "127.0.0.1"),
    ] {
        let what = String::from_utf8_lossy(&bytes).into_owned();
        assert_eq!(raw::exchange(place.gateway.http, &bytes).await.status, 200, "{what}");
        let seen = place.service.requests().pop().unwrap();
        assert_eq!(seen.header("x-real-ip"), Some(client), "{what}");
        assert_eq!(seen.header("x-forwarded-for"), Some(chain), "{what}");
    }
    let denied = first(line("198.51.100.66").as_bytes(), "");
    assert_eq!(raw::exchange(place.gateway.http, denied).await.status, 403);
    let lines = place.gateway.log_lines(8).await;
    let mut clients: Vec<&str> = lines.iter().map(|l| l["client_ip"].as_str().unwrap()).collect();
    clients.sort_unstable();
    assert_eq!(clients[0], "10.9.9.9");
    assert!(clients.contains(&"198.51.100.66") && clients.contains(&"2001:db8::7"), "{clients:?}");
}

#[tokio::test]
async fn it_stands_before_tls_and_before_http2() {
    let place = Place::start().await;
    for first in [line("198.51.100.7").into_bytes(), BINARY.to_vec()] {
        let config = client_config(&place.authority, &["http/1.1"]);
        let connect =
            Client::try_connect_tls_after(place.gateway.https, &first, "localhost", config);
        let mut client = connect.await.unwrap();
        for _ in 0..2 {
            assert_eq!(client.request("GET", "/", "localhost", &[], b"").await.status, 200);
            let seen = place.service.requests().pop().unwrap();
            assert_eq!(seen.header("x-real-ip"), Some("198.51.100.7"));
            assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
        }
    }
    // HTTP/2 with prior knowledge: its first frame comes back.
    let mut client = place.gateway.client().await;
    client.send([BINARY, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"].concat()).await;
    let settings = client.read_exactly(9).await;
    assert_eq!(settings[3], 4, "{settings:?}");
}

#[tokio::test]
async fn without_a_good_header_nobody_is_served() {
    let place = Place::start().await;
    let http = place.gateway.http;
    let closed = async |bytes: &[u8]| {
        let mut client = Client::connect(http).await;
        client.send(bytes).await;
        let said = client.read_to_end().await;
        assert!(said.is_empty(), "{:?}", String::from_utf8_lossy(&said));
    };
    closed(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    closed(b"\x16\x03\x01\x02\0\x01").await;
    place.failed("missing", 2.0).await;
    closed(b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\nGET / HTTP/1.1\r\n").await;
    closed(format!("PROXY UNKNOWN {}", "x".repeat(300)).as_bytes()).await;
    closed(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff").await;
    place.failed("malformed", 3.0).await;
    assert!(place.gateway.daemon.output().contains("no PROXY header, so not served"));
    // A second header is no header any more, but a request that is none.
    let twice = [line("1.2.3.4"), line("5.6.7.8")].concat();
    assert_eq!(raw::exchange(http, twice).await.status, 400);
    // Within the time of a handshake, whether nothing or half of it comes.
    for half in [&b""[..], &BINARY[..20]] {
        let mut client = Client::connect(http).await;
        client.send(half).await;
        assert!(client.closed_by_peer().await);
    }
    place.failed("timeout", 2.0).await;
    let mut left = Client::connect(http).await;
    left.send(b"PROX").await;
    left.half_close().await;
    assert!(left.closed_by_peer().await);
    place.failed("closed", 1.0).await;
    // Whom nobody trusts can say what he likes.
    let mut stranger = Client::connect_from([127, 0, 0, 2].into(), http).await;
    let _ = stranger
        .try_send([line("198.51.100.7").as_bytes(), GET.as_bytes(), b"\r\n"].concat())
        .await;
    assert!(stranger.try_response_to("GET").await.is_none());
    place.failed("untrusted", 1.0).await;
    assert_eq!(place.service.begun(), 0);
    // In single bytes it is as good as in one piece.
    let mut slow = Client::connect_from([127, 0, 0, 3].into(), http).await;
    assert!(slow.drip(BINARY, Duration::from_millis(2)).await);
    slow.send([GET.as_bytes(), b"\r\n"].concat()).await;
    assert_eq!(slow.response().await.status, 200);
}

/// HAProxy in front, which says it in both versions, in the clear and before TLS that it passes on.
#[tokio::test]
#[ignore = "second tier: cargo xtask soak"]
async fn long_behind_haproxy_clients_keep_their_addresses() {
    let place = Place::start().await;
    let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
    let mut config =
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 9s\n  timeout server 9s\n"
            .to_owned();
    for (port, (to, how)) in ports.iter().zip([
        (place.gateway.http, "send-proxy"),
        (place.gateway.http, "send-proxy-v2 proxy-v2-options crc32c,unique-id"),
        (place.gateway.https, "send-proxy-v2 proxy-v2-options crc32c"),
    ]) {
        config += &format!(
            "listen l{port}\n  bind 127.0.0.1:{port}\n  server s {to} {how} check inter 100ms\n"
        );
    }
    let path = place.gateway.folder().join("haproxy.cfg");
    std::fs::write(&path, config).unwrap();
    let ready = Ready::Tcp(([127, 0, 0, 1], ports[0]).into());
    let _haproxy =
        Daemon::spawn(tool("haproxy"), &["-db", "-f", path.to_str().unwrap()], ready).await;
    for (nth, source) in [(0, 11), (1, 12), (0, 13), (1, 14)] {
        let source = [127, 0, 1, source];
        let to = ([127, 0, 0, 1], ports[nth]).into();
        let mut client = Client::connect_from(source.into(), to).await;
        for _ in 0..3 {
            assert_eq!(client.request("GET", "/", "localhost", &[], b"").await.status, 200);
            let seen = place.service.requests().pop().unwrap();
            let expected = std::net::IpAddr::from(source).to_string();
            assert_eq!(seen.header("x-forwarded-for"), Some(&*expected));
        }
    }
    let trust = client_config(&place.authority, &["http/1.1"]);
    let mut client =
        Client::connect_tls(([127, 0, 0, 1], ports[2]).into(), "localhost", trust).await;
    assert_eq!(client.request("GET", "/", "localhost", &[], b"").await.status, 200);
    // Its health checks come by themselves, and are no offence.
    tokio::time::sleep(Duration::from_millis(500)).await;
    for reason in ["malformed", "missing", "untrusted", "timeout"] {
        assert_eq!(place.failures(reason).await, 0.0, "{reason}");
    }
}
