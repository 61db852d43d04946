//! Logging in with a mini-program's code: what platforms are asked and what becomes of their answers, how
//! often a code is sent, and what the client gets.

mod ended;
mod limits;
mod platforms;
mod sessions;
mod shared;
mod sign_keys;

use std::net::SocketAddr;

use sluice_chaos::provider::{APPID, Login, Provider, SECRET};
use sluice_chaos::raw;

use crate::support::{Gateway, Setup, eventually, refusal};

/// A key of a length that is accepted.
pub(crate) const KEY: &str = "c4n4ry-0123456789-0123456789-0123456789";

/// One app at a provider, a way to log in, and a route that wants the token. `{bases}` are the addresses of
/// the provider.
pub(crate) fn config(bases: &[SocketAddr], login: &str) -> String {
    let bases: Vec<String> = bases.iter().map(|base| format!("\"http://{base}\"")).collect();
    format!(
        r#"
apps:
  - {{ id: shop, provider: wechat, appid: {APPID}, secret: "${{APP_SECRET}}", api_base: [{}] }}
login:
  keys: [{{ kid: main, alg: HS256, secret: "{KEY}" }}]
  {login}
upstreams:
  login: {{ builtin: login }}
  echo: {{ builtin: echo }}
routes:
  - {{ id: login, match: {{ path: /auth/login }}, upstream: login }}
  - id: me
    match: {{ path: /me }}
    filters:
      - jwt: {{ keys: [{{ kid: main, alg: HS256, secret: "{KEY}" }}], issuers: [sluice], claims_to_headers: {{ X-User: sub, X-App: app }} }}
    upstream: echo
"#,
        bases.join(", ")
    )
}

pub(crate) fn setup() -> Setup {
    Setup { env: vec![("APP_SECRET", SECRET.to_owned())], ..Setup::default() }
}

pub(crate) async fn start(provider: &Provider, login: &str) -> Gateway {
    Gateway::start_with(&config(&[provider.addr()], login), setup()).await
}

