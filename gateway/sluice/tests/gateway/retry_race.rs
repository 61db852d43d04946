//! Second attempts: which requests get one, where it goes, and that there is never a third.

use std::net::SocketAddr;

use sluice_chaos::faults::{Direction, Fault, FaultProxy};
use sluice_chaos::h2up::{H2Upstream, Mode};
use sluice_chaos::recorder::Recorder;
use sluice_chaos::rogue::{self, Conversation, Head, Rogue};

use crate::configs::{passing, passing_with};
use crate::support::{Gateway, Setup};

/// One worker, so that a second request meets the kept connection of the first.
async fn one_worker(config: &str) -> Gateway {
    Gateway::start_with(config, Setup { workers: Some(1), ..Setup::default() }).await
}

/// One route to all these endpoints.
fn several(endpoints: &[SocketAddr]) -> String {
    let endpoints: Vec<String> =
        endpoints.iter().map(|addr| format!("{{ address: \"{addr}\" }}")).collect();
    format!(
        "upstreams: {{ service: {{ endpoints: [ {} ] }} }}\nroutes: [ {{ id: all, upstream: service }} ]\n",
        endpoints.join(", ")
    )
}

/// Method and connection of every head.
fn story(heads: &[Head]) -> Vec<(&str, u64)> {
    heads.iter().map(|head| (head.method.as_str(), head.connection)).collect()
}

/// Shows U-04.
#[tokio::test]
async fn an_idempotent_request_that_met_a_dying_connection_is_sent_once_more() {
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        let rogue = Rogue::start(rogue::reset_on_reuse());
        let gateway = one_worker(&passing(rogue.addr())).await;
        let mut client = gateway.client().await;
        assert_eq!(client.request("GET", "/", "localhost", &[], b"").await.status, 200);
        let second = client.request(method, "/again", "localhost", &[], b"").await;
        assert_eq!(second.status, 200, "{method}");
        assert_eq!(story(&rogue.heads()), [("GET", 1), (method, 1), (method, 2)]);
        let lines = gateway.log_lines(2).await;
        assert_eq!(lines[1]["attempts"], 2);
        assert_eq!(gateway.metric("sluice_upstream_retries_total").await, 1.0);
        let again = &rogue.heads()[2];
        assert_eq!(again.all("via").len(), 1, "{again:?}");
        assert_eq!(again.all("x-forwarded-for"), ["127.0.0.1"]);
    }
}

/// Shows U-04.
#[tokio::test]
async fn what_may_not_be_repeated_is_not_doubled() {
    for (method, body) in [("POST", &b"once"[..]), ("POST", b""), ("PATCH", b"once")] {
        let rogue = Rogue::start(rogue::reset_on_reuse());
        let gateway = one_worker(&passing(rogue.addr())).await;
        let mut client = gateway.client().await;
        assert_eq!(client.request("GET", "/", "localhost", &[], b"").await.status, 200);
        let second = client.request(method, "/order", "localhost", &[], body).await;
        assert_eq!(second.status, 502, "{method}");
        assert_eq!(second.json()["reason"], "upstream_reset");
        assert_eq!(story(&rogue.heads()), [("GET", 1), (method, 1)]);
        assert_eq!(rogue.connections(), 1);
        assert_eq!(gateway.metric("sluice_upstream_retries_total").await, 0.0);
    }
}

/// Shows U-05.
#[tokio::test]
async fn a_service_that_closes_after_each_answer_costs_no_get() {
    let rogue = Rogue::start(rogue::close_after(1));
    let gateway = one_worker(&passing(rogue.addr())).await;
    let mut client = gateway.client().await;
    for _ in 0..50 {
        assert_eq!(client.request("GET", "/", "localhost", &[], b"").await.status, 200);
    }
}

