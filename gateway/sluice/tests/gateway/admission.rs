//! What is let in: raw requests, and what became of each. The service must see exactly the canonical
//! form of what was matched.

use std::time::Duration;

use sluice_chaos::raw;
use sluice_chaos::recorder::Recorder;

use crate::configs::passing;
use crate::support::{Gateway, Setup};

/// Sends a request without a body of its own on a new connection.
async fn send(gateway: &Gateway, request: &str) -> raw::Response {
    let request = request.replace('\n', "\r\n");
    raw::exchange(gateway.http, format!("{request}\r\n\r\n")).await
}

/// Every request is refused with this status and reason, and the service hears of none.
async fn all_refused(table: &[(&str, u16, &str)]) {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    for (request, status, reason) in table {
        let answer = send(&gateway, request).await;
        assert_eq!(answer.status, *status, "{request}: {answer:?}");
        if !reason.is_empty() {
            assert_eq!(answer.json()["reason"], *reason, "{request}");
            let series = format!("sluice_rejected_total{{reason=\"{reason}\"}}");
            assert!(gateway.metric(&series).await >= 1.0, "{series}");
        }
    }
    assert_eq!(recorder.begun(), 0);
}

/// Shows HD-01.
#[tokio::test]
async fn hosts() {
    all_refused(&[
        ("GET / HTTP/1.1\nHost: a\nHost: a", 400, "host_invalid"),
        ("GET / HTTP/1.1\nHost: a\nHost: b", 400, "host_invalid"),
        ("GET / HTTP/1.1", 400, "host_invalid"),
        ("GET / HTTP/1.1\nHost:", 400, "host_invalid"),
        ("GET / HTTP/1.1\nHost: a b", 400, "host_invalid"),
        ("GET / HTTP/1.1\nHost: a,b", 400, "host_invalid"),
        ("GET / HTTP/1.1\nHost: a/@c", 400, "host_invalid"),
        ("GET / HTTP/1.1\nHost: u@a", 400, "host_invalid"),
        ("GET / HTTP/1.1\nHost: a:99999", 400, "host_invalid"),
        ("GET / HTTP/1.1\nHost: a:0", 400, "host_invalid"),
        ("GET / HTTP/1.1\nHost: a:+80", 400, "host_invalid"),
        ("GET / HTTP/1.1\nHost: [::1", 400, "host_invalid"),
        ("GET / HTTP/1.1\nHost: [gg::1]", 400, "host_invalid"),
        ("GET / HTTP/1.1\nHost: a..b", 400, "host_invalid"),
        ("GET / HTTP/1.1\nHost: ..", 400, "host_invalid"),
        ("GET / HTTP/1.1\nHost: a%20b", 400, "host_invalid"),
        ("GET / HTTP/1.0\nHost: a b", 400, "host_invalid"),
        ("GET / HTTP/1.0\nHost: a\nHost: b", 400, "host_invalid"),
    ])
    .await;
}

/// Shows HD-02, P-09.
#[tokio::test]
async fn targets() {
    all_refused(&[
        ("GET http://b/ HTTP/1.1\nHost: a", 400, "authority_mismatch"),
        ("GET http://a:81/ HTTP/1.1\nHost: a", 400, "authority_mismatch"),
        ("GET http://u@a/ HTTP/1.1\nHost: a", 400, "target_invalid"),
        ("GET http://u:p@a/ HTTP/1.1\nHost: u:p@a", 400, "target_invalid"),
        ("GET https://a/ HTTP/1.1\nHost: a", 400, "target_invalid"),
        ("GET ftp://a/ HTTP/1.1\nHost: a", 400, "target_invalid"),
        ("GET http://a/ HTTP/1.1", 400, "host_invalid"),
        ("GET * HTTP/1.1\nHost: a", 400, "target_invalid"),
        ("GET a:80 HTTP/1.1\nHost: a:80", 400, "target_invalid"),
        ("GET a HTTP/1.1\nHost: a", 400, "target_invalid"),
    ])
    .await;
}

