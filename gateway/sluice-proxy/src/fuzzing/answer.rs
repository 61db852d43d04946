//! The same answer read by our client side of HTTP/1.1 and by hyper's. What looks whole to us must be
//! whole, and the same, to others; and the pieces it arrives in make no difference.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use crate::base::body::Upload;
use crate::base::hop;
use crate::base::http1::{Added, Exchange, Head, Stream};

/// Status, fields by name, body, and whether it ended well.
type Reading = (u16, Vec<(String, Vec<u8>)>, Vec<u8>, bool);

pub(super) fn check(data: &[u8]) {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().build().unwrap();
    }
    let (ours, pieces, theirs) = RUNTIME.with(|runtime| {
        runtime.block_on(async {
            (ours(data, usize::MAX).await, ours(data, 5).await, theirs(data).await)
        })
    });
    assert_eq!(ours, pieces, "in pieces");
    let Some(our) = ours else { return };
    let their = theirs.expect("only we accept it");
    assert_eq!((our.0, &our.1), (their.0, &their.1));
    let both = our.2.len().min(their.2.len());
    assert_eq!(our.2[..both], their.2[..both]);
    assert!(!our.3 || (their.3 && their.2 == our.2), "it only looks whole to us: {their:?}");
}

/// What both make of an answer; nothing where there was none.
#[cfg(test)]
pub(crate) async fn readings(wire: &[u8]) -> (Option<Reading>, Option<Reading>) {
    (ours(wire, usize::MAX).await, theirs(wire).await)
}

/// A request to which nothing is added.
struct Nothing;

impl Added for Nothing {
    fn each(&self, _: &mut dyn FnMut(&http::HeaderName, &http::HeaderValue)) {}
}

async fn ours(wire: &[u8], step: usize) -> Option<Reading> {
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
        () = serve(far, wire, step) => None,
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
        () = serve(far, wire, usize::MAX) => None,
        // The end of the connection may be noticed first; what was read is told all the same.
        _ = async { let _ = connection.await; std::future::pending::<()>().await } => None,
    }
}

/// Waits for the request, answers with `wire`, and closes.
async fn serve(mut far: DuplexStream, wire: &[u8], step: usize) {
    let mut request = [0; 256];
    assert!(far.read(&mut request).await.unwrap() > 0);
    for piece in wire.chunks(step) {
        // Whoever refuses an answer need not read the rest of it.
        if far.write_all(piece).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let _ = far.shutdown().await;
    std::future::pending().await
}

async fn read<B>(answer: http::Response<B>) -> Reading
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let (head, mut body) = answer.into_parts();
    let nominated = nominated(&head.headers);
    let mut fields: Vec<(String, Vec<u8>)> = head
        .headers
        .iter()
        // An overruled length, and what ends at this hop, is left in place by hyper.
        .filter(|(name, _)| *name != http::header::CONTENT_LENGTH)
        .filter(|(name, _)| hop::index(name.as_str()).is_none())
        .filter(|(name, _)| !nominated.iter().any(|one| one == name.as_str()))
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

/// Names in `Connection`, but those that no peer can nominate.
fn nominated(fields: &http::HeaderMap) -> Vec<String> {
    const KEPT: [&str; 5] = ["authorization", "content-type", "cookie", "via", "date"];
    let lines = fields.get_all(http::header::CONNECTION).iter();
    let options = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    options
        .map(|option| String::from_utf8_lossy(option.trim_ascii()).to_ascii_lowercase())
        .filter(|name| !KEPT.contains(&name.as_str()) && name != "host")
        .collect()
}
