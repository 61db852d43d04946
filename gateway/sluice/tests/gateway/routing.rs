//! Requests find their route, and what finds none is refused in the envelope.

use crate::support::Gateway;

const CONFIG: &str = r#"
upstreams: { echo: { builtin: echo } }
routes:
  - { id: users, match: { path: "/users/{id}", methods: [GET] }, upstream: echo }
"#;

#[tokio::test]
async fn a_route_answers_and_everything_else_is_refused_in_the_envelope() {
    let gateway = Gateway::start(CONFIG).await;
    let found = gateway.get("/users/7").await;
    assert_eq!(found.status, 200);
    assert_eq!(found.json()["route"], "users");

    let missing = gateway.get("/nothing").await;
    assert_eq!(missing.status, 404);
    let envelope = missing.json();
    assert_eq!(envelope["code"], 404);
    assert_eq!(envelope["reason"], "no_route");
    assert_eq!(envelope["data"], serde_json::Value::Null);
    assert_eq!(envelope["trace_id"].as_str().unwrap().len(), 32);

    let mut client = gateway.client().await;
    let wrong = client.request("POST", "/users/7", "localhost", &[], b"").await;
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("GET, HEAD")));
}