/// Shows H1-24.
#[tokio::test]
async fn methods() {
    all_refused(&[
        ("CONNECT a:443 HTTP/1.1\nHost: a:443", 405, "method_refused"),
        ("TRACE / HTTP/1.1\nHost: a", 405, "method_refused"),
        ("get / HTTP/1.1\nHost: a", 501, "method_unknown"),
        ("BREW / HTTP/1.1\nHost: a", 501, "method_unknown"),
        ("PROPFIND / HTTP/1.1\nHost: a", 501, "method_unknown"),
    ])
    .await;
}

/// Shows H1-29.
#[tokio::test]
async fn sizes() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    let fields = |n: usize| (1..n).map(|n| format!("\nX-{n}: {n}")).collect::<String>();
    let allowed = send(&gateway, &format!("GET / HTTP/1.1\nHost: a{}", fields(100))).await;
    assert_eq!(allowed.status, 200, "100 fields");
    let many = send(&gateway, &format!("GET / HTTP/1.1\nHost: a{}", fields(101))).await;
    assert_eq!((many.status, many.closed), (431, true));
    let large = format!("GET / HTTP/1.1\nHost: a\nX: {}", "x".repeat(33 * 1024));
    let large = send(&gateway, &large).await;
    assert_eq!((large.status, large.closed), (431, true));
    let fits = format!("GET / HTTP/1.1\nHost: a\nX: {}", "x".repeat(30 * 1024));
    assert_eq!(send(&gateway, &fits).await.status, 200);

    let long = |n: usize| format!("GET /{} HTTP/1.1\nHost: a", "x".repeat(n));
    assert_eq!(send(&gateway, &long(8000)).await.status, 200);
    let too_long = send(&gateway, &long(9 * 1024)).await;
    assert_eq!(
        (too_long.status, too_long.json()["reason"].as_str()),
        (414, Some("target_too_long"))
    );
    let query = send(&gateway, &format!("GET /?{} HTTP/1.1\nHost: a", "x".repeat(9 * 1024))).await;
    assert_eq!(query.status, 414);
    assert_eq!(recorder.requests().len(), 3);
}

/// Shows P-01, P-02, P-05.
#[tokio::test]
async fn paths_without_one_meaning_are_refused() {
    for path in [
        "/..",
        "/../etc",
        "/a/../../b",
        "/%2e%2e/x",
        "/a/%2E%2e/../..",
        "/a%2Fb",
        "/a%2fb",
        "/a%5Cb",
        "/a\\b",
        "/a%00",
        "/a%0d%0ab",
        "/a%7F",
        "/%",
        "/%4",
        "/%zz",
        "/a/..;/b",
        "/..;x=y/a",
    ] {
        all_refused(&[(&format!("GET {path} HTTP/1.1\nHost: a"), 400, "path_invalid")]).await;
    }
}

/// Shows P-01, P-03, P-04.
#[tokio::test]
async fn what_is_matched_is_what_is_forwarded() {
    let recorder = Recorder::start();
    let config = format!(
        r#"
upstreams: {{ service: {{ endpoints: [ {{ address: "{}" }} ] }} }}
routes:
  - {{ id: admin, match: {{ path: "/admin/**" }}, filters: [ {{ respond: {{ status: 403 }} }} ] }}
  - {{ id: rest, match: {{ path: "/**" }}, upstream: service }}
"#,
        recorder.addr()
    );
    let gateway = Gateway::start(&config).await;
    for (raw, canonical) in [
        ("/a", "/a"),
        ("//a", "/a"),
        ("/a//b", "/a/b"),
        ("/a/./b", "/a/b"),
        ("/a/b/../c", "/a/c"),
        ("/a/%2e%2e/c", "/c"),
        ("/a/..", "/"),
        ("/a/b/", "/a/b/"),
        ("/%61dm%69n", "/admin"),
        ("/x/../admin/y", "/admin/y"),
        ("//admin", "/admin"),
        ("/%7euser", "/~user"),
        ("/a%3fb", "/a%3Fb"),
        ("/a%20b%c3%a4", "/a%20b%C3%A4"),
        ("/a%2561", "/a%2561"),
        ("/a?b=%2e%2e/%zz//c", "/a?b=%2e%2e/%zz//c"),
        ("/a?", "/a?"),
        ("http://a/x/../y?q=1", "/y?q=1"),
        ("http://a", "/"),
        ("http://a?q", "/?q"),
    ] {
        let before = recorder.requests().len();
        let answer = send(&gateway, &format!("GET {raw} HTTP/1.1\nHost: a")).await;
        if canonical.starts_with("/admin") {
            assert_eq!(answer.status, 403, "{raw}");
            assert_eq!(recorder.requests().len(), before, "{raw} slipped past the guard");
        } else {
            assert_eq!(answer.status, 200, "{raw}: {answer:?}");
            assert_eq!(recorder.requests().pop().unwrap().target, canonical, "{raw}");
        }
    }
}

