//! The head of an answer: read, judged, and its body's framing decided (RFC 9112 section 6.3).

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, TRANSFER_ENCODING};
use http::{HeaderValue, Response, StatusCode, Version};
use sluice_engine::http1::chunked::Chunked;
use sluice_engine::http1::content_length;

use crate::base::hop;

/// Fields of an answer.
const MAX_FIELDS: usize = 100;
/// Fields that may yet be added to an answer before its map has to grow.
const ROOM: usize = 8;
/// Fields of a trailer section.
const MAX_TRAILERS: usize = 64;

/// A head that was read to its end, without the fields that end at this hop.
pub(super) struct Answer {
    pub(super) head: http::response::Parts,
    pub(super) body: Framing,
    /// Whether another request may follow on the connection once the body was read.
    pub(super) keep: bool,
    /// How long the service says that it keeps idle connections.
    pub(super) idle: Option<Duration>,
    /// Bytes of the head.
    pub(super) len: usize,
}

/// What is still to come of an answer's body.
#[derive(Clone, Debug)]
pub(super) enum Framing {
    /// Nothing.
    Done,
    /// So many bytes.
    Length(u64),
    Chunked(Chunked),
    /// All until the connection ends.
    UntilClose,
}

/// The answer breaks the grammar, or could be read in two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// What the fields say about framing.
#[derive(Default)]
struct Facts {
    length: Option<u64>,
    chunked: bool,
    options: hop::Options,
    idle: Option<Duration>,
}

impl Answer {
    /// Reads a head from the start of `bytes`; `None` if it is not complete yet. The answer to a HEAD
    /// request has no body whatever it says.
    pub(super) fn parse(bytes: &Bytes, to_head: bool) -> Result<Option<Self>, Malformed> {
        let mut slots = [const { std::mem::MaybeUninit::uninit() }; MAX_FIELDS];
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let status = config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut slots);
        let len = match status {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(Malformed),
        };
        let code = parsed.code.ok_or(Malformed)?;
        let old = parsed.version == Some(0);
        let (fields, facts) = read_fields(bytes, parsed.headers)?;
        let mut head = Response::new(()).into_parts().0;
        head.status = StatusCode::from_u16(code).map_err(|_| Malformed)?;
        head.version = if old { Version::HTTP_10 } else { Version::HTTP_11 };
        head.headers = fields;
        let body = framing(head.status, to_head, old, &facts)?;
        facts.options.nominated.iter().for_each(|name| drop(head.headers.remove(name)));
        if facts.chunked {
            // The coding overrules the length, which passed on would cut the answer short.
            head.headers.remove(CONTENT_LENGTH);
        }
        // Somebody on the way may have believed an overruled length: nothing after it can be trusted.
        let framed_twice = facts.chunked && facts.length.is_some();
        let delimited = !matches!(body, Framing::UntilClose);
        let keep = !old
            && !facts.options.close
            && !framed_twice
            && delimited
            && head.status != StatusCode::SWITCHING_PROTOCOLS;
        Ok(Some(Self { head, body, keep, idle: facts.idle, len }))
    }
}

fn read_fields(
    bytes: &Bytes,
    parsed: &[httparse::Header<'_>],
) -> Result<(HeaderMap, Facts), Malformed> {
    let mut fields = HeaderMap::with_capacity(parsed.len() + ROOM);
    let mut facts = Facts::default();
    for field in parsed {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed)?;
        if name == CONTENT_LENGTH {
            let length = content_length(field.value).ok_or(Malformed)?;
            match facts.length {
                Some(known) if known != length => return Err(Malformed),
                Some(_) => continue,
                None => facts.length = Some(length),
            }
        } else if hop::index(name.as_str()).is_some() {
            facts.note(&name, field.value)?;
            continue;
        }
        fields.append(name, value(bytes, field.value)?);
    }
    Ok((fields, facts))
}

impl Facts {
    /// Notes a field that ends at this hop.
    fn note(&mut self, name: &HeaderName, value: &[u8]) -> Result<(), Malformed> {
        if name == TRANSFER_ENCODING {
            // Any other coding would reach the client undone and unnamed.
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed);
            }
            self.chunked = true;
        } else if name == CONNECTION {
            self.options.read(value).map_err(|_| Malformed)?;
        } else if name == "keep-alive" {
            self.idle = announced(value);
        }
        Ok(())
    }
}

/// The number of seconds in `Keep-Alive: timeout=5, max=100`.
fn announced(value: &[u8]) -> Option<Duration> {
    let mut parts = std::str::from_utf8(value).ok()?.split(',');
    let seconds = parts.find_map(|part| part.trim().strip_prefix("timeout="))?;
    seconds.parse().ok().map(Duration::from_secs)
}

