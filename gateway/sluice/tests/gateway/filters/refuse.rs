//! Refusals before anything is read: by address and by size.

use std::net::{IpAddr, Ipv4Addr};

use sluice_chaos::raw::{Client, Response};
use sluice_chaos::recorder::{Answer, Recorder};

use crate::support::{Gateway, Setup};

async fn start(config: &str) -> (Gateway, Recorder) {
    let recorder = Recorder::answering(Answer::echo());
    let config = config.replace("{up}", &recorder.addr().to_string());
    (Gateway::start_with(&config, Setup::default()).await, recorder)
}

async fn from(gateway: &Gateway, last: u8, path: &str, headers: &[(&str, &str)]) -> Response {
    let source = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
    let mut client = Client::connect_from(source, gateway.http).await;
    client.request("GET", path, "localhost", headers, b"").await
}

#[tokio::test]
async fn addresses_are_judged_by_where_the_request_really_comes_from() {
    const CONFIG: &str = r#"
trusted_proxies: [ 127.0.0.9 ]
upstreams: { up: { endpoints: [ { address: "{up}" } ] } }
routes:
  - id: inside
    match: { path: /inside }
    filters: [ { ip_rules: { allow: [ 127.0.0.0/30, 10.0.0.0/8 ], deny: [ 127.0.0.3 ] } } ]
    upstream: up
"#;
    let (gateway, recorder) = start(CONFIG).await;
    for welcome in [1, 2] {
        assert_eq!(from(&gateway, welcome, "/inside", &[]).await.status, 200);
    }
    let served = recorder.begun();
    for refused in [3, 4, 9] {
        let answer = from(&gateway, refused, "/inside", &[]).await;
        assert_eq!(
            (answer.status, answer.json()["reason"].as_str()),
            (403, Some("address_refused"))
        );
    }
    // Only a trusted proxy is believed about others.
    let claimed = [("X-Forwarded-For", "10.1.2.3")];
    assert_eq!(from(&gateway, 4, "/inside", &claimed).await.status, 403);
    assert_eq!(recorder.begun(), served);
    assert_eq!(from(&gateway, 9, "/inside", &claimed).await.status, 200);
    let seen = recorder.requests().pop().unwrap();
    assert_eq!(seen.header("x-real-ip"), Some("10.1.2.3"));
    assert_eq!(seen.header("x-forwarded-for"), Some("10.1.2.3, 127.0.0.9"));
    let behind = [("X-Forwarded-For", "10.1.2.3, 192.0.2.1")];
    assert_eq!(from(&gateway, 9, "/inside", &behind).await.status, 403);
}

#[tokio::test]
async fn bodies_over_the_limit_are_refused_or_cut() {
    const CONFIG: &str = r#"
upstreams: { up: { endpoints: [ { address: "{up}" } ] } }
routes:
  - { id: small, match: { path: /small }, filters: [ { size_limit: { body: 1KiB } } ], upstream: up }
"#;
    let (gateway, recorder) = start(CONFIG).await;
    let most = [b'x'; 1024];
    let mut client = gateway.client().await;
    let fine = client.request("POST", "/small", "localhost", &[], &most).await;
    assert_eq!(fine.status, 200);
    assert_eq!(recorder.requests()[0].body.len(), 1024);

    let announced = "POST /small HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1025\r\n\r\n";
    let mut client = gateway.client().await;
    client.send(announced).await;
    let refused = client.response().await;
    assert_eq!((refused.status, refused.json()["reason"].as_str()), (413, Some("body_too_large")));
    assert_eq!(refused.header("connection"), Some("close"));
    assert!(refused.closed);
    assert_eq!(recorder.begun(), 1, "a refused body reached the service");

    // In chunks nothing is announced; the body is cut where it crosses the line.
    let mut client = gateway.client().await;
    client
        .send("POST /small HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    client.send("400\r\n").await;
    client.send(most).await;
    client.send("\r\n").await;
    recorder.wait_for_begun(2).await;
    client.send("1\r\nx\r\n0\r\n\r\n").await;
    let cut = client.response().await;
    assert_eq!((cut.status, cut.json()["reason"].as_str()), (413, Some("body_too_large")));
    let seen = recorder.wait_for(2).await.pop().unwrap();
    assert!(!seen.complete, "the service took a cut body for a whole one");
    assert!(seen.body.len() <= 1024);
}
