//! Guarded and open ways to one service, and thousands of targets that would like to take the wrong
//! one: nothing comes to a guarded path of the service without its guard.

use std::net::SocketAddr;

use sluice_chaos::recorder::Recorder;

use crate::frames::{HEADERS, RST_STREAM, Talk, WHOLE, block, frame};
use crate::support::Gateway;

fn config(up: SocketAddr) -> String {
    format!(
        r#"
upstreams: {{ up: {{ endpoints: [ {{ address: "{up}" }} ] }} }}
routes:
  - id: admin
    match: {{ path: /admin/** }}
    filters: [ {{ ip_rules: {{ deny: [ "0.0.0.0/0", "::/0" ] }} }} ]
    upstream: up
  - id: account
    match: {{ path: /account/** }}
    filters: [ {{ jwt: {{ keys: [ {{ kid: k, alg: HS256, secret: "0123456789abcdef0123456789abcdef" }} ] }} }} ]
    upstream: up
  - {{ id: stripped, match: {{ path: /api/** }}, filters: [ {{ strip_prefix: 1 }}, {{ add_prefix: /open }} ], upstream: up }}
  - {{ id: captured, match: {{ path: "/files/{{name}}" }}, filters: [ {{ rewrite: {{ path: "/open/{{name}}" }} }} ], upstream: up }}
  - {{ id: matched, match: {{ path_regex: "/all/(?<rest>.*)" }}, filters: [ {{ rewrite: {{ path: "/open/{{rest}}" }} }} ], upstream: up }}
  - {{ id: told, match: {{ path: /by/** }}, filters: [ {{ rewrite: {{ path: "/open/{{header.x-name}}" }} }} ], upstream: up }}
  - {{ id: rest, upstream: up }}
"#
    )
}

/// Pieces from which hostile paths are made.
const PIECES: [&str; 44] = [
    "/",
    "/",
    "/",
    "//",
    "/./",
    "/../",
    "/..",
    "..",
    ".",
    "%2e%2e",
    "%2E.",
    ".%2e",
    "%2f",
    "%2F",
    "%5c",
    "\\",
    "%252f",
    "%252e%252e",
    "..;",
    ";",
    ";a=b",
    "%3b",
    "..%3b/",
    "%00",
    "%20",
    "%09",
    "%c0%ae",
    "%e2%80%a5",
    "?",
    "?/../admin",
    "#",
    "admin",
    "Admin",
    "%61dmin",
    "adm%69n/",
    "account",
    "%41ccount",
    "account/",
    "api",
    "files",
    "all",
    "by",
    "open",
    "x",
];
/// What a target may begin with: paths, authorities, other schemes.
const STARTS: [&str; 20] = [
    "/",
    "/",
    "/",
    "/",
    "/api/",
    "/api/",
    "/files/",
    "/files/",
    "/all/",
    "/all/",
    "/by/",
    "//",
    "/open/../",
    "http://a/",
    "http://a",
    "http://admin/",
    "HTTP://A/",
    "https://a/",
    "a/",
    "*",
];

/// A small generator (SplitMix64), so that a run can be repeated.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }

    fn tail(&mut self) -> String {
        (0..self.below(7)).map(|_| PIECES[self.below(PIECES.len())]).collect()
    }

    fn target(&mut self) -> String {
        format!("{}{}", STARTS[self.below(STARTS.len())], self.tail())
    }
}

/// What the most lenient service makes of a path: decoded once, backslashes for slashes, parameters
/// overlooked where there are dots.
fn lenient(target: &str) -> Vec<String> {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let once = decoded(path.as_bytes());
    let mut segments: Vec<String> = Vec::new();
    for segment in once.split(|byte| matches!(byte, b'/' | b'\\')) {
        match segment.split(|byte| *byte == b';').next().unwrap_or_default() {
            b"" | b"." => {}
            b".." => drop(segments.pop()),
            _ => segments.push(String::from_utf8_lossy(segment).into_owned()),
        }
    }
    segments
}

fn decoded(mut rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let [byte, tail @ ..] = rest {
        let digits =
            tail.get(..2).filter(|_| *byte == b'%').and_then(|d| std::str::from_utf8(d).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(escaped.unwrap_or(*byte));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    out
}

/// Judges all that has come to the service.
fn judge(recorder: &Recorder) {
    for seen in recorder.requests() {
        let first = lenient(&seen.target).into_iter().next().unwrap_or_default();
        assert!(first != "admin" && first != "account", "{} came through", seen.target);
        assert!(seen.target.starts_with('/') && !seen.target.starts_with("//"), "{}", seen.target);
        let path = seen.target.split('?').next().unwrap();
        assert!(!path.contains(['\\', ' ', '#']), "{}", seen.target);
    }
}

/// Shows P-01, P-02, P-03, P-04, P-05, P-06.
#[tokio::test]
async fn no_target_comes_to_a_guarded_path_by_another_way() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&config(recorder.addr())).await;
    for (target, reason) in [("/admin/x", "address_refused"), ("/account", "token_missing")] {
        assert_eq!(gateway.get(target).await.json()["reason"], reason);
    }
    let mut dice = Dice(1);
    let mut client = gateway.client().await;
    let mut served = 0;
    for _ in 0..1_500 {
        let (target, name) = (dice.target(), dice.tail());
        let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\nX-Name: {name}\r\n\r\n");
        client.send(head).await;
        let answer = client.response().await;
        served += usize::from(answer.status == 200);
        assert!(matches!(answer.status, 200 | 400 | 401 | 403 | 404), "{target}: {answer:?}");
        if answer.closed {
            client = gateway.client().await;
        }
    }
    assert_eq!(recorder.requests().len(), served);
    assert!(served > 300, "only {served} targets were good enough to pass");
    judge(&recorder);
}

/// Shows P-01, P-06.
#[tokio::test]
async fn no_path_of_http2_comes_to_a_guarded_path_by_another_way() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&config(recorder.addr())).await;
    let mut dice = Dice(2);
    let mut served = 0;
    for _ in 0..8 {
        let mut talk = Talk::begin(&gateway).await;
        let targets: Vec<(String, String)> =
            (0..50).map(|_| (dice.target(), dice.tail())).collect();
        for (stream, (target, name)) in (1..).step_by(2).zip(&targets) {
            let head = [
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", "a"),
                (":path", target),
                ("x-name", name),
            ];
            talk.say(&frame(HEADERS, WHOLE, stream, &block(&head))).await;
            // Every stream has its answer, or is reset.
            loop {
                let frame = talk.next().await.expect("the connection stays");
                if frame.stream == stream && matches!(frame.kind, HEADERS | RST_STREAM) {
                    break;
                }
            }
        }
        served = recorder.requests().len();
    }
    assert!(served > 50, "only {served} paths were good enough to pass");
    judge(&recorder);
}

/// Shows P-06.
#[tokio::test]
async fn p_06_what_a_rewrite_makes_is_canonical_or_refused() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&config(recorder.addr())).await;
    for (name, reached) in [
        ("x", Some("/open/x")),
        ("x/y;z", Some("/open/x/y;z")),
        ("../admin", None),
        ("..", None),
        ("%2e%2e/admin", None),
        ("x//y", None),
        ("x?y", None),
        ("x#y", None),
        ("x y", None),
        ("..;/admin", None),
        ("%2Fadmin", None),
        ("\\admin", None),
    ] {
        let headers = [("X-Name", name)];
        let before = recorder.requests().len();
        let answer = gateway.client().await.request("GET", "/by/x", "a", &headers, b"").await;
        let seen = recorder.requests().get(before).map(|seen| seen.target.clone());
        assert_eq!(seen.as_deref(), reached, "{name}");
        if reached.is_none() {
            assert_eq!(
                (answer.status, answer.json()["reason"].as_str()),
                (400, Some("path_invalid"))
            );
        }
    }
}
