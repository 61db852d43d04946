//! Redirects of services that name themselves, and what becomes of them on the way out.

use sluice_chaos::raw::Response;
use sluice_chaos::recorder::{Answer, Recorder};

use crate::support::{Gateway, Setup, WITH_TLS};

/// Redirects to what the query asks for; `SELF` is the service's own address.
fn service() -> Recorder {
    Recorder::deciding(|request| {
        let to = request.target.split_once("to=").map_or("", |it| it.1);
        let own = request.header("x-own").unwrap_or_default();
        Answer::new(302).header("Location", &to.replace("SELF", own))
    })
}

fn config(service: &Recorder) -> String {
    let address = service.addr();
    format!(
        "development: true
trusted_proxies: [ 127.0.0.2/32 ]
filters: [ {{ headers: {{ request: {{ set: {{ X-Own: \"{address}\" }} }} }} }} ]
upstreams:
  up: {{ endpoints: [ {{ address: \"{address}\" }} ] }}
routes:
  - {{ id: api, match: {{ path: /api/** }}, upstream: up, filters: [ {{ strip_prefix: 1 }} ] }}
  - {{ id: raw, match: {{ path: /raw/** }}, upstream: up, location: pass }}
  - {{ id: all, match: {{ path: /** }}, upstream: up }}
"
    )
}

fn location(answer: &Response) -> String {
    assert_eq!(answer.status, 302);
    answer.header("location").unwrap_or_default().to_owned()
}

/// Shows HD-25.
#[tokio::test]
async fn a_service_that_names_itself_leads_to_the_host_that_clients_know() {
    let service = service();
    let setup = Setup { listeners: Some(WITH_TLS), ..Setup::default() };
    let gateway = Gateway::start_with(&config(&service), setup).await;
    let host = format!("api.example.com:{}", gateway.http.port());
    for (path, to, outcome) in [
        ("/a", "http://SELF/b?c=1", &*format!("http://{host}/b?c=1")),
        ("/a", "//SELF/b", &*format!("http://{host}/b")),
        ("/api/a", "http://SELF/b", &*format!("http://{host}/api/b")),
        ("/api/a", "/b", "/api/b"),
        ("/a", "/b", "/b"),
        ("/a", "b", "b"),
        (
            "/a",
            "https://elsewhere.example/SELF",
            &*format!("https://elsewhere.example/{}", service.addr()),
        ),
        ("/raw/a", "http://SELF/b", &*format!("http://{}/b", service.addr())),
    ] {
        let mut client = gateway.client().await;
        let answer = client.request("GET", &format!("{path}?to={to}"), &host, &[], b"").await;
        assert_eq!(location(&answer), outcome, "{path} {to}");
    }
}

/// Shows HD-25.
#[tokio::test]
async fn the_scheme_and_the_host_are_those_of_the_client_also_behind_a_proxy() {
    let service = service();
    let gateway = Gateway::start(&config(&service)).await;
    let proxied = [("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "shop.example.com")];
    let path = "/a?to=http://SELF/b";
    let source = std::net::IpAddr::from([127, 0, 0, 2]);
    let mut proxy = sluice_chaos::raw::Client::connect_from(source, gateway.http).await;
    let answer = proxy.request("GET", path, "inside", &proxied, b"").await;
    assert_eq!(location(&answer), "https://shop.example.com/b");
    // The port of HTTPS is never named: WeChat refuses a domain with one.
    let answer =
        proxy.request("GET", "/a?to=http://inside:443/b", "inside:443", &proxied[..1], b"").await;
    assert_eq!(location(&answer), "https://inside/b");
    // Nobody else is believed, and nobody leads a client from HTTPS to HTTP.
    let mut client = gateway.client().await;
    let answer = client.request("GET", path, "shop.example.com", &proxied[..1], b"").await;
    assert_eq!(location(&answer), "http://shop.example.com/b");
    let path = "/a?to=https://shop.example.com/b";
    let answer = client.request("GET", path, "shop.example.com", &[], b"").await;
    assert_eq!(location(&answer), "https://shop.example.com/b");
}
