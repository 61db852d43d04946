//! Several calls in one request: each goes its own way, refers to others, and gains nothing by being part of
//! a batch.

mod helper;
mod limits;
mod pages;

use serde_json::{Value, json};
use sluice_chaos::raw::Response;
use sluice_chaos::recorder::{Answer, Recorder};

use crate::support::{Gateway, Setup, refusal};
use crate::tokens::{Key, now};

/// Routes that a batch meets. `{top}` are more sections.
fn config(top: &str) -> String {
    format!(
        r#"
{top}
upstreams:
  echo: {{ builtin: echo }}
  batch: {{ builtin: batch }}
routes:
  - {{ id: batch, match: {{ path: /batch }}, upstream: batch }}
  - {{ id: open, match: {{ path: "/open/**" }}, upstream: echo }}
  - {{ id: writes, match: {{ path: "/writes/**" }}, upstream: echo, batch: all }}
  - {{ id: alone, match: {{ path: /alone }}, upstream: echo, batch: none }}
  - id: mine
    match: {{ path: /mine }}
    upstream: echo
    filters: [ {{ jwt: {{ keys: [ {{ kid: k, alg: HS256, secret_file: jwt.key }} ], claims_to_headers: {{ X-User: sub }} }} }} ]
  - id: admin
    match: {{ path: /admin }}
    upstream: echo
    filters:
      - jwt: {{ keys: [ {{ kid: k, alg: HS256, secret_file: jwt.key }} ] }}
      - authz: {{ rules: [ {{ require: {{ any_role: [ admin ] }} }} ] }}
  - id: limited
    match: {{ path: /limited }}
    upstream: echo
    filters: [ {{ rate_limit: {{ limit: 2, per: 1h, key: address }} }} ]
"#
    )
}

async fn start(key: &Key, top: &str) -> Gateway {
    let files = vec![("jwt.key", key.shared.clone())];
    Gateway::start_with(&config(top), Setup { files, ..Setup::default() }).await
}

/// Sends a batch with more fields.
async fn batch(gateway: &Gateway, fields: &[(&str, &str)], calls: &Value) -> Response {
    let body = json!({ "requests": calls }).to_string();
    let fields: Vec<(&str, &str)> =
        [("Content-Type", "application/json")].into_iter().chain(fields.iter().copied()).collect();
    let mut client = gateway.client().await;
    client.request("POST", "/batch", "localhost", &fields, body.as_bytes()).await
}

/// The answers of a batch that was understood.
async fn answers(gateway: &Gateway, fields: &[(&str, &str)], calls: &Value) -> Vec<Value> {
    let answer = batch(gateway, fields, calls).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["responses"].as_array().unwrap().clone()
}

