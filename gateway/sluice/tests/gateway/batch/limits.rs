//! What a batch may not do: be large, take long, hold much, or go on when its client has left.

use std::time::{Duration, Instant};

use serde_json::json;
use sluice_chaos::recorder::{Answer, Recorder};
use sluice_chaos::rogue::Rogue;

use super::{answers, batch, statuses};
use crate::support::{Gateway, Setup, eventually};

fn config(slow: std::net::SocketAddr, quick: std::net::SocketAddr, rules: &str) -> String {
    format!(
        r#"
batch: {{ {rules} }}
upstreams:
  batch: {{ builtin: batch }}
  slow: {{ endpoints: [ {{ address: "{slow}" }} ] }}
  quick: {{ endpoints: [ {{ address: "{quick}" }} ] }}
routes:
  - {{ id: batch, match: {{ path: /batch }}, upstream: batch }}
  - {{ id: slow, match: {{ path: /slow }}, upstream: slow }}
  - {{ id: quick, match: {{ path: "/**" }}, upstream: quick }}
"#
    )
}

/// Never answers.
fn silent() -> Rogue {
    Rogue::start(|mut talk| async move {
        talk.read_head().await;
        talk.closed_by_peer().await;
    })
}

#[tokio::test]
async fn the_time_of_a_batch_ends_what_is_not_there_and_keeps_the_rest() {
    let (slow, quick) = (silent(), Recorder::start());
    let rules = "timeout: 700ms, max_items: 3, max_body: 2KiB";
    let gateway = Gateway::start(&config(slow.addr(), quick.addr(), rules)).await;
    let calls = json!([
        { "id": "slow", "path": "/slow" },
        { "id": "behind", "path": "/a/{slow#/id}" },
        { "id": "quick", "path": "/quick" },
    ]);
    let said = answers(&gateway, &[], &calls).await;
    assert_eq!(statuses(&said), [504, 424, 200]);
    assert_eq!(said[0]["body"]["reason"], "deadline_exceeded");
    assert_eq!(said[2]["body"], "ok", "a text is a string");
    let four = json!([{ "id": "a", "path": "/" }, { "id": "b", "path": "/" }, { "id": "c", "path": "/" }, { "id": "d", "path": "/" }]);
    let refused = batch(&gateway, &[], &four).await;
    assert_eq!(refused.json()["data"]["why"], "too_many_requests");
    let large = json!([{ "id": "a", "path": format!("/{}", "x".repeat(3000)) }]);
    assert_eq!(batch(&gateway, &[], &large).await.status, 413);
}

#[tokio::test]
async fn answers_have_the_room_that_there_is_and_keep_their_form() {
    let quick = Recorder::deciding(|request| match request.target.as_str() {
        "/large" => Answer::ok("x".repeat(5000)),
        "/bytes" => Answer::new(200).body(vec![0xff, 0xfe]),
        "/broken" => Answer::new(200).header("Content-Type", "application/json").body("{"),
        "/fields" => {
            Answer::new(204).header("Set-Cookie", "a=1").header("X-A", "1").header("X-A", "2")
        }
        _ => Answer::ok("y".repeat(900)),
    });
    let rules = "max_answer: 2KiB, max_total: 2KiB";
    let gateway = Gateway::start(&config(quick.addr(), quick.addr(), rules)).await;
    let calls = json!([
        { "id": "large", "path": "/large" },
        { "id": "bytes", "path": "/bytes" },
        { "id": "broken", "path": "/broken" },
        { "id": "fields", "path": "/fields" },
    ]);
    let said = answers(&gateway, &[], &calls).await;
    assert_eq!(statuses(&said), [502, 200, 200, 204]);
    assert_eq!(said[0]["body"]["reason"], "answer_too_large");
    assert_eq!((&said[1]["body"], &said[1]["encoding"]), (&"//4=".into(), &"base64".into()));
    assert_eq!(said[2]["body"], "{", "what is no JSON is a text");
    assert_eq!((&said[3]["body"], &said[3]["headers"]["x-a"]), (&json!(null), &json!(["1", "2"])));
    assert_eq!(said[3]["headers"]["set-cookie"], json!(["a=1"]));
    let four = json!([{ "id": "a", "path": "/a" }, { "id": "b", "path": "/b" }, { "id": "c", "path": "/c" }]);
    let said = statuses(&answers(&gateway, &[], &four).await);
    assert_eq!(
        said.iter().filter(|status| **status == 502).count(),
        1,
        "2 of 900 bytes fit: {said:?}"
    );
}