/// A field's value, as a part of the bytes that were read rather than a copy.
fn value(bytes: &Bytes, value: &[u8]) -> Result<HeaderValue, Malformed> {
    HeaderValue::from_maybe_shared(bytes.slice_ref(value)).map_err(|_| Malformed)
}

fn framing(
    status: StatusCode,
    to_head: bool,
    old: bool,
    facts: &Facts,
) -> Result<Framing, Malformed> {
    if facts.chunked && old {
        return Err(Malformed);
    }
    let bodiless = to_head
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    Ok(match facts.length {
        _ if bodiless => Framing::Done,
        _ if facts.chunked => Framing::Chunked(Chunked::default()),
        Some(0) => Framing::Done,
        Some(length) => Framing::Length(length),
        None => Framing::UntilClose,
    })
}

/// Reads a trailer section: field lines, each with its line end.
pub(super) fn trailers(section: &[u8]) -> Result<HeaderMap, Malformed> {
    let mut slots = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    let whole = [section, b"\r\n"].concat();
    let Ok(httparse::Status::Complete((_, parsed))) = httparse::parse_headers(&whole, &mut slots)
    else {
        return Err(Malformed);
    };
    let mut fields = HeaderMap::with_capacity(parsed.len());
    for field in parsed {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| Malformed)?;
        fields.append(name, value);
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &str) -> Result<Option<Answer>, Malformed> {
        Answer::parse(&Bytes::copy_from_slice(head.as_bytes()), false)
    }

    fn parsed(head: &str) -> Answer {
        parse(head).unwrap().unwrap()
    }

    #[test]
    fn framing_follows_the_rfc() {
        let kind = |head: &str| match parsed(head).body {
            Framing::Done => "done".to_owned(),
            Framing::Length(length) => length.to_string(),
            Framing::Chunked(_) => "chunked".to_owned(),
            Framing::UntilClose => "close".to_owned(),
        };
        assert_eq!(kind("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"), "5");
        assert_eq!(kind("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), "done");
        assert_eq!(kind("HTTP/1.1 200\r\ntransfer-encoding: Chunked\r\n\r\n"), "chunked");
        assert_eq!(kind("HTTP/1.1 200 OK\r\n\r\n"), "close");
        assert_eq!(kind("HTTP/1.1 204 No\r\ncontent-length: 5\r\n\r\n"), "done");
        assert_eq!(kind("HTTP/1.1 304 No\r\ncontent-length: 5\r\n\r\n"), "done");
        assert_eq!(kind("HTTP/1.1 101 Sw\r\n\r\n"), "done");
        let to_head = Bytes::from_static(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
        let answer = Answer::parse(&to_head, true).unwrap().unwrap();
        assert!(matches!(answer.body, Framing::Done) && answer.keep);
        assert_eq!(answer.head.headers[CONTENT_LENGTH], "5", "what a GET would have had");
    }

    #[test]
    fn only_a_connection_in_a_known_state_is_kept() {
        for head in [
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: x, Close\r\n\r\n",
            "HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 101 Switching\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n",
        ] {
            assert!(!parsed(head).keep, "{head}");
        }
        let twice = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n";
        assert!(!parsed(twice).head.headers.contains_key(CONTENT_LENGTH));
        assert!(parsed("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n").keep);
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for head in [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: \r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551616\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 042 What\r\n\r\n",
            "HTTP/1.1 1000 What\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx : y\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: y\r\n folded\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n",
            "<html>",
        ] {
            assert!(parse(head).is_err(), "{head}");
        }
        let many = "x: y\r\n".repeat(MAX_FIELDS + 1);
        assert!(parse(&format!("HTTP/1.1 200 OK\r\n{many}\r\n")).is_err());
    }

    #[test]
    fn equal_lengths_are_one_length() {
        let twice = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n";
        assert_eq!(parsed(twice).head.headers.get_all(CONTENT_LENGTH).iter().count(), 1);
    }

    #[test]
    fn what_ends_at_this_hop_does_not_come_out() {
        let answer = parsed(
            "HTTP/1.1 200 OK\r\nconnection: X-Inner, keep-alive\r\nx-inner: 1\r\nx: y\r\n\
             keep-alive: max=9, timeout=7\r\nupgrade: h2c\r\ncontent-length: 0\r\n\r\n",
        );
        let names: Vec<&str> = answer.head.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["content-length", "x"]);
        assert!(answer.keep);
        assert_eq!(answer.idle, Some(Duration::from_secs(7)));
    }

    #[test]
    fn trailers_are_fields() {
        let fields = trailers(b"grpc-status: 0\r\nx: y\r\n").unwrap();
        assert_eq!(fields["grpc-status"], "0");
        assert_eq!(fields.len(), 2);
        assert!(trailers(b"no colon\r\n").is_err());
    }
}
