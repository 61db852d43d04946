//! The heads of HTTP/1 requests as they come: what every reader reads in the same way passes, all else
//! is refused in our own words, and the connection ends. The names begin with the row of the threat
//! model that they show to be held.

use std::time::Duration;

use sluice_chaos::pki::{self, Authority};
use sluice_chaos::raw::{self, Client, Response};
use sluice_chaos::recorder::Recorder;

use crate::configs::passing;
use crate::support::{Gateway, Setup, eventually};

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// An answer in our envelope, its last on this connection, and of nothing that the client said.
fn check(answer: &Response, status: u16, reason: &str, sent: &[u8]) {
    let sent = sent.escape_ascii();
    assert_eq!(answer.status, status, "{sent}: {answer:?}");
    assert_eq!(answer.json()["reason"], reason, "{sent}");
    assert_eq!(answer.json()["code"], status, "{sent}");
    assert_eq!(answer.header("connection"), Some("close"), "{sent}");
    assert!(answer.header("date").is_some(), "{sent}");
    assert!(answer.complete && answer.closed, "{sent}: {answer:?}");
}

/// Each of these is refused, counted and logged; the service hears of none, and nothing behind it is
/// read.
async fn all_refused(table: &[(&[u8], u16, &str)]) {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    for (head, status, reason) in table {
        let series = format!("sluice_rejected_total{{reason=\"{reason}\"}}");
        let before = gateway.metric(&series).await;
        let bytes = [head, &b"\r\n\r\n0\r\n\r\n"[..], SMUGGLED.as_bytes()].concat();
        // In one piece, and in two.
        for cut in [bytes.len(), head.len() / 2] {
            let mut client = gateway.client().await;
            let (first, second) = bytes.split_at(cut);
            client.send(first).await;
            if !second.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
                // It may be refused by now.
                let _ = client.try_send(second).await;
            }
            check(&client.response().await, *status, reason, head);
        }
        assert_eq!(gateway.metric(&series).await, before + 2.0, "{}", head.escape_ascii());
    }
    assert_eq!(recorder.begun(), 0, "{:?}", recorder.requests());
    // Workers write their lines apart.
    let mut logged: Vec<(u64, String)> = Vec::new();
    for line in gateway.log_lines(table.len() * 2).await {
        assert_eq!((line["method"].as_str(), line["path"].as_str()), (Some("-"), Some("")));
        logged
            .push((line["status"].as_u64().unwrap(), line["reason"].as_str().unwrap().to_owned()));
    }
    let rows = table.iter().flat_map(|row| [row, row]);
    let mut expected: Vec<_> =
        rows.map(|(_, status, reason)| (u64::from(*status), (*reason).to_owned())).collect();
    logged.sort();
    expected.sort();
    assert_eq!(logged, expected);
    assert_eq!(gateway.metric("sluice_http_requests_in_flight").await, 0.0);
    assert_eq!(gateway.metric("sluice_client_protocol_errors_total").await, 0.0);
}

/// Requests with these fields.
async fn fields_refused(version: &str, table: &[(&str, u16, &str)]) {
    let heads: Vec<(Vec<u8>, u16, &str)> = table
        .iter()
        .map(|(fields, status, reason)| {
            let head = format!("POST / {version}\r\nHost: a\r\n{}", fields.replace('\n', "\r\n"));
            (head.into_bytes(), *status, *reason)
        })
        .collect();
    let heads: Vec<_> =
        heads.iter().map(|(head, status, reason)| (&head[..], *status, *reason)).collect();
    all_refused(&heads).await;
}

#[tokio::test]
async fn h1_01_length_and_coding_together_are_refused() {
    fields_refused(
        "HTTP/1.1",
        &[
            ("Content-Length: 4\nTransfer-Encoding: chunked", 400, "cl_te"),
            ("Transfer-Encoding: chunked\nContent-Length: 4", 400, "cl_te"),
            ("Transfer-Encoding: gzip\nContent-Length: 0", 400, "cl_te"),
        ],
    )
    .await;
}

