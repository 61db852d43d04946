//! Platforms that are not what they should be: of another name, too talkative, packed; and services that
//! make one look ill.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use sluice_chaos::pki;
use sluice_chaos::process::{Redis, free_port};
use sluice_chaos::provider::{APPID, Manner, Provider, SECRET};
use sluice_chaos::raw;
use sluice_chaos::recorder::{Answer, Recorder};

use super::{CALLER, Door, READER, reason, start_at};
use crate::login::KEY;
use crate::support::{Gateway, Setup, eventually};

/// Tells tokens as it should, and anything else as `other` says.
fn platform(other: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Recorder {
    Recorder::deciding(move |request| match request.target.as_str() {
        "/cgi-bin/stable_token" => {
            Answer::ok(json!({ "access_token": "tok-en", "expires_in": 7200 }).to_string())
        }
        target => other(target),
    })
}

/// The secret of an app goes to nobody who cannot show that he is the platform.
///
/// Shows O-07.
#[tokio::test]
async fn a_platform_has_to_show_its_name_before_it_is_told_a_secret() {
    let (authority, stranger) = (pki::Authority::new(), pki::Authority::new());
    let listen = |authority: &pki::Authority, name: &str| {
        let pair = authority.issue(&[name]);
        Provider::start_tls(pki::server_config(&pair, &["http/1.1"]))
    };
    let right = listen(&authority, "127.0.0.1");
    let misnamed = listen(&authority, "api.example");
    let untrusted = listen(&stranger, "127.0.0.1");
    let expired = authority.issue_expired(&["127.0.0.1"]);
    let expired = Provider::start_tls(pki::server_config(&expired, &["http/1.1"]));
    let app = |id: &str, provider: &Provider| {
        format!(
            "  - {{ id: {id}, provider: wechat, appid: {APPID}{id}, secret: \"${{APP_SECRET}}\", \
             api_base: [\"https://{}\"], tls: {{ ca_file: ca.pem }} }}\n",
            provider.addr()
        )
    };
    let door = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let config = format!(
        r#"
apps:
{}{}{}{}
token_broker:
  address: "{door}"
  clients: [{{ name: reader, token: "${{READER}}", read_token: true }}]
upstreams: {{ echo: {{ builtin: echo }} }}
routes: [{{ id: all, upstream: echo }}]
"#,
        app("right", &right),
        app("misnamed", &misnamed),
        app("untrusted", &untrusted),
        app("expired", &expired),
    );
    let env = [("APP_SECRET", SECRET), ("READER", READER)];
    let env = env.map(|(name, value)| (name, value.to_owned())).to_vec();
    let files = vec![("ca.pem", authority.pem())];
    let gateway = Gateway::start_with(&config, Setup { env, files, ..Setup::default() }).await;
    let door = Door { gateway, addr: door };
    let token = door.call(READER, "GET", "/wx/right/access_token", "").await;
    assert_eq!(token.status, 200, "{}", token.text());
    let passed = door.call(READER, "POST", "/wx/right/wxa/x", "same").await;
    assert_eq!(passed.json()["body"], "same", "{}", passed.text());
    assert!(right.requests()[0].text().contains(SECRET), "the right one has to be told");
    for (app, provider) in
        [("misnamed", &misnamed), ("untrusted", &untrusted), ("expired", &expired)]
    {
        let path = format!("/wx/{app}/access_token");
        let refused = door.call(READER, "GET", &path, "").await;
        assert_eq!(reason(&refused), (503, "provider_busy".to_owned()), "{app}");
        let called = door.call(READER, "GET", &format!("/wx/{app}/wxa/x"), "").await;
        assert_eq!(called.status, 503, "{app}");
        assert!(provider.requests().is_empty(), "{app} was told something");
    }
    eventually("a word of why", async || door.gateway.daemon.output().contains("no TLS")).await;
    assert!(!door.gateway.daemon.output().contains(SECRET));
}

/// Five large answers, or five bodies that came slowly, shut the platform for every service of the app.
///
/// Shows O-03.
#[tokio::test]
async fn a_service_cannot_make_the_platform_look_ill() {
    let platform = platform(|target| match target.starts_with("/wxa/large") {
        true => Answer::ok("x".repeat(5000)),
        false => Answer::ok("fine"),
    });
    let more = "  timeout: 1s\n  limits: { answer: 4KiB }\n  \
        breaker: { consecutive_failures: 1, open_for: 60s }\n";
    let door = start_at(&[platform.addr()], more, Vec::new()).await;
    for _ in 0..2 {
        let large = door.call(CALLER, "GET", "/wx/shop/wxa/large", "").await;
        assert_eq!(reason(&large), (502, "answer_too_large".to_owned()));
        assert_eq!(large.header("retry-after"), None, "it would be as large again");
    }
    // The body is sent after the time for the whole call would have been over.
    let mut slow = raw::Client::connect(door.addr).await;
    let head = format!(
        "POST /wx/shop/wxa/x HTTP/1.1\r\nHost: broker\r\nAuthorization: Bearer {CALLER}\r\n\
         Content-Length: 4\r\n\r\nab"
    );
    slow.send(head.as_bytes()).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    slow.send(b"cd").await;
    let answer = slow.response().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "fine"));
    assert_eq!(door.call(CALLER, "GET", "/wx/shop/wxa/x", "").await.status, 200);
    assert!(door.gateway.metric(r#"sluice_broker_breaker_open{app="shop"}"#).await < 0.5);
}

/// A packed answer was handed on without the word that it was packed, and with whatever was in it.
///
/// Shows O-03.
#[tokio::test]
async fn answers_in_which_a_token_could_hide_are_not_handed_on() {
    let platform = platform(|target| {
        let path = target.split('?').next().unwrap_or_default();
        match path {
            "/wxa/packed" => Answer::ok("\u{1f}token").header("Content-Encoding", "gzip"),
            "/wxa/told" => Answer::ok(target),
            "/wxa/named" => Answer::ok("x").header("Content-Disposition", "inline; a=tok-en"),
            "/wxa/elsewhere" => Answer::new(302).header("Location", "https://evil.example/?tok-en"),
            _ => Answer::ok("fine").header("Set-Cookie", "tok-en").header("X-Token", "tok-en"),
        }
    });
    let door = start_at(&[platform.addr()], "", Vec::new()).await;
    for (path, meant) in [
        ("packed", (503, "provider_busy")),
        ("told", (403, "call_refused")),
        ("named", (403, "call_refused")),
    ] {
        let answer = door.call(CALLER, "GET", &format!("/wx/shop/wxa/{path}"), "").await;
        assert_eq!(reason(&answer), (meant.0, meant.1.to_owned()), "{path}");
    }
    let moved = door.call(CALLER, "GET", "/wx/shop/wxa/elsewhere", "").await;
    assert_eq!((moved.status, moved.header("location")), (302, None), "nobody follows it");
    let fine = door.call(CALLER, "GET", "/wx/shop/wxa/fine", "").await;
    assert_eq!((fine.status, fine.header("set-cookie"), fine.header("x-token")), (200, None, None));
    let said = door.gateway.daemon.output();
    assert!(!said.contains("tok-en"), "{said}");
}

/// A gateway that is killed while it asks kept all others waiting for 20 s.
///
/// Shows O-02.
#[tokio::test]
async fn a_gateway_that_dies_while_it_asks_does_not_keep_the_others_waiting() {
    let (provider, redis) = (Provider::start(), Redis::start().await);
    let more =
        "  store_keys: [{ kid: s1, secret: \"${STORE_KEY}\" }]\nredis: { url: \"${REDIS_URL}\" }\n";
    let env = || vec![("REDIS_URL", redis.url()), ("STORE_KEY", format!("store-{KEY}"))];
    let bases = [provider.addr()];
    let (one, two) = tokio::join!(start_at(&bases, more, env()), start_at(&bases, more, env()));
    // Their threads are connected once they have asked.
    provider.refuse_tokens(Some(-1));
    for door in [&one, &two] {
        let busy = (503, "provider_busy".to_owned());
        eventually("a refusal", async || reason(&door.token().await) == busy).await;
    }
    provider.refuse_tokens(None);
    let asked = provider.token_calls();
    provider.set(Manner::Slow(Duration::from_secs(60)));
    let asking = async {
        loop {
            // The refusal of before stands for a second.
            assert_ne!(one.token().await.status, 200);
        }
    };
    tokio::select! {
        () = asking => {}
        () = eventually("the question", async || provider.token_calls() > asked) => {}
    }
    drop(one);
    provider.set(Manner::Well);
    let held = redis.dump().await;
    assert!(held.contains("sluice:wx:turn:"), "it died with the turn in its hand: {held}");
    let begun = Instant::now();
    eventually("a token", async || two.token().await.status == 200).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
