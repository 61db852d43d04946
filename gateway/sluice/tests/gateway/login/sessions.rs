//! Tokens that end before their time: refreshed, logged out, revoked, kicked, over all gateways.

use std::time::{Duration, Instant};

use sluice_chaos::process::Redis;
use sluice_chaos::provider::{APPID, Login, Provider, SECRET};
use sluice_chaos::raw;
use sluice_chaos::recorder::{Answer, Recorder};

use super::{KEY, base64_url, post, send, with_token};
use crate::support::{Gateway, Setup, eventually, refusal};
use crate::tokens::Key;

/// All there is to a login. `{login}` are more lines of `login`, `{top}` more sections.
fn config(provider: &Provider, key: &str, login: &str, top: &str) -> String {
    format!(
        r#"
apps:
  - {{ id: shop, provider: wechat, appid: {APPID}, secret: "${{APP_SECRET}}", api_base: ["http://{0}"] }}
  - {{ id: second, provider: qq, appid: {APPID}-other, secret: "${{APP_SECRET}}", api_base: ["http://{0}"] }}
login:
  keys: [{key}]
  answer: flat
  {login}
{top}
upstreams:
  login: {{ builtin: login }}
  refresh: {{ builtin: refresh }}
  logout: {{ builtin: logout }}
  revoke: {{ builtin: revoke }}
  jwks: {{ builtin: jwks }}
  echo: {{ builtin: echo }}
groups:
  - name: mine
    filters: [{{ jwt: {{ issuer: login, claims_to_headers: {{ X-User: sub, X-Tier: tier, X-Session: sid }} }} }}]
routes:
  - {{ id: login, match: {{ path: /auth/login }}, upstream: login }}
  - {{ id: refresh, match: {{ path: /auth/refresh }}, upstream: refresh }}
  - {{ id: jwks, match: {{ path: /.well-known/jwks.json }}, upstream: jwks }}
  - {{ id: logout, group: mine, match: {{ path: /auth/logout }}, upstream: logout }}
  - {{ id: revoke, group: mine, match: {{ path: /internal/revoke }}, upstream: revoke }}
  - {{ id: me, group: mine, match: {{ path: /me }}, upstream: echo }}
  - {{ id: pay, group: mine, match: {{ path: /pay }}, upstream: echo, sensitive: true }}
"#,
        provider.addr()
    )
}