fn statuses(answers: &[Value]) -> Vec<u64> {
    answers.iter().map(|answer| answer["status"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn every_call_of_a_batch_goes_the_whole_way_of_a_request() {
    let key = Key::new("HS256");
    let gateway = start(&key, "").await;
    let claims = format!(r#"{{"sub":"alice","exp":{}}}"#, now() + 600);
    let token = format!("Bearer {}", key.token(&claims));
    let calls = json!([
        { "id": "open", "path": "/open/a?b=c", "headers": { "Accept": "text/x" } },
        { "id": "mine", "method": "GET", "path": "/mine" },
        { "id": "admin", "path": "/admin" },
        { "id": "one", "path": "/limited" },
        { "id": "two", "path": "/limited" },
        { "id": "three", "path": "/limited" },
        { "id": "nowhere", "path": "/nowhere" },
        { "id": "write", "method": "POST", "path": "/writes/x", "body": { "b": 1,  "a": 2 } },
    ]);
    let fields = [("Authorization", token.as_str()), ("X-Page", "home")];
    let said = answers(&gateway, &fields, &calls).await;
    let ids: Vec<&str> = said.iter().map(|answer| answer["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["open", "mine", "admin", "one", "two", "three", "nowhere", "write"]);
    let got = statuses(&said);
    let limited = &got[3..6];
    assert_eq!(limited.iter().filter(|status| **status == 200).count(), 2, "{got:?}");
    assert_eq!(limited.iter().filter(|status| **status == 429).count(), 1, "{got:?}");
    assert_eq!((&got[..3], &got[6..]), (&[200, 200, 403][..], &[404, 200][..]));
    let open = &said[0]["body"];
    assert_eq!((&open["path"], &open["query"]), (&"/open/a".into(), &"b=c".into()));
    assert_eq!(open["headers"]["accept"], "text/x", "a field of its own");
    assert_eq!(open["headers"]["x-page"], "home", "a field of the batch");
    assert!(open["headers"].get("content-length").is_none(), "{open}");
    assert_eq!(said[1]["body"]["headers"]["x-user"], "alice");
    assert_eq!(said[2]["body"]["reason"], "access_denied");
    assert_eq!(said[6]["body"]["reason"], "no_route");
    // A body goes on byte by byte as it was written.
    let whole = gateway
        .client()
        .await
        .request(
            "POST",
            "/batch",
            "localhost",
            &[("Content-Type", "application/json; charset=utf-8")],
            br#"{"requests":[{"id":"w","method":"PUT","path":"/writes/x","body":{"b": 1,  "a": 12345678901234567890123}}]}"#,
        )
        .await;
    let written = &whole.json()["responses"][0]["body"];
    assert_eq!(written["body"], r#"{"b": 1,  "a": 12345678901234567890123}"#);
    assert_eq!(written["headers"]["content-type"], "application/json");
    // Without the token the same calls get what they would get alone.
    let without = answers(&gateway, &[], &calls).await;
    assert_eq!(&statuses(&without)[..3], [200, 401, 401]);
    // Every call is logged and counted, in the trace of its batch.
    let lines = gateway.log_lines(20).await;
    let of_batch: Vec<&Value> = lines.iter().filter(|line| line["batch"] == true).collect();
    assert_eq!(of_batch.len(), 17, "8, 1 and 8 calls");
    let mine = of_batch.iter().find(|line| line["route"] == "mine").unwrap();
    let outer =
        lines.iter().find(|line| line["route"] == "batch" && line["trace_id"] == mine["trace_id"]);
    assert!(outer.is_some(), "{mine}");
    let ok = gateway.metric(r#"sluice_batch_items_total{result="ok"}"#).await;
    assert!((ok - 8.0).abs() < 0.1, "{ok}: 5 of the first, 1, and 2 of the last");
}

#[tokio::test]
async fn calls_refer_to_answers_of_others() {
    let service = Recorder::answering(
        Answer::new(200)
            .header("Content-Type", "application/json")
            .body("{\n \"data\": { \"id\": \"a/../b?x=1\", \"n\": 7, \"tags\": [\"x\"] }\n}\n"),
    );
    let gateway = start(&Key::new("HS256"), "").await;
    gateway.write_config(&format!(
        "{}  - {{ id: me, match: {{ path: /me }}, upstream: service }}\n",
        config("").replace(
            "upstreams:\n",
            &format!(
                "upstreams:\n  service: {{ endpoints: [ {{ address: \"{}\" }} ] }}\n",
                service.addr()
            )
        )
    ));
    gateway.wait_for_generation(2).await;
    let calls = json!([
        { "id": "last", "path": "/open/{second#/route}" },
        { "id": "second", "path": "/open/x?q={me#/data/id}&n={me#/data/n}" },
        { "id": "me", "path": "/me" },
        { "id": "body", "method": "POST", "path": "/writes/{me#/data/n}",
          "body": { "tags": { "$ref": "me#/data/tags" }, "all": [{ "$ref": "me#" }] } },
        { "id": "none", "path": "/open/{me#/data/none}" },
        { "id": "behind", "path": "/open/{none#/x}" },
    ]);
    let said = answers(&gateway, &[], &calls).await;
    assert_eq!(statuses(&said), [200, 200, 200, 200, 424, 424], "{said:?}");
    assert_eq!(said[0]["body"]["path"], "/open/open");
    assert_eq!(said[1]["body"]["query"], "q=a%2F..%2Fb%3Fx%3D1&n=7", "a value stays in its place");
    assert_eq!(said[3]["body"]["path"], "/writes/7");
    let sent: Value = serde_json::from_str(said[3]["body"]["body"].as_str().unwrap()).unwrap();
    assert_eq!((&sent["tags"], &sent["all"][0]["data"]["n"]), (&json!(["x"]), &json!(7)));
    assert_eq!(said[4]["body"]["reason"], "batch_skipped");
    assert_eq!(said[4]["body"]["data"]["ref"], "me#/data/none");
    assert_eq!(service.requests().len(), 1, "one answer for all who need it");
    for (calls, why) in [
        (json!([{ "id": "a", "path": "/open/{b#/x}" }]), "reference_unknown"),
        (
            json!([{ "id": "a", "path": "/{b#}" }, { "id": "b", "path": "/{a#}" }]),
            "reference_circle",
        ),
        (
            json!([{ "id": "a", "path": "/open/a", "headers": { "X-Forwarded-For": "1.2.3.4" } }]),
            "header_refused",
        ),
        (json!([{ "id": "a", "path": "open" }]), "path_invalid"),
        (json!([]), "no_requests"),
    ] {
        let refused = batch(&gateway, &[], &calls).await;
        let said = refused.json();
        assert_eq!((refused.status, &said["reason"]), (400, &"batch_invalid".into()), "{calls}");
        assert_eq!(said["data"]["why"], why, "{said}");
    }
    assert_eq!(service.requests().len(), 1, "a batch that is wrong somewhere does nothing");
}

#[tokio::test]
async fn only_routes_that_allow_it_are_part_of_batches_and_no_batch_is() {
    let gateway = start(&Key::new("HS256"), "").await;
    let calls = json!([
        { "id": "head", "method": "HEAD", "path": "/open/a" },
        { "id": "post", "method": "POST", "path": "/open/a" },
        { "id": "delete", "method": "DELETE", "path": "/open/a" },
        { "id": "writes", "method": "DELETE", "path": "/writes/a" },
        { "id": "alone", "path": "/alone" },
        { "id": "inner", "method": "POST", "path": "/batch", "body": { "requests": [] } },
        { "id": "trick", "method": "POST", "path": "//batch", "body": { "requests": [] } },
        { "id": "trace", "method": "TRACE", "path": "/open/a" },
        { "id": "odd", "path": "/open/<a>" },
        { "id": "up", "path": "/open/../alone" },
    ]);
    let said = answers(&gateway, &[], &calls).await;
    assert_eq!(statuses(&said), [200, 403, 403, 200, 403, 403, 403, 405, 400, 403]);
    assert_eq!(said[0]["body"], json!(null), "HEAD has no body");
    for at in [1, 2, 4, 5, 6] {
        assert_eq!(said[at]["body"]["reason"], "batch_refused", "{}", said[at]);
    }
    // What a page of another origin may send without asking is no batch.
    for kind in ["text/plain", "application/x-www-form-urlencoded", "text/plain, application/json"]
    {
        let body = br#"{"requests":[{"id":"a","path":"/open/a"}]}"#;
        let fields = [("Content-Type", kind)];
        let mut client = gateway.client().await;
        let refused = client.request("POST", "/batch", "localhost", &fields, body).await;
        assert_eq!((refused.status, &refused.json()["data"]["why"]), (400, &"content_type".into()));
    }
    let get = gateway.get("/batch").await;
    assert_eq!((get.status, get.header("allow")), (405, Some("POST")));
}

/// A client that may not say where it comes from may not do so within a batch either.
///
/// Shows HD-03.
#[tokio::test]
async fn calls_come_from_where_the_batch_comes_from() {
    let gateway = start(&Key::new("HS256"), "trusted_proxies: [ 127.0.0.1 ]").await;
    let calls = json!([{ "id": "a", "path": "/open/a" }]);
    let fields =
        [("X-Forwarded-For", "203.0.113.7"), ("X-Wx-Openid", "forged"), ("X-User", "forged")];
    let said = answers(&gateway, &fields, &calls).await;
    assert_eq!(said[0]["body"]["client"], "203.0.113.7");
    for name in ["x-wx-openid", "x-user"] {
        assert!(said[0]["body"]["headers"].get(name).is_none(), "{}", said[0]);
    }
    for name in
        ["X-Forwarded-For", "X-Real-Ip", "X-Wx-Openid", "Authorization", "Cookie", "Host", "Via"]
    {
        let calls = json!([{ "id": "a", "path": "/open/a", "headers": { name: "x" } }]);
        let refused = batch(&gateway, &[], &calls).await;
        assert_eq!(refused.json()["data"]["why"], "header_refused", "{name}");
    }
    let told = refusal(&config(
        "batch: { headers: [ X-Forwarded-For, X-Good ], parallel: 0, timeout: 2m }",
    ));
    for word in ["`X-Forwarded-For` cannot differ", "`parallel` lies between", "`timeout` must lie"]
    {
        assert!(told.contains(word), "{told}");
    }
}
