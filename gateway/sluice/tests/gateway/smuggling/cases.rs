//! Byte streams that parsers have read in different ways: framings, chunks, heads, and what follows.

/// `{H}` stands for the host, `{P}` for the beginning of a path that is the case's own.
#[derive(Clone)]
pub(super) struct Case {
    pub(super) number: usize,
    text: Vec<u8>,
}

impl Case {
    pub(super) fn bytes(&self, host: &str) -> Vec<u8> {
        let own = format!("/{}-", self.number);
        replaced(&replaced(&self.text, b"{H}", host.as_bytes()), b"{P}", own.as_bytes())
    }
}

fn replaced(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 64);
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with(from) {
            out.extend_from_slice(to);
            at += from.len();
        } else {
            out.push(text[at]);
            at += 1;
        }
    }
    out
}

/// Fields that tell, or seem to tell, where a body ends.
const FRAMINGS: [&str; 56] = [
    "",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: 05\r\n",
    "Content-Length:5\r\n",
    "Content-Length: \t5 \r\n",
    "content-LENGTH: 5\r\n",
    "Content-Length: +5\r\n",
    "Content-Length: -5\r\n",
    "Content-Length: 0x5\r\n",
    "Content-Length: 5.0\r\n",
    "Content-Length: 5 5\r\n",
    "Content-Length: 5, 5\r\n",
    "Content-Length: 5,6\r\n",
    "Content-Length: \r\n",
    "Content-Length: 18446744073709551621\r\n",
    "Content-Length: 5\r\nContent-Length: 5\r\n",
    "Content-Length: 5\r\nContent-Length: 0\r\n",
    "Content-Length: 0\r\nContent-Length: 5\r\n",
    "Content-Length : 5\r\n",
    " Content-Length: 5\r\n",
    "Content-Length\t: 5\r\n",
    "Content_Length: 5\r\n",
    "Content-Length: 5\u{b}\r\n",
    "Content-Length:\r\n 5\r\n",
    "X: y\r\n Content-Length: 5\r\n",
    "X: y\rContent-Length: 5\r\n",
    "X: y\nContent-Length: 5\r\n",
    "X: y\0Content-Length: 5\r\n",
    "Connection: Content-Length\r\nContent-Length: 5\r\n",
    "Expect: 100-continue\r\nContent-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "transfer-encoding:CHUNKED\r\n",
    "Transfer-Encoding: \tchunked \r\n",
    "Transfer-Encoding: chunked, chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding: chunked, identity\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding: xchunked\r\n",
    "Transfer-Encoding: chunkedx\r\n",
    "Transfer-Encoding: \"chunked\"\r\n",
    "Transfer-Encoding: chunked;q=1\r\n",
    "Transfer-Encoding: ,chunked\r\n",
    "Transfer-Encoding: \u{b}chunked\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Transfer-Encoding:\r\n chunked\r\n",
    "Transfer_Encoding: chunked\r\n",
    "X: y\r\n Transfer-Encoding: chunked\r\n",
    "X: y\rTransfer-Encoding: chunked\r\n",
    "X: y\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
    "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n",
    "TE: chunked\r\nContent-Encoding: chunked\r\n",
];

/// A request that must be nobody's but the gateway's to admit.
const HIDDEN: &str = "GET {P}hidden HTTP/1.1\r\nHost: {H}\r\nConnection: close\r\n\r\n";

/// What stands behind the head.
const BODIES: [&str; 3] = ["hello", "5\r\nhello\r\n0\r\n\r\n", "0\r\n\r\n"];

/// Chunked bodies that readers disagree about.
const CHUNKS: [&str; 34] = [
    "5\r\nhello\r\n0\r\n\r\n",
    "05\r\nhello\r\n000\r\n\r\n",
    "5;a=b\r\nhello\r\n0;c\r\n\r\n",
    "5 ;a\r\nhello\r\n0\r\n\r\n",
    "5\t\r\nhello\r\n0\r\n\r\n",
    "5;a=\"b\r\nhello\r\n0\r\n\r\n",
    "5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n",
    "5;a\nhello\r\n0\r\n\r\n",
    "5;a\rb\r\nhello\r\n0\r\n\r\n",
    "5\nhello\r\n0\r\n\r\n",
    "5\rhello\r\n0\r\n\r\n",
    "5\r\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\n0\r\n\r\n",
    "5\r\nhello0\r\n\r\n",
    "5\r\nhelloXX0\r\n\r\n",
    "4\r\nhello\r\n0\r\n\r\n",
    "6\r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "+5\r\nhello\r\n0\r\n\r\n",
    "-5\r\nhello\r\n0\r\n\r\n",
    " 5\r\nhello\r\n0\r\n\r\n",
    "5h\r\nhello\r\n0\r\n\r\n",
    "5_0\r\nhello\r\n0\r\n\r\n",
    "\r\n5\r\nhello\r\n0\r\n\r\n",
    "10000000000000005\r\nhello\r\n0\r\n\r\n",
    "ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\r\n",
    "5\r\nhello\r\n0\n\n",
    "5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    "5\r\nhello\r\n0\r\nContent-Length: 50\r\n\r\n",
    "5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "5\r\nhello\r\n0\r\nX : y\r\n\r\n",
    "5\r\nhello\r\n0\r\n X: y\r\n\r\n",
    "5\r\nhello\r\n0\r\nGET {P}trailer HTTP/1.1\r\n\r\n",
];

