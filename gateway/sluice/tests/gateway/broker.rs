//! Access tokens of apps for services: one call for all who want one, shared by gateways, another one when
//! the platform refuses it; and calls that are made with it, so that services need not know it.

mod platforms;

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use sluice_chaos::process::{Redis, free_port};
use sluice_chaos::provider::{
    APPID, CHECK_SESSION, Login, Manner, Provider, SECRET, STABLE_TOKEN, encrypt,
};
use sluice_chaos::raw;
use sluice_chaos::rogue::Rogue;

use crate::login::{KEY, base64_url, log_in};
use crate::support::{Gateway, Setup, eventually, refusal};

const READER: &str = "reader-0123456789-0123456789-0123456789";
const CALLER: &str = "caller-0123456789-0123456789-0123456789";

struct Door {
    gateway: Gateway,
    addr: SocketAddr,
}

fn config(bases: &[SocketAddr], door: SocketAddr, more: &str) -> String {
    let bases: Vec<String> = bases.iter().map(|base| format!("\"http://{base}\"")).collect();
    format!(
        r#"
apps:
  - {{ id: shop, provider: wechat, appid: {APPID}, secret: "${{APP_SECRET}}", api_base: [{}] }}
  - {{ id: pay, provider: alipay, appid: "2021" }}
token_broker:
  address: "{door}"
  clients:
    - {{ name: reader, token: "${{READER}}", read_token: true, sessions: true }}
    - {{ name: caller, token: "${{CALLER}}", apps: [shop], paths: [/wxa/, /cgi-bin/] }}
{more}
upstreams: {{ echo: {{ builtin: echo }} }}
routes: [{{ id: all, upstream: echo }}]
"#,
        bases.join(", ")
    )
}

