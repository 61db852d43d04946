//! Holding a breaker open or closed: by whom, for how long, and what remains of it.

use std::time::Duration;

use sluice_chaos::raw::{Client, Response};
use sluice_chaos::recorder::{Answer, Recorder};

use super::{fill, page, state};
use crate::support::{Gateway, Setup, eventually, refusal};

const CONFIG: &str = r#"
upstreams:
  up: { endpoints: [ { address: "{0}" } ], breaker: { consecutive_failures: 2, half_open_requests: 1 } }
routes: [ { id: up, upstream: up } ]
"#;
const TOKEN: &str = "admin-token-0123456789abcdef0123456789abcdef";
const FORCE: &str = "/breakers/upstream:up/force";

/// A gateway with a token in its environment, or without one.
async fn start(recorder: &Recorder, with_token: bool) -> Gateway {
    let setup =
        Setup { env: vec![("ADMIN_TOKEN", TOKEN.to_owned())], with_token, ..Setup::default() };
    Gateway::start_with(&fill(CONFIG, &[recorder]), setup).await
}

async fn send(
    gateway: &Gateway,
    method: &str,
    path: &str,
    token: Option<&str>,
    (fields, body): (&[(&str, &str)], &str),
) -> Response {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let mut all = fields.to_vec();
    all.extend(bearer.as_deref().map(|bearer| ("Authorization", bearer)));
    let mut client = Client::connect(gateway.admin).await;
    client.request(method, path, "127.0.0.1", &all, body.as_bytes()).await
}

const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];

async fn force(gateway: &Gateway, body: &str) -> Response {
    send(gateway, "POST", FORCE, Some(TOKEN), (&JSON, body)).await
}

