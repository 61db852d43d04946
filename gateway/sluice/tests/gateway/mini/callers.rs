//! Which mini-program is calling: claimed by its fields, hinted at by its Referer, proven by a token.

use std::net::SocketAddr;

use sluice_chaos::raw;
use sluice_chaos::recorder::Recorder;

use super::{APPS, referer};
use crate::support::{Gateway, refusal};
use crate::tokens::{Key, now};

fn table(addr: SocketAddr, routes: &str) -> String {
    format!(
        "{APPS}upstreams: {{ service: {{ endpoints: [ {{ address: \"{addr}\" }} ] }} }}\nroutes:\n{routes}"
    )
}

async fn ask(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> raw::Response {
    gateway.client().await.request("GET", path, "a", headers, b"").await
}

/// Shows HD-20.
#[tokio::test]
async fn routes_are_chosen_by_app_platform_kind_of_build_and_version() {
    let recorder = Recorder::start();
    let route = |id: &str, test: &str| {
        format!(
            "  - {{ id: {id}, match: {{ path: /**, {test} }}, filters: [ {{ respond: {{ body: {id} }} }} ] }}\n"
        )
    };
    let routes = [
        route("test", "app: shop-wx, env: [ trial, develop ]"),
        route("modern", "app: [ shop-wx, crew-wx ], version: \">=3.2.0 <4\""),
        route("ali", "platform: alipay"),
        route("rest", "priority: -1"),
    ]
    .concat();
    let gateway = Gateway::start(&table(recorder.addr(), &routes)).await;
    let (release, zero, tools) = (referer("57"), referer("0"), referer("devtools"));
    let ali = "https://2021000123.hybrid.alipay-eco.com/index.html";
    for (headers, expected) in [
        (&[][..], "rest"),
        (&[("Referer", tools.as_str())], "test"),
        (&[("Referer", zero.as_str())], "rest"),
        (&[("Referer", zero.as_str()), ("X-MP-Env", "trial")], "test"),
        (&[("Referer", release.as_str()), ("X-MP-Env", "trial")], "test"),
        (&[("X-MP-App", "shop-wx"), ("X-MP-Version", "3.10")], "modern"),
        (&[("X-MP-App", "wxfedcba9876543210"), ("X-MP-Version", "v3.2.0")], "modern"),
        (&[("X-MP-App", "crew-wx"), ("X-MP-Version", "3.2.0-rc.1")], "rest"),
        (&[("X-MP-App", "crew-wx"), ("X-MP-Version", "4.0.0")], "rest"),
        // Twice, or no version: not said.
        (&[("X-MP-App", "crew-wx"), ("X-MP-Version", "3.3"), ("X-MP-Version", "3.3")], "rest"),
        (&[("X-MP-App", "crew-wx"), ("X-MP-Version", "3.3 or so")], "rest"),
        (&[("X-MP-App", "nobody"), ("Referer", ali), ("X-MP-Version", "3.3")], "rest"),
        (&[("Referer", ali)], "ali"),
        (
            &[("Referer", "https://evil.example/wx0123456789abcdef/devtools/page-frame.html")],
            "rest",
        ),
    ] {
        assert_eq!(ask(&gateway, "/", headers).await.text(), expected, "{headers:?}");
    }
}

/// Shows HD-20.
#[tokio::test]
async fn what_is_known_of_a_caller_is_logged_counted_and_told() {
    let (recorder, key) = (Recorder::start(), Key::new("HS256"));
    let routes = format!(
        "  - {{ id: open, match: {{ path: /open }}, upstream: service }}
  - {{ id: in, match: {{ path: /in }}, upstream: service, filters: [ {{ jwt: {{ keys: [ {{ kid: k, alg: HS256, secret: \"{}\" }} ] }} }} ] }}\n",
        key.shared
    );
    let gateway = Gateway::start(&table(recorder.addr(), &routes)).await;
    let token =
        format!("Bearer {}", key.token(&format!(r#"{{"exp":{},"app":"crew-wx"}}"#, now() + 60)));
    let hint = referer("57");
    let words = [
        ("X-MP-App", "shop-wx"),
        ("X-MP-Version", "3.2"),
        ("X-MP-Build", "a1b2c3d"),
        ("X-MP-Env", "trial"),
        ("X-MP-Lib", "3.8.10"),
        ("X-MP-Device", "d-1"),
    ];
    let proven = [("X-MP-App", "shop-wx"), ("Authorization", token.as_str())];
    let odd = [("X-MP-App", "made-up"), ("X-MP-Env", "other"), ("X-MP-Lib", "a b")];
    for (path, headers) in [
        ("/open", &[("Referer", hint.as_str())][..]),
        ("/open", &words),
        ("/in", &proven),
        ("/open", &odd),
        ("/open", &[]),
    ] {
        assert_eq!(ask(&gateway, path, headers).await.status, 200);
    }
    let seen = recorder.wait_for(5).await;
    let trust: Vec<_> = seen.iter().map(|one| one.all("x-mp-trust").concat()).collect();
    assert_eq!(trust, ["hint", "claimed", "proven", "claimed", ""]);
    assert_eq!(seen[1].all("x-mp-version"), ["3.2.0"]);
    assert_eq!(seen[1].all("x-mp-build"), ["a1b2c3d"]);
    assert_eq!(seen[1].all("x-mp-lib"), ["3.8.10"]);
    assert_eq!(seen[1].all("x-mp-device"), ["d-1"]);
    assert_eq!(seen[2].all("x-mp-app"), ["crew-wx"], "the token knows better");
    for name in ["x-mp-app", "x-mp-env", "x-mp-lib"] {
        assert_eq!(seen[3].all(name), Vec::<&str>::new(), "{name} was no such word");
    }
    let logged = gateway.log_lines(5).await;
    let line = |trust: &str| logged.iter().find(|line| line["mp_trust"] == trust).unwrap();
    assert_eq!(
        (&line("hint")["app"], &line("hint")["mp_env"]),
        (&"shop-wx".into(), &"release".into())
    );
    assert_eq!(line("proven")["app"], "crew-wx");
    let said = logged.iter().find(|line| line["mp_env"] == "trial").unwrap();
    assert_eq!((&said["mp_version"], &said["mp_lib"]), (&"3.2.0".into(), &"3.8.10".into()));
    assert_eq!((&said["mp_build"], &said["mp_platform"]), (&"a1b2c3d".into(), &"wechat".into()));
    for (labels, count) in [
        (r#"app="shop-wx",env="release""#, 1.0),
        (r#"app="shop-wx",env="trial""#, 1.0),
        (r#"app="crew-wx",env="unknown""#, 1.0),
        (r#"app="other",env="unknown""#, 1.0),
        (r#"app="none",env="unknown""#, 1.0),
    ] {
        assert_eq!(
            gateway.metric(&format!("sluice_app_requests_total{{{labels}}}")).await,
            count,
            "{labels}"
        );
    }
    assert_eq!(gateway.metric("sluice_app_requests_total").await, 5.0, "nobody makes a series");
}

/// Shows HD-21.
#[tokio::test]
async fn scripts_without_a_referer_stay_outside_where_that_is_asked_for() {
    let recorder = Recorder::start();
    let config = format!(
        "client_identity: {{ referer: {{ mode: enforce, allow_apps: [ shop-wx ], exempt: [ health, /hook/** ] }} }}\n{}",
        table(
            recorder.addr(),
            "  - { id: health, match: { path: /health }, upstream: service }\n  - { id: all, match: { path: /** }, upstream: service }\n"
        )
    );
    let gateway = Gateway::start(&config).await;
    let good = referer("57");
    let crew = good.replace("wx0123456789abcdef", "wxfedcba9876543210");
    let unknown = good.replace("wx0123456789abcdef", "wx0000000000000000");
    for (path, headers, status) in [
        ("/", &[("Referer", good.as_str())][..], 200),
        ("/", &[("Referer", good.as_str()), ("X-MP-App", "shop-wx")], 200),
        ("/health", &[], 200),
        ("/hook/pay", &[], 200),
        ("/", &[], 403),
        ("/", &[("Referer", crew.as_str())], 403),
        ("/", &[("Referer", unknown.as_str())], 403),
        ("/", &[("Referer", good.as_str()), ("X-MP-App", "crew-wx")], 403),
        ("/", &[("Referer", good.as_str()), ("Referer", good.as_str())], 403),
    ] {
        let answer = ask(&gateway, path, headers).await;
        assert_eq!(answer.status, status, "{path} {headers:?}");
        if status == 403 {
            assert_eq!(answer.json()["reason"], "referer_refused");
        }
    }
    assert_eq!(recorder.begun(), 4);
}

#[tokio::test]
async fn limits_count_apps_apart_and_refusals_have_the_shape_of_the_app() {
    let recorder = Recorder::start();
    let routes = "  - { id: all, match: { path: /** }, upstream: service, filters: [ { rate_limit: { limit: 2, per: 1h, key: app + version, address_limit: 5 } } ] }\n";
    let gateway = Gateway::start(&table(recorder.addr(), routes)).await;
    let of = async |app: &str, version: &str| {
        ask(&gateway, "/", &[("X-MP-App", app), ("X-MP-Version", version)]).await
    };
    for app in ["shop-wx", "shop-ali"] {
        assert_eq!((of(app, "1.0").await.status, of(app, "v1").await.status), (200, 200));
    }
    let refused = of("shop-wx", "1.0.0").await;
    assert_eq!(refused.status, 429);
    assert!(
        refused.json()["message"].is_string() && refused.json()["msg"].is_null(),
        "{refused:?}"
    );
    let refused = of("shop-ali", "1").await;
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    // Versions made up do not help for ever: the address is counted beside.
    let mut passed = 0;
    for n in 0..9 {
        passed += u32::from(of("crew-wx", &format!("{n}.1")).await.status == 200);
    }
    assert!(passed <= 1, "{passed} more");
}

#[test]
fn what_a_route_asks_of_mini_programs_must_exist() {
    let rest = "upstreams: { echo: { builtin: echo } }\nroutes: [ { id: all, upstream: echo, match: { app: shop, env: [ beta ], platform: wechta, version: \">=a\" } } ]\n";
    let said = refusal(rest);
    assert!(said.contains("known only where `apps` are declared"), "{said}");
    let said = refusal(&format!("{APPS}{rest}"));
    for expected in [
        "there is no app `shop`",
        "`beta` is no kind of build",
        "`wechta` is no platform",
        "`>=a` compares with no version",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
}