fn hs256() -> String {
    format!(r#"{{ kid: main, alg: HS256, secret: "{KEY}" }}"#)
}

pub(super) async fn in_memory(provider: &Provider, login: &str) -> Gateway {
    let login = format!("store: memory\n  {login}");
    let env = vec![("APP_SECRET", SECRET.to_owned())];
    Gateway::start_with(&config(provider, &hs256(), &login, ""), Setup { env, ..Setup::default() })
        .await
}

pub(super) async fn in_redis(provider: &Provider, redis: &Redis, login: &str) -> Gateway {
    in_redis_sealed(provider, redis, &format!("store-{KEY}"), login).await
}

/// With this key of the store.
pub(super) async fn in_redis_sealed(
    provider: &Provider,
    redis: &Redis,
    key: &str,
    login: &str,
) -> Gateway {
    let env = vec![("APP_SECRET", SECRET.to_owned()), ("STORE_KEY", key.to_owned())];
    let login = format!("store_keys: [{{ kid: s1, secret: \"${{STORE_KEY}}\" }}]\n  {login}");
    let config = config(provider, &hs256(), &login, r#"redis: { url: "${REDIS_URL}" }"#);
    Gateway::start_with_redis(&config, redis, Setup { env, ..Setup::default() }).await
}

pub(super) struct Tokens {
    pub(super) access: String,
    pub(super) refresh: String,
}

pub(super) fn tokens(answer: &raw::Response) -> Tokens {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let said = answer.json();
    let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
    Tokens { access: text("token"), refresh: text("refresh_token") }
}

pub(super) async fn log_in(
    gateway: &Gateway,
    provider: &Provider,
    user: &str,
    more: &str,
) -> Tokens {
    let code = format!("{user}-{}", provider.requests().len());
    provider.decide(&code, Login::session(user, None));
    let app = if more.contains("app") { "" } else { r#","app":"shop""# };
    tokens(&post(gateway, &format!(r#"{{"code":"{code}"{app}{more}}}"#)).await)
}

pub(super) async fn refresh(gateway: &Gateway, token: &str) -> raw::Response {
    send(gateway, "/auth/refresh", "", &format!(r#"{{"refresh_token":"{token}"}}"#)).await
}

pub(super) async fn call(gateway: &Gateway, path: &str, token: &str, body: &str) -> raw::Response {
    send(gateway, path, &format!("Authorization: Bearer {token}\r\n"), body).await
}

pub(super) async fn reason(gateway: &Gateway, token: &str) -> Option<String> {
    let answer = with_token(gateway, "/me", token).await;
    (answer.status != 200).then(|| answer.json()["reason"].as_str().unwrap().to_owned())
}

pub(super) fn claims(token: &str) -> serde_json::Value {
    serde_json::from_str(&base64_url(token.split('.').nth(1).unwrap())).unwrap()
}

/// Shows J-20.
#[tokio::test]
async fn a_refresh_token_is_good_once_and_its_theft_ends_the_session() {
    let provider = Provider::start();
    let gateway = in_memory(&provider, "").await;
    let first = log_in(&gateway, &provider, "o-1", "").await;
    let second = tokens(&refresh(&gateway, &first.refresh).await);
    assert_ne!(first.refresh, second.refresh);
    assert_eq!(claims(&first.access)["sid"], claims(&second.access)["sid"]);
    assert_eq!(claims(&first.access)["sub"], claims(&second.access)["sub"]);
    assert_eq!(reason(&gateway, &second.access).await, None);
    // The answer was lost on the way: the same one again.
    let again = tokens(&refresh(&gateway, &first.refresh).await);
    assert_eq!(again.refresh, second.refresh);
    let third = tokens(&refresh(&gateway, &second.refresh).await);
    // Two generations old: somebody has stolen it.
    let stolen = refresh(&gateway, &first.refresh).await;
    assert_eq!((stolen.status, &stolen.json()["reason"]), (401, &"refresh_reused".into()));
    assert_eq!(refresh(&gateway, &third.refresh).await.status, 401);
    assert_eq!(reason(&gateway, &third.access).await.as_deref(), Some("token_revoked"));
    for bad in ["", "x", &third.refresh[1..], &first.access] {
        assert_eq!(refresh(&gateway, bad).await.json()["reason"], "refresh_invalid", "{bad}");
    }
}

#[tokio::test]
async fn many_refreshes_at_once_get_the_same_next_token() {
    let (provider, redis) = (Provider::start(), Redis::start().await);
    let one = in_redis(&provider, &redis, "").await;
    let two = in_redis(&provider, &redis, "").await;
    let first = log_in(&one, &provider, "o-secret", "").await;
    let all = (0..10).map(|n| refresh(if n % 2 == 0 { &one } else { &two }, &first.refresh));
    let answers = futures_util::future::join_all(all).await;
    let next: std::collections::BTreeSet<String> =
        answers.iter().map(|answer| tokens(answer).refresh).collect();
    assert_eq!(next.len(), 1);
    let kept = redis.dump().await;
    for secret in ["o-secret", "session_key", "wechat", first.refresh.as_str()] {
        assert!(!kept.contains(secret), "Redis tells {secret}");
    }
    assert!(kept.contains("sluice:login:session:") && kept.contains("sluice:login:user:"));
}

/// Without grace a token that comes again was stolen.
/// Shows J-20.
#[tokio::test]
async fn without_grace_a_second_use_ends_the_session_at_once() {
    let provider = Provider::start();
    let gateway = in_memory(&provider, "sessions: { grace: 0s }").await;
    let first = log_in(&gateway, &provider, "o-1", "").await;
    tokens(&refresh(&gateway, &first.refresh).await);
    assert_eq!(refresh(&gateway, &first.refresh).await.json()["reason"], "refresh_reused");
}

/// Shows J-15, J-21.
#[tokio::test]
async fn what_is_revoked_on_one_gateway_is_refused_by_all_within_a_second() {
    let (provider, redis) = (Provider::start(), Redis::start().await);
    let one = in_redis(&provider, &redis, "").await;
    let two = in_redis(&provider, &redis, "").await;
    let tokens: Vec<Tokens> = vec![
        log_in(&one, &provider, "o-1", "").await,
        log_in(&one, &provider, "o-2", "").await,
        log_in(&one, &provider, "o-3", "").await,
        log_in(&one, &provider, "o-3", "").await,
        log_in(&one, &provider, "o-4", "").await,
    ];
    for token in &tokens {
        // The other gateway remembers them as good.
        assert_eq!(reason(&two, &token.access).await, None);
    }
    assert_eq!(call(&one, "/auth/logout", &tokens[0].access, "").await.status, 200);
    let jti = claims(&tokens[1].access)["jti"].as_str().unwrap().to_owned();
    let sub = claims(&tokens[2].access)["sub"].as_str().unwrap().to_owned();
    let admin = &tokens[4].access;
    for body in [format!(r#"{{"jti":"{jti}"}}"#), format!(r#"{{"sub":"{sub}"}}"#)] {
        assert_eq!(call(&one, "/internal/revoke", admin, &body).await.status, 200, "{body}");
    }
    for token in &tokens[..4] {
        assert_eq!(reason(&one, &token.access).await.as_deref(), Some("token_revoked"));
        eventually("the other gateway to hear of it", async || {
            reason(&two, &token.access).await.as_deref() == Some("token_revoked")
        })
        .await;
    }
    assert_eq!(reason(&two, admin).await, None);
    // A busy machine may take its time now and then: one round of three has to do.
    let mut rounds = Vec::new();
    while rounds.len() < 3 && !rounds.iter().any(|took| *took <= Duration::from_secs(1)) {
        let token = log_in(&one, &provider, "o-5", "").await;
        assert_eq!(reason(&two, &token.access).await, None);
        assert_eq!(call(&one, "/auth/logout", &token.access, "").await.status, 200);
        let began = Instant::now();
        eventually("the other gateway to hear of it", async || {
            reason(&two, &token.access).await.as_deref() == Some("token_revoked")
        })
        .await;
        rounds.push(began.elapsed());
    }
    assert!(rounds.iter().any(|took| *took <= Duration::from_secs(1)), "{rounds:?}");
    for token in [&tokens[0], &tokens[2], &tokens[3]] {
        assert_eq!(refresh(&two, &token.refresh).await.status, 401);
    }
    // Who logs in again is welcome, with a newer version.
    let again = log_in(&two, &provider, "o-3", "").await;
    assert_eq!(reason(&one, &again.access).await, None);
    let version = |token: &str| claims(token)["sv"].as_u64().unwrap();
    assert_eq!(version(&again.access), version(&tokens[2].access) + 1);
    // A gateway that starts later knows what was revoked before.
    let three = in_redis(&provider, &redis, "").await;
    assert_eq!(reason(&three, &tokens[0].access).await.as_deref(), Some("token_revoked"));
}

#[tokio::test]
async fn logging_out_everywhere_and_being_kicked() {
    let provider = Provider::start();
    let gateway = in_memory(&provider, "sessions: { devices: { max: 2 } }").await;
    let a = log_in(&gateway, &provider, "o-1", r#","device":"a""#).await;
    let b = log_in(&gateway, &provider, "o-1", r#","device":"b""#).await;
    let other = log_in(&gateway, &provider, "o-1", r#","app":"second""#).await;
    let c = log_in(&gateway, &provider, "o-1", r#","device":"c""#).await;
    assert_eq!(reason(&gateway, &a.access).await.as_deref(), Some("kicked"));
    assert_eq!(refresh(&gateway, &a.refresh).await.json()["reason"], "kicked");
    for token in [&b, &c, &other] {
        assert_eq!(reason(&gateway, &token.access).await, None);
    }
    // The device that comes again takes its own place.
    let b2 = log_in(&gateway, &provider, "o-1", r#","device":"b""#).await;
    assert_eq!(reason(&gateway, &b.access).await.as_deref(), Some("kicked"));
    assert_eq!(reason(&gateway, &c.access).await, None);
    assert_eq!(call(&gateway, "/auth/logout", &b2.access, r#"{"all":true}"#).await.status, 200);
    for token in [&b2, &c] {
        assert_eq!(reason(&gateway, &token.access).await.as_deref(), Some("token_revoked"));
        assert_eq!(refresh(&gateway, &token.refresh).await.status, 401);
    }
    assert_eq!(reason(&gateway, &other.access).await, None, "somebody else for another app");
}

/// Shows J-15.
#[tokio::test]
async fn while_redis_is_gone_reading_goes_on_and_paying_does_not() {
    let (provider, redis) = (Provider::start(), Redis::start().await);
    let gateway = in_redis(&provider, &redis, "").await;
    let token = log_in(&gateway, &provider, "o-1", "").await.access;
    assert_eq!(with_token(&gateway, "/pay", &token).await.status, 200);
    drop(redis);
    eventually("the gateway to notice", async || {
        with_token(&gateway, "/pay", &token).await.status == 503
    })
    .await;
    assert_eq!(with_token(&gateway, "/pay", &token).await.json()["reason"], "revocation_unknown");
    assert_eq!(with_token(&gateway, "/me", &token).await.status, 200);
    assert_eq!(call(&gateway, "/me", &token, "x").await.status, 503, "a POST changes something");
}

#[tokio::test]
async fn a_stateful_session_ends_when_nobody_comes() {
    let (provider, redis) = (Provider::start(), Redis::start().await);
    let gateway = in_redis(&provider, &redis, "sessions: { mode: stateful, ttl: 60s }").await;
    let token = log_in(&gateway, &provider, "o-1", "").await;
    let sid = claims(&token.access)["sid"].as_str().unwrap().to_owned();
    let name = format!("sluice:login:session:{{{sid}}}");
    assert_eq!(reason(&gateway, &token.access).await, None);
    // Its use lets it live on.
    redis.command(&["PEXPIRE", &name, "20000"]).await;
    eventually("the session to be looked up", async || {
        assert_eq!(reason(&gateway, &token.access).await, None);
        redis.command(&["PTTL", &name]).await.parse::<u64>().unwrap() > 30_000
    })
    .await;
    redis.command(&["DEL", &name]).await;
    eventually("the session to be missed", async || {
        reason(&gateway, &token.access).await.as_deref() == Some("session_ended")
    })
    .await;
    assert_eq!(refresh(&gateway, &token.refresh).await.status, 401);
}

/// Shows X-13.
#[tokio::test]
async fn a_huge_value_in_redis_is_not_read() {
    let (provider, redis) = (Provider::start(), Redis::start().await);
    let gateway = in_redis(&provider, &redis, "sessions: { mode: stateful, ttl: 60s }").await;
    let token = log_in(&gateway, &provider, "o-1", "").await;
    let sid = claims(&token.access)["sid"].as_str().unwrap().to_owned();
    let name = format!("sluice:login:session:{{{sid}}}");
    assert_eq!(with_token(&gateway, "/pay", &token.access).await.status, 200);
    let grow = "return redis.call('SET', KEYS[1], string.rep('x', 50000000))";
    assert_eq!(redis.command(&["EVAL", grow, "1", &name]).await, "OK");
    eventually("the session to be unknown", async || {
        let answer = with_token(&gateway, "/pay", &token.access).await;
        answer.status == 503 && answer.json()["reason"] == "revocation_unknown"
    })
    .await;
    assert!(gateway.metric("sluice_redis_errors_total").await > 0.5);
    gateway.connected().await;
    let other = log_in(&gateway, &provider, "o-2", "").await;
    eventually("others to pay", async || {
        with_token(&gateway, "/pay", &other.access).await.status == 200
    })
    .await;
}

/// Keys are replaced one after the other, and services find the public ones.
/// Shows J-22.
#[tokio::test]
async fn keys_rotate_and_are_published() {
    let provider = Provider::start();
    let (old, new) = (Key::new("ES256"), Key::new("EdDSA"));
    let files = vec![("old.pem", old.private_pem()), ("new.pem", new.private_pem())];
    let env = vec![("APP_SECRET", SECRET.to_owned())];
    let of_old = "{ kid: old, alg: ES256, private_key_file: old.pem }";
    let start = config(&provider, of_old, "store: memory", "");
    let gateway = Gateway::start_with(&start, Setup { env, files, ..Setup::default() }).await;
    let before = log_in(&gateway, &provider, "o-1", "").await;
    let published = gateway.get("/.well-known/jwks.json").await;
    assert_eq!(published.header("content-type"), Some("application/jwk-set+json"));
    let key = published.json()["keys"][0].clone();
    let expected: serde_json::Value = serde_json::from_str(&old.jwk("old", "")).unwrap();
    for member in ["kty", "crv", "x", "y", "kid"] {
        assert_eq!(key[member], expected[member], "{member}");
    }
    assert!(key.get("d").is_none());
    let both = "{ kid: old, alg: ES256, private_key_file: old.pem, verify_until: \"2099-01-01T00:00:00Z\" }, \
        { kid: new, alg: EdDSA, private_key_file: new.pem, sign: true }";
    gateway.write_config(&config(&provider, both, "store: memory", ""));
    gateway.wait_for_generation(2).await;
    let after = log_in(&gateway, &provider, "o-1", "").await;
    assert!(base64_url(after.access.split('.').next().unwrap()).contains(r#""kid":"new""#));
    for token in [&before, &after] {
        assert_eq!(reason(&gateway, &token.access).await, None);
    }
    // Sessions outlive keys and reloads.
    assert_eq!(refresh(&gateway, &before.refresh).await.status, 200);
    gateway.write_config(&config(&provider, &both.replace("2099", "2020"), "store: memory", ""));
    gateway.wait_for_generation(3).await;
    assert_eq!(reason(&gateway, &before.access).await.as_deref(), Some("token_invalid"));
    assert_eq!(reason(&gateway, &after.access).await, None);
    let kids = gateway.get("/.well-known/jwks.json").await.text();
    assert!(kids.contains("new") && !kids.contains("old"), "{kids}");
}

#[tokio::test]
async fn a_user_service_says_more_of_people_and_may_be_gone() {
    let provider = Provider::start();
    let users = Recorder::answering(
        Answer::new(200)
            .body(r#"{"uid":7,"tier":"vip","roles":["buyer"],"sub":"forged","secret":"x"}"#),
    );
    let user = format!("user: {{ url: \"http://{}/identity\" }}", users.addr());
    let gateway = in_memory(&provider, &user).await;
    let token = log_in(&gateway, &provider, "o-1", "").await;
    let said = claims(&token.access);
    assert_eq!((&said["sub"], &said["tier"]), (&"7".into(), &"vip".into()));
    assert!(said.get("secret").is_none() && said["roles"][0] == "buyer", "{said}");
    let asked: serde_json::Value = serde_json::from_slice(&users.requests()[0].body).unwrap();
    assert_eq!((&asked["openid"], &asked["app"]), (&"o-1".into(), &"shop".into()));
    assert_eq!(with_token(&gateway, "/me", &token.access).await.json()["headers"]["x-tier"], "vip");
    users.set(Answer::new(200).body(r#"{"uid":7,"tier":"free"}"#));
    let next = tokens(&refresh(&gateway, &token.refresh).await);
    assert_eq!(claims(&next.access)["tier"], "free");
    users.set(Answer::new(500));
    let guest = log_in(&gateway, &provider, "o-1", "").await;
    assert!(claims(&guest.access).get("tier").is_none());
    assert_eq!(claims(&tokens(&refresh(&gateway, &next.refresh).await).access)["tier"], "free");
    let strict = in_memory(&provider, &user.replace(" }", ", on_error: deny }")).await;
    provider.decide("strict", Login::session("o-1", None));
    let refused = post(&strict, r#"{"code":"strict","app":"shop"}"#).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
}

#[tokio::test]
async fn own_tokens_need_a_login_and_ends_need_a_caller() {
    let said = refusal(
        "upstreams: { echo: { builtin: echo } }\nroutes: [{ id: a, upstream: echo, \
         filters: [{ jwt: { issuer: login } }] }]\n",
    );
    assert!(said.contains("there is no `login` section that makes tokens"), "{said}");
    let provider = Provider::start();
    let gateway = in_memory(&provider, "").await;
    let token = log_in(&gateway, &provider, "o-1", "").await.access;
    for (path, body) in [("/auth/logout", ""), ("/internal/revoke", r#"{"sub":"x"}"#)] {
        assert_eq!(
            send(&gateway, path, "", body).await.json()["reason"],
            "token_missing",
            "{path}"
        );
    }
    for body in ["", "{}", r#"{"sub":""}"#, r#"{"sub":"a","sid":"b"}"#] {
        assert_eq!(call(&gateway, "/internal/revoke", &token, body).await.status, 400, "{body}");
    }
}
