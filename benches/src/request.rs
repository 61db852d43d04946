//! A workload's request as it is sent: the same bytes, whoever sends them.

use serde::{Deserialize, Serialize};

use crate::ground::Ground;
use crate::workloads::{Back, Workload};

/// Method, path, fields and body, and how long the answer's body must be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) answer: usize,
}

impl Request {
    pub(crate) fn of(workload: &Workload, ground: &Ground) -> Self {
        let token = workload.chain.map(|chain| ground.token(chain.token).to_owned());
        Self::with_token(workload, token.as_deref())
    }

    /// The same with a token that must be refused; nothing where no token is asked for.
    pub(crate) fn forged(workload: &Workload, ground: &Ground) -> Option<Self> {
        let token = ground.forged(workload.chain?.token);
        Some(Self::with_token(workload, Some(&token)))
    }

    fn with_token(workload: &Workload, token: Option<&str>) -> Self {
        let ask = &workload.ask;
        let mut fields: Vec<(String, String)> = Vec::new();
        let mut field = |name: &str, value: String| fields.push((name.to_owned(), value));
        if let Some(token) = token {
            field("Authorization", format!("Bearer {token}"));
        }
        let body = match workload.back {
            Back::Grpc => {
                field("content-type", "application/grpc".into());
                field("te", "trailers".into());
                ask.body.map(message)
            }
            Back::Http | Back::WebSocket => ask.body.map(|size| vec![b'x'; size]),
        };
        Self { path: ask.path.clone(), fields, body, answer: ask.answer }
    }

    pub(crate) fn method(&self) -> &'static str {
        if self.body.is_some() { "POST" } else { "GET" }
    }

    /// The request as HTTP/1.1; `more` are whole lines of further fields.
    pub(crate) fn bytes(&self, more: &str) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: 127.0.0.1\r\n", self.method(), self.path);
        for (name, value) in &self.fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = &self.body {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str(more);
        head.push_str("\r\n");
        [head.as_bytes(), self.body.as_deref().unwrap_or_default()].concat()
    }
}

/// A gRPC message of `size` bytes with its prefix: not compressed, and its length.
fn message(size: usize) -> Vec<u8> {
    let length = u32::try_from(size.saturating_sub(5)).unwrap_or(0);
    let mut message = vec![0];
    message.extend_from_slice(&length.to_be_bytes());
    message.resize(size, b'x');
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workloads;

    #[test]
    fn a_post_says_how_long_it_is_and_a_get_does_not() {
        let named = |name: &str| {
            let workload = workloads::all().into_iter().find(|it| it.name == name).unwrap();
            Request::with_token(&workload, Some("t"))
        };
        let post = String::from_utf8(named("post-16k").bytes("")).unwrap();
        assert!(post.starts_with("POST /echo HTTP/1.1\r\nHost: "), "{post}");
        assert!(post.contains("\r\nContent-Length: 16384\r\n"), "{post}");
        let get = String::from_utf8(named("get-128").bytes("Connection: close\r\n")).unwrap();
        assert!(get.ends_with("Authorization: Bearer t\r\nConnection: close\r\n\r\n"), "{get}");
        assert_eq!(named("grpc").body.unwrap()[..6], [0, 0, 0, 0, 59, b'x']);
    }
}
