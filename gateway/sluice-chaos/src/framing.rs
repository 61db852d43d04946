//! HTTP/1 messages as peers read them: heads, and bodies by length, by chunks or to the end
//! (RFC 9112 sections 2 to 7).
//!
//! Reading is forgiving, because a peer must be able to write down what a broken gateway sends; the
//! raw bytes are always kept beside the reading. The one rule: a body that was cut is handed out
//! with `complete` false, never as an error.

use std::io;

use crate::wire::Pipe;

/// A header or trailer field: the name in the case it came in, the value as Latin-1.
pub(crate) type Field = (String, String);

/// A start line and the fields after it.
pub(crate) struct RawHead {
    pub(crate) bytes: Vec<u8>,
    /// The three parts of the start line; missing ones are empty.
    pub(crate) start: [String; 3],
    pub(crate) fields: Vec<Field>,
}

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Empty,
    Length(u64),
    Chunked,
    ToTheEnd,
}

/// A body as it came and as it reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// The bytes on the wire, chunk heads and trailers included.
    pub raw: Vec<u8>,
    /// The content.
    pub data: Vec<u8>,
    /// Fields after the last chunk.
    pub trailers: Vec<(String, String)>,
    /// Whether the body ended as its head had announced.
    pub complete: bool,
}

/// Reads a head. `None`: the peer closed, whether or not a part had come.
pub(crate) async fn read_head(pipe: &mut Pipe) -> io::Result<Option<RawHead>> {
    Ok(pipe.through(b"\r\n\r\n").await?.map(parse_head))
}

fn parse_head(bytes: Vec<u8>) -> RawHead {
    let text = latin1(&bytes);
    let mut lines = text.trim_end_matches("\r\n").split("\r\n");
    let mut words = lines.next().unwrap_or_default().splitn(3, ' ').map(str::to_owned);
    let start = std::array::from_fn(|_| words.next().unwrap_or_default());
    RawHead { bytes, start, fields: lines.map(field).collect() }
}

/// The values of a field, by a name in any case.
pub(crate) fn values<'a>(fields: &'a [Field], name: &str) -> Vec<&'a str> {
    let same = |field: &&Field| field.0.eq_ignore_ascii_case(name);
    fields.iter().filter(same).map(|(_, value)| value.as_str()).collect()
}

/// Whether a field that lists words has this one.
pub(crate) fn lists(fields: &[Field], name: &str, word: &str) -> bool {
    let words = values(fields, name);
    words.iter().flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case(word))
}

/// How a request's body ends (RFC 9112 section 6.3).
pub(crate) fn of_request(fields: &[Field]) -> Framing {
    told(fields).unwrap_or(Framing::Empty)
}

/// How the body of a response to `method` ends (RFC 9112 section 6.3).
pub(crate) fn of_response(method: &str, status: u16, fields: &[Field]) -> Framing {
    let switched = method == "CONNECT" && (200..300).contains(&status);
    if method == "HEAD" || switched || status < 200 || status == 204 || status == 304 {
        return Framing::Empty;
    }
    told(fields).unwrap_or(Framing::ToTheEnd)
}

fn told(fields: &[Field]) -> Option<Framing> {
    if lists(fields, "transfer-encoding", "chunked") {
        return Some(Framing::Chunked);
    }
    let length = values(fields, "content-length").first().and_then(|text| text.parse().ok());
    length.map(Framing::Length)
}

/// Reads a body, as far as it comes, into `body`.
pub(crate) async fn read_body(pipe: &mut Pipe, framing: Framing, body: &mut Body) {
    body.complete = match framing {
        Framing::Empty => true,
        Framing::Length(length) => read_length(pipe, length, body).await,
        Framing::Chunked => read_chunks(pipe, body).await.is_some(),
        Framing::ToTheEnd => read_to_end(pipe, body).await,
    };
}

async fn read_length(pipe: &mut Pipe, length: u64, body: &mut Body) -> bool {
    let mut left = length;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        match pipe.some(most).await {
            Ok(piece) if !piece.is_empty() => {
                left -= piece.len() as u64;
                body.raw.extend_from_slice(&piece);
                body.data.extend_from_slice(&piece);
            }
            _ => return false,
        }
    }
    true
}

/// Reads chunks and trailers; `None` when they break off or make no sense.
async fn read_chunks(pipe: &mut Pipe, body: &mut Body) -> Option<()> {
    loop {
        let line = read_line(pipe, body).await?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).ok()?;
        if size == 0 {
            break;
        }
        if !read_length(pipe, size, body).await || !read_line(pipe, body).await?.is_empty() {
            return None;
        }
    }
    loop {
        let line = read_line(pipe, body).await?;
        if line.is_empty() {
            return Some(());
        }
        body.trailers.push(field(&line));
    }
}

