//! gRPC through the gateway: messages as they come, trailers at the end, and refusals in the form a
//! gRPC client understands.

use sluice_chaos::client;
use sluice_chaos::h2up::{H2Upstream, Mode};
use sluice_chaos::pki::{self, Authority};
use sluice_chaos::rogue::Rogue;

use crate::configs::passing_with;
use crate::support::{Gateway, Setup, WITH_TLS};

const METHOD: &str = "/pkg.Echo/Say";

async fn to(service: &H2Upstream) -> Gateway {
    Gateway::start(&passing_with(service.addr(), "protocol: http2,", "")).await
}

#[tokio::test]
async fn unary_calls_have_their_trailers() {
    let service = H2Upstream::start(Mode::GrpcUnary);
    let gateway = to(&service).await;
    let mut grpc = client::grpc(gateway.http).await.with("x-request", "7");
    for message in [&b"hello"[..], b"", &[7; 500_000]] {
        let reply = grpc.unary(METHOD, message).await;
        assert_eq!((reply.status, reply.code), (200, Some(0)));
        assert!(reply.messages == [message], "{} bytes came back changed", message.len());
        assert!(reply.trailers.is_some());
    }
    let seen = &service.wait_for(3).await[0];
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", METHOD));
    assert_eq!(seen.header("te"), Some("trailers"));
    assert_eq!(seen.header("content-type"), Some("application/grpc"));
    assert_eq!(seen.header("x-request"), Some("7"));
    assert_eq!(seen.header(":authority"), Some(gateway.http.to_string().as_str()));
    assert_eq!(seen.header("host"), None);
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert!(seen.header("via").unwrap().starts_with("2.0 "), "{seen:?}");
    assert_eq!(service.connections(), 1, "one connection carries all calls of a worker");
}

#[tokio::test]
async fn bidirectional_calls_are_not_held_back() {
    let service = H2Upstream::start(Mode::GrpcBidi);
    let gateway = to(&service).await;
    let mut call = client::grpc(gateway.http).await.bidi(METHOD).await;
    for turn in 0..10 {
        let message = format!("message {turn}");
        call.send(message.as_bytes()).await;
        assert_eq!(call.next().await.unwrap(), message.as_bytes(), "before the next is sent");
    }
    let reply = call.finish().await;
    assert_eq!((reply.status, reply.code, reply.messages.len()), (200, Some(0), 10));
}

/// What floods look like from afar: very many small frames.
#[tokio::test]
async fn h2_28_a_stream_of_a_hundred_thousand_messages_passes() {
    let service = H2Upstream::start(Mode::GrpcBidi);
    let config = passing_with(service.addr(), "protocol: http2,", "streaming: true,");
    let gateway = Gateway::start(&config).await;
    let mut call = client::grpc(gateway.http).await.bidi(METHOD).await;
    let message = [7; 100];
    for _ in 0..1_000 {
        for _ in 0..100 {
            call.send(&message).await;
        }
        for _ in 0..100 {
            assert_eq!(call.next().await.unwrap(), message);
        }
    }
    let reply = call.finish().await;
    assert_eq!((reply.code, reply.messages.len()), (Some(0), 100_000));
}

#[tokio::test]
async fn many_calls_share_a_connection() {
    let service = H2Upstream::start(Mode::GrpcBidi);
    let gateway = to(&service).await;
    let mut grpc = client::grpc(gateway.http).await;
    let mut calls = Vec::new();
    for n in 0..50_u8 {
        let mut call = grpc.bidi(METHOD).await;
        call.send(&[n]).await;
        calls.push(call);
    }
    for (n, call) in calls.iter_mut().enumerate() {
        assert_eq!(call.next().await.unwrap(), [n as u8]);
    }
    for call in calls {
        assert_eq!(call.finish().await.code, Some(0));
    }
    assert_eq!(service.connections(), 1);
}

#[tokio::test]
async fn a_failure_told_by_the_service_is_passed_on() {
    let failure = Mode::GrpcError { code: 5, message: "no such thing".to_owned() };
    let service = H2Upstream::start(failure);
    let gateway = to(&service).await;
    let reply = client::grpc(gateway.http).await.unary(METHOD, b"hello").await;
    assert_eq!((reply.status, reply.code), (200, Some(5)));
    assert_eq!(reply.message.as_deref(), Some("no such thing"));
    assert!(reply.headers.get("x-sluice-reason").is_none());
}