async fn start_at(bases: &[SocketAddr], more: &str, mut env: Vec<(&'static str, String)>) -> Door {
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let known = [("APP_SECRET", SECRET), ("READER", READER), ("CALLER", CALLER)];
    env.extend(known.map(|(name, value)| (name, value.to_owned())));
    let setup = Setup { env, ..Setup::default() };
    let gateway = Gateway::start_with(&config(bases, addr, more), setup).await;
    Door { gateway, addr }
}

async fn start(provider: &Provider) -> Door {
    start_at(&[provider.addr()], "", Vec::new()).await
}

impl Door {
    async fn send(&self, method: &str, path: &str, lines: &str, body: &str) -> raw::Response {
        let mut client = raw::Client::connect(self.addr).await;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: broker\r\n{lines}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        client.send(request.as_bytes()).await;
        client.response().await
    }

    async fn call(&self, who: &str, method: &str, path: &str, body: &str) -> raw::Response {
        self.send(method, path, &format!("Authorization: Bearer {who}\r\n"), body).await
    }

    async fn token(&self) -> raw::Response {
        self.call(READER, "GET", "/wx/shop/access_token", "").await
    }
}

fn reason(answer: &raw::Response) -> (u16, String) {
    (answer.status, answer.json()["reason"].as_str().unwrap_or_default().to_owned())
}

/// Shows O-02.
#[tokio::test]
async fn one_call_gets_a_token_for_all_who_may_read_it() {
    let provider = Provider::start();
    provider.set(Manner::Slow(Duration::from_millis(200)));
    let door = start(&provider).await;
    let answers = join_all((0..20).map(|_| door.token())).await;
    let token = provider.access_token().unwrap();
    for answer in &answers {
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["access_token"], token.as_str());
        assert!((7100..=7200).contains(&answer.json()["expires_in"].as_u64().unwrap()));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    assert_eq!(provider.token_calls(), 1);
    let asked = provider.requests().pop().unwrap();
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", STABLE_TOKEN));
    assert_eq!(
        serde_json::from_slice::<Value>(&asked.body).unwrap(),
        json!({ "grant_type": "client_credential", "appid": APPID, "secret": SECRET,
            "force_refresh": false })
    );
    // Who may not, and why not.
    let bare = door.send("GET", "/wx/shop/access_token", "", "").await;
    assert_eq!(
        (reason(&bare).1.as_str(), bare.header("www-authenticate")),
        ("token_missing", Some("Bearer"))
    );
    let wrong = door.call(&READER.replace('r', "x"), "GET", "/wx/shop/access_token", "").await;
    assert_eq!(reason(&wrong), (401, "token_invalid".to_owned()));
    let page = format!("Authorization: Bearer {READER}\r\nOrigin: https://evil.example\r\n");
    let page = door.send("GET", "/wx/shop/access_token", &page, "").await;
    assert_eq!(page.status, 401);
    for (who, method, path, meant) in [
        (CALLER, "GET", "/wx/shop/access_token", (403, "call_refused")),
        (CALLER, "POST", "/wx/shop/open_data", (403, "call_refused")),
        (CALLER, "GET", "/wx/pay/access_token", (403, "call_refused")),
        (READER, "GET", "/wx/pay/access_token", (404, "no_access_token")),
        (READER, "GET", "/wx/none/access_token", (404, "no_route")),
        (READER, "GET", "/", (404, "no_route")),
        (READER, "PUT", "/wx/shop/access_token", (405, "method_not_allowed")),
        (READER, "POST", "/wx/shop/access_token", (400, "call_invalid")),
    ] {
        let answer = door.call(who, method, path, "").await;
        assert_eq!(reason(&answer), (meant.0, meant.1.to_owned()), "{method} {path}");
    }
    let denied = door.gateway.metric("sluice_broker_denied_total").await;
    assert!((denied - 3.0).abs() < 0.1, "{denied}");
    assert!(door.gateway.metric(r#"sluice_broker_token_seconds{app="shop"}"#).await > 7000.0);
    let said = door.gateway.daemon.output();
    assert!(!said.contains(&token[..20]) && !said.contains(READER), "{said}");
}

/// Shows O-03.
#[tokio::test]
async fn calls_are_made_with_a_token_that_services_do_not_know() {
    let provider = Provider::start();
    let door = start(&provider).await;
    let body = r#"{ "content": "特3456书", "version":2 }"#;
    let lines = format!(
        "Authorization: Bearer {CALLER}\r\nContent-Type: application/json\r\nCookie: a=b\r\nX-Mine: 1\r\n"
    );
    let path = "/wx/shop/wxa/msg_sec_check?scene=2&q=%E4%B8%AD";
    let answer = door.send("POST", path, &lines, body).await;
    assert_eq!((answer.status, &answer.json()["errcode"]), (200, &0.into()), "{}", answer.text());
    assert_eq!(answer.json()["body"], body, "not a byte is changed");
    let token = provider.access_token().unwrap();
    let asked = provider.requests().pop().unwrap();
    let target = format!("/wxa/msg_sec_check?access_token={token}&scene=2&q=%E4%B8%AD");
    assert_eq!((asked.method.as_str(), &asked.target), ("POST", &target));
    let kept = (asked.header("authorization"), asked.header("cookie"), asked.header("x-mine"));
    assert_eq!(kept, (None, None, None));
    // Somebody else has replaced the token: the platform says so, and the call is made again.
    provider.replace_token();
    let again = door.call(CALLER, "POST", "/wx/shop/wxa/x", "same").await;
    assert_eq!(
        (again.json()["errcode"].as_i64(), &again.json()["body"]),
        (Some(0), &"same".into())
    );
    assert_eq!((provider.token_calls(), provider.forced()), (2, 0));
    // The platform refuses what it gives out: another one is forced, once in a while.
    provider.spoil_token();
    let forced = door.call(CALLER, "GET", "/wx/shop/cgi-bin/get_api_domain_ip", "").await;
    assert_eq!((forced.json()["errcode"].as_i64(), provider.forced()), (Some(0), 1));
    provider.spoil_token();
    for _ in 0..3 {
        let told = door.call(CALLER, "GET", "/wx/shop/wxa/x", "").await;
        assert_eq!(told.json()["errcode"], 42001, "it is told as it is");
    }
    assert_eq!(provider.forced(), 1);
    // A service that calls by itself says which token was refused; an old one is no reason to ask.
    let calls = provider.token_calls();
    let report = json!({ "refused": token }).to_string();
    let other = door.call(READER, "POST", "/wx/shop/access_token", &report).await;
    assert_eq!(other.json()["access_token"], provider.access_token().unwrap().as_str());
    assert_eq!(provider.token_calls(), calls);
    for (path, body, meant) in [
        ("/wx/shop/wxa/x?access_token=mine", String::new(), (400, "call_invalid")),
        ("/wx/shop/wxa/x?a=1&Access%5Ftoken=mine", String::new(), (400, "call_invalid")),
        ("/wx/shop/wxa/../sns/jscode2session", String::new(), (400, "call_invalid")),
        ("/wx/shop/wxa/%2e%2e/cgi-bin/token", String::new(), (400, "call_invalid")),
        ("/wx/shop//wxa/x", String::new(), (400, "call_invalid")),
        ("/wx/shop/cgi-bin/stable_token", String::new(), (403, "call_refused")),
        ("/wx/shop/wxa/resetusersessionkey", String::new(), (403, "call_refused")),
        ("/wx/shop/sns/userinfo", String::new(), (403, "call_refused")),
        ("/wx/shop/wxa/x", "x".repeat(3_000_000), (413, "body_too_large")),
    ] {
        let answer = door.call(CALLER, "POST", path, &body).await;
        assert_eq!(reason(&answer), (meant.0, meant.1.to_owned()), "{path}");
    }
    let said = door.gateway.daemon.output();
    assert!(!said.contains("access_token=") && !said.contains(&token[..20]), "{said}");
}

/// Shows O-02.
#[tokio::test]
async fn gateways_share_a_token_and_do_without_redis_where_they_must() {
    let (provider, redis) = (Provider::start(), Redis::start().await);
    provider.set(Manner::Slow(Duration::from_millis(300)));
    let more =
        "  store_keys: [{ kid: s1, secret: \"${STORE_KEY}\" }]\nredis: { url: \"${REDIS_URL}\" }\n";
    let env = || vec![("REDIS_URL", redis.url()), ("STORE_KEY", format!("store-{KEY}"))];
    let bases = [provider.addr()];
    let (one, two) = tokio::join!(start_at(&bases, more, env()), start_at(&bases, more, env()));
    let both = [&one, &two];
    // The thread of the broker connects when it is first asked.
    let answers = join_all((0..10).map(|n| both[n % 2].token())).await;
    let first = answers[0].json()["access_token"].clone();
    assert!(answers.iter().all(|answer| answer.json()["access_token"] == first));
    assert!(provider.token_calls() <= 2, "a gateway that was not connected yet may ask for itself");
    let calls = provider.token_calls();
    // From here on they are connected. The token is replaced, and one of them learns of it for both.
    provider.replace_token();
    let calls_made =
        join_all((0..10).map(|n| both[n % 2].call(CALLER, "GET", "/wx/shop/wxa/x", ""))).await;
    assert!(calls_made.iter().all(|answer| answer.json()["errcode"] == 0));
    assert_eq!(provider.token_calls(), calls + 1);
    let shared = r#"sluice_broker_tokens_total{app="shop",from="shared"}"#;
    let shared = one.gateway.metric(shared).await + two.gateway.metric(shared).await;
    assert!(shared > 0.5, "{shared}");
    let kept = redis.dump().await;
    let token = provider.access_token().unwrap();
    assert!(kept.contains("sluice:wx:token:") && !kept.contains(&token[..20]), "{kept}");
    assert!(!kept.contains(APPID), "{kept}");
    // Redis is gone: what is known is good still, and what is not is asked for.
    drop(redis);
    assert_eq!(one.token().await.json()["access_token"], token.as_str());
    provider.replace_token();
    let alone = one.call(CALLER, "GET", "/wx/shop/wxa/x", "").await;
    assert_eq!(alone.json()["errcode"], 0, "{}", alone.text());
    assert_eq!(provider.token_calls(), calls + 2);
}

/// Shows O-03.
#[tokio::test]
async fn a_platform_that_is_not_well_is_told_of_and_left_alone() {
    let provider = Provider::start();
    let gone = Rogue::refuse();
    let more = "  breaker: { consecutive_failures: 2, open_for: 60s }\n  timeout: 5s\n";
    let door = start_at(&[gone.addr(), provider.addr()], more, Vec::new()).await;
    provider.refuse_tokens(Some(40164));
    assert_eq!(reason(&door.token().await), (500, "misconfigured".to_owned()));
    eventually("the number of the error", async || door.gateway.daemon.output().contains("40164"))
        .await;
    provider.refuse_tokens(None);
    // What failed is not tried again at once, and then it is.
    eventually("a token from the second host", async || door.token().await.status == 200).await;
    provider.set(Manner::Page(502));
    for _ in 0..2 {
        assert_eq!(door.call(CALLER, "GET", "/wx/shop/wxa/x", "").await.status, 502);
    }
    let asked = provider.requests().len();
    let shut = door.call(CALLER, "GET", "/wx/shop/wxa/x", "").await;
    assert_eq!(reason(&shut), (503, "provider_busy".to_owned()));
    assert!(shut.header("retry-after").is_some());
    assert_eq!(provider.requests().len(), asked);
    assert_eq!(door.token().await.status, 200, "the token is known");
    assert!(door.gateway.metric(r#"sluice_broker_breaker_open{app="shop"}"#).await > 0.5);
}

/// Shows O-04.
#[tokio::test]
async fn calls_about_a_user_are_signed_with_a_key_that_services_do_not_know() {
    let provider = Provider::start();
    let more = format!(
        "login: {{ store: memory, keys: [{{ kid: main, alg: HS256, secret: \"{KEY}\" }}] }}\n"
    );
    let config = |text: String| {
        text.replace("upstreams: {", "upstreams: { login: { builtin: login },").replace(
            "routes: [",
            "routes: [{ id: login, match: { path: /auth/login }, upstream: login }, ",
        )
    };
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let env = [("APP_SECRET", SECRET), ("READER", READER), ("CALLER", CALLER)];
    let env = env.map(|(name, value)| (name, value.to_owned())).to_vec();
    let setup = Setup { env, ..Setup::default() };
    let text = config(self::config(&[provider.addr()], addr, &more));
    let door = Door { gateway: Gateway::start_with(&text, setup).await, addr };
    provider.decide("good", Login::session("o-1", None));
    let said = log_in(&door.gateway, "good").await.json();
    let claims = said["data"]["token"].as_str().unwrap().split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_str(&base64_url(claims)).unwrap();
    let sid = claims["sid"].as_str().unwrap();
    let lines = |who: &str, sid: &str| {
        format!("Authorization: Bearer {who}\r\nX-Sluice-Session: {sid}\r\n")
    };
    let path = format!("/wx/shop{CHECK_SESSION}");
    let checked = door.send("GET", &path, &lines(READER, sid), "").await;
    assert_eq!(checked.json()["errcode"], 0, "{}", checked.text());
    let asked = provider.requests().pop().unwrap().target;
    assert!(asked.contains("&openid=o-1&sig_method=hmac_sha256&signature="), "{asked}");
    assert_eq!(door.call(READER, "GET", &path, "").await.json()["errcode"], 87009);
    let stranger = door.send("GET", &path, &lines(CALLER, sid), "").await;
    assert_eq!(reason(&stranger), (403, "call_refused".to_owned()));
    let nobody = door.send("GET", &path, &lines(READER, "AAAA"), "").await;
    assert_eq!(reason(&nobody), (401, "session_ended".to_owned()));
    // What a client was given, and a service wants to read in full.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let text = json!({ "openId": "o-1", "unionId": "u-1", "watermark": { "appid": APPID, "timestamp": now } });
    let (data, iv) = encrypt(&provider.session_key("o-1"), &text.to_string());
    let body = json!({ "session": sid, "encrypted_data": data, "iv": iv }).to_string();
    let opened = door.call(READER, "POST", "/wx/shop/open_data", &body).await;
    assert_eq!(opened.json(), json!({ "data": { "openId": "o-1", "unionId": "u-1" } }));
}

#[test]
fn bad_brokers_are_explained() {
    let rest = "upstreams: { echo: { builtin: echo } }\nroutes: [{ id: a, upstream: echo }]\n";
    let broker = "token_broker: { address: \"10.0.0.1:9902\", timeout: 1h, limits: { body: 1GiB }, \
        clients: [{ name: \"a b\", token: short, apps: [none], paths: [wxa] }] }\n";
    let said = refusal(&format!("{broker}{rest}"));
    for words in [
        "in clear; this needs `tls`",
        "1s and 1m",
        "1KiB and 32MiB",
        "letters, digits",
        "visible characters",
        "there is no app `none`",
        "begins with `/`",
        "no app that has access tokens",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let app = format!(
        "apps: [{{ id: a, provider: wechat, appid: {APPID}, secret: s, tls: {{ server_name: b }} }}]\n"
    );
    let said = refusal(&format!("{app}token_broker: {{}}\n{rest}"));
    assert!(said.contains("the host of the address is verified"), "{said}");
    let app = format!("apps: [{{ id: a, provider: wechat, appid: {APPID}, secret: s }}]\n");
    let broker =
        format!("token_broker: {{ store: redis, clients: [{{ name: a, token: {READER} }}] }}\n");
    let own = "upstreams: { b: { endpoints: [{ address: \"127.0.0.1:9902\" }] } }\nroutes: [{ id: a, upstream: b }]\n";
    let said = refusal(&format!("{app}{broker}{own}"));
    for words in ["no Redis to keep tokens in", "the address of the token broker"] {
        assert!(said.contains(words), "{words}: {said}");
    }
}
