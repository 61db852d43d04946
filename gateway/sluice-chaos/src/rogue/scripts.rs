//! Ready scripts: one for each usual misdeed of an upstream, and [`ok`] for contrast.
//!
//! Unless it says otherwise, a script reads each request whole and serves any number of them on a
//! connection. The one rule: a script does exactly one thing wrong, so that a test knows what the
//! gateway answered to.

use std::{future::Future, pin::Pin, time::Duration};

use super::Conversation;

/// What a script does with one connection.
pub type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A script in a box, to be started by [`super::Rogue::start`] or called from another script.
pub type Script = Box<dyn Fn(Conversation) -> Running + Send + Sync>;

/// In which way a `Content-Length` lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// The body is shorter than declared, and the connection ends after it.
    Short,
    /// The body is longer than declared; what follows looks like nothing.
    Long,
}

/// Time for the gateway to read what was sent before a reset overtakes it.
const LEAD: Duration = Duration::from_millis(30);

/// Boxes a script.
pub fn script<F, Fut>(script: F) -> Script
where
    F: Fn(Conversation) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    Box::new(move |talk| Box::pin(script(talk)))
}

/// The first script for the first connection and so on; the last one for all that follow.
pub fn by_connection(scripts: Vec<Script>) -> Script {
    assert!(!scripts.is_empty(), "a rogue needs a script");
    Box::new(move |talk| {
        let nth = usize::try_from(talk.number()).unwrap_or(usize::MAX);
        scripts[nth.min(scripts.len()) - 1](talk)
    })
}

/// Answers every request with exactly these bytes.
pub fn answer(bytes: impl Into<Vec<u8>>) -> Script {
    answers(bytes, |_| false)
}

/// Answers every request with 200 and this body.
pub fn ok(body: impl AsRef<[u8]>) -> Script {
    answer(two_hundred(body.as_ref()))
}

/// Answers so many requests on each connection properly, then closes without having announced it.
pub fn close_after(requests: u64) -> Script {
    answers(two_hundred(b"ok"), move |answered| answered >= requests)
}

/// Accepts and never reads or answers.
pub fn black_hole() -> Script {
    script(Conversation::hang)
}

/// Reads a head and closes.
pub fn close_after_head() -> Script {
    script(|mut talk| async move {
        talk.next_head().await;
        talk.close().await;
    })
}

/// Reads a head and resets.
pub fn reset_after_head() -> Script {
    script(|mut talk| async move {
        talk.next_head().await;
        talk.reset();
    })
}

/// Sends half of what the head declares and resets.
pub fn reset_mid_body() -> Script {
    script(|mut talk| async move {
        if request(&mut talk).await {
            talk.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").await;
            talk.send([b'x'; 500]).await;
            talk.pause(LEAD).await;
            talk.reset();
        }
    })
}

/// Declares 100 bytes and sends 50, or declares 5 and sends 10.
pub fn lying_length(lie: Lie) -> Script {
    let (declared, sent) = if lie == Lie::Short { (100, 50) } else { (5, 10) };
    let mut bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {declared}\r\n\r\n").into_bytes();
    bytes.resize(bytes.len() + sent, b'x');
    answers(bytes, move |answered| lie == Lie::Short && answered > 0)
}

/// Sends `Content-Length` together with `Transfer-Encoding`; the body `chunked` is chunked.
pub fn cl_and_te() -> Script {
    answer(
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
         7\r\nchunked\r\n0\r\n\r\n",
    )
}

/// Answers as HTTP/1.0 that wishes to keep the connection.
pub fn http10_keepalive() -> Script {
    answer("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok")
}

/// Switches protocols though nobody asked, and talks on in another one.
pub fn unasked_101() -> Script {
    answer(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\
         \u{1}gibberish",
    )
}

/// Sends so many 103 responses before the 200.
pub fn interim_storm(interims: usize) -> Script {
    let mut bytes = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(interims).into_bytes();
    bytes.extend(two_hundred(b"ok"));
    answer(bytes)
}

