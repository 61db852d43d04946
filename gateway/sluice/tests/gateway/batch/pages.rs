//! Batches of pages in browsers: what a browser would keep from a page, a batch must not tell it.

use serde_json::{Value, json};
use sluice_chaos::recorder::{Answer, Recorder};

use super::{answers, statuses};
use crate::support::Gateway;

const PAGE: &str = "https://h5.example";

fn config(service: &Recorder) -> String {
    let cors = |more: &str| format!("{{ cors: {{ origins: [ \"{PAGE}\" ]{more} }} }}");
    format!(
        r#"
upstreams:
  batch: {{ builtin: batch }}
  api: {{ endpoints: [ {{ address: "{}" }} ] }}
routes:
  - {{ id: batch, match: {{ path: /batch }}, upstream: batch, filters: [ {} ] }}
  - {{ id: private, match: {{ path: "/private/**" }}, upstream: api, batch: all }}
  - {{ id: shared, match: {{ path: "/shared/**" }}, upstream: api, batch: all, filters: [ {} ] }}
  - {{ id: bare, match: {{ path: "/bare/**" }}, upstream: api, batch: all, filters: [ {} ] }}
  - id: other
    match: {{ path: "/other/**" }}
    upstream: api
    filters: [ {{ cors: {{ origins: [ "https://else.example" ] }} }} ]
"#,
        service.addr(),
        cors(", credentials: true, headers: [ Content-Type ]"),
        cors(", credentials: true"),
        cors(""),
    )
}

fn calls() -> Value {
    json!([
        { "id": "private", "path": "/private/me" },
        { "id": "shared", "path": "/shared/me" },
        { "id": "bare", "path": "/bare/me" },
        { "id": "other", "path": "/other/me" },
        { "id": "post", "method": "POST", "path": "/shared/me", "body": {} },
        { "id": "delete", "method": "DELETE", "path": "/shared/me" },
    ])
}

/// A route without `cors`, which no page of another origin could read, was read through a batch whose own
/// route had some; and a method that its preflight would have forbidden was used.
///
/// Shows BA-01.
#[tokio::test]
async fn a_page_of_another_origin_reads_nothing_by_a_batch_that_it_could_not_read_alone() {
    let service = Recorder::answering(Answer::ok("mine").header("Set-Cookie", "s=1; HttpOnly"));
    let gateway = Gateway::start(&config(&service)).await;
    let from = async |fields: &[(&str, &str)]| answers(&gateway, fields, &calls()).await;
    let foreign = from(&[("Origin", PAGE), ("Cookie", "s=1")]).await;
    assert_eq!(statuses(&foreign), [403, 200, 403, 403, 200, 403], "{foreign:?}");
    assert_eq!(foreign[0]["body"]["reason"], "batch_refused");
    assert_eq!(service.requests().len(), 2, "what is refused is not even asked");
    assert_eq!(statuses(&from(&[("Origin", PAGE)]).await), [403, 200, 200, 403, 200, 403]);
    // Who is no page, and a page of this host, are let in as they would be alone.
    for fields in [&[][..], &[("Origin", "http://localhost"), ("Cookie", "s=1")]] {
        assert_eq!(statuses(&from(fields).await), [200; 6], "{fields:?}");
    }
    // A page of an origin that the batch's route does not let in cannot send it; what is no browser can.
    assert_eq!(statuses(&from(&[("Origin", "https://servicewechat.com")]).await), [200; 6]);
}

/// Shows BA-01.
#[tokio::test]
async fn cookies_that_no_script_may_read_are_not_told_to_pages() {
    let service = Recorder::answering(Answer::ok("mine").header("Set-Cookie", "s=1; HttpOnly"));
    let gateway = Gateway::start(&config(&service)).await;
    let calls = json!([{ "id": "a", "path": "/shared/me" }]);
    let told = async |fields: &[(&str, &str)]| {
        answers(&gateway, fields, &calls).await[0]["headers"]["set-cookie"].clone()
    };
    assert_eq!(told(&[]).await, json!(["s=1; HttpOnly"]), "a mini-program has no other way");
    for fields in [("Sec-Fetch-Site", "same-origin"), ("Origin", PAGE)] {
        assert_eq!(told(&[fields]).await, Value::Null, "{fields:?}");
    }
}
