//! The same bytes read by this codec and by hyper's client. What we accept, hyper must read alike;
//! what hyper accepts and we do not must be one of the strictnesses listed here.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

/// Status, fields in order of arrival by name, body, trailers, and whether it ended well.
type Reading = (u16, Vec<(String, Vec<u8>)>, Vec<u8>, bool);

async fn read<B>(answer: http::Response<B>) -> Reading
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let (head, mut body) = answer.into_parts();
    let mut fields: Vec<(String, Vec<u8>)> = head
        .headers
        .iter()
        // An overruled length, and what ends at this hop, is left in place by hyper.
        .filter(|(name, _)| *name != http::header::CONTENT_LENGTH && *name != "x")
        .filter(|(name, _)| crate::base::hop::index(name.as_str()).is_none())
        .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
        .collect();
    fields.sort();
    let mut data = Vec::new();
    let whole = loop {
        match body.frame().await {
            None => break true,
            Some(Err(_)) => break false,
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data() {
                    data.extend_from_slice(&bytes);
                }
            }
        }
    };
    (head.status.as_u16(), fields, data, whole)
}

/// Waits for the request, answers with `wire`, and closes.
async fn serve(mut far: DuplexStream, wire: &[u8]) {
    let mut request = [0; 256];
    assert!(far.read(&mut request).await.unwrap() > 0);
    far.write_all(wire).await.unwrap();
    far.shutdown().await.unwrap();
    std::future::pending().await
}

async fn ours(wire: &[u8]) -> Option<Reading> {
    let (near, far) = duplex(256 * 1024);
    let exchange = Exchange::new(Stream::Memory(near));
    let (target, fields) = (http::Uri::from_static("/"), http::HeaderMap::new());
    let host = http::HeaderValue::from_static("a");
    let head = Head {
        method: &http::Method::GET,
        target: &target,
        host: &host,
        fields: &fields,
        added: &Nothing,
        trailers: true,
        websocket: false,
    };
    let asking = async {
        exchange.begin(head, Upload::empty());
        let answer = exchange.answer().await.ok()?;
        Some(read(answer).await)
    };
    tokio::select! {
        reading = asking => reading,
        () = serve(far, wire) => None,
    }
}

async fn theirs(wire: &[u8]) -> Option<Reading> {
    let (near, far) = duplex(256 * 1024);
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(64 * 1024)
        .handshake::<_, Empty<Bytes>>(TokioIo::new(near))
        .await
        .ok()?;
    let asking = async {
        let request = http::Request::get("/").header("host", "a").body(Empty::new()).unwrap();
        let answer = sender.send_request(request).await.ok()?;
        Some(read(answer).await)
    };
    tokio::select! {
        reading = asking => reading,
        () = serve(far, wire) => None,
        // The end of the connection may be noticed first; what was read is told all the same.
        _ = async { let _ = connection.await; std::future::pending::<()>().await } => None,
    }
}

/// Lines from which heads are made: sound ones, odd ones, and wrong ones.
const LINES: [&str; 22] = [
    "content-length: 5",
    "Content-Length: 5",
    "content-length: 3",
    "content-length: 0",
    "content-length: +5",
    "content-length: 5, 5",
    "content-length:",
    "transfer-encoding: chunked",
    "Transfer-Encoding:  CHUNKED ",
    "transfer-encoding: gzip, chunked",
    "transfer-encoding: gzip",
    "connection: close",
    "connection: keep-alive, x",
    "x: y",
    "x:y",
    "x : y",
    " folded",
    "no colon",
    ": nameless",
    "x: \u{1}",
    "x: a\rb",
    "set-cookie: a=b",
];
const STATUS: [&str; 12] = [
    "HTTP/1.1 200 OK",
    "HTTP/1.1 200",
    "HTTP/1.0 200 OK",
    "HTTP/1.1 204 No Content",
    "HTTP/1.1 304 Not Modified",
    "HTTP/1.1 100 Continue",
    "HTTP/1.1 103 Early Hints",
    "HTTP/1.1 099 Low",
    "HTTP/1.1 999 High",
    "HTTP/2.0 200 OK",
    "HTTP/1.1  200 OK",
    "http/1.1 200 OK",
];
const BODIES: [&str; 12] = [
    "",
    "hello",
    "hel",
    "hello and more",
    "5\r\nhello\r\n0\r\n\r\n",
    "5;x=y\r\nhello\r\n0\r\nt: u\r\n\r\n",
    "5\r\nhello\r\n",
    "5\nhello\n0\n\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    "0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    "fffffffffffffffff\r\n",
    "5\r\nhelloX\r\n0\r\n\r\n",
];

