//! Fields with bytes that are no text, in every field the gateway reads: nothing may panic, and
//! nothing may cost more than its own request.

use sluice_chaos::recorder::{Answer, Recorder};

use crate::support::{Gateway, Setup};
use crate::tokens::Key;

const CONFIG: &str = r#"
trusted_proxies: [ 127.0.0.1 ]
upstreams: { up: { endpoints: [ { address: "{up}" } ] } }
filters: [ { request_id: { trust_clients: true } } ]
routes:
  - id: all
    match: { path: "/all/{id}" }
    filters:
      - cors: { origins: [ "https://a.test" ] }
      - ip_rules: { deny: [ 192.0.2.0/24 ] }
      - size_limit: { body: 1KiB }
      - rate_limit: { limit: 10000, per: 1s, key: "header:X-Key+address" }
      - headers: { request: { set: { X-Copy: "{header.x-odd}", X-Agent: "{header.user-agent}" } } }
    websocket: true
    upstream: up
  - id: token
    match: { path: /token }
    filters: [ { jwt: { keys: [ { kid: k, alg: HS256, secret_file: k.key } ] } } ]
    upstream: up
  - id: predicates
    match:
      path: /predicates
      headers: { X-Odd: { prefix: "a" } }
      cookies: { c: { regex: "x+" } }
    upstream: up
"#;

const NAMES: [&str; 36] = [
    "Accept",
    "Authorization",
    "Connection",
    "Content-Length",
    "Content-Type",
    "Cookie",
    "Expect",
    "Forwarded",
    "Host",
    "HTTP2-Settings",
    "If-None-Match",
    "Keep-Alive",
    "Origin",
    "Access-Control-Request-Method",
    "Access-Control-Request-Headers",
    "Proxy-Authorization",
    "Proxy-Connection",
    "Range",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Version",
    "TE",
    "Trailer",
    "traceparent",
    "tracestate",
    "Transfer-Encoding",
    "Upgrade",
    "User-Agent",
    "Via",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Key",
    "X-Odd",
    "X-Real-IP",
    "X-Request-Id",
    "X-Trace-Id",
];
const VALUES: [&str; 9] = [
    "\u{ff}",
    "\u{80}\u{ff}",
    "a\u{ff}b",
    "\u{c3}\u{28}",
    "",
    " ",
    ",,,",
    "\u{ff},\u{ff}",
    "=;=\"\u{ff}",
];

/// Shows HD-11.
#[tokio::test]
async fn bytes_that_are_no_text_break_nothing() {
    let key = Key::new("HS256");
    let recorder = Recorder::answering(Answer::echo());
    let setup = Setup { files: vec![("k.key", key.shared.clone())], ..Setup::default() };
    let config = CONFIG.replace("{up}", &recorder.addr().to_string());
    let gateway = Gateway::start_with(&config, setup).await;
    let paths =
        [("GET", "/all/7"), ("OPTIONS", "/all/7"), ("GET", "/token"), ("GET", "/predicates")];
    let mut refused = 0;
    for (method, path) in paths {
        for name in NAMES {
            for value in VALUES {
                let mut client = gateway.client().await;
                let host = if name == "Host" { value } else { "localhost" };
                let mut headers = vec![("Connection", "keep-alive")];
                if name != "Host" {
                    headers.push((name, value));
                }
                // An announced body would be waited for; none of these announces a whole one.
                let answer = client.request(method, path, host, &headers, b"").await;
                let what = format!("{method} {path} with {name}: {value:?}");
                assert!((200..600).contains(&answer.status), "{what}: {}", answer.status);
                assert!(
                    !matches!(answer.status, 500 | 502 | 503 | 504),
                    "{what}: {}",
                    answer.status
                );
                refused += u32::from(answer.status >= 400);
            }
        }
    }
    assert!(refused > 0);
    assert_eq!(gateway.metric("sluice_panics_total").await, 0.0);
    // A value that is no text is passed on byte for byte where nobody needs to read it.
    let mut client = gateway.client().await;
    client.request("GET", "/all/7", "localhost", &[("X-Odd", "a\u{ff}b")], b"").await;
    let seen = recorder.requests().pop().unwrap();
    assert_eq!(seen.header("x-odd"), Some("a\u{ff}b"));
    assert_eq!(seen.header("x-copy"), Some(""));
}
