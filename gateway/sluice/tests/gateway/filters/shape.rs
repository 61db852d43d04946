//! Changes of requests and answers, and answers instead of a service.

use sluice_chaos::raw::Response;
use sluice_chaos::recorder::{Answer, Recorder};

use crate::support::Gateway;

async fn start(routes: &str, answer: Answer) -> (Gateway, Recorder) {
    let recorder = Recorder::answering(answer);
    let upstream = format!(
        "upstreams: {{ up: {{ endpoints: [ {{ address: \"{}\" }} ] }} }}\n",
        recorder.addr()
    );
    (Gateway::start(&(upstream + routes)).await, recorder)
}

async fn call(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> Response {
    gateway.client().await.request("GET", path, "shop.test", headers, b"").await
}

#[tokio::test]
async fn header_fields_change_in_both_directions() {
    const ROUTES: &str = r#"
routes:
  - id: changed
    match: { path: "/users/{id}/**" }
    filters:
      - headers:
          request:
            remove: [ X-Secret ]
            set:
              X-User-Id: "{id}"
              X-Way: "{method} {scheme}://{host}{path} for {client_ip}"
              X-Agent: "<{header.user-agent}>"
              X-Braces: "{{literal}}"
            add: { X-Tag: gateway }
          response:
            remove: [ Server ]
            set: { X-Frame-Options: DENY }
            add: { Set-Cookie: "seen=1; Path=/" }
    upstream: up
"#;
    let answer = Answer::ok("x")
        .header("Server", "secret/1.0")
        .header("Set-Cookie", "own=1")
        .header("X-Frame-Options", "ALLOW");
    let (gateway, recorder) = start(ROUTES, answer).await;
    let sent = [
        ("X-Secret", "1"),
        ("x-secret", "2"),
        ("X-User-Id", "spoofed"),
        ("X-Tag", "client"),
        ("User-Agent", "probe/1"),
    ];
    let answer = call(&gateway, "/users/7/a/b?q=1", &sent).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("server"), None);
    assert_eq!(answer.all("x-frame-options"), ["DENY"]);
    assert_eq!(answer.all("set-cookie"), ["own=1", "seen=1; Path=/"]);
    let seen = recorder.requests().pop().unwrap();
    assert_eq!(seen.header("x-secret"), None);
    assert_eq!(seen.all("x-user-id"), ["7"]);
    assert_eq!(seen.header("x-way"), Some("GET http://shop.test/users/7/a/b for 127.0.0.1"));
    assert_eq!(seen.header("x-agent"), Some("<probe/1>"));
    assert_eq!(seen.header("x-braces"), Some("{literal}"));
    assert_eq!(seen.all("x-tag"), ["client", "gateway"]);
    assert_eq!(seen.target, "/users/7/a/b?q=1");
}

#[tokio::test]
async fn paths_are_shortened_lengthened_and_rewritten_before_the_service() {
    const ROUTES: &str = r#"
routes:
  - { id: strip, match: { path: "/api/v1/**" }, filters: [ { strip_prefix: 2 } ], upstream: up }
  - { id: add, match: { path: "/plain/**" }, filters: [ { add_prefix: /v2 } ], upstream: up }
  - id: both
    match: { path: "/both/**" }
    filters: [ { strip_prefix: 1 }, { add_prefix: /new } ]
    upstream: up
  - id: rewrite
    match: { path: "/u/{id}/orders/{order}" }
    filters: [ { rewrite: { path: "/orders/{order}/of/{id}", host: "orders.internal:81" } } ]
    upstream: up
  - id: pattern
    match: { path_regex: "/p-(?<year>[0-9]{4})" }
    filters: [ { rewrite: { path: "/archive/{year}" } } ]
    upstream: up
"#;
    let (gateway, recorder) = start(ROUTES, Answer::echo()).await;
    for (asked, expected) in [
        ("/api/v1/users/7?a=%2f&b", "/users/7?a=%2f&b"),
        ("/api/v1", "/"),
        ("/api/v1/", "/"),
        ("/api/v1/x/", "/x/"),
        ("/plain/x?y", "/v2/plain/x?y"),
        ("/both/x", "/new/x"),
        ("/both", "/new/"),
        ("/u/7/orders/a%20b?z=1", "/orders/a%20b/of/7?z=1"),
        ("/p-2026", "/archive/2026"),
    ] {
        let answer = call(&gateway, asked, &[]).await;
        assert_eq!(answer.status, 200, "{asked}: {}", answer.text());
        assert_eq!(answer.json()["target"], expected, "{asked}");
    }
    call(&gateway, "/u/7/orders/8", &[]).await;
    let seen = recorder.requests().pop().unwrap();
    assert_eq!(seen.all("host"), ["orders.internal:81"]);
    assert_eq!(seen.header("x-forwarded-host"), Some("shop.test"));
    // Captures are segments as the client wrote them; one that would climb never matches anything.
    let served = recorder.begun();
    for climbing in
        ["/u/../orders/8", "/u/%2e%2e/orders/8", "/u/7%2f..%2f/orders/8", "/api/v1/../x"]
    {
        let answer = call(&gateway, climbing, &[]).await;
        assert!(matches!(answer.status, 400 | 404), "{climbing}: {}", answer.status);
    }
    assert_eq!(recorder.begun(), served);
}

#[tokio::test]
async fn redirects_and_fixed_answers_need_no_service() {
    const ROUTES: &str = r#"
filters: [ { headers: { response: { set: { X-By: gateway } } } } ]
routes:
  - { id: old, match: { path: "/old/{page}" }, filters: [ { redirect: { to: "/new/{page}", status: 301 } } ] }
  - { id: away, match: { path: /away }, filters: [ { redirect: { to: "https://{host}/here?from=a" } } ] }
  - { id: json, match: { path: /json }, filters: [ { respond: { body: '{"a":1}' } } ] }
  - id: text
    match: { path: /text }
    filters: [ { respond: { status: 503, body: "closed today", headers: { Retry-After: "60" } } } ]
  - { id: served, match: { path: /served }, upstream: up }
"#;
    let (gateway, recorder) = start(ROUTES, Answer::echo()).await;
    let answer = call(&gateway, "/old/a%20b?q=1&r=%0d%0a", &[]).await;
    assert_eq!(answer.status, 301);
    assert_eq!(answer.header("location"), Some("/new/a%20b?q=1&r=%0d%0a"));
    assert_eq!((answer.body.len(), answer.header("x-by")), (0, Some("gateway")));
    let answer = call(&gateway, "/away?x=1", &[]).await;
    let location = answer.header("location");
    assert_eq!((answer.status, location), (307, Some("https://shop.test/here?from=a&x=1")));

    let answer = call(&gateway, "/json", &[]).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(answer.json()["a"], 1);
    let answer = call(&gateway, "/text", &[]).await;
    assert_eq!((answer.status, answer.text().as_str()), (503, "closed today"));
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(answer.header("retry-after"), Some("60"));
    let mut client = gateway.client().await;
    let head = client.request("HEAD", "/json", "shop.test", &[], b"").await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("7"), 0));
    assert_eq!(recorder.begun(), 0);
    assert_eq!(call(&gateway, "/served", &[]).await.header("x-by"), Some("gateway"));
    assert_eq!(call(&gateway, "/nothing", &[]).await.header("x-by"), Some("gateway"));
}
