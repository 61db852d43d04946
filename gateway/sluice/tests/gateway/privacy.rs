//! What the access log may not tell: the numbers and identities of people, and whatever would break
//! its lines.

use std::time::Duration;

use serde_json::Value;
use sluice_chaos::raw;

use crate::support::Gateway;

const ROUTES: &str = r#"
access_log:
  output: access.log
  query: [page, q, phone]
  mask: { fields: [nickname], secret: "0123456789abcdef0123456789abcdef" }
upstreams: { echo: { builtin: echo } }
routes: [ { id: all, match: { path: "/**" }, upstream: echo } ]
"#;

const OPENID: &str = "oGZUI0egBJY1zhBYw2KhdUfwVJJE";

fn texts<'l>(lines: &'l [Value], field: &str) -> Vec<&'l str> {
    lines.iter().map(|line| line[field].as_str().unwrap_or_default()).collect()
}

/// Shows S-02.
#[tokio::test]
async fn nobody_can_be_told_from_the_access_log() {
    let gateway = Gateway::start(ROUTES).await;
    let escaped: String = "13812341234".bytes().map(|byte| format!("%{byte:02x}")).collect();
    let agents = [
        "x/1 (phone=13812341234; nickname=Li)",
        "{\"session_key\":\"tiihtNczf5v6AKRyjwEUhQ==\"}",
        "\\u0031\\u0033812341234",
        "id 11010119900307125x card 6222021234567890128 a@b.cn",
    ];
    let paths = [
        "/u/13812341234/orders".to_owned(),
        format!("/u/{escaped}"),
        format!("/u/{}", escaped.replace('%', "%25")),
        format!("/u/{OPENID}/x?page=2&js_code=canary&q=13812341234&phone=1"),
        // Refused, and logged as it came.
        format!("/..%2f{escaped}"),
    ];
    let mut client = gateway.client().await;
    for agent in agents {
        client.request("GET", "/a", "localhost", &[("User-Agent", agent)], b"").await;
    }
    for path in &paths {
        raw::get(gateway.http, "localhost", path).await;
    }
    raw::get(gateway.http, "13812341234.test", "/host").await;
    let lines = gateway.log_lines(agents.len() + paths.len() + 1).await;
    let text = std::fs::read_to_string(gateway.folder().join("access.log")).unwrap();
    for hidden in [
        "13812341234",
        "%2531%2533",
        "%31%33%38",
        "1990",
        "123456789",
        "tiih",
        OPENID,
        "canary",
        "Li)",
    ] {
        assert!(!text.contains(hidden), "{hidden} is in {text}");
    }
    let (agents, paths) = (texts(&lines, "ua"), texts(&lines, "path"));
    for shown in [
        "x/1 (phone=138****1234; nickname=***)",
        "{\"session_key\":\"***\"}",
        "138****1234",
        "id 110101********125x card ***************0128 a***@b.cn",
    ] {
        assert!(agents.contains(&shown), "{shown} is not in {agents:?}");
    }
    assert!(paths.contains(&"/u/138****1234/orders"), "{paths:?}");
    assert!(texts(&lines, "host").contains(&"138****1234.test"));
    let query = texts(&lines, "query");
    assert!(query.contains(&"page=2&q=138****1234&phone=***"), "{query:?}");

    // The same key writes the same fingerprint in another process.
    let print = paths.iter().find(|path| path.contains('#')).unwrap().to_string();
    let other = Gateway::start(ROUTES).await;
    other.get(&format!("/u/{OPENID}/x")).await;
    assert_eq!(other.log_lines(1).await[0]["path"], print);
}

/// Shows S-03.
#[tokio::test]
async fn every_byte_makes_one_line() {
    let gateway = Gateway::start(ROUTES).await;
    let mut sent = 0;
    for byte in 0..=255_u8 {
        for (before, after) in [("/", "/x"), ("/?q=", "&page=1")] {
            let mut bytes = format!("GET {before}").into_bytes();
            bytes.push(byte);
            bytes.extend_from_slice(after.as_bytes());
            bytes.extend_from_slice(b" HTTP/1.1\r\nHost: localhost\r\nUser-Agent: a");
            bytes.push(byte);
            bytes.extend_from_slice(b"\",\"status\":1}\r\nConnection: close\r\n\r\n");
            let mut client = gateway.client().await;
            client.send(bytes).await;
            sent += usize::from(client.response().await.status > 0);
        }
    }
    // Long enough for a line too many to show up.
    gateway.log_lines(sent).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    let lines = gateway.log_lines(sent).await;
    assert_eq!((sent, lines.len()), (512, 512));
    let text = std::fs::read_to_string(gateway.folder().join("access.log")).unwrap();
    let breaks = |c: char| c != '\n' && c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    assert!(!text.contains(breaks));
    assert!(lines.iter().all(|line| line["status"] != 1 && line["msg"] == "request"));
}

/// Shows S-04.
#[tokio::test]
async fn long_fields_are_cut_and_say_so() {
    let gateway = Gateway::start(ROUTES).await;
    let mut client = gateway.client().await;
    let (long, wide) = ("z".repeat(24_000), "\u{1}\u{80}".repeat(2_000));
    let path = format!("/{}?page={}", "p".repeat(4_000), "q".repeat(4_000));
    client.request("GET", &path, "localhost", &[("User-Agent", &long)], b"").await;
    let wide = wide.replace('\u{1}', "\t");
    client.request("GET", &path, "localhost", &[("User-Agent", &wide)], b"").await;
    client.request("GET", "/short", "localhost", &[("User-Agent", "curl/8")], b"").await;
    let lines = gateway.log_lines(3).await;
    let text = std::fs::read_to_string(gateway.folder().join("access.log")).unwrap();
    assert!(text.lines().all(|line| line.len() <= 8 * 1024), "a line is too long");
    let cut: Vec<&Value> = lines.iter().filter(|line| line["truncated"] == true).collect();
    assert_eq!(cut.len(), 2, "{lines:?}");
    for line in cut {
        for field in ["path", "query", "ua"] {
            let len = line[field].as_str().unwrap().len();
            assert!((100..=1024).contains(&len), "{field}: {len}");
        }
        assert_eq!(line["status"], 200);
    }
}
