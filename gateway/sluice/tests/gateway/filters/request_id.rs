//! Names of requests: made here, or taken over from those who are trusted.

use sluice_chaos::raw::Response;
use sluice_chaos::recorder::{Answer, Recorder};

use crate::support::Gateway;

const CONFIG: &str = r#"
upstreams: { up: { endpoints: [ { address: "{up}" } ] } }
routes:
  - { id: w3c, match: { path: /w3c }, filters: [ { request_id: {} } ], upstream: up }
  - { id: uuid, match: { path: /uuid }, filters: [ { request_id: { form: uuidv7 } } ], upstream: up }
  - id: flake
    match: { path: /flake }
    filters: [ { request_id: { form: snowflake, header: X-Seq } } ]
    upstream: up
  - id: open
    match: { path: /open }
    filters: [ { request_id: { form: uuidv7, trust_clients: true } } ]
    upstream: up
  - { id: bare, match: { path: /bare }, upstream: up }
"#;
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

async fn start() -> (Gateway, Recorder) {
    let recorder = Recorder::answering(Answer::echo());
    (Gateway::start(&CONFIG.replace("{up}", &recorder.addr().to_string())).await, recorder)
}

async fn call(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> Response {
    gateway.client().await.request("GET", path, "localhost", headers, b"").await
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[tokio::test]
async fn each_form_of_id_is_told_to_both_sides() {
    let (gateway, recorder) = start().await;
    let answer = call(&gateway, "/w3c", &[]).await;
    let seen = recorder.requests().pop().unwrap();
    let trace = answer.header("x-trace-id").unwrap();
    assert!(is_hex(trace, 32), "{trace}");
    assert_eq!(answer.header("x-request-id"), Some(trace));
    assert_eq!(seen.header("x-request-id"), Some(trace));
    assert_eq!(seen.header("x-trace-id"), Some(trace));
    let span = seen.header("x-span-id").unwrap();
    assert!(is_hex(span, 16), "{span}");
    assert_eq!(seen.header("traceparent"), Some(&*format!("00-{trace}-{span}-01")));

    let answer = call(&gateway, "/uuid", &[]).await;
    let id = answer.header("x-request-id").unwrap();
    let parts: Vec<&str> = id.split('-').collect();
    assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "{id}");
    assert!(parts[2].starts_with('7') && "89ab".contains(&parts[3][..1]), "{id}");
    assert_eq!(recorder.requests().pop().unwrap().header("x-request-id"), Some(id));

    let mut last = 0;
    for _ in 0..3 {
        let answer = call(&gateway, "/flake", &[]).await;
        let number: u64 = answer.header("x-seq").unwrap().parse().unwrap();
        assert!(number > last && i64::try_from(number).is_ok(), "{number} after {last}");
        assert_eq!(recorder.requests().pop().unwrap().header("x-seq"), Some(&*number.to_string()));
        last = number;
    }
    let log = gateway.log_lines(5).await;
    // Workers write apart, so lines are not in the order of the requests.
    let line = log.iter().find(|line| line["trace_id"] == trace).unwrap();
    assert_eq!((line["route"].as_str(), line["span_id"].as_str()), (Some("w3c"), Some(span)));
}

/// Shows HD-10.
#[tokio::test]
async fn what_clients_say_counts_only_where_they_are_trusted() {
    let (gateway, recorder) = start().await;
    let said = [("traceparent", PARENT), ("X-Request-Id", "mine-1"), ("X-Trace-Id", TRACE)];
    for path in ["/w3c", "/uuid"] {
        let answer = call(&gateway, path, &said).await;
        assert_ne!(answer.header("x-trace-id"), Some(TRACE), "{path}");
        let seen = recorder.requests().pop().unwrap();
        assert!(!seen.header("traceparent").unwrap().contains(TRACE));
        assert_eq!(seen.all("x-request-id").len(), 1);
        assert_ne!(seen.header("x-request-id"), Some("mine-1"));
        assert_ne!(seen.header("x-trace-id"), Some(TRACE));
    }
    let answer = call(&gateway, "/open", &said).await;
    assert_eq!(answer.header("x-trace-id"), Some(TRACE));
    assert_eq!(answer.header("x-request-id"), Some("mine-1"));
    let seen = recorder.requests().pop().unwrap();
    let span = seen.header("x-span-id").unwrap().to_owned();
    // The gateway is a span of its own, and keeps the wish not to be sampled.
    assert_ne!(span, "00f067aa0ba902b7");
    assert_eq!(seen.all("traceparent"), [format!("00-{TRACE}-{span}-00")]);
    assert_eq!(seen.header("x-request-id"), Some("mine-1"));

    call(&gateway, "/open", &[("X-Trace-Id", TRACE)]).await;
    let seen = recorder.requests().pop().unwrap();
    assert!(seen.header("traceparent").unwrap().starts_with(&format!("00-{TRACE}-")));
}

#[tokio::test]
async fn names_that_are_no_names_are_replaced() {
    let (gateway, recorder) = start().await;
    let zero = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
    let upper = PARENT.to_uppercase();
    for parent in [&*zero, &*upper, "ff-x", "00-1-2-3", "", "\u{ff}"] {
        let answer = call(&gateway, "/open", &[("traceparent", parent)]).await;
        let trace = answer.header("x-trace-id").unwrap();
        assert!(is_hex(trace, 32) && trace != TRACE, "{parent}: {trace}");
        let seen = recorder.requests().pop().unwrap();
        assert!(seen.header("traceparent").unwrap().contains(trace));
    }
    // Two parents are none.
    let answer = call(&gateway, "/open", &[("traceparent", PARENT), ("traceparent", PARENT)]).await;
    assert_ne!(answer.header("x-trace-id"), Some(TRACE));
    assert_eq!(recorder.requests().pop().unwrap().all("traceparent").len(), 1);
    for id in ["a b", "x\u{ff}", &"y".repeat(65), "\"><script>", "a;b"] {
        let answer = call(&gateway, "/open", &[("X-Request-Id", id)]).await;
        let named = answer.header("x-request-id").unwrap();
        assert_eq!(named.len(), 36, "{id} became {named}");
        assert_eq!(recorder.requests().pop().unwrap().all("x-request-id"), [named]);
    }
    // Without the filter what a client says about traces is passed on as it is.
    call(&gateway, "/bare", &[("traceparent", PARENT)]).await;
    assert_eq!(recorder.requests().pop().unwrap().header("traceparent"), Some(PARENT));
}