#[tokio::test]
async fn h1_02_codings_beside_chunked_are_not_understood() {
    fields_refused(
        "HTTP/1.1",
        &[
            ("Transfer-Encoding: gzip, chunked", 501, "te_unsupported"),
            ("Transfer-Encoding: chunked, chunked", 501, "te_unsupported"),
            ("Transfer-Encoding: ,chunked", 501, "te_unsupported"),
            ("Transfer-Encoding: chunked\nTransfer-Encoding: chunked", 501, "te_unsupported"),
            ("Transfer-Encoding: identity\nTransfer-Encoding: chunked", 501, "te_unsupported"),
        ],
    )
    .await;
}

#[tokio::test]
async fn h1_03_codings_that_do_not_end_in_chunked_are_refused() {
    fields_refused(
        "HTTP/1.1",
        &[
            ("Transfer-Encoding: xchunked", 400, "te_bad"),
            ("Transfer-Encoding: \"chunked\"", 400, "te_bad"),
            ("Transfer-Encoding: \u{b}chunked", 400, "head_malformed"),
            ("Transfer-Encoding: chunked;q=1", 400, "te_bad"),
            ("Transfer-Encoding: chunked, identity", 400, "te_bad"),
            ("Transfer-Encoding: gzip", 400, "te_bad"),
            ("Transfer-Encoding:", 400, "te_bad"),
        ],
    )
    .await;
    fields_refused("HTTP/1.0", &[("Transfer-Encoding: chunked", 400, "te_bad")]).await;
}