/// Shows U-31.
#[tokio::test]
async fn refusals_are_trailers_only_answers() {
    let (silent, refusing) = (H2Upstream::start(Mode::Silent), Rogue::refuse());
    let config = format!(
        r#"
upstreams:
  silent: {{ protocol: http2, timeouts: {{ head: 300ms }}, endpoints: [ {{ address: "{}" }} ] }}
  refusing: {{ protocol: http2, endpoints: [ {{ address: "{}" }} ] }}
routes:
  - {{ id: silent, match: {{ path: "/pkg.Silent/**" }}, upstream: silent }}
  - {{ id: refusing, match: {{ path: "/pkg.Refusing/**" }}, upstream: refusing }}
  - id: guarded
    match: {{ path: "/pkg.Guarded/**" }}
    upstream: silent
    filters:
      - jwt: {{ keys: [ {{ kid: k, alg: HS256, secret: "0123456789abcdef0123456789abcdef" }} ] }}
  - {{ id: getting, match: {{ path: "/pkg.Getting/**", methods: [GET] }}, upstream: silent }}
"#,
        silent.addr(),
        refusing.addr()
    );
    let gateway = Gateway::start(&config).await;
    let mut grpc = client::grpc(gateway.http).await;
    for (path, code, reason) in [
        ("/pkg.Nothing/Say", 12, "no_route"),
        ("/pkg.Getting/Say", 12, "method_not_allowed"),
        ("/pkg.Guarded/Say", 16, "token_missing"),
        ("/pkg.Refusing/Say", 14, "connect_refused"),
        ("/pkg.Silent/Say", 4, "upstream_timeout"),
    ] {
        let reply = grpc.unary(path, b"hello").await;
        assert_eq!((reply.status, reply.code), (200, Some(code)), "{path}: {reply:?}");
        assert!(reply.trailers.is_none() && reply.messages.is_empty(), "{path}: {reply:?}");
        assert_eq!(reply.headers["content-type"], "application/grpc");
        assert_eq!(reply.headers["x-sluice-reason"], reason);
        assert!(!reply.message.unwrap().is_empty());
        let series = format!("sluice_rejected_total{{reason=\"{reason}\"}}");
        assert_eq!(gateway.metric(&series).await, 1.0, "{series}");
    }
    assert_eq!(silent.begun(), 1, "only the call that was let through");
}

#[tokio::test]
async fn a_cancelled_call_is_cancelled_at_the_service() {
    let service = H2Upstream::start(Mode::GrpcBidi);
    let gateway = to(&service).await;
    let mut grpc = client::grpc(gateway.http).await;
    let mut call = grpc.bidi(METHOD).await;
    call.send(b"one").await;
    assert_eq!(call.next().await.unwrap(), b"one");
    call.cancel();
    let resets = service.wait_for_resets(1).await;
    assert_eq!(resets.len(), 1);
    assert!(!service.wait_for(1).await[0].complete);
    service.set(Mode::GrpcUnary);
    assert_eq!(grpc.unary(METHOD, b"two").await.code, Some(0), "both connections are well");
    assert_eq!(service.connections(), 1);
}

/// Shows U-31.
#[tokio::test]
async fn a_service_that_vanishes_amid_a_call_breaks_it_off() {
    let service = H2Upstream::start(Mode::GrpcBidi);
    let gateway = to(&service).await;
    let mut call = client::grpc(gateway.http).await.bidi(METHOD).await;
    call.send(b"one").await;
    assert_eq!(call.next().await.unwrap(), b"one");
    service.stop().await;
    assert!(call.try_next().await.is_err(), "a broken call must not look finished");
    let line = &gateway.log_lines(1).await[0];
    assert_eq!(line["reason"], "upstream_broken", "{line}");
}

#[tokio::test]
async fn inside_tls_on_both_sides() {
    let authority = Authority::new();
    let inner = authority.issue(&["127.0.0.1"]);
    let service = H2Upstream::start_tls(pki::server_config(&inner, &["h2"]), Mode::GrpcUnary);
    let outer = authority.issue(&["localhost"]);
    let setup = Setup {
        listeners: Some(WITH_TLS),
        files: vec![
            ("cert.pem", outer.cert_pem),
            ("key.pem", outer.key_pem),
            ("ca.pem", authority.pem()),
        ],
        ..Setup::default()
    };
    let upstream = "protocol: http2, tls: { ca_file: ca.pem },";
    let gateway = Gateway::start_with(&passing_with(service.addr(), upstream, ""), setup).await;
    let trust = pki::client_config(&authority, &["h2"]);
    let sender = client::tls(gateway.https, "localhost", trust).await;
    let reply = client::Grpc::over(sender).unary(METHOD, b"secret").await;
    assert_eq!((reply.code, reply.messages), (Some(0), vec![b"secret".to_vec()]));
    let seen = &service.wait_for(1).await[0];
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.header(":authority"), Some("localhost"));
}
