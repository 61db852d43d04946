//! Where tokens stand in a request, and that they stand there once.

use sluice_chaos::raw::Response;
use sluice_chaos::recorder::{Answer, Recorder};

use crate::support::{Gateway, Setup};
use crate::tokens::{Key, now};

const CONFIG: &str = r#"
upstreams: { up: { endpoints: [ { address: "{up}" } ] } }
access_log: { output: access.log, query: [ a, t ] }
routes:
  - id: usual
    match: { path: /usual }
    filters:
      - jwt:
          keys: [ { kid: k, alg: HS256, secret_file: k.key } ]
          from:
            - { header: Authorization }
            - { header: X-Auth, scheme: Token }
            - { header: X-Raw }
            - { cookie: sess }
            - { query: t }
    upstream: up
  - id: hidden
    match: { path: /hidden }
    filters:
      - jwt:
          keys: [ { kid: k, alg: HS256, secret_file: k.key } ]
          from: [ { header: X-Raw }, { cookie: sess }, { query: t } ]
          forward_token: false
    upstream: up
  - id: shown
    match: { path: /shown }
    filters:
      - jwt:
          keys: [ { kid: k, alg: HS256, secret_file: k.key } ]
          from: [ { query: t } ]
          forward_token: true
    upstream: up
"#;

async fn start() -> (Gateway, Recorder, String) {
    let key = Key::new("HS256");
    let recorder = Recorder::answering(Answer::ok("served"));
    let setup = Setup { files: vec![("k.key", key.shared.clone())], ..Setup::default() };
    let config = CONFIG.replace("{up}", &recorder.addr().to_string());
    let token = key.token(&format!(r#"{{"sub":"u","exp":{}}}"#, now() + 600));
    (Gateway::start_with(&config, setup).await, recorder, token)
}

async fn call(gateway: &Gateway, target: &str, headers: &[(&str, &str)]) -> Response {
    gateway.client().await.request("GET", target, "localhost", headers, b"").await
}

#[tokio::test]
async fn a_token_may_stand_where_the_config_says() {
    let (gateway, recorder, token) = start().await;
    let (bearer, scheme) = (format!("Bearer {token}"), format!("token {token}"));
    let cookie = format!("a=1; sess={token}; b=2");
    let query = format!("/usual?a=1&t={token}&b=2");
    for (target, headers) in [
        ("/usual", &[("Authorization", bearer.as_str())][..]),
        ("/usual", &[("X-Auth", scheme.as_str())]),
        ("/usual", &[("X-Raw", token.as_str())]),
        ("/usual", &[("Cookie", cookie.as_str())]),
        ("/usual", &[("Cookie", cookie.as_str()), ("Authorization", "Basic dTpw")]),
        (query.as_str(), &[]),
    ] {
        let answer = call(&gateway, target, headers).await;
        assert_eq!(answer.status, 200, "{headers:?}: {}", answer.text());
        let seen = recorder.requests().pop().unwrap();
        // What came in a query is not passed on; the rest is, unless the config says otherwise.
        for (name, value) in headers {
            assert_eq!(seen.header(name), Some(*value));
        }
        assert!(!seen.target.contains("eyJ"), "{}", seen.target);
        assert!(target == "/usual" || seen.target == "/usual?a=1&b=2", "{}", seen.target);
    }
    for (target, headers, reason) in [
        ("/usual", &[][..], "token_missing"),
        ("/usual?T=x", &[("X-Token", token.as_str()), ("Cookie", "Sess=x")], "token_missing"),
        ("/usual", &[("X-Auth", bearer.as_str())], "token_invalid"),
        ("/usual", &[("Authorization", token.as_str())], "token_invalid"),
        ("/usual?t=", &[], "token_invalid"),
    ] {
        let answer = call(&gateway, target, headers).await;
        assert_eq!(
            (answer.status, answer.json()["reason"].as_str()),
            (401, Some(reason)),
            "{target}"
        );
    }
    let lines = gateway.log_lines(11).await;
    let queries: Vec<_> = lines.iter().filter_map(|line| line["query"].as_str()).collect();
    assert!(queries.contains(&"a=1&t=***"), "{queries:?}");
}

#[tokio::test]
async fn a_token_is_hidden_from_the_service_or_shown_to_it() {
    let (gateway, recorder, token) = start().await;
    let cookie = format!("a=1; sess={token}");
    let only = format!("sess={token}");
    for (target, headers) in [
        (format!("/hidden?t={token}&a=1"), vec![("X-Other", "o")]),
        ("/hidden?a=1".to_owned(), vec![("Cookie", cookie.as_str())]),
        ("/hidden?a=1".to_owned(), vec![("Cookie", only.as_str())]),
        ("/hidden?a=1".to_owned(), vec![("X-Raw", token.as_str())]),
    ] {
        assert_eq!(call(&gateway, &target, &headers).await.status, 200);
        let seen = recorder.requests().pop().unwrap();
        assert_eq!(seen.target, "/hidden?a=1");
        assert!(!format!("{seen:?}").contains(&token), "{seen:?}");
        let rest = (headers == [("Cookie", cookie.as_str())]).then_some("a=1");
        assert_eq!(seen.header("cookie"), rest);
    }
    let target = format!("/shown?t={token}");
    assert_eq!(call(&gateway, &target, &[]).await.status, 200);
    assert_eq!(recorder.requests().pop().unwrap().target, target);
}

#[tokio::test]
async fn j_09_two_credentials_are_refused() {
    let (gateway, recorder, token) = start().await;
    let bearer = format!("Bearer {token}");
    let cookie = format!("sess={token}");
    let both = format!("{cookie}; {cookie}");
    let (query, twice) = (format!("/usual?t={token}"), format!("/usual?t={token}&%74={token}"));
    for (target, headers) in [
        ("/usual", &[("Authorization", bearer.as_str()), ("Authorization", bearer.as_str())][..]),
        ("/usual", &[("Authorization", bearer.as_str()), ("Authorization", "Basic dTpw")]),
        ("/usual", &[("Authorization", bearer.as_str()), ("X-Raw", token.as_str())]),
        ("/usual", &[("Authorization", bearer.as_str()), ("Cookie", cookie.as_str())]),
        ("/usual", &[("Cookie", both.as_str())]),
        ("/usual", &[("Cookie", cookie.as_str()), ("Cookie", "sess=")]),
        (query.as_str(), &[("Cookie", cookie.as_str())]),
        (query.as_str(), &[("Authorization", bearer.as_str())]),
        (twice.as_str(), &[]),
    ] {
        let answer = call(&gateway, target, headers).await;
        let told = (answer.status, answer.json()["reason"].as_str().unwrap_or("").to_owned());
        assert_eq!(told, (401, "token_ambiguous".to_owned()), "{target} {headers:?}");
    }
    assert_eq!(recorder.begun(), 0);
}