#[tokio::test]
async fn h1_04_a_length_is_one_number() {
    let values = ["+5", "-1", "0x5", "5, 5", "", "18446744073709551616", "18446744073709551615"];
    let fields: Vec<String> =
        values.iter().map(|value| format!("Content-Length: {value}")).collect();
    let table: Vec<_> =
        fields.iter().map(|field| (field.as_str(), 400, "length_invalid")).collect();
    fields_refused("HTTP/1.1", &table).await;
    all_refused(&[(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \xa05", 400, "length_invalid")])
        .await;
}

#[tokio::test]
async fn h1_05_of_equal_lengths_one_is_forwarded_and_differing_ones_are_refused() {
    fields_refused("HTTP/1.1", &[("Content-Length: 5\nContent-Length: 6", 400, "length_invalid")])
        .await;
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    let request =
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello";
    let answer = raw::exchange(gateway.http, request).await;
    assert_eq!(answer.status, 200);
    let seen = &recorder.wait_for(1).await[0];
    assert_eq!((seen.all("content-length"), seen.text().as_str()), (vec!["5"], "hello"));
}

#[tokio::test]
async fn h1_06_folded_lines_and_misplaced_spaces_are_refused() {
    fields_refused(
        "HTTP/1.1",
        &[
            ("X: b\n c", 400, "head_malformed"),
            ("X: b\n\tc", 400, "head_malformed"),
            ("X : b", 400, "head_malformed"),
            ("Content-Length : 5", 400, "head_malformed"),
            ("X Y: b", 400, "head_malformed"),
        ],
    )
    .await;
    all_refused(&[(b"GET / HTTP/1.1\r\n X: b\r\nHost: a", 400, "head_malformed")]).await;
}

#[tokio::test]
async fn h1_07_control_bytes_and_malformed_names_are_refused_and_not_logged() {
    let lines: [&[u8]; 12] = [
        b"X: a\rb",
        b"X: a\r\r\nY: b",
        b"X: a\0b",
        b"X: a\x01b",
        b"X: a\x7fb",
        b"X: \x1b[31mred",
        b"X\0: a",
        b"X\x7f: a",
        b": a",
        b"Host",
        b"X(A): b",
        b"X\xe9: b",
    ];
    let heads: Vec<Vec<u8>> =
        lines.iter().map(|line| [b"GET / HTTP/1.1\r\nHost: a\r\n", *line].concat()).collect();
    let table: Vec<_> = heads.iter().map(|head| (&head[..], 400, "head_malformed")).collect();
    all_refused(&table).await;
    all_refused(&[
        (b"GET /\x01 HTTP/1.1\r\nHost: a", 400, "head_malformed"),
        (b"GET /\xff HTTP/1.1\r\nHost: a", 400, "head_malformed"),
        (b"GET  / HTTP/1.1\r\nHost: a", 400, "head_malformed"),
        (b"G(T / HTTP/1.1\r\nHost: a", 400, "head_malformed"),
        (b"GET /< HTTP/1.1\r\nHost: a", 400, "target_invalid"),
        (b"GET http:// HTTP/1.1\r\nHost: a", 400, "target_invalid"),
    ])
    .await;
}

#[tokio::test]
async fn h1_08_bare_line_feeds_are_read_and_never_written() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    let mut client = gateway.client().await;
    for request in
        ["GET /1 HTTP/1.1\nHost: a\nX: y\n\n", "\r\n\nGET /1 HTTP/1.1\r\nHost: a\nX: y\r\n\n"]
    {
        client.send(request).await;
        assert_eq!(client.response().await.status, 200);
    }
    for seen in recorder.wait_for(2).await {
        assert_eq!((seen.target.as_str(), seen.header("x")), ("/1", Some("y")));
    }
}

/// The service has to see that the request was cut.
#[tokio::test]
async fn h1_09_chunks_that_readers_disagree_about_end_the_request() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    for (cut, body) in [
        "5\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "00000000000000005\r\nhello\r\n10000000000000000\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "0\r\nGET /x HTTP/1.1\rHost: a\r\n\r\n",
        "0\r\nX: y\n\r\n",
    ]
    .iter()
    .enumerate()
    {
        let mut client = gateway.client().await;
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.send(format!("{head}3\r\nabc\r\n")).await;
        recorder.wait_for_begun(cut as u64 + 1).await;
        client.send(format!("{body}{SMUGGLED}")).await;
        let answer = client.response().await;
        assert_eq!((answer.status, answer.closed), (400, true), "{body:?}: {answer:?}");
        assert_eq!(answer.json()["reason"], "body_broken", "{body:?}");
        let seen = recorder.wait_for(cut + 1).await.pop().unwrap();
        assert_eq!((seen.target.as_str(), seen.complete), ("/", false), "{body:?}");
    }
}

#[tokio::test]
async fn h1_12_a_trailer_section_without_end_is_no_request() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    let start = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut client = gateway.client().await;
    client.send(format!("{start}0\r\nGET /x HTTP/1.1\r\nHost: a\r\n")).await;
    client.half_close().await;
    let answer = client.try_response_to("POST").await;
    assert!(answer.as_ref().is_none_or(|answer| matches!(answer.status, 400 | 499)), "{answer:?}");
    // The head may have been passed on before the end was seen; never is it a whole request.
    let seen = recorder.requests();
    assert!(seen.iter().all(|seen| seen.target == "/" && !seen.complete), "{seen:?}");
}

#[tokio::test]
async fn h1_13_each_of_many_pipelined_requests_is_judged_and_answered_in_order() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    let mut client = gateway.client().await;
    let mut sent: String = (0..40)
        .map(|n| match n % 3 {
            0 => format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"),
            1 => format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nGET"),
            _ => format!(
                "POST /{n} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nGET\r\n0\r\n\r\n"
            ),
        })
        .collect();
    sent.push_str("GET /bad HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n");
    sent.push_str(SMUGGLED);
    client.send(&sent).await;
    for n in 0..40 {
        let answer = client.response().await;
        assert_eq!((answer.status, answer.header("connection")), (200, None), "{n}");
    }
    check(&client.response().await, 400, "length_invalid", b"the last");
    let targets: Vec<String> = recorder.requests().into_iter().map(|seen| seen.target).collect();
    assert_eq!(targets, (0..40).map(|n| format!("/{n}")).collect::<Vec<_>>());
}

const GUARDED: &str = r#"
upstreams: { echo: { builtin: echo } }
routes:
  - { id: small, match: { path: /small }, filters: [ { size_limit: { body: 10B } } ], upstream: echo }
  - { id: closed, match: { path: /closed }, filters: [ { respond: { status: 403 } } ] }
