//! The phone number behind the code of a button: exchanged once, for whoever pressed it.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use sluice_chaos::process::Redis;
use sluice_chaos::provider::{APPID, Login, Manner, Phone, Provider, SECRET};
use sluice_chaos::raw;

use crate::login::{KEY, send};
use crate::support::{Gateway, Setup, reason, refusal};

const NUMBER: &str = "13580006666";

fn config(provider: &Provider, login: &str, top: &str) -> String {
    format!(
        r#"
apps: [{{ id: shop, provider: wechat, appid: {APPID}, secret: "${{APP_SECRET}}", api_base: ["http://{}"] }}]
login: {{ keys: [{{ kid: main, alg: HS256, secret: "{KEY}" }}], {login} }}
token_broker: {{}}
{top}
upstreams: {{ login: {{ builtin: login }}, phone: {{ builtin: phone_number }} }}
routes:
  - {{ id: login, match: {{ path: /auth/login }}, upstream: login }}
  - {{ id: phone, match: {{ path: /auth/phone }}, filters: [{{ jwt: {{ issuer: login }} }}], upstream: phone }}
"#,
        provider.addr()
    )
}

async fn start(provider: &Provider) -> Gateway {
    let env = vec![("APP_SECRET", SECRET.to_owned())];
    let config = config(provider, "store: memory", "");
    Gateway::start_with(&config, Setup { env, ..Setup::default() }).await
}

async fn log_in(gateway: &Gateway, provider: &Provider, user: &str) -> String {
    let code = format!("code-{}", provider.requests().len());
    provider.decide(&code, Login::session(user, None));
    let said = send(gateway, "/auth/login", "", &format!(r#"{{"code":"{code}"}}"#)).await;
    said.json()["data"]["token"].as_str().unwrap().to_owned()
}

async fn ask(gateway: &Gateway, token: &str, code: &str) -> raw::Response {
    let line = format!("Authorization: Bearer {token}\r\n");
    send(gateway, "/auth/phone", &line, &json!({ "code": code }).to_string()).await
}

/// Shows O-05.
#[tokio::test]
async fn a_code_becomes_a_number_once_and_for_its_user_only() {
    let provider = Provider::start();
    let gateway = start(&provider).await;
    let token = log_in(&gateway, &provider, "o-1").await;
    provider.phone("good", Phone::Number(NUMBER.to_owned()));
    provider.set(Manner::Slow(Duration::from_millis(200)));
    let answers = join_all((0..5).map(|_| ask(&gateway, &token, "good"))).await;
    for answer in &answers {
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(
            answer.json(),
            json!({ "code": 0, "msg": "ok", "data": {
                "phone_number": format!("+86{NUMBER}"), "pure_phone_number": NUMBER,
                "country_code": "86",
            }})
        );
    }
    provider.set(Manner::Well);
    let asked = provider.requests().pop().unwrap();
    let said: serde_json::Value = serde_json::from_slice(&asked.body).unwrap();
    assert_eq!(said, json!({ "code": "good", "openid": "o-1" }));
    // Whoever else has the code has nothing of it, and it is not sent again to find out.
    let other = log_in(&gateway, &provider, "o-2").await;
    assert_eq!(reason(&ask(&gateway, &other, "good").await), (401, "code_used".to_owned()));
    assert_eq!(provider.phone_calls("good"), 1);
    let foreign = Phone::OfApp(NUMBER.to_owned(), "wx-other".to_owned());
    provider.phone("foreign", foreign);
    for (code, error) in [("busy", -1), ("old", 40029), ("theirs", 40013), ("often", 45011)] {
        provider.phone(code, Phone::Error(error));
    }
    for (code, meant) in [
        ("foreign", (403, "open_data_foreign")),
        ("busy", (503, "provider_busy")),
        ("old", (401, "invalid_code")),
        ("theirs", (401, "invalid_code")),
        ("often", (429, "rate_limited")),
        ("unknown", (401, "invalid_code")),
        ("", (401, "invalid_code")),
    ] {
        for _ in 0..2 {
            let answer = ask(&gateway, &token, code).await;
            assert_eq!(reason(&answer), (meant.0, meant.1.to_owned()), "{code}");
        }
        assert!(provider.phone_calls(code) <= 1, "{code} was sent again");
    }
    assert_eq!(reason(&send(&gateway, "/auth/phone", "", "{}").await).1, "token_missing");
    let said = gateway.daemon.output();
    assert!(!said.contains("6666") && !said.contains("good"), "{said}");
}

#[tokio::test]
async fn a_code_is_sent_again_only_where_it_was_not_looked_at() {
    let provider = Provider::start();
    let gateway = start(&provider).await;
    let token = log_in(&gateway, &provider, "o-1").await;
    provider.phone("first", Phone::Number(NUMBER.to_owned()));
    assert_eq!(ask(&gateway, &token, "first").await.status, 200);
    provider.replace_token();
    provider.phone("second", Phone::Number(NUMBER.to_owned()));
    assert_eq!(ask(&gateway, &token, "second").await.status, 200);
    assert_eq!((provider.phone_calls("second"), provider.token_calls()), (1, 2));
    provider.phone("third", Phone::Number(NUMBER.to_owned()));
    provider.set(Manner::Broken);
    assert_eq!(reason(&ask(&gateway, &token, "third").await), (503, "provider_busy".to_owned()));
    provider.set(Manner::Well);
    assert_eq!(reason(&ask(&gateway, &token, "third").await), (503, "provider_busy".to_owned()));
    assert_eq!(provider.phone_calls("third"), 1, "nobody knows what became of it");
}

#[tokio::test]
async fn gateways_send_a_code_of_a_button_once_between_them() {
    let (provider, redis) = (Provider::start(), Redis::start().await);
    let start = async || {
        let env = vec![("APP_SECRET", SECRET.to_owned()), ("STORE_KEY", format!("store-{KEY}"))];
        let keys = "store_keys: [{ kid: s1, secret: \"${STORE_KEY}\" }]";
        let config = config(&provider, keys, r#"redis: { url: "${REDIS_URL}" }"#);
        Gateway::start_with_redis(&config, &redis, Setup { env, ..Setup::default() }).await
    };
    let (one, two) = (start().await, start().await);
    let token = log_in(&one, &provider, "o-1").await;
    provider.phone("good", Phone::Number(NUMBER.to_owned()));
    provider.set(Manner::Slow(Duration::from_millis(100)));
    let both = [&one, &two];
    let answers = join_all((0..6).map(|n| ask(both[n % 2], &token, "good"))).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{}", answers[1].text());
    assert_eq!((provider.phone_calls("good"), provider.token_calls()), (1, 1));
    let kept = redis.dump().await;
    assert!(kept.contains("sluice:phone:code:") && !kept.contains(NUMBER), "{kept}");
}

#[test]
fn numbers_need_access_tokens_and_sessions() {
    let app = format!("apps: [{{ id: a, provider: wechat, appid: {APPID}, secret: s }}]\n");
    let login = format!("login: {{ keys: [{{ kid: main, alg: HS256, secret: \"{KEY}\" }}] }}\n");
    let rest = "upstreams: { p: { builtin: phone_number } }\nroutes: [{ id: a, upstream: p }]\n";
    let said = refusal(&format!("{app}{login}{rest}"));
    for words in ["there is no `token_broker`", "sessions are kept nowhere"] {
        assert!(said.contains(words), "{words}: {said}");
    }
}
