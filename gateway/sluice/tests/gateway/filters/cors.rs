//! Pages of other origins: preflights, marks on answers and refusals, and who is not welcome.

use sluice_chaos::raw::Response;
use sluice_chaos::recorder::{Answer, Recorder};

use crate::support::{Gateway, Setup};
use crate::tokens::{Key, now};

const CONFIG: &str = r#"
upstreams: { up: { endpoints: [ { address: "{up}" } ] } }
routes:
  - id: private
    match: { path: /private, methods: [GET, PUT] }
    filters:
      - jwt: { keys: [ { kid: k, alg: HS256, secret_file: k.key } ] }
      - cors:
          origins: [ "https://h5.example.com", "https://*.shop.example.com" ]
          methods: [ GET, PUT ]
          headers: [ Authorization, X-Sign ]
          expose: [ X-Total ]
          credentials: true
          max_age: 5m
    upstream: up
  - id: public
    match: { path: /public }
    filters: [ { cors: { origins: [ "*" ] } } ]
    upstream: up
  - { id: plain, match: { path: /plain }, upstream: up }
"#;
const HOME: &str = "https://h5.example.com";

async fn start() -> (Gateway, Recorder, Key) {
    let key = Key::new("HS256");
    let answer = Answer::ok("x")
        .header("Access-Control-Allow-Origin", "https://evil.example")
        .header("Access-Control-Allow-Credentials", "true")
        .header("Vary", "Accept-Encoding");
    let recorder = Recorder::answering(answer);
    let setup = Setup { files: vec![("k.key", key.shared.clone())], ..Setup::default() };
    let config = CONFIG.replace("{up}", &recorder.addr().to_string());
    (Gateway::start_with(&config, setup).await, recorder, key)
}

async fn call(gateway: &Gateway, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    gateway.client().await.request(method, path, "localhost", headers, b"").await
}

#[tokio::test]
async fn preflights_are_answered_before_anybody_asks_for_a_token() {
    let (gateway, recorder, _) = start().await;
    for origin in [HOME, "https://a.shop.example.com", "https://a.b.shop.example.com"] {
        let asked = [
            ("Origin", origin),
            ("Access-Control-Request-Method", "PUT"),
            ("Access-Control-Request-Headers", "authorization,x-sign"),
        ];
        let answer = call(&gateway, "OPTIONS", "/private", &asked).await;
        assert_eq!((answer.status, answer.body.len()), (204, 0));
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
        assert_eq!(answer.header("access-control-allow-methods"), Some("GET, PUT"));
        assert_eq!(answer.header("access-control-allow-headers"), Some("Authorization, X-Sign"));
        assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
        assert_eq!(answer.header("access-control-max-age"), Some("300"));
        assert_eq!(answer.header("vary"), Some("Origin"));
    }
    let strangers = [
        "https://evil.example",
        "http://h5.example.com",
        "https://h5.example.com:8443",
        "https://h5.example.com.evil.example",
        "https://evilshop.example.com",
        "https://shop.example.com",
        "https://evil.example/.shop.example.com",
        "null",
    ];
    for origin in strangers {
        let asked = [("Origin", origin), ("Access-Control-Request-Method", "GET")];
        let answer = call(&gateway, "OPTIONS", "/private", &asked).await;
        assert_eq!(answer.status, 204);
        assert_eq!(answer.header("access-control-allow-origin"), None, "{origin}");
        assert_eq!(answer.header("access-control-allow-credentials"), None, "{origin}");
        assert_eq!(answer.header("vary"), Some("Origin"));
    }
    assert_eq!(recorder.begun(), 0, "a preflight reached the service");
}

#[tokio::test]
async fn a_preflight_for_what_is_not_there_or_not_open_is_an_ordinary_request() {
    let (gateway, recorder, _) = start().await;
    let asked = [("Origin", HOME), ("Access-Control-Request-Method", "DELETE")];
    assert_eq!(call(&gateway, "OPTIONS", "/private", &asked).await.status, 405);
    assert_eq!(call(&gateway, "OPTIONS", "/nothing", &asked).await.status, 404);
    // The service answers for itself where nothing is configured.
    let answer = call(&gateway, "OPTIONS", "/plain", &asked).await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://evil.example"));
    assert_eq!(recorder.begun(), 1);
    // OPTIONS without the marks of a preflight is no preflight.
    assert_eq!(call(&gateway, "OPTIONS", "/private", &[("Origin", HOME)]).await.status, 405);
}

#[tokio::test]
async fn answers_and_refusals_carry_the_marks_that_let_a_page_read_them() {
    let (gateway, _recorder, key) = start().await;
    let refused = call(&gateway, "GET", "/private", &[("Origin", HOME)]).await;
    assert_eq!((refused.status, refused.json()["reason"].as_str()), (401, Some("token_missing")));
    assert_eq!(refused.all("access-control-allow-origin"), [HOME]);
    assert_eq!(refused.header("access-control-allow-credentials"), Some("true"));
    let exposed = refused.header("access-control-expose-headers").unwrap();
    assert!(exposed.starts_with("X-Total, "), "{exposed}");
    for ours in ["RateLimit-Remaining", "Retry-After", "X-MP-Upgrade", "X-Request-Id"] {
        assert!(exposed.contains(ours), "{exposed}");
    }

    let token = format!("Bearer {}", key.token(&format!(r#"{{"exp":{}}}"#, now() + 600)));
    let authorised = [("Origin", HOME), ("Authorization", &*token)];
    let answer = call(&gateway, "GET", "/private", &authorised).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.all("access-control-allow-origin"), [HOME]);
    assert_eq!(answer.all("vary"), ["Accept-Encoding", "Origin"]);

    let foreign = [("Origin", "https://evil.example"), ("Authorization", &*token)];
    let answer = call(&gateway, "GET", "/private", &foreign).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("access-control-allow-origin"),
        None,
        "the service's word got through"
    );
    assert_eq!(answer.header("access-control-allow-credentials"), None);

    let two = [("Origin", HOME), ("Origin", HOME)];
    let answer = call(&gateway, "GET", "/private", &two).await;
    assert_eq!(answer.header("access-control-allow-origin"), None);

    let answer = call(&gateway, "GET", "/public", &[("Origin", "https://any.example")]).await;
    assert_eq!(answer.all("access-control-allow-origin"), ["*"]);
    assert_eq!(answer.header("access-control-allow-credentials"), None);
}