/// A login, as a mini-program sends it.
pub(crate) async fn log_in(gateway: &Gateway, code: &str) -> raw::Response {
    post(gateway, &format!(r#"{{"code":"{code}"}}"#)).await
}

pub(crate) async fn post(gateway: &Gateway, body: &str) -> raw::Response {
    send(gateway, "/auth/login", "", body).await
}

/// A POST with more lines in its head.
pub(crate) async fn send(gateway: &Gateway, path: &str, lines: &str, body: &str) -> raw::Response {
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\n{lines}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut client = gateway.client().await;
    client.send(request.as_bytes()).await;
    client.response().await
}

pub(crate) async fn with_token(gateway: &Gateway, path: &str, token: &str) -> raw::Response {
    let mut client = gateway.client().await;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
    client.send(request.as_bytes()).await;
    client.response().await
}

/// Shows J-16.
#[tokio::test]
async fn a_code_becomes_a_token_that_routes_accept() {
    let provider = Provider::start();
    provider.decide("good", Login::session("o-1", Some("u-1")));
    let gateway = start(&provider, "").await;
    let answer = log_in(&gateway, "good").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let said = answer.json();
    assert_eq!((&said["code"], &said["msg"]), (&0.into(), &"ok".into()));
    assert_eq!(
        (&said["data"]["token_type"], &said["data"]["expires_in"]),
        (&"Bearer".into(), &7200.into())
    );
    for secret in ["o-1", "u-1", "session_key"] {
        assert!(!answer.text().contains(secret), "{}", answer.text());
    }
    let token = said["data"]["token"].as_str().unwrap();
    let me = with_token(&gateway, "/me", token).await;
    assert_eq!(me.status, 200, "{}", me.text());
    let headers = &me.json()["headers"];
    assert_eq!(headers["x-app"], "shop");
    assert_eq!(headers["x-user"].as_str().unwrap().len(), 24);
    let claims = token.split('.').nth(1).unwrap();
    let claims = base64_url(claims);
    assert!(!claims.contains("o-1") && !claims.contains("u-1"), "{claims}");
    // What the platform was asked, and that nothing of it was written down.
    let asked = provider.requests().pop().unwrap();
    assert_eq!(
        asked.target,
        format!(
            "/sns/jscode2session?appid={APPID}&grant_type=authorization_code&js_code=good&secret={}",
            SECRET.replace(' ', "%20")
        )
    );
    for said in [
        gateway.daemon.output(),
        std::fs::read_to_string(gateway.folder().join("access.log")).unwrap(),
    ] {
        assert!(
            !said.contains("js_code") && !said.contains("good") && !said.contains("secret="),
            "{said}"
        );
    }
    assert!(
        (gateway.metric(r#"sluice_mp_login_total{app="shop",result="ok"}"#).await - 1.0).abs()
            < 0.1
    );
    assert!(gateway.metric("sluice_mp_login_duration_seconds_count{}").await > 0.5);
}

pub(crate) fn base64_url(text: &str) -> String {
    let table = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (mut bits, mut count, mut out) = (0_u32, 0, Vec::new());
    for byte in text.bytes() {
        bits = bits << 6 | table.iter().position(|b| *b == byte).unwrap() as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    String::from_utf8(out).unwrap()
}

#[tokio::test]
async fn the_answer_has_the_shape_that_is_asked_for() {
    let provider = Provider::start();
    provider.decide("good", Login::session("o-1", None));
    let gateway = start(
        &provider,
        "answer: flat\n  expose_openid: true\n  token: { openid: true, lifetime: 1h }",
    )
    .await;
    let said = log_in(&gateway, "good").await.json();
    assert_eq!((&said["openid"], &said["expires_in"]), (&"o-1".into(), &3600.into()));
    let claims = base64_url(said["token"].as_str().unwrap().split('.').nth(1).unwrap());
    assert!(claims.contains(r#""openid":"o-1""#), "{claims}");
}

#[tokio::test]
async fn what_is_no_login_is_told_so() {
    let provider = Provider::start();
    let gateway = start(&provider, "").await;
    for body in [
        "",
        "{}",
        "[]",
        r#"{"code":""}"#,
        r#"{"code":7}"#,
        r#"{"code":"a\nb"}"#,
        r#"{"code":"x","app":"other"}"#,
    ] {
        let answer = post(&gateway, body).await;
        assert_eq!(
            (answer.status, &answer.json()["reason"]),
            (400, &"login_invalid".into()),
            "{body}"
        );
    }
    let long = post(&gateway, &format!(r#"{{"code":"{}"}}"#, "x".repeat(20_000))).await;
    assert_eq!(long.status, 413);
    let answer = gateway.get("/auth/login").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    assert_eq!(provider.requests().len(), 0);
}

#[tokio::test]
async fn several_apps_are_told_apart_by_name() {
    let provider = Provider::start();
    let config = format!(
        r#"
apps:
  - {{ id: one, provider: wechat, appid: {APPID}, secret: "${{APP_SECRET}}", api_base: ["http://{0}"] }}
  - {{ id: two, provider: qq, appid: {APPID}-two, secret: "${{APP_SECRET}}", api_base: ["http://{0}"] }}
login: {{ keys: [{{ kid: main, alg: HS256, secret: "{KEY}" }}] }}
upstreams: {{ login: {{ builtin: login }} }}
routes: [{{ id: login, match: {{ path: /auth/login }}, upstream: login }}]
"#,
        provider.addr()
    );
    let gateway = Gateway::start_with(&config, setup()).await;
    assert_eq!(post(&gateway, r#"{"code":"c"}"#).await.status, 400);
    for (n, (lines, body)) in
        [("", r#"{"code":"c0","app":"one"}"#), ("X-MP-App: two\r\n", r#"{"code":"c1"}"#)]
            .into_iter()
            .enumerate()
    {
        provider.decide(&format!("c{n}"), Login::session("o", None));
        let said = send(&gateway, "/auth/login", lines, body).await.json();
        let claims = base64_url(said["data"]["token"].as_str().unwrap().split('.').nth(1).unwrap());
        assert!(claims.contains(["\"one\"", "\"two\""][n]), "{claims}");
    }
}

#[tokio::test]
async fn in_development_every_code_is_somebody_on_loopback_only() {
    let config = format!(
        r#"
apps: [{{ id: dev, provider: development }}]
login: {{ expose_openid: true, keys: [{{ kid: main, alg: HS256, secret: "{KEY}" }}] }}
upstreams: {{ login: {{ builtin: login }} }}
routes: [{{ id: login, match: {{ path: /auth/login }}, upstream: login }}]
"#
    );
    let gateway = Gateway::start(&config).await;
    assert_eq!(log_in(&gateway, "alice").await.json()["data"]["openid"], "dev-alice");
    assert!(gateway.daemon.output().contains("lets anybody log in as anybody"));
    let open = config.replace("apps:", "listeners: [{ name: a, address: \"0.0.0.0:0\" }]\napps:");
    let said = crate::support::refusal_whole(&open);
    assert!(said.contains("a listener is not on a loopback address"), "{said}");
}

#[tokio::test]
async fn bad_logins_are_explained() {
    let said =
        refusal("upstreams: { login: { builtin: login } }\nroutes: [{ id: a, upstream: login }]\n");
    assert!(said.contains("there is no `login` section"), "{said}");
    let said = refusal(
        "apps: [{ id: a, provider: wechat, appid: x, secret: s, api_base: [\"http://10.0.0.1\"] }]\n\
         login: { keys: [], timeout: 9s, token: { lifetime: 8d }, store: redis }\n\
         upstreams: { login: { builtin: login } }\nroutes: [{ id: a, upstream: login }]\n",
    );
    for words in ["without TLS", "1 to 16 keys", "100ms and 4.5s", "1s to 7d", "no Redis to keep"] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

/// The wait for metrics that workers write on their own.
pub(crate) async fn counted(gateway: &Gateway, series: &str, count: f64) {
    eventually(series, async || (gateway.metric(series).await - count).abs() < 0.1).await;
}
