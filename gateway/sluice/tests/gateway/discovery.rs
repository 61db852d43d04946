//! Endpoints by name: followed as long as the name servers know better, kept when they do not.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use sluice_chaos::dns::{Behaviour, FakeDns};
use sluice_chaos::recorder::{Answer, Recorder};

use crate::support::{Gateway, eventually};

const NAME: &str = "svc.shop.test";

const fn local(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
}

/// Services at 127.0.0.1 and 127.0.0.2 under one port, which answer with the end of their address.
fn pair() -> [Recorder; 2] {
    let first = Recorder::answering(Answer::ok("1"));
    let second = SocketAddr::new(local(2), first.addr().port());
    [first, Recorder::setup().at(second).answer(Answer::ok("2")).start()]
}

async fn start(dns: &FakeDns, port: u16) -> Gateway {
    let config = format!(
        "resolver: {{ nameservers: [ \"{}\" ] }}\n\
         upstreams:\n  up: {{ endpoints: [ {{ address: \"{NAME}:{port}\" }} ] }}\n  echo: {{ builtin: echo }}\n\
         routes:\n  - {{ id: up, match: {{ path: /up }}, upstream: up }}\n  - {{ id: echo, match: {{ path: /echo }}, upstream: echo }}\n",
        dns.addr()
    );
    Gateway::start(&config).await
}

async fn who(gateway: &Gateway) -> String {
    let answer = gateway.get("/up").await;
    if answer.status == 200 { answer.text() } else { format!("{}", answer.json()["reason"]) }
}

#[tokio::test]
async fn changed_addresses_are_followed_when_their_time_has_passed() {
    let (dns, services) = (FakeDns::start(), pair());
    dns.set(NAME, &[local(1)], 1);
    let gateway = start(&dns, services[0].addr().port()).await;
    for _ in 0..4 {
        assert_eq!(who(&gateway).await, "1");
    }
    dns.set(NAME, &[local(2)], 1);
    eventually("the new address", async || who(&gateway).await == "2").await;
    assert_eq!(who(&gateway).await, "2");
    // The connection to the address that left is closed.
    services[0].wait_for_open(0).await;

    dns.set(NAME, &[local(1), local(2)], 1);
    eventually("both addresses", async || {
        let both = [who(&gateway).await, who(&gateway).await];
        both == ["1", "2"] || both == ["2", "1"]
    })
    .await;
    let page = gateway.admin("/upstreams").await.json();
    assert_eq!(page["up"]["endpoints"].as_array().unwrap().len(), 2);
    assert!(page["up"]["endpoints"][0]["endpoint"].as_str().unwrap().starts_with(NAME));
    let host = services[1].requests().pop().unwrap();
    assert_eq!(host.header("host"), Some("localhost"));
}

#[tokio::test]
async fn an_answer_is_used_for_as_long_as_it_says() {
    let (dns, services) = (FakeDns::start(), pair());
    dns.set(NAME, &[local(1)], 300);
    let gateway = start(&dns, services[0].addr().port()).await;
    assert_eq!(who(&gateway).await, "1");
    let asked = dns.queries().len();
    assert!((1..=4).contains(&asked), "{:?}", dns.queries());
    dns.set(NAME, &[local(2)], 300);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((who(&gateway).await.as_str(), dns.queries().len()), ("1", asked));
    // A reload is free to ask again, and does.
    gateway.daemon.signal("HUP");
    gateway.wait_for_generation(2).await;
    eventually("the new address", async || who(&gateway).await == "2").await;
}

#[tokio::test]
async fn name_servers_that_fail_take_nothing_away() {
    for behaviour in [Behaviour::NxDomain, Behaviour::ServFail, Behaviour::Empty, Behaviour::Silent]
    {
        let (dns, services) = (FakeDns::start(), pair());
        dns.set(NAME, &[local(1)], 1);
        let gateway = start(&dns, services[0].addr().port()).await;
        assert_eq!(who(&gateway).await, "1");
        dns.behave_all(Some(behaviour));
        let asked = dns.queries().len();
        dns.wait_for_queries(asked + 2).await;
        gateway.daemon.wait_for_output("the last good addresses stay").await;
        for _ in 0..3 {
            assert_eq!(who(&gateway).await, "1", "{behaviour:?}");
        }
        let page = gateway.admin("/upstreams").await.json();
        let vote = &page["up"]["endpoints"][0]["votes"]["discovery"];
        let why = vote["why"].as_str().unwrap();
        assert!(vote["vote"] == "for" && why.contains("when it was last answered: "), "{page}");
        assert!(page["up"]["names_not_resolved"][NAME]["since"].is_string(), "{page}");
        // Not even a reload forgets them.
        gateway.daemon.signal("HUP");
        gateway.wait_for_generation(2).await;
        assert_eq!(who(&gateway).await, "1", "{behaviour:?}");
        dns.set(NAME, &[local(2)], 1);
        dns.behave_all(None);
        eventually("the new address", async || who(&gateway).await == "2").await;
    }
}

#[tokio::test]
async fn a_name_that_is_not_there_yet_refuses_its_own_route_only() {
    let (dns, services) = (FakeDns::start(), pair());
    let gateway = start(&dns, services[0].addr().port()).await;
    let refused = gateway.get("/up").await;
    assert_eq!((refused.status, refused.json()["reason"].as_str()), (503, Some("no_endpoint")));
    assert_eq!(gateway.get("/echo").await.status, 200);
    assert_eq!(gateway.admin("/readyz").await.status, 200);
    dns.set(NAME, &[local(1)], 60);
    eventually("the name", async || who(&gateway).await == "1").await;
}
