//! The one request that is checked before anything is measured: a proxy that answers wrongly, or
//! that admits everybody, would otherwise look fast.
//!
//! HTTP/2 is left to h2load, whose tally tells statuses and lengths of all answers.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use crate::failure::{Failure, Outcome};
use crate::load::Source;
use crate::request::Request;
use crate::workloads::{Front, Load};

/// How long one answer may take, and how long a proxy may take until it answers at all.
const ANSWER: Duration = Duration::from_secs(10);
const READY: Duration = Duration::from_secs(90);

/// Waits until a proxy answers as it should; `gone` says that it has ended instead.
pub(crate) fn until_ready(source: &Source<'_>, mut gone: impl FnMut() -> bool) -> Outcome<()> {
    let began = Instant::now();
    loop {
        let Err(Failure(why)) = check(source) else { return Ok(()) };
        if gone() {
            return Err(Failure(format!("it has ended; before that: {why}")));
        }
        if began.elapsed() > READY {
            return Err(Failure(format!("not ready after {} s: {why}", READY.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A request with a forged token must be refused with 401.
pub(crate) fn refuses_forged(source: &Source<'_>) -> Outcome<()> {
    let Some(forged) = Request::forged(source.workload, source.ground) else { return Ok(()) };
    let (status, _) = ask(&forged, source.port)?;
    if status.starts_with("HTTP/1.1 401 ") {
        return Ok(());
    }
    Err(Failure(format!("a forged token was answered with `{status}`")))
}

/// Whether one request is answered with the right status and length.
fn check(source: &Source<'_>) -> Outcome<()> {
    match (source.workload.front, source.workload.load) {
        // TLS, HTTP/2 and WebSocket: the generators look at every answer.
        (Front::Tls, _) | (_, Load::Messages { .. }) => reached(source.port),
        (Front::Http2 | Front::Http2Plain, _) => reached(source.port),
        (Front::Plain, _) => {
            let request = source.request();
            let (status, length) = ask(&request, source.port)?;
            if status.starts_with("HTTP/1.1 200 ") && length == request.answer {
                return Ok(());
            }
            Err(Failure(format!("`{status}` with {length} bytes")))
        }
    }
}

fn reached(port: u16) -> Outcome<()> {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map(|_| ()).map_err(Failure::from)
}

/// The status line and the length of the body.
fn ask(request: &Request, port: u16) -> Outcome<(String, usize)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(&request.bytes("Connection: close\r\n"))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.ok_or_else(|| Failure::new("no whole answer"))?;
    let head = String::from_utf8_lossy(answer.get(..end).unwrap_or_default()).into_owned();
    let status = head.lines().next().unwrap_or_default().to_owned();
    Ok((status, answer.len() - end - 4))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn status_and_length_are_told() {
        for (answer, wanted) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nxx", Some(("HTTP/1.1 200 OK", 2))),
            ("HTTP/1.1 502 Bad Gateway\r\n\r\n", Some(("HTTP/1.1 502 Bad Gateway", 0))),
            ("", None),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let read = stream.read(&mut [0; 1024]).unwrap();
                assert!(read > 0);
                stream.write_all(answer.as_bytes()).unwrap();
            });
            let request =
                Request { path: "/128".into(), fields: Vec::new(), body: None, answer: 2 };
            let told = ask(&request, port).ok();
            let told = told.as_ref().map(|(status, length)| (status.as_str(), *length));
            assert_eq!(told, wanted);
            server.join().unwrap();
        }
    }
}
