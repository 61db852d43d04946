//! The little of HTTP/1.1 that the back end needs: whole requests with `Content-Length` or without
//! a body, and answers that were made beforehand.

use std::rc::Rc;

/// Answers by the last segment of the path.
pub(super) struct Answers {
    sized: Vec<(&'static [u8], Rc<[u8]>)>,
    unknown: Rc<[u8]>,
}

/// What the bytes read so far amount to.
pub(super) enum Next {
    /// A whole request of `used` bytes.
    Answer { answer: Rc<[u8]>, used: usize },
    /// The opening handshake of a WebSocket.
    Switch { used: usize },
    /// A part of one.
    More,
    /// Something that no peer should have sent.
    Wrong,
}

/// A head longer than this is none.
const MAX_HEAD: usize = 64 * 1024;

impl Answers {
    pub(super) fn new() -> Self {
        let sized = [(&b"128"[..], 128), (b"4k", 4 * 1024), (b"1m", 1024 * 1024), (b"health", 2)];
        let ok = |(name, size)| (name, answer("200 OK", &vec![b'x'; size]));
        Self { sized: sized.map(ok).into(), unknown: answer("404 Not Found", b"no such answer") }
    }

    fn of(&self, path: &[u8], body: &[u8]) -> Rc<[u8]> {
        let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
        let last = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        if last == b"echo" {
            return answer("200 OK", body);
        }
        let found = self.sized.iter().find(|(name, _)| *name == last);
        Rc::clone(found.map_or(&self.unknown, |(_, answer)| answer))
    }
}

/// Reads one request from the front of `bytes`.
pub(super) fn next(bytes: &[u8], answers: &Answers) -> Next {
    let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if bytes.len() > MAX_HEAD { Next::Wrong } else { Next::More };
    };
    let (head, rest) = bytes.split_at(head + 4);
    let mut lines = head.split(|byte| *byte == b'\n');
    let mut words = lines.next().unwrap_or_default().split(|byte| *byte == b' ');
    let (Some(_), Some(path), Some(b"HTTP/1.1\r")) = (words.next(), words.next(), words.next())
    else {
        return Next::Wrong;
    };
    let mut length = 0;
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = line.split_at(colon);
        if name.eq_ignore_ascii_case(b"content-length") {
            let value = std::str::from_utf8(value).unwrap_or_default();
            match value.trim_start_matches(':').trim().parse() {
                Ok(number) => length = number,
                Err(_) => return Next::Wrong,
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            return Next::Wrong;
        } else if name.eq_ignore_ascii_case(b"sec-websocket-key") {
            return Next::Switch { used: head.len() };
        }
    }
    match rest.get(..length) {
        Some(body) => Next::Answer { answer: answers.of(path, body), used: head.len() + length },
        None => Next::More,
    }
}

fn answer(status: &str, body: &[u8]) -> Rc<[u8]> {
    // The date is false and as long as a true one: every peer passes it on unread.
    let head = format!(
        "HTTP/1.1 {status}\r\nServer: origin\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
         Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> (String, usize) {
        match next(bytes, &Answers::new()) {
            Next::Answer { answer, used } => (String::from_utf8(answer.to_vec()).unwrap(), used),
            Next::More | Next::Switch { .. } => panic!("taken for something else"),
            Next::Wrong => panic!("taken for nonsense"),
        }
    }

    #[test]
    fn the_last_segment_chooses_the_answer() {
        let (answer, used) = whole(b"GET /any/where/128?x=1 HTTP/1.1\r\nHost: a\r\n\r\nGET");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with(&"x".repeat(128)), "{answer}");
        assert_eq!(used, 44);
    }

    #[test]
    fn a_body_comes_back_and_may_come_in_parts() {
        let request = b"POST /echo HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello";
        let (answer, used) = whole(request);
        assert!(answer.ends_with("Content-Length: 5\r\n\r\nhello"), "{answer}");
        assert_eq!(used, request.len());
        for end in 0..request.len() {
            assert!(matches!(next(&request[..end], &Answers::new()), Next::More), "{end}");
        }
    }

    #[test]
    fn what_no_proxy_should_send_is_refused() {
        for request in [
            &b"GET /128 HTTP/1.0\r\n\r\n"[..],
            b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"POST /echo HTTP/1.1\r\nContent-Length: 1x\r\n\r\n",
        ] {
            assert!(matches!(next(request, &Answers::new()), Next::Wrong));
        }
        assert!(whole(b"GET /none HTTP/1.1\r\n\r\n").0.starts_with("HTTP/1.1 404 "));
    }
}
