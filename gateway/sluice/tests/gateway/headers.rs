//! What the gateway does with header fields on both ways: what ends here, what it says about the
//! client, and which host the service sees. Answers are in `answers`.

use std::net::IpAddr;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use sluice_chaos::recorder::{Answer, Recorder};
use sluice_chaos::rogue::Rogue;
use sluice_chaos::{client, raw};

use crate::configs::passing;
use crate::support::{Gateway, refusal};
use crate::tokens::Key;

async fn from(source: [u8; 4], gateway: &Gateway, headers: &[(&str, &str)]) -> raw::Response {
    let mut client = raw::Client::connect_from(IpAddr::from(source), gateway.http).await;
    client.request("GET", "/", "shop.example:81", headers, b"").await
}

// === What ends at this hop ===

/// Shows HD-07, HD-13, W-03.
#[tokio::test]
async fn what_speaks_to_the_next_hop_ends_here_on_both_ways() {
    let hop_by_hop = Answer::ok("fine")
        .header("Connection", "X-One")
        .header("Connection", "x-two, keep-alive")
        .header("X-One", "1")
        .header("X-Two", "2")
        .header("Keep-Alive", "timeout=60")
        .header("Proxy-Authenticate", "Basic")
        .header("Proxy-Connection", "keep-alive")
        .header("X-Kept", "yes");
    let recorder = Recorder::answering(hop_by_hop);
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    let mut client = gateway.client().await;
    let headers = [
        ("Connection", "keep-alive, X-One"),
        ("Connection", "x-two,Upgrade,, HTTP2-Settings"),
        ("X-One", "1"),
        ("X-Two", "2"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authorization", "Basic c2VjcmV0"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
        ("TE", "gzip;q=1.0"),
        ("X-Kept", "yes"),
    ];
    let answer = client.request("GET", "/", "localhost", &headers, b"").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "fine"));
    let gone =
        ["connection", "x-one", "x-two", "keep-alive", "proxy-connection", "proxy-authenticate"];
    for name in gone {
        assert_eq!(answer.all(name), Vec::<&str>::new(), "{name} in the answer");
    }
    assert_eq!(answer.header("x-kept"), Some("yes"));

    let seen = &recorder.wait_for(1).await[0];
    for (name, _) in headers.iter().filter(|(name, _)| *name != "X-Kept") {
        assert_eq!(seen.all(name), Vec::<&str>::new(), "{name} in the request");
    }
    assert_eq!(seen.header("x-kept"), Some("yes"));
}

/// Shows HD-04.
#[tokio::test]
async fn what_grants_access_or_frames_cannot_be_nominated_away() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    let mut client = gateway.client().await;
    let headers = [
        ("Connection", "Authorization, cookie, Host, Content-Length, Content-Type"),
        ("Connection", "X-Forwarded-For, X-Real-IP, Via"),
        ("Authorization", "Bearer abc"),
        ("Cookie", "a=1"),
        ("Content-Type", "text/plain"),
    ];
    assert_eq!(client.request("POST", "/", "a.example", &headers, b"hello").await.status, 200);
    let seen = &recorder.wait_for(1).await[0];
    assert_eq!(seen.header("authorization"), Some("Bearer abc"));
    assert_eq!(seen.header("cookie"), Some("a=1"));
    assert_eq!(seen.all("host"), ["a.example"]);
    assert_eq!(seen.header("content-type"), Some("text/plain"));
    assert_eq!(seen.all("content-length"), ["5"]);
    assert_eq!(seen.text(), "hello");
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-real-ip"), Some("127.0.0.1"));
    assert_eq!(seen.all("via").len(), 1);
}

/// Shows HD-07.
#[tokio::test]
async fn too_many_connection_options_are_refused() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    let many = (0..200).map(|n| format!("x-{n}")).collect::<Vec<_>>().join(",");
    let refused = from([127, 0, 0, 1], &gateway, &[("Connection", &many)]).await;
    assert_eq!(refused.status, 431, "{refused:?}");
    assert_eq!(recorder.begun(), 0);
}

// === Who asks ===

