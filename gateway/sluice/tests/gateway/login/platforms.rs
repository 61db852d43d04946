//! Every platform that is shipped, a custom one, and what each says when all is not well.

use std::time::{Duration, Instant};

use sluice_chaos::provider::{APPID, Login, Manner, Provider, SECRET};
use sluice_chaos::rogue::{self, Rogue};

use super::{KEY, config, counted, log_in, post, setup, start};
use crate::support::{Gateway, Setup, eventually};

#[tokio::test]
async fn every_platform_is_asked_in_its_own_way() {
    let provider = Provider::start();
    let key = crate::tokens::Key::new("RS256");
    provider.alipay_key(key.der());
    let apps: Vec<String> = ["wechat", "qq", "douyin", "baidu", "kuaishou", "custom", "wechat_service_provider", "alipay"]
        .iter()
        .map(|kind| {
            let more = match *kind {
                "custom" => "secret: \"${APP_SECRET}\", exchange: { \
                    request: { method: POST, path: /oauth2/mp/code2session, send: form, \
                    params: { js_code: \"{code}\", app_id: \"{appid}\", app_secret: \"{secret}\" } }, \
                    success: { pointer: /result, equals: \"1\" }, map: { open_id: [/open_id] }, \
                    errors: { pointer: [/result], default: invalid_code } }",
                "wechat_service_provider" => {
                    "params: { component_appid: wxcomponent, component_access_token: component token }"
                }
                "alipay" => "secret: \"${file:alipay_key.pem}\"",
                _ => "secret: \"${APP_SECRET}\"",
            };
            format!(
                "  - {{ id: {kind}, provider: {kind}, appid: {APPID}-{kind}, api_base: [\"http://{}\"], {more} }}\n",
                provider.addr()
            )
        })
        .collect();
    let config = format!(
        "apps:\n{}login: {{ expose_openid: true, answer: flat, keys: [{{ kid: a, alg: HS256, secret: \"{KEY}\" }}] }}\n\
         upstreams: {{ login: {{ builtin: login }} }}\n\
         routes: [{{ id: login, match: {{ path: /auth/login }}, upstream: login }}]\n",
        apps.concat()
    );
    let files = vec![("alipay_key.pem", key.private_pem())];
    let gateway = Gateway::start_with(&config, Setup { files, ..setup() }).await;
    for kind in [
        "wechat",
        "qq",
        "douyin",
        "baidu",
        "kuaishou",
        "custom",
        "wechat_service_provider",
        "alipay",
    ] {
        let (good, openid) = (format!("{kind}@good"), format!("o-{kind}"));
        provider.decide(&good, Login::session(&openid, None));
        let answer = post(&gateway, &format!(r#"{{"app":"{kind}","code":"{good}"}}"#)).await;
        assert_eq!(
            (answer.status, &answer.json()["openid"]),
            (200, &openid.into()),
            "{}",
            answer.text()
        );
        let answer = post(&gateway, &format!(r#"{{"app":"{kind}","code":"bad"}}"#)).await;
        let reason = answer.json()["reason"].clone();
        assert_eq!((answer.status, reason), (401, "invalid_code".into()), "{kind}");
    }
}

/// Shows J-16.
#[tokio::test]
async fn what_a_platform_says_has_one_meaning_each() {
    let provider = Provider::start();
    let gateway = start(&provider, "").await;
    for (code, status, reason, retry) in [
        (40029, 401, "invalid_code", None),
        (40163, 401, "code_used", None),
        (45011, 429, "rate_limited", Some("60")),
        (40226, 403, "user_blocked", None),
        (40125, 500, "misconfigured", None),
        (-1, 503, "provider_busy", Some("1")),
    ] {
        let name = format!("code{code}");
        provider.decide(&name, Login::Error(code));
        for _ in 0..2 {
            let answer = log_in(&gateway, &name).await;
            assert_eq!(
                (answer.status, &answer.json()["reason"]),
                (status, &reason.into()),
                "{code}"
            );
            assert_eq!(answer.header("retry-after"), retry, "{code}");
        }
        assert_eq!(
            provider.exchanges(&name),
            1,
            "{code}: a code is sent once, whatever came of it"
        );
    }
    eventually("a word of what is wrong", async || {
        gateway.daemon.output().contains("the platform refuses this app")
    })
    .await;
    let said = gateway.daemon.output();
    assert!(!said.contains(SECRET) && !said.contains("js_code"), "{said}");
}

/// Shows J-16.
#[tokio::test]
async fn an_awkward_platform_is_no_trouble() {
    let provider = Provider::start();
    let gateway = start(&provider, "breaker: { consecutive_failures: 100 }").await;
    for (n, manner) in
        [Manner::Empty, Manner::Broken, Manner::Page(502), Manner::Page(200), Manner::Huge(300_000)]
            .into_iter()
            .enumerate()
    {
        provider.set(manner.clone());
        let code = format!("c{n}");
        provider.decide(&code, Login::session("o", None));
        let answer = log_in(&gateway, &code).await;
        assert_eq!(
            (answer.status, &answer.json()["reason"]),
            (503, &"provider_busy".into()),
            "{manner:?}"
        );
        // What was sent stays sent, though the platform is well again.
        provider.set(Manner::Well);
        assert_eq!(log_in(&gateway, &code).await.status, 503, "{manner:?}");
        assert_eq!(provider.exchanges(&code), 1, "{manner:?}");
    }
}

/// Shows J-16.
#[tokio::test]
async fn a_slow_platform_is_waited_for_in_vain_for_so_long() {
    let provider = Provider::start();
    let gateway = start(&provider, "timeout: 1s").await;
    provider.decide("slow", Login::session("o", None));
    provider.set(Manner::Slow(Duration::from_secs(60)));
    let began = Instant::now();
    let answer = log_in(&gateway, "slow").await;
    assert_eq!((answer.status, &answer.json()["reason"]), (504, &"provider_timeout".into()));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    provider.set(Manner::Well);
    assert_eq!(log_in(&gateway, "slow").await.status, 504);
    assert_eq!(provider.exchanges("slow"), 1);
}

/// A connection that breaks after something was sent ends it; one that was never made does not.
/// Shows J-18.
#[tokio::test]
async fn the_next_host_is_asked_only_while_nothing_was_sent() {
    let provider = Provider::start();
    provider.decide("good", Login::session("o", None));
    let closed = Rogue::refuse();
    let gateway =
        Gateway::start_with(&config(&[closed.addr(), provider.addr()], ""), setup()).await;
    assert_eq!(log_in(&gateway, "good").await.status, 200);
    assert_eq!(provider.exchanges("good"), 1);
    // This one reads the request and goes away.
    let rude = Rogue::start(rogue::close_after_head());
    let gateway = Gateway::start_with(&config(&[rude.addr(), provider.addr()], ""), setup()).await;
    provider.decide("other", Login::session("o", None));
    for _ in 0..2 {
        assert_eq!(log_in(&gateway, "other").await.json()["reason"], "provider_busy");
    }
    assert_eq!((provider.exchanges("other"), rude.connections()), (0, 1), "it may have arrived");
    // Where nobody was reached, the code is as good as before.
    let gateway = Gateway::start_with(&config(&[closed.addr()], ""), setup()).await;
    assert_eq!(log_in(&gateway, "third").await.json()["reason"], "provider_busy");
    gateway.write_config(&config(&[provider.addr()], ""));
    gateway.wait_for_generation(2).await;
    provider.decide("third", Login::session("o", None));
    assert_eq!(log_in(&gateway, "third").await.status, 200);
}

/// Shows J-19.
#[tokio::test]
async fn a_failing_platform_is_left_alone_and_clients_are_not_its_failures() {
    let provider = Provider::start();
    let gateway = start(&provider, "breaker: { consecutive_failures: 2, open_for: 300ms }").await;
    for n in 0..5 {
        assert_eq!(log_in(&gateway, &format!("wrong{n}")).await.status, 401);
    }
    provider.set(Manner::Page(500));
    for n in 0..2 {
        assert_eq!(log_in(&gateway, &format!("lost{n}")).await.status, 503);
    }
    let asked = provider.requests().len();
    provider.set(Manner::Well);
    provider.decide("good", Login::session("o", None));
    let refused = log_in(&gateway, "good").await;
    if refused.status == 503 {
        assert!(refused.header("retry-after").is_some());
        assert_eq!(provider.requests().len(), asked, "an open breaker lets nothing through");
    }
    eventually("the breaker to try again", async || log_in(&gateway, "good").await.status == 200)
        .await;
    assert_eq!(provider.exchanges("good"), 1);
    counted(&gateway, r#"sluice_mp_login_total{app="shop",result="invalid_code"}"#, 5.0).await;
}