/// Answers with so many fields beside the length.
pub fn many_headers(fields: usize) -> Script {
    let mut head = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n".to_owned();
    (0..fields).for_each(|n| head.push_str(&format!("X-Field-{n}: {n}\r\n")));
    answer(head + "\r\nok")
}

/// Sends the head byte by byte.
pub fn slow_head(each: Duration) -> Script {
    script(move |mut talk| async move {
        while request(&mut talk).await && talk.drip(two_hundred(b"ok"), each).await {}
    })
}

/// Sends the head at once and a body of 100 bytes one by one.
pub fn slow_body(each: Duration) -> Script {
    script(move |mut talk| async move {
        while request(&mut talk).await {
            talk.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n").await;
            if !talk.drip([b'x'; 100], each).await {
                break;
            }
        }
    })
}

/// Answers 413 to a head, takes no body into account and closes politely: what the gateway still
/// sends is read until it stops.
pub fn early_answer_413() -> Script {
    script(|mut talk| async move {
        if talk.next_head().await.is_some() {
            talk.send(
                "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 9\r\n\r\n\
                 too large",
            )
            .await;
            talk.drain().await;
        }
    })
}

/// Sends, in one piece with its answer, a second answer that nobody asked for (`poisoned`).
pub fn extra_bytes_after_body() -> Script {
    answer([two_hundred(b"ok"), two_hundred(b"poisoned")].concat())
}

/// Answers properly and sends the bytes a little later, while the connection is idle.
pub fn unsolicited(bytes: impl Into<Vec<u8>>) -> Script {
    let bytes = bytes.into();
    script(move |mut talk| {
        let bytes = bytes.clone();
        async move {
            while request(&mut talk).await {
                talk.send(two_hundred(b"ok")).await;
                talk.pause(LEAD).await;
                talk.send(&bytes).await;
            }
        }
    })
}

/// Answers the first request of each connection, and resets when a second one arrives, before any
/// byte of an answer.
pub fn reset_on_reuse() -> Script {
    script(|mut talk| async move {
        if request(&mut talk).await {
            talk.send(two_hundred(b"ok")).await;
            if talk.next_head().await.is_some() {
                talk.reset();
            }
        }
    })
}

/// Answers each request with these bytes until `enough` of them are answered, then closes.
fn answers(
    bytes: impl Into<Vec<u8>>,
    enough: impl Fn(u64) -> bool + Clone + Send + Sync + 'static,
) -> Script {
    let bytes = bytes.into();
    script(move |mut talk| {
        let (bytes, enough) = (bytes.clone(), enough.clone());
        async move {
            let mut answered = 0;
            while !enough(answered) && request(&mut talk).await && talk.send(&bytes).await {
                answered += 1;
            }
            talk.close().await;
        }
    })
}

/// Reads a whole request; false when there is none.
async fn request(talk: &mut Conversation) -> bool {
    match talk.next_head().await {
        Some(head) => talk.read_body_raw(&head).await.complete,
        None => false,
    }
}