fn message() -> impl Strategy<Value = Vec<u8>> {
    let head = (
        prop::sample::select(&STATUS[..]),
        prop::collection::vec(prop::sample::select(&LINES[..]), 0..4),
    );
    let heads = prop::collection::vec(head, 1..3);
    let ends = prop::sample::select(&["\r\n", "\r\n", "\r\n", "\n"][..]);
    (heads, prop::sample::select(&BODIES[..]), ends).prop_map(|(heads, body, end)| {
        let mut wire = String::new();
        for (status, lines) in heads {
            for line in std::iter::once(status).chain(lines).chain([""]) {
                wire.push_str(line);
                wire.push_str(end);
            }
        }
        wire.push_str(body);
        wire.into_bytes()
    })
}

/// A message, or one with a byte changed, or cut short.
fn wire() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => message(),
        1 => (message(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut wire, at, byte)| {
            let at = at.index(wire.len());
            wire[at] = byte;
            wire
        }),
        1 => (message(), any::<prop::sample::Index>()).prop_map(|(mut wire, at)| {
            wire.truncate(at.index(wire.len()));
            wire
        }),
    ]
}

/// Whether the bytes hold something that we refuse on purpose and hyper does not: a coding other than
/// one `chunked`, a length that is not one plain number, or control bytes within chunk framing.
fn is_strictness(wire: &[u8]) -> bool {
    let text = String::from_utf8_lossy(wire).to_ascii_lowercase();
    let values = |name: &str| {
        text.lines()
            .filter_map(|line| line.strip_prefix(name))
            .map(|value| value.trim().to_owned())
            .collect::<Vec<_>>()
    };
    let codings = values("transfer-encoding:");
    let lengths = values("content-length:");
    codings.len() > 1
        || codings.iter().any(|coding| coding != "chunked")
        || lengths.iter().any(|length| length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()))
        || lengths.windows(2).any(|pair| pair[0] != pair[1])
        // hyper reads on over any number of interim answers, and over what is not text.
        || wire.iter().any(|byte| !matches!(byte, b'\r' | b'\n' | b' '..=b'~'))
}

fn compare(wire: &[u8]) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (our, their) = runtime.block_on(async { (ours(wire).await, theirs(wire).await) });
    match (our, their) {
        (Some(our), Some(their)) => {
            let (short, long) = (our.2.len().min(their.2.len()), our.2.len());
            prop_assert_eq!((our.0, &our.1), (their.0, &their.1));
            prop_assert_eq!(&our.2[..short], &their.2[..short]);
            prop_assert!(
                !our.3 || (their.3 && their.2.len() == long),
                "ours looks whole: {:?}",
                their
            );
            prop_assert!(our.3 || !their.3 || is_strictness(wire), "theirs only looks whole");
        }
        (Some(our), None) => prop_assert!(false, "only we accept it: {:?}", our),
        (None, Some(their)) => {
            prop_assert!(is_strictness(wire), "only hyper accepts it: {:?}", their)
        }
        (None, None) => {}
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]
    #[test]
    fn we_read_what_hyper_reads_or_less(wire in wire()) {
        compare(&wire)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400_000))]
    #[test]
    #[ignore = "second tier: takes minutes"]
    fn long_we_read_what_hyper_reads_or_less(wire in wire()) {
        compare(&wire)?;
    }
}
