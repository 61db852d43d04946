//! Which versions are served, what the build under review gets, and which build goes to which pool.

use std::net::SocketAddr;

use sluice_chaos::raw;
use sluice_chaos::recorder::{Answer, Recorder};

use super::APPS;
use crate::support::{Gateway, Setup};

async fn ask(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> raw::Response {
    gateway.client().await.request("GET", path, "a", headers, b"").await
}

/// Shows HD-22.
#[tokio::test]
async fn old_versions_are_told_to_restart_and_older_ones_are_not_served() {
    let recorder = Recorder::start();
    let config = format!(
        "{APPS}version_gate:
  - {{ app: shop-wx, min_version: 3.2.0, soft_min: 3.4.0, message: \"请重启 \\\"小程序\\\"\", exempt: [ login, /health ] }}
  - {{ app: crew-wx, min_version: \"2\", require_version: true }}
filters: [ {{ cors: {{ origins: [ \"https://h5.example\" ], expose: [ X-MP-Upgrade ] }} }} ]
upstreams: {{ service: {{ endpoints: [ {{ address: \"{}\" }} ] }} }}
routes:
  - {{ id: login, match: {{ path: /auth/login }}, upstream: service }}
  - {{ id: in, match: {{ path: /in }}, upstream: service, filters: [ {{ jwt: {{ keys: [ {{ kid: k, alg: HS256, secret: \"0123456789abcdef0123456789abcdef\" }} ] }} }} ] }}
  - {{ id: all, match: {{ path: /** }}, upstream: service }}
",
        recorder.addr()
    );
    let gateway = Gateway::start(&config).await;
    let of = |app, version| {
        [("X-MP-App", app), ("X-MP-Version", version), ("Origin", "https://h5.example")]
    };
    for (path, app, version, status, upgrade) in [
        ("/", "shop-wx", "3.1.9", 426, Some("required")),
        ("/in", "shop-wx", "3.2.0-rc.1", 426, Some("required")),
        ("/auth/login", "shop-wx", "1.0", 200, Some("available")),
        ("/health", "shop-wx", "1.0", 200, Some("available")),
        ("/", "shop-wx", "3.2.0", 200, Some("available")),
        ("/", "shop-wx", "v3.4", 200, None),
        ("/", "shop-wx", "10.0", 200, None),
        ("/", "shop-wx", "no version", 200, None),
        ("/", "crew-wx", "no version", 426, Some("required")),
        ("/", "shop-ali", "0.1", 200, None),
        ("/", "unknown", "0.1", 200, None),
    ] {
        let answer = ask(&gateway, path, &of(app, version)).await;
        assert_eq!(answer.status, status, "{path} {app} {version}");
        assert_eq!(answer.header("x-mp-upgrade"), upgrade, "{path} {app} {version}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://h5.example"));
    }
    assert_eq!(ask(&gateway, "/", &[]).await.status, 200, "who is no mini-program has no version");
    let refused = ask(&gateway, "/", &of("shop-wx", "1")).await.json();
    assert_eq!(refused["reason"], "upgrade_required");
    assert_eq!(refused["code"], 426);
    let data = &refused["data"];
    assert_eq!((&data["min"], &data["action"]), (&"3.2.0".into(), &"restart".into()));
    assert_eq!(data["message"], "请重启 \"小程序\"");
    assert_eq!(gateway.metric(r#"sluice_rejected_total{reason="upgrade_required"}"#).await, 4.0);
}

/// Shows HD-22.
#[tokio::test]
async fn the_build_under_review_gets_what_releases_get() {
    let (live, test) = (Recorder::start(), Recorder::start());
    let config = |until: &str| {
        format!(
            "{APPS}version_gate:
  - {{ app: shop-wx, review_window: {{ version: 3.5.0, until: \"{until}\" }} }}
  - {{ app: crew-wx, review_window: {{ build: c0ffee, until: \"{until}\" }} }}
upstreams:
  live: {{ endpoints: [ {{ address: \"{}\" }} ] }}
  test: {{ endpoints: [ {{ address: \"{}\" }} ] }}
routes:
  - {{ id: test, match: {{ path: /**, env: [ develop, trial ] }}, upstream: test }}
  - {{ id: live, match: {{ path: /** }}, upstream: live }}
",
            live.addr(),
            test.addr()
        )
    };
    let gateway = Gateway::start(&config("2999-01-01T00:00:00+08:00")).await;
    let of = |version, env| [("X-MP-App", "shop-wx"), ("X-MP-Version", version), ("X-MP-Env", env)];
    let crew = |build| [("X-MP-App", "crew-wx"), ("X-MP-Build", build), ("X-MP-Env", "develop")];
    for (headers, is_live) in [
        (of("3.5.0", "develop"), true),
        (of("v3.5", "trial"), true),
        (of("3.5.1", "develop"), false),
        (of("3.4.0", "develop"), false),
        (of("3.4.0", "release"), true),
        (crew("c0ffee"), true),
        (crew("c0ffee1"), false),
    ] {
        let before = (live.begun(), test.begun());
        assert_eq!(ask(&gateway, "/", &headers).await.status, 200);
        let after = (live.begun(), test.begun());
        let expected = if is_live { (before.0 + 1, before.1) } else { (before.0, before.1 + 1) };
        assert_eq!(after, expected, "{headers:?}");
    }
    assert_eq!(live.requests()[0].all("x-mp-env"), ["release"]);
    let logged = gateway.log_lines(7).await;
    assert_eq!(logged.iter().filter(|line| line["mp_review"] == true).count(), 3);

    // The window closes by itself; here it is closed already.
    gateway.write_config(&config("2020-01-01T00:00:00Z"));
    gateway.wait_for_generation(2).await;
    let before = test.begun();
    assert_eq!(ask(&gateway, "/", &of("3.5.0", "develop")).await.status, 200);
    assert_eq!(test.begun(), before + 1);
}

fn contract(new: SocketAddr, old: SocketAddr) -> String {
    format!(
        "{APPS}contract:
  source: file:contracts.yaml
  pools: {{ orders: [ {{ build: 9f8e, upstream: orders }}, {{ build: 77aa, upstream: orders-old }} ] }}
upstreams:
  orders: {{ endpoints: [ {{ address: \"{new}\" }} ] }}
  orders-old: {{ endpoints: [ {{ address: \"{old}\" }} ] }}
  other: {{ endpoints: [ {{ address: \"{old}\" }} ] }}
routes:
  - {{ id: other, match: {{ path: /other }}, upstream: other }}
  - {{ id: orders, match: {{ path: /** }}, upstream: orders }}
"
    )
}

/// Shows HD-23.
#[tokio::test]
async fn each_build_goes_to_a_pool_that_it_was_made_for_or_hears_why_not() {
    let (new, old) =
        (Recorder::answering(Answer::ok("new")), Recorder::answering(Answer::ok("old")));
    let contracts = "shop-wx:
  - { client: both, accepts: [ orders@77aa, orders@9f8e ] }
  - { client: past, accepts: [ orders@77aa ] }
  - { client: gone, accepts: [ orders@0000 ] }
crew-wx: []
";
    let setup = Setup { files: vec![("contracts.yaml", contracts.to_owned())], ..Setup::default() };
    let gateway = Gateway::start_with(&contract(new.addr(), old.addr()), setup).await;
    let ask = async |app: &str, build: &str, env: &str, path: &str| {
        ask(&gateway, path, &[("X-MP-App", app), ("X-MP-Build", build), ("X-MP-Env", env)]).await
    };
    for (app, build, env, path, text) in [
        ("shop-wx", "both", "release", "/", "new"),
        ("shop-wx", "past", "release", "/", "old"),
        ("shop-wx", "past", "develop", "/", "old"),
        // What fits nothing: releases go to what users had before, developers hear of it elsewhere.
        ("shop-wx", "gone", "release", "/", "old"),
        ("shop-wx", "unknown", "release", "/", "old"),
        ("crew-wx", "both", "release", "/", "old"),
        ("shop-wx", "gone", "develop", "/", "new"),
        // No contract, or nobody it is for.
        ("shop-wx", "gone", "trial", "/other", "old"),
        ("unknown", "past", "release", "/", "new"),
        ("shop-wx", "no build", "release", "/", "new"),
    ] {
        let answer = ask(app, build, env, path).await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, text),
            "{app} {build} {env} {path}"
        );
    }
    let refused = ask("shop-wx", "gone", "trial", "/").await;
    assert_eq!((refused.status, &refused.json()["reason"]), (409, &"contract_mismatch".into()));
    assert_eq!(refused.json()["data"]["builds"], serde_json::json!(["9f8e", "77aa"]));
    for (verdict, count) in
        [("fitting", 3.0), ("previous", 3.0), ("blocked", 1.0), ("warned", 1.0), ("unsaid", 2.0)]
    {
        let series =
            format!(r#"sluice_contract_requests_total{{service="orders",verdict="{verdict}"}}"#);
        assert_eq!(gateway.metric(&series).await, count, "{verdict}");
    }
    let logged = gateway.log_lines(11).await;
    let asked: Vec<_> = logged.iter().filter(|line| line["mp_build"] == "past").collect();
    let old = asked.iter().filter(|line| line["upstream"] == "orders-old").count();
    assert_eq!((asked.len(), old), (3, 2), "the log names the pool");

    // The file is watched.
    let path = gateway.folder().join("contracts.yaml");
    std::fs::write(&path, contracts.replace("0000", "9f8e")).unwrap();
    gateway.wait_for_generation(2).await;
    assert_eq!(ask("shop-wx", "gone", "trial", "/").await.text(), "new");
    std::fs::write(&path, "shop-wx: [ { client: x } ]\n").unwrap();
    crate::support::eventually("the refusal of a bad file", async || {
        gateway.metric(r#"sluice_config_reloads_total{result="rejected"}"#).await >= 1.0
    })
    .await;
    assert_eq!(ask("shop-wx", "gone", "trial", "/").await.text(), "new", "the good one stays");
}

#[tokio::test]
async fn refusals_have_the_shape_of_the_app_with_what_they_tell() {
    for (envelope, message) in [
        ("standard", "msg"),
        ("code_message", "message"),
        ("data_message_code", "message"),
        ("error", "error"),
        ("problem", "title"),
    ] {
        let config = format!(
            "apps: [ {{ id: shop, provider: qq, appid: q1, envelope: {envelope} }} ]
version_gate: [ {{ app: shop, min_version: 2.0.0 }} ]
upstreams: {{ echo: {{ builtin: echo }} }}
routes: [ {{ id: all, upstream: echo }} ]
"
        );
        let gateway = Gateway::start(&config).await;
        let headers = [
            ("Referer", "https://appservice.qq.com/q1/7/page-frame.html"),
            ("X-MP-Version", "1.0"),
        ];
        let refused = ask(&gateway, "/", &headers).await;
        assert_eq!(refused.status, 426, "{envelope}");
        let body = refused.json();
        assert_eq!(body[message], "This version is no longer served.", "{envelope}");
        assert_eq!(body["data"]["min"], "2.0.0", "{envelope}");
        assert_eq!(body["reason"], "upgrade_required", "{envelope}");
    }
}
