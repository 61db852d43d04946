//! What the platform pushes, as it pushes it: signed, encrypted, and again if nobody has said `success`.

use std::time::Duration;

use serde_json::json;
use sluice_chaos::process::Redis;
use sluice_chaos::provider::{APPID, PUSH_KEY, PUSH_TOKEN, Push};
use sluice_chaos::raw;
use sluice_chaos::recorder::{Answer, Recorder};

use crate::support::{Gateway, Setup, reason};

fn config(service: &Recorder, filter: &str, top: &str) -> String {
    format!(
        r#"
{top}
apps: [{{ id: shop, provider: wechat, appid: {APPID} }}]
upstreams: {{ support: {{ endpoints: [{{ address: "{}" }}] }} }}
routes:
  - id: push
    match: {{ path: /wx/push }}
    filters: [{{ message_push: {{ app: shop, token: "${{PUSH_TOKEN}}", {filter} }} }}]
    upstream: support
"#,
        service.addr()
    )
}

const SECURE: &str = "aes_key: \"${PUSH_KEY}\"";

fn env() -> Vec<(&'static str, String)> {
    vec![("PUSH_TOKEN", PUSH_TOKEN.to_owned()), ("PUSH_KEY", PUSH_KEY.to_owned())]
}

async fn start(service: &Recorder, filter: &str) -> Gateway {
    let setup = Setup { env: env(), workers: Some(1), ..Setup::default() };
    Gateway::start_with(&config(service, filter, ""), setup).await
}

async fn send(gateway: &Gateway, push: &Push) -> raw::Response {
    let request = format!(
        "POST /wx/push?{} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n{}",
        push.query,
        push.kind,
        push.body.len(),
        push.body
    );
    let mut client = gateway.client().await;
    client.send(request.as_bytes()).await;
    client.response().await
}

/// Shows O-06.
#[tokio::test]
async fn a_pushed_message_reaches_the_service_once_and_in_clear() {
    let service = Recorder::answering(Answer::new(200).body(r#"{"ok":true}"#));
    let gateway = start(&service, SECURE).await;
    let xml = "<xml><FromUserName><![CDATA[o-1]]></FromUserName><MsgId>1</MsgId>\
        <Content><![CDATA[你好]]></Content></xml>";
    let json = json!({ "FromUserName": "o-1", "CreateTime": 1, "Event": "x" }).to_string();
    for (n, text) in [xml, json.as_str()].into_iter().enumerate() {
        let push = Push::sealed(text, APPID);
        for _ in 0..3 {
            let answer = send(&gateway, &push).await;
            assert_eq!((answer.status, answer.text().as_str()), (200, "success"));
        }
        // Another try is signed anew, and is the same message.
        assert_eq!(send(&gateway, &Push::sealed(text, APPID)).await.text(), "success");
        let seen = service.wait_for(n + 1).await;
        assert_eq!(seen.len(), n + 1);
        let got = &seen[n];
        assert_eq!((got.text().as_str(), got.target.as_str()), (text, "/wx/push?openid=o-1"));
        assert_eq!(got.header("content-length"), Some(text.len().to_string().as_str()));
        assert_eq!(got.header("content-type"), Some(push.kind));
    }
    assert_eq!(service.connections(), 1, "the connection is used again");
    let mut wrong = Push::sealed(xml, APPID);
    wrong.body = wrong.body.replace("Encrypt", "Encrypted");
    let mut query = Push::sealed(xml, APPID);
    query.query = query.query.replace("msg_signature=", "msg_signature=0");
    let mut nonce = Push::sealed(xml, APPID);
    nonce.query = nonce.query.replace("nonce=", "nonce=1");
    let mut large = Push::sealed(xml, APPID);
    large.body.push_str(&" ".repeat(200_000));
    let old = Push::sealed_at(xml, APPID, 3600);
    for (push, meant) in [
        (wrong, (400, "push_invalid")),
        (query, (403, "push_refused")),
        (nonce, (403, "push_refused")),
        (Push::sealed(xml, "wx-other"), (403, "push_refused")),
        (Push::plain(xml), (400, "push_invalid")),
        (old, (403, "push_old")),
        (large, (413, "body_too_large")),
    ] {
        assert_eq!(reason(&send(&gateway, &push).await), (meant.0, meant.1.to_owned()));
    }
    assert_eq!(service.requests().len(), 2);
    let said = gateway.daemon.output();
    assert!(!said.contains("你好") && !said.contains(PUSH_TOKEN), "{said}");
}

#[tokio::test]
async fn the_check_of_the_address_is_answered() {
    let service = Recorder::start();
    let gateway = start(&service, SECURE).await;
    let query = Push::plain("").query;
    let answer = gateway.get(&format!("/wx/push?{query}&echostr=4375120948345356249")).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "4375120948345356249"));
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    for path in ["/wx/push", "/wx/push?signature=x&timestamp=1&nonce=2&echostr=3"] {
        assert_eq!(reason(&gateway.get(path).await), (403, "push_refused".to_owned()), "{path}");
    }
    assert_eq!(service.requests().len(), 0);
}

#[tokio::test]
async fn what_the_service_did_not_take_comes_again() {
    let service = Recorder::answering(Answer::new(500));
    let gateway = start(&service, "reply: service").await;
    assert!(gateway.daemon.output().contains("in plain mode the signature says nothing"));
    let push = Push::plain(r#"{"MsgId":9,"Content":"x"}"#);
    assert_eq!(send(&gateway, &push).await.status, 500);
    assert_eq!(send(&gateway, &push).await.status, 500);
    // While one try is under way the next one has to wait.
    service.set(Answer::new(200).body("taken").delay(Duration::from_millis(700)));
    let (first, second) = tokio::join!(send(&gateway, &push), async {
        service.wait_for_begun(3).await;
        send(&gateway, &push).await
    });
    assert_eq!((first.status, first.text().as_str()), (200, "taken"), "what the service says");
    assert_eq!(reason(&second), (503, "push_under_way".to_owned()));
    assert!(second.header("retry-after").is_some());
    assert_eq!(send(&gateway, &push).await.text(), "success");
    assert_eq!(service.requests().len(), 3);
}

#[tokio::test]
async fn gateways_let_a_message_through_once_between_them() {
    let (service, redis) = (Recorder::start(), Redis::start().await);
    let start = async || {
        let config = config(&service, SECURE, r#"redis: { url: "${REDIS_URL}" }"#);
        let setup = Setup { env: env(), ..Setup::default() };
        Gateway::start_with_redis(&config, &redis, setup).await
    };
    let (one, two) = (start().await, start().await);
    let push = Push::sealed(r#"{"MsgId":77}"#, APPID);
    for gateway in [&one, &two, &one] {
        assert_eq!(send(gateway, &push).await.text(), "success");
    }
    assert_eq!(service.requests().len(), 1);
    assert!(redis.dump().await.contains("sluice:push:"));
    drop(redis);
    let push = Push::sealed(r#"{"MsgId":78}"#, APPID);
    for _ in 0..2 {
        assert_eq!(send(&one, &push).await.text(), "success");
    }
    assert_eq!(service.requests().len(), 2, "without Redis each gateway knows its own");
}