/// Shows P-10.
#[tokio::test]
async fn hosts_that_agree_are_let_in_in_one_form() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    for (request, host) in [
        ("GET / HTTP/1.1\nHost: A.Example.", "a.example"),
        ("GET / HTTP/1.1\nHost: a.example:8080", "a.example:8080"),
        ("GET http://A.example/ HTTP/1.1\nHost: a.Example", "a.example"),
        ("GET / HTTP/1.1\nHost: [::1]:80", "[::1]:80"),
        ("GET / HTTP/1.0\nHost: a.example", "a.example"),
    ] {
        assert_eq!(send(&gateway, request).await.status, 200, "{request}");
        assert_eq!(recorder.requests().pop().unwrap().all("host"), [host], "{request}");
    }
}

/// Shows H1-25.
#[tokio::test]
async fn http10_is_served_without_a_host_and_closed() {
    let recorder = Recorder::start();
    let config = format!(
        "{}  - {{ id: named, match: {{ path: /named, hosts: [ a.example ] }}, upstream: service }}\n",
        passing(recorder.addr())
    );
    let gateway = Gateway::start(&config).await;
    let answer = send(&gateway, "GET /x HTTP/1.0").await;
    assert_eq!((answer.status, answer.closed), (200, true));
    let seen = &recorder.wait_for(1).await[0];
    assert_eq!(seen.all("host"), [recorder.addr().to_string()], "the endpoint's own");
    assert_eq!((seen.version.as_str(), seen.target.as_str()), ("HTTP/1.1", "/x"));
    assert_eq!(gateway.log_lines(1).await[0]["proto"], "HTTP/1.0");

    let mut kept = gateway.client().await;
    for _ in 0..2 {
        kept.send("GET /x HTTP/1.0\r\nHost: a.example\r\nConnection: keep-alive\r\n\r\n").await;
        assert_eq!(kept.response().await.status, 200);
    }
}

#[tokio::test]
async fn a_refusal_that_leaves_the_framing_in_doubt_closes_and_others_do_not() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    let mut client = gateway.client().await;
    client.send("GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.response().await.status, 400);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200, "the connection lives on");
    client.send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await;
    let answer = client.response().await;
    assert_eq!(
        (answer.status, answer.header("connection"), answer.closed),
        (400, Some("close"), true)
    );
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    let mut client = gateway.client().await;
    let requests: String =
        (0..5).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    client.send(requests).await;
    for _ in 0..5 {
        assert_eq!(client.response().await.status, 200);
    }
    let targets: Vec<String> = recorder.wait_for(5).await.into_iter().map(|r| r.target).collect();
    assert_eq!(targets, ["/0", "/1", "/2", "/3", "/4"]);
}

#[tokio::test]
async fn the_scheme_of_the_target_is_the_scheme_of_the_connection() {
    let (authority, recorder) = (sluice_chaos::pki::Authority::new(), Recorder::start());
    let pair = authority.issue(&["localhost"]);
    let gateway = Gateway::start_with(&passing(recorder.addr()), Setup::with_tls(&pair)).await;
    let config = sluice_chaos::pki::client_config(&authority, &["http/1.1"]);
    let mut client = raw::Client::connect_tls(gateway.https, "localhost", config).await;
    client.send("GET https://localhost/a HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    assert_eq!(recorder.wait_for(1).await[0].header("x-forwarded-proto"), Some("https"));
    client.send("GET http://localhost/a HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(client.response().await.json()["reason"], "target_invalid");
    assert!(client.closed_by_peer_within(Duration::from_secs(5)).await);
}