"#;

#[tokio::test]
async fn h1_14_a_refusal_arrives_although_the_body_is_still_coming() {
    let gateway = Gateway::start(GUARDED).await;
    let body = vec![b'x'; 256 * 1024];
    for round in 0..100 {
        for (path, status) in [("/small", 413), ("/closed", 403)] {
            let mut client = gateway.client().await;
            let head =
                format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n");
            // Whoever writes without looking must still find the answer.
            let _ = client.try_send(head).await;
            let _ = client.try_send(&body).await;
            let answer = client.response().await;
            assert_eq!((answer.status, answer.complete), (status, true), "{round}: {answer:?}");
            let _ = client.try_send(SMUGGLED).await;
            assert!(client.closed_by_peer_within(Duration::from_secs(5)).await);
            assert!(client.try_response_to("GET").await.is_none(), "a body was read as a request");
        }
    }
}

#[tokio::test]
async fn a_refused_head_arrives_although_the_client_is_still_sending() {
    let gateway = Gateway::start(GUARDED).await;
    let rest = vec![b'x'; 200 * 1024];
    for _ in 0..50 {
        let mut client = gateway.client().await;
        client.send("POST / HTTP/1.1\r\nHost : a\r\n\r\n").await;
        let _ = client.try_send(&rest).await;
        check(&client.response().await, 400, "head_malformed", b"Host :");
    }
}

const IMPATIENT: &str = r#"listeners:
  - { name: plain, address: "{http}", timeouts: { head: 600ms, keepalive: 3s, handshake: 1s } }
"#;

#[tokio::test]
async fn h1_17_a_head_that_does_not_come_to_its_end_is_answered_in_time() {
    let recorder = Recorder::start();
    let setup = Setup { listeners: Some(IMPATIENT), ..Setup::default() };
    let gateway = Gateway::start_with(&passing(recorder.addr()), setup).await;
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let begun = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
    // At once, after a request, together with one, and byte by byte.
    let mut alone = gateway.client().await;
    alone.send(begun).await;
    let mut second = gateway.client().await;
    second.send(get).await;
    assert_eq!(second.response().await.status, 200);
    second.send(begun).await;
    let mut behind = gateway.client().await;
    behind.send(format!("{get}{begun}")).await;
    assert_eq!(behind.response().await.status, 200);
    let mut slow = gateway.client().await;
    slow.drip(format!("{begun}{}", "x".repeat(20)), Duration::from_millis(50)).await;
    for mut client in [alone, second, behind, slow] {
        check(&client.response().await, 408, "head_timeout", begun.as_bytes());
    }
    assert_eq!(gateway.metric("sluice_rejected_total{reason=\"head_timeout\"}").await, 4.0);
    let lines = gateway.log_lines(6).await;
    assert_eq!(lines.iter().filter(|line| line["status"] == 408).count(), 4, "{lines:?}");
    assert_eq!(recorder.begun(), 2);
}

