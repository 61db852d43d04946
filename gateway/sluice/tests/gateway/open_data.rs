//! What the platform lets a mini-program know of its user: verified and decrypted with a key that never
//! leaves the gateway.

use serde_json::{Value, json};
use sluice_chaos::provider::{APPID, Login, Provider, SECRET, changed, encrypt, sha1};
use sluice_chaos::raw;

use crate::login::{KEY, send};
use crate::support::{Gateway, Setup, refusal};

const OPEN_ID: &str = "o-6_bmjrPTlm6_2sgVt7hMZOPfL2M";

fn config(provider: &Provider, login: &str) -> String {
    format!(
        r#"
apps: [{{ id: shop, provider: wechat, appid: {APPID}, secret: "${{APP_SECRET}}", api_base: ["http://{}"] }}]
login:
  keys: [{{ kid: main, alg: HS256, secret: "{KEY}" }}]
  {login}
upstreams:
  login: {{ builtin: login }}
  open: {{ builtin: open_data }}
routes:
  - {{ id: login, match: {{ path: /auth/login }}, upstream: login }}
  - {{ id: open, match: {{ path: /auth/open-data }}, filters: [{{ jwt: {{ issuer: login }} }}], upstream: open }}
  - {{ id: bare, match: {{ path: /bare }}, upstream: open }}
"#,
        provider.addr()
    )
}

async fn start(provider: &Provider, login: &str) -> Gateway {
    let env = vec![("APP_SECRET", SECRET.to_owned())];
    Gateway::start_with(&config(provider, login), Setup { env, ..Setup::default() }).await
}

