//! A panic costs its own request only.

use crate::support::Gateway;

const CONFIG: &str = r#"
upstreams: { echo: { builtin: echo }, bang: { builtin: panic } }
routes:
  - { id: fine, match: { path: /fine }, upstream: echo }
  - { id: bang, match: { path: /bang }, upstream: bang }
"#;

/// Shows G-10.
#[tokio::test]
async fn a_panic_is_answered_with_500_and_others_go_on() {
    let gateway = Gateway::start(CONFIG).await;
    let mut bystander = gateway.client().await;
    assert_eq!(bystander.request("GET", "/fine", "localhost", &[], b"").await.status, 200);
    for _ in 0..20 {
        let answer = gateway.get("/bang").await;
        assert_eq!((answer.status, answer.json()["reason"].as_str()), (500, Some("internal")));
    }
    let again = bystander.request("GET", "/fine", "localhost", &[], b"").await;
    assert_eq!(again.status, 200, "the connection beside it was not touched");
    assert!((gateway.metric("sluice_panics_total").await - 20.0).abs() < 0.5);
    assert!(gateway.metric("sluice_http_requests_in_flight").await < 0.5);
}
