//! What clients and proxies in between are told of keeping answers: nothing is kept of a known caller, unless
//! the service says that it may.

use sluice_chaos::raw::Response;
use sluice_chaos::recorder::{Answer, Recorder};
use sluice_chaos::rogue::Rogue;
use sluice_chaos::ws;

use crate::support::{Gateway, Setup};
use crate::tokens::{Key, digest, hex, now};

const KEY: &str = "slk_caching-0123456789";

fn config(service: &Recorder, echo: &ws::Echo, gone: &Rogue) -> String {
    format!(
        r#"
upstreams:
  service: {{ endpoints: [ {{ address: "{}" }} ] }}
  tunnels: {{ endpoints: [ {{ address: "{}" }} ] }}
  gone: {{ endpoints: [ {{ address: "{}" }} ] }}
groups:
  - {{ name: known, filters: [ {{ jwt: {{ keys: [ {{ kid: k, alg: HS256, secret_file: jwt.key }} ] }} }} ] }}
routes:
  - {{ id: jwt, group: known, match: {{ path: "/jwt/**" }}, upstream: service }}
  - {{ id: passed, group: known, match: {{ path: "/passed/**" }}, cache_control: pass, upstream: service }}
  - id: said
    group: known
    match: {{ path: "/said/**" }}
    upstream: service
    filters: [ {{ headers: {{ response: {{ set: {{ Cache-Control: "private, max-age=9" }} }} }} }} ]
  - id: tunnel
    group: known
    match: {{ path: /tunnel }}
    websocket: true
    upstream: tunnels
  - id: key
    match: {{ path: "/key/**" }}
    filters: [ {{ api_key: {{ from: [ {{ query: k }} ], keys: [ {{ id: p, hash: "{}" }} ] }} }} ]
    upstream: service
  - {{ id: open, match: {{ path: "/open/**" }}, upstream: service }}
  - {{ id: all, match: {{ path: "/all/**" }}, cache_control: no_store, upstream: service }}
  - {{ id: instead, match: {{ path: /instead }}, upstream: gone, fallback: {{ respond: {{ body: later }} }} }}
  - {{ id: other, match: {{ path: "/other/**" }}, upstream: gone, fallback: {{ upstream: service }} }}
"#,
        service.addr(),
        echo.addr(),
        gone.addr(),
        hex(&digest("-sha256", KEY.as_bytes()))
    )
}

/// Says about keeping what the path asks for.
fn service() -> Recorder {
    Recorder::deciding(|request| {
        let answer = Answer::ok("mine").header("ETag", "\"1\"");
        match request.target.rsplit('/').next() {
            Some("max-age") => answer.header("Cache-Control", "public, max-age=60"),
            Some("expires") => answer.header("Expires", "Thu, 01 Jan 2099 00:00:00 GMT"),
            Some("not") => Answer::new(404),
            _ => answer,
        }
    })
}

/// The `Cache-Control` of an answer, all of them.
fn told(answer: &Response) -> Vec<&str> {
    answer.all("cache-control")
}

/// Shows S-10.
#[tokio::test]
async fn what_a_known_caller_gets_is_kept_only_if_somebody_says_so() {
    let (service, echo, gone) = (service(), ws::Echo::start(), Rogue::refuse());
    let key = Key::new("HS256");
    let files = vec![("jwt.key", key.shared.clone())];
    let setup = Setup { files, ..Setup::default() };
    let gateway = Gateway::start_with(&config(&service, &echo, &gone), setup).await;
    let bearer =
        format!("Bearer {}", key.token(&format!(r#"{{"sub":"u","exp":{}}}"#, now() + 600)));
    let fields = [("Authorization", bearer.as_str())];
    let call =
        async |path: &str| gateway.client().await.request("GET", path, "a", &fields, b"").await;
    for (path, status, expected) in [
        ("/jwt/silent", 200, vec!["no-store"]),
        ("/jwt/not", 404, vec!["no-store"]),
        ("/jwt/max-age", 200, vec!["public, max-age=60"]),
        ("/jwt/expires", 200, vec![]),
        ("/said/silent", 200, vec!["private, max-age=9"]),
        ("/passed/silent", 200, vec![]),
        ("/open/silent", 200, vec![]),
        ("/all/silent", 200, vec!["no-store"]),
        ("/all/max-age", 200, vec!["public, max-age=60"]),
        ("/instead", 200, vec!["no-store"]),
        ("/other/silent", 200, vec!["no-store"]),
        ("/other/max-age", 200, vec!["public, max-age=60"]),
    ] {
        let answer = call(path).await;
        assert_eq!((answer.status, told(&answer)), (status, expected), "{path}");
    }
    let keyed = gateway.get(&format!("/key/silent?k={KEY}")).await;
    assert_eq!((keyed.status, told(&keyed)), (200, vec!["no-store"]));
    let tunnel = ws::Client::connect(gateway.http, "a", "/tunnel", &fields).await;
    assert_eq!(told(&tunnel.response), Vec::<&str>::new(), "nobody keeps a tunnel");
}

/// Shows S-10.
#[tokio::test]
async fn what_the_gateway_refuses_is_not_kept() {
    let (service, echo, gone) = (service(), ws::Echo::start(), Rogue::refuse());
    let files = vec![("jwt.key", Key::new("HS256").shared)];
    let setup = Setup { files, ..Setup::default() };
    let gateway = Gateway::start_with(&config(&service, &echo, &gone), setup).await;
    let call = async |method: &str, path: &str| {
        gateway.client().await.request(method, path, "a", &[], b"").await
    };
    for (method, path, status) in
        [("GET", "/nowhere", 404), ("GET", "/jwt/silent", 401), ("TRACE", "/open/a", 405)]
    {
        let answer = call(method, path).await;
        assert_eq!((answer.status, told(&answer)), (status, vec!["no-store"]), "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
    }
    let mut client = gateway.client().await;
    client
        .send(
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        )
        .await;
    let refused = client.response().await;
    assert_eq!((refused.status, told(&refused)), (400, vec!["no-store"]));
}
