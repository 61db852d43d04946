//! A request as bytes: its head, and the framing of its body.

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{Method, Uri};
use sluice_engine::http1::content_length;

/// Fields that are written straight from what they are made of: a map's insertions would cost more.
pub(crate) trait Added {
    /// Calls `say` with each.
    fn each(&self, say: &mut dyn FnMut(&HeaderName, &HeaderValue));
}

/// What a request's head is written from.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    pub(crate) method: &'a Method,
    /// Only path and query are used.
    pub(crate) target: &'a Uri,
    pub(crate) host: &'a HeaderValue,
    /// The client's fields. Those that frame the message or speak about the connection are passed
    /// over: they are written from what is known here.
    pub(crate) fields: &'a HeaderMap,
    /// Fields of the gateway itself, written after the client's.
    pub(crate) added: &'a dyn Added,
    /// Whether trailers are welcome.
    pub(crate) trailers: bool,
    /// Whether the service is asked to switch to WebSocket.
    pub(crate) websocket: bool,
}

/// How a request's body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    None,
    /// Bytes that are still to come.
    Length(u64),
    Chunked,
}

impl Framing {
    /// The framing of a body that is there: the client's length if it named one.
    pub(super) fn of(fields: &HeaderMap) -> Self {
        let mut lengths = fields.get_all(CONTENT_LENGTH).iter();
        let length = lengths.next().and_then(|value| content_length(value.as_bytes()));
        match (length, lengths.next()) {
            (Some(length), None) => Self::Length(length),
            _ => Self::Chunked,
        }
    }
}

impl Head<'_> {
    /// Writes the head, up to and with the empty line.
    pub(super) fn write(&self, framing: Framing, out: &mut Vec<u8>) {
        out.extend_from_slice(self.method.as_str().as_bytes());
        out.push(b' ');
        let target = self.target.path_and_query().map_or("/", |target| target.as_str());
        out.extend_from_slice(target.as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\n");
        field(out, &HOST, self.host);
        for (name, value) in self.fields {
            if !is_ours(name) {
                field(out, name, value);
            }
        }
        self.added.each(&mut |name, value| field(out, name, value));
        if self.websocket {
            out.extend_from_slice(b"connection: upgrade\r\nupgrade: websocket\r\n");
        } else if self.trailers {
            // RFC 9110 section 10.1.4: the wish ends at the next hop and has to say so.
            out.extend_from_slice(b"te: trailers\r\nconnection: te\r\n");
        }
        self.frame(framing, out);
        out.extend_from_slice(b"\r\n");
    }

    fn frame(&self, framing: Framing, out: &mut Vec<u8>) {
        match framing {
            Framing::Length(length) => {
                out.extend_from_slice(b"content-length: ");
                out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
            // RFC 9110 section 8.6: a method that usually has a body says that it has none.
            Framing::None if self.expects_body() => {
                out.extend_from_slice(b"content-length: 0\r\n");
            }
            Framing::None => {}
        }
    }

    fn expects_body(&self) -> bool {
        matches!(*self.method, Method::POST | Method::PUT | Method::PATCH)
            || self.fields.contains_key(CONTENT_LENGTH)
    }
}

/// Fields that are never copied from the client.
fn is_ours(name: &HeaderName) -> bool {
    [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, TE, UPGRADE].contains(name)
}

fn field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes the line before a chunk.
pub(super) fn chunk_size(out: &mut Vec<u8>, data: &Bytes) {
    use std::io::Write as _;
    // Writing to memory does not fail.
    let _ = write!(out, "{:x}\r\n", data.len());
}

/// Writes the last chunk, and trailers if there are any.
pub(super) fn last_chunk(out: &mut Vec<u8>, trailers: &HeaderMap) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        field(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Via;

    impl Added for Via {
        fn each(&self, say: &mut dyn FnMut(&HeaderName, &HeaderValue)) {
            say(&http::header::VIA, &HeaderValue::from_static("1.1 s"));
        }
    }

    fn write(method: &Method, fields: &[(&'static str, &'static str)], framing: Framing) -> String {
        let fields: HeaderMap = fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let head = Head {
            method,
            target: &Uri::from_static("http://a.test/x?y=1"),
            host: &HeaderValue::from_static("b.test"),
            fields: &fields,
            added: &Via,
            trailers: false,
            websocket: false,
        };
        let mut out = Vec::new();
        head.write(framing, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_head_is_written_from_its_parts() {
        let head = write(&Method::GET, &[("accept", "*/*"), ("host", "a.test")], Framing::None);
        assert_eq!(
            head,
            "GET /x?y=1 HTTP/1.1\r\nhost: b.test\r\naccept: */*\r\nvia: 1.1 s\r\n\r\n"
        );
    }

    #[test]
    fn framing_is_never_copied_from_the_client() {
        let lies = [
            ("content-length", "5"),
            ("transfer-encoding", "gzip"),
            ("connection", "close"),
            ("te", "x"),
            ("upgrade", "h2c"),
        ];
        let start = "POST /x?y=1 HTTP/1.1\r\nhost: b.test\r\nvia: 1.1 s\r\n";
        for (framing, line) in [
            (Framing::Chunked, "transfer-encoding: chunked"),
            (Framing::Length(7), "content-length: 7"),
            (Framing::None, "content-length: 0"),
        ] {
            assert_eq!(write(&Method::POST, &lies, framing), format!("{start}{line}\r\n\r\n"));
        }
        assert!(!write(&Method::DELETE, &[], Framing::None).contains("content-length"));
    }

    #[test]
    fn a_length_is_believed_only_when_it_is_one_number() {
        let mut fields = HeaderMap::new();
        assert_eq!(Framing::of(&fields), Framing::Chunked);
        fields.append(CONTENT_LENGTH, HeaderValue::from_static("12"));
        assert_eq!(Framing::of(&fields), Framing::Length(12));
        fields.append(CONTENT_LENGTH, HeaderValue::from_static("12"));
        assert_eq!(Framing::of(&fields), Framing::Chunked);
    }
}