/// Shows U-01.
#[tokio::test]
async fn a_refused_connection_sends_any_request_to_another_endpoint() {
    let (refusing, recorder) = (Rogue::refuse(), Recorder::start());
    let gateway = one_worker(&several(&[refusing.addr(), recorder.addr()])).await;
    let mut client = gateway.client().await;
    for _ in 0..4 {
        let answer = client.request("POST", "/order", "shop.example", &[], b"two pieces").await;
        assert_eq!(answer.status, 200);
    }
    let seen = recorder.wait_for(4).await;
    assert!(seen.iter().all(|request| request.text() == "two pieces" && request.complete));
    let attempts: Vec<_> =
        gateway.log_lines(4).await.iter().map(|l| l["attempts"].clone()).collect();
    assert!(attempts.contains(&2.into()), "in turn, so that half meet the refusal: {attempts:?}");
}

/// Large bodies are streamed and not kept, so what has begun to flow is never sent again, not even in part.
#[tokio::test]
async fn u_21_a_large_body_that_has_begun_to_flow_goes_nowhere_else() {
    let (one, other) = (Recorder::start(), Recorder::start());
    let proxy = FaultProxy::before(one.addr());
    proxy.set(Fault::none().reset_after(300_000).only(Direction::Up));
    let gateway = one_worker(&several(&[proxy.addr(), other.addr()])).await;
    let body = vec![b'b'; 1_000_000];
    let mut statuses = Vec::new();
    for method in ["POST", "PUT", "POST", "PUT"] {
        let mut client = gateway.client().await;
        client
            .send(format!("{method} /order HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"))
            .await;
        // The gateway may answer before it has read everything.
        client.try_send(&body).await.ok();
        let answer = client.response().await;
        statuses.push(answer.status);
        if answer.status == 502 {
            assert_eq!(answer.json()["reason"], "upstream_reset");
        }
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 502, 502]);
    assert!(one.requests().iter().all(|request| !request.complete));
    let got: Vec<usize> = other.requests().iter().map(|request| request.body.len()).collect();
    assert_eq!(got, [1_000_000, 1_000_000]);
    assert_eq!(gateway.metric("sluice_upstream_retries_total").await, 0.0);
}

/// The fields were written only by the first attempt, which may never have come so far.
#[tokio::test]
async fn a_second_attempt_says_as_much_about_the_client_as_a_first() {
    let (refusing, recorder) = (Rogue::refuse(), Recorder::start());
    let gateway = one_worker(&several(&[refusing.addr(), recorder.addr()])).await;
    let mut client = gateway.client().await;
    for _ in 0..4 {
        client.request("GET", "/", "shop.example", &[("X-Forwarded-For", "9.9.9.9")], b"").await;
    }
    for request in recorder.wait_for(4).await {
        assert_eq!(request.all("x-forwarded-for"), ["127.0.0.1"]);
        assert_eq!(request.all("x-forwarded-host"), ["shop.example"]);
        assert_eq!(request.all("x-real-ip"), ["127.0.0.1"]);
        assert_eq!(request.all("x-forwarded-proto"), ["http"]);
        assert_eq!(request.all("via").len(), 1);
    }
    assert!(gateway.metric("sluice_upstream_retries_total").await >= 1.0);
}

#[tokio::test]
async fn there_is_no_third_attempt() {
    let refusing: Vec<Rogue> = (0..4).map(|_| Rogue::refuse()).collect();
    let addresses: Vec<SocketAddr> = refusing.iter().map(Rogue::addr).collect();
    let gateway = one_worker(&several(&addresses)).await;
    let answer = gateway.get("/").await;
    assert_eq!((answer.status, answer.json()["reason"].as_str()), (502, Some("connect_refused")));
    assert_eq!(gateway.log_lines(1).await[0]["attempts"], 2);
    let refused = r#"sluice_upstream_errors_total{reason="connect_refused"}"#;
    assert_eq!(gateway.metric(refused).await, 2.0);

    // The close race, lost twice.
    let rogue = Rogue::start(rogue::by_connection(vec![
        rogue::reset_on_reuse(),
        rogue::reset_after_head(),
        rogue::ok("too late"),
    ]));
    let gateway = one_worker(&passing(rogue.addr())).await;
    let mut client = gateway.client().await;
    assert_eq!(client.request("GET", "/", "localhost", &[], b"").await.status, 200);
    let second = client.request("GET", "/", "localhost", &[], b"").await;
    assert_eq!((second.status, second.json()["reason"].as_str()), (502, Some("upstream_reset")));
    assert_eq!(rogue.connections(), 2);
}

