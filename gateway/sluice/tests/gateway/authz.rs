//! Who may do what: 401 for nobody, 403 for somebody who may not, by rules and by the word of a service.

use std::time::Duration;

use sluice_chaos::raw::Response;
use sluice_chaos::recorder::{Answer, Recorder};

use crate::support::{Gateway, Setup, eventually, reason, refusal};
use crate::tokens::{Key, now};

async fn call(gateway: &Gateway, method: &str, path: &str, key: &Key, claims: &str) -> Response {
    let token = key.token(&format!(r#"{{"sub":"u","exp":{}{claims}}}"#, now() + 600));
    let headers = [("Authorization", format!("Bearer {token}"))];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    gateway.client().await.request(method, path, "localhost", &headers, b"").await
}

#[tokio::test]
async fn rules_of_groups_and_routes_all_have_to_hold() {
    const CONFIG: &str = r#"
upstreams: { echo: { builtin: echo } }
groups:
  - name: api
    filters:
      - jwt: { keys: [ { kid: k, alg: HS256, secret_file: jwt.key } ] }
      - authz: { rules: [ { require: { claims: { /env: release } } } ] }
routes:
  - { id: any, group: api, match: { path: /any }, upstream: echo }
  - id: admin
    group: api
    match: { path: /admin }
    upstream: echo
    filters:
      - authz:
          claim_map: { roles: /realm/roles }
          rules:
            - require: { any_role: [ admin, root ] }
            - { methods: [ DELETE ], require: { all_scopes: [ "orders:write" ] }, or: [ { any_role: [ root ] } ] }
"#;
    let key = Key::new("HS256");
    let files = vec![("jwt.key", key.shared.clone())];
    let gateway = Gateway::start_with(CONFIG, Setup { files, ..Setup::default() }).await;
    let denied = (403, "access_denied".to_owned());
    let release = r#","env":"release""#;
    assert_eq!(reason(&call(&gateway, "GET", "/any", &key, "").await), denied);
    assert_eq!(call(&gateway, "GET", "/any", &key, release).await.status, 200);
    assert_eq!(reason(&call(&gateway, "GET", "/admin", &key, release).await), denied);
    let admin = r#","env":"release","realm":{"roles":["admin"]}"#;
    assert_eq!(call(&gateway, "GET", "/admin", &key, admin).await.status, 200);
    let trial = admin.replace("release", "trial");
    assert_eq!(reason(&call(&gateway, "GET", "/admin", &key, &trial).await), denied);
    assert_eq!(reason(&call(&gateway, "DELETE", "/admin", &key, admin).await), denied);
    let writes = format!(r#"{admin},"scope":"orders:read orders:write""#);
    assert_eq!(call(&gateway, "DELETE", "/admin", &key, &writes).await.status, 200);
    let root = admin.replace("admin", "root");
    assert_eq!(call(&gateway, "DELETE", "/admin", &key, &root).await.status, 200);
    let nobody = gateway.get("/admin").await;
    assert_eq!(reason(&nobody), (401, "token_missing".to_owned()));
}

#[tokio::test]
async fn who_asks_for_roles_without_an_identity_is_told_so() {
    let said = refusal(
        r#"
upstreams: { echo: { builtin: echo } }
routes:
  - { id: a, upstream: echo, filters: [ { authz: { rules: [ { require: { any_role: [ admin ] } } ] } } ] }
"#,
    );
    assert!(said.contains("`authz` asks who is calling"), "{said}");
}

fn external(recorder: &Recorder, more: &str) -> String {
    format!(
        r#"
upstreams: {{ echo: {{ builtin: echo }} }}
routes:
  - id: a
    match: {{ path: /a/** }}
    upstream: echo
    filters: [ {{ authz: {{ external: {{ url: "http://{}/check", headers: [ x-token ], upstream_headers: [ x-user ] {more} }} }} }} ]
"#,
        recorder.addr()
    )
}

async fn ask(gateway: &Gateway, path: &str, token: &str) -> Response {
    let headers = [("X-Token", token), ("X-User", "forged"), ("X-Secret", "s")];
    gateway.client().await.request("POST", path, "localhost", &headers, b"body").await
}

#[tokio::test]
async fn a_service_decides_and_is_asked_once_for_the_same() {
    let recorder = Recorder::deciding(|seen| match seen.header("x-token") {
        Some("good") => Answer::ok("").header("X-User", "u-1").header("X-Other", "o"),
        Some("nobody") => Answer::new(401),
        Some("broken") => Answer::new(500),
        _ => Answer::new(403),
    });
    let gateway = Gateway::start(&external(&recorder, "")).await;
    for _ in 0..3 {
        let answer = ask(&gateway, "/a/x?y=1", "good").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let headers = &answer.json()["headers"];
        assert_eq!(headers["x-user"], "u-1", "what a client says of itself is gone");
        assert_eq!(headers["x-other"], serde_json::Value::Null);
        assert_eq!(answer.json()["body"], "body");
    }
    let seen = recorder.requests();
    assert_eq!(seen.len(), 1, "the answer is remembered");
    assert_eq!((seen[0].method.as_str(), seen[0].target.as_str()), ("GET", "/check"));
    assert_eq!(seen[0].header("x-forwarded-uri"), Some("/a/x?y=1"));
    assert_eq!(seen[0].header("x-forwarded-method"), Some("POST"));
    assert_eq!(seen[0].header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!((seen[0].header("x-secret"), seen[0].header("x-user")), (None, None));
    assert_eq!(ask(&gateway, "/a/other", "good").await.status, 200);
    assert_eq!(recorder.requests().len(), 2, "another path is another question");
    assert_eq!(
        reason(&ask(&gateway, "/a/x", "nobody").await),
        (401, "identity_missing".to_owned())
    );
    assert_eq!(reason(&ask(&gateway, "/a/x", "bad").await), (403, "access_denied".to_owned()));
    assert_eq!(reason(&ask(&gateway, "/a/x", "broken").await), (503, "authz_down".to_owned()));
    let asked = recorder.requests().len();
    assert_eq!(reason(&ask(&gateway, "/a/x", "broken").await).0, 503);
    assert_eq!(recorder.requests().len(), asked + 1, "what is no answer is not remembered");
}

#[tokio::test]
async fn a_service_that_is_slow_or_gone_is_what_the_config_says() {
    let recorder = Recorder::answering(Answer::ok("").delay(Duration::from_secs(20)));
    let deny = Gateway::start(&external(&recorder, ", timeout: 300ms")).await;
    let allow = Gateway::start(&external(&recorder, ", timeout: 300ms, on_error: allow")).await;
    let begun = std::time::Instant::now();
    assert_eq!(reason(&ask(&deny, "/a/x", "good").await), (503, "authz_down".to_owned()));
    assert!(begun.elapsed() < Duration::from_secs(10), "it was not waited for");
    let passed = ask(&allow, "/a/x", "good").await;
    assert_eq!(passed.status, 200);
    assert_eq!(passed.json()["headers"]["x-user"], serde_json::Value::Null);
    // What a client could bring about is no service that is gone.
    for (status, said) in [(431, (403, "access_denied".to_owned())), (500, (200, String::new()))] {
        recorder.set(Answer::new(status));
        // A busy machine may miss the 300 ms.
        eventually("what follows", async || reason(&ask(&allow, "/a/x", "other").await) == said)
            .await;
    }
    recorder.stop().await;
    eventually("a refused connection", async || {
        reason(&ask(&deny, "/a/x", "good").await) == (503, "authz_down".to_owned())
    })
    .await;
}
