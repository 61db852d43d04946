//! The one request that is checked byte by byte before anything is measured: a proxy that answers
//! wrongly would otherwise look fast.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::failure::{Failure, Outcome};
use crate::workloads::Ask;

/// How long one answer may take, and how long a proxy may take until it answers at all.
const ANSWER: Duration = Duration::from_secs(10);
const READY: Duration = Duration::from_secs(60);

/// Waits until a proxy answers as it should; `gone` says that it has ended instead.
pub(crate) fn until_ready(ask: &Ask, port: u16, mut gone: impl FnMut() -> bool) -> Outcome<()> {
    let began = Instant::now();
    loop {
        let Err(Failure(why)) = check(ask, port) else { return Ok(()) };
        if gone() {
            return Err(Failure(format!("it has ended; before that: {why}")));
        }
        if began.elapsed() > READY {
            return Err(Failure(format!("not ready after {} s: {why}", READY.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Asks once and compares status and length.
fn check(ask: &Ask, port: u16) -> Outcome<()> {
    let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port)))?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(&request(ask))?;
    let answer = read(&mut stream)?;
    let (head, body) = split(&answer).ok_or_else(|| Failure::new("no whole answer"))?;
    let status = head.lines().next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 200 ") || body.len() != ask.answer {
        return Err(Failure(format!("`{status}` with {} bytes", body.len())));
    }
    Ok(())
}

fn request(ask: &Ask) -> Vec<u8> {
    let method = if ask.body.is_some() { "POST" } else { "GET" };
    let body = vec![b'x'; ask.body.unwrap_or(0)];
    let head = format!(
        "{method} {} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        ask.path,
        body.len()
    );
    [head.as_bytes(), &body].concat()
}

fn read(stream: &mut impl Read) -> Outcome<Vec<u8>> {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

fn split(answer: &[u8]) -> Option<(String, &[u8])> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(answer.get(..end)?).into_owned();
    Some((head, answer.get(end + 4..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn checked(answer: &'static str, wanted: usize) -> Outcome<()> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let done = check(&Ask { path: "/128", body: None, answer: wanted }, port);
        server.join().unwrap();
        done
    }

    #[test]
    fn status_and_length_must_be_as_expected() {
        assert!(checked("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nxx", 2).is_ok());
        assert!(checked("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", 2).is_err());
        assert!(checked("HTTP/1.1 502 Bad Gateway\r\n\r\nxx", 2).is_err());
        assert!(checked("", 2).is_err());
    }
}
