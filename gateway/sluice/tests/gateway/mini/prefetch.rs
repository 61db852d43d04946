//! WeChat's pre-fetch: who may ask, for whom, and which answers are worth sending.

use sluice_chaos::raw::Response;
use sluice_chaos::recorder::{Answer, Recorder};

use super::APPS;
use crate::support::{Gateway, Setup};
use crate::tokens::{Key, now};

const APPID: &str = "wx0123456789abcdef";

async fn start(recorder: &Recorder) -> (Gateway, Key) {
    let key = Key::new("HS256");
    let config = format!(
        "{APPS}client_identity: {{ referer: {{ mode: enforce }} }}
version_gate: [ {{ app: shop-wx, min_version: 3.0.0, require_version: true }} ]
upstreams: {{ up: {{ endpoints: [ {{ address: \"{}\" }} ] }} }}
routes:
  - id: prefetch
    match: {{ path: /prefetch }}
    prefetch: {{ apps: [ shop-wx ], max_answer: 1KiB }}
    filters: [ {{ jwt: {{ keys: [ {{ kid: k, alg: HS256, secret_file: k.key }} ], from: [ {{ query: token }} ] }} }} ]
    upstream: up
  - {{ id: open, match: {{ path: /open }}, prefetch: {{}}, upstream: up }}
  - {{ id: all, match: {{ path: /** }}, upstream: up }}
",
        recorder.addr()
    );
    let setup = Setup { files: vec![("k.key", key.shared.clone())], ..Setup::default() };
    (Gateway::start_with(&config, setup).await, key)
}

async fn ask(gateway: &Gateway, target: &str) -> Response {
    gateway.client().await.request("GET", target, "a", &[("Accept-Encoding", "gzip")], b"").await
}

/// Shows HD-26.
#[tokio::test]
async fn wechat_fetches_for_the_bearer_of_a_token_and_for_nobody_else() {
    let recorder =
        Recorder::answering(Answer::ok("{\"items\":[]}").header("Cache-Control", "public"));
    let (gateway, key) = start(&recorder).await;
    let token =
        |app: &str| key.token(&format!(r#"{{"exp":{},"sub":"u-1","app":"{app}"}}"#, now() + 600));
    let (mine, other) = (token("shop-wx"), token("crew-wx"));
    // No Referer and no version, which all other routes insist on.
    assert_eq!(ask(&gateway, "/other").await.json()["reason"], "referer_refused");
    let target = format!(
        "/prefetch?appid={APPID}&token={mine}&timestamp=1700000000000&path=pages%2Fhome&query=a%3D1&scene=1001&customMiniprogramVersion=3.4.0"
    );
    let answer = ask(&gateway, &target).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "{\"items\":[]}"));
    assert_eq!(answer.all("cache-control"), ["no-store"]);
    let sent = &recorder.requests()[0];
    assert_eq!(
        sent.target,
        format!(
            "/prefetch?appid={APPID}&timestamp=1700000000000&path=pages%2Fhome&query=a%3D1&scene=1001&customMiniprogramVersion=3.4.0"
        )
    );
    for (name, value) in [
        ("x-mp-app", "shop-wx"),
        ("x-mp-user", "u-1"),
        ("x-mp-trust", "proven"),
        ("accept-encoding", "identity"),
    ] {
        assert_eq!(sent.all(name), [value], "{name}");
    }
    let begun = recorder.begun();
    for (target, reason) in [
        (format!("/prefetch?appid={APPID}"), "token_missing"),
        (format!("/prefetch?token={mine}"), "prefetch_refused"),
        (format!("/prefetch?appid=wxfedcba9876543210&token={other}"), "prefetch_refused"),
        (format!("/prefetch?appid={APPID}&token={other}"), "prefetch_refused"),
        (format!("/prefetch?appid={APPID}&appid={APPID}&token={mine}"), "prefetch_refused"),
        (format!("/prefetch?appid={APPID}&%61ppid=wx1&token={mine}"), "prefetch_refused"),
        (format!("/prefetch?appid={APPID}&token={mine}&code=c"), "prefetch_refused"),
        (format!("/prefetch?appid=shop-wx&token={mine}"), "prefetch_refused"),
    ] {
        let refused = ask(&gateway, &target).await.json();
        assert_eq!(refused["reason"], reason, "{target}");
    }
    let posted = gateway.client().await.request("POST", &target, "a", &[], b"x").await;
    assert_eq!(
        posted.json()["reason"],
        "referer_refused",
        "it is another route's: {}",
        posted.text()
    );
    assert_eq!(recorder.begun(), begun, "the service was asked");
    let logged = gateway.log_lines(10).await;
    let line = logged.iter().find(|line| line["status"] == 200).unwrap();
    assert_eq!((&line["app"], &line["mp_version"]), (&"shop-wx".into(), &"3.4.0".into()));
    assert!(!line.to_string().contains(&mine));
}

/// Shows HD-26.
#[tokio::test]
async fn answers_that_wechat_would_not_keep_are_not_sent() {
    let recorder = Recorder::start();
    let (gateway, key) = start(&recorder).await;
    let token = key.token(&format!(r#"{{"exp":{},"sub":"u-1"}}"#, now() + 600));
    let target = format!("/prefetch?appid={APPID}&token={token}");
    for (answer, fits) in [
        (Answer::ok(vec![b'a'; 1024]), true),
        (Answer::ok("文".repeat(341)).chunked(), true),
        (Answer::ok(""), true),
        (Answer::ok(vec![b'a'; 1025]), false),
        (Answer::ok(vec![b'a'; 100_000]).chunked(), false),
        (Answer::ok(vec![0xff, 0xfe]), false),
        (Answer::ok("x").header("Content-Encoding", "gzip"), false),
        (Answer::new(404).body("{}"), true),
    ] {
        recorder.set(answer);
        let answer = ask(&gateway, &target).await;
        if fits {
            assert_ne!(answer.status, 502, "{}", answer.text());
            assert_eq!(answer.header("content-length"), Some(&*answer.body.len().to_string()));
        } else {
            assert_eq!((answer.status, &answer.json()["reason"]), (502, &"prefetch_unfit".into()));
        }
    }
    assert_eq!(gateway.metric(r#"sluice_rejected_total{reason="prefetch_unfit"}"#).await, 4.0);
    // Without a filter for tokens the service gets WeChat's code, or nothing, and knows nobody.
    recorder.set(Answer::ok("{}"));
    assert_eq!(ask(&gateway, &format!("/open?appid={APPID}&code=c")).await.status, 200);
    let sent = recorder.requests().pop().unwrap();
    assert!(sent.target.ends_with("&code=c") && sent.header("x-mp-user").is_none(), "{sent:?}");
}