#[tokio::test]
async fn h1_18_who_says_nothing_or_half_a_preface_is_left_without_a_word() {
    let recorder = Recorder::start();
    let setup = Setup { listeners: Some(IMPATIENT), ..Setup::default() };
    let gateway = Gateway::start_with(&passing(recorder.addr()), setup).await;
    for said in ["", "P", "PRI * HT"] {
        let mut client = gateway.client().await;
        client.send(said).await;
        assert_eq!(client.read_to_end().await, b"", "{said:?}");
    }
    // Nor does it need polling to tell the two apart.
    let mut client = gateway.client().await;
    for part in ["PRI", " /x HTTP/1.1\r\nHost: a\r\n\r\n"] {
        client.send(part).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert_eq!(client.response().await.status, 501, "PRI is a method nobody knows");
    let mut client = gateway.client().await;
    client.send("PRI * HT").await;
    client.half_close().await;
    assert_eq!(client.read_to_end().await, b"");
}

#[tokio::test]
async fn h1_22_tls_on_the_plain_port_is_refused_at_once_and_the_other_way_round() {
    let (authority, recorder) = (Authority::new(), Recorder::start());
    let pair = authority.issue(&["localhost"]);
    let gateway = Gateway::start_with(&passing(recorder.addr()), Setup::with_tls(&pair)).await;
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    check(&raw::exchange(gateway.http, hello).await, 400, "head_malformed", hello);
    let mut client = Client::connect(gateway.https).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(!client.read_to_end().await.starts_with(b"HTTP/"));
    // What is refused inside TLS is answered inside TLS.
    let trust = pki::client_config(&authority, &["http/1.1"]);
    let mut client = Client::connect_tls(gateway.https, "localhost", trust).await;
    client.send("GET / HTTP/1.1\r\nHost : a\r\n\r\n").await;
    check(&client.response().await, 400, "head_malformed", b"Host :");
}

#[tokio::test]
async fn h1_23_other_versions_are_refused() {
    all_refused(&[
        (b"GET / HTTP/1.2\r\nHost: a", 505, "version_unsupported"),
        (b"GET / HTTP/2.0\r\nHost: a", 505, "version_unsupported"),
        (b"GET / HTTP/0.9\r\nHost: a", 505, "version_unsupported"),
        (b"GET /", 400, "head_malformed"),
        (b"GET / http/1.1\r\nHost: a", 400, "head_malformed"),
        (b"GET / HTTP/1.1 \r\nHost: a", 400, "head_malformed"),
    ])
    .await;
}

#[tokio::test]
async fn h1_29_heads_have_limits() {
    let fields: String = (0..101).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let many = format!("GET / HTTP/1.1\r\n{}", fields.trim_end());
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(300 * 1024));
    let target = format!("GET /{} HTTP/1.1\r\nHost: a", "x".repeat(9 * 1024));
    let name = format!("GET / HTTP/1.1\r\nHost: a\r\n{}: b", "x".repeat(2000));
    all_refused(&[
        (many.as_bytes(), 431, "head_too_large"),
        (large.as_bytes(), 431, "head_too_large"),
        (name.as_bytes(), 431, "head_too_large"),
        (target.as_bytes(), 414, "target_too_long"),
    ])
    .await;
}

const LARGE: &str = r#"listeners:
  - { name: plain, address: "{http}", limits: { head: 1MiB } }
"#;

/// Larger than what hyper reads at first, so that the gate has to hand it on in pieces.
#[tokio::test]
async fn a_large_head_within_the_limit_passes_whole() {
    let recorder = Recorder::start();
    let setup = Setup { listeners: Some(LARGE), ..Setup::default() };
    let gateway = Gateway::start_with(&passing(recorder.addr()), setup).await;
    for size in [7_000, 8_192, 9_000, 40_000, 500_000, 1_000_000] {
        let value = "x".repeat(size);
        let mut client = gateway.client().await;
        for _ in 0..2 {
            let headers = [("X-Large", value.as_str())];
            let answer = client.request("POST", "/x", "a", &headers, b"body").await;
            assert_eq!(answer.status, 200, "{size}: {answer:?}");
            let seen = recorder.requests().pop().unwrap();
            assert_eq!(
                (seen.header("x-large"), seen.text().as_str()),
                (Some(value.as_str()), "body")
            );
        }
    }
    let target = format!("/{}", "x".repeat(100_000));
    let answer = gateway.get(&target).await;
    assert_eq!(answer.json()["reason"], "target_too_long");
}

#[tokio::test]
async fn a_refused_head_request_is_answered_without_a_body() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    let mut client = gateway.client().await;
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n").await;
    let answer = client.response_to("HEAD").await;
    assert_eq!((answer.status, answer.closed), (400, true));
    assert_eq!(client.read_to_end().await, b"");
    eventually("the log line", async || {
        gateway.log_lines(1).await[0]["reason"] == "length_invalid"
    })
    .await;
    assert_eq!(gateway.metric("sluice_client_aborts_total").await, 0.0);
}
