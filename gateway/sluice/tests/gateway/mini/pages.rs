//! What anybody may read: verification files, the landing page. And in which shape refusals come.

use sluice_chaos::recorder::Recorder;

use super::{APPS, referer};
use crate::support::Gateway;

/// Shows HD-27.
#[tokio::test]
async fn verification_files_and_the_landing_page_are_for_anybody() {
    let recorder = Recorder::start();
    let config = format!(
        "{APPS}client_identity: {{ referer: {{ mode: enforce }} }}
static_files:
  /MP_verify_a1B2.txt: a1B2
  /.well-known/apple-app-site-association: '{{\"applinks\":{{}}}}'
  /WW_verify_x.txt: {{ text: \"<x>\", content_type: text/plain, hosts: [ h5.example.com ] }}
filters:
  - request_id: {{}}
  - jwt: {{ keys: [ {{ kid: k, alg: HS256, secret: \"0123456789abcdef0123456789abcdef\" }} ] }}
upstreams: {{ up: {{ endpoints: [ {{ address: \"{}\" }} ] }} }}
routes:
  - {{ id: all, match: {{ path: /** }}, upstream: up }}
",
        recorder.addr()
    );
    let gateway = Gateway::start(&config).await;
    let ask = async |method: &str, path: &str, host: &str| {
        gateway.client().await.request(method, path, host, &[], b"").await
    };
    let file = ask("GET", "/MP_verify_a1B2.txt", "api.example.com").await;
    assert_eq!((file.status, file.text().as_str()), (200, "a1B2"));
    assert_eq!(file.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(file.header("x-content-type-options"), Some("nosniff"));
    assert!(file.header("x-request-id").is_some());
    assert_eq!(ask("HEAD", "/MP_verify_a1B2.txt", "a").await.status, 200);
    assert_eq!(ask("GET", "/MP%5Fverify_a1B2.txt", "a").await.text(), "a1B2");
    let linked = ask("GET", "/.well-known/apple-app-site-association", "a").await;
    assert_eq!(linked.header("content-type"), Some("application/json"));
    assert_eq!(ask("GET", "/WW_verify_x.txt", "h5.example.com").await.text(), "<x>");
    for (method, path) in [
        ("GET", "/WW_verify_x.txt"),
        ("POST", "/MP_verify_a1B2.txt"),
        ("GET", "/mp_verify_a1b2.txt"),
    ] {
        assert_eq!(
            ask(method, path, "a").await.json()["reason"],
            "referer_refused",
            "{method} {path}"
        );
    }
    assert_eq!(recorder.begun(), 0);
    let series = r#"gateway_requests_by_route_total{route="file:/MP_verify_a1B2.txt"}"#;
    assert_eq!(gateway.metric(series).await, 3.0);
    let listed = gateway.admin("/routes").await.text();
    assert!(listed.contains("file:/MP_verify_a1B2.txt"), "{listed}");
}

/// Shows HD-27.
#[tokio::test]
async fn the_landing_page_shows_the_filing_and_nothing_becomes_markup() {
    let config = format!(
        "{APPS}client_identity: {{ referer: {{ mode: enforce }} }}
version_gate: [ {{ app: shop-wx, min_version: 3.0.0, require_version: true }} ]
upstreams: {{ echo: {{ builtin: echo }} }}
routes:
  - id: root
    match: {{ path: /, methods: [ GET ] }}
    filters:
      - landing:
          name: \"<script>alert(1)</script> 商城\"
          icp: 京ICP备12345678号-1
          police: 京公网安备11010502030143号
          text: \"只供小程序使用 & nothing else\"
  - {{ id: all, match: {{ path: /** }}, upstream: echo }}
"
    );
    let gateway = Gateway::start(&config).await;
    let old = referer("1");
    let page = gateway.client().await.request("GET", "/", "a", &[("Referer", &*old)], b"").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'"), "{policy}");
    let text = page.text();
    for part in [
        "<h1>&lt;script&gt;alert(1)&lt;/script&gt; 商城</h1>",
        "<a href=\"https://beian.miit.gov.cn/\" rel=\"noreferrer\">京ICP备12345678号-1</a>",
        "code=11010502030143\" rel=\"noreferrer\">京公网安备11010502030143号</a>",
        "只供小程序使用 &amp; nothing else",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains("<script"), "{text}");
    assert_eq!(gateway.get("/").await.text(), text);
}

#[tokio::test]
async fn refusals_have_the_shape_of_the_route_or_the_app_and_always_the_right_status() {
    let config = format!(
        "{APPS}errors: {{ envelope: data_message_code }}
upstreams: {{ echo: {{ builtin: echo }} }}
routes:
  - id: partners
    match: {{ path: /partners }}
    envelope: error
    filters: [ {{ jwt: {{ keys: [ {{ kid: k, alg: HS256, secret: \"0123456789abcdef0123456789abcdef\" }} ] }} }} ]
    upstream: echo
  - id: mine
    match: {{ path: /mine }}
    filters: [ {{ jwt: {{ keys: [ {{ kid: k, alg: HS256, secret: \"0123456789abcdef0123456789abcdef\" }} ] }} }} ]
    upstream: echo
"
    );
    let gateway = Gateway::start(&config).await;
    let wx = referer("12");
    for (path, headers, status, key) in [
        ("/partners", &[("X-MP-App", "shop-ali")][..], 401, "error"),
        ("/partners", &[], 401, "error"),
        ("/mine", &[("X-MP-App", "shop-ali")], 401, "title"),
        ("/mine", &[("Referer", &*wx)], 401, "message"),
        ("/mine", &[("X-MP-App", "crew-wx")], 401, "data"),
        ("/mine", &[], 401, "data"),
        ("/nowhere", &[("X-MP-App", "shop-ali")], 404, "title"),
        ("/nowhere", &[], 404, "data"),
    ] {
        let refused = gateway.client().await.request("GET", path, "a", headers, b"").await;
        let body = refused.json();
        assert_eq!(refused.status, status, "{path} {headers:?}");
        assert!(body.get(key).is_some(), "{path} {headers:?} {body}");
        let has_code = body.get("code").is_none_or(|code| *code == status);
        assert!(has_code && body["reason"].is_string(), "{body}");
    }
}