/// One long text named a thousand times in a path, and many small values that are kept, took hundreds of
/// megabytes.
///
/// Shows BA-02.
#[tokio::test]
async fn references_do_not_multiply_what_others_have_answered() {
    let small = format!("[{}]", vec![r#"{"a":1}"#; 20_000].join(","));
    let quick = Recorder::deciding(move |request| {
        let body = match request.target.as_str() {
            "/long" => format!("\"{}\"", "%".repeat(200_000)),
            "/small" => small.clone(),
            _ => "1".to_owned(),
        };
        Answer::new(200).header("Content-Type", "application/json").body(body)
    });
    let gateway = Gateway::start(&config(quick.addr(), quick.addr(), "")).await;
    let paths = (0..19)
        .map(|n| json!({ "id": format!("p{n}"), "path": format!("/{}", "{long#}".repeat(1000)) }));
    let calls: Vec<_> =
        [json!({ "id": "long", "path": "/long" })].into_iter().chain(paths).collect();
    let begun = Instant::now();
    let said = answers(&gateway, &[], &json!(calls)).await;
    assert_eq!((said[0]["status"].as_u64(), &statuses(&said)[1..]), (Some(200), &[424; 19][..]));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    let calls = json!([
        { "id": "small", "path": "/small" },
        { "id": "first", "path": "/x/{small#/0/a}" },
    ]);
    let said = answers(&gateway, &[], &calls).await;
    assert_eq!(statuses(&said), [200, 424], "20,000 maps are too heavy to be referred to");
    let many = vec![json!({ "a": 1 }); 20_000];
    let calls =
        json!([{ "id": "a", "path": "/", "method": "POST", "body": [many, { "$ref": "a#" }] }]);
    let refused = batch(&gateway, &[], &calls).await;
    assert_eq!(refused.json()["data"]["why"], "body_too_heavy");
}

/// The connection to the slow service ends with the client, in both forms of the answer.
#[tokio::test]
async fn calls_end_with_their_client() {
    for fields in ["", "Accept: application/x-ndjson\r\n"] {
        let (slow, quick) = (silent(), Recorder::start());
        let gateway = Gateway::start(&config(slow.addr(), quick.addr(), "timeout: 30s")).await;
        let body =
            json!({ "requests": [{ "id": "s", "path": "/slow" }, { "id": "q", "path": "/q" }] });
        let (body, mut client) = (body.to_string(), gateway.client().await);
        let length = body.len();
        client
            .send(format!(
                "POST /batch HTTP/1.1\r\nHost: a\r\n{fields}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            ))
            .await;
        slow.wait_for_heads(1).await;
        drop(client);
        slow.wait_for_open(0).await;
        eventually("nothing to be under way", async || {
            gateway.metric("sluice_http_requests_in_flight").await == 0.0
        })
        .await;
        assert_eq!(slow.complaints(), Vec::<String>::new());
    }
}

/// Each answer is there as soon as it can be: the quick one while the slow one never comes.
#[tokio::test]
async fn answers_come_one_by_one_for_who_asks_for_lines() {
    let (slow, quick) = (
        silent(),
        Recorder::answering(
            Answer::new(200).header("Content-Type", "application/json").body("{\n\"a\":\r\n1}"),
        ),
    );
    let gateway = Gateway::start(&config(slow.addr(), quick.addr(), "timeout: 1500ms")).await;
    let body =
        json!({ "requests": [{ "id": "slow", "path": "/slow" }, { "id": "quick", "path": "/q" }] });
    let (body, mut client) = (body.to_string(), gateway.client().await);
    let length = body.len();
    client
        .send(format!(
            "POST /batch HTTP/1.0\r\nHost: a\r\nAccept: application/json;q=0.5, application/x-ndjson\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
        .await;
    let mut seen = String::new();
    while !seen.contains(r#""id":"quick""#) {
        let some = client.read_some().await;
        assert!(!some.is_empty(), "{seen}");
        seen.push_str(&String::from_utf8_lossy(&some));
    }
    assert!(!seen.contains(r#""id":"slow""#), "the slow one is not there yet: {seen}");
    seen.push_str(&String::from_utf8_lossy(&client.read_to_end().await));
    assert!(seen.to_ascii_lowercase().contains("content-type: application/x-ndjson"), "{seen}");
    let lines: Vec<&str> = seen.split("\r\n\r\n").nth(1).unwrap().lines().collect();
    assert_eq!(lines.len(), 2, "{seen}");
    let first: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
    assert_eq!((&first["id"], &first["body"]["a"]), (&"quick".into(), &1.into()));
    let second: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
    assert_eq!((&second["id"], &second["status"]), (&"slow".into(), &504.into()));
}

/// Whoever asks for lines and does not read them kept the calls that were under way, and their places at
/// services, for as long as he was waited for.
///
/// Shows BA-02.
#[tokio::test]
async fn calls_end_in_time_while_nobody_reads_their_lines() {
    const LARGE: usize = 12 * 1024 * 1024;
    let (slow, quick) = (silent(), Recorder::answering(Answer::ok("x".repeat(LARGE))));
    let rules = "timeout: 700ms, max_answer: 16MiB, max_total: 16MiB";
    let gateway = Gateway::start(&config(slow.addr(), quick.addr(), rules)).await;
    let body = json!({ "requests": [{ "id": "q", "path": "/q" }, { "id": "s", "path": "/slow" }] });
    let (body, mut client) = (body.to_string(), gateway.client().await);
    let length = body.len();
    client
        .send(format!(
            "POST /batch HTTP/1.1\r\nHost: a\r\nAccept: application/x-ndjson\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
        .await;
    slow.wait_for_heads(1).await;
    quick.wait_for(1).await;
    slow.wait_for_open(0).await;
    drop(client);
}

/// A batch of twenty, each of which takes a while, beside its slowest call alone.
#[tokio::test]
#[ignore = "second tier: wants a quiet machine; prints a table"]
async fn long_a_batch_takes_as_long_as_its_slowest_call() {
    const ROUNDS: usize = 200;
    let quick = Recorder::deciding(|request| {
        let wait = request.target.trim_start_matches("/wait/").parse().unwrap_or(0);
        Answer::ok("ok").delay(Duration::from_millis(wait))
    });
    let config =
        format!("access_log: {{ output: \"off\" }}\n{}", config(quick.addr(), quick.addr(), ""));
    let gateway = Gateway::start_with(&config, Setup::default()).await;
    let calls: Vec<_> =
        (1..=20).map(|n| json!({ "id": format!("c{n}"), "path": format!("/wait/{n}") })).collect();
    let body = json!({ "requests": calls }).to_string();
    let (mut alone, mut whole) = (Vec::new(), Vec::new());
    let mut client = gateway.client().await;
    let kind = [("Content-Type", "application/json")];
    for round in 0..ROUNDS + 20 {
        let begun = Instant::now();
        assert_eq!(client.request("GET", "/wait/20", "a", &[], b"").await.status, 200);
        let one = begun.elapsed();
        let begun = Instant::now();
        let answer = client.request("POST", "/batch", "a", &kind, body.as_bytes()).await;
        let all = begun.elapsed();
        assert!(!answer.text().contains(r#""status":5"#), "{}", answer.text());
        if round >= 20 {
            alone.push(one.as_secs_f64() * 1e3);
            whole.push(all.as_secs_f64() * 1e3);
        }
    }
    let at = |times: &mut Vec<f64>, share: f64| {
        times.sort_by(f64::total_cmp);
        times[(times.len() as f64 * share) as usize]
    };
    println!("| | p50 ms | p90 ms |\n|---|---|---|");
    let (one, nine) = (at(&mut alone, 0.5), at(&mut alone, 0.9));
    println!("| the slowest call alone | {one:.2} | {nine:.2} |");
    let (all, ninety) = (at(&mut whole, 0.5), at(&mut whole, 0.9));
    println!("| a batch of 20 | {all:.2} | {ninety:.2} |");
    println!("more in the middle: {:.2} ms", all - one);
    assert!(all - one <= 2.0, "{all} - {one}");
}