/// Whole heads that are odd in other ways.
const HEADS: [&str; 26] = [
    "\r\nGET {P}x HTTP/1.1\r\nHost: {H}\r\n\r\n",
    "\n\n\nGET {P}x HTTP/1.1\nHost: {H}\n\n",
    " GET {P}x HTTP/1.1\r\nHost: {H}\r\n\r\n",
    "GET  {P}x HTTP/1.1\r\nHost: {H}\r\n\r\n",
    "GET {P}x  HTTP/1.1\r\nHost: {H}\r\n\r\n",
    "GET\t{P}x\tHTTP/1.1\r\nHost: {H}\r\n\r\n",
    "GET {P}x y HTTP/1.1\r\nHost: {H}\r\n\r\n",
    "GET {P}x\r\n\r\n",
    "GET {P}x HTTP/0.9\r\n\r\n",
    "GET {P}x HTTP/1.0\r\nHost: {H}\r\n\r\n",
    "GET {P}x HTTP/1.0\r\nHost: {H}\r\nConnection: keep-alive\r\n\r\n",
    "GET {P}x HTTP/1.2\r\nHost: {H}\r\n\r\n",
    "GET {P}x HTTP/2.0\r\nHost: {H}\r\n\r\n",
    "GET {P}x http/1.1\r\nHost: {H}\r\n\r\n",
    "GET {P}x HTTP/1.1\r\nHost: {H}\r\nHost: {H}\r\n\r\n",
    "GET http://{H}{P}x HTTP/1.1\r\nHost: {H}\r\n\r\n",
    "GET {P}x HTTP/1.1\r\nHost: {H}\r\nX: y\r\n z\r\n\r\n",
    "GET {P}x HTTP/1.1\r\nHost: {H}\r\nno colon\r\n\r\n",
    "GET {P}x HTTP/1.1\r\nHost: {H}\r\n: nameless\r\n\r\n",
    "GET {P}x HTTP/1.1\r\nHost: {H}\r\nX: a\r\rb\r\n\r\n",
    "HEAD {P}x HTTP/1.1\r\nHost: {H}\r\n\r\n",
    "OPTIONS {P}x HTTP/1.1\r\nHost: {H}\r\n\r\n",
    "CONNECT {H}:80 HTTP/1.1\r\nHost: {H}\r\n\r\n",
    "GET {P}x HTTP/1.1\r\nHost: {H}\r\nConnection: close\r\n\r\n",
    "GET {P}x HTTP/1.1\r\nHost: {H}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
    "GET {P}x%0d%0aX:%20y?a=%0d%0a HTTP/1.1\r\nHost: {H}\r\n\r\n",
];

/// All combinations that are worth having by themselves.
pub(super) fn table() -> Vec<Case> {
    let mut texts: Vec<String> = Vec::new();
    for framing in FRAMINGS {
        for body in BODIES {
            texts.push(format!(
                "POST {{P}}x HTTP/1.1\r\nHost: {{H}}\r\n{framing}\r\n{body}{HIDDEN}"
            ));
        }
    }
    for chunks in CHUNKS {
        texts.push(format!(
            "POST {{P}}x HTTP/1.1\r\nHost: {{H}}\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}{HIDDEN}"
        ));
    }
    for head in HEADS {
        texts.push(format!("{head}{HIDDEN}"));
    }
    for method in ["GET", "HEAD", "DELETE", "OPTIONS"] {
        for framing in ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
            texts.push(format!(
                "{method} {{P}}x HTTP/1.1\r\nHost: {{H}}\r\n{framing}\r\n5\r\nhello\r\n0\r\n\r\n{HIDDEN}"
            ));
        }
    }
    let numbered = texts.into_iter().enumerate();
    numbered.map(|(number, text)| Case { number, text: text.into_bytes() }).collect()
}

/// Adds cases that are put together by chance, always the same ones, some with a byte changed.
pub(super) fn generated(cases: &mut Vec<Case>, count: usize) {
    let mut state = 1_u64;
    let mut below = |limit: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % limit
    };
    for _ in 0..count {
        let mut text = Vec::new();
        for nth in 0..=below(3) {
            let method = ["GET", "POST", "PUT", "HEAD", "DELETE"][below(5)];
            text.extend(format!("{method} {{P}}{nth} HTTP/1.1\r\nHost: {{H}}\r\n").bytes());
            for _ in 0..below(3) {
                text.extend(FRAMINGS[below(FRAMINGS.len())].bytes());
            }
            text.extend(b"\r\n");
            match below(4) {
                0 => {}
                1 => text.extend(BODIES[below(BODIES.len())].bytes()),
                _ => text.extend(CHUNKS[below(CHUNKS.len())].bytes()),
            }
        }
        text.extend(HIDDEN.bytes());
        for _ in 0..below(3) {
            let at = below(text.len());
            // The marks stay whole: a case is told by them.
            if !text[at.saturating_sub(3)..].starts_with(b"{") && !b"{}HP".contains(&text[at]) {
                text[at] = [b'\r', b'\n', b' ', b'\t', b'0', b'5', b':', b',', 0, 0xff][below(10)];
            }
        }
        cases.push(Case { number: cases.len(), text });
    }
}
