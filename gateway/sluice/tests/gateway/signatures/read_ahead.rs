//! Bodies that are read before they are sent, since a signature covers them: they arrive whole, and are
//! neither too large nor too slow.

use sluice_chaos::recorder::Recorder;
use sluice_chaos::{client, h2up};

use super::{SECRET, XCa, nonce};
use crate::support::{Gateway, Setup, eventually, reason};

/// A gateway whose callers sign what they send to these upstreams, by routes of the same names.
async fn start(upstreams: &str, listeners: Option<&'static str>) -> Gateway {
    let config = format!(
        r#"
upstreams:
{upstreams}
groups:
  - name: signed
    filters: [ {{ signature: {{ scheme: x-ca, keys: [ {{ id: demo, secret_file: demo.key }} ] }} }} ]
routes:
  - {{ id: one, group: signed, match: {{ path: /one }}, upstream: one }}
  - {{ id: two, group: signed, match: {{ path: /two }}, upstream: two }}
"#
    );
    let files = vec![("demo.key", SECRET.to_owned())];
    Gateway::start_with(&config, Setup { files, listeners, ..Setup::default() }).await
}

/// The head of a form that is signed as if it were empty.
fn form(framing: &str) -> String {
    let form = XCa {
        method: "POST",
        content_type: "application/x-www-form-urlencoded",
        ..XCa::get("/one")
    };
    let fields: String =
        form.headers().iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("POST /one HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n{fields}\r\n")
}

/// Bodies that are read ahead reach services whole, over both versions of HTTP on both sides.
#[tokio::test]
async fn bodies_that_were_read_ahead_arrive_whole() {
    let (one, two) = (Recorder::start(), h2up::H2Upstream::start(h2up::Mode::Echo));
    let upstreams = format!(
        "  one: {{ endpoints: [ {{ address: \"{}\" }} ] }}\n  \
         two: {{ protocol: http2, endpoints: [ {{ address: \"{}\" }} ] }}",
        one.addr(),
        two.addr()
    );
    let gateway = start(&upstreams, None).await;
    let body: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[0] ^ 0x5a).collect();
    for target in ["/one", "/two"] {
        let post = |nonce: String| XCa {
            method: "POST",
            content_type: "application/octet-stream",
            body: &body,
            nonce,
            ..XCa::get(target)
        };
        let answer = post(nonce()).send(&gateway).await;
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        let mut request = client::post(target, body.clone());
        for (name, value) in post(nonce()).headers() {
            let name = http::HeaderName::try_from(name).unwrap();
            request.headers_mut().insert(name, http::HeaderValue::try_from(value).unwrap());
        }
        let answer = client::h2c(gateway.http).await.send(request).await;
        assert_eq!(answer.0.status.as_u16(), 200, "{target} over HTTP/2");
        // Chunked, so that nobody knows its length before.
        let mut raw = gateway.client().await;
        let mut head =
            format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n");
        for (name, value) in post(nonce()).headers() {
            head += &format!("{name}: {value}\r\n");
        }
        raw.send(format!("{head}\r\n")).await;
        for chunk in body.chunks(7_000) {
            raw.send(format!("{:x}\r\n", chunk.len())).await;
            raw.send(chunk).await;
            raw.send("\r\n").await;
        }
        raw.send("0\r\n\r\n").await;
        assert_eq!(raw.response().await.status, 200, "{target} in chunks");
    }
    for seen in one.wait_for(3).await.iter().chain(&two.wait_for(3).await) {
        assert!(seen.body == body, "{} bytes of {}", seen.body.len(), body.len());
    }
    assert!(gateway.metric("sluice_held_body_bytes").await < 0.5, "nothing is held any more");
}

#[tokio::test]
async fn k_05_a_body_over_the_cap_is_refused_before_it_is_read() {
    let recorder = Recorder::start();
    let up = format!("{{ endpoints: [ {{ address: \"{}\" }} ] }}", recorder.addr());
    let gateway = start(&format!("  one: {up}\n  two: {up}"), None).await;
    let mut announced = gateway.client().await;
    announced.send(form("Content-Length: 1073741824")).await;
    assert_eq!(reason(&announced.response().await), (413, "body_too_large".to_owned()));
    let mut chunked = gateway.client().await;
    chunked.send(form("Transfer-Encoding: chunked")).await;
    let chunk = format!("10000\r\n{}\r\n", "a".repeat(65_536));
    for _ in 0..16 {
        chunked.send(&chunk).await;
    }
    let _ = chunked.try_send("1\r\na\r\n").await;
    assert_eq!(reason(&chunked.response().await), (413, "body_too_large".to_owned()));
    assert_eq!(recorder.begun(), 0, "nothing has come to the service");
}

#[tokio::test]
async fn a_client_that_stalls_in_a_signed_body_is_let_go() {
    let listeners =
        "listeners:\n  - { name: plain, address: \"{http}\", timeouts: { body: 300ms } }\n";
    let upstreams = "  one: { builtin: echo }\n  two: { builtin: echo }";
    let gateway = start(upstreams, Some(listeners)).await;
    let mut client = gateway.client().await;
    client.send(format!("{}a=1", form("Content-Length: 10"))).await;
    assert_eq!(reason(&client.response().await), (408, "body_timeout".to_owned()));
    eventually("what was held to be given back", async || {
        gateway.metric("sluice_held_body_bytes").await < 0.5
    })
    .await;
}
