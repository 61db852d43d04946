//! What once broke, each named after it.

use sluice_chaos::recorder::{Answer, Recorder};

use crate::support::{Gateway, Setup, eventually};

#[tokio::test]
async fn an_endpoint_stayed_down_when_its_health_check_was_removed() {
    let service = Recorder::deciding(|request| {
        Answer::new(if request.target == "/health" { 500 } else { 200 })
    });
    let config = |check: &str| {
        format!(
            "upstreams: {{ s: {{ endpoints: [ {{ address: \"{}\" }} ]{check} }} }}\n\
             routes: [ {{ id: all, match: {{ path: /** }}, upstream: s }} ]\n",
            service.addr()
        )
    };
    let checked = ", panic_threshold: 0%, health_check: { http: /health, interval: 50ms, fall: 1 }";
    let gateway = Gateway::start(&config(checked)).await;
    eventually("the endpoint to be taken out", async || gateway.get("/").await.status == 503).await;
    gateway.write_config(&config(""));
    eventually("the endpoint to be back", async || gateway.get("/").await.status == 200).await;
}

#[tokio::test]
async fn the_smaller_of_two_size_limits_won_although_the_route_said_otherwise() {
    let gateway = Gateway::start(
        "filters: [ { size_limit: { body: 10B } } ]\n\
         upstreams: { echo: { builtin: echo } }\n\
         routes:\n  \
           - { id: small, match: { path: /small }, upstream: echo }\n  \
           - { id: big, match: { path: /big }, filters: [ { size_limit: { body: 1KiB } } ], upstream: echo }\n",
    )
    .await;
    let body = [b'x'; 100];
    for (path, status) in [("/small", 413), ("/big", 200)] {
        let mut client = gateway.client().await;
        let answer = client.request("POST", path, "localhost", &[], &body).await;
        assert_eq!(answer.status, status, "{path}");
    }
}

#[tokio::test]
async fn a_new_trace_carried_the_notes_of_another() {
    let gateway = Gateway::start(
        "filters: [ { request_id: {} } ]\n\
         upstreams: { echo: { builtin: echo } }\n\
         routes: [ { id: all, match: { path: /** }, upstream: echo } ]\n",
    )
    .await;
    let mut client = gateway.client().await;
    let sent = [
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("tracestate", "vendor=secret"),
    ];
    let answer = client.request("GET", "/", "localhost", &sent, b"").await;
    let headers = &answer.json()["headers"];
    assert!(!headers["traceparent"].as_str().unwrap().contains("4bf92f3577b34da6"));
    assert!(headers["tracestate"].is_null(), "{headers}");
}

#[tokio::test]
async fn a_new_jwt_secret_was_not_noticed() {
    let gateway = Gateway::start_with(
        "upstreams: { echo: { builtin: echo } }\n\
         routes:\n  \
           - { id: all, match: { path: /** }, upstream: echo,\n      \
               filters: [ { jwt: { keys: [ { kid: k, alg: HS256, secret_file: jwt.key } ] } } ] }\n",
        Setup { files: vec![("jwt.key", "a".repeat(48))], ..Setup::default() },
    )
    .await;
    std::fs::write(gateway.folder().join("jwt.key"), "b".repeat(48)).unwrap();
    gateway.wait_for_generation(2).await;
}

#[tokio::test]
async fn a_changed_number_of_connections_had_no_effect() {
    let config = |connections: u32| {
        format!(
            "upstreams: {{ echo: {{ builtin: echo }} }}\n\
             routes: [ {{ id: all, match: {{ path: /** }}, upstream: echo }} ]\n\
             x-n: {connections}\n"
        )
    };
    let listeners =
        "listeners: [ { name: plain, address: \"{http}\", limits: { connections: 1 } } ]\n";
    let setup = Setup { listeners: Some(listeners), workers: Some(1), ..Setup::default() };
    let gateway = Gateway::start_with(&config(1), setup).await;
    let mut first = gateway.client().await;
    assert_eq!(first.request("GET", "/", "localhost", &[], b"").await.status, 200);

    let path = gateway.config_path();
    let raised =
        std::fs::read_to_string(&path).unwrap().replace("connections: 1 ", "connections: 3 ");
    std::fs::write(&path, raised).unwrap();
    gateway.wait_for_generation(2).await;
    // The place that becomes free is taken with the new number in force.
    drop(first);
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut client = gateway.client().await;
        assert_eq!(client.request("GET", "/", "localhost", &[], b"").await.status, 200);
        open.push(client);
    }
}

#[tokio::test]
async fn a_secret_in_clear_was_shown_beside_a_mistake() {
    let gateway = Gateway::start(
        "upstreams: { echo: { builtin: echo } }\n\
         routes: [ { id: all, match: { path: /** }, upstream: echo } ]\n",
    )
    .await;
    gateway.write_config(
        "upstreams: { echo: { builtin: echo } }\n\
         redis: { url: \"redis://me:canary-one@localhost\" }\n\
         routes:\n  \
           - { id: all, match: { path: /** }, upstream: echo,\n      \
               filters: [ { jwt: { keys: [ { kid: k, alg: HS256, secret: canary-two, kidd: x } ] } } ] }\n",
    );
    eventually("the refusal", async || {
        gateway.admin("/config").await.text().contains("unknown field `kidd`")
    })
    .await;
    let shown = gateway.admin("/config").await.text() + &gateway.daemon.output();
    assert!(!shown.contains("canary"), "{shown}");
}
