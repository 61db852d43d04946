//! What services are told about the caller, and how they know that it was the gateway who said so.

use std::net::SocketAddr;

use sluice_chaos::raw;
use sluice_chaos::record::Recorded;
use sluice_chaos::recorder::Recorder;

use super::{APPS, referer};
use crate::support::{Gateway, Setup, refusal};
use crate::tokens::{Key, hmac, now};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn table(addr: SocketAddr, key: &Key, head: &str) -> String {
    let jwt = format!(
        "filters: [ {{ jwt: {{ keys: [ {{ kid: k, alg: HS256, secret: \"{}\" }} ] }} }} ]",
        key.shared
    );
    format!(
        "{APPS}{head}
upstreams: {{ service: {{ endpoints: [ {{ address: \"{addr}\" }} ] }} }}
routes:
  - {{ id: cloud, match: {{ path: /cloud }}, headers_profile: wxcloud, upstream: service, {jwt} }}
  - {{ id: neutral, match: {{ path: /neutral }}, upstream: service, {jwt} }}
  - {{ id: plain, match: {{ path: /plain }}, headers_profile: none, upstream: service, {jwt} }}
  - {{ id: open, match: {{ path: /open }}, headers_profile: wxcloud, upstream: service }}
"
    )
}

async fn ask(
    gateway: &Gateway,
    path: &str,
    token: Option<&str>,
    more: &[(&str, &str)],
) -> raw::Response {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let mut headers = more.to_vec();
    if let Some(bearer) = &bearer {
        headers.push(("Authorization", bearer));
    }
    gateway.client().await.request("GET", path, "a", &headers, b"").await
}

/// What a service was told about the caller, in order of names.
fn told(seen: &Recorded) -> Vec<(String, String)> {
    let named = |name: &str| name.starts_with("x-mp-") || name.starts_with("x-wx-");
    let mut told: Vec<_> = seen
        .headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .filter(|(name, _)| named(name))
        .collect();
    told.sort();
    told
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Shows HD-06, HD-18.
#[tokio::test]
async fn services_are_told_what_a_token_proves_in_the_words_of_their_profile() {
    let (recorder, key) = (Recorder::start(), Key::new("HS256"));
    let gateway = Gateway::start(&table(recorder.addr(), &key, "wx_env: prod-1\n")).await;
    let token = key.token(&format!(
        r#"{{"exp":{},"app":"shop-wx","oid":"o-1","uid":"u-1","sub":"42","roles":["admin","staff"],"tier":"vip","sid":"s-9","scope":"buy"}}"#,
        now() + 60
    ));
    let forged = [("X-WX-OPENID", "root"), ("X-MP-User", "root"), ("X-MP-App", "crew-wx")];
    for path in ["/cloud", "/neutral", "/plain"] {
        assert_eq!(ask(&gateway, path, Some(&token), &forged).await.status, 200);
    }
    assert_eq!(ask(&gateway, "/open", None, &forged[..2]).await.status, 200);
    let seen = recorder.wait_for(4).await;
    let neutral = pairs(&[
        ("x-mp-app", "shop-wx"),
        ("x-mp-appid", "wx0123456789abcdef"),
        ("x-mp-platform", "wechat"),
        ("x-mp-roles", "admin,staff"),
        ("x-mp-scope", "buy"),
        ("x-mp-session", "s-9"),
        ("x-mp-tier", "vip"),
        ("x-mp-trust", "proven"),
        ("x-mp-user", "42"),
    ]);
    let wechat = pairs(&[
        ("x-wx-appid", "wx0123456789abcdef"),
        ("x-wx-env", "prod-1"),
        ("x-wx-openid", "o-1"),
        ("x-wx-source", "wx_client"),
        ("x-wx-unionid", "u-1"),
    ]);
    assert_eq!(told(&seen[0]), [neutral.clone(), wechat].concat());
    assert_eq!(told(&seen[1]), neutral);
    // Without a profile claims pass as they are, and nothing is proven.
    assert_eq!(told(&seen[2]), pairs(&[("x-mp-app", "crew-wx")]));
    assert_eq!(told(&seen[3]), [], "whoever has no token is nobody");
}

/// Shows HD-18.
#[tokio::test]
async fn only_a_token_of_wechat_makes_a_source_of_wechat() {
    let (recorder, key) = (Recorder::start(), Key::new("HS256"));
    let gateway = Gateway::start(&table(recorder.addr(), &key, "")).await;
    let until = now() + 60;
    for claims in [
        format!(r#"{{"exp":{until},"app":"2021000123","oid":"o-1"}}"#),
        format!(r#"{{"exp":{until},"plt":"douyin","oid":"o-1"}}"#),
        // Says nothing, and not every app here is WeChat's.
        format!(r#"{{"exp":{until},"oid":"o-1"}}"#),
        format!(r#"{{"exp":{until},"app":"shop-wx"}}"#),
    ] {
        let claimed = referer("57");
        let answer =
            ask(&gateway, "/cloud", Some(&key.token(&claims)), &[("Referer", &claimed)]).await;
        assert_eq!(answer.status, 200);
        let seen = recorder.requests().pop().unwrap();
        assert_eq!(seen.all("x-wx-source"), Vec::<&str>::new(), "{claims}");
        assert_eq!(seen.all("x-wx-openid"), Vec::<&str>::new(), "{claims}");
    }
}

/// Shows HD-17, HD-18.
#[tokio::test]
async fn a_token_that_says_what_no_field_holds_is_refused() {
    let (recorder, key) = (Recorder::start(), Key::new("HS256"));
    let gateway = Gateway::start(&table(recorder.addr(), &key, "")).await;
    let until = now() + 60;
    let long = "x".repeat(5000);
    for claims in [
        format!(r#"{{"exp":{until},"sub":"a\r\nX-MP-Tier: vip"}}"#),
        format!(r#"{{"exp":{until},"roles":["a,admin"]}}"#),
        format!(r#"{{"exp":{until},"roles":[1]}}"#),
        format!(r#"{{"exp":{until},"scope":"{long}"}}"#),
    ] {
        let answer = ask(&gateway, "/neutral", Some(&key.token(&claims)), &[]).await;
        assert_eq!((answer.status, &answer.json()["reason"]), (401, &"token_invalid".into()));
    }
    assert_eq!(recorder.begun(), 0);
}

/// Shows HD-19.
#[tokio::test]
async fn a_service_can_check_who_told_it() {
    let (recorder, key) = (Recorder::start(), Key::new("HS256"));
    let head = "identity_signature: { kid: main, secret_file: sign.key }\n\
                filters: [ { request_id: {} } ]\n";
    let config = table(recorder.addr(), &key, head);
    let setup = Setup { files: vec![("sign.key", format!("{SECRET}\n"))], ..Setup::default() };
    let gateway = Gateway::start_with(&config, setup).await;
    let token =
        key.token(&format!(r#"{{"exp":{},"app":"shop-wx","sub":"42","oid":"o-1"}}"#, now() + 60));
    let forged = [("X-Sluice-Signature", "v1;kid=main;t=1;id=x;s=00")];
    assert_eq!(ask(&gateway, "/cloud?a=%20b", Some(&token), &forged).await.status, 200);
    assert_eq!(ask(&gateway, "/open", None, &[("Referer", &referer("57"))]).await.status, 200);
    assert_eq!(ask(&gateway, "/plain", Some(&token), &[]).await.status, 200, "signed too");
    let seen = recorder.wait_for(3).await;
    for (one, target) in seen.iter().zip(["/cloud?a=%20b", "/open", "/plain"]) {
        let parts = signature(one);
        assert_eq!(parts["kid"], "main");
        assert_eq!(Some(parts["id"].as_str()), one.header("x-request-id"));
        let age = now().abs_diff(parts["t"].parse().unwrap());
        assert!(age < 60, "signed {age} s ago");
        assert_eq!(parts["s"], expected(one, target, &parts), "{target}");
    }
    assert_ne!(signature(&seen[0])["s"], signature(&seen[1])["s"]);
    assert_eq!(documented(&seen[0], "/cloud?a=%20b"), "True");
    assert_eq!(documented(&seen[0], "/cloud?a=b"), "False");
}

/// What the sample for Python on the page says to a request.
fn documented(seen: &Recorded, target: &str) -> String {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/mini-programs.md");
    let page = std::fs::read_to_string(page).unwrap();
    let sample = page.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let call = format!(
        "import json, sys\nprint(told_by_gateway({{'main': b'{SECRET}'}}, 'GET', sys.argv[1], dict(json.loads(sys.argv[2]))))"
    );
    let headers = serde_json::to_string(&seen.headers).unwrap();
    let output = std::process::Command::new(sluice_chaos::process::tool("python3"))
        .args(["-c", &format!("{sample}{call}"), target, &headers])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The members of the one signature of a request.
fn signature(seen: &Recorded) -> std::collections::BTreeMap<String, String> {
    let values = seen.all("x-sluice-signature");
    assert_eq!(values.len(), 1, "{values:?}");
    let rest = values[0].strip_prefix("v1;").unwrap();
    let member =
        |pair: &str| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    rest.split(';').map(|pair| member(pair).unwrap()).collect()
}

/// The signature, computed as the documentation tells services to do it, by openssl.
fn expected(
    seen: &Recorded,
    target: &str,
    parts: &std::collections::BTreeMap<String, String>,
) -> String {
    let mut text =
        format!("sluice-v1\n{}\n{}\n{}\nGET\n{target}\n", parts["kid"], parts["t"], parts["id"]);
    for (name, value) in told(seen) {
        text += &format!("{name}:{value}\n");
    }
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("signed");
    std::fs::write(&input, text).unwrap();
    let mac = hmac(SECRET.as_bytes(), input.to_str().unwrap());
    mac.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn apps_and_keys_that_cannot_work_are_refused() {
    let said = refusal(
        "apps:
  - { id: Shop, provider: wechat, appid: wx1 }
  - { id: other, provider: wechat, appid: \"wx 2\" }
  - { id: a, provider: qq, appid: one }
  - { id: b, provider: qq, appid: one }
identity_signature: { kid: \"a;b\", secret: short }
client_identity: { headers: { app: \"x y\" }, referer: { mode: enforce, allow_apps: [ c ], exempt: [ nobody ] } }
upstreams: { echo: { builtin: echo } }
routes: [ { id: all, upstream: echo } ]
",
    );
    for expected in [
        "`Shop` cannot be the id of an app",
        "`other` cannot be the id of an app",
        "`wx 2` is no appid",
        "another app is called `one` too",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
}