const CLAIMS: [&str; 9] = [
    "Forwarded",
    "X-Forwarded-Prefix",
    "X-Forwarded-Uri",
    "X-Forwarded-Method",
    "X-Forwarded-Server",
    "True-Client-IP",
    "CF-Connecting-IP",
    "X_Forwarded_For",
    "X_User",
];

/// Shows HD-03, HD-05.
#[tokio::test]
async fn an_untrusted_client_says_nothing_about_where_it_comes_from() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    let mut headers = vec![
        ("X-Forwarded-For", "9.9.9.9"),
        ("X-Forwarded-For", "8.8.8.8"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Port", "443"),
        ("X-Real-IP", "9.9.9.9"),
    ];
    headers.extend(CLAIMS.map(|name| (name, "for=9.9.9.9")));
    assert_eq!(from([127, 0, 0, 5], &gateway, &headers).await.status, 200);
    let seen = &recorder.wait_for(1).await[0];
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.5"]);
    assert_eq!(seen.all("x-real-ip"), ["127.0.0.5"]);
    assert_eq!(seen.all("x-forwarded-host"), ["shop.example:81"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["http"]);
    assert_eq!(seen.all("x-forwarded-port"), [gateway.http.port().to_string()]);
    for name in CLAIMS {
        assert_eq!(seen.all(name), Vec::<&str>::new(), "{name}");
    }
    let via = seen.all("via");
    assert_eq!(via.len(), 1);
    assert!(via[0].starts_with("1.1 sluice"), "{via:?}");
    assert_eq!(gateway.log_lines(1).await[0]["client_ip"], "127.0.0.5");
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_as_far_as_the_chain_is_trusted() {
    let recorder = Recorder::start();
    let config =
        format!("trusted_proxies: [ 127.0.0.2, 10.0.0.0/8 ]\n{}", passing(recorder.addr()));
    let gateway = Gateway::start(&config).await;
    let headers = [
        ("X-Forwarded-For", "6.6.6.6, 1.2.3.4"),
        ("X-Forwarded-For", "10.0.0.9"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "front.example"),
        ("X-Forwarded-Port", "443"),
        ("X-Real-IP", "6.6.6.6"),
    ];
    assert_eq!(from([127, 0, 0, 2], &gateway, &headers).await.status, 200);
    assert_eq!(from([127, 0, 0, 3], &gateway, &headers).await.status, 200);
    let seen = recorder.wait_for(2).await;
    let (trusted, stranger) = (&seen[0], &seen[1]);
    assert_eq!(trusted.all("x-forwarded-for"), ["6.6.6.6, 1.2.3.4, 10.0.0.9, 127.0.0.2"]);
    assert_eq!(trusted.all("x-real-ip"), ["1.2.3.4"], "the last address nobody vouches for");
    assert_eq!(trusted.all("x-forwarded-proto"), ["https"]);
    assert_eq!(trusted.all("x-forwarded-host"), ["front.example"]);
    assert_eq!(trusted.all("x-forwarded-port"), ["443"]);
    assert_eq!(stranger.all("x-forwarded-for"), ["127.0.0.3"]);
    assert_eq!(stranger.all("x-real-ip"), ["127.0.0.3"]);
    assert_eq!(stranger.all("x-forwarded-proto"), ["http"]);
    // Workers write their lines in no order among themselves.
    let logged = gateway.log_lines(2).await;
    let mut logged: Vec<_> = logged.iter().map(|l| l["client_ip"].as_str().unwrap()).collect();
    logged.sort_unstable();
    assert_eq!(logged, ["1.2.3.4", "127.0.0.3"]);
}

/// Shows HD-08.
#[tokio::test]
async fn a_request_that_comes_back_to_the_gateway_is_a_loop() {
    let gateway = Gateway::start(
        "upstreams: { echo: { builtin: echo } }\nroutes: [ { id: all, upstream: echo } ]\n",
    )
    .await;
    gateway.write_config(&passing(gateway.http));
    gateway.wait_for_generation(2).await;
    let answer = gateway.get("/round").await;
    assert_eq!((answer.status, answer.json()["reason"].as_str()), (508, Some("proxy_loop")));
    assert_eq!(gateway.metric(r#"sluice_rejected_total{reason="proxy_loop"}"#).await, 1.0);
    assert_eq!(gateway.log_lines(2).await.len(), 2, "one round, not many");
}

#[tokio::test]
async fn other_proxies_in_via_are_no_loop_and_stay() {
    let recorder = Recorder::start();
    let first = Gateway::start(&passing(recorder.addr())).await;
    let second = Gateway::start(&passing(first.http)).await;
    let answer = from([127, 0, 0, 1], &second, &[("Via", "1.0 fred, 1.1 sluice (other)")]).await;
    assert_eq!(answer.status, 200, "two gateways in a row are fine");
    let via = recorder.wait_for(1).await[0].all("via").join(", ");
    let hops: Vec<&str> = via.split(", ").collect();
    assert_eq!((hops.len(), &hops[..2]), (4, &["1.0 fred", "1.1 sluice (other)"][..]), "{via}");
    assert_ne!(hops[2], hops[3]);
}

/// Shows HD-06.
#[tokio::test]
async fn identity_headers_belong_to_the_gateway_on_every_route() {
    let recorder = Recorder::start();
    let config = format!(
        r#"
upstreams: {{ service: {{ endpoints: [ {{ address: "{}" }} ] }} }}
routes:
  - id: guarded
    match: {{ path: "/guarded" }}
    upstream: service
    filters:
      - jwt:
          keys: [ {{ kid: k, alg: HS256, secret: "0123456789abcdef0123456789abcdef" }} ]
          claims_to_headers: {{ X-User-Id: sub }}
  - {{ id: open, match: {{ path: "/**" }}, upstream: service }}
"#,
        recorder.addr()
    );
    let gateway = Gateway::start(&config).await;
    let spoof = [("X-User-Id", "root"), ("x-user-id", "admin"), ("X_User_Id", "root")];
    assert_eq!(from([127, 0, 0, 1], &gateway, &spoof).await.status, 200);
    let seen = &recorder.wait_for(1).await[0];
    assert_eq!(seen.all("x-user-id"), Vec::<&str>::new());
    assert_eq!(seen.all("x_user_id"), Vec::<&str>::new());
}

// === Cookies ===

/// Shows HD-14, H2-20.
#[tokio::test]
async fn cookies_are_one_field_in_and_many_out() {
    let cookies = Answer::ok("").header("Set-Cookie", "a=1, x").header("Set-Cookie", "b=2");
    let recorder = Recorder::answering(cookies);
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    assert_eq!(gateway.get("/").await.all("set-cookie"), ["a=1, x", "b=2"]);

    let crumbs = Request::get("/").header("cookie", "a=1").header("cookie", "b=2; c=3");
    let crumbs = crumbs.body(Full::new(Bytes::new())).unwrap();
    let (head, ..) = client::h2c(gateway.http).await.send(crumbs).await;
    let set: Vec<_> = head.headers.get_all("set-cookie").iter().collect();
    assert_eq!(set, ["a=1, x", "b=2"]);
    assert_eq!(recorder.wait_for(2).await[1].all("cookie"), ["a=1; b=2; c=3"]);
}

// === Host ===

#[tokio::test]
async fn the_service_sees_the_host_that_was_chosen_for_it() {
    let recorder = Recorder::start();
    let addr = recorder.addr();
    let config = format!(
        r#"
upstreams:
  client: {{ endpoints: [ {{ address: "{addr}" }} ] }}
  endpoint: {{ host: endpoint, endpoints: [ {{ address: "{addr}" }} ] }}
  named: {{ host: inner.example, endpoints: [ {{ address: "{addr}" }} ] }}
routes:
  - {{ id: client, match: {{ path: "/client" }}, upstream: client }}
  - {{ id: endpoint, match: {{ path: "/endpoint" }}, upstream: endpoint }}
  - {{ id: named, match: {{ path: "/named" }}, upstream: named }}
  - {{ id: rewritten, match: {{ path: "/rewritten" }}, upstream: named, filters: [ {{ rewrite: {{ host: other.example }} }} ] }}
"#
    );
    let gateway = Gateway::start(&config).await;
    let mut client = gateway.client().await;
    let endpoint = addr.to_string();
    for (path, expected) in [
        ("/client", "shop.example:81"),
        ("/endpoint", endpoint.as_str()),
        ("/named", "inner.example"),
        ("/rewritten", "other.example"),
    ] {
        assert_eq!(client.request("GET", path, "Shop.Example.:81", &[], b"").await.status, 200);
        let seen = recorder.requests().pop().unwrap();
        assert_eq!(seen.all("host"), [expected], "{path}");
        assert_eq!(seen.all("x-forwarded-host"), ["shop.example:81"], "{path}");
    }
}

// === Expect ===

/// Shows H1-15, H1-16.
#[tokio::test]
async fn the_gateway_says_100_when_it_wants_the_body_and_not_before() {
    let recorder = Recorder::start();
    let config = format!(
        "{}  - {{ id: small, match: {{ path: /small }}, upstream: service, filters: [ {{ size_limit: {{ body: 4B }} }} ] }}\n",
        passing(recorder.addr())
    );
    let gateway = Gateway::start(&config).await;
    let head = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        )
    };
    let mut client = gateway.client().await;
    client.send(head("/")).await;
    assert_eq!(client.read_some().await, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello").await;
    assert_eq!(client.response().await.status, 200);
    let seen = &recorder.wait_for(1).await[0];
    assert_eq!((seen.text().as_str(), seen.header("expect")), ("hello", None));

    let refused = raw::exchange(gateway.http, head("/small")).await;
    assert_eq!((refused.status, refused.interims.len()), (413, 0));
    assert!(refused.closed, "the body that never came cannot be skipped");
    let unknown = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: tea\r\n\r\n";
    let unknown = raw::exchange(gateway.http, unknown).await;
    assert_eq!((unknown.status, unknown.interims.len()), (417, 0));
    assert_eq!(unknown.json()["reason"], "expectation_failed");
    assert_eq!(recorder.begun(), 1);
}

#[tokio::test]
async fn nobody_is_told_to_go_on_when_the_service_cannot_be_reached() {
    let refusing = Rogue::refuse();
    let gateway = Gateway::start(&passing(refusing.addr())).await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    let refused = raw::exchange(gateway.http, head).await;
    assert_eq!((refused.status, refused.interims.len()), (502, 0));
}

// === What the gateway adds ===

/// RFC 9110 section 10.1.4: a hop that sends TE says so in Connection.
///
/// Shows H2-21.
#[tokio::test]
async fn the_wish_for_trailers_is_nominated() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    let headers = [("TE", "trailers, deflate"), ("Connection", "TE")];
    assert_eq!(from([127, 0, 0, 1], &gateway, &headers).await.status, 200);
    let seen = &recorder.wait_for(1).await[0];
    assert_eq!((seen.all("te"), seen.all("connection")), (vec!["trailers"], vec!["te"]));
}

/// RFC 9110 section 7.6.3: Via names the version in which a message was received.
#[tokio::test]
async fn via_tells_how_the_request_came() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    raw::exchange(gateway.http, "GET / HTTP/1.0\r\n\r\n").await;
    gateway.get("/").await;
    client::h2c(gateway.http).await.send(client::get("/")).await;
    let seen = recorder.wait_for(3).await;
    for (request, version) in seen.iter().zip(["1.0 ", "1.1 ", "2.0 "]) {
        assert!(request.header("via").unwrap().starts_with(version), "{request:?}");
    }
}

// === Max-Forwards ===

#[tokio::test]
async fn hd_09_the_last_hop_of_options_is_answered_here() {
    let recorder = Recorder::start();
    let gateway = Gateway::start(&passing(recorder.addr())).await;
    for (method, given, passed) in [
        ("OPTIONS", "0", None),
        ("OPTIONS", "00", None),
        ("OPTIONS", "1", Some("0")),
        ("OPTIONS", "070", Some("69")),
        ("OPTIONS", "-1", Some("-1")),
        ("OPTIONS", "99999999999999999999", Some("99999999999999999999")),
        ("GET", "0", Some("0")),
    ] {
        let before = recorder.requests().len();
        let headers = [("Max-Forwards", given)];
        let answer = gateway.client().await.request(method, "/x", "a", &headers, b"").await;
        let seen = recorder.requests();
        let seen = seen.get(before).map(|seen| seen.header("max-forwards").unwrap());
        assert_eq!(seen, passed, "{method} {given}");
        if passed.is_none() {
            assert_eq!(answer.status, 204);
            assert!(answer.header("allow").unwrap().contains("OPTIONS"));
        }
    }
    // Who has no body to wait for may go on.
    let mut client = gateway.client().await;
    for _ in 0..2 {
        let headers = [("Max-Forwards", "0")];
        assert_eq!(client.request("OPTIONS", "/x", "a", &headers, b"body").await.status, 204);
    }
}

// === Texts of the config ===

#[tokio::test]
async fn hd_17_line_ends_make_no_field_neither_in_the_config_nor_in_a_request() {
    let recorder = Recorder::start();
    let route = |filters: &str| {
        let service = format!("endpoints: [ {{ address: \"{}\" }} ]", recorder.addr());
        format!(
            "upstreams: {{ up: {{ {service} }} }}\nroutes: [ {{ id: r, filters: [ {filters} ], upstream: up }} ]\n"
        )
    };
    for filters in [
        r#"headers: { request: { set: { X-A: "a\r\nX-Evil: 1" } } }"#,
        r#"headers: { response: { set: { X-A: "a\nX-Evil: 1" } } }"#,
        r#"headers: { request: { add: { X-A: "{path}\r\n" } } }"#,
        r#"headers: { request: { set: { "X-A\r\nX-Evil": "1" } } }"#,
        r#"rewrite: { host: "a\r\nX-Evil: 1" }"#,
    ] {
        let said = refusal(&route(&format!("{{ {filters} }}")));
        assert!(said.contains("4:") && said.contains("error"), "{said}");
    }
    // What a caller may put into a hole: a claim is signed by somebody, but not checked for line ends.
    let key = Key::new("HS256");
    let keys = format!("keys: [ {{ kid: k, alg: HS256, secret: \"{}\" }} ]", key.shared);
    let gateway = Gateway::start(&format!(
        r#"
upstreams: {{ up: {{ endpoints: [ {{ address: "{}" }} ] }} }}
routes:
  - id: copied
    match: {{ path: /copied }}
    filters: [ {{ jwt: {{ {keys}, claims_to_headers: {{ X-A: sub }} }} }} ]
    upstream: up
  - id: text
    match: {{ path: /text }}
    filters: [ {{ jwt: {{ {keys} }} }}, {{ headers: {{ request: {{ set: {{ X-A: "{{claim.sub}}" }} }} }} }} ]
    upstream: up
"#,
        recorder.addr()
    ))
    .await;
    for (path, sub, told) in [
        ("/copied", "plain", Some(Some("plain"))),
        ("/text", "plain", Some(Some("plain"))),
        // An identity that no field can hold is none.
        ("/copied", r"a\r\nX-Evil: 1", None),
        ("/copied", r"a\u0000", None),
        // A text that no field can hold is left out.
        ("/text", r"a\r\nX-Evil: 1", Some(None)),
        ("/text", r"a\u0000", Some(None)),
    ] {
        let before = recorder.requests().len();
        let bearer =
            format!("Bearer {}", key.token(&format!(r#"{{"exp":9999999999,"sub":"{sub}"}}"#)));
        let headers = [("Authorization", bearer.as_str()), ("X-A", "said by the client")];
        let answer = gateway.client().await.request("GET", path, "a", &headers, b"").await;
        let seen = recorder.requests();
        let seen = seen.get(before).map(|seen| (seen.header("x-a"), seen.header("x-evil")));
        assert_eq!(seen, told.map(|told| (told, None)), "{path} {sub}");
        assert_eq!(answer.status, if told.is_some() { 200 } else { 401 }, "{path} {sub}");
    }
}
