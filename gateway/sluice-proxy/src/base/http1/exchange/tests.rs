//! An exchange over streams in memory, however its bytes arrive.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Uri};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

/// What came of an exchange.
#[derive(Debug)]
struct Outcome {
    status: u16,
    fields: HeaderMap,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
    whole: bool,
    clean: bool,
    interim: u32,
}

fn pair() -> (Exchange, DuplexStream) {
    let (near, far) = duplex(1024 * 1024);
    (Exchange::new(Stream::Memory(near)), far)
}

async fn send(exchange: &Exchange, method: Method) -> Result<http::Response<Incoming>, Lost> {
    let (target, fields) = (Uri::from_static("/x"), HeaderMap::new());
    let host = HeaderValue::from_static("a");
    let head = Head {
        method: &method,
        target: &target,
        host: &host,
        fields: &fields,
        added: &Nothing,
        trailers: false,
        websocket: false,
    };
    exchange.begin(head, Upload::empty());
    exchange.answer().await
}

/// Has `wire` answer a request, in pieces of `step` bytes, and the connection end after it.
async fn answered(method: Method, wire: &[u8], step: usize) -> Result<Outcome, Lost> {
    let (exchange, mut far) = pair();
    let wire = wire.to_vec();
    let service = async move {
        for piece in wire.chunks(step) {
            far.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        far.shutdown().await.unwrap();
        far
    };
    let caller = async {
        let answer = send(&exchange, method).await?;
        let (head, mut body) = answer.into_parts();
        let (mut data, mut trailers, mut whole) = (Vec::new(), None, true);
        while let Some(frame) = body.frame().await {
            match frame.map(Frame::into_data) {
                Ok(Ok(bytes)) => data.extend_from_slice(&bytes),
                Ok(Err(frame)) => trailers = frame.into_trailers().ok(),
                Err(_) => {
                    whole = false;
                    break;
                }
            }
        }
        Ok(Outcome {
            status: head.status.as_u16(),
            fields: head.headers,
            body: data,
            trailers,
            whole,
            clean: exchange.is_clean(),
            interim: exchange.interim(),
        })
    };
    let (outcome, _far) = tokio::join!(caller, service);
    outcome
}

async fn got(wire: &str) -> Outcome {
    answered(Method::GET, wire.as_bytes(), usize::MAX).await.unwrap()
}

#[tokio::test]
async fn an_answer_is_the_same_however_it_arrives() {
    let wire = b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\nx: y\r\n\
        transfer-encoding: chunked\r\n\r\n4\r\nWiki\r\n5;a=b\r\npedia\r\n0\r\ngrpc-status: 0\r\n\r\n";
    for step in 1..wire.len() {
        let outcome = answered(Method::GET, wire, step).await.unwrap();
        assert_eq!((outcome.status, outcome.interim), (200, 1));
        assert_eq!(outcome.body, b"Wikipedia");
        assert_eq!(outcome.fields["x"], "y");
        assert_eq!(outcome.trailers.unwrap()["grpc-status"], "0");
        assert!(outcome.whole && outcome.clean, "in steps of {step}");
    }
}

#[tokio::test]
async fn each_framing_ends_where_it_should() {
    let known = got("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
    assert_eq!((known.body.as_slice(), known.whole, known.clean), (&b"hello"[..], true, true));
    let open = got("HTTP/1.1 200 OK\r\n\r\nhello").await;
    assert_eq!((open.body.as_slice(), open.whole, open.clean), (&b"hello"[..], true, false));
    let none = got("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert!(none.body.is_empty() && none.whole && none.clean);
    let wire = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
    let head = answered(Method::HEAD, wire, 7).await.unwrap();
    assert!(head.body.is_empty() && head.whole && head.clean);
}

#[tokio::test]
async fn an_answer_that_is_cut_is_never_whole() {
    for wire in [
        "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nx\r\n\r\n",
    ] {
        let outcome = got(wire).await;
        assert_eq!(outcome.body, b"hello");
        assert!(!outcome.whole && !outcome.clean, "{wire}");
    }
}

#[tokio::test]
async fn a_body_that_failed_has_not_ended() {
    let (exchange, mut far) = pair();
    far.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel").await.unwrap();
    drop(far);
    let mut body = send(&exchange, Method::GET).await.unwrap().into_body();
    assert!(body.frame().await.unwrap().is_ok());
    assert!(body.frame().await.unwrap().is_err());
    assert!(!http_body::Body::is_end_stream(&body), "who asks now would take it for whole");
}

#[tokio::test]
async fn bytes_that_nobody_asked_for_make_a_connection_useless() {
    for wire in [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nx",
    ] {
        let outcome = got(wire).await;
        assert!(outcome.whole && !outcome.clean, "{wire}");
    }
}

#[tokio::test]
async fn whether_a_byte_was_seen_is_known() {
    let lost = answered(Method::GET, b"", 1).await.unwrap_err();
    assert_eq!((lost.failure, lost.seen), (Failure::Died, false));
    for wire in ["H", "HTTP/1.1 200 OK\r\nx: y\r\n", "HTTP/1.1 100 Continue\r\n\r\n"] {
        let lost = answered(Method::GET, wire.as_bytes(), usize::MAX).await.unwrap_err();
        assert_eq!((lost.failure, lost.seen), (Failure::Died, true), "{wire}");
    }
    let lost = answered(Method::GET, b"SSH-2.0-x\r\n", 99).await.unwrap_err();
    assert_eq!((lost.failure, lost.seen), (Failure::Malformed, true));
}

#[tokio::test]
async fn heads_and_interim_answers_have_limits() {
    let storm = "HTTP/1.1 102 Wait\r\n\r\n".repeat(17) + "HTTP/1.1 204 No\r\n\r\n";
    let lost = answered(Method::GET, storm.as_bytes(), 99).await.unwrap_err();
    assert_eq!(lost.failure, Failure::Malformed);
    let filler = "x".repeat(MAX_HEAD / 2);
    let long = format!("HTTP/1.1 103 Early\r\nx: {filler}\r\n\r\n").repeat(3);
    for wire in [long, format!("HTTP/1.1 200 OK\r\nx: {filler}{filler}\r\n\r\n")] {
        let lost = answered(Method::GET, wire.as_bytes(), usize::MAX).await.unwrap_err();
        assert_eq!(lost.failure, Failure::Malformed);
    }
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let (exchange, mut far) = pair();
    for turn in 0..3 {
        let request = async {
            let mut head = vec![0; 64];
            let read = far.read(&mut head).await.unwrap();
            assert_eq!(&head[..read], b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n");
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{turn}");
            far.write_all(answer.as_bytes()).await.unwrap();
        };
        let (answer, ()) = tokio::join!(send(&exchange, Method::GET), request);
        let mut body = answer.unwrap().into_body();
        let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(data, turn.to_string());
        assert!(
            http_body::Body::is_end_stream(&body),
            "nothing more is asked of a body that ended"
        );
        assert!(exchange.is_clean() && exchange.is_quiet());
    }
    far.write_all(b"x").await.unwrap();
    assert!(!exchange.is_quiet(), "a byte came unasked");
    let (exchange, far) = pair();
    drop(far);
    assert!(!exchange.is_quiet(), "the service has gone");
}

#[tokio::test]
async fn a_body_that_is_over_does_not_meddle_with_the_next_exchange() {
    let (exchange, mut far) = pair();
    let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1";
    far.write_all(ok).await.unwrap();
    let mut old = send(&exchange, Method::GET).await.unwrap().into_body();
    assert!(old.frame().await.unwrap().is_ok());
    far.write_all(ok).await.unwrap();
    let new = send(&exchange, Method::GET).await.unwrap().into_body();
    assert!(old.frame().await.is_none());
    assert!(http_body::Body::is_end_stream(&old));
    assert_eq!(http_body::Body::size_hint(&new).exact(), Some(1));
}

#[tokio::test]
async fn a_closed_exchange_wakes_nobody_for_nothing() {
    let (exchange, _far) = pair();
    exchange.close();
    assert!(!exchange.is_quiet() && !exchange.is_clean());
    let lost = tokio::time::timeout(Duration::from_secs(1), send(&exchange, Method::GET)).await;
    assert_eq!(lost.unwrap().err().map(|lost| lost.failure), Some(Failure::Died));
}