/// Logs somebody in; the token, and the key that the platform has for the session.
async fn log_in(gateway: &Gateway, provider: &Provider) -> (String, String) {
    let code = format!("code-{}", provider.requests().len());
    provider.decide(&code, Login::session(OPEN_ID, Some("u-1")));
    let said = send(gateway, "/auth/login", "", &format!(r#"{{"code":"{code}"}}"#)).await;
    assert_eq!(said.status, 200, "{}", said.text());
    let token = said.json()["data"]["token"].as_str().unwrap().to_owned();
    (token, provider.session_key(OPEN_ID))
}

async fn ask(gateway: &Gateway, token: &str, body: &Value) -> raw::Response {
    let line = format!("Authorization: Bearer {token}\r\n");
    send(gateway, "/auth/open-data", &line, &body.to_string()).await
}

fn now() -> u64 {
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

fn sealed(key: &str, appid: &str, open_id: &str, at: u64) -> Value {
    let text = json!({
        "openId": open_id, "unionId": "u-1", "nickName": "Band",
        "watermark": { "appid": appid, "timestamp": at },
    });
    let (data, iv) = encrypt(key, &text.to_string());
    json!({ "encrypted_data": data, "iv": iv })
}

/// Shows O-01.
#[tokio::test]
async fn data_of_the_platform_is_proven_with_the_key_of_the_session() {
    let provider = Provider::start();
    let gateway = start(&provider, "store: memory").await;
    let (token, key) = log_in(&gateway, &provider).await;
    let raw = r#"{"nickName":"Band","city":"广州"}"#;
    let mut body = sealed(&key, APPID, OPEN_ID, now());
    body["raw_data"] = raw.into();
    body["signature"] = sha1(&[raw, &key]).into();
    let answer = ask(&gateway, &token, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(
        answer.json(),
        json!({ "code": 0, "msg": "ok", "data": {
            "raw_data": { "nickName": "Band", "city": "广州" }, "data": { "nickName": "Band" },
        }}),
    );
    assert!(!answer.text().contains(&key));
    // Either alone.
    let signed = json!({ "raw_data": raw, "signature": sha1(&[raw, &key]) });
    assert_eq!(ask(&gateway, &token, &signed).await.status, 200);
    let expected = [
        (401, "session_key_stale", json!({ "raw_data": raw, "signature": sha1(&[raw, "other"]) })),
        (401, "session_key_stale", sealed("AAAAAAAAAAAAAAAAAAAAAA==", APPID, OPEN_ID, now())),
        (403, "open_data_foreign", sealed(&key, "wx-other", OPEN_ID, now())),
        (403, "open_data_foreign", sealed(&key, APPID, "somebody", now())),
        (403, "open_data_old", sealed(&key, APPID, OPEN_ID, now() - 700)),
        (400, "open_data_invalid", json!({ "raw_data": raw })),
        (400, "open_data_invalid", json!([])),
    ];
    for (status, reason, body) in expected {
        let answer = ask(&gateway, &token, &body).await;
        let said = (answer.status, answer.json()["reason"].as_str().unwrap().to_owned());
        assert_eq!(said, (status, reason.to_owned()), "{body}");
    }
    // The platform replaces the key at the next login; what was made with the old one is of no use there.
    let (second, newer) = log_in(&gateway, &provider).await;
    assert_ne!(key, newer);
    let old = sealed(&key, APPID, OPEN_ID, now());
    assert_eq!(ask(&gateway, &second, &old).await.json()["reason"], "session_key_stale");
    // Nobody gets in without a token, by another method, or with too much.
    assert_eq!(send(&gateway, "/bare", "", "{}").await.json()["reason"], "token_missing");
    let line = format!("Authorization: Bearer {token}\r\n");
    let long = send(&gateway, "/auth/open-data", &line, &"x".repeat(70_000)).await;
    assert_eq!(long.status, 413);
    let said = gateway.daemon.output();
    assert!(!said.contains(&key) && !said.contains("Band"), "{said}");
}

/// A client that changed the vector had its `openId` told under another name.
///
/// Shows O-01.
#[tokio::test]
async fn who_renames_the_openid_is_not_told_it() {
    let provider = Provider::start();
    let gateway = start(&provider, "store: memory").await;
    let (token, key) = log_in(&gateway, &provider).await;
    let text = format!(
        r#"{{"openId":"{OPEN_ID}","nickName":"Band","watermark":{{"appid":"{APPID}","timestamp":{}}}}}"#,
        now()
    );
    let (data, iv) = encrypt(&key, &text);
    let with = |iv: &str| json!({ "encrypted_data": data, "iv": iv });
    let fine = ask(&gateway, &token, &with(&iv)).await;
    assert_eq!(fine.json()["data"]["data"], json!({ "nickName": "Band" }), "{}", fine.text());
    let renamed = ask(&gateway, &token, &with(&changed(&iv, 7, b'd' ^ b'x'))).await;
    assert_eq!(
        (renamed.status, renamed.json()["reason"].as_str()),
        (401, Some("session_key_stale")),
        "{}",
        renamed.text()
    );
    assert!(!renamed.text().contains(&OPEN_ID[5..]), "{}", renamed.text());
}

#[tokio::test]
async fn a_client_that_may_know_its_openid_gets_it_and_age_is_a_matter_of_taste() {
    let provider = Provider::start();
    let more = "store: memory\n  answer: flat\n  expose_openid: true\n  open_data: { max_age: 1h }";
    let config = config(&provider, more);
    let env = vec![("APP_SECRET", SECRET.to_owned())];
    let gateway = Gateway::start_with(&config, Setup { env, ..Setup::default() }).await;
    provider.decide("good", Login::session(OPEN_ID, None));
    let said = send(&gateway, "/auth/login", "", r#"{"code":"good"}"#).await.json();
    let (token, key) = (said["token"].as_str().unwrap(), provider.session_key(OPEN_ID));
    let answer = ask(&gateway, token, &sealed(&key, APPID, OPEN_ID, now() - 700)).await;
    assert_eq!(answer.json()["data"]["openId"], OPEN_ID, "{}", answer.text());
}

#[test]
fn without_a_place_for_keys_there_is_no_open_data() {
    let app = format!("apps: [{{ id: a, provider: wechat, appid: {APPID}, secret: s }}]\n");
    let rest = "upstreams: { open: { builtin: open_data } }\nroutes: [{ id: a, upstream: open }]\n";
    let keys = format!("keys: [{{ kid: main, alg: HS256, secret: \"{KEY}\" }}]");
    let said = refusal(&format!("{app}login: {{ {keys}, open_data: {{ max_age: 1s }} }}\n{rest}"));
    assert!(said.contains("between 10s and 1d"), "{said}");
    let said = refusal(&format!("{app}login: {{ {keys} }}\n{rest}"));
    assert!(said.contains("sessions are kept nowhere"), "{said}");
}