async fn read_line(pipe: &mut Pipe, body: &mut Body) -> Option<String> {
    let line = pipe.through(b"\r\n").await.ok()??;
    body.raw.extend_from_slice(&line);
    Some(latin1(&line[..line.len() - 2]))
}

/// True when the peer closed properly; a reset, or TLS without its goodbye, is a cut.
async fn read_to_end(pipe: &mut Pipe, body: &mut Body) -> bool {
    loop {
        match pipe.some(usize::MAX).await {
            Ok(piece) if piece.is_empty() => return true,
            Ok(piece) => {
                body.raw.extend_from_slice(&piece);
                body.data.extend_from_slice(&piece);
            }
            Err(_) => return false,
        }
    }
}

/// Appends a body in chunks, with trailers after it.
pub(crate) fn write_chunks(out: &mut Vec<u8>, data: &[u8], trailers: &[Field]) {
    for chunk in data.chunks(CHUNK) {
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        out.extend_from_slice(&octets(&format!("{name}: {value}\r\n")));
    }
    out.extend_from_slice(b"\r\n");
}

const CHUNK: usize = 4096;

/// Bytes as text in which every byte is one character.
pub(crate) fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// Text as bytes, the reverse of [`latin1`]; a character beyond Latin-1 becomes UTF-8.
pub(crate) fn octets(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for letter in text.chars() {
        match u8::try_from(letter) {
            Ok(byte) => out.push(byte),
            Err(_) => out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out
}

fn field(line: &str) -> Field {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    (name.to_owned(), value.trim_matches([' ', '\t']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{serve::Server, wire};

    /// The given bytes, then a proper end, as a pipe sees them.
    async fn sent(bytes: &'static [u8]) -> (Server, Pipe) {
        let server = Server::start(None, None, move |accepted| async move {
            let mut pipe = Pipe::new(accepted.wire);
            pipe.send(bytes).await.unwrap();
            pipe.finish().await.unwrap();
            pipe.closed().await;
        });
        let pipe = Pipe::new(Box::new(wire::connect(server.addr()).await.unwrap()));
        (server, pipe)
    }

    async fn body_of(bytes: &'static [u8], framing: Framing) -> Body {
        let (_server, mut pipe) = sent(bytes).await;
        let mut body = Body::default();
        read_body(&mut pipe, framing, &mut body).await;
        body
    }

    #[tokio::test]
    async fn heads_keep_order_case_and_odd_bytes() {
        let (_server, mut pipe) =
            sent(b"GET /a b HTTP/1.1\r\nHost:x\r\nx-Y:\t\xe9 \r\nodd\r\n\r\n").await;
        let head = read_head(&mut pipe).await.unwrap().unwrap();
        assert_eq!(head.start, ["GET", "/a", "b HTTP/1.1"]);
        assert_eq!(values(&head.fields, "HOST"), ["x"]);
        assert_eq!(head.fields[1], ("x-Y".to_owned(), "\u{e9}".to_owned()));
        assert_eq!(head.fields[2], ("odd".to_owned(), String::new()));
        assert!(head.bytes.ends_with(b"odd\r\n\r\n"));
        assert!(read_head(&mut pipe).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn chunks_with_extensions_and_trailers() {
        let body = body_of(b"3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nX: 1\r\n\r\n", Framing::Chunked).await;
        assert_eq!(body.data, b"abcde");
        assert_eq!(body.trailers, [("X".to_owned(), "1".to_owned())]);
        assert!(body.complete && body.raw.starts_with(b"3;a=b"));
    }

    #[tokio::test]
    async fn cut_bodies_are_incomplete() {
        for (bytes, framing, data) in [
            (&b"abc"[..], Framing::Length(4), "abc"),
            (b"3\r\nabc\r\n", Framing::Chunked, "abc"),
            (b"3\r\nab", Framing::Chunked, "ab"),
            (b"0\r\n", Framing::Chunked, ""),
            (b"zz\r\n", Framing::Chunked, ""),
        ] {
            let body = body_of(bytes, framing).await;
            assert_eq!(
                (body.data.as_slice(), body.complete),
                (data.as_bytes(), false),
                "{framing:?}"
            );
        }
        assert!(body_of(b"abc", Framing::ToTheEnd).await.complete);
    }

    #[test]
    fn framing_follows_the_head() {
        let fields = |list: &[(&str, &str)]| -> Vec<Field> {
            list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
        };
        let length = fields(&[("Content-Length", "3")]);
        let both = fields(&[("Content-Length", "3"), ("Transfer-Encoding", "gzip, Chunked")]);
        assert_eq!(of_request(&[]), Framing::Empty);
        assert_eq!(of_request(&length), Framing::Length(3));
        assert_eq!(of_request(&both), Framing::Chunked);
        assert_eq!(of_response("GET", 200, &[]), Framing::ToTheEnd);
        assert_eq!(of_response("HEAD", 200, &length), Framing::Empty);
        assert_eq!(of_response("GET", 304, &length), Framing::Empty);
    }
}
