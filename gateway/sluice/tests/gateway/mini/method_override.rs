//! Clients without PATCH: a POST that stands for it is a PATCH to everything that asks for the method.

use sluice_chaos::raw::Response;
use sluice_chaos::recorder::Recorder;

use crate::support::{Gateway, Setup};
use crate::tokens::{Key, now};

const FIELD: &str = "X-HTTP-Method-Override";

fn config(recorder: &Recorder, section: &str) -> String {
    format!(
        "{section}
upstreams: {{ up: {{ endpoints: [ {{ address: \"{}\" }} ] }} }}
routes:
  - {{ id: change, match: {{ path: /orders/**, methods: [ PATCH, DELETE ] }}, upstream: up, filters: [ {{ jwt: {{ keys: [ {{ kid: k, alg: HS256, secret_file: k.key }} ] }} }} ] }}
  - {{ id: orders, match: {{ path: /orders/**, methods: [ GET, POST ] }}, upstream: up }}
",
        recorder.addr()
    )
}

async fn start(section: &str) -> (Gateway, Recorder, String) {
    let (recorder, key) = (Recorder::start(), Key::new("HS256"));
    let setup = Setup { files: vec![("k.key", key.shared.clone())], ..Setup::default() };
    let gateway = Gateway::start_with(&config(&recorder, section), setup).await;
    let token = format!("Bearer {}", key.token(&format!(r#"{{"exp":{}}}"#, now() + 600)));
    (gateway, recorder, token)
}

async fn call(gateway: &Gateway, method: &str, headers: &[(&str, &str)]) -> Response {
    gateway.client().await.request(method, "/orders/7", "a", headers, b"{\"a\":1}").await
}

/// Shows HD-24.
#[tokio::test]
async fn a_post_that_stands_for_patch_is_judged_and_sent_as_patch() {
    let (gateway, recorder, token) = start("method_override: { methods: [ PATCH ] }").await;
    // The route of PATCH wants a token; that of POST does not.
    let answer = call(&gateway, "POST", &[(FIELD, "PATCH")]).await;
    assert_eq!((answer.status, recorder.begun()), (401, 0), "the policy of POST was taken");
    let answer = call(&gateway, "POST", &[(FIELD, "PATCH"), ("Authorization", &token)]).await;
    assert_eq!(answer.status, 200);
    let sent = &recorder.requests()[0];
    assert_eq!((&*sent.method, &*sent.body), ("PATCH", &b"{\"a\":1}"[..]));
    assert_eq!(sent.all("x-http-method-override"), [""; 0]);
    assert_eq!(call(&gateway, "POST", &[]).await.status, 200);
    let logged = gateway.log_lines(3).await;
    let mut words: Vec<_> = logged
        .iter()
        .map(|line| (line["method"].as_str().unwrap(), line["method_override"] == true))
        .collect();
    words.sort_unstable();
    assert_eq!(words, [("PATCH", true), ("PATCH", true), ("POST", false)]);
    assert_eq!(gateway.metric(r#"http_requests_total{method="PATCH"}"#).await, 2.0);
}

/// Shows HD-24.
#[tokio::test]
async fn no_service_reads_another_method_than_the_gateway_has_judged() {
    let (gateway, recorder, token) = start("method_override: { methods: [ PATCH ] }").await;
    let auth = ("Authorization", token.as_str());
    for (method, headers) in [
        ("POST", &[auth, (FIELD, "DELETE")][..]),
        ("POST", &[auth, (FIELD, "patch")]),
        ("POST", &[auth, (FIELD, "PATCH"), (FIELD, "DELETE")]),
        ("POST", &[auth, (FIELD, "PATCH"), ("X-HTTP-Method", "DELETE")]),
        ("POST", &[auth, ("X.HTTP.Method.Override", "DELETE")]),
        ("GET", &[auth, (FIELD, "PATCH")]),
        ("GET", &[auth, ("X-Method-Override", "DELETE")]),
    ] {
        let answer = call(&gateway, method, headers).await;
        assert_eq!(answer.status, 400, "{method} {headers:?}");
        assert_eq!(answer.json()["reason"], "method_override_refused");
    }
    // What ends at this hop is not followed, and not passed on.
    let nominated = [auth, (FIELD, "DELETE"), ("Connection", FIELD)];
    assert_eq!(call(&gateway, "POST", &nominated).await.status, 200);
    assert_eq!(
        call(&gateway, "POST", &[auth, ("X_HTTP_Method_Override", "DELETE")]).await.status,
        200
    );
    for sent in recorder.requests() {
        assert_eq!(sent.method, "POST");
        assert!(sent.headers.iter().all(|(name, _)| !name.to_lowercase().contains("override")));
    }
    assert_eq!(recorder.begun(), 2);
}

/// Shows HD-24.
#[tokio::test]
async fn without_the_section_such_requests_are_refused_unless_the_config_says_otherwise() {
    let (gateway, recorder, _) = start("").await;
    let asked = [(FIELD, "DELETE")];
    assert_eq!(call(&gateway, "POST", &asked).await.status, 400);
    assert_eq!(recorder.begun(), 0);
    for (generation, others, left) in [(2, "remove", 0), (3, "pass", 1)] {
        let section = format!("method_override: {{ others: {others} }}");
        gateway.write_config(&config(&recorder, &section));
        gateway.wait_for_generation(generation).await;
        assert_eq!(call(&gateway, "POST", &asked).await.status, 200);
        let requests = recorder.requests();
        let sent = requests.last().unwrap();
        assert_eq!((&*sent.method, sent.all("x-http-method-override").len()), ("POST", left));
    }
}