#[tokio::test]
async fn a_breaker_is_held_for_as_long_as_was_said_and_all_of_it_is_audited() {
    let recorder = Recorder::start();
    let gateway = start(&recorder, true).await;
    let forced = force(&gateway, r#"{ "state": "open", "for": "1h", "note": "drill" }"#).await;
    assert_eq!(forced.status, 200, "{}", forced.text());
    assert_eq!(forced.json()["timeline"][0]["why"], "forced");
    assert!(forced.json()["forced_until"].is_string());
    let refused = gateway.get("/a").await;
    assert_eq!((refused.status, refused.json()["reason"].as_str()), (503, Some("breaker_open")));
    assert_eq!(gateway.metric("sluice_breaker_forced{upstream=\"up\"}").await, 1.0);
    assert_eq!(gateway.metric("circuitbreaker_state{upstream=\"up\",state=\"open\"}").await, 1.0);
    let shown = page(&gateway, "/upstreams").await;
    assert!(shown["up"]["breaker"]["forced_until"].is_string(), "{shown}");
    // A reload leaves it as it is.
    gateway.daemon.signal("HUP");
    gateway.wait_for_generation(2).await;
    assert_eq!(gateway.get("/a").await.status, 503);

    let released = send(&gateway, "DELETE", FORCE, Some(TOKEN), (&[], "")).await;
    assert_eq!((released.status, released.json()["state"].as_str()), (200, Some("half_open")));
    eventually("a trial", async || gateway.get("/a").await.status == 200).await;

    // Held closed, nothing opens it, until the time is over.
    assert_eq!(force(&gateway, r#"{ "state": "closed", "for": "2s" }"#).await.status, 200);
    recorder.set(Answer::new(503));
    let mut before = 0;
    while state(&gateway, "upstream:up").await == "closed" && before < 4 {
        gateway.get("/a").await;
        before += 1;
    }
    assert!(before >= 3, "two failures opened a breaker that was held closed");
    eventually("the end of it", async || {
        gateway.get("/a").await;
        state(&gateway, "upstream:up").await == "open"
    })
    .await;
    let timeline = page(&gateway, "/breakers/upstream:up").await["timeline"].clone();
    let whys: Vec<&str> =
        timeline.as_array().unwrap().iter().filter_map(|it| it["why"].as_str()).collect();
    assert!(whys.contains(&"released") && whys.contains(&"force_over"), "{whys:?}");

    let nobody = "/breakers/upstream:nobody/force";
    let body = (&JSON[..], r#"{ "state": "open", "for": "1m" }"#);
    assert_eq!(send(&gateway, "POST", nobody, Some(TOKEN), body).await.status, 404);
    for (body, why) in [
        ("", "not understood"),
        (r#"{ "state": "open" }"#, "missing field `for`"),
        (r#"{ "state": "ajar", "for": "1m" }"#, "unknown variant"),
        (r#"{ "state": "open", "for": "25h" }"#, "between 1s and 1d"),
        (r#"{ "state": "open", "for": "10ms" }"#, "between 1s and 1d"),
    ] {
        let answer = force(&gateway, body).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.text().contains(why), "{body}: {}", answer.text());
    }
    assert_eq!(force(&gateway, &"x".repeat(5000)).await.status, 413);
    let plain = [("Content-Type", "text/plain")];
    let plain = send(&gateway, "POST", FORCE, Some(TOKEN), (&plain, body.1)).await;
    assert_eq!(plain.status, 415);

    let audit = page(&gateway, "/audit").await;
    let entries = audit["entries"].as_array().unwrap();
    let first = &entries[0];
    assert_eq!(
        (first["action"].as_str(), first["target"].as_str(), first["outcome"].as_str()),
        (Some("force"), Some("upstream:up"), Some("done"))
    );
    assert_eq!(first["token"].as_str().map(str::len), Some(8));
    assert!(first["asked"].as_str().unwrap().contains("drill"), "{first}");
    assert!(first["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert_eq!(entries.len(), 3 + 1 + 5 + 2);
    assert_eq!(gateway.metric("sluice_admin_writes_total{outcome=\"done\"}").await, 3.0);
    assert_eq!(gateway.metric("sluice_admin_writes_total{outcome=\"refused\"}").await, 8.0);
    gateway.daemon.wait_for_output("admin write").await;
    // What every test looks for: the token is in none of all this.
}

/// Shows A-02.
#[tokio::test]
async fn without_a_token_in_the_config_nothing_is_changed() {
    let recorder = Recorder::start();
    let gateway = start(&recorder, false).await;
    for token in [None, Some(""), Some(TOKEN)] {
        let body = (&JSON[..], r#"{ "state": "open", "for": "1m" }"#);
        let answer = send(&gateway, "POST", FORCE, token, body).await;
        assert_eq!(answer.status, 403);
        assert!(answer.text().contains("writes are off"), "{}", answer.text());
    }
    assert_eq!(state(&gateway, "upstream:up").await, "closed");
    for (token, why) in [
        ("\"\"", "the token has 0 bytes; 32 to 1024 are needed"),
        ("\"0123456789abcdef0123456789abcde\"", "the token has 31 bytes"),
        ("\"0123456789abcdef 0123456789abcdef\"", "blanks"),
    ] {
        let said = refusal(&format!(
            "admin: {{ token: {token} }}\nroutes: [ {{ id: a, filters: [ {{ respond: {{}} }} ] }} ]\n"
        ));
        assert!(said.contains(why), "{said}");
    }
}

/// Shows A-03.
#[tokio::test]
async fn pages_in_browsers_change_nothing_even_with_the_token() {
    let recorder = Recorder::start();
    let gateway = start(&recorder, true).await;
    let body = r#"{ "state": "open", "for": "1m" }"#;
    for field in [
        ("Origin", "http://127.0.0.1:9901"),
        ("Origin", "null"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-origin"),
    ] {
        let fields = [JSON[0], field];
        let answer = send(&gateway, "POST", FORCE, Some(TOKEN), (&fields, body)).await;
        assert_eq!(answer.status, 403, "{field:?}");
        assert!(answer.header("access-control-allow-origin").is_none());
    }
    let mut client = Client::connect(gateway.admin).await;
    let bearer = format!("Bearer {TOKEN}");
    let fields = [JSON[0], ("Authorization", &*bearer)];
    let foreign = client.request("POST", FORCE, "evil.example", &fields, body.as_bytes()).await;
    assert_eq!(foreign.status, 403);
    let preflight = send(&gateway, "OPTIONS", FORCE, None, (&[], "")).await;
    assert_eq!((preflight.status, preflight.header("allow")), (405, Some("POST, DELETE")));
    assert_eq!(state(&gateway, "upstream:up").await, "closed");
}

/// Shows A-06.
#[tokio::test]
async fn guessing_is_slow_and_does_not_lock_the_operator_out() {
    let recorder = Recorder::start();
    let gateway = start(&recorder, true).await;
    let body = (&JSON[..], r#"{ "state": "open", "for": "1m" }"#);
    let almost = format!("{}x", &TOKEN[..TOKEN.len() - 1]);
    let mut answers = Vec::new();
    for token in [None, Some(""), Some("short"), Some(&*almost), Some(TOKEN.trim_end_matches('f'))]
    {
        let answer = send(&gateway, "POST", FORCE, token, body).await;
        if answer.status == 401 {
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        }
        answers.push(answer.status);
    }
    assert_eq!(answers, [401; 5]);
    for _ in 0..50 {
        let answer = send(&gateway, "DELETE", FORCE, Some(&almost), (&[], "")).await;
        let after = answer.header("retry-after").and_then(|it| it.parse::<u64>().ok());
        assert_eq!(answer.status, 429);
        assert!(after.is_some_and(|after| (1..=61).contains(&after)), "{after:?}");
    }
    assert_eq!(state(&gateway, "upstream:up").await, "closed");
    assert_eq!(force(&gateway, body.1).await.status, 200);
    let audit = page(&gateway, "/audit").await;
    assert_eq!(audit["entries"].as_array().unwrap().len(), 6, "{audit}");
    assert_eq!(audit["denials_untold"], 50);
    assert_eq!(gateway.metric("sluice_admin_writes_total{outcome=\"denied\"}").await, 55.0);
    // Whoever waits for a body that does not come holds up nobody.
    let mut slow = Client::connect(gateway.admin).await;
    slow.send(format!(
        "POST {FORCE} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: application/json\r\nContent-Length: 30\r\n\r\n{{"
    ))
    .await;
    tokio::time::timeout(Duration::from_secs(5), page(&gateway, "/breakers")).await.unwrap();
}

/// Shows A-01, A-04.
#[tokio::test]
async fn the_admin_address_is_local_and_no_route_leads_to_it() {
    let route = "routes: [ { id: a, filters: [ { respond: {} } ] } ]\n";
    let said = refusal(&format!("admin: {{ address: \"0.0.0.0:9901\" }}\n{route}"));
    assert!(said.contains("must be a loopback address"), "{said}");
    for address in ["127.0.0.1:9901", "localhost:9901"] {
        let said = refusal(&format!(
            "upstreams: {{ up: {{ endpoints: [ {{ address: \"{address}\" }} ] }} }}\n\
             routes: [ {{ id: a, upstream: up }} ]\n"
        ));
        assert!(said.contains("this is the admin address"), "{said}");
    }
}