fn two_hundred(body: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        raw::{self, Client, Response},
        rogue::Rogue,
    };

    async fn of(script: Script) -> (Rogue, Client) {
        let rogue = Rogue::start(script);
        let client = Client::connect(rogue.addr()).await;
        (rogue, client)
    }

    async fn get(client: &mut Client) -> Response {
        client.request("GET", "/", "h", &[], b"").await
    }

    async fn gets_nothing(script: Script) -> bool {
        let (_rogue, mut client) = of(script).await;
        client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        client.try_response_to("GET").await.is_none()
    }

    #[tokio::test]
    async fn honest_until_reuse() {
        let (_rogue, mut client) = of(ok("fine")).await;
        assert_eq!(client.request("POST", "/", "h", &[], b"body").await.text(), "fine");
        assert_eq!(get(&mut client).await.text(), "fine");

        let (_rogue, mut client) = of(close_after(2)).await;
        for _ in 0..2 {
            let response = get(&mut client).await;
            assert!(response.complete && response.header("connection").is_none());
        }
        assert!(client.closed_by_peer().await);

        let (_rogue, mut client) = of(reset_on_reuse()).await;
        assert_eq!(get(&mut client).await.status, 200);
        client.send("GET / HTTP/1.1\r\n\r\n").await;
        assert!(client.try_response_to("GET").await.is_none());
    }

    #[tokio::test]
    async fn leaving_too_early() {
        assert!(gets_nothing(reset_after_head()).await);
        assert!(gets_nothing(close_after_head()).await);
        let (_rogue, mut client) = of(reset_mid_body()).await;
        let response = get(&mut client).await;
        assert_eq!((response.body.len(), response.complete), (500, false));

        let (rogue, mut client) = of(black_hole()).await;
        client.send("GET / HTTP/1.1\r\n\r\n").await;
        assert!(!client.closed_by_peer_within(Duration::from_millis(50)).await);
        assert_eq!(rogue.heads().len(), 0);
    }

    #[tokio::test]
    async fn lies_about_length() {
        let (_rogue, mut client) = of(lying_length(Lie::Short)).await;
        let response = get(&mut client).await;
        assert_eq!((response.body.len(), response.complete, response.closed), (50, false, true));
        let (_rogue, mut client) = of(lying_length(Lie::Long)).await;
        assert_eq!(get(&mut client).await.text(), "xxxxx");
        assert_eq!(client.read_some().await, b"xxxxx");
        let (_rogue, mut client) = of(extra_bytes_after_body()).await;
        assert_eq!(get(&mut client).await.text(), "ok");
        assert_eq!(client.response().await.text(), "poisoned");
        let (_rogue, mut client) = of(unsolicited("!")).await;
        assert_eq!(get(&mut client).await.text(), "ok");
        assert_eq!(client.read_some().await, b"!");
    }

    #[tokio::test]
    async fn odd_heads() {
        let (_rogue, mut client) = of(cl_and_te()).await;
        let response = get(&mut client).await;
        assert_eq!(
            (response.header("content-length"), response.text().as_str()),
            (Some("4"), "chunked")
        );
        let (_rogue, mut client) = of(http10_keepalive()).await;
        assert_eq!(get(&mut client).await.version, "HTTP/1.0");
        assert_eq!(get(&mut client).await.status, 200);
        let (_rogue, mut client) = of(unasked_101()).await;
        assert_eq!(get(&mut client).await.status, 101);
        assert_eq!(client.read_some().await, b"\x01gibberish");
        let (_rogue, mut client) = of(interim_storm(40)).await;
        assert_eq!(get(&mut client).await.interims, [103; 40]);
        let (_rogue, mut client) = of(many_headers(150)).await;
        assert_eq!(get(&mut client).await.headers.len(), 151);
    }

    #[tokio::test]
    async fn slowness_and_early_answers() {
        let each = Duration::from_millis(1);
        let (_rogue, mut client) = of(slow_head(each)).await;
        assert_eq!(get(&mut client).await.text(), "ok");
        let (_rogue, mut client) = of(slow_body(each)).await;
        let start = std::time::Instant::now();
        assert_eq!(get(&mut client).await.body.len(), 100);
        assert!(start.elapsed() >= each * 99);

        let (_rogue, mut client) = of(early_answer_413()).await;
        client.send("POST / HTTP/1.1\r\nContent-Length: 9000000\r\n\r\n").await;
        client.send(vec![0; 100_000]).await;
        let response = client.response().await;
        assert_eq!((response.status, response.closed), (413, true));
        client.send(vec![0; 100_000]).await;
    }

    #[tokio::test]
    async fn a_script_for_each_connection() {
        let rogue = Rogue::start(by_connection(vec![ok("first"), reset_after_head(), ok("later")]));
        assert_eq!(raw::get(rogue.addr(), "h", "/").await.text(), "first");
        let mut client = Client::connect(rogue.addr()).await;
        client.send("GET / HTTP/1.1\r\n\r\n").await;
        assert!(client.try_response_to("GET").await.is_none());
        for _ in 0..2 {
            assert_eq!(raw::get(rogue.addr(), "h", "/").await.text(), "later");
        }
    }
}
