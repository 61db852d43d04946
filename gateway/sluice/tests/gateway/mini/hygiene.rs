//! Who is calling is said by the gateway alone: what others say of it is removed, whoever passes it on.

use std::net::IpAddr;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use sluice_chaos::recorder::Recorder;
use sluice_chaos::{client, raw};

use crate::configs::passing;
use crate::support::{Gateway, refusal};

const FORGED: [&str; 16] = [
    "X-WX-OPENID",
    "X-WX-APPID",
    "X-WX-UNIONID",
    "X-WX-SOURCE",
    "x-wx-client-ip",
    "x_wx_openid",
    "X.WX.OPENID",
    "X-WX_OPENID",
    "X-MP-User",
    "X-MP-Roles",
    "X-MP-Tier",
    "X-MP-Session",
    "X-MP-Gray",
    "X_MP_User",
    "X-Mp.User",
    "X-Sluice-Signature",
];

fn table(addr: std::net::SocketAddr) -> String {
    let mut table = passing(addr);
    table += "  - { id: guarded, match: { path: /guarded }, upstream: service, filters: [ { ip_rules: { allow: [127.0.0.0/8] } } ] }\n";
    table
}

/// Shows HD-06, HD-05.
#[tokio::test]
async fn nobody_outside_says_who_is_calling_on_any_route_or_protocol() {
    let recorder = Recorder::start();
    let config = format!("trusted_proxies: [ 127.0.0.9 ]\n{}", table(recorder.addr()));
    let gateway = Gateway::start(&config).await;
    let forged: Vec<_> = FORGED.iter().map(|name| (*name, "root")).collect();
    for path in ["/", "/guarded"] {
        assert_eq!(
            gateway.client().await.request("GET", path, "a", &forged, b"").await.status,
            200
        );
        let mut request = Request::get(path);
        for name in FORGED {
            request = request.header(name.to_ascii_lowercase(), "root");
        }
        let request = request.body(Full::new(Bytes::new())).unwrap();
        assert_eq!(client::h2c(gateway.http).await.send(request).await.0.status, 200);
    }
    // A proxy whose word counts for addresses passes on what its clients say.
    let mut proxy = raw::Client::connect_from(IpAddr::from([127, 0, 0, 9]), gateway.http).await;
    assert_eq!(proxy.request("GET", "/", "a", &forged, b"").await.status, 200);
    for seen in recorder.wait_for(5).await {
        for name in FORGED {
            assert_eq!(seen.all(name), Vec::<&str>::new(), "{name}");
        }
    }
}

#[tokio::test]
async fn wechat_gateway_tells_the_client_and_what_is_listed() {
    let recorder = Recorder::start();
    let config = format!(
        "trusted_proxies:\n  - 127.0.0.3\n  - {{ name: wxgw, cidrs: [ 127.0.0.2 ], client_ip_header: \
         x-wx-client-ip, keep_headers: [ x-wx-risk-rank, x-wx-openid ] }}\n{}",
        passing(recorder.addr())
    );
    let gateway = Gateway::start(&config).await;
    let said = [
        ("x-wx-client-ip", "203.0.113.7"),
        ("x-wx-risk-rank", "2"),
        ("x-wx-openid", "one"),
        ("x-wx-openid", "two"),
        ("x-wx-unionid", "u"),
    ];
    for from in [[127, 0, 0, 2], [127, 0, 0, 3], [127, 0, 0, 1]] {
        let mut peer = raw::Client::connect_from(IpAddr::from(from), gateway.http).await;
        assert_eq!(peer.request("GET", "/", "a", &said, b"").await.status, 200);
    }
    let seen = recorder.wait_for(3).await;
    assert_eq!(seen[0].all("x-real-ip"), ["203.0.113.7"]);
    assert_eq!(seen[0].all("x-forwarded-for"), ["203.0.113.7, 127.0.0.2"]);
    assert_eq!(seen[0].all("x-wx-risk-rank"), ["2"]);
    for (at, address) in [(1, "127.0.0.3"), (2, "127.0.0.1")] {
        assert_eq!(seen[at].all("x-real-ip"), [address]);
        assert_eq!(seen[at].all("x-wx-risk-rank"), Vec::<&str>::new());
    }
    for one in &seen {
        for name in ["x-wx-openid", "x-wx-unionid", "x-wx-client-ip"] {
            assert_eq!(one.all(name), Vec::<&str>::new(), "twice, or not listed: {name}");
        }
    }
    let logged = gateway.log_lines(3).await;
    assert!(logged.iter().any(|line| line["client_ip"] == "203.0.113.7"), "{logged:?}");

    // Where it tells no address, or none that is one, the usual way counts.
    for value in ["none", "1.2.3.4, 5.6.7.8"] {
        let mut peer = raw::Client::connect_from(IpAddr::from([127, 0, 0, 2]), gateway.http).await;
        let odd = [("x-wx-client-ip", value), ("x-forwarded-for", "198.51.100.4")];
        peer.request("GET", "/", "a", &odd, b"").await;
        assert_eq!(recorder.requests().pop().unwrap().all("x-real-ip"), ["198.51.100.4"]);
    }
}

#[test]
fn what_is_kept_must_be_something_that_would_be_removed() {
    let said = refusal(
        "trusted_proxies: [ { name: cdn, cidrs: [ 10.0.0.0/8 ], keep_headers: [ x-wx-openid, x-mp-version ] } ]\n\
         upstreams: { echo: { builtin: echo } }\nroutes: [ { id: all, upstream: echo } ]\n",
    );
    assert!(said.contains("`x-mp-version` would not be removed anyway"), "{said}");
}