#[tokio::test]
async fn a_new_connection_that_dies_is_a_failure_and_not_a_race() {
    for script in [rogue::reset_after_head(), rogue::close_after_head()] {
        let rogue = Rogue::start(rogue::by_connection(vec![script, rogue::ok("too late")]));
        let gateway = Gateway::start(&passing(rogue.addr())).await;
        let answer = gateway.get("/").await;
        assert_eq!(
            (answer.status, answer.json()["reason"].as_str()),
            (502, Some("upstream_reset"))
        );
        assert_eq!(rogue.connections(), 1);
    }
}

#[tokio::test]
async fn an_http2_service_may_start_anew_between_requests() {
    let well = || Mode::Answer(200, b"well".to_vec());
    let mut service = H2Upstream::start(well());
    let addr = service.addr();
    let gateway = one_worker(&passing_with(addr, "protocol: http2,", "")).await;
    let mut client = gateway.client().await;
    for round in 0..10 {
        for _ in 0..3 {
            let answer = client.request("GET", "/", "a", &[], b"").await;
            assert_eq!(answer.text(), "well", "{round}");
        }
        service.stop().await;
        service = H2Upstream::setup().at(addr).mode(well()).start();
    }
}

/// Serves the first stream of each connection; from the second one on it only says that it will not.
pub(crate) async fn one_stream_only(mut talk: Conversation) {
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    const SETTINGS_ACK: &[u8] = &[0, 0, 0, 4, 1, 0, 0, 0, 0];
    /// `:status: 200` on stream 1, and no more.
    const ANSWER: &[u8] = &[0, 0, 1, 1, 5, 0, 0, 0, 1, 0x88];
    /// NO_ERROR, the last stream being 1.
    const FAREWELL: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    let mut bytes = Vec::new();
    talk.send([SETTINGS, SETTINGS_ACK].concat()).await;
    let mut at = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();
    loop {
        while let Some([a, b, c, kind, _, .., stream]) = bytes.get(at..at + 9) {
            let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            match (*kind, *stream) {
                (1, 1) => drop(talk.send(ANSWER).await),
                (1, _) => {
                    talk.send(FAREWELL).await;
                    return talk.drain().await;
                }
                _ => {}
            }
            at += 9 + length;
        }
        let piece = talk.read_some().await;
        if piece.is_empty() {
            return;
        }
        bytes.extend(piece);
    }
}

/// RFC 9113 section 6.8: streams above the last one named were not processed.
///
/// Shows H2-25.
#[tokio::test]
async fn a_stream_that_a_farewell_left_out_is_sent_again() {
    let rogue = Rogue::start(one_stream_only);
    let gateway = one_worker(&passing_with(rogue.addr(), "protocol: http2,", "")).await;
    let mut client = gateway.client().await;
    for turn in 0..5 {
        let answer = client.request("GET", "/", "a", &[], b"").await;
        assert_eq!(answer.status, 200, "{turn}: {answer:?}");
    }
    assert_eq!(rogue.connections(), 5);
}

#[tokio::test]
async fn a_second_attempt_finds_room_where_one_connection_is_allowed() {
    let service = Rogue::start(rogue::reset_on_reuse());
    let gateway = Gateway::start_with(
        &format!(
            "upstreams: {{ s: {{ endpoints: [ {{ address: \"{}\" }} ],\n  \
               keepalive: {{ max_connections: 1, max_wait: 5s }} }} }}\n\
             routes: [ {{ id: all, match: {{ path: /** }}, upstream: s }} ]\n",
            service.addr()
        ),
        Setup { workers: Some(1), ..Setup::default() },
    )
    .await;
    for _ in 0..20 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
}
